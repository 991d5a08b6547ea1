"""Files that appear whole, and their digests.

In: a path, and what is to be there. Out: the file, all of the old or all of the new; its bytes, and their SHA-256.

What is read is a regular file or an error: a pipe in its place would be waited for without end.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["digest", "open_regular", "printable", "read_regular", "temporary_name", "whole_file", "write_atomically"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The name of a new, empty file beside `path`, which takes the name `path` when the block ends without an error.

    So `path` holds all of the old or all of the new, whatever happens. Raises `OSError`.
    """
    temporary = temporary_name(path)
    try:
        temporary.open("xb").close()
    except OSError as error:
        error.filename = str(path)  # the name that the caller knows
        raise
    try:
        yield temporary
        with temporary.open("rb+") as file:
            # Before the new name is given: a crash of the machine must not leave the name on an empty file.
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) so that `path` holds all of the old or all of the new. Raises `OSError`."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def open_regular(path: Path) -> int:
    """A descriptor of the regular file at `path`, to read. Raises `OSError`, for whatever else is there too."""
    opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(f"{path} is no regular file")
    return opened


def read_regular(path: Path) -> bytes:
    """The bytes of the regular file at `path`. Raises `OSError`."""
    with open(open_regular(path), "rb") as file:
        return file.read()


def printable(path: Path) -> str:
    """A path as text that every stream and file can hold, also where the system knows it by bytes that are no text."""
    return str(path).encode(errors="backslashreplace").decode()


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises `OSError` where it cannot be read."""
    with open(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def temporary_name(target: Path) -> Path:
    """A name beside `target` that nothing else has."""
    return target.with_name(f".{target.name}.{os.urandom(8).hex()}.tmp")
