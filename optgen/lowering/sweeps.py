"""The plan of a step: which sweeps over memory a lowered rule needs, and what is computed between them.

In: a lowered rule. Out: its `Sweeps`, which is work in order.

Reductions over the group keep the order of their keys, since tensors in another variant, with sweeps of its own, take
part in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from ..ir.expr import Expr, Extent, Local, Reduce, Shape, Size, extent_of, join, walk
from ..ir.rule import Assign, Rule, kernel_scalars
from .courses import Needs
from .parting import Parting
from .traversals import Traversals, reduction_key
from .work import Exchange, Group, SmallLoop, Sweeps, Work, joined

__all__ = ["MOST_KNOWN", "sweeps_of"]


#: How many rules are remembered with their sweeps and stages.
MOST_KNOWN = 128


@lru_cache(maxsize=MOST_KNOWN)
def sweeps_of(rule: Rule) -> Sweeps:
    """The sweeps of a lowered rule; planned once, for whoever asks."""
    return _Planner(rule).sweeps()


class _Planner:
    """The work of a step, sweep by sweep."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.step = Traversals(rule, Needs(rule))

    def sweeps(self) -> Sweeps:
        work: list[Work] = []
        # A state that is assigned a scalar has its value already.
        small = [
            a
            for a in self.rule.body
            if Extent.STEP < extent_of(a.value) < Extent.ELEMENT and a.target not in self.rule.arrays
        ]
        parting = Parting(self.step)
        for k in range(self.step.count + 1):
            work += self.between(small, k)
            work += parting.sweeps(k)
        used = {a.target: self.step.conditions.used[a.target] for a in small if isinstance(a.value, Reduce)}
        steps = {name: tuple(c for c in needed if c.test.extent <= Extent.STEP) for name, needed in used.items()}
        return Sweeps(self.rule, kernel_scalars(self.rule), tuple(work), {n: c for n, c in steps.items() if c})

    def between(self, small: Sequence[Assign], k: int) -> Iterator[Work]:
        """What is known after k sweeps and is no value of elements: by the kernel, then by the host, in turns."""
        known, given = self.turns(small, k)
        for i in range(1 + max([*known.values(), *given.values()], default=-1)):
            here = [a for a in small if known.get(a.target) == i]
            for a in small:
                if given.get(a.target) == i or (known.get(a.target) == i and self.in_kernel(a.value)):
                    yield SmallLoop(join(extent_of(a.value), Extent.TENSOR), (a,))
            if exchanged := tuple(a for a in here if self.exchanged(a.value)):
                yield Exchange(exchanged)
            if hosted := tuple(a for a in here if extent_of(a.value) == Extent.GROUP):
                yield Group(hosted)

    def turns(self, small: Sequence[Assign], k: int) -> tuple[dict[str, int], dict[str, int]]:
        """After k sweeps, the turn in which each value is known, and that in which tensors give to one of the group."""
        known: dict[str, int] = {}
        given: dict[str, int] = {}
        last = 0
        for assign in small:
            name, value = assign.target, assign.value
            if _gives(value):
                if self.step.given[name] == k:
                    given[name] = self.turn_after(value, known, host=False)
                if self.step.level[name] == k:
                    known[name] = given.get(name, 0)
                    if reduction_key(value) >= 0:
                        last = known[name] = max(known[name], last)
            elif self.step.level[name] == k:
                known[name] = self.turn_after(value, known, host=extent_of(value) == Extent.GROUP)
        return known, given

    def in_kernel(self, value: Expr) -> bool:
        """Whether the kernel computes a value. It cannot know how large the whole of a shard is."""
        return extent_of(value) != Extent.GROUP and not (self.exchanged(value) and isinstance(value, Size | Shape))

    def turn_after(self, value: Expr, turn: dict[str, int], *, host: bool) -> int:
        """The first turn in which all that `value` is made of is known; in a turn, the host comes last."""
        turns = [0]
        for name in _locals(value):
            if name in turn:
                hosted = extent_of(self.step.values[name]) == Extent.GROUP or self.exchanged(self.step.values[name])
                turns.append(turn[name] + (not host and hosted))
        return max(turns)

    def exchanged(self, value: Expr) -> bool:
        """Whether the shards of a tensor must put a value of the tensor together."""
        return self.rule.sharded and joined(value) and extent_of(value) == Extent.TENSOR


def _locals(expr: Expr) -> list[str]:
    return [e.name for e in walk(expr) if isinstance(e, Local)]


def _gives(expr: Expr) -> bool:
    """Whether each tensor has something to give to a value of the group."""
    return isinstance(expr, Reduce) and expr.over == Extent.GROUP
