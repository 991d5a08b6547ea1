"""Parting: which conditions part the steps of a rule into courses, each with sweeps of its own.

In: the sweeps of any step. Out: the sweeps of all courses, of which a tensor takes one at a time.

A condition parts the steps where that saves a good share of reads, writes, values to fold and operations that take
long, again and again: a first step that is cheaper than the others is not worth the code. Sweeps that are the same on
two courses, or cost the same, stay one.
"""

from __future__ import annotations

from ..frozen import replace
from .courses import Condition, lasting
from .traversals import Traversals
from .work import Sweep

__all__ = ["Parting"]

#: How many conditions may part a step: each may double its code.
MOST_CONDITIONS = 2
#: How many conditions are tried, which bounds the time of planning: first those that arrays or reductions wait for.
MOST_TRIED = 12
#: The share of a step that a course must save to be worth it: one in so many.
LEAST_SHARE = 5


class Parting:
    """The sweeps of a step on one course, or of two that a condition parts it into."""

    def __init__(self, step: Traversals) -> None:
        self._step = step
        self._sides: tuple[Parting, Parting] | None = None
        self._lasting: tuple[Parting, ...] = ()
        found = {condition: self._gain(condition) for condition in self._candidates()}
        best = max(found, key=lambda condition: found[condition], default=None)
        if best is not None and found[best] * LEAST_SHARE >= max(1, step.whole_cost):
            self._sides = Parting(step.on(best)), Parting(step.on(best.opposite))
            self._lasting = tuple(self._sides[not holds] for holds in lasting(best, step.scalars))

    def _candidates(self) -> list[Condition]:
        if len(self._step.course) == MOST_CONDITIONS:
            return []
        decided = {each.test for each in self._step.course}
        needs = self._step.conditions
        found = [each for each in needs.tested if each.test not in decided]
        return sorted(found, key=lambda each: each.test not in needs.deciding)[:MOST_TRIED]

    def _gain(self, condition: Condition) -> int:
        """The most that a course saves which the condition makes, and which a long training takes again and again."""
        whole = self._step.whole_cost
        kinds = lasting(condition, self._step.scalars)
        return max(whole - self._step.on(condition if holds else condition.opposite).whole_cost for holds in kinds)

    def sweeps(self, k: int) -> list[Sweep]:
        """Sweep k on each course that has one."""
        own = self._step.sweep(k)
        if self._sides is None:
            return [own] if own is not None else []
        first, second = (side.sweeps(k) for side in self._sides)
        if len(first) == len(second) == 1 and own is not None:
            if replace(first[0], course=own.course) == replace(second[0], course=own.course):
                return [replace(first[0], course=own.course)]
            same_writes = all(side._step.written == self._step.written for side in self._sides)
            if same_writes and all(side._step.cost(k) == self._step.cost(k) for side in self._lasting):
                return [own]
        return first + second
