"""What `optgen build` promises: what is current stays, what is not is made, and nothing that goes wrong harms the next.

Most builds are of one small rule, in this process; those that need a second process, or optgen's own build folder, run
in a copy of the checkout.
"""

from __future__ import annotations

import fcntl
import importlib.util
import inspect
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from optgen import paths as resources
from optgen.cli import commands as cli
from optgen.compiler import build as builder
from optgen.compiler import catalogue, lock, toolchain
from optgen.compiler.driver import compile_built
from optgen.lowering.programs import programs_of
from optgen.runtime.library import runtime
from optgen.runtime.program_kernel import segments_for

ROOT = Path(cli.__file__).parents[2]
PLAIN = """
name = "{name}"
summary = "Downhill."
[hyperparameters]
eta = {{ default = 0.5, range = "[0, inf)", doc = "learning rate" }}
[update]
formulas = "delta = {formula}"
"""
FILES = ("libplain.so", "plain.c", "plain.json", "plain.py", "plain.rules")


def write_spec(folder: Path, name: str = "Plain", formula: str = "eta*g") -> Path:
    path = folder / f"{name.lower()}.toml"
    path.write_text(PLAIN.format(name=name, formula=formula))
    return path


def build(*arguments: Any) -> Result:
    return CliRunner().invoke(cli.main, ["build", *map(str, arguments)])


def made(result: Result) -> set[str]:
    """What a build that went well says it has made, by stems."""
    assert result.exit_code == 0, result.output
    stems = re.findall(r"^built (\w+) \(\d+\.\d s\)$", result.stdout, re.MULTILINE)
    assert len(stems) == len(set(stems))
    return set(stems)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"made.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return write_spec(tmp_path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes $CC a script that runs the given shell text if it is to build, notes that, and then runs `cc`."""

    def write(before_building: str) -> Path:
        script, log = tmp_path / "compiler", tmp_path / "compiler.log"
        script.write_text(
            f'#!/bin/sh\ncase " $* " in *" -shared "*) echo "$@" >> "{log}"; {before_building};; esac\nexec cc "$@"\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("CC", str(script))
        return log

    return write


#: The specs of the copied checkout; the README's `optgen build` (test_readme) builds all of them.
SOME = ("adam", "torch_adam", "descent", "sm3", "lookahead")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, with a few specs, in which everything is built."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("optgen", "templates"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "specs").mkdir()
    for stem in SOME:
        shutil.copy(ROOT / "specs" / f"{stem}.toml", root / "specs")
    done = subprocess.run(command("build"), **within(root), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{len(builder.OWN) + len(SOME)} built, 0 up to date in build (" in done.stdout
    return root


def command(*arguments: Any) -> list[str]:
    return [sys.executable, "-m", "optgen", *map(str, arguments)]


def within(root: Path, **more: str) -> dict[str, Any]:
    """For subprocess: in the copy `root`, with its optgen."""
    ours = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "", "OPTGEN_CACHE_DIR": str(root / "cache")}
    return {"cwd": root, "env": {**os.environ, **ours, **more}}


# What is made, and when


def test_a_spec_becomes_a_module_its_library_its_source_and_a_record(spec: Path, out: Path) -> None:
    result = build(spec, "--out", out)
    assert made(result) == {"plain"}
    assert f"1 built, 0 up to date in {out} (" in result.stdout
    assert {path.name for path in out.iterdir()} == {*FILES, ".lock"}


def test_a_second_build_does_nothing_and_says_so(spec: Path, out: Path, compiler: Callable[[str], Path]) -> None:
    log = compiler(":")
    build(spec, "--out", out)
    before = {name: (out / name).stat().st_mtime_ns for name in FILES}
    result = build(spec, "--out", out)
    assert result.stdout == f"1 up to date in {out}, nothing to do\n"
    assert {name: (out / name).stat().st_mtime_ns for name in FILES} == before
    assert len(log.read_text().splitlines()) == 1


def test_an_edited_spec_is_built_again_and_no_other(tmp_path: Path, spec: Path, out: Path) -> None:
    other = write_spec(tmp_path, "Other")
    assert made(build(spec, other, "--out", out)) == {"plain", "other"}
    write_spec(tmp_path, formula="eta*(g + p)")
    result = build(spec, other, "--out", out)
    assert made(result) == {"plain"}
    assert "1 built, 1 up to date" in result.stdout
    assert "g + p" in (out / "plain.c").read_text()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda out: (out / "libplain.so").unlink(), id="library gone"),
        pytest.param(lambda out: flip(out / "libplain.so"), id="library damaged"),
        pytest.param(lambda out: (out / "libplain.so").write_bytes(b""), id="library empty"),
        pytest.param(lambda out: (out / "plain.py").unlink(), id="module gone"),
        pytest.param(lambda out: (out / "plain.py").write_text(""), id="module empty"),
        pytest.param(lambda out: flip(out / "plain.c"), id="source damaged"),
        pytest.param(lambda out: (out / "plain.json").unlink(), id="record gone"),
        pytest.param(lambda out: (out / "plain.json").write_text(""), id="record empty"),
        pytest.param(lambda out: (out / "plain.json").write_text('{"fingerprint": "older"}'), id="record old"),
        pytest.param(
            lambda out: (out / "plain.json").write_text(
                json.dumps({**json.loads((out / "plain.json").read_text()), "files": ["libplain.so"]})
            ),
            id="record of another form",
        ),
    ],
)
def test_what_is_damaged_is_built_again(damage: Callable[[Path], None], spec: Path, out: Path) -> None:
    build(spec, "--out", out)
    before = {name: (out / name).read_bytes() for name in FILES}
    damage(out)
    assert made(build(spec, "--out", out)) == {"plain"}
    assert {name: (out / name).read_bytes() for name in FILES} == before


def test_another_compiler_builds_again(spec: Path, out: Path, compiler: Callable[[str], Path]) -> None:
    build(spec, "--out", out)
    compiler(":")
    assert made(build(spec, "--out", out)) == {"plain"}


def test_one_spec_given_twice_is_built_once(spec: Path, out: Path, compiler: Callable[[str], Path]) -> None:
    log = compiler(":")
    assert made(build(spec, spec, spec.parent / "." / spec.name, "--out", out)) == {"plain"}
    assert len(log.read_text().splitlines()) == 1


def test_without_specs_every_one_that_ships_is_built_into_files_of_its_own() -> None:
    stems = [job.stem for job in builder.jobs(list(catalogue.shipped()))]
    assert stems == ["runtime", "storages", *(path.stem for path in catalogue.shipped())]
    assert len({stem.lower() for stem in stems}) == len(stems)


def test_the_default_folder_is_build_in_the_current_one(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "1 built, 0 up to date in build (" in build(spec).stdout
    assert (tmp_path / "build" / "libplain.so").is_file()


def test_jobs_bounds_how_many_compilers_run_at_a_time(
    tmp_path: Path, out: Path, compiler: Callable[[str], Path]
) -> None:
    busy = tmp_path / "busy"
    compiler(f'mkdir "{busy}" || exit 7; sleep 0.1; rmdir "{busy}"')
    specs = [write_spec(tmp_path, name) for name in ("One", "Two", "Three")]
    assert made(build(*specs, "--out", out, "--jobs", 1)) == {"one", "two", "three"}


def test_on_a_terminal_a_bar_shows_how_far_it_is(checkout: Path, spec: Path, out: Path) -> None:
    master, terminal = pty.openpty()
    there = within(checkout, TERM="xterm-256color", COLUMNS="80")
    with subprocess.Popen(
        command("build", spec, "--out", out), stdout=subprocess.PIPE, stderr=terminal, **there
    ) as run:
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # which is how Linux says that nobody has the terminal open any more
            while chunk := os.read(master, 4096):
                shown += chunk
        os.close(master)
        said = run.stdout.read().decode() if run.stdout else ""
    assert "building" in shown.decode()
    assert "100%" in shown.decode()
    assert said.startswith("built plain (")
    assert "\x1b" not in said


# The modules that come out


def test_a_module_needs_no_compiler_and_runs_the_library_beside_it(checkout: Path, spec: Path, out: Path) -> None:
    made_here = subprocess.run(command("build", spec, "--out", out), **within(checkout), capture_output=True)
    assert made_here.returncode == 0, made_here.stderr
    assert made_here.stderr == b""  # and no note: the runtime is built in this checkout
    program = """
import numpy as np, pathlib, plain
from optgen import Descent
for rule in (plain.Plain(), Descent(eta=0.5)):
    p = np.ones(5, np.float32)
    rule.step([p], [p.copy()])
    assert (p == 0.5).all(), p
print(*sorted({line.split()[-1] for line in pathlib.Path("/proc/self/maps").read_text().splitlines()}), sep="\\n")
"""
    paths = f"{checkout}:{out}"
    there = within(checkout, CC="/nonexistent", PATH="", OPTGEN_CACHE_DIR=str(out / "never"), PYTHONPATH=paths)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, **there)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.splitlines()
    assert str(out / "libplain.so") in loaded
    assert str(checkout / "build" / "libruntime.so") in loaded
    assert str(checkout / "build" / "libdescent.so") in loaded
    assert not (out / "never").exists()


def test_the_segments_of_a_built_rule_need_no_compiler(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = catalogue.shipped_names()["SPlus"]
    assert made(build(spec, "--out", out)) == {"splus"}
    runtime()  # which is not in that folder
    monkeypatch.setenv("CC", "/nonexistent")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("OPTGEN_CACHE_DIR", str(out / "never"))
    module = out / "splus.py"
    rule = compile_built(spec.read_text("utf-8"), str(spec), module)
    for variant in (i for i, each in enumerate(rule.rules) if each.multiplies):
        for dtype in ("float32", "float64"):
            for fuses in (False, True):
                found = segments_for(rule, variant, dtype, str(module), fuses=fuses)
                programs = programs_of(rule.rules[variant], fuses=fuses)
                assert programs is not None
                for segment in (each for program in programs.every() for each in program.segments):
                    assert found.kernel(segment.rule).dtype == dtype
    assert not (out / "never").exists()


def test_rules_whose_names_differ_in_nothing_but_capitals_each_run_their_own_library(checkout: Path) -> None:
    program = """
import numpy as np, pathlib
from optgen import ADAM, Adam, SM3
for opt in (ADAM(eta=0.5), Adam(lr=0.5), SM3(eta=0.5)):
    p = np.ones((2, 2))
    opt.step([p], [p.copy()])
    assert (p < 1).all(), p
print(*sorted({pathlib.Path(line.split()[-1]).name for line in open("/proc/self/maps") if "/build/" in line}))
"""
    there = within(checkout, CC="/nonexistent", PATH="")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, **there)
    assert done.stdout.split() == ["libadam.so", "libruntime.so", "libsm3.so", "libtorch_adam.so"], done.stderr


def test_a_module_has_a_real_signature_with_defaults_and_annotations(out: Path) -> None:
    made(build(resources.SPECS / "adamw.toml", "--out", out))
    cls = load(out / "adamw.py").ADAMW
    assert str(inspect.signature(cls)) == (
        "(eta: float = 0.001, beta: tuple[float, float] = (0.9, 0.999), decay: float = 0.0, eps: float = 1e-08,"
        " *, coupled: bool = False, "
        "backend: str = 'kernel', storage: str | collections.abc.Mapping[str, str] | None = None,"
        " rounding: str | collections.abc.Mapping[str, str] | None = None, seed: int | None = None) -> None"
    )


def test_a_module_documents_formulas_hyperparameters_flags_state_and_reference(out: Path) -> None:
    made(build(resources.SPECS / "adamw.toml", "--out", out))
    module = load(out / "adamw.py")
    words = inspect.getdoc(module.ADAMW)
    assert words is not None
    for line in (
        "ADAM with weight decay that does not pass through the moments.",
        "m ← β₁·m + (1 − β₁)·g",
        "p ← p − Δ",
        "eta: learning rate; in [0, inf); default 0.001",
        "beta: decay rates of the two moments; in [0, 1), each; default (0.9, 0.999)",
        "coupled: multiply the decay by the learning rate too, as is usual today; default False",
        "v: second moment; shaped as p; starts as 0",
        "Reference: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019, arXiv:1711.05101",
    ):
        assert line in words
    assert "Generated by optgen from adamw.toml" in str(module.__doc__)


def test_the_runtime_goes_to_the_folder_of_optgen_only(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "BUILD", tmp_path / "own")
    elsewhere = build(spec, "--out", tmp_path / "elsewhere")
    assert made(elsewhere) == {"plain"}
    assert f"note: the runtime of optgen will be compiled on first use; `optgen build --out {tmp_path / 'own'}`" in (
        elsewhere.stderr
    )
    own = build(spec, "--out", tmp_path / "own")
    assert made(own) == {"plain", "runtime", "storages"}
    assert own.stderr == ""
    assert build(spec, "--out", tmp_path / "elsewhere").stderr == ""


# Builds that fail, race or die


def test_a_build_that_fails_spares_the_others_and_is_taken_up_by_the_next(
    tmp_path: Path, out: Path, compiler: Callable[[str], Path]
) -> None:
    good, bad = tmp_path / "good", write_spec(tmp_path, "Bad")
    compiler(f'case "$*" in *bad.c*) test -e "{good}" || {{ echo no such luck >&2; exit 1; }};; esac')
    specs = [write_spec(tmp_path, "One"), bad, write_spec(tmp_path, "Two")]
    result = build(*specs, "--out", out)
    assert result.exit_code == 1
    assert "error: bad: the C compiler made no library of libbad.c (exit status 1)\nno such luck\n" in result.stderr
    assert "Traceback" not in result.output
    good.touch()
    assert made(build(*specs, "--out", out)) == {"bad"}


def test_without_a_compiler_the_message_says_how_to_get_one(
    spec: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "/nonexistent")
    result = build(spec, "--out", out)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("  hint: install a compiler")
    assert "error: no C compiler: $CC is '/nonexistent', which does not run" in result.stderr


def test_without_a_compiler_what_is_up_to_date_is_left_as_it_is(
    spec: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(build(spec, "--out", out))
    monkeypatch.setenv("CC", "/nonexistent")
    result = build(spec, "--out", out)
    assert (result.exit_code, made(result)) == (0, set())
    assert "1 up to date" in result.stdout
    spec.write_text(spec.read_text("utf-8") + "\n# edited\n", "utf-8")
    assert build(spec, "--out", out).exit_code == 1


def test_two_builds_at_once_share_the_work(
    checkout: Path, tmp_path: Path, out: Path, compiler: Callable[[str], Path]
) -> None:
    log = compiler("sleep 0.3")
    specs = [write_spec(tmp_path, name) for name in ("One", "Two")]
    runs = [
        subprocess.Popen(command("build", *specs, "--out", out), stdout=subprocess.PIPE, **within(checkout))
        for _ in range(2)
    ]
    said = sorted(run.communicate()[0].decode().splitlines()[-1] for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert said[0].startswith(f"2 built, 0 up to date in {out}")
    assert said[1] == f"2 up to date in {out}, nothing to do"
    assert len(log.read_text().splitlines()) == 2


def test_a_build_that_is_killed_half_way_harms_the_next_one_not(
    checkout: Path, tmp_path: Path, out: Path, compiler: Callable[[str], Path]
) -> None:
    slow, specs = tmp_path / "slow", [write_spec(tmp_path, name) for name in ("One", "Two")]
    slow.touch()
    log = compiler(f'case "$*" in *two.c*) test -e "{slow}" && echo $$ >> "{slow}" && exec sleep 60;; esac')
    with subprocess.Popen(
        command("build", *specs, "--out", out, "--jobs", 1),
        stdout=subprocess.PIPE,
        start_new_session=True,
        **within(checkout),
    ) as killed:
        deadline = time.monotonic() + 20
        while not (log.exists() and "two.c" in log.read_text()):
            assert time.monotonic() < deadline, "the second library was never begun"
            time.sleep(0.01)
        killed.kill()
        killed.wait()
        assert list(out.glob(".libtwo.so.*.tmp"))
        orphan = int(slow.read_text())
        slow.unlink()
        done = subprocess.run(command("build", *specs, "--out", out), **within(checkout), capture_output=True)
        os.killpg(orphan, signal.SIGKILL)  # the compiler, which outlives its caller
    assert done.returncode == 0, done.stderr
    assert "1 built, 1 up to date" in done.stdout.decode()
    assert list(out.glob(".*.tmp")) == []
    assert (out / "libtwo.so").is_file()


def test_temporary_files_of_others_are_left_alone(spec: Path, out: Path) -> None:
    out.mkdir()
    others = [out / ".plain.tmp", out / ".libplain.so.mine.tmp", out / ".other.so.0123456789abcdef.tmp"]
    for path in others:
        path.touch()
    ours = [out / ".plain.json.0123456789abcdef.tmp", out / ".libplain.so.0123456789abcdef.tmp"]
    ours[0].touch()
    ours[1].mkdir()
    made(build(spec, "--out", out))
    assert all(path.exists() for path in others)
    assert not any(path.exists() for path in ours)


def test_a_reader_that_goes_away_is_no_fault_of_the_folder(checkout: Path, spec: Path, out: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    there = within(checkout)
    done = subprocess.run(command("build", spec, "--out", out), stdout=writer, stderr=subprocess.PIPE, **there)
    os.close(writer)
    assert done.stderr == b""
    assert (out / "libplain.so").is_file()


def test_waiting_for_another_build_ends(spec: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(toolchain.TIME_LIMIT, "0.1")
    monkeypatch.setattr(lock, "SPARE", 0)
    out.mkdir()
    with (out / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = build(spec, "--out", out)
    assert result.exit_code == 1
    assert f"error: expected to build in {out}, got " in result.stderr
    assert ".lock" in result.stderr
    assert "hint: choose another folder with --out" in result.stderr


# What is refused


def test_all_faults_of_all_specs_come_at_once_and_nothing_is_built(tmp_path: Path, spec: Path, out: Path) -> None:
    one, two = write_spec(tmp_path, "One", "eta*gg"), write_spec(tmp_path, "Two", "eta*g*h")
    result = build(one, spec, two, "--out", out)
    assert result.exit_code == 1
    assert "one.toml:7:" in result.stderr
    assert "two.toml:7:" in result.stderr
    assert not out.exists()


def test_a_folder_that_cannot_be_is_refused(spec: Path, tmp_path: Path) -> None:
    result = build(spec, "--out", spec / "inside")
    assert result.exit_code == 1
    assert f"error: expected to build in {spec / 'inside'}, got " in result.stderr
    assert "hint: choose another folder with --out" in result.stderr


def test_two_rules_of_one_name_are_refused(tmp_path: Path, spec: Path, out: Path) -> None:
    (tmp_path / "more").mkdir()
    other = write_spec(tmp_path / "more", "PLAIN")
    result = build(spec, other, "--out", out)
    assert result.exit_code == 1
    assert f"error: {other}: the files of PLAIN are taken by {spec}" in result.stderr


@pytest.mark.parametrize("name", ["Runtime", "Storages", "Declarations"])
def test_a_rule_cannot_take_the_files_of_optgen_itself(name: str, tmp_path: Path, out: Path) -> None:
    result = build(write_spec(tmp_path, name), "--out", out)
    assert result.exit_code == 1
    assert f"the files of {name} would be those of optgen itself" in result.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [("plain.py", "from optgen import ADAM\n"), ("plain.json", '{"name": "plain"}'), ("plain.c", "int main(void) {}")],
)
def test_a_file_that_optgen_did_not_make_is_not_overwritten(name: str, text: str, spec: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    result = build(spec, "--out", tmp_path)
    assert result.exit_code == 1
    assert f"error: plain: {tmp_path / name} is in the way: optgen did not make it" in result.stderr
    assert (tmp_path / name).read_text() == text


def test_fewer_than_one_job_is_a_fault_of_the_command_line(spec: Path, out: Path) -> None:
    assert build(spec, "--out", out, "--jobs", 0).exit_code == 2
