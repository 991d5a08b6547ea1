"""A spec of one's own: from its file to a class in use, in this process and in another, with and without a compiler."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import optgen
from optgen import driver
from optgen.errors import ArgumentError, SpecError

SPEC = """
name = "Slow"
summary = "Half of \\\\ what it \\"\\"\\" should."
[hyperparameters]
eta = { default = 0.5, range = "[0, 1]", doc = "how slow" }
[flags]
upwards = { default = false, doc = "the wrong way" }
[state]
sum = { init = "0", doc = "what was given so far" }
[update]
formulas = '''
sum = sum + g
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
        "(eta: float = 0.5, *, upwards: bool = False, backend: str = 'kernel') -> None"
    )
    assert "how slow; in [0, 1]; default 0.5" in cls.__doc__
    assert "the wrong way; default False" in cls.__doc__
    for flags, ends in (({}, 0.5), ({"upwards": True}, 1.5)):
        for backend in ("kernel", "interpreter"):
            p, opt = np.ones(3, np.float32), cls(**flags, backend=backend)
            opt.step([p], [np.ones(3, np.float32)])
            assert (p == ends).all()
            assert (opt.state(p)["sum"] == 1).all()


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
print(opt, state["sum"][0], state["t"], p[0], type(pickle.loads(pickle.dumps(opt))) is type(opt))
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
    with pytest.raises(optgen.OptgenError, match=r"nothing\.toml: a spec was expected: No such file"):
        optgen.load(tmp_path / "nothing.toml")
    with pytest.raises(optgen.OptgenError, match="a spec was expected"):
        optgen.load(tmp_path)


def test_without_a_compiler_the_first_step_says_what_to_do_and_the_interpreter_works(spec, tmp_path):
    code = """
import pickle, sys, numpy as np, optgen
from optgen.errors import CompilerNotFound
cls = optgen.load(sys.argv[1])
p, opt = np.ones(3), cls()
before = pickle.dumps(opt)
for _ in range(2):
    try:
        opt.step([p], [np.ones(3)])
    except CompilerNotFound as error:
        print(str(error).replace("\\n", " "))
    assert pickle.dumps(opt) == before and len(opt._states) == len(opt._plans) == 0 and (p == 1).all()
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
    with pytest.raises(ArgumentError, match="the path of a spec was expected, got its text"):
        optgen.load('name = "Mine"\n[update]\n')


def test_a_mark_at_the_beginning_of_a_file_is_no_part_of_the_spec(tmp_path):
    text = (driver.SPECS / "descent.toml").read_text("utf-8")
    (tmp_path / "marked.toml").write_text(text, "utf-8-sig")
    assert optgen.load(tmp_path / "marked.toml").__name__ == "Descent"


def test_everything_is_exported_to_who_asks_for_everything():
    names: dict[str, object] = {}
    exec("from optgen import *", names)
    assert {"ADAM", "Descent", "param", "train", "load", "update"} <= names.keys()
    assert {name for name in dir(optgen) if not name.startswith("_")} == names.keys() - {"__builtins__"}
