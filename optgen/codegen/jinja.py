"""The Jinja environment, and the filters with which templates lay out what they write.

In: names, statements and words. Out: the same as they may stand in C, Python or TOML, on lines that are not too long.
"""

from __future__ import annotations

import json
import operator
import textwrap
from collections.abc import Sequence
from functools import cache

import jinja2

from ..paths import TEMPLATES
from . import c_language as c

__all__ = ["WIDTH", "backslashed", "broken", "call", "docstring", "environment", "filled", "wrapped"]

#: The columns of a line of C.
WIDTH = 100


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
    env.filters |= {"backslashed": backslashed, "broken": broken, "call": call, "comment": c.comment}
    env.filters |= {
        "docstring": docstring,
        "filled": filled,
        "repr": repr,
        "suffix": operator.add,
        "toml": json.dumps,
        "wrapped": wrapped,
    }
    return env


def call(head: str, arguments: Sequence[str], tail: str, indent: str = "") -> str:
    """A call, or the head of a function: on one line if it fits, else with its arguments on lines of their own."""
    whole = f"{indent}{head}{', '.join(arguments)}{tail}"
    if len(whole) <= WIDTH:
        return whole
    lines = [f"{indent}    "]
    for i, argument in enumerate(arguments):
        text = argument + (", " if i + 1 < len(arguments) else tail)
        if len(lines[-1].rstrip() + " " + text.rstrip()) > WIDTH and lines[-1].strip():
            lines.append(f"{indent}    ")
        lines[-1] += text
    return "\n".join([f"{indent}{head}", *(line.rstrip() for line in lines)])


def broken(text: str, indent: str, more: str = "    ") -> str:
    """A statement or a comment on lines that are not too long; those after the first have `more` indent. It keeps its
    own indent, if it has one."""
    own = text[: len(text) - len(text.lstrip())]
    return "\n".join(
        textwrap.wrap(
            text.strip(),
            WIDTH,
            initial_indent=indent + own,
            subsequent_indent=indent + own + ("   " if text.lstrip().startswith("/*") else more),
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def filled(parts: Sequence[str], indent: str) -> str:
    """`parts` one behind the other, on lines that are not too long; none is broken."""
    lines = [indent]
    for part in parts:
        if len(f"{lines[-1]}{part}") > WIDTH and lines[-1].strip():
            lines.append(indent)
        lines[-1] += f"{part} "
    return "\n".join(line.rstrip() for line in lines)


def backslashed(lines: str) -> str:
    """The definition of a macro from its lines: all but the last go on."""
    *most, last = lines.strip("\n").split("\n")
    return "".join(f"{line:<{WIDTH - 2}} \\\n" for line in most) + last


def docstring(words: str) -> str:
    """`words` as they may stand inside a docstring: nothing in them ends it or is an escape."""
    return c.comment(words).replace("\\", "\\\\").replace('"""', "'''").removesuffix('"')


def wrapped(words: str, indent: int = 4) -> str:
    """`words` on lines that are not too long, each but the first with an indent."""
    lines = textwrap.wrap(" ".join(words.split()), 108 - indent, break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * indent}".join(lines)
