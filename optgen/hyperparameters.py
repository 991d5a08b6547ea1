"""Names and values of hyperparameters as callers give them: any spelling, checked against the ranges of the rule."""

from __future__ import annotations

import inspect
import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import wraps
from typing import Any

from .errors import ArgumentError, HyperparameterError
from .ir import Hyper
from .names import canonical, greek

__all__ = ["any_spelling", "checked", "find", "number", "suggestion"]


def find(hypers: Mapping[str, Hyper], name: str) -> tuple[Hyper | None, int | None]:
    """The hyperparameter of a canonical name; of `beta1`, also the position 0."""
    if name in hypers:
        return hypers[name], None
    stem = name.rstrip("0123456789")
    if stem in hypers and hypers[stem].vector and name != stem:
        index = int(name[len(stem) :]) - 1
        if 0 <= index < len(hypers[stem].default):
            return hypers[stem], index
    return None, None


def suggestion(name: str, names: Sequence[str]) -> str:
    close = get_close_matches(canonical(name), names, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(names) or 'none'}"


def checked(hyper: Hyper, value: Any) -> tuple[float, ...]:
    """The values of a hyperparameter as floats, each in its range."""
    if not hyper.vector:
        return (number(hyper, value),)
    size = len(hyper.default)
    try:
        values = tuple(value)
    except TypeError:
        values = ()
    if len(values) != size or isinstance(value, str | bytes):
        raise ArgumentError(f"{_both_spellings(hyper)}: {size} numbers were expected, got {value!r}")
    return tuple(number(hyper, v) for v in values)


def number(hyper: Hyper, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ArgumentError(f"{_both_spellings(hyper)}: a number was expected, got {value!r}")
    real = float(value)
    if real not in hyper.range or not math.isfinite(real):
        message = f"{_both_spellings(hyper)}: a value in {hyper.range} was expected, got {real:g}"
        raise HyperparameterError(message, hint=hyper.doc or None)
    return real


def _both_spellings(hyper: Hyper) -> str:
    letter = greek(hyper.name)
    return hyper.name if letter == hyper.name else f"{hyper.name} ({letter})"


def any_spelling(init: Callable[..., None], hypers: Mapping[str, Hyper]) -> Callable[..., None]:
    """`init` with keywords in any spelling: Greek letters, and `beta1=`, `beta2=` for the values of `beta`."""
    order = list(hypers)
    signature = inspect.signature(init)
    known = [name for name in signature.parameters if name != "self"]

    @wraps(init)
    def spelled_init(self: object, *args: Any, **keywords: Any) -> None:
        named: dict[str, Any] = {}
        parts: dict[str, dict[int, Any]] = {}
        for spelled, value in keywords.items():
            name = canonical(spelled)
            hyper, index = find(hypers, name)
            taken = parts.setdefault(hyper.name, {}) if hyper is not None and index is not None else named
            place: Any = index if taken is not named else name
            if place in taken or (hyper is not None and hyper.name in order[: len(args)]):
                raise ArgumentError(f"{type(self).__name__}: {spelled!r} is given twice")
            taken[place] = value
        for name, given in parts.items():
            if name in named:
                raise ArgumentError(f"{type(self).__name__}: {name!r} is given twice, once as a whole")
            named[name] = tuple(given.get(i, default) for i, default in enumerate(hypers[name].default))
        try:
            signature.bind(self, *args, **named)
        except TypeError as error:
            raise ArgumentError(f"{type(self).__name__}: {_call_fault(str(error), known)}") from None
        init(self, *args, **named)

    return spelled_init


def _call_fault(message: str, known: Sequence[str]) -> str:
    """Python's own message, with a suggestion where it is about a name that the rule does not have."""
    if match := re.fullmatch(r"got an unexpected keyword argument '(\w+)'", message):
        return f"unknown name {match[1]!r}{suggestion(match[1], known)}"
    return message
