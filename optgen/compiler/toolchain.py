"""C source in, a verified shared library out, kept in a cache; nothing here knows of optimisers.

In comes the text of one C file. It is compiled by the user's C compiler with one fixed set of flags, and out comes
the path of a library whose bytes have just been checked against the digest noted when they were made. A library
appears under its name only when it is whole, so a build may be killed at any time, or race with others, and the next
one neither waits for the dead nor loads half a file.

    <cache>/<key>/<name>.so       the library
    <cache>/<key>/<name>.c        its source, to be read
    <cache>/<key>/<name>.sha256   the digest of the library, written last, in the format of `sha256sum --check`
    <cache>/<key>/.lock           held while the entry is built, and let go by the system when the builder dies

A digest shows damage; it does not keep out an attacker, who would write a digest too. That is what the checks of the
folders are for: whatever stands in them was put there by the user, also between the check and the loading.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from ..errors import CacheError, CompilerError, CompilerNotFound
from ..frozen import frozen
from .files import digest, temporary_name, write_atomically
from .waiting import announced

__all__ = [
    "FLAGS",
    "Compiler",
    "cache_folder",
    "cached_library",
    "compile_library",
    "digest",
    "find_compiler",
    "library_key",
    "sole_builder",
    "write_atomically",
]

# Never -ffast-math, which gives up the equality with the interpreter and changes the denormals of the whole process.
# Never -march=native, which makes a cache or a wheel crash on another machine: the source chooses at load instead.
FLAGS: tuple[str, ...] = (
    "-std=c11",  # ISO mode: no excess precision, and no macros like `linux` among the names that a spec may use
    "-O3",  # the level at which every compiler we know vectorises loops
    "-fPIC",  # a shared library is loaded at any address
    "-shared",
    "-pthread",  # the thread pool
    "-ffp-contract=off",  # a*b + c rounds twice, as in the interpreter: bits must not depend on the processor
    "-fno-math-errno",  # sqrt may be one instruction; nobody reads errno, and the value is the same
    "-fno-trapping-math",  # a select may compute both sides; nobody reads the exception flags, and values are the same
    "-fvisibility=hidden",  # two libraries in one process must not find each other's functions
)

CANDIDATES = ("cc", "gcc", "clang")
INSTALL = (
    "install a compiler (Debian and Ubuntu: apt install gcc; Fedora: dnf install gcc; macOS: xcode-select --install), "
    'or name one in $CC; backend="interpreter" works without'
)
ELSEWHERE = "set OPTGEN_CACHE_DIR to a folder of your own that can be written"
LOCK_TIMEOUT = 300.0  # seconds; far longer than a build, for the wait must end even if the builder hangs


@frozen
class Compiler:
    """A C compiler that runs: how it is called, and what it says it is."""

    command: tuple[str, ...]
    version: str


def find_compiler() -> Compiler:
    """The compiler that `$CC` names, else the first of cc, gcc and clang that runs. Asked once for each CC and PATH.

    Raises `CompilerNotFound`, which says what was tried and how to get a compiler.
    """
    return _find(os.environ.get("CC", ""), os.environ.get("PATH", ""))


@lru_cache
def _find(cc: str, path: str) -> Compiler:  # `path` only so that another PATH is searched anew
    try:
        named = tuple(shlex.split(cc))
    except ValueError:  # An unclosed quote: as one word it will not run, and the message shows it.
        named = (cc,)
    faults = []
    for command in [named] if named else [(candidate,) for candidate in CANDIDATES]:
        try:
            return Compiler(command, f"{_ask(command, '--version')} {_ask(command, '-dumpmachine')}")
        except (OSError, subprocess.SubprocessError) as fault:
            faults.append(str(fault))
    tried = f"$CC is {cc!r}, which does not run" if named else f"none of {', '.join(CANDIDATES)} on PATH runs"
    raise CompilerNotFound(f"no C compiler: {tried}\n  {'; '.join(faults)}", hint=INSTALL)


def _ask(command: tuple[str, ...], question: str) -> str:
    # In one locale, for the answer is part of the key.
    environment = {**os.environ, "LC_ALL": "C"}
    answer = subprocess.run(
        [*command, question], stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=60, check=True
    )
    return answer.stdout.decode(errors="replace").partition("\n")[0].strip()


def library_key(source: str, compiler: Compiler, abi: int) -> str:
    """The name of all that decides the bytes of a library: SHA-256 in hexadecimal."""
    # The command too: `gcc -m32` or `gcc -O0` in $CC calls itself the same as `gcc`. As JSON, for no text can then
    # run over into its neighbour.
    parts = [source, FLAGS, compiler.command, compiler.version, platform.machine(), abi]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def compile_library(
    source: str, target: Path, compiler: Compiler | None = None, extra_flags: tuple[str, ...] = ()
) -> str:
    """Compile `source` to the shared library `target`, which appears whole or not at all; returns its digest.

    Raises `CompilerNotFound`, `CompilerError` with what the compiler said, and `OSError` where the folder of `target`
    cannot be written.
    """
    compiler = compiler or find_compiler()
    build = temporary_name(target)
    try:
        build.mkdir(mode=0o700)
        text, library = build / f"{target.stem}.c", build / target.name
        text.write_bytes(source.encode())
        try:
            done = subprocess.run(
                [*compiler.command, *FLAGS, *extra_flags, "-o", str(library), str(text), "-lm"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
        except OSError as fault:
            raise CompilerNotFound(f"the C compiler does not run: {fault}", hint=INSTALL) from fault
        if done.returncode or not library.is_file():
            lines = done.stderr.decode(errors="replace").replace(f"{build}{os.sep}", "").strip().splitlines()
            if len(lines) > 40:
                lines[20:-20] = [f"... {len(lines) - 40} lines left out ..."]
            command = shlex.join([*compiler.command, *FLAGS, *extra_flags])
            raise CompilerError(
                f"the C compiler made no library of {text.name} (exit status {done.returncode})\n"
                + "\n".join(line[:300] for line in lines),
                hint=f"it was called as `{command}`; $CC can name another: this one is {compiler.version}",
            )
        made = digest(library)
        library.replace(target)
        return made
    finally:
        shutil.rmtree(build, ignore_errors=True)


def cache_folder() -> Path:
    """The folder of compiled libraries: `$OPTGEN_CACHE_DIR`, or the user's cache folder. Made if it is not there.

    Raises `CacheError` where it cannot be made, or where anyone but the user could put a library into it.
    """
    if named := os.environ.get("OPTGEN_CACHE_DIR"):
        folder = Path(named)
    else:
        import platformdirs

        folder = platformdirs.user_cache_path("optgen")
    # A relative folder would be another one after every change of directory, and `~` a folder of that name.
    if not folder.is_absolute():
        raise CacheError(f"the cache folder {str(folder)!r} is not an absolute path", hint=ELSEWHERE)
    return _own(folder)


def cached_library(source: str, name: str, abi: int) -> Path:
    """The path of a verified library of `source`, compiled now if the cache has none; `name` is a plain file name.

    A damaged entry is built again. Of several processes that want the same one, one builds and the others wait.
    Without a compiler, what any compiler made of this source before serves.
    Raises `CompilerNotFound`, `CompilerError`, and `CacheError` where the cache cannot be used.
    """
    try:
        compiler = find_compiler()
    except CompilerNotFound:
        if (earlier := _made_before(source, name, abi)) is not None:
            return earlier
        raise
    # The entry is checked like the cache: it may date from a time when others could write there.
    entry = _own(cache_folder() / library_key(source, compiler, abi))
    library = entry / f"{name}.so"
    if not _verified(library):
        with sole_builder(entry):
            # Another process may have built it while this one waited.
            if not _verified(library):
                # Left by builders that were killed: with the lock in hand, no other is at work here.
                for stale in entry.glob(".*.tmp"):
                    if stale.is_dir():
                        shutil.rmtree(stale, ignore_errors=True)
                    else:
                        stale.unlink()
                with announced(f"optgen compiles {name}; the result is kept"):
                    made = compile_library(source, library, compiler)
                write_atomically(library.with_suffix(".c"), _noted(source, abi))
                write_atomically(library.with_suffix(".sha256"), _note(made, library))
    return library


def _made_before(source: str, name: str, abi: int) -> Path | None:
    """A verified library of this very source, flags included, by whatever compiler there was when it was made."""
    for noted in sorted(cache_folder().glob(f"*/{name}.c")):
        library = _own(noted.parent) / f"{name}.so"
        if noted.read_text("utf-8") == _noted(source, abi) and _verified(library):
            return library
    return None


def _noted(source: str, abi: int) -> str:
    """The source as an entry keeps it to be read, and with it all of the key but the compiler and the machine."""
    return f"{source}\n/* {' '.join(FLAGS)}; interface {abi} */\n"


def _note(made: str, library: Path) -> bytes:
    return f"{made}  {library.name}\n".encode()


def _verified(library: Path) -> bool:
    try:
        return library.with_suffix(".sha256").read_bytes() == _note(digest(library), library)
    except OSError:
        return False


def _own(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as fault:
        raise CacheError(f"the cache folder {folder} cannot be made: {fault}", hint=ELSEWHERE) from fault
    path, user = shlex.quote(str(folder)), os.geteuid()
    if not stat.S_ISDIR(status.st_mode):
        raise CacheError(f"the cache folder {folder} is a link, and must be a real directory", hint=ELSEWHERE)
    if status.st_uid != user:
        raise CacheError(
            f"the cache folder {folder} belongs to user {status.st_uid}, and must belong to you (user {user})",
            hint=f"run `sudo chown {user} {path}`, or {ELSEWHERE}",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CacheError(
            f"the cache folder {folder} can be written by others (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"run `chmod go-w {path}`, or {ELSEWHERE}",
        )
    return folder


@contextmanager
def sole_builder(entry: Path) -> Iterator[None]:
    import filelock

    lock: filelock.BaseFileLock = filelock.FileLock(entry / ".lock", timeout=LOCK_TIMEOUT)
    try:
        with lock:
            # What filelock takes where the file system has no locks: a mere file, which outlives its owner.
            if isinstance(lock, filelock.SoftFileLock):
                raise OSError("the file system has no locks")
            yield
    except filelock.Timeout as fault:
        raise CacheError(
            f"another process has held {entry / '.lock'} for {LOCK_TIMEOUT:g} seconds",
            hint=f"end that process and its lock goes with it, or {ELSEWHERE}",
        ) from fault
    except (OSError, NotImplementedError) as fault:
        raise CacheError(f"the cache folder {entry} cannot be written: {fault}", hint=ELSEWHERE) from fault
