"""Names and values of hyperparameters as callers give them: any spelling, checked against the ranges of the rule."""

from __future__ import annotations

import inspect
import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from difflib import get_close_matches
from functools import wraps
from typing import Any, TypeAlias

from .errors import ArgumentError, HyperparameterError
from .ir import Hyper
from .names import canonical, greek

__all__ = ["Spellings", "any_spelling", "checked", "number", "spellings", "suggestion"]

#: By canonical name: a hyperparameter as a whole (None), or one of its values (its position).
Spellings: TypeAlias = Mapping[str, tuple[Hyper, int | None]]


def spellings(hypers: Iterable[Hyper]) -> Spellings:
    """All names under which hyperparameters are known: `beta`, and for its values `beta1`, `beta2`."""
    found: dict[str, tuple[Hyper, int | None]] = {}
    for hyper in hypers:
        found[hyper.name] = (hyper, None)
        found |= {f"{hyper.name}{i + 1}": (hyper, i) for i in range(len(hyper.default)) if hyper.vector}
    return found


#: What other libraries call things, and what they are called here.
_ELSEWHERE = {
    "lr": "eta", "learning_rate": "eta", "step_size": "eta", "momentum": "rho", "alpha": "rho", "betas": "beta",
    "b1": "beta1", "b2": "beta2", "epsilon": "eps", "weight_decay": "decay", "wd": "decay",
}  # fmt: skip


def suggestion(name: str, names: Sequence[str]) -> str:
    """The end of a message about the unknown `name`: the one of `names` that was meant, or all of them."""
    known = _ELSEWHERE.get(canonical(name), "")
    if known.rstrip("12") in names:
        return f"; did you mean {known!r}?"
    close = get_close_matches(canonical(name), names, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(names) or 'none'}"


def checked(hyper: Hyper, value: Any) -> tuple[float, ...]:
    """The values of a hyperparameter as floats: one number, or of `beta` a sequence of as many as it has.

    ArgumentError for another kind of thing, HyperparameterError for a number out of the range.
    """
    if not hyper.vector:
        return (number(hyper, value),)
    ordered = isinstance(value, Iterable) and not isinstance(value, str | bytes | Set | Mapping)
    values = tuple(value) if ordered and getattr(value, "shape", None) != () else ()
    if len(values) != len(hyper.default):
        message = f"{_both_spellings(hyper)}: {len(hyper.default)} numbers were expected, got {value!r}"
        raise ArgumentError(message, hint=f"its default is {hyper.default}")
    return tuple(number(hyper, v) for v in values)


def number(hyper: Hyper, value: Any) -> float:
    """One value of a hyperparameter as a float; raises as `checked` does."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ArgumentError(f"{_both_spellings(hyper)}: a number was expected, got {value!r}")
    try:
        real = float(value)
    except OverflowError:
        real = math.inf
    if real not in hyper.range or not math.isfinite(real):
        what = f"{_both_spellings(hyper)}, {hyper.doc}" if hyper.doc else _both_spellings(hyper)
        raise HyperparameterError(f"{what}: a value in {hyper.range} was expected, got {real!r}")
    return real


def _both_spellings(hyper: Hyper) -> str:
    letter = greek(hyper.name)
    return hyper.name if letter == hyper.name else f"{hyper.name} ({letter})"


def any_spelling(init: Callable[..., None], known: Spellings) -> Callable[..., None]:
    """`init` with keywords in any spelling: Greek letters, and `beta1=`, `beta2=` for the values of `beta`.

    ArgumentError for a name that `init` does not have, or that is given twice.
    """
    signature = inspect.signature(init)
    names = [name for name in signature.parameters if name != "self"]

    @wraps(init)
    def spelled_init(self: object, /, *args: Any, **keywords: Any) -> None:
        positional = set(names[: len(args)])
        named: dict[str, Any] = {}
        parts: dict[str, dict[int, Any]] = {}
        for spelled, value in keywords.items():
            name = canonical(spelled)
            hyper, index = known.get(name, (None, None))
            if hyper is None or index is None:
                twice = name in named or name in positional
                named[name] = value
            else:
                given = parts.setdefault(hyper.name, {})
                twice = index in given or hyper.name in positional
                given[index] = value
            if twice:
                raise ArgumentError(f"{type(self).__name__}: {spelled!r} is given twice")
        for name, given in parts.items():
            if name in named:
                raise ArgumentError(f"{type(self).__name__}: {name!r} is given twice, as a whole and in parts")
            named[name] = tuple(given.get(i, default) for i, default in enumerate(known[name][0].default))
        try:
            signature.bind(self, *args, **named)
        except TypeError as error:
            raise ArgumentError(f"{type(self).__name__}: {_call_fault(str(error), names)}") from None
        init(self, *args, **named)

    return spelled_init


def _call_fault(message: str, names: Sequence[str]) -> str:
    """Python's own message, with a suggestion where it is about a name that the rule does not have."""
    if match := re.fullmatch(r"got an unexpected keyword argument '(.*)'", message):
        return f"unknown name {match[1]!r}{suggestion(match[1], names)}"
    return message
