"""Every key and value of a TOML document is found where it stands."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from optgen.errors import Span
from optgen.language.positions import Path, locate, span_at

#: A document, a path, the text of its key, the text of its value.
FORMS: list[tuple[str, str, Path, str, str]] = [
    ("a bare key", "a = 1", ("a",), "a", "1"),
    ("no blanks", "a=1", ("a",), "a", "1"),
    ("many blanks", " \t a \t = \t 1 \t ", ("a",), "a", "1"),
    ("a key of digits and dashes", "1-2_b = true", ("1-2_b",), "1-2_b", "true"),
    ("a key in double quotes", '"β 1" = 1', ("β 1",), '"β 1"', "1"),
    ("a key in single quotes", "'β\"=' = 1", ('β"=',), "'β\"='", "1"),
    ("a key with escapes", '"\\u03b2\\"" = 1', ('β"',), '"\\u03b2\\""', "1"),
    ("an empty key", "'' = 1", ("",), "''", "1"),
    ("a dotted key", "a.b.c = 1", ("a", "b", "c"), "c", "1"),
    ("a dotted key with blanks and quotes", "a . 'b.c' . d = 1", ("a", "b.c", "d"), "d", "1"),
    ("a number before a comment", "a = -1.5e-8# 2", ("a",), "a", "-1.5e-8"),
    ("a number with underscores", "a = 1_000", ("a",), "a", "1_000"),
    ("a date and a time", "a = 1979-05-27 07:32:00Z  # b = 2", ("a",), "a", "1979-05-27 07:32:00Z"),
    ("text", 'a = "b"', ("a",), "a", '"b"'),
    ("empty text", 'a = ""\nb = 2', ("b",), "b", "2"),
    ("empty text in single quotes", "a = ''\nb = 2", ("b",), "b", "2"),
    ("text with a quote", 'a = "b\\"c" # "', ("a",), "a", '"b\\"c"'),
    ("text with a backslash at its end", 'a = "b\\\\"\nc = 1', ("c",), "c", "1"),
    ("text that looks like a key", "a = 'b = 2'\nc = 1", ("c",), "c", "1"),
    ("text that looks like a comment", "a = '# b'\nc = 1", ("c",), "c", "1"),
    ("text of several lines", "a = '''\nb = 2\n[c]\n'''\nd = 1", ("a",), "a", "'''\nb = 2\n[c]\n'''"),
    ("text that follows", "a = '''\nb = 2\n[c]\n'''\nd = 1", ("d",), "d", "1"),
    ("text of several lines that ends in a quote", 'a = """b""""\nc = 1', ("a",), "a", '"""b""""'),
    ("text of several lines that ends in two quotes", "a = '''b'''''\nc = 1", ("a",), "a", "'''b'''''"),
    ("text of several lines with quotes in it", 'a = """b "" c \\""" d"""\ne = 1', ("a",), "a", '"""b "" c \\""" d"""'),
    ("empty text of several lines", 'a = """"""\nb = 1', ("b",), "b", "1"),
    ("a list", "a = [1, 2]", ("a",), "a", "[1, 2]"),
    ("an item of a list", "a = [10, 20]", ("a", 1), "20", "20"),
    ("a list over lines", "a = [ # [\n 1, # ]\n 2,\n]\nb = 3", ("a", 1), "2", "2"),
    ("what follows a list over lines", "a = [ # [\n 1, # ]\n 2,\n]\nb = 3", ("b",), "b", "3"),
    ("a list in a list", "a = [[1, 2], ['x]']]", ("a", 1, 0), "'x]'", "'x]'"),
    ("an empty list", "a = []\nb = 1", ("b",), "b", "1"),
    ("a table in braces", "a = { b = 1, c = 'x' }", ("a", "c"), "c", "'x'"),
    ("the braces", "a = { b = 1, c = 'x' }", ("a",), "a", "{ b = 1, c = 'x' }"),
    ("braces in braces", "a = { b = { c = [1, 2] }, d = 3 }", ("a", "b", "c", 1), "2", "2"),
    ("what follows braces in braces", "a = { b = { c = [1, 2] }, d = 3 }", ("a", "d"), "d", "3"),
    ("empty braces", "a = {}\nb = 1", ("b",), "b", "1"),
    ("a dotted key in braces", "a = { b.c = 1 }", ("a", "b", "c"), "c", "1"),
    ("a table", "[a]\nb = 1", ("a", "b"), "b", "1"),
    ("the header of a table", "x = 1\n[a]\nb = 1", ("a",), "a", "a"),
    ("the header of a table with blanks", "[ a . 'b' ] # c\nd = 1", ("a", "b"), "'b'", "'b'"),
    ("a table in a table", "[a.b]\nc = 1", ("a", "b", "c"), "c", "1"),
    ("a table after its part", "[a.b]\nc = 1\n[a]\nd = 2", ("a", "d"), "d", "2"),
    ("a list of tables", "[[a]]\nb = 1\n[[a]]\nb = 22", ("a", 1, "b"), "b", "22"),
    ("a comment before and behind", "# a = 0\n\n  # b\na = 1 # a = 2\n", ("a",), "a", "1"),
    ("an indented key", "[a]\n\tb = 1", ("a", "b"), "b", "1"),
]


@pytest.mark.parametrize(("text", "path", "key", "value"), [row[1:] for row in FORMS], ids=[row[0] for row in FORMS])
def test_keys_and_values_are_found_where_they_stand(text: str, path: Path, key: str, value: str) -> None:
    tomllib.loads(text)  # a right document, to begin with
    place = locate(text)[path]
    assert text[slice(*place.key)] == key
    assert text[slice(*place.value)] == value


def paths(value: Any, path: Path = ()) -> set[Path]:
    """The paths of all that is in a document, but for tables and lists of tables."""
    if isinstance(value, dict):
        return set().union(*(paths(item, (*path, key)) for key, item in value.items()))
    if isinstance(value, list):
        return set().union({path}, *(paths(item, (*path, i)) for i, item in enumerate(value)))
    return {path}


@pytest.mark.parametrize("text", [row[1] for row in FORMS], ids=[row[0] for row in FORMS])
def test_everything_in_a_document_is_found(text: str) -> None:
    tables_in_lists = {("a",)} if text.startswith("[[") else set()
    assert paths(tomllib.loads(text)) - tables_in_lists <= set(locate(text))


@pytest.mark.parametrize(
    ("text", "start", "end", "span"),
    [
        ("abc", 0, 1, Span(1, 1, 1)),
        ("abc", 1, 3, Span(1, 2, 2)),
        ("abc", 3, 3, Span(1, 4, 1)),
        ("ab\ncd", 3, 5, Span(2, 1, 2)),
        ("ab\ncd", 1, 5, Span(1, 2, 1)),  # over the end of a line: cut there
        ("ab\ncd\nef", 0, 8, Span(1, 1, 2)),
        ("ab\n\ncd", 3, 3, Span(2, 1, 1)),
        ("βγ\n\tδε", 4, 6, Span(2, 2, 2)),  # characters, whatever their bytes and widths
    ],
)
def test_a_place_is_a_line_a_column_and_a_width(text: str, start: int, end: int, span: Span) -> None:
    assert span_at(text, start, end) == span
