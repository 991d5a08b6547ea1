"""Rules to source text: the only Jinja environment. In: a rule in all its variants. Out: C, or a Python module.

Templates hold loops and the ABI; what they say of a rule comes to them in the few fields named here.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from functools import cache

import jinja2

from ..paths import TEMPLATES
from . import c_language as c

__all__ = ["docstring", "environment", "fill", "wrapped"]


@cache
def environment() -> jinja2.Environment:
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    env.filters |= {"behind": lambda name: f"{name} + i", "comment": c.comment, "docstring": docstring, "fill": fill}
    env.filters |= {"repr": repr, "toml": json.dumps, "wrapped": wrapped}
    return env


def fill(parts: Sequence[str], indent: int = 4) -> str:
    """`parts` with commas between them, on lines that are not too long; none is broken."""
    lines = [""]
    for i, part in enumerate(parts):
        text = part + ("," if i + 1 < len(parts) else "")
        if len(lines[-1]) + len(text) > 96 - indent:
            lines.append("")
        lines[-1] += f" {text}" if lines[-1] else text
    return f"\n{' ' * indent}".join(lines)


def docstring(words: str) -> str:
    """`words` as they may stand inside a docstring: nothing in them ends it or is an escape."""
    return c.comment(words).replace("\\", "\\\\").replace('"""', "'''").removesuffix('"')


def wrapped(words: str, indent: int = 4) -> str:
    """`words` on lines that are not too long, each but the first with an indent."""
    lines = textwrap.wrap(" ".join(words.split()), 108 - indent, break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * indent}".join(lines)
