"""Inputs that a step was not given: those that no course of the step reads may lack.

In: parameters of a step after every other check, and which inputs they lack. Out: nothing, or the error of the first
one whose course reads what it lacks. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ..frozen import frozen
from ..ir.evaluate import HyperValues
from ..ir.expr import Extent
from ..ir.reading import InputsRead, inputs_read
from ..ir.rule import Rule
from .array_library import ParameterSlot

__all__ = ["Lacking", "refuse_read"]


@frozen
class Lacking:
    """An input that a step was not given; anything that fits is in its place.

    Attributes
    ----------
    name
        Which one it is.
    of
        The identities of the parameters that lack it; None for all.
    error
        Gives the error for the parameter in a place, if its course reads the input.
    """

    name: str
    of: Collection[int] | None
    error: Callable[[int], Exception]


def refuse_read(lacking: Sequence[Lacking], steps: Sequence[tuple[int, int, Rule, HyperValues, ParameterSlot]]) -> None:
    """The error of the first parameter whose step reads an input that it lacks.

    `steps`: of each parameter its identity and place, the rule and hyperparameters that it goes by, and its state.
    """
    names = frozenset(each.name for each in lacking)
    numbers = {id(step[2]): _numbers(step[2]) for step in steps}
    seen: dict[object, InputsRead] = {}  # what parameters that are alike read
    reads = []
    for _, _, rule, values, slot in steps:
        states = {name: float(slot.arrays[name]) for name in numbers[id(rule)]}
        key = id(rule), id(values), slot.t, *states.values()
        if key not in seen:
            seen[key] = inputs_read(rule, values, slot.t + 1, states, names)
        reads.append(seen[key])
    shared = frozenset[str]().union(*(each.shared for each in seen.values()))
    for (identity, place, *_), read in zip(steps, reads, strict=True):
        needed = read.own | (shared & read.given)
        for each in lacking if needed else ():
            if each.name in needed and (each.of is None or identity in each.of):
                raise each.error(place)


def _numbers(rule: Rule) -> list[str]:
    """The states of a parameter that are one number."""
    return [state.name for state in rule.small_states if state.extent == Extent.TENSOR]
