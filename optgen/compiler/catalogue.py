"""The rules that ship with optgen.

In: the folder of specs. Out: their paths, also by the names of their rules.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from ..paths import SPECS

__all__ = ["shipped", "shipped_names"]


def shipped() -> tuple[Path, ...]:
    """The specs that come with optgen."""
    return tuple(sorted(SPECS.glob("*.toml")))


@cache
def shipped_names() -> dict[str, Path]:
    """The specs that come with optgen by the names of their rules, of which nothing else is read."""
    names = {}
    for path in shipped():
        if match := re.search(r'^name\s*=\s*"(\w+)"', path.read_text("utf-8"), re.MULTILINE):
            names[match[1]] = path
    return names
