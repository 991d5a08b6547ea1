"""The plan of a step: which sweeps over memory a lowered rule needs, and what is computed between them.

In: a lowered rule. Out: its `Sweeps`, which is work in order.

A value reduced over elements is known after a sweep over them; what depends on it waits for the next sweep. Nothing
else waits. Of a value that several sweeps need, only what memory holds is kept: a state that was written is read again,
anything else is computed again, to the same bits. Reductions over the group keep the order of their keys, since tensors
in another variant, with sweeps of its own, take part in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeAlias

from ..frozen import frozen
from ..ir.expr import (
    Expr,
    Extent,
    Load,
    Local,
    Reduce,
    Shape,
    Size,
    children,
    extent_of,
    join,
    rebuilt,
    reduced_extent,
    reduces_elements,
    walk,
)
from ..ir.rule import Assign, Rule, kernel_scalars

__all__ = [
    "MOST_KNOWN",
    "Exchange",
    "Group",
    "SmallLoop",
    "Sweep",
    "Sweeps",
    "group_names",
    "joined",
    "load_name",
    "sweeps_of",
]  # fmt: skip


#: How many rules are remembered with their sweeps and stages.
MOST_KNOWN = 128


@frozen
class Sweep:
    """One traversal of all elements of all tensors.

    `loads`: the arrays that it reads. `body`: what it computes for each element. `stores`: the arrays that it writes.
    `reductions`: what it folds, each into a value of lesser extent.
    """

    loads: tuple[str, ...]
    body: tuple[Assign, ...]
    stores: tuple[str, ...]
    reductions: tuple[Assign, ...]


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

    Compared by identity: `sweeps_of` gives one object for each rule.
    """

    rule: Rule
    scalars: tuple[Assign, ...]
    work: tuple[Work, ...]

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def sweeps(self) -> tuple[Sweep, ...]:
        return tuple(work for work in self.work if isinstance(work, Sweep))

    @property
    def reduces(self) -> bool:
        """Whether a sweep reduces anything, so that elements are visited in blocks."""
        return any(each.reductions for each in self.sweeps)

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
    def traffic(self) -> int:
        """The number of reads and writes of each element in a step."""
        return sum(len(each.loads) + len(each.stores) for each in self.sweeps)


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


@lru_cache(maxsize=MOST_KNOWN)
def sweeps_of(rule: Rule) -> Sweeps:
    """The sweeps of a lowered rule; planned once, for whoever asks."""
    return _Planner(rule).sweeps()


class _Planner:
    """`level` of a value: after how many sweeps it can be known. `written`: in which sweep an array is written."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.values = {a.target: a.value for a in rule.body}
        self.level: dict[str, int] = {}
        self.given: dict[str, int] = {}  # of a reduction: after how many sweeps its tensors have given to it
        last = 0
        for assign in rule.body:
            self.level[assign.target] = self.given[assign.target] = self.known_after(assign.value)
            if _key(assign.value) >= 0:
                last = self.level[assign.target] = max(self.level[assign.target], last)
        self.arrays = set(rule.arrays)
        # Nothing is written before it is known that the step counts.
        counts = self.level.get(rule.accept, 0)
        self.written = {name: max(self.level[name], counts) for name in rule.stores if name in self.arrays}
        reduced = [self.given[a.target] for a in rule.body if reduces_elements(a.value)]
        self.count = max([1 + max(self.written.values()), *reduced])
        while self.put_off():
            pass

    def known_after(self, expr: Expr) -> int:
        own = 1 if reduces_elements(expr) else 0
        return own + max((self.level.get(e.name, 0) for e in walk(expr) if isinstance(e, Local)), default=0)

    def put_off(self) -> bool:
        """Puts off the writing of one array to a sweep that still reads its old value; False if there is none."""
        for k in range(self.count):
            for name in self.needs(k)[2]:
                if self.written.get(name, k) < k:
                    self.written[name] = k
                    return True
        return False

    def roots(self, k: int) -> list[str]:
        """What sweep k is for: arrays to write, values to fold."""
        return [
            a.target
            for a in self.rule.body
            if self.written.get(a.target) == k or (reduces_elements(a.value) and self.given[a.target] == k + 1)
        ]

    def needs(self, k: int) -> tuple[set[str], set[str], set[str]]:
        """Of sweep k: the values that it computes, the arrays that it reads as an earlier sweep has written them, and
        those that it reads as they were before the step."""
        computed: set[str] = set()
        new: set[str] = set()
        old: set[str] = set()
        pending = self.roots(k)
        while pending:
            name = pending.pop()
            if name in computed:
                continue
            computed.add(name)
            for e in walk(self.values[name]):
                if isinstance(e, Load) and e.extent == Extent.ELEMENT:
                    old.add(e.array)
                elif isinstance(e, Local) and self.is_of_elements(e.name):
                    if self.written.get(e.name, k) < k:
                        new.add(e.name)
                    else:
                        pending.append(e.name)
        return computed, new, old

    def is_of_elements(self, name: str) -> bool:
        return name in self.values and extent_of(self.values[name]) == Extent.ELEMENT

    def sweeps(self) -> Sweeps:
        work: list[Work] = []
        # A state that is assigned a scalar has its value already.
        small = [
            a
            for a in self.rule.body
            if Extent.STEP < extent_of(a.value) < Extent.ELEMENT and a.target not in self.arrays
        ]
        for k in range(self.count + 1):
            work += self.between(small, k)
            if k < self.count:
                work.append(self.sweep(k))
        return Sweeps(self.rule, kernel_scalars(self.rule), tuple(work))

    def sweep(self, k: int) -> Sweep:
        computed, new, old = self.needs(k)

        def read(expr: Expr) -> Expr:
            if isinstance(expr, Local) and expr.name in new:
                return Load(expr.name)
            return rebuilt(expr, tuple(map(read, children(expr))))

        body: list[Assign] = []
        reductions: list[Assign] = []
        for assign in self.rule.body:
            if assign.target in computed:
                into = reductions if reduces_elements(assign.value) else body
                into.append(Assign(assign.target, read(assign.value)))
        stores = tuple(name for name in self.rule.arrays if self.written.get(name) == k)
        return Sweep(
            tuple(name for name in self.rule.arrays if name in old | new), tuple(body), stores, tuple(reductions)
        )

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
                if self.given[name] == k:
                    given[name] = self.turn_after(value, known, host=False)
                if self.level[name] == k:
                    known[name] = given.get(name, 0)
                    if _key(value) >= 0:
                        last = known[name] = max(known[name], last)
            elif self.level[name] == k:
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
                hosted = extent_of(self.values[name]) == Extent.GROUP or self.exchanged(self.values[name])
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


def _key(expr: Expr) -> int:
    return expr.key if isinstance(expr, Reduce) else -1
