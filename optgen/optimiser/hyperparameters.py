"""Names and values of hyperparameters as callers give them: any spelling, checked against the ranges of the rule.

A value is a number, or a schedule: any function of the step, whose values are checked like numbers when it is called.
"""

from __future__ import annotations

import inspect
import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import wraps
from typing import Any, TypeAlias

from ..errors import ArgumentError, HyperparameterError, shown
from ..ir.rule import Hyper, Rule
from ..names import canonical, close_matches, greek

__all__ = [
    "MOST_VALUES", "Given", "Spellings", "any_spelling", "checked", "number", "other_lengths", "plain", "resolved",
    "spellings", "suggestion",
]  # fmt: skip

#: How many values a hyperparameter may have that a rule loops over.
MOST_VALUES = 16
#: One value as it is kept: a number in the range, or a function of the step.
Given: TypeAlias = float | Callable[[int], Any]
#: By canonical name: a hyperparameter as a whole (None), or one of its values (its position).
Spellings: TypeAlias = Mapping[str, tuple[Hyper, int | None]]


def spellings(hypers: Iterable[Hyper]) -> Spellings:
    """All names under which hyperparameters are known: `beta`, and for its values `beta1`, `beta2`."""
    found: dict[str, tuple[Hyper, int | None]] = {}
    for hyper in hypers:
        found[hyper.name] = (hyper, None)
        found |= {f"{hyper.name}{i + 1}": (hyper, i) for i in range(len(hyper.default)) if hyper.vector}
    return found


#: Names for one thing, here and in other libraries: of the first row in which the rule has another one, that is meant.
_ELSEWHERE = (
    ("beta", "betas", "b", "beta_"),
    ("weight_decay", "decay", "lam", "lambd", "wd"),
    ("rho", "alpha", "momentum", "mu", "decay", "decay_rate"),
    ("eta", "lr", "learning_rate", "step_size", "alpha"),
    ("eps", "epsilon"),
    ("omega", "max_norm"),
    ("bound", "delta", "max_delta"),
    ("k", "sync_period"),
    ("n", "k", "every_k_schedule", "accumulation_steps"),
)


def suggestion(name: str, names: Sequence[str], known: Spellings | None = None) -> str:
    """The end of a message about the unknown `name`: the one of `names` that was meant, or all of them. `known`: the
    names that values have by themselves."""
    spelled = canonical(name).lower()
    stem = spelled.rstrip("0123456789")
    for wanted, index in ((spelled, ""), (stem, spelled[len(stem) :])):
        for row in _ELSEWHERE if wanted else ():
            meant = next((other + index for other in row if other in names and other != wanted), "")
            if wanted in row and meant and (not index or known is None or meant in known):
                return f"; did you mean {meant!r}?"
    close = close_matches(canonical(name), names) or close_matches(stem, names)
    return f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(names) or 'none'}"


def checked(hyper: Hyper, value: Any) -> tuple[Given, ...]:
    """The values of a hyperparameter: one number or schedule, or of `beta` a sequence of as many as it has.

    ArgumentError for another kind of thing, HyperparameterError for a number out of the range.
    """
    if not hyper.vector:
        return (number(hyper, value, 0),)
    values = _several(value)
    if len(values) != len(hyper.default):
        message = f"{_both_spellings(hyper)}: expected {len(hyper.default)} numbers, got {shown(value)}"
        hint = "make a new one for another number of values" if hyper.free else f"its default is {hyper.default}"
        raise ArgumentError(message, hint=hint)
    return tuple(number(hyper, v, i) for i, v in enumerate(values))


def _several(value: Any) -> tuple[Any, ...]:
    """The values in a sequence; none in anything else."""
    ordered = isinstance(value, Iterable) and not isinstance(value, str | bytes | Set | Mapping)
    return tuple(value) if ordered and getattr(value, "shape", None) != () else ()


def other_lengths(rule: Rule, given: Mapping[str, Any]) -> dict[str, int]:
    """How many values are given of those hyperparameters of which there may be another number, where there is; and how
    many turns loops have, where others say so. ArgumentError for no values, and for more than are allowed."""
    found = {}
    for hyper in rule.hypers:
        if hyper.name in rule.turns:
            value = next(iter(_several(given[hyper.name])), given[hyper.name])
            # What is no such number is refused where values are checked.
            turns = _float(value) if isinstance(value, numbers.Real) else hyper.default[0]
            if turns in hyper.ranges[0] and turns != hyper.default[0]:
                found[hyper.name] = int(turns)
        if hyper.free and (length := len(_several(given[hyper.name]))) != len(hyper.default):
            if not 1 <= length <= MOST_VALUES:
                got = f"{length} of them" if length > MOST_VALUES else shown(given[hyper.name])
                message = f"{_both_spellings(hyper)}: expected 1 to {MOST_VALUES} numbers, got {got}"
                raise ArgumentError(message, hint=f"its default is {hyper.default}")
            found[hyper.name] = length
    return found


def number(hyper: Hyper, value: Any, index: int) -> Given:
    """One value of a hyperparameter, the one at `index`: a float or a function; raises as `checked` does."""
    if callable(value) and not isinstance(value, type):
        return value  # type: ignore[no-any-return]
    return _real(hyper, value, index, "")


def _real(hyper: Hyper, value: Any, index: int, when: str) -> float:
    name, within = _both_spellings(hyper), hyper.ranges[index]
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        hint = "a schedule gives one number" if when else "a number, or a function of the step"
        if isinstance(value, type):
            hint = f"make one: {value.__name__}(...)"
        elif isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
            hint = "parameters are given to each step: opt.step(params, grads)"
        raise ArgumentError(f"{name}: expected a number, got {shown(value)}{when}", hint=hint)
    real = _float(value)
    if real not in within:
        name += f"[{index + 1}]" if len(set(hyper.ranges)) > 1 else ""
        what = f"{name}, {hyper.doc}" if hyper.doc else name
        got = plain(real) if within.whole else repr(real)
        raise HyperparameterError(f"{what}: expected {within.words}, got {got}{when}")
    return real


def plain(value: Given) -> str:
    """A number as people write it: 5, not 5.0."""
    return repr(int(value) if isinstance(value, float) and value.is_integer() else value)


def _float(value: Any) -> float:
    """A real number as a float; an infinity for one too large."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value == abs(value) else -math.inf


def resolved(hypers: Iterable[Hyper], given: Mapping[str, tuple[Given, ...]], t: int) -> dict[str, tuple[float, ...]]:
    """All values in step `t` as floats: what schedules give then is checked as `checked` does."""
    return {
        hyper.name: tuple(_in_step(hyper, value, i, t) for i, value in enumerate(given[hyper.name])) for hyper in hypers
    }


def _in_step(hyper: Hyper, value: Given, index: int, t: int) -> float:
    if not callable(value):
        return value
    result = value(t)
    if getattr(result, "shape", None) == () and not isinstance(result, numbers.Real):
        result = result.item()  # an array of one number, as other libraries' schedules give
    return _real(hyper, result, index, f" from its schedule in step {t}")


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
            spelled_as = {canonical(spelled): spelled for spelled in keywords}
            fault = _call_fault(str(error), names, known, spelled_as)
            raise ArgumentError(f"{type(self).__name__}: {fault}") from None
        init(self, *args, **named)

    return spelled_init


def _call_fault(message: str, names: Sequence[str], known: Spellings, spelled_as: Mapping[str, str]) -> str:
    """Python's own message, with a suggestion where it is about a name that the rule does not have."""
    if match := re.fullmatch(r"got an unexpected keyword argument '(.*)'", message):
        return f"unknown name {spelled_as.get(match[1], match[1])!r}{suggestion(match[1], names, known)}"
    return message
