"""What the toolchain promises: a library appears whole or not at all, and a compiler that hangs is given up."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from recorded_compiler import SOURCE, Recorded, answer, contents

from optgen.compiler import toolchain
from optgen.compiler.files import digest, read_regular, write_atomically
from optgen.compiler.toolchain import FLAGS, Compiler, compile_library, find_compiler
from optgen.errors import ArgumentError, CompilerError, CompilerNotFound

ROOT = Path(toolchain.__file__).parents[2]


# The compiler


def test_the_compiler_says_its_version_and_its_target() -> None:
    compiler = find_compiler()
    first = subprocess.run([*compiler.command, "--version"], capture_output=True, text=True, check=True).stdout
    target = subprocess.run([*compiler.command, "-dumpmachine"], capture_output=True, text=True, check=True).stdout
    assert compiler.version == f"{first.splitlines()[0]} {target.strip()}"


def test_cc_names_the_compiler_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc -O1 '-DA=b c'")
    assert find_compiler().command == ("cc", "-O1", "-DA=b c")


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_cc_names_none(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", empty)
    assert find_compiler().command[0] in toolchain.CANDIDATES


def test_a_candidate_that_does_not_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"cc": "exit 1", "gcc": 'echo "gcc of $*, $LC_ALL"; echo more'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_compiler() == Compiler(("gcc",), "gcc of --version, C gcc of -dumpmachine, C")


def test_no_compiler_is_one_message_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompilerNotFound, match="none of cc, gcc, clang on PATH runs") as caught:
        find_compiler()
    for advice in ["apt install gcc", "dnf install gcc", "xcode-select --install", "$CC", 'backend="interpreter"']:
        assert advice in str(caught.value)


@pytest.mark.parametrize("named", ["no-such-cc -O2", 'cc "', "/", "false"])
def test_a_cc_that_does_not_run_is_named_and_nothing_else_is_tried(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", named)
    with pytest.raises(CompilerNotFound) as caught:
        find_compiler()
    assert f"$CC is {named!r}, which does not run" in str(caught.value)


def test_flags_never_give_up_exactness_or_tie_a_library_to_one_machine() -> None:
    assert "-ffp-contract=off" in FLAGS
    assert not {"-ffast-math", "-Ofast", "-march=native", "-funsafe-math-optimizations"} & set(FLAGS)


# Compiling


def test_a_compiled_library_loads_and_its_digest_is_returned(tmp_path: Path) -> None:
    target = tmp_path / "answer.so"
    made = compile_library(SOURCE, target)
    assert made == digest(target) == hashlib.sha256(target.read_bytes()).hexdigest()
    assert answer(target) == 42
    assert contents(tmp_path) == {"answer.so"}


def test_extra_flags_reach_the_compiler_and_libm_is_linked(tmp_path: Path, script: Callable[[str], Recorded]) -> None:
    compiler = script(":")
    compile_library(SOURCE.replace("42", "ANSWER"), tmp_path / "answer.so", extra_flags=("-DANSWER=7",))
    assert answer(tmp_path / "answer.so") == 7
    assert compiler.calls("-lm") == 1


def test_a_fault_in_the_source_is_told_in_the_words_of_the_compiler(tmp_path: Path) -> None:
    target = tmp_path / "wrong.so"
    target.write_text("the old one")
    with pytest.raises(CompilerError) as caught:
        compile_library("int f(void) { return missing_name; }\n", target)
    message = str(caught.value)
    assert "wrong.c:1:" in message
    assert "missing_name" in message
    assert "exit status 1" in message
    assert "-ffp-contract=off" in message
    assert find_compiler().version in message
    assert str(tmp_path) not in message
    assert contents(tmp_path) == {"wrong.so"}
    assert target.read_text() == "the old one"


def test_what_the_compiler_said_is_trimmed_in_the_middle(tmp_path: Path, script: Callable[[str], Recorded]) -> None:
    script('i=1; while [ $i -le 99 ]; do echo "line $i." >&2; i=$((i+1)); done; exit 4')
    with pytest.raises(CompilerError, match="exit status 4") as caught:
        compile_library(SOURCE, tmp_path / "a.so")
    message = str(caught.value)
    assert "line 20.\n... 59 lines left out ...\nline 80." in message
    assert "line 99." in message


def test_a_compiler_that_writes_nothing_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match=r"made no library of answer\.c \(exit status 0\)"):
        compile_library(SOURCE, tmp_path / "answer.so", Compiler(("true",), "none"))
    assert contents(tmp_path) == set()


def test_a_compiler_that_is_gone_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(CompilerNotFound, match=r"does not run: .*no-such-cc"):
        compile_library(SOURCE, tmp_path / "answer.so", Compiler(("no-such-cc",), "none"))
    assert contents(tmp_path) == set()


def test_an_interrupted_build_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = find_compiler()

    def interrupted(command: list[str], _: float) -> None:
        Path(command[command.index("-o") + 1]).write_text("half a libr")
        raise KeyboardInterrupt

    monkeypatch.setattr(toolchain, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compile_library(SOURCE, tmp_path / "answer.so", compiler)
    assert contents(tmp_path) == set()


HANGS = "sleep 1000 & echo $! > sleeper; wait"


def runs(pid: int) -> bool:
    """Whether there is such a process, and not only what is left of one until somebody asks for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not say which processes there are")
def test_a_compiler_that_hangs_is_given_up_with_all_that_it_has_started(
    tmp_path: Path, script: Callable[[str], Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = script(HANGS)
    monkeypatch.setenv(toolchain.TIME_LIMIT, "0.3")
    with pytest.raises(CompilerError, match=r"was given up: it made no library of answer\.c in 0\.3 seconds") as caught:
        compile_library(SOURCE, tmp_path / "answer.so")
    assert "OPTGEN_COMPILER_TIMEOUT sets another limit" in str(caught.value.hint)
    assert str(compiler.path) in str(caught.value.hint)
    assert not list(tmp_path.glob("*answer*"))
    deadline = time.monotonic() + 5
    while runs(int((tmp_path / "sleeper").read_text())):
        assert time.monotonic() < deadline, "what the compiler started runs on"


def test_a_compiler_that_never_says_its_version_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mute"
    path.write_text("#!/bin/sh\nsleep 1000\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    monkeypatch.setattr(toolchain, "ANSWER_LIMIT", 0.1)
    with pytest.raises(CompilerNotFound, match=r"timed out after 0\.1 seconds"):
        find_compiler()


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon", "9" * 5000])
def test_a_time_limit_that_is_no_number_of_seconds_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(toolchain.TIME_LIMIT, given)
    with pytest.raises(ArgumentError, match="expected a number of seconds above 0") as caught:
        toolchain.time_limit()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_compiler_that_writes_half_a_library_and_says_all_is_well_has_failed(
    size: int, tmp_path: Path, script: Callable[..., Recorded]
) -> None:
    script(":", f'truncate -s {size} "$out"')
    with pytest.raises(CompilerError, match=r"made no library of answer\.c \(exit status 0\)"):
        compile_library(SOURCE, tmp_path / "answer.so")


def test_any_end_that_is_missing_of_a_library_is_noticed(tmp_path: Path) -> None:
    compile_library(SOURCE, tmp_path / "answer.so")
    whole = (tmp_path / "answer.so").read_bytes()
    if not whole.startswith(b"\x7fELF"):
        pytest.skip("a library of another format")
    assert toolchain.is_whole(whole)
    assert not any(toolchain.is_whole(whole[:size]) for size in [*range(0, 400, 7), *range(400, 9000, 500)])
    rng = random.Random(0)
    for _ in range(300):  # a header that says anything is no reason to fail
        toolchain.is_whole(b"\x7fELF" + rng.randbytes(rng.randrange(200)))


# Writing


@pytest.mark.parametrize("data", ["β = 1\r\n", b"\x00\xff"])
def test_a_file_is_written_as_it_is_and_replaces_the_old_one(data: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a longer text that was there before")
    write_atomically(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert contents(tmp_path) == {"file"}


def test_a_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert contents(tmp_path) == {"file"}


# Reading


@pytest.mark.parametrize("read", [digest, read_regular])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["a pipe", "a folder"])
def test_what_is_no_file_is_not_waited_for(
    make: Callable[[Path], None], read: Callable[[Path], object], tmp_path: Path
) -> None:
    make(tmp_path / "none")
    with pytest.raises(OSError, match=r"no regular file|Is a directory"):
        read(tmp_path / "none")


# The module


def test_the_module_loads_only_what_it_needs_at_once() -> None:
    code = (
        "import sys, optgen.compiler.cache\n"
        "print({'numpy', 'cffi', 'filelock', 'platformdirs', 'jinja2'} & set(sys.modules) or 'none')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"
