"""The rules that ship with optgen.

In: the folder of specs. Out: their paths, also by the names of their rules.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from ..paths import SPECS

__all__ = ["shipped", "shipped_names", "shipped_rules", "shipped_spec"]


def shipped() -> tuple[Path, ...]:
    """The specs that come with optgen."""
    return tuple(sorted(SPECS.glob("*.toml")))


@cache
def shipped_names() -> dict[str, Path]:
    """The specs that come with optgen by the names of their rules, of which nothing else is read."""
    return {name: path for path in shipped() if (name := _name(path))}


@cache
def shipped_spec(name: str) -> Path | None:
    """The spec of the shipped rule of this name, or None; the files that are called so are read first."""
    likely = sorted(shipped(), key=lambda path: not path.stem.endswith(name.lower()))
    return next((path for path in likely if _name(path) == name), None)


def _name(path: Path) -> str:
    match = re.search(r'^name\s*=\s*"(\w+)"', path.read_text("utf-8"), re.MULTILINE)
    return match[1] if match else ""


@cache
def shipped_rules() -> tuple[str, ...]:
    """The names of the rules that come with optgen and are no parts of chains."""
    part = re.compile(r"^part\s*=\s*[\"']", re.MULTILINE)  # no formula gives text
    return tuple(name for name, path in shipped_names().items() if not part.search(path.read_text("utf-8")))
