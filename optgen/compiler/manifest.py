"""What `optgen build` leaves behind: the record beside each library, and whether it can still be trusted.

In: the place of a record, and the fingerprint that is wanted. Out: the library, if it was made from this very spec by
this very optgen, and nothing has happened to it since.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ..frozen import frozen
from ..paths import BENCHMARKS, BUILD, PACKAGE, TEMPLATES
from .files import digest, read_regular, write_atomically

__all__ = [
    "Manifest",
    "built_library",
    "built_templates",
    "fingerprint",
    "hash_sources",
    "library_of",
    "note_sources",
    "rules_of",
]


#: The suffix of a file of checked and lowered rules.
RULES = ".rules"
#: The name of the file that keeps the digest of optgen itself from one process to the next.
SOURCES = "sources.json"


def _source_files() -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The files of optgen itself, of all that decides what a spec turns into, in order and with their short names."""
    left_out = {str(BENCHMARKS), str(BUILD)}

    def within(folder: str, prefix: str, suffix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir():
                    if entry.path not in left_out and entry.name != "__pycache__":
                        yield from within(entry.path, f"{prefix}{entry.name}/", suffix)
                elif entry.name.endswith(suffix):
                    yield f"{prefix}{entry.name}", entry

    yield from within(str(PACKAGE), "", ".py")
    yield from within(str(TEMPLATES), "templates/", "")


def hash_sources() -> bytes:
    """The digest of optgen itself, from the text of its files."""
    state = hashlib.sha256()
    for name, entry in _source_files():
        state.update(f"{name}\0".encode() + Path(entry.path).read_bytes() + b"\0")
    return state.digest()


def _stamps() -> str:
    """A digest of the names, sizes and times of the files of optgen itself: they change when a file does."""
    state = hashlib.sha256()
    for name, entry in _source_files():
        status = entry.stat()
        state.update(f"{name}\0{status.st_size} {status.st_mtime_ns}\0".encode())
    return state.hexdigest()


@cache
def _sources() -> bytes:
    """A digest of optgen itself. It takes long, so what `note_sources` left is taken while it holds: always in an
    installed wheel, whose files nobody edits; in a checkout until the size or the time of a file changes."""
    try:
        noted = json.loads(read_regular(BUILD / SOURCES))
        if BUILD.parent == PACKAGE or noted["stamps"] == _stamps():
            return bytes.fromhex(noted["digest"])
    except (OSError, ValueError, TypeError, LookupError):
        pass
    return hash_sources()


def note_sources(folder: Path) -> str:
    """Write down in `folder` the digest of optgen itself, for processes to come; gives the name of the file.

    Only the file in the folder of the shipped rules is ever read.
    """
    stamps = _stamps()  # first: a file that changes meanwhile has another stamp than the one that is noted
    noted = {"stamps": stamps, "digest": hash_sources().hex()}
    write_atomically(folder / SOURCES, json.dumps(noted, indent=2) + "\n")
    return SOURCES


def fingerprint(text: str) -> str:
    """Says whether something was made from this spec by this optgen."""
    return hashlib.sha256(_sources() + text.encode()).hexdigest()


@frozen
class Manifest:
    """The record of what one build made: of which spec, by which compiler, and the digest of every file."""

    fingerprint: str
    compiler: str
    files: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """The record at `path`; None if there is none, or it is damaged."""
        try:
            return cls(**json.loads(read_regular(path)))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps(self.__dict__, indent=2) + "\n")

    def intact(self, folder: Path, *suffixes: str) -> bool:
        """Whether the files, or those with one of `suffixes`, are as they were made."""
        try:
            return all(
                digest(folder / name) == noted
                for name, noted in self.files.items()
                if not suffixes or name.endswith(suffixes)
            )
        except (OSError, AttributeError, TypeError):
            return False


def library_of(record: Path) -> Path:
    """Where the library is that the record at `record` is about."""
    # Not `adam.so`: `import adam` would take it for an extension module, and never look at `adam.py` beside it.
    return record.with_name(f"lib{record.stem}.so")


def rules_of(record: Path) -> Path:
    """Where the checked and lowered rules are that the record at `record` is about."""
    return record.with_suffix(RULES)


@cache
def built_templates() -> Path | None:
    """The folder of the templates that were compiled with the runtime, if they are those of this very optgen."""
    return BUILD if built_library(BUILD / "runtime.json", fingerprint("")) else None


def built_library(record: Path, wanted: str) -> Path | None:
    """The library of the record, if it has the fingerprint `wanted`, and what lies beside it and will be loaded, the
    module and the rules, is undamaged as it is."""
    manifest = Manifest.read(record)
    if manifest is None or manifest.fingerprint != wanted or not manifest.intact(record.parent, ".so", ".py", RULES):
        return None
    return library_of(record)
