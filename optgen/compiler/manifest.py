"""What `optgen build` leaves behind: the record beside each library, and whether it can still be trusted.

In: the place of a record, and the fingerprint that is wanted. Out: the library, if it was made from this very spec by
this very optgen, and nothing has happened to it since.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..paths import BENCHMARKS, BUILD, PACKAGE, TEMPLATES
from . import toolchain

__all__ = ["Product", "built_library", "fingerprint", "library_of"]


@cache
def _sources() -> bytes:
    """A digest of optgen itself: of all that decides what a spec turns into."""
    state = hashlib.sha256()
    for root, pattern in ((PACKAGE, "**/*.py"), (TEMPLATES, "**/*")):
        for path in sorted(root.glob(pattern)):
            if path.is_file() and not {BENCHMARKS, BUILD} & {*path.parents}:
                state.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return state.digest()


def fingerprint(text: str) -> str:
    """Says whether something was made from this spec by this optgen."""
    return hashlib.sha256(_sources() + text.encode()).hexdigest()


@dataclass(frozen=True)
class Product:
    """The record of what one build made: of which spec, by which compiler, and the digest of every file."""

    fingerprint: str
    compiler: str
    files: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Product | None:
        """The record at `path`; None if there is none, or it is damaged."""
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        toolchain.write_atomically(path, json.dumps(self.__dict__, indent=2) + "\n")

    def intact(self, folder: Path, *suffixes: str) -> bool:
        """Whether the files, or those with one of `suffixes`, are as they were made."""
        try:
            return all(
                toolchain.digest(folder / name) == digest
                for name, digest in self.files.items()
                if not suffixes or name.endswith(suffixes)
            )
        except (OSError, AttributeError, TypeError):
            return False


def library_of(record: Path) -> Path:
    """Where the library is that the record at `record` is about."""
    # Not `adam.so`: `import adam` would take it for an extension module, and never look at `adam.py` beside it.
    return record.with_name(f"lib{record.stem}.so")


def built_library(record: Path, wanted: str) -> Path | None:
    """The library of the record, if it has the fingerprint `wanted`, and both it and the module beside it, which will
    be loaded, are undamaged."""
    product = Product.read(record)
    if product is None or product.fingerprint != wanted or not product.intact(record.parent, ".so", ".py"):
        return None
    return library_of(record)
