"""The cache of compiled libraries of one user.

In: C source. Out: what the caller makes of a verified library of it, compiled now if there is none.

    <cache>/<key>/<name>.so       the library
    <cache>/<key>/<name>.c        its source, to be read
    <cache>/<key>/<name>.sha256   the digests of both, written last, in the format of `sha256sum --check`
    <cache>/<key>/.lock           held while the entry is built, and let go by the system when the builder dies

The key names all that decides the bytes of a library, and the library has it in itself. A digest shows damage; it does
not keep out an attacker, who would write a digest too. That is what `trust` is for: whatever is loaded was put there by
the user, also between the check and the loading. What is not as it should be is set aside and built again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..errors import CacheError, CompilerError, CompilerNotFound
from . import toolchain
from .files import open_regular, temporary_name, write_atomically
from .lock import sole_builder
from .trust import ELSEWHERE, expect_own_file, expect_own_folder, expect_safe_place, others_can_write
from .waiting import announced

__all__ = ["cache_folder", "cached_library", "library_key", "open_cached"]

T = TypeVar("T")

#: What to do about a folder that others could write. It may be one that the user needs for other things.
MISTRUSTED = f"delete it if it is a cache and nothing else, since what others wrote into it stays there, or {ELSEWHERE}"
#: What a library says in itself of what it was made of.
KEY = """
#ifdef OPTGEN_KEY
__attribute__((visibility("default"), used)) const char optgen_key[] = OPTGEN_KEY;
#endif
"""


def cache_folder() -> Path:
    """The folder of compiled libraries: `$OPTGEN_CACHE_DIR`, or the user's cache folder. Made if it is not there.

    Raises `CacheError` where it cannot be made, or where anyone but the user could put a library into it.
    """
    if named := os.environ.get("OPTGEN_CACHE_DIR"):
        folder = Path(named)
    else:
        import platformdirs

        try:
            folder = platformdirs.user_cache_path("optgen")
        except RuntimeError as fault:  # neither $HOME nor an entry among the users
            raise CacheError(f"there is no folder for a cache: {fault}", hint=ELSEWHERE) from None
    # A relative folder would be another one after every change of directory, and `~` a folder of that name.
    if not folder.is_absolute():
        raise CacheError(f"the cache folder: expected an absolute path, got {str(folder)!r}", hint=ELSEWHERE)
    return _own(folder, MISTRUSTED)


def library_key(source: str, compiler: toolchain.Compiler, abi: int) -> str:
    """The name of all that decides the bytes of a library: SHA-256 in hexadecimal."""
    # The command too: `gcc -m32` or `gcc -O0` in $CC calls itself the same as `gcc`. As JSON, for no text can then
    # run over into its neighbour.
    parts = [source, toolchain.FLAGS, compiler.command, compiler.version, platform.machine(), abi]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def cached_library(source: str, name: str, abi: int) -> Path:
    """The path of a verified library of `source`; raises as `open_cached`."""
    return open_cached(source, name, abi, lambda path: path)


def open_cached(source: str, name: str, abi: int, opened: Callable[[Path], T]) -> T:
    """What `opened` makes of a verified library of `source`, compiled now if the cache has none.

    `name` is a plain file name. An entry that is damaged, or that does not open, is built again, once. Of several
    processes that want the same one, one builds and the others wait. Without a compiler, what any compiler made of this
    source before serves. Raises `CompilerNotFound`, `CompilerError`, and `CacheError` where the cache cannot be used.
    """
    noted = f"{source}\n/* {' '.join(toolchain.FLAGS)}; interface {abi} */\n{KEY}"
    folder = cache_folder()
    try:
        compiler = toolchain.find_compiler()
    except CompilerNotFound:
        for note in sorted(folder.glob(f"*/{name}.sha256")):
            if _verified(note.with_suffix(".so"), noted):
                return opened(note.with_suffix(".so"))
        raise
    # The entry is checked like the cache: it may date from a time when others could write there.
    entry = folder / library_key(source, compiler, abi)
    _set_aside_unless(stat.S_ISDIR, entry)
    _own(entry, _deleted(entry))
    library = entry / f"{name}.so"
    if found := _verified(library, noted):
        try:
            return opened(library)
        except CompilerError:
            pass
    _set_aside_unless(stat.S_ISREG, entry / ".lock")
    with sole_builder(entry):
        # Another process may have built it while this one waited.
        if _verified(library, noted) in ("", found):
            _build(library, noted, compiler)
    return opened(library)


def _build(library: Path, noted: str, compiler: toolchain.Compiler) -> None:
    """Builds an entry anew; the caller holds its lock."""
    entry = library.parent
    for stale in entry.glob(".*.tmp"):  # of builders that were killed: with the lock in hand, no other is at work here
        _remove(stale)
    source, note = library.with_suffix(".c"), library.with_suffix(".sha256")
    for path in (library, source, note):
        _set_aside_unless(stat.S_ISREG, path)
    with announced(f"optgen compiles {library.stem}; the result is kept"):
        made = toolchain.compile_library(noted, library, compiler, (f'-DOPTGEN_KEY="{entry.name}"',))
    write_atomically(source, noted)
    write_atomically(note, _note({library: made, source: hashlib.sha256(noted.encode()).hexdigest()}))
    for path in (library, source, note):
        path.chmod(path.stat().st_mode & ~0o022)  # whatever the umask allows


def _note(digests: dict[Path, str]) -> bytes:
    return "".join(f"{made}  {path.name}\n" for path, made in digests.items()).encode()


def _verified(library: Path, noted: str) -> str:
    """The digest of a library that is as it was made, of the source and with the flags that are `noted`; else nothing.

    CacheError where a file of the entry belongs to somebody else.
    """
    source, note = library.with_suffix(".c"), library.with_suffix(".sha256")
    hint = _deleted(library.parent)
    try:
        expect_own_folder(library.parent, hint)
        found = {path: _own_bytes(path, hint) for path in (library, source, note)}
    except CacheError:
        raise
    except OSError:
        return ""
    digests = {path: hashlib.sha256(found[path]).hexdigest() for path in (library, source)}
    whole = found[source] == noted.encode() and found[note] == _note(digests)
    key = library.parent.name.encode()  # which a library of other flags or of another source has not in it
    return digests[library] if whole and key in found[library] and toolchain.is_whole(found[library]) else ""


def _own_bytes(path: Path, hint: str) -> bytes:
    """The bytes of a file that only the user can have written; OSError if it is no such file."""
    with open(open_regular(path), "rb") as file:
        status = os.fstat(file.fileno())
        expect_own_file(path, status, hint)
        if path.is_symlink() or others_can_write(status):
            raise OSError(f"{path}: expected a real folder that only you can write, got another")
        return file.read()


def _set_aside_unless(kind: Callable[[int], bool], path: Path) -> None:
    """Takes away what is in the place of a file or folder and is of another `kind`."""
    try:
        if kind(path.lstat().st_mode):
            return
        aside = temporary_name(path)
        path.rename(aside)
    except OSError:  # nothing is there; or what comes next will say what it cannot do
        return
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _deleted(entry: Path) -> str:
    return f"delete {entry}, which is built again, or {ELSEWHERE}"


def _own(folder: Path, hint: str) -> Path:
    """`folder`, made if it is not there, where only the user can write and nobody else could exchange it."""
    try:
        _make(folder)
        folder = folder.parent.resolve() / folder.name  # a link on the way may be turned while we look
        expect_own_folder(folder, hint)
        expect_safe_place(folder)
    except CacheError:
        raise
    except (OSError, ValueError) as fault:  # a name that this locale cannot write
        raise CacheError(f"expected to make the cache folder {str(folder)!r}, got {fault}", hint=ELSEWHERE) from fault
    return folder


def _make(folder: Path) -> None:
    """Folders above the cache are made for the user alone too, whatever the umask allows."""
    if not folder.parent.exists():
        _make(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
