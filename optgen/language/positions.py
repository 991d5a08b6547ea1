"""The places of keys and values in a TOML document, which `tomllib` does not give.

In: the text of a document that `tomllib` has accepted. Out: `{path: Positions}`, where a path is the tuple of keys and
array positions that lead to a value.

The scanner knows just enough of TOML's grammar to skip over a value.
"""

from __future__ import annotations

import re
import tomllib

from ..errors import Span
from ..frozen import frozen

__all__ = ["DEEPEST", "Path", "Positions", "locate", "nested_too_deeply", "span_at"]

#: How many tables and lists a document may have in each other, and how many names a key. A spec needs three.
DEEPEST = 8

Path = tuple[str | int, ...]

_BLANK = re.compile(r"[ \t]*")
_BLANK_LINES = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\r\n]*[^,\]}#\r\n\s]")
_STRINGS = (
    re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}', re.DOTALL),
    re.compile(r"'''.*?'{3,5}", re.DOTALL),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)


@frozen
class Positions:
    """Offsets of a key and of its value in the text: start and end of each."""

    key: tuple[int, int]
    value: tuple[int, int]


def span_at(text: str, start: int, end: int) -> Span:
    """The span of the characters from `start` to `end`, cut off at the end of the first line."""
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", start)
    end = min(end, len(text) if line_end < 0 else line_end)
    return Span(text.count("\n", 0, start) + 1, start - line_start + 1, max(1, end - start))


#: What decides how deep a document is nested, with strings and comments as one; closed or not.
_MARKS = re.compile(
    r"""
    \"{3} (?: [^\\] | \\. )*? (?: \"{3} | \Z )
    | '{3} .*? (?: '{3} | \Z )
    | \" (?: [^\"\\\n] | \\. )* \"?
    | ' [^'\n]* '?
    | \# [^\n]*
    | [][{}.=,\n]
    """,
    re.DOTALL | re.VERBOSE,
)


def nested_too_deeply(text: str) -> int | None:
    """Where a document, of which nothing is known yet, is nested more than DEEPEST deep; None if it is nowhere.

    Asked before `tomllib`, which takes time and memory that grow with the square of the depth.
    """
    brackets = names = 0
    for mark in _MARKS.finditer(text):
        match mark[0]:
            case "[" | "{":
                brackets += 1
            case "]" | "}":
                brackets -= 1
            case ".":
                names += 1
            case "=" | "," | "\n":
                names = 0
        if max(brackets, names + 1) > DEEPEST:
            return mark.start()
    return None


def locate(text: str) -> dict[Path, Positions]:
    """Find all keys and values of a valid TOML document. The key of a table is the last name in its header."""
    return _Scanner(text).document()


class _Scanner:
    """A cursor, `at`, that moves over the text. Each method reads one construct and leaves the cursor after it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: dict[Path, Positions] = {}
        self.rows: dict[Path, int] = {}

    def document(self) -> dict[Path, Positions]:
        table: Path = ()
        while self.skip(_BLANK_LINES) < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
        return self.places

    def header(self) -> Path:
        double = self.text.startswith("[[", self.at)
        self.at += 2 if double else 1
        path, key = self.dotted_key()
        self.skip(_BLANK)
        self.at += 2 if double else 1
        if double:
            row = self.rows[path] = self.rows.get(path, -1) + 1
            path = (*path, row)
        self.places.setdefault(path, Positions(key, key))
        return path

    def pair(self, table: Path) -> None:
        names, key = self.dotted_key()
        self.skip(_BLANK)
        self.at += 1  # the equals sign
        self.skip(_BLANK)
        path = (*table, *names)
        value = self.value(path)
        self.places[path] = Positions(key, value)

    def dotted_key(self) -> tuple[Path, tuple[int, int]]:
        names: list[str] = []
        while True:
            self.skip(_BLANK)
            start = self.at
            string = self.string()
            if string is not None:
                names.append(_unquoted(string))
            else:
                self.skip(_BARE_KEY)
                names.append(self.text[start : self.at])
            key = (start, self.at)
            self.skip(_BLANK)
            if self.text[self.at : self.at + 1] != ".":
                return tuple(names), key
            self.at += 1

    def value(self, path: Path) -> tuple[int, int]:
        start = self.at
        if self.string() is not None:
            pass
        elif self.text[self.at] == "[":
            self.at += 1
            row = 0
            while self.text[self.skip(_BLANK_LINES)] != "]":
                place = self.value((*path, row))
                self.places[(*path, row)] = Positions(place, place)
                row += 1
                if self.text[self.skip(_BLANK_LINES)] == ",":
                    self.at += 1
            self.at += 1
        elif self.text[self.at] == "{":
            self.at += 1
            while self.text[self.skip(_BLANK_LINES)] != "}":
                self.pair(path)
                if self.text[self.skip(_BLANK_LINES)] == ",":
                    self.at += 1
            self.at += 1
        else:
            self.skip(_SCALAR)
        return start, self.at

    def string(self) -> str | None:
        for pattern in _STRINGS:
            if match := pattern.match(self.text, self.at):
                self.at = match.end()
                return match.group()
        return None

    def skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.at


def _unquoted(string: str) -> str:
    return str(tomllib.loads(f"key = {string}")["key"])
