"""A spec of one's own: from its file to a class in use, in this process and in another, with and without a compiler."""

from __future__ import annotations

import contextlib
import copy
import inspect
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import optgen
from optgen.codegen import module_source, spec_source
from optgen.compiler import catalogue, driver
from optgen.errors import ArgumentError, SpecError
from optgen.optimiser import classes

SPEC = """
name = "Slow"
summary = "Half of \\\\ what it \\"\\"\\" should."
[hyperparameters]
eta = { default = 0.5, range = "[0, 1]", doc = "how slow" }
[flags]
upwards = { default = false, doc = "the wrong way" }
[state]
total = { init = "0", doc = "what was given so far" }
[update]
formulas = '''
total = total + g
delta = -eta*g if upwards else eta*g
'''
"""


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text(SPEC)
    return path


def python(code, *arguments, **environment):
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], env=variables, capture_output=True)


@pytest.mark.parametrize("kind", [Path, str])
def test_a_spec_becomes_a_class_like_any_other(spec, kind):
    cls = optgen.load(kind(spec))
    assert cls is optgen.load(spec)
    assert str(inspect.signature(cls)) == (
        "(eta: float = 0.5, *, upwards: bool = False, "
        "backend: str = 'kernel', storage: str | collections.abc.Mapping[str, str] | None = None,"
        " rounding: str | collections.abc.Mapping[str, str] | None = None, seed: int | None = None) -> None"
    )
    assert "how slow; in [0, 1]; default 0.5" in cls.__doc__
    assert "the wrong way; default False" in cls.__doc__
    for flags, ends in (({}, 0.5), ({"upwards": True}, 1.5)):
        for backend in ("kernel", "interpreter"):
            p, opt = np.ones(3, np.float32), cls(**flags, backend=backend)
            opt.step([p], [np.ones(3, np.float32)])
            assert (p == ends).all()
            assert (opt.state(p)["total"] == 1).all()


COUNTED = """
import sys, pickle, numpy as np, optgen
from optgen.compiler import driver
from optgen.language import parse as module
from optgen.optimiser import classes
parse, count = module.parse, []
module.parse = lambda text, file, lengths: (count.append(file), parse(text, file, lengths))[1]
if sys.argv[2] == "anew":
    classes.built_library = driver.built_library = lambda *wanted: None
else:
    built = {path.name for path in (driver.SPECS / "adam.toml", driver.SPECS / "torch_adam.toml")
             if driver.built_library(classes.BUILD / f"{path.stem}.json", driver.fingerprint(path.read_text("utf-8")))}
    print(*sorted(built))
for cls in (optgen.load(sys.argv[1]), optgen.ADAM, optgen.Adam):
    pickle.loads(pickle.dumps(cls(backend="interpreter")))
assert (optgen.ADAM._compilation.stem, optgen.Adam._compilation.stem) == ("adam", "torch_adam")
print(sorted(count))
"""


@pytest.mark.parametrize("kind", ["built", "anew"])
def test_a_rule_is_parsed_once_in_a_process_and_a_built_one_never(spec, kind):
    lines = python(COUNTED, spec, kind)
    assert lines.returncode == 0, lines.stderr.decode()
    *built, parsed = lines.stdout.decode().splitlines()
    assert parsed == repr(sorted({"adam.toml", "my.toml", "torch_adam.toml"} - {*" ".join(built).split()}))


def test_a_class_made_directly_is_that_of_its_generated_module(spec):
    for compilation in (driver.compile_file(spec), *map(driver.compile_file, catalogue.shipped())):
        names: dict[str, object] = {"__file__": f"{compilation.stem}.py"}
        exec(compile(compilation.python_source, "made.py", "exec", dont_inherit=True), names)
        made, direct = names[compilation.name], classes.module_class(compilation)
        assert inspect.signature(direct) == inspect.signature(made)
        assert direct.__doc__ == made.__doc__


def test_an_optimiser_of_it_can_be_copied_and_pickled_into_another_process(spec, tmp_path):
    opt, p = optgen.load(spec)(η=0.25, upwards=True), np.ones(3)
    opt.step([p], [np.ones(3)])
    for twin in (copy.copy(opt), copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert type(twin) is optgen.load(spec)
        assert repr(twin) == repr(opt) == "Slow(eta=0.25, upwards=True)"
    stored = tmp_path / "opt.pickle"
    stored.write_bytes(pickle.dumps(opt))
    spec.unlink()  # the pickle holds what it needs
    code = """
import pickle, sys, numpy as np
opt = pickle.load(open(sys.argv[1], "rb"))
p = np.ones(3)
opt.step([p], [np.ones(3)])
state = opt.state(p)
print(opt, state["total"][0], state["t"], p[0], type(pickle.loads(pickle.dumps(opt))) is type(opt))
"""
    done = python(code, stored)
    assert done.stdout.decode().split("\n")[0] == "Slow(eta=0.25, upwards=True) 2.0 2 1.25 True", done.stderr.decode()


def test_shipped_rules_are_pickled_into_another_process_by_name():
    p, opt = np.ones(3), optgen.ADAM(0.25)
    opt.step([p], [np.ones(3)])
    code = "import pickle, sys; opt = pickle.load(sys.stdin.buffer); print(opt, len(opt.state_dict()['parameters']))"
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    dumped = pickle.dumps(opt)
    assert b"optgen" in dumped
    assert b"formulas" not in dumped
    done = subprocess.run([sys.executable, "-c", code], env=variables, input=dumped, capture_output=True)
    assert done.stdout.decode().strip() == f"{opt!r} 1", done.stderr.decode()


def test_an_edited_spec_is_another_class(spec):
    first = optgen.load(spec)
    spec.write_text(SPEC.replace("default = 0.5", "default = 0.75"))
    assert optgen.load(spec) is not first
    assert (first().eta, optgen.load(spec)().eta) == (0.5, 0.75)


def test_a_broken_spec_lists_its_faults(spec):
    spec.write_text(SPEC.replace("default = 0.5", "default = 5").replace("-eta*g if", "-etaa*g if"))
    with pytest.raises(SpecError) as error:
        optgen.load(spec)
    assert len(error.value.diagnostics) == 2
    assert "my.toml:5:" in str(error.value)
    assert "my.toml:13:" in str(error.value)
    assert "etaa" in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(optgen.OptgenError, match=r"nothing\.toml: expected a spec, got an error: no such file"):
        optgen.load(tmp_path / "nothing.toml")
    with pytest.raises(optgen.OptgenError, match="expected a spec"):
        optgen.load(tmp_path)


def test_without_a_compiler_the_first_step_says_what_to_do_and_the_interpreter_works(spec, tmp_path):
    code = """
import pickle, sys, numpy as np, optgen
from optgen.errors import CompilerNotFound
from optgen.optimiser.base import engine_of
cls = optgen.load(sys.argv[1])
p, opt = np.ones(3), cls()
before = pickle.dumps(opt)
for _ in range(2):
    try:
        opt.step([p], [np.ones(3)])
    except CompilerNotFound as error:
        print(str(error).replace("\\n", " "))
    assert pickle.dumps(opt) == before and not engine_of(opt).begun and (p == 1).all()
opt = cls(backend="interpreter")
opt.step([p], [np.ones(3)])
assert (p == 0.5).all()
"""
    empty = tmp_path / "cache"
    empty.mkdir(mode=0o700)
    done = python(code, spec, CC="/nonexistent", OPTGEN_CACHE_DIR=str(empty))
    assert done.returncode == 0, done.stderr.decode()
    first, second = done.stdout.decode().splitlines()
    assert first == second
    assert "/nonexistent" in first
    assert "hint:" in first
    assert "interpreter" in first


def test_the_text_of_a_spec_is_no_path_of_one():
    with pytest.raises(ArgumentError, match="expected the path of a spec, got its text"):
        optgen.load('name = "Mine"\n[update]\n')


def test_a_mark_at_the_beginning_of_a_file_is_no_part_of_the_spec(tmp_path):
    text = (driver.SPECS / "descent.toml").read_text("utf-8")
    (tmp_path / "marked.toml").write_text(text, "utf-8-sig")
    assert optgen.load(tmp_path / "marked.toml").__name__ == "Descent"


EVERYWHERE = """
import sys, numpy as np, optgen
from optgen.cli import main
p, path = np.ones(3), sys.argv[1]
opt = optgen.load(path)()
opt.step([p], [np.ones(3)])
assert p[0] == 0.5 and opt.__doc__
for words in (["check", path], ["show", path], ["show", path, "--as", "c"], ["doctor"],
              ["build", path, "--out", sys.argv[2]]):
    try:
        main(words)
    except SystemExit as end:
        assert words == ["doctor"] or not end.code, words
try:
    optgen.load(path + "x")
except optgen.OptgenError as error:
    print(str(error).encode())
"""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(("name", "locale"), [(b"\xff\xfe", {}), ("βeta".encode(), ASCII)], ids=["bytes", "not ASCII"])
def test_files_and_folders_may_have_any_name(name: bytes, locale: dict[str, str], tmp_path: Path) -> None:
    folder = os.path.join(os.fsencode(tmp_path), name)
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system has no such names")
    path = os.path.join(folder, name + b".toml")
    Path(os.fsdecode(path)).write_text(SPEC)
    done = subprocess.run(
        [sys.executable, "-c", EVERYWHERE, path, os.path.join(folder, b"out")],
        env=os.environb
        | {os.fsencode(key): os.fsencode(value) for key, value in locale.items()}
        | {b"OPTGEN_CACHE_DIR": os.path.join(folder, b"cache"), b"PYTHONPATH": os.fsencode(os.pathsep.join(sys.path))},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert b"expected a spec, got an error: no such file" in done.stdout
    assert b"Unicode" not in done.stderr


@pytest.mark.parametrize("path", ["no\0file", "no \ud800 file", "/dev/zero"], ids=["NUL", "half a letter", "endless"])
def test_what_can_be_no_spec_is_refused(path: str) -> None:
    with pytest.raises(optgen.OptgenError, match="expected a spec") as error:
        optgen.load(path)
    str(error.value).encode()


# What the class says of itself


def documented(body: str, **tables: str) -> str:
    """The docstring of a rule with these formulas and tables, and with `top` above them."""
    hypers = 'eta = { default = 0.5, range = "[0, 1]" }\nkeep = { default = 0, range = "[0, 1)" }'
    tables = {"hyperparameters": hypers} | tables
    text = 'name = "Said"\n' + tables.pop("top", "")
    text += "".join(f"\n[{name}]\n{entries}\n" for name, entries in tables.items())
    compilation = driver.compile_text(f"{text}\n[update]\nformulas = '''\n{body}\n'''\n", "said.toml")
    source = module_source.module_source(compilation.rules, compilation.text, compilation.file, compilation.open)
    names: dict[str, object] = {"__file__": "said.py"}
    exec(source, names)
    return inspect.getdoc(names["Said"]) or ""


BUFFERED = """
buffered = { default = "keep != 0" }
ahead    = { default = false, requires = "buffered" }
uphill   = { default = false }
"""
MOVES = """
slope  = -g if uphill else g
unread = slope
buffer = keep*buffer + unread
delta  = eta*((slope + keep*buffer if ahead else buffer) if buffered else slope)
"""


def test_a_docstring_shows_each_flag_with_those_that_it_requires():
    doc = documented(MOVES, flags=BUFFERED, state='buffer = { init = 0, when = "buffered" }')
    assert "Each step runs, in this order:\n\n    slope ← g\n    Δ ← η·slope\n    p ← p − Δ\n\n" in doc
    kept = "    unread ← slope\n    buffer ← keep·buffer + unread\n"
    assert f"with buffered=True:\n\n{kept}    Δ ← η·buffer\n\n" in doc
    assert f"with buffered=True, ahead=True:\n\n{kept}    Δ ← η·(slope + keep·buffer)\n\n" in doc
    assert "with uphill=True:\n\n    slope ← −g\n\n" in doc
    assert doc.count("with ") == 4  # and of the state
    assert "buffer: a state; shaped as p; starts as 0; only with buffered=True\n" in doc
    assert "buffered: a flag; default whether keep ≠ 0\n" in doc
    assert "ahead: a flag; requires buffered; default False\n" in doc


def test_a_docstring_shows_both_shapes_of_parameters():
    states = """
r = { init = 0, extent = "row", when = "matrix" }
c = { init = 0, extent = "column", when = "matrix" }
k = { init = 0, extent = "matrix", when = "matrix" }
e = { init = 0, when = "not matrix" }
n = { init = 0, extent = "tensor" }
d = { init = 0, extent = "group" }
"""
    body = """
r = r + mean(g, row)
c = c + mean(g, column)
k = k + sum(g, matrix)
e = e + keep*g
n = n + norm(g)
d = d + norm(g, group)
s = r + c + k if matrix else (-e if uphill else e)
delta = (-eta if uphill else eta)*s + n + d
"""
    doc = documented(body, flags="uphill = { default = false }", state=states)
    assert "Each step runs, in this order, for parameters of two or more dimensions:\n\n    r ← r" in doc
    assert "for parameters of fewer than two dimensions:\n\n    e ← e + keep·g\n    s ← e\n\n" in doc
    assert "with uphill=True:\n\n    Δ ← −η·s + n + d\n\n" in doc
    assert "with uphill=True, for parameters of fewer than two dimensions:\n\n    s ← −e\n\n" in doc
    kept = {
        "r": "one for each row; starts as 0; only for parameters of two or more dimensions",
        "c": "one for each column; starts as 0; only for parameters of two or more dimensions",
        "k": "one for each matrix; starts as 0; only for parameters of two or more dimensions",
        "e": "shaped as p; starts as 0; only for parameters of fewer than two dimensions",
        "n": "one number; starts as 0",
        "d": "one number for all parameters; starts as 0",
    }
    for name, words in kept.items():
        assert f"    {name}: a state; {words}\n" in doc


def test_a_state_of_some_variants_says_so_where_no_one_flag_decides():
    flags = "a = { default = false }\nb = { default = false }"
    doc = documented("m = m + g\ndelta = eta*keep*(m if a and b else g)", flags=flags,
                     state='m = { init = 0, when = "a and b" }')  # fmt: skip
    assert "m: a state; shaped as p; starts as 0; not in every variant\n" in doc


def test_rows_that_are_slices_of_the_first_dimension_are_called_so():
    state = 'r = { init = 0, extent = "row", when = "matrix" }'
    text = "r = r + mean(g, row)\ndelta = eta*keep*(r if matrix else g)\n'''\nmatrices = '''first by rest"
    assert "one for each row (a slice of the first dimension)" in documented(text, state=state)


def test_a_docstring_has_origin_notes_and_what_given_names_mean():
    top = "origin = 'Else\"\"\"where'\nnotes = '''\nMuch is to be said,\n  " + "and said again, " * 30 + "\\\\ \"'''\n"
    doc = documented("delta = eta*keep*g*t*size/norm(g)", top=top)
    assert doc.endswith("\n\nOrigin: Else'''where")
    assert "\nNotes: Much is to be said, and said again," in doc
    assert max(map(len, doc.splitlines())) <= 112
    words = " ".join(doc.split())
    assert "where g is the gradient, p the parameter, t the count of its updates, size the number" in words
    assert "of its elements; reductions go over a whole parameter, unless they name something else." in words
    bare = documented("delta = eta*keep*g")
    assert "where g is the gradient, p the parameter.\n" in bare
    assert "Notes" not in bare
    assert "Origin" not in bare


def test_a_part_of_chains_says_what_comes_in_and_what_goes_on():
    doc = documented("delta = eta*keep*g*grad", top='part = "gradient"')
    assert "Each step runs, in this order:\n\n    Δ ← η·keep·g·grad\n\nwhere g is what comes in" in doc
    assert "A part of chains: see `optgen.chain`.\n" in doc
    doc = documented("p = eta*keep*new", top='part = "parameter"')
    assert "    p ← η·keep·new\n\nwhere p is the parameter before the step, new as the parts before leave it.\n" in doc
    assert "A part of chains, behind a rule: see `optgen.chain`.\n" in doc


def test_the_docstring_of_every_shipped_rule_says_all_of_it():
    for name, path in catalogue.shipped_names().items():
        rules = driver.compile_file(path).rules
        doc = " ".join((inspect.getdoc(getattr(optgen, name)) or "").replace("\\", "").split())
        for words in (rules[0].summary, rules[0].notes, rules[0].reference, rules[0].origin):
            assert " ".join(words.replace("\\", "").split()) in doc
        for state in {state for rule in rules for state in rule.states}:
            assert f"{state.name}: {state.doc}" in doc


# What `optgen new` writes


@pytest.fixture(params=["kernel", "interpreter"])
def backend(request):
    return request.param


def trained(opt) -> list[float]:
    """The loss before each step of a small regression."""
    rng = np.random.default_rng(0)
    a, b = rng.random((20, 3)), rng.random(20)
    w, losses = np.zeros(3), []
    for _ in range(30):
        error = a @ w - b
        losses.append(float(error @ error) / 20)
        opt.step([w], [2 * a.T @ error / 20])
    return losses


@pytest.mark.parametrize("part", ["", "gradient", "parameter"])
def test_a_new_spec_trains(part, backend, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(spec_source.spec_source("Mine", part, path.name, "Descent"), "utf-8")
    opt = optgen.load(path)(backend=backend)
    other = optgen.Descent(0.05, backend=backend)
    if part:
        opt = optgen.chain(*((opt, other) if part == "gradient" else (other, opt)), backend=backend)
    losses = trained(opt)
    assert losses[-1] < losses[0] / 2


def test_the_average_of_a_new_part_follows_the_parameter(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(spec_source.spec_source("Mine", "parameter", path.name, "Descent"), "utf-8")
    opt = optgen.chain(optgen.Descent(1), optgen.load(path)(rho=0.75))
    p = np.zeros(2)
    for expected in (-0.25, -0.6875):
        opt.step([p], [np.ones(2)])
        assert opt.state(p)["avg"].tolist() == [expected] * 2
    assert p.tolist() == [-2, -2]


# What the package exports


def test_everything_is_exported_to_who_asks_for_everything():
    names: dict[str, object] = {}
    exec("from optgen import *", names)
    assert {"ADAM", "Descent", "param", "train", "load", "update"} <= names.keys()
    assert {name for name in dir(optgen) if not name.startswith("_")} == names.keys() - {"__builtins__"}


@pytest.mark.parametrize("before", ["optgen.Optimiser", "from optgen import *", "pickle.loads(pickle.dumps(two()))"])
def test_chain_is_the_function_whatever_was_loaded_before(before):
    code = f"""
import pickle, optgen
def two():
    from optgen import Descent, Optimiser
    return Optimiser(Descent(), Descent(), backend="interpreter")
{before}
print(len(optgen.chain(optgen.Descent(), optgen.Descent())))
"""
    done = python(code)
    assert done.stdout.decode() == "2\n", done.stderr.decode()


# ---- Waiting for the compiler ----

KERNELS = """
import sys, numpy as np, optgen
from pathlib import Path
own = optgen.load(sys.argv[1])
for cls, dtype in (own, np.float32), (own, np.float64), (lambda: own(upwards=True), np.float32), (own, np.float32):
    cls().step([np.ones(3, dtype)], [np.ones(3, dtype)])
    print(len(list(Path(sys.argv[2]).glob("*/slow.so"))))
"""


def test_a_kernel_is_compiled_when_it_is_needed_and_no_other_with_it(spec, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    done = python(KERNELS, spec, cache, OPTGEN_CACHE_DIR=str(cache))
    assert done.stdout.split() == [b"1", b"2", b"3", b"3"], done.stderr.decode()
    sources = [path.read_text("utf-8") for path in cache.glob("*/slow.c")]
    assert sorted(source.count(".variant = ") for source in sources) == [1, 1, 1]


SLOW_COMPILER = """#!/bin/sh
case "$*" in *-shared*) sleep {seconds};; esac
exec cc "$@"
"""
FIRST_STEP = """
import sys, numpy as np, optgen
optgen.load(sys.argv[1])().step([np.ones(3)], [np.ones(3)])
"""


def said_while_compiling(spec: Path, folder: Path, seconds: float, terminal: bool) -> str:
    """What a first step writes to the standard error, a terminal or a pipe, while a compiler takes its time."""
    compiler = folder / "slow-cc"
    compiler.write_text(SLOW_COMPILER.format(seconds=seconds))
    compiler.chmod(0o755)
    cache = folder / "cache"
    cache.mkdir(mode=0o700)
    ours, theirs = os.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", FIRST_STEP, str(spec)],
        stderr=theirs,
        env={**os.environ, "CC": str(compiler), "OPTGEN_CACHE_DIR": str(cache), "TERM": "xterm", "NO_COLOR": "1"},
    )
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody is at its other end
        while part := os.read(ours, 4096):
            said += part
    os.close(ours)
    assert process.wait() == 0, said.decode()
    return said.decode()


def test_a_terminal_shows_what_takes_longer_than_a_second(spec, tmp_path):
    said = said_while_compiling(spec, tmp_path, 2.5, terminal=True)
    assert "optgen compiles slow; the result is kept" in said


def test_no_terminal_shows_nothing(spec, tmp_path):
    assert said_while_compiling(spec, tmp_path, 1.5, terminal=False) == ""


def from_four_threads(make: Callable[[], object]) -> list[object]:
    """What four threads get that ask for the same thing at once."""
    start = threading.Barrier(4)
    found: list[object] = []

    def ask() -> None:
        start.wait()
        found.append(make())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_threads_that_load_a_rule_at_once_get_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "slow.toml"
    path.write_text(SPEC.replace('"Slow"', '"FirstOfAll"'), "utf-8")
    build = classes.new_class

    def slowly(*arguments: Any) -> type:
        time.sleep(0.05)
        return build(*arguments)

    monkeypatch.setattr(classes, "new_class", slowly)
    found = from_four_threads(lambda: optgen.load(path))
    assert len(found) == 4
    assert len(set(found)) == 1
