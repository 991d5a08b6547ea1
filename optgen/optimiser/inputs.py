"""Inputs of a step: what a rule is given beside gradients, by name.

In: a rule, and the keywords that a step was called with. Out: arrays and numbers; or an error that names the input at
fault.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArrayError, shown
from ..ir.evaluate import HyperValues
from ..ir.expr import Extent
from ..ir.rule import Input, Rule
from ..names import canonical
from ..runtime.lacking import Lacking
from .hyperparameters import suggestion

__all__ = ["arrays_of", "expect_inputs", "kind_of", "numbers_of", "respelled"]


#: What is in the place of a number that was not given.
UNREAD = 1.0


def expect_inputs(
    rule: Rule, expected: Sequence[Input], given: Mapping[str, Any], call: str
) -> tuple[dict[str, Any], list[Lacking]]:
    """What was given, by the names of the rule, and what was not.

    Parameters
    ----------
    expected
        The inputs of the rule that come as keywords.
    given
        The keywords of a call, in any spelling. One that is None is left out.
    call
        How a step is called, for messages.

    Raises
    ------
    ArgumentError
        For an input that the rule does not have. One that is missing is an error if its course reads it.
    """
    names = [each.name for each in expected]
    found = {canonical(spelled): value for spelled, value in given.items() if value is not None}
    for spelled in given:
        if canonical(spelled) not in names:
            meant = suggestion(spelled, names) if names else "; its steps take none"
            raise ArgumentError(f"{rule.name}: unknown input {spelled!r}{meant}")
    return found, [_lacking(rule, each, call, names) for each in expected if each.name not in found]


def _lacking(rule: Rule, each: Input, call: str, names: Sequence[str]) -> Lacking:
    def error(_: int) -> ArgumentError:
        meaning = f" ({each.doc})" if each.doc else ""
        message = f"{rule.name}: expected the input {each.name!r}{meaning} in this step, got none"
        return ArgumentError(message, hint=f"{call}{', '.join(f'{name}={name}' for name in names)})")

    return Lacking(each.name, None, error)


def respelled(given: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """What a step of several rules was given, in any spelling, by the `names` of what they take. ArgumentError for what
    none of them takes."""
    for spelled in given:
        if canonical(spelled) not in names:
            raise ArgumentError(f"step: expected inputs that a rule takes, got {spelled!r}, which none does")
    return {canonical(spelled): value for spelled, value in given.items()}


def numbers_of(rule: Rule, given: Mapping[str, Any]) -> HyperValues:
    """The inputs that are one number. ArgumentError for one that is none, or not finite."""
    return {name: (_number(f"{rule.name}: {name}", given.get(name, UNREAD)),) for name in rule.given_numbers}


def _number(what: str, value: Any) -> float:
    if getattr(value, "shape", None) == () and not isinstance(value, numbers.Real):
        value = value.item()  # an array of one number
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ArgumentError(f"{what}: expected a number, got {shown(value)}")
    try:
        real = float(value)
    except OverflowError:
        real = math.inf
    if not math.isfinite(real):
        raise ArgumentError(f"{what}: expected a finite number, got {real}", hint="leave this step out")
    return real


def kind_of(given: Any) -> str:
    """What was given in the place of a list, in words for a message."""
    return f"an array of shape {given.shape}" if isinstance(given, np.ndarray) else type(given).__name__


def arrays_of(rule: Rule, given: Mapping[str, Any], grads: Sequence[Any], count: int) -> list[Any]:
    """The inputs that are an array for each of `count` parameters: one input after the other. The gradients are in the
    place of one that is missing. ArrayError for another number of arrays."""
    found: list[Any] = []
    for each in rule.inputs:
        if each.extent == Extent.ELEMENT:
            value = given[each.name] if each.name in given else [*grads[:count], *[None] * (count - len(grads))]
            listed = list(value) if isinstance(value, Iterable) and not isinstance(value, np.ndarray) else None
            if isinstance(value, np.ndarray):
                expected = f"expected a list of {count} array{'s' * (count != 1)}, got {kind_of(value)}"
                raise ArrayError(f"{rule.name}: {each.name}: {expected}", hint=f"{each.name}=[{each.name}]")
            if listed is None or len(listed) != count:
                got = shown(value) if listed is None else f"{len(listed)}"
                expected = f"expected an array for each of {count} parameters"
                raise ArrayError(f"{rule.name}: {each.name}: {expected}, got {got}")
            found += listed
    return found
