"""The printer of diagnostics: place, line, caret, hint; whatever the line holds."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator

import pytest

from optgen import errors
from optgen.errors import Diagnostic, Span, SpecError
from optgen.paths import BUILD, PACKAGE


def test_a_fault_is_shown_with_its_place_its_line_a_caret_and_a_hint() -> None:
    error = SpecError("my.toml", "one\ntwo = 3\n", [Diagnostic(Span(2, 7, 1), "expected 4, got 3", "write 4")])
    assert str(error) == (
        "1 fault in my.toml\nmy.toml:2:7: expected 4, got 3\n  2 | two = 3\n    |       ^\n  hint: write 4"
    )


def test_faults_come_in_the_order_of_their_places_and_once() -> None:
    late, early = Diagnostic(Span(2, 1), "late"), Diagnostic(Span(1, 2), "early")
    error = SpecError("my.toml", "ab\ncd", [late, early, late])
    assert error.diagnostics == (early, late)
    assert str(error).startswith("2 faults in my.toml\n")


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0c", "\x1e"])
def test_only_a_newline_ends_a_line(separator: str) -> None:
    """As TOML and `Span` count; Python's `splitlines` knows more ends of lines."""
    error = SpecError("my.toml", f"a{separator}b\nsecond", [Diagnostic(Span(2, 1, 6), "here")])
    assert "2 | second" in str(error)


def test_a_tab_before_the_place_stands_before_the_caret_too() -> None:
    error = SpecError("my.toml", "\tx = y", [Diagnostic(Span(1, 6), "here")])
    line, caret = str(error).splitlines()[2:4]
    assert line.index("y") == caret.index("^")
    assert "\t" in caret


def test_a_long_line_is_shown_around_the_place() -> None:
    text = "x" * 5000 + "!" + "y" * 5000
    line, caret = str(SpecError("my.toml", text, [Diagnostic(Span(1, 5001), "here")])).splitlines()[2:4]
    assert len(line) < 200
    assert line[caret.index("^")] == "!"


def test_many_faults_are_counted_and_not_all_printed() -> None:
    faults = [Diagnostic(Span(1, i + 1), f"fault {i}") for i in range(errors.MOST_SHOWN + 7)]
    error = SpecError("my.toml", "x" * 200, faults)
    assert len(error.diagnostics) == len(faults)
    assert str(error).splitlines()[-1] == "and 7 more"
    assert f"fault {errors.MOST_SHOWN}:" not in str(error)


def test_errors_go_through_a_pickle() -> None:
    error = SpecError("my.toml", "x", [Diagnostic(Span(1, 1), "here", "there")])
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.file, again.diagnostics) == (str(error), error.file, error.diagnostics)


def test_every_error_is_of_the_one_family_and_of_the_built_in_kind_that_a_caller_expects() -> None:
    kinds = {"ArgumentError": TypeError, "HyperparameterError": ValueError, "ArrayError": ValueError,
             "OverlapError": ValueError, "StateError": ValueError, "SpecError": ValueError, "UnknownRule": LookupError,
             "CompilerError": RuntimeError, "CompilerNotFound": RuntimeError, "CacheError": OSError,
             "TrackError": TypeError}  # fmt: skip
    classes = {name: getattr(errors, name) for name in errors.__all__}
    named = {name for name, cls in classes.items() if issubclass(cls, Exception) and not issubclass(cls, Warning)}
    assert named == kinds.keys() | {"OptgenError"}
    for name, kind in kinds.items():
        assert issubclass(classes[name], errors.OptgenError)
        assert issubclass(classes[name], kind)


def messages(tree: ast.AST) -> Iterator[str]:
    """The literal text of what a module raises: the first argument of each error, and each `message`."""
    for node in ast.walk(tree):
        found: ast.AST | None = None
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            found = node.exc.args[0]
        elif isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found = node.value if any(ast.unparse(target) == "message" for target in targets) else None
        if found is not None:
            yield "".join(c.value for c in ast.walk(found) if isinstance(c, ast.Constant) and isinstance(c.value, str))


#: What a message says where it does not begin with what it expects.
OTHER_VOICES = re.compile(r"\b((was|were) expected|must|should|ha[sd] to|cannot(?! be said))\b")


def test_messages_have_one_voice() -> None:
    """What was expected, then what came: not "X was expected", "X must be" or "X cannot be"."""
    found = {
        path.relative_to(PACKAGE).as_posix(): list(messages(ast.parse(path.read_text("utf-8"))))
        for path in sorted(PACKAGE.rglob("*.py"))
        if BUILD not in path.parents
    }
    assert sum(map(len, found.values())) > 150
    assert not {path: texts for path, all_of in found.items() if (texts := list(filter(OTHER_VOICES.search, all_of)))}


def test_other_voices_are_heard() -> None:
    tree = ast.parse('message = f"{x}: a number was expected"\nraise ValueError(f"{x} must be {y}", hint="it should")')
    assert [bool(OTHER_VOICES.search(text)) for text in messages(tree)] == [True, True]
    assert not OTHER_VOICES.search("expected a number, got a text")
