"""The statements of formulas: where each begins and ends in a text, before anybody reads it.

In: the text of the formulas of a spec. Out: its formulas and loops as text, with their offsets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["statements"]


def statements(source: str) -> Iterator[tuple[int, str]]:
    """Split a text into formulas, with their offsets.

    A formula ends with its line, unless a bracket is still open; a loop before a line that is indented no deeper.
    """
    lines = list(re.finditer(r"[^\n]*(?:\n|$)", source))
    codes = [line.group().split("#", 1)[0].rstrip() for line in lines]
    following = _following(codes)
    start, depth, first = 0, 0, ""
    for i, (line, code) in enumerate(zip(lines, codes, strict=True)):
        first = first or code
        depth += sum(map(code.count, "([{")) - sum(map(code.count, ")]}"))
        inside = re.match(r"\s*for\b", first) is not None and following[i] > _indentation(first)
        if (depth > 0 or inside) and line.end() < len(source):
            continue
        statement = source[start : line.end()]
        if first:
            yield start + len(statement) - len(statement.lstrip()), statement.strip()
        start, depth, first = line.end(), 0, ""


def _indentation(code: str) -> int:
    return len(code) - len(code.lstrip())


def _following(codes: list[str]) -> list[int]:
    """Of each line, how far the next one with any code in it is indented; -1 if there is none."""
    found, indentation = [], -1
    for code in reversed(codes):
        found.append(indentation)
        indentation = _indentation(code) if code else indentation
    return found[::-1]
