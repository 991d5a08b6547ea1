"""Inputs that a step was not given: those that no course of the step reads may lack.

In: parameters of a step after every other check, and which inputs they lack. Out: nothing, or the error of the first
one whose course reads what it lacks. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ..frozen import frozen
from ..ir.evaluate import ValuesByCount
from ..ir.expr import Extent
from ..ir.reading import InputsRead, inputs_read
from ..ir.rule import Rule
from .members import BoundMember, Member

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


def refuse_read(
    lacking: Sequence[Lacking],
    at: Sequence[tuple[int, int]],
    members: Sequence[Member | BoundMember],
    rules: Sequence[Rule],
    sets: Sequence[ValuesByCount],
) -> None:
    """The error of the first parameter whose step reads an input that it lacks.

    `at`: of each member the identity of its parameter, and its place among all. `rules`: those of the variants.
    """
    names = frozenset(each.name for each in lacking)
    numbers = [_numbers(rule) for rule in rules]
    seen: dict[object, InputsRead] = {}  # what parameters that are alike read
    reads = []
    for member in members:
        variant, slot = member.variant, member.slot
        values = sets[member.hypers][slot.t + 1]
        states = {name: float(slot.arrays[name]) for name in numbers[variant]}
        key = variant, id(values), slot.t, *states.values()
        if key not in seen:
            seen[key] = inputs_read(rules[variant], values, slot.t + 1, states, names)
        reads.append(seen[key])
    shared = frozenset[str]().union(*(each.shared for each in seen.values()))
    for (identity, place), read in zip(at, reads, strict=True):
        needed = read.own | (shared & read.given)
        for each in lacking if needed else ():
            if each.name in needed and (each.of is None or identity in each.of):
                raise each.error(place)


def _numbers(rule: Rule) -> list[str]:
    """The states of a parameter that are one number."""
    return [state.name for state in rule.small_states if state.extent == Extent.TENSOR]
