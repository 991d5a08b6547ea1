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

__all__ = [
    "IN_MACRO",
    "WIDTH",
    "backslashed",
    "braced",
    "broken",
    "call",
    "code",
    "docstring",
    "environment",
    "filled",
    "wrapped",
]

#: The columns of a line of C, and of one inside a macro, before its backslash.
WIDTH = 100
IN_MACRO = WIDTH - 2
#: What binds a statement together, from the loosest on: a long one is broken before the first of these.
_LOOSE = {
    "?": 1,
    ":": 1,
    "|": 2,
    "&": 3,
    "<": 4,
    "<=": 4,
    ">": 4,
    ">=": 4,
    "==": 4,
    "!=": 4,
    "+": 5,
    "-": 5,
    "*": 6,
    "/": 6,
}


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
    env.filters |= {
        "backslashed": backslashed,
        "braced": braced,
        "broken": broken,
        "call": call,
        "code": code,
        "comment": c.comment,
    }
    env.filters |= {
        "docstring": docstring,
        "filled": filled,
        "repr": repr,
        "suffix": operator.add,
        "toml": json.dumps,
        "wrapped": wrapped,
    }
    return env


def call(head: str, arguments: Sequence[str], tail: str, indent: str = "", width: int = WIDTH) -> str:
    """A call, or the head of a function: on one line if it fits, else with its arguments on lines of their own."""
    whole = f"{indent}{head}{', '.join(arguments)}{tail}"
    if len(whole) <= width:
        return whole
    if head == "{ ":  # of an initialiser, which goes on under its first field
        fields = filled([f"{each}," for each in arguments], f"{indent}  ", width - len(tail))
        return f"{indent}{head}{fields.strip().removesuffix(',')}{tail}"
    lines = [f"{indent}    "]
    for i, argument in enumerate(arguments):
        text = argument + (", " if i + 1 < len(arguments) else tail)
        if len(lines[-1].rstrip() + " " + text.rstrip()) > width and lines[-1].strip():
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


def braced(head: str, parts: Sequence[str], tail: str, indent: str = "") -> str:
    """What stands in braces: on one line if it fits, else its parts on lines of their own; none is broken."""
    whole = f"{indent}{head} {' '.join(parts)} {tail}"
    return whole if len(whole) <= WIDTH else f"{indent}{head}\n{filled(parts, indent + '    ')}\n{indent}{tail}"


def code(statement: str, indent: str, meaning: str = "") -> str:
    """A statement on lines that are not too long, broken where it is bound least. `meaning`: a comment, behind it if
    there is room."""
    if meaning and len(f"{indent}{statement} /* {meaning} */") <= WIDTH:
        return f"{indent}{statement} /* {meaning} */"
    above = [broken(f"/* {meaning} */", indent)] if meaning else []
    lines, more = [f"{indent}{statement}"], f"{indent}    "
    while len(lines[-1]) > WIDTH and (at := _break(lines[-1])):
        lines[-1:] = [lines[-1][:at], more + lines[-1][at + 1 :]]
    return "\n".join(above + lines)


def _break(line: str) -> int:
    """The space at which a line is broken: the last that fits of those in the fewest parentheses and before the loosest
    operator; 0 if there is none."""
    best, at, depth, start = (99, 99), 0, 0, len(line) - len(line.lstrip())
    for i, character in enumerate(line[: WIDTH + 1]):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(character, 0)
        if character != " " or i <= start:
            continue
        loose = 0 if line[i - 1] in ",;" else _LOOSE.get(line[i + 1 :].split(" ", 1)[0], 8 if line[i - 1] == "=" else 9)
        if (depth, loose) <= best:
            best, at = (depth, loose), i
    return at


def filled(parts: Sequence[str], indent: str, width: int = WIDTH) -> str:
    """`parts` one behind the other, on lines that are not too long; none is broken."""
    lines = [indent]
    for part in parts:
        if len(f"{lines[-1]}{part}") > width and lines[-1].strip():
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
