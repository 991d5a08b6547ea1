"""What the toolchain promises: a library appears whole or not at all, is what it was when made, and blocks nobody."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import platform
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import filelock
import platformdirs
import pytest

from optgen.compiler import toolchain
from optgen.compiler.toolchain import (
    FLAGS,
    Compiler,
    cache_folder,
    cached_library,
    compile_library,
    digest,
    find_compiler,
    library_key,
    write_atomically,
)
from optgen.errors import CacheError, CompilerError, CompilerNotFound
from optgen.frozen import replace

SOURCE = '__attribute__((visibility("default"))) int answer(void) { return 42; }\n'
ROOT = Path(toolchain.__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, not made yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("OPTGEN_CACHE_DIR", str(folder))
    return folder


@dataclass
class Recorded:
    """A compiler in $CC that notes how it is called."""

    path: Path
    log: Path

    def calls(self, word: str) -> int:
        return sum(word in line.split() for line in self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Recorded]:
    """Makes $CC a script that notes its arguments, runs the given shell text if it is to build, and then `cc`."""

    def write(before_building: str) -> Recorded:
        path, log = tmp_path / "compiler", tmp_path / "compiler.log"
        path.write_text(
            f'#!/bin/sh\ncd "{tmp_path}"\necho "$@" >> "{log}"\n'
            f'case " $* " in *" -shared "*) {before_building};; esac\nexec cc "$@"\n'
        )
        path.chmod(0o755)
        monkeypatch.setenv("CC", str(path))
        return Recorded(path, log)

    return write


def answer(library: Path) -> int:
    return int(ctypes.CDLL(str(library)).answer())


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def in_another_process() -> subprocess.Popen[bytes]:
    program = f"from optgen.compiler.toolchain import cached_library; print(cached_library({SOURCE!r}, 'answer', 1))"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def await_file(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)


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


# The key


COMPILER = Compiler(("cc",), "cc 12 x86_64-linux-gnu")


@pytest.mark.parametrize(
    "other_key",
    [
        lambda: library_key("other", COMPILER, 1),
        lambda: library_key("source", replace(COMPILER, version="cc 13 x86_64-linux-gnu"), 1),
        lambda: library_key("source", replace(COMPILER, command=("cc", "-m32")), 1),
        lambda: library_key("source", replace(COMPILER, command=("cc -m32",)), 1),
        lambda: library_key("source", COMPILER, 2),
    ],
    ids=["source", "version", "option", "one word", "abi"],
)
def test_the_key_changes_with_each_argument(other_key: Callable[[], str]) -> None:
    keys = {library_key("source", COMPILER, 1), library_key("source", replace(COMPILER, command=("cc", "-m64")), 1)}
    assert other_key() not in keys
    assert len(other_key()) == 64


def test_the_key_changes_with_the_flags_and_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [library_key("source", COMPILER, 1)]
    monkeypatch.setattr(toolchain, "FLAGS", (*FLAGS, "-g"))
    keys.append(library_key("source", COMPILER, 1))
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    keys.append(library_key("source", COMPILER, 1))
    assert len(set(keys)) == 3


def test_the_key_is_the_same_in_every_process() -> None:
    code = "from optgen.compiler.toolchain import *; print(library_key('source', Compiler(('cc',), 'v'), 1))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == library_key("source", Compiler(("cc",), "v"), 1)


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

    def interrupted(command: list[str], **_: object) -> None:
        Path(command[command.index("-o") + 1]).write_text("half a libr")
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compile_library(SOURCE, tmp_path / "answer.so", compiler)
    assert contents(tmp_path) == set()


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


# The folder


def test_the_cache_is_made_for_the_user_alone(cache: Path) -> None:
    before = os.umask(0)
    try:
        assert cache_folder() == cache
        library = cached_library(SOURCE, "answer", 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(library.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("named", [None, ""])
def test_without_a_name_the_cache_is_where_the_system_keeps_caches(
    named: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPTGEN_CACHE_DIR") if named is None else monkeypatch.setenv("OPTGEN_CACHE_DIR", named)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "caches" / name)
    assert cache_folder() == tmp_path / "caches" / "optgen"


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_cache_that_others_can_write_is_refused_with_the_command_that_mends_it(mode: int, cache: Path) -> None:
    cache.mkdir()
    cache.chmod(mode)
    with pytest.raises(CacheError, match="can be written by others") as caught:
        cached_library(SOURCE, "answer", 1)
    assert f"{cache} can be written by others (mode {mode:04o})" in str(caught.value)
    mend = f"chmod go-w {cache}"
    assert f"`{mend}`" in str(caught.value)
    assert "OPTGEN_CACHE_DIR" in str(caught.value)
    subprocess.run(mend.split(), check=True)
    assert cache_folder() == cache


def test_a_cache_that_others_can_read_is_used(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o755)
    assert answer(cached_library(SOURCE, "answer", 1)) == 42


def test_an_entry_that_others_can_write_is_refused() -> None:
    entry = cached_library(SOURCE, "answer", 1).parent
    entry.chmod(0o770)
    with pytest.raises(CacheError, match="can be written by others") as caught:
        cached_library(SOURCE, "answer", 1)
    assert str(entry) in str(caught.value)


def test_a_cache_of_another_user_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(mode=0o700)
    owner, user = cache.stat().st_uid, cache.stat().st_uid + 1
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(CacheError, match=f"belongs to user {owner}, and must belong to you") as caught:
        cache_folder()
    assert f"`sudo chown {user} {cache}`" in str(caught.value)


def test_a_link_is_no_cache(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    cache.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match="is a link, and must be a real directory") as caught:
        cache_folder()
    assert str(cache) in str(caught.value)
    assert "set OPTGEN_CACHE_DIR" in str(caught.value)


@pytest.mark.parametrize("inside", ["", "below/that"])
def test_a_cache_that_cannot_be_made_is_refused(inside: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_text("a file")
    monkeypatch.setenv("OPTGEN_CACHE_DIR", str(cache / inside))
    with pytest.raises(CacheError, match="cannot be made: ") as caught:
        cache_folder()
    assert str(cache / inside) in str(caught.value)
    assert "set OPTGEN_CACHE_DIR" in str(caught.value)


@pytest.mark.parametrize("relative", ["here", "~/cache", "./x"])
def test_a_cache_with_a_relative_path_is_refused(
    relative: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPTGEN_CACHE_DIR", relative)
    with pytest.raises(CacheError, match="is not an absolute path"):
        cache_folder()
    assert contents(tmp_path) == set()


def test_a_cache_that_cannot_be_written_is_a_cache_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(toolchain, "compile_library", read_only)
    with pytest.raises(CacheError, match=r"cannot be written: .*Read-only file system") as caught:
        cached_library(SOURCE, "answer", 1)
    assert "set OPTGEN_CACHE_DIR" in str(caught.value)


# The cache


def test_an_entry_holds_the_library_its_source_and_its_digest(cache: Path) -> None:
    library = cached_library(SOURCE, "answer", 1)
    assert answer(library) == 42
    assert library == cache / library_key(SOURCE, find_compiler(), 1) / "answer.so"
    assert contents(library.parent) - {".lock"} == {"answer.so", "answer.c", "answer.sha256"}
    assert library.with_suffix(".c").read_text().startswith(SOURCE)
    assert library.with_suffix(".sha256").read_text() == f"{digest(library)}  answer.so\n"


def test_a_second_call_compiles_nothing_and_asks_the_compiler_nothing(script: Callable[[str], Recorded]) -> None:
    compiler = script(":")
    first = cached_library(SOURCE, "answer", 1)
    before = first.stat()
    assert cached_library(SOURCE, "answer", 1) == first
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [compiler.calls(word) for word in ["-shared", "--version", "-dumpmachine"]] == [1, 1, 1]


def test_without_a_compiler_what_was_made_before_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    library = cached_library(SOURCE, "answer", 1)
    monkeypatch.setenv("CC", "/nonexistent")
    assert cached_library(SOURCE, "answer", 1) == library
    with pytest.raises(CompilerNotFound):
        cached_library(SOURCE.replace("42", "43"), "answer", 1)
    with pytest.raises(CompilerNotFound):
        cached_library(SOURCE, "answer", 2)
    monkeypatch.setattr(toolchain, "FLAGS", (*toolchain.FLAGS, "-O0"))
    with pytest.raises(CompilerNotFound):
        cached_library(SOURCE, "answer", 1)


def test_without_a_compiler_a_damaged_library_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    library = cached_library(SOURCE, "answer", 1)
    library.write_bytes(library.read_bytes()[:-1])
    monkeypatch.setenv("CC", "/nonexistent")
    with pytest.raises(CompilerNotFound):
        cached_library(SOURCE, "answer", 1)


def test_another_source_or_abi_is_another_library() -> None:
    libraries = [
        cached_library(source, "answer", abi) for source, abi in [(SOURCE, 1), (SOURCE, 2), (SOURCE + "\n", 1)]
    ]
    assert len({library.parent for library in libraries}) == 3


def test_one_source_under_two_names_keeps_both() -> None:
    one, two = cached_library(SOURCE, "one", 1), cached_library(SOURCE, "two.v1", 1)
    assert (answer(one), answer(two)) == (42, 42)
    assert one.parent == two.parent


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "one bit of the library": flip,
    "a truncated library": lambda library: os.truncate(library, 100),
    "an empty library": lambda library: os.truncate(library, 0),
    "no library": lambda library: library.unlink(),
    "a truncated digest": lambda library: os.truncate(library.with_suffix(".sha256"), 20),
    "an empty digest": lambda library: os.truncate(library.with_suffix(".sha256"), 0),
    "no digest": lambda library: library.with_suffix(".sha256").unlink(),
    "a digest that is no text": lambda library: library.with_suffix(".sha256").write_bytes(b"\xff\x00"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_built_again(damage: str, script: Callable[[str], Recorded]) -> None:
    compiler = script(":")
    library = cached_library(SOURCE, "answer", 1)
    DAMAGE[damage](library)
    assert cached_library(SOURCE, "answer", 1) == library
    assert library.with_suffix(".sha256").read_text() == f"{digest(library)}  answer.so\n"
    assert answer(library) == 42
    assert compiler.calls("-shared") == 2


def test_a_fault_in_the_source_leaves_an_entry_that_can_be_built(script: Callable[[str], Recorded]) -> None:
    compiler = script("[ -e mended ] || { echo broken >&2; exit 1; }")
    with pytest.raises(CompilerError, match="broken"):
        cached_library(SOURCE, "answer", 1)
    (compiler.path.parent / "mended").touch()
    assert answer(cached_library(SOURCE, "answer", 1)) == 42


# Several at once


def test_processes_at_once_build_once(script: Callable[[str], Recorded]) -> None:
    compiler = script("sleep 0.5")
    processes = [in_another_process() for _ in range(3)]
    paths = {process.communicate(timeout=20)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert paths == {f"{cached_library(SOURCE, 'answer', 1)}\n".encode()}
    assert compiler.calls("-shared") == 1


def test_threads_at_once_build_once(script: Callable[[str], Recorded]) -> None:
    compiler = script("sleep 0.2")
    with ThreadPoolExecutor(4) as pool:
        libraries = set(pool.map(lambda _: cached_library(SOURCE, "answer", 1), range(4)))
    assert len(libraries) == 1
    assert compiler.calls("-shared") == 1


@pytest.mark.parametrize("with_its_compiler", [True, False], ids=["with its compiler", "alone"])
def test_a_builder_that_is_killed_half_way_blocks_and_spoils_nothing(
    with_its_compiler: bool, tmp_path: Path, cache: Path, script: Callable[[str], Recorded]
) -> None:
    compiler = script("if mkdir first 2>/dev/null; then touch started; sleep 20; fi")
    builder = in_another_process()
    try:
        await_file(tmp_path / "started")
        (os.killpg if with_its_compiler else os.kill)(builder.pid, signal.SIGKILL)
        assert builder.wait() == -signal.SIGKILL
        (entry,) = cache.iterdir()
        assert any(name.endswith(".tmp") for name in contents(entry)), "the killed builder was to leave its work behind"
        (entry / ".answer.sha256.0123.tmp").write_text("half a dig")

        began = time.monotonic()
        library = cached_library(SOURCE, "answer", 1)
        assert time.monotonic() - began < 10
    finally:
        with suppress(ProcessLookupError):
            os.killpg(builder.pid, signal.SIGKILL)
        builder.communicate()
    assert answer(library) == 42
    assert contents(entry) - {".lock"} == {"answer.so", "answer.c", "answer.sha256"}
    assert compiler.calls("-shared") == 2


@pytest.fixture
def held() -> Iterator[Callable[[Path], None]]:
    """Holds the lock of an entry, as another process would."""
    files = []

    def hold(lock: Path) -> None:
        lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.append(lock.open("w"))
        fcntl.flock(files[-1], fcntl.LOCK_EX)

    yield hold
    for file in files:
        file.close()


def test_waiting_ends_with_the_name_of_the_lock(
    cache: Path, held: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = cache / library_key(SOURCE, find_compiler(), 1) / ".lock"
    held(lock)
    cache.chmod(0o700)
    monkeypatch.setattr(toolchain, "LOCK_TIMEOUT", 0.1)
    with pytest.raises(CacheError, match=r"another process has held .* for 0\.1 seconds") as caught:
        cached_library(SOURCE, "answer", 1)
    assert str(lock) in str(caught.value)
    assert "end that process" in str(caught.value)


def test_an_entry_that_is_whole_is_used_without_the_lock(
    held: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = cached_library(SOURCE, "answer", 1)
    held(library.parent / ".lock")
    monkeypatch.setattr(toolchain, "LOCK_TIMEOUT", 0.1)
    assert cached_library(SOURCE, "answer", 1) == library


def test_a_lock_that_would_outlive_its_owner_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filelock, "FileLock", filelock.SoftFileLock)
    with pytest.raises(CacheError, match="the file system has no locks"):
        cached_library(SOURCE, "answer", 1)


# The module


def test_the_module_loads_only_what_it_needs_at_once() -> None:
    code = (
        "import sys, optgen.compiler.toolchain\n"
        "print({'numpy', 'cffi', 'filelock', 'platformdirs', 'jinja2'} & set(sys.modules) or 'none')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"
