"""Spec to rule to kernel to optimiser class: each stage made once, kept, and there to be looked at.

In: the text of a spec. Out: a `Compilation`, its `Kernel`s, its optimiser class.
A library is taken from where `optgen build` put it if it was made from this very spec by this very compiler of ours,
and else from the per-user cache, which compiles it on first use.
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
