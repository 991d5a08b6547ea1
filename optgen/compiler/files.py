"""Files that appear whole, and their digests.

In: a path, and what is to be there. Out: the file, all of the old or all of the new; its SHA-256.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["digest", "temporary_name", "whole_file", "write_atomically"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The name of a new, empty file beside `path`, which takes the name `path` when the block ends without an error.

    So `path` holds all of the old or all of the new, whatever happens. Raises `OSError`.
    """
    temporary = temporary_name(path)
    try:
        temporary.open("xb").close()
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


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises `OSError` where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def temporary_name(target: Path) -> Path:
    """A name beside `target` that nothing else has."""
    return target.with_name(f".{target.name}.{os.urandom(8).hex()}.tmp")
