"""The one family of errors, the places they point at, and the printer of diagnostics.

Every error says what was expected, what came, where, and what to do. Faults of a spec are collected as
`Diagnostic`s and raised once, together, as a `SpecError`; everything else raises at once. The classes also derive
from the built-in error that a caller would expect (`ValueError`, `TypeError`, ...).
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable

from .frozen import frozen

__all__ = [
    "ArgumentError",
    "ArrayError",
    "CacheError",
    "CompilerError",
    "CompilerNotFound",
    "Diagnostic",
    "HyperparameterError",
    "OptgenError",
    "OverlapError",
    "Span",
    "SpecError",
    "SpecWarning",
    "StateError",
    "TrackError",
    "UnknownRule",
]


#: How long a part of a message may be that somebody else has written.
MOST_LETTERS = 1000
#: How many faults of one spec are printed; `diagnostics` has them all.
MOST_SHOWN = 100


def excerpt(text: str) -> str:
    """The two ends of a text that is too long for a message."""
    half = MOST_LETTERS // 2
    return text if len(text) <= MOST_LETTERS else f"{text[:half]} ... {text[-half:]}"


class _Shown(reprlib.Repr):
    """A representation whose length is bounded, whatever is in what."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 120, 120


def shown(value: object) -> str:
    """A value for a message, whoever has made it: an excerpt, and never an error itself."""
    try:
        return _Shown().repr(value)
    except Exception:  # a number of more digits than Python writes, for example
        return f"a {type(value).__name__}"


@frozen
class Span:
    """A stretch of one line of a source text: `line` and `column` count from 1, `width` in characters."""

    line: int
    column: int
    width: int = 1

    @property
    def order(self) -> tuple[int, int, int]:
        """What spans are sorted by."""
        return self.line, self.column, self.width


@frozen
class Diagnostic:
    """One fault of a spec: where it stands, what is wrong (expected and got), and what to do about it."""

    span: Span
    message: str
    hint: str | None = None

    def render(self, file: str, lines: list[str]) -> str:
        """`file:line:col: message`, the line itself, a caret under the place, and the hint."""
        text = [f"{file}:{self.span.line}:{self.span.column}: {excerpt(self.message)}"]
        if 1 <= self.span.line <= len(lines):
            line, column, width = _window(lines[self.span.line - 1], self.span)
            number = str(self.span.line)
            # Tabs are kept in the padding, so that the caret stands under its character however wide a tab is.
            pad = "".join("\t" if c == "\t" else " " for c in line[: column - 1])
            text.append(f"  {number} | {line}")
            text.append(f"  {' ' * len(number)} | {pad}{'^' * max(1, min(width, len(line) - column + 1))}")
        if self.hint:
            text.append(f"  hint: {excerpt(self.hint)}")
        return "\n".join(text)


def _window(line: str, span: Span, most: int = 160) -> tuple[str, int, int]:
    """The part of a long line around `span`, with the column and width of the span inside that part."""
    if len(line) <= most:
        return line, span.column, span.width
    start = max(0, span.column - 1 - most // 2)
    return line[start : start + most], span.column - start, span.width


class OptgenError(Exception):
    """Base of all errors of optgen: a message and, where there is one, a hint of what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = message
        self.hint = hint
        super().__init__(message if hint is None else f"{message}\n  hint: {hint}")


class SpecError(OptgenError, ValueError):
    """All faults of one spec: `file`, its `lines`, and `diagnostics` in the order of their places."""

    def __init__(self, file: str, text: str, diagnostics: Iterable[Diagnostic]) -> None:
        self.file = file
        self.diagnostics = tuple(sorted(set(diagnostics), key=lambda d: (*d.span.order, d.message)))
        self.lines = text.split("\n")
        count = len(self.diagnostics)
        faults = "1 fault" if count == 1 else f"{count} faults"
        shown = [d.render(file, self.lines) for d in self.diagnostics[:MOST_SHOWN]]
        if count > MOST_SHOWN:
            shown.append(f"and {count - MOST_SHOWN} more")
        super().__init__("\n".join([f"{faults} in {file}", *shown]))

    def __reduce__(self) -> tuple[object, ...]:
        return (_spec_error, (self.file, self.lines, self.diagnostics, self.message))


def _spec_error(file: str, lines: list[str], diagnostics: tuple[Diagnostic, ...], message: str) -> SpecError:
    error = SpecError.__new__(SpecError)
    OptgenError.__init__(error, message)
    error.file, error.lines, error.diagnostics = file, lines, diagnostics
    return error


class SpecWarning(UserWarning):
    """Something in a spec that works, and may not be meant: a state that is written and never read."""


class ArgumentError(OptgenError, TypeError):
    """A call that does not fit the signature: an unknown name, the same thing twice, the wrong kind of thing."""


class HyperparameterError(OptgenError, ValueError):
    """A hyperparameter out of its range, or one that the compute type cannot hold."""


class ArrayError(OptgenError, ValueError):
    """A parameter or gradient that cannot be stepped: shape, dtype, memory."""


class OverlapError(ArrayError):
    """Arrays of a step that share memory, of which the step writes one."""


class StateError(OptgenError, ValueError):
    """A saved state that does not fit: another rule, shape, dtype or number of parameters."""


class UnknownRule(OptgenError, LookupError):
    """A rule that is not shipped with optgen."""


class CompilerError(OptgenError, RuntimeError):
    """The C compiler ran and failed, or its output cannot be loaded."""


class CompilerNotFound(CompilerError):
    """No working C compiler; the message says how to get one, and what works without."""


class CacheError(OptgenError, OSError):
    """The folder of compiled kernels cannot be used or cannot be trusted."""


class TrackError(OptgenError, TypeError):
    """A computation on tracked arrays that has no gradient here."""
