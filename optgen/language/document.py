"""The document of a spec: its values, each with its place, and what to say of one that is something else.

In: what TOML makes of a spec, and where its keys and values stand. Out: texts, choices, numbers, expressions, formulas
and named entries; a fault for each value that is none of what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from ..errors import Diagnostic, Span
from ..names import canonical, close_matches
from .formula import read_expression, read_formulas, words
from .positions import Path, Positions, span_at
from .refusals import kind
from .syntax import Broken, FormulaAst, LoopAst, Number, SpecAst, Term

__all__ = ["Document", "is_number", "real"]

_NO_ESCAPES = "write it between ''' and ''', where backslashes have no meaning"


class Document:
    """The document of `spec`, which takes its faults. `places`: where its keys and values stand."""

    def __init__(self, spec: SpecAst, places: Mapping[Path, Positions]) -> None:
        self.spec = spec
        self.places = places

    def fault(self, span: Span, message: str, hint: str | None = None) -> None:
        self.spec.faults.append(Diagnostic(span, message, hint))

    def key_span(self, path: Path) -> Span:
        place = self.places.get(path)
        if place is None:
            inside = self.first_inside.get(path)
            return span_at(self.spec.text, *inside) if inside else Span(1, 1)
        return span_at(self.spec.text, *place.key)

    @cached_property
    def first_inside(self) -> dict[Path, tuple[int, int]]:
        """The first key inside of each table: one that is made only by dotted keys has no other place."""
        first: dict[Path, tuple[int, int]] = {}
        for path, place in self.places.items():
            for length in range(1, len(path)):
                above = path[:length]
                first[above] = min(first.get(above, place.key), place.key)
        return first

    def value_span(self, path: Path) -> Span:
        place = self.places.get(path)
        return span_at(self.spec.text, *place.value) if place else self.key_span(path)

    def refuse_unknown(self, path: Path, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                expected = ", ".join(known)
                self.fault(self.key_span((*path, key)), f"unknown key {key!r}", f"expected one of: {expected}")

    def text(self, path: Path, table: Mapping[str, Any], key: str, *, required: bool = False) -> str:
        value = table.get(key)
        if value is None:
            if required:
                self.fault(self.key_span(path) if path else Span(1, 1), f"{key!r} is missing", f'add: {key} = "..."')
            return ""
        if not isinstance(value, str):
            self.fault(self.value_span((*path, key)), f"{key!r}: expected text, got {kind(value)}", "put it in quotes")
            return ""
        if required and not value.strip():
            self.fault(self.value_span((*path, key)), f"{key!r}: expected text, got none")
        return value.strip()

    def choice(self, path: Path, table: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> str:
        """A text among `choices`. The first of them is the default."""
        value = self.text(path, table, key)
        if isinstance(table.get(key), str) and value not in choices:
            close = close_matches(value, choices)
            hint = f"did you mean {close[0]!r}?" if close else None
            expected = ", ".join(filter(None, choices))
            self.fault(self.value_span((*path, key)), f"{key!r}: expected one of {expected}; got {value!r}", hint)
        return value if value in choices else choices[0]

    def entries(self, document: dict[str, Any], key: str, example: str) -> Iterator[tuple[str, Path, dict[str, Any]]]:
        """Yield the named entries of a table, each of which must be a table."""
        table = document.get(key, {})
        if not isinstance(table, dict):
            self.fault(self.value_span((key,)), f"{key!r}: expected a table, got {kind(table)}", f"write: [{key}]")
            return
        seen: dict[str, str] = {}
        for spelled, entry in table.items():
            path: Path = (key, spelled)
            name = canonical(spelled)
            if name in seen:
                message = f"{spelled!r} is the name {name!r}, which {seen[name]!r} already has"
                self.fault(self.key_span(path), message, "one name, one entry: rename or remove one of them")
            elif not isinstance(entry, dict):
                message = f"{spelled!r}: expected a table in braces, got {kind(entry)}"
                self.fault(self.value_span(path), message, f"for example: {example}")
            else:
                yield name, path, entry
            seen.setdefault(name, spelled)

    def value(self, path: Path, table: dict[str, Any], what: str) -> Term:
        """Read a number, or the text of an expression, under `path`."""
        place, given = self.value_span(path), table[str(path[-1])]
        if not is_number(given):
            return self.expression(path, table) or Broken(place)
        value = real(given)
        if math.isfinite(value):
            return Number(place, value, isinstance(given, int))
        self.fault(place, f"expected a finite {what}, got {value}")
        return Broken(place)

    def when(self, path: Path, table: Mapping[str, Any]) -> Term | None:
        """Read the condition on which an entry is there, if it has one."""
        return self.expression((*path, "when"), table) or Broken(self.key_span(path)) if "when" in table else None

    def expression(self, path: Path, table: Mapping[str, Any]) -> Term | None:
        """Read the text under `path` as one expression."""
        key = str(path[-1])
        source = self.text(path[:-1], table, key, required=True)
        if not source:
            return None
        place = self.places[path].value
        start = self.spec.text.find(source, *place)
        if start < 0:
            self.fault(self.value_span(path), "an expression with escapes in its text", _NO_ESCAPES)
            self.spec.unused |= words(source)
            return None
        return read_expression(self.spec, source, start)

    def formulas(self, of: Path, table: Mapping[str, Any]) -> tuple[Span, list[FormulaAst | LoopAst]]:
        """The formulas of a table, and the place of their key."""
        path: Path = (*of, "formulas")
        source = self.text(of, table, "formulas", required=True)
        if not source:
            return self.key_span(of), []
        start = self.spec.text.find(source, *self.places[path].value)
        if start < 0:
            self.fault(self.value_span(path), "formulas with escapes in their text", _NO_ESCAPES)
            self.spec.unassigned |= words(source)
            return self.key_span(path), []
        return self.key_span(path), list(read_formulas(self.spec, source, start))


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def real(value: int | float) -> float:
    """Convert a number to float64. A number too large becomes NaN, which no range admits."""
    try:
        return float(value)
    except OverflowError:
        return math.nan
