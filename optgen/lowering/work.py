"""Work: what a step of a lowered rule consists of, in order.

In: nothing; `sweeps` plans it. Out: frozen values.

    work     = Sweep | SmallLoop | Group | Exchange
    sweeps   = Sweeps(rule, scalars*, work*)
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TypeAlias

from ..frozen import frozen
from ..ir.expr import Expr, Extent, Load, Reduce, Shape, Size, extent_of, reduced_extent, walk
from ..ir.rule import Assign, Rule
from ..ir.storages import in_blocks
from .courses import Course

__all__ = [
    "Exchange", "Group", "SmallLoop", "Sweep", "Sweeps", "Work", "group_names", "joined", "load_name",
]  # fmt: skip


@frozen
class Sweep:
    """One traversal of all elements of all tensors, or of those for which its course holds.

    `number`: which one it is; where it has several courses, a tensor takes one of them. `loads`: the arrays that it
    reads; `new`: those of them that an earlier sweep has written. `body`: what it computes for each element. `stores`:
    the arrays that it writes. `reductions`: what it folds, each into a value of lesser extent.
    """

    number: int
    course: Course
    loads: tuple[str, ...]
    new: frozenset[str]
    body: tuple[Assign, ...]
    stores: tuple[str, ...]
    reductions: tuple[Assign, ...]

    @property
    def traffic(self) -> int:
        """The number of reads and writes of each element."""
        return len(self.loads) + len(self.stores)


@frozen
class SmallLoop:
    """Statements that the kernel runs in float64 for each value of an extent: tensor, matrix, row or column.

    A reduction over elements in `code` takes up what a sweep has folded. `keep`: states get their new values.
    """

    over: Extent
    code: tuple[Assign, ...]
    keep: bool = False


@frozen
class Group:
    """What the host computes once for all tensors: reductions of what each tensor gives, and what follows from them."""

    code: tuple[Assign, ...]


@frozen
class Exchange:
    """What the shards of a tensor put together on the host.

    The reductions over a tensor, of which each kernel has computed its own shard's part, and the size of the whole.
    """

    code: tuple[Assign, ...]


Work: TypeAlias = Sweep | SmallLoop | Group | Exchange


@frozen
class Sweeps:
    """A lowered rule as work in order; `scalars` are known before all of it, in this order for a kernel.

    `courses`: of the reductions in small loops, the conditions of the step under which they are needed; those that
    always are have none.

    Compared by identity: `sweeps_of` gives one object for each rule.
    """

    rule: Rule
    scalars: tuple[Assign, ...]
    work: tuple[Work, ...]
    courses: Mapping[str, Course]

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def sweeps(self) -> tuple[Sweep, ...]:
        return tuple(work for work in self.work if isinstance(work, Sweep))

    @property
    def reduces(self) -> bool:
        """Whether a sweep reduces anything, so that elements are visited in blocks."""
        return any(each.reductions for each in self.sweeps)

    @property
    def ordered(self) -> bool:
        """Whether elements are visited in order: some are reduced, random numbers go by their places, or neighbours
        share a scale."""
        return self.reduces or self.rule.draws or bool(self.rule.rounding) or bool(in_blocks(self.rule.storages))

    def small(self, extent: Extent) -> tuple[str, ...]:
        """The values of this extent, in the order in which they are kept."""
        names = []
        for work in self.work:
            block = work.reductions if isinstance(work, Sweep) else work.code
            for assign in block:
                own = extent_of(assign.value)
                # What a tensor gives to a reduction over all of them is kept with the tensor.
                own = Extent.TENSOR if own == Extent.GROUP and not isinstance(work, Group) else own
                if own == extent and assign.target not in names:
                    names.append(assign.target)
        return tuple(names)

    @property
    def steps(self) -> list[list[Sweep]]:
        """The sweeps that a tensor takes in a step, for every outcome of the conditions of their courses."""
        tests = list(dict.fromkeys(condition.test for each in self.sweeps for condition in each.course))
        outcomes = [dict(zip(tests, holds, strict=True)) for holds in product((True, False), repeat=len(tests))]
        return [
            [each for each in self.sweeps if all(outcome[c.test] is c.holds for c in each.course)]
            for outcome in outcomes
        ]

    @property
    def count(self) -> int:
        """How often a step goes over memory, at most."""
        return max(map(len, self.steps))

    @property
    def traffic(self) -> int:
        """The number of reads and writes of each element in a step, at most."""
        return max(sum(each.traffic for each in step) for step in self.steps)


def joined(value: Expr) -> bool:
    """Whether a shard has only its part of a value, be it of the tensor or of what that gives to the group."""
    if isinstance(value, Size):
        return value.over == Extent.TENSOR
    if isinstance(value, Shape):
        return True
    return isinstance(value, Reduce) and value.over <= Extent.TENSOR < reduced_extent(value)


def load_name(state: str) -> str:
    """What the old value of a state of the group is called among the values of the group; no name of a rule."""
    return f"#{state}"


def group_names(plan: Sweeps) -> dict[str, int]:
    """The values of the group in a step, old states and what the host computes, each with its place."""
    read = {e for a in plan.rule.body for e in walk(a.value)}
    names = [load_name(e.array) for e in read if isinstance(e, Load) and e.extent == Extent.GROUP]
    names += [a.target for work in plan.work if isinstance(work, Group) for a in work.code]
    return {name: i for i, name in enumerate(sorted(set(names)))}
