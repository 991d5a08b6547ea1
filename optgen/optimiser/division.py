"""Which line of a split takes which parameter, by name and by shape; and parameters by patterns of names.

In: named parameters, and lines: a rule each, with patterns. Out: of each line the parameters that it takes; or an error
that names the parameter that no line takes, or the pattern that takes nothing.

A line is given as a keyword, `NAME=rule`, and its patterns as another one, `NAME_names=patterns`. A parameter goes to
the first line with a pattern that it matches. What matches none goes to the line `matrices`, if it has two dimensions
or more, and else to the line `rest`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from ..errors import ArgumentError, ArrayError, HyperparameterError, StateError, shown
from ..frozen import frozen
from ..names import close_matches

__all__ = [
    "Named",
    "Pattern",
    "SplitLine",
    "chosen",
    "divided",
    "in_line",
    "line_of",
    "lines_of",
    "listed_names",
    "named_pairs",
    "patterns_of",
]

#: A pattern of names, or what says whether it takes a parameter, given its name and itself.
Pattern: TypeAlias = str | Callable[[str, Any], object]

MATRICES, REST = "matrices", "rest"
_SUFFIX = "_names"
#: How many names a message or a line of text lists.
_MOST_NAMES = 6


@frozen
class Named:
    """A parameter with all its names, the first of them its own; `rank` is the number of its dimensions."""

    given: Any
    rank: int
    names: Sequence[str]

    @property
    def name(self) -> str:
        return self.names[0]


@frozen
class SplitLine:
    """One line of a split: its name, its rule, and the patterns of the names that it takes."""

    name: str
    rule: Any
    patterns: Sequence[Pattern] = ()


# ---- Patterns ----


def patterns_of(given: Any, where: str) -> tuple[Pattern, ...]:
    """One pattern or several, as a tuple; ArgumentError for what is none."""
    patterns = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str | Mapping) else (given,)
    for each in patterns:
        if not (isinstance(each, str) and each) and not callable(each):
            hint = 'such as ("embed", "*.bias"), or a function of the name and the parameter'
            raise ArgumentError(f"{where}: expected patterns of names, got {shown(each)}", hint=hint)
    return patterns


def matches(pattern: Pattern, p: Named) -> bool:
    """Whether a pattern takes a parameter by one of its names.

    A pattern with wildcards, as of files, is one of a whole name. Any other matches a run of whole words between dots:
    `embed` matches `embed.weight` and `model.embed.weight`, and not `embedding.weight`.
    """
    if not isinstance(pattern, str):
        return bool(pattern(p.name, p.given))
    if any(letter in pattern for letter in "*?["):
        return any(fnmatchcase(name, pattern) for name in p.names)
    return any(f".{pattern}." in f".{name}." for name in p.names)


def chosen(patterns: Mapping[Any, Any], params: Sequence[Named], where: str) -> list[list[Named]]:
    """For each key, a pattern or a tuple of them, the parameters that it is the first to match; behind these the rest.
    ArgumentError for a pattern that takes nothing."""
    lines = [SplitLine(str(i), None, patterns_of(key, where)) for i, key in enumerate(patterns)]
    _expect_some(params, where)
    taken: dict[str, list[Named]] = {line.name: [] for line in lines}
    rest: list[Named] = []
    for p in params:
        line = _by_pattern(lines, p)
        (taken[line.name] if line else rest).append(p)
    owners = {p.name: "a pattern before it" for p in params}
    for line in lines:
        _expect_busy(where, line, taken[line.name], params, owners)
    return [*taken.values(), rest]


def _by_pattern(lines: Iterable[SplitLine], p: Named) -> SplitLine | None:
    return next((line for line in lines if any(matches(each, p) for each in line.patterns)), None)


def _expect_busy(
    where: str, line: SplitLine, own: Sequence[Named], params: Sequence[Named], owners: Mapping[str, str]
) -> None:
    """ArgumentError for a pattern that takes none of what is the line's own. `owners`: what takes each of all."""
    for pattern in line.patterns:
        if any(matches(pattern, p) for p in own):
            continue
        message = f"{where}: expected a parameter for the pattern {shown(pattern)}, got none"
        for p in params:
            if matches(pattern, p):
                raise ArgumentError(
                    f"{message}: {p.name!r} goes to {owners[p.name]}", hint="leave it out, or put it first"
                )
        known = dict.fromkeys(name for p in params for name in p.names)
        words = dict.fromkeys(word for name in known for word in name.split("."))
        stem = pattern.strip("*.?") if isinstance(pattern, str) else ""
        close = close_matches(stem, words | known, most=3) if stem else []
        names = f"names are {listed_names(p.name for p in params)}"
        raise ArgumentError(message, hint=f"did you mean {' or '.join(map(repr, close))}?" if close else names)


def _expect_some(params: Sequence[Named], where: str) -> None:
    if not params:
        hint = "a generator gives its parameters once: give the model, or a list"
        raise ArgumentError(f"{where}: expected named parameters, got none", hint=hint)


# ---- Lines ----


def named_pairs(given: Any, array: type, where: str, expected: str, hint: str) -> list[tuple[str, Any]]:
    """Parameters with their names, from a mapping or from pairs.

    ArgumentError for a name that stands there twice, and for what is neither; that of a single `array` too, where
    `expected` is said to be.
    """
    pairs = given.items() if isinstance(given, Mapping) else given
    if isinstance(pairs, str | array) or not isinstance(pairs, Iterable):
        raise ArgumentError(f"{where}: expected {expected}, got {type(given).__name__}", hint=hint)
    named: dict[str, Any] = {}
    for i, pair in enumerate(pairs):
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            message = f"{where}: expected named parameters, got {type(pair).__name__} in place {i}"
            raise ArgumentError(message, hint=hint)
        if pair[0] in named:
            raise ArgumentError(f"{where}: expected one parameter of each name, got {pair[0]!r} twice", hint=hint)
        named[pair[0]] = pair[1]
    return list(named.items())


def lines_of(given: Mapping[str, Any]) -> list[SplitLine]:
    """The lines that keywords say; ArgumentError for what is no line."""
    rules = {name: rule for name, rule in given.items() if not name.endswith(_SUFFIX)}
    example = "split(model, matrices=..., rest=..., rest_names=('embed', '*.bias'))"
    if not rules:
        raise ArgumentError("split: expected lines, got none", hint=example)
    for name in given.keys() - rules.keys():
        if name.removesuffix(_SUFFIX) not in rules:
            close = close_matches(name.removesuffix(_SUFFIX), rules)
            hint = f"did you mean {close[0]}{_SUFFIX}?" if close else f"lines are {', '.join(rules)}"
            raise ArgumentError(f"split: expected the names of a line, got {name}", hint=hint)
    lines = []
    for name, rule in rules.items():
        key = f"{name}{_SUFFIX}"
        patterns = patterns_of(given[key], f"split: {key}") if key in given else ()
        if not patterns and name not in (MATRICES, REST):
            message = f"split: expected patterns of the names that the line {name} takes, got none"
            raise ArgumentError(message, hint=f"{key}=('embed', '*.bias'); {MATRICES} and {REST} need none")
        lines.append(SplitLine(name, rule, patterns))
    return lines


def line_of(lines: Sequence[SplitLine], p: Named) -> SplitLine | None:
    """The line that takes a parameter."""
    found = _by_pattern(lines, p)
    named = {line.name: line for line in lines}
    if found is None and p.rank >= 2:
        found = named.get(MATRICES)
    return found or named.get(REST)


def divided(lines: Sequence[SplitLine], params: Sequence[Named]) -> dict[str, list[Named]]:
    """Of each line the parameters that it takes; ArgumentError for a parameter without a line, and for a pattern that
    takes nothing."""
    _expect_some(params, "split")
    taken: dict[str, list[Named]] = {line.name: [] for line in lines}
    left: list[Named] = []
    for p in params:
        line = line_of(lines, p)
        (taken[line.name] if line else left).append(p)
    if left:
        message = f"split: expected a line for each parameter, got none for {listed_names(p.name for p in left)}"
        raise ArgumentError(message, hint=f"add {REST}=..., or a line with patterns of these names")
    owners = {p.name: f"the line {name}" for name, own in taken.items() for p in own}
    for line in lines:
        _expect_busy(f"split: {line.name}{_SUFFIX}", line, taken[line.name], params, owners)
    return taken


# ---- Text ----


@contextmanager
def in_line(name: str) -> Iterator[None]:
    """Errors say in which line they are."""
    try:
        yield
    except (ArgumentError, ArrayError, HyperparameterError, StateError) as error:
        raise type(error)(f"the line {name}: {error.message}", hint=error.hint) from None


def listed_names(names: Iterable[str]) -> str:
    """Names in short: those that differ in a number alone are one, with how many there are."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(re.sub(r"(?<![^.])\d+(?![^.])", "*", name), []).append(name)
    told = [own[0] if len(own) == 1 else f"{stem} ({len(own)})" for stem, own in alike.items()]
    more = len(told) - _MOST_NAMES
    return ", ".join([*told[:_MOST_NAMES], *[f"and {more} more"] * (more > 0)]) or "none"
