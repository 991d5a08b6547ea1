"""What the cache promises: what comes out of it is the user's own and what it was when made, and it blocks nobody."""

from __future__ import annotations

import fcntl
import grp
import os
import platform
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import filelock
import platformdirs
import pytest
from recorded_compiler import SOURCE, Recorded, answer, contents

from optgen.compiler import lock, toolchain, trust
from optgen.compiler.cache import cache_folder, cached_library, library_key, open_cached
from optgen.compiler.files import digest
from optgen.compiler.toolchain import FLAGS, Compiler, find_compiler
from optgen.errors import CacheError, CompilerError, CompilerNotFound
from optgen.frozen import replace

ROOT = Path(toolchain.__file__).parents[2]

pytestmark = pytest.mark.usefixtures("cache")


def in_another_process() -> subprocess.Popen[bytes]:
    program = f"from optgen.compiler.cache import cached_library; print(cached_library({SOURCE!r}, 'answer', 1))"
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
    code = (
        "from optgen.compiler.cache import library_key\nfrom optgen.compiler.toolchain import Compiler\n"
        "print(library_key('source', Compiler(('cc',), 'v'), 1))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == library_key("source", Compiler(("cc",), "v"), 1)


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
    assert {stat.S_IMODE(path.stat().st_mode) for path in library.parent.glob("answer.*")} <= {0o644, 0o755}


@pytest.mark.parametrize("named", [None, ""])
def test_without_a_name_the_cache_is_where_the_system_keeps_caches(
    named: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPTGEN_CACHE_DIR") if named is None else monkeypatch.setenv("OPTGEN_CACHE_DIR", named)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "caches" / name)
    assert cache_folder() == tmp_path / "caches" / "optgen"


def test_without_a_home_there_is_no_cache_and_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> pwd.struct_passwd:
        raise KeyError("no such user")

    for name in ("OPTGEN_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(CacheError, match="there is no folder for a cache") as caught:
        cache_folder()
    assert caught.value.hint == trust.ELSEWHERE


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_cache_that_others_can_write_is_refused_until_it_is_deleted(mode: int, cache: Path) -> None:
    cache.mkdir()
    cache.chmod(mode)
    with pytest.raises(CacheError, match="expected one that only you can write") as caught:
        cached_library(SOURCE, "answer", 1)
    assert f"{cache}: expected one that only you can write, got mode {mode:04o}" in str(caught.value)
    assert "delete it" in str(caught.value.hint)
    assert "OPTGEN_CACHE_DIR" in str(caught.value.hint)
    shutil.rmtree(cache)
    assert cache_folder() == cache


def test_a_cache_that_others_can_read_is_used(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o755)
    assert answer(cached_library(SOURCE, "answer", 1)) == 42


def test_an_entry_that_others_can_write_is_refused() -> None:
    entry = cached_library(SOURCE, "answer", 1).parent
    entry.chmod(0o770)
    with pytest.raises(CacheError, match="expected one that only you can write") as caught:
        cached_library(SOURCE, "answer", 1)
    assert f"delete {entry}" in str(caught.value.hint)
    shutil.rmtree(entry)
    assert answer(cached_library(SOURCE, "answer", 1)) == 42


def test_a_cache_of_another_user_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(mode=0o700)
    owner, user = cache.stat().st_uid, cache.stat().st_uid + 1
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(CacheError, match=f"got one of user {owner}"):
        cache_folder()


@pytest.mark.parametrize("folder", ["/", "/tmp", "/usr"])
def test_no_hint_would_hurt_whoever_follows_it(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTGEN_CACHE_DIR", folder)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    with pytest.raises(CacheError) as caught:
        cache_folder()
    assert not any(word in str(caught.value) for word in ("chmod", "chown", "sudo", "rm ", "`"))
    assert "if it is a cache and nothing else" in str(caught.value.hint)


@pytest.mark.parametrize(("mode", "safe"), [(0o755, True), (0o1777, True), (0o777, False), (0o702, False)])
def test_a_cache_below_a_folder_that_others_can_write_is_refused(
    mode: int, safe: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = tmp_path / "parent"
    (parent / "below" / "cache").mkdir(mode=0o700, parents=True)
    parent.chmod(mode)
    monkeypatch.setenv("OPTGEN_CACHE_DIR", str(parent / "below" / "cache"))
    if safe:
        assert cache_folder() == parent / "below" / "cache"
        return
    with pytest.raises(CacheError, match=f"expected it where nobody else writes, got {parent}") as caught:
        cache_folder()
    assert caught.value.hint == trust.ELSEWHERE


@pytest.mark.parametrize("name", ["user", "everybody"])
def test_a_group_of_the_user_alone_may_write_above_a_cache(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, other = pwd.struct_passwd(("user", "", os.geteuid(), 77, "", "", "")), grp.struct_group((name, "", 77, []))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: user)
    monkeypatch.setattr(grp, "getgrgid", lambda _: other)
    (tmp_path / "parent").mkdir()
    (tmp_path / "parent").chmod(0o775)
    if name == "user":
        trust.expect_safe_place(tmp_path / "parent" / "cache")
        return
    with pytest.raises(CacheError, match="expected it where nobody else writes"):
        trust.expect_safe_place(tmp_path / "parent" / "cache")


@pytest.mark.parametrize("unmapped", [False, True], ids=["a user", "nobody in this namespace"])
def test_a_cache_below_a_folder_of_another_user_is_refused(
    unmapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = tmp_path / "theirs"
    parent.mkdir()
    if os.geteuid():
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    else:
        owner = 4321
        os.chown(parent, owner, -1)
    monkeypatch.setattr(trust, "_unmapped", lambda: owner if unmapped else None)
    if unmapped:
        trust.expect_safe_place(parent / "cache")
        return
    with pytest.raises(CacheError, match=f"got .* of user {owner}"):
        trust.expect_safe_place(parent / "cache")


def test_a_link_above_the_cache_is_followed_before_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("safe", "open"):
        (tmp_path / folder / "inside").mkdir(parents=True)
        (tmp_path / f"to {folder}").symlink_to(tmp_path / folder / "inside")
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("OPTGEN_CACHE_DIR", str(tmp_path / "to safe" / "cache"))
    assert cache_folder() == tmp_path / "safe" / "inside" / "cache"
    monkeypatch.setenv("OPTGEN_CACHE_DIR", str(tmp_path / "to open" / "cache"))
    with pytest.raises(CacheError, match="expected it where nobody else writes"):
        cache_folder()


def test_folders_above_a_new_cache_are_made_for_the_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTGEN_CACHE_DIR", str(tmp_path / "one" / "two" / "cache"))
    before = os.umask(0)
    try:
        folder = cache_folder()
    finally:
        os.umask(before)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (folder, *list(folder.parents)[:2])] == [0o700] * 3


def test_a_link_is_no_cache(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    cache.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match="expected a real directory, got a link") as caught:
        cache_folder()
    assert str(cache) in str(caught.value)
    assert "set OPTGEN_CACHE_DIR" in str(caught.value)


@pytest.mark.parametrize("inside", ["", "below/that"])
def test_a_cache_that_cannot_be_made_is_refused(inside: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_text("a file")
    monkeypatch.setenv("OPTGEN_CACHE_DIR", str(cache / inside))
    with pytest.raises(CacheError, match="expected to make the cache folder") as caught:
        cache_folder()
    assert str(cache / inside) in str(caught.value)
    assert "set OPTGEN_CACHE_DIR" in str(caught.value)


@pytest.mark.parametrize("relative", ["here", "~/cache", "./x"])
def test_a_cache_with_a_relative_path_is_refused(
    relative: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPTGEN_CACHE_DIR", relative)
    with pytest.raises(CacheError, match="expected an absolute path"):
        cache_folder()
    assert contents(tmp_path) == set()


def test_a_cache_that_cannot_be_written_is_a_cache_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(toolchain, "compile_library", read_only)
    with pytest.raises(CacheError, match=r"expected to write .*Read-only file system") as caught:
        cached_library(SOURCE, "answer", 1)
    assert "set OPTGEN_CACHE_DIR" in str(caught.value)


# The cache


def test_an_entry_holds_the_library_its_source_and_its_digest(cache: Path) -> None:
    library = cached_library(SOURCE, "answer", 1)
    assert answer(library) == 42
    assert library == cache / library_key(SOURCE, find_compiler(), 1) / "answer.so"
    assert contents(library.parent) - {".lock"} == {"answer.so", "answer.c", "answer.sha256"}
    assert library.with_suffix(".c").read_text().startswith(SOURCE)
    expect_noted(library)


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


@pytest.mark.parametrize("damage", ["one bit of the library", "a source that is no text", "a pipe for the source"])
def test_without_a_compiler_a_damaged_library_does_not_serve(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = cached_library(SOURCE, "answer", 1)
    DAMAGE[damage](library)
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


def noted(library: Path) -> Path:
    """The library, with a digest that says it is as it was made."""
    note = library.with_suffix(".sha256")
    note.write_text(f"{digest(library)}  {library.name}\n{digest(library.with_suffix('.c'))}  {library.stem}.c\n")
    return library


def expect_noted(library: Path) -> None:
    before = library.with_suffix(".sha256").read_bytes()
    assert noted(library).with_suffix(".sha256").read_bytes() == before


def of_other_flags(library: Path, *flags: str) -> None:
    """The same source, compiled by hand: with -ffast-math, it changes the denormals of the process that loads it."""
    subprocess.run(["cc", "-shared", "-fPIC", *flags, "-o", library, library.with_suffix(".c")], check=True)


def exchanged(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "one bit of the library": flip,
    "a truncated library": lambda library: os.truncate(library, 100),
    "an empty library": lambda library: os.truncate(library, 0),
    "no library": lambda library: library.unlink(),
    "a truncated digest": lambda library: os.truncate(library.with_suffix(".sha256"), 20),
    "an empty digest": lambda library: os.truncate(library.with_suffix(".sha256"), 0),
    "no digest": lambda library: library.with_suffix(".sha256").unlink(),
    "a digest that is no text": lambda library: library.with_suffix(".sha256").write_bytes(b"\xff\x00"),
    "a source that is no text": lambda library: library.with_suffix(".c").write_bytes(b"\xff\x00"),
    "a source of something else": lambda library: noted(library.with_suffix(".c").write_text(SOURCE) and library),
    "no source": lambda library: library.with_suffix(".c").unlink(),
    "another library with its digest": lambda library: noted(of_other_flags(library, "-O3") or library),
    "a truncated library with its digest": lambda library: noted(os.truncate(library, 5000) or library),
    "no library at all, with its digest": lambda library: noted(library.write_text("none") and library),
    "a fast library with its digest": lambda library: noted(of_other_flags(library, "-ffast-math") or library),
    "a library that others can write": lambda library: library.chmod(0o666),
    "a link to the library": lambda library: library.symlink_to(library.rename(library.with_name("elsewhere"))),
    "a link that ends nowhere": lambda library: exchanged(library, lambda path: path.symlink_to("nowhere")),
    **{
        f"a {what} for the {kind}": lambda library, suffix=suffix, make=make: exchanged(
            library.with_suffix(suffix) if suffix != ".lock" else library.with_name(suffix), make
        )
        for what, make in {"pipe": os.mkfifo, "folder": lambda path: (path / "full").mkdir(parents=True)}.items()
        for kind, suffix in {"library": ".so", "digest": ".sha256", "source": ".c"}.items()
    },
    "a folder for the lock, and no library": lambda library: (
        library.unlink(), exchanged(library.with_name(".lock"), Path.mkdir),
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_built_again(damage: str, script: Callable[[str], Recorded]) -> None:
    compiler = script(":")
    library = cached_library(SOURCE, "answer", 1)
    DAMAGE[damage](library)
    assert cached_library(SOURCE, "answer", 1) == library
    assert cached_library(SOURCE, "answer", 1) == library
    expect_noted(library)
    assert answer(library) == 42
    assert compiler.calls("-shared") == 2


def test_a_file_in_the_place_of_an_entry_is_set_aside(cache: Path) -> None:
    entry = cached_library(SOURCE, "answer", 1).parent
    shutil.rmtree(entry)
    entry.write_text("no folder")
    assert answer(cached_library(SOURCE, "answer", 1)) == 42
    assert contents(cache) == {entry.name}


@pytest.mark.parametrize(("faults", "builds"), [(1, 2), (9, 2)], ids=["it opens then", "it never opens"])
def test_a_library_that_does_not_open_is_built_again_once(
    faults: int, builds: int, script: Callable[[str], Recorded]
) -> None:
    compiler = script(":")
    library = cached_library(SOURCE, "answer", 1)
    left = [CompilerError("it does not open")] * faults

    def opened(path: Path) -> int:
        if left:
            raise left.pop()
        return answer(path)

    if faults == 1:
        assert open_cached(SOURCE, "answer", 1, opened) == 42
    else:
        with pytest.raises(CompilerError, match="it does not open"):
            open_cached(SOURCE, "answer", 1, opened)
    assert compiler.calls("-shared") == builds
    assert library.exists()


PLANTED = '__attribute__((constructor)) void run(void) { fclose(fopen("RAN", "w")); }\n'


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_what_another_user_has_planted_never_runs_whatever_the_mode_is_changed_to(tmp_path: Path) -> None:
    library = cached_library(SOURCE, "answer", 1)
    ran = tmp_path / "ran"
    source = library.with_suffix(".c").read_text() + "#include <stdio.h>\n" + PLANTED.replace("RAN", str(ran))
    entry = library.parent
    key = f'-DOPTGEN_KEY="{entry.name}"'
    entry.chmod(0o777)
    library.unlink()  # as a stranger may in such a folder
    toolchain.compile_library(source, library, extra_flags=(key,))
    noted(library)
    os.chown(library, 4321, -1)
    with pytest.raises(CacheError, match="expected one that only you can write"):
        open_cached(SOURCE, "answer", 1, answer)
    entry.chmod(0o700)  # what the hint was once
    with pytest.raises(CacheError, match=r"answer\.so: expected one of yours .*, got one of user 4321") as caught:
        open_cached(SOURCE, "answer", 1, answer)
    assert f"delete {entry}" in str(caught.value.hint)
    shutil.rmtree(entry)
    assert open_cached(SOURCE, "answer", 1, answer) == 42
    assert not ran.exists()


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
    compiler = script("if mkdir first 2>/dev/null; then echo $$ > pid; mv pid started; sleep 20; fi")
    builder = in_another_process()
    try:
        await_file(tmp_path / "started")
        os.kill(builder.pid, signal.SIGKILL)
        if with_its_compiler:
            os.killpg(int((tmp_path / "started").read_text()), signal.SIGKILL)
        assert builder.wait() == -signal.SIGKILL
        (entry,) = cache.iterdir()
        assert any(name.endswith(".tmp") for name in contents(entry)), "the killed builder was to leave its work behind"
        (entry / ".answer.sha256.0123.tmp").write_text("half a dig")

        began = time.monotonic()
        library = cached_library(SOURCE, "answer", 1)
        assert time.monotonic() - began < 10
    finally:
        with suppress(ProcessLookupError):
            os.killpg(int((tmp_path / "started").read_text()), signal.SIGKILL)
        builder.communicate()
    assert answer(library) == 42
    assert contents(entry) - {".lock"} == {"answer.so", "answer.c", "answer.sha256"}
    assert compiler.calls("-shared") == 2


@pytest.fixture
def held() -> Iterator[Callable[[Path], None]]:
    """Holds the lock of an entry, as another process would."""
    files = []

    def hold(file: Path) -> None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.append(file.open("w"))
        fcntl.flock(files[-1], fcntl.LOCK_EX)

    yield hold
    for file in files:
        file.close()


def test_waiting_ends_with_the_name_of_the_lock(
    cache: Path, held: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cache / library_key(SOURCE, find_compiler(), 1) / ".lock"
    held(file)
    cache.chmod(0o700)
    monkeypatch.setenv(toolchain.TIME_LIMIT, "0.1")
    monkeypatch.setattr(lock, "SPARE", 0)
    with pytest.raises(CacheError, match=r"another process has held .* for 0\.1 seconds") as caught:
        cached_library(SOURCE, "answer", 1)
    assert str(file) in str(caught.value)
    assert "end that process" in str(caught.value)


def test_an_entry_that_is_whole_is_used_without_the_lock(
    held: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = cached_library(SOURCE, "answer", 1)
    held(library.parent / ".lock")
    monkeypatch.setenv(toolchain.TIME_LIMIT, "0.1")
    monkeypatch.setattr(lock, "SPARE", 0)
    assert cached_library(SOURCE, "answer", 1) == library


def test_a_lock_that_would_outlive_its_owner_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filelock, "FileLock", filelock.SoftFileLock)
    with pytest.raises(CacheError, match="the file system has no locks"):
        cached_library(SOURCE, "answer", 1)
