"""What the arguments of schedules may be: each type says what it takes, and carries its check.

In: a description of an argument, and a value. Out: the value as schedules keep it; or an ArgumentError for the wrong
kind of thing, a HyperparameterError for a number that makes no sense there.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, TypeAlias

from ..errors import ArgumentError, HyperparameterError, shown

__all__ = [
    "Above0", "Boundaries", "Check", "Factors", "NotBelow0", "Real", "RealOrNone", "Share", "StepCount", "Truth",
    "listed", "real", "whole_step",
]  # fmt: skip

Check: TypeAlias = Callable[[str, Any], Any]


def real(expected: str, fits: Callable[[float], bool], other: Callable[[Any], bool] = lambda x: False) -> Check:
    """The check for a finite number that `fits`; what is `other` goes through as it is."""

    def check(what: str, value: Any) -> Any:
        if other(value):
            return value
        message = f"{what}: expected {expected}, got {shown(value)}"
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise ArgumentError(message)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not (math.isfinite(number) and fits(number)):
            raise HyperparameterError(message)
        return number

    return check


#: Up to here whole numbers are exact as floats.
MOST_STEPS = 2**53


def whole_step(what: str, value: Any) -> int:
    message = f"{what}: expected a whole number of at least 1, got {shown(value)}"
    try:
        whole = operator.index(value)
    except TypeError:
        whole = None
    if whole is None or isinstance(value, bool):
        raise ArgumentError(message, hint="steps are counted; round with `int(...)`")
    if not 1 <= whole <= MOST_STEPS:
        hint = "the first step is step 1" if whole < 1 else f"no run has more than {MOST_STEPS} steps"
        raise HyperparameterError(message, hint=hint)
    return whole


def truth(what: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ArgumentError(f"{what}: expected True or False, got {shown(value)}")
    return value


def listed(what: str, value: Any, check: Check) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ArgumentError(f"{what}: expected a list, got {shown(value)}")
    return tuple(check(f"{what}[{i}]", each) for i, each in enumerate(value))


def rising(what: str, value: Any) -> tuple[int, ...]:
    steps = listed(what, value, whole_step)
    if any(step >= later for step, later in pairwise(steps)):
        raise HyperparameterError(f"{what}: expected steps in rising order, each once, got {shown(value)}")
    return steps


def factors(what: str, value: Any) -> tuple[tuple[int, float], ...]:
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(pairs, (list, tuple)) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        raise ArgumentError(f"{what}: expected factors by step, such as {{100: 0.1}}, got {shown(value)}")
    checked = sorted((whole_step(what, step), not_below_0(f"{what}[{step}]", factor)) for step, factor in pairs)
    rising(what, [step for step, _ in checked])
    return tuple(checked)


not_below_0 = real("a finite number of at least 0", lambda x: x >= 0)

Real: TypeAlias = Annotated[float, real("a finite number", math.isfinite)]
RealOrNone: TypeAlias = Annotated[float | None, real("a finite number or None", math.isfinite, lambda x: x is None)]
NotBelow0: TypeAlias = Annotated[float, not_below_0]
Above0: TypeAlias = Annotated[float, real("a finite number above 0", lambda x: x > 0)]
Share: TypeAlias = Annotated[float, real("a number from 0 to 1", lambda x: 0 <= x <= 1)]
StepCount: TypeAlias = Annotated[int, whole_step]
Truth: TypeAlias = Annotated[bool, truth]
Boundaries: TypeAlias = Annotated[Sequence[int], rising]
Factors: TypeAlias = Annotated[Mapping[int, float] | Sequence[tuple[int, float]], factors]
