"""One step of tensors with values in common: what each gives is reduced on the host, which computes the rest once.

In: bindings, one for each kernel that a step needs. Out: whether the step counts. If it does, parameters and states
have changed in place, those of the group too.

All threads are at rest between two stretches of the kernels' work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence

import numpy as np

from ..frozen import frozen
from ..ir.evaluate import Value, ValuesByCount, evaluate
from ..ir.expr import Const, Expr, Extent, Load, Local, Reduce, Shape, Size, children, rebuilt
from ..ir.primitives import FOLD_OF, Type
from ..ir.rule import Assign
from ..lowering.work import Group, joined, load_name
from .arrays import Array
from .binding import Binding

__all__ = ["GroupStep", "Shards"]


@frozen
class Shards:
    """The tensors of a binding as wholes, where other processes have the rest of them.

    `shapes`: those of the whole tensors. `counts`: how many values of each extent these have. `joined(folds, parts)`:
    the reductions of whole tensors, a row for each tensor and a column for each of `folds`, where those of the shards
    here are `parts`. All processes call it together, and get the same bits.
    """

    shapes: Sequence[tuple[int, ...]]
    counts: Sequence[Mapping[Extent, int]]
    joined: Callable[[Sequence[str], Array], Array]


@frozen
class _Given:
    """What the tensors of one kernel give to a reduction over all of them."""

    how: str
    values: Array


@frozen
class GroupStep:
    """Steps of tensors that have values in common, in one binding for each kernel.

    `order[b][i]`: the place of tensor i of binding b among all, in which order they are reduced. `grain`: as in
    `Binding.run`. `shards`: those of each binding, where tensors lie in shards.
    """

    bindings: Sequence[Binding]
    order: Sequence[Array]
    threads: int
    grain: int | None = None
    shards: Sequence[Shards] | None = None

    def run(self, values: Sequence[ValuesByCount], step: int, t: int, group: Mapping[str, Array]) -> bool:
        """One step; whether it counts. If not, as the rule has it, nothing has been written but what always changes."""
        return self.begin(values, step, t, group).advance()

    def begin(self, values: Sequence[ValuesByCount], step: int, t: int, group: Mapping[str, Array]) -> BegunGroupStep:
        """A step that nothing of has been done yet.

        Parameters
        ----------
        values : the sets of hyperparameters, each by count; those of the group are the first.
        step : the number of the step for each tensor, since its binding counts.
        t : the number of the step for the group.
        group : the states of the group, which are updated in place.
        """
        return BegunGroupStep(self, values, step, t, group)


class BegunGroupStep:
    """One step, which may be broken off at any point: `advance` goes on from there.

    What was done is noted: stretches by C, in the call that does them, and reductions here. All else is computed again
    from these, to the same bits. What processes exchange is not: where there are shards, `advance` is called once.
    """

    def __init__(
        self, of: GroupStep, values: Sequence[ValuesByCount], step: int, t: int, group: Mapping[str, Array]
    ) -> None:
        self._of, self._values, self._t, self._group = of, values[0][t], t, group
        self._first: list[dict[str, Value]] = []
        self._done = []
        for binding in of.bindings:
            binding.begin(values, step)
            program = binding.kernel.group
            scalars = binding.kernel.program.run(self._values, t)
            names: dict[str, Value] = dict(zip(program.scalars, scalars, strict=True))
            self._first.append(names | {load_name(name): float(group[name]) for name in program.states})
            self._done.append(binding.kernel.runtime.ffi.new("int64_t *"))
        self._totals: list[float] = []

    def advance(self) -> bool:
        """Do what is left of the step; whether it counts."""
        of = self._of
        known = [dict(names) for names in self._first]
        runs = [self._run(i, names) for i, names in enumerate(known)]
        # All kernels come to the same reductions in the same order, whatever else they do.
        gave = [next(run, None) for run in runs]
        met = 0
        while gave[0] is not None:
            if met == len(self._totals):
                self._totals.append(_reduced([each for each in gave if each is not None], of.order))
            total = self._totals[met]
            met += 1
            gave = [_sent(run, total) for run in runs]
        assert gave == [None] * len(gave), "the kernels of one step reduce different things"
        counts = not any(map(_refused, of.bindings, known))
        for name, value in of.bindings[0].kernel.group.new_states(known[0], counts=counts).items():
            self._group[name][...] = value
        return counts

    def _run(self, i: int, names: dict[str, Value]) -> Generator[_Given, float, None]:
        """The work of binding i, and what the host computes between its stretches, which goes to `names`.

        Stops at every reduction over the group, and goes on with the result.
        """
        of, done = self._of, self._done[i]
        binding = of.bindings[i]
        kernel = binding.kernel
        _show(binding, names)
        for stretch in range(len(kernel.stretches)):
            if done[0] == stretch:
                binding.work(stretch, of.threads, of.grain, done)
            if stretch == len(kernel.group.works):
                return
            work = kernel.group.works[stretch]
            if of.shards is not None:
                _join(binding, work.code, of.shards[i])
            for assign in work.code if isinstance(work, Group) else ():
                if isinstance(assign.value, Reduce):
                    given = binding.cells[:, kernel.group.cells[assign.target]]
                    names[assign.target] = yield _Given(FOLD_OF[assign.value.op], given)
                else:
                    names[assign.target] = evaluate(_found(assign.value, self._size), self._values, self._t, names)
            if _refused(binding, names):
                return
            _show(binding, names)

    def _size(self, extent: Extent) -> float:
        """How many values of an extent all tensors have."""
        of = self._of
        return float(sum(own[extent] for each in of.shards or of.bindings for own in each.counts))


def _join(binding: Binding, code: Sequence[Assign], shards: Shards) -> None:
    """Puts the shards' parts of these values together in the cells of the tensors, all in one exchange."""
    cells = binding.kernel.group.cells
    partial = []
    for assign in code:
        if not joined(assign.value):
            continue
        if isinstance(assign.value, Size):
            of = assign.value.of
            binding.cells[:, cells[assign.target]] = [counts[of] for counts in shards.counts]
        elif isinstance(assign.value, Shape):
            binding.cells[:, cells[assign.target]] = list(map(assign.value.of, shards.shapes))
        elif isinstance(assign.value, Reduce):
            partial.append((cells[assign.target], FOLD_OF[assign.value.op]))
    if partial:
        at, folds = map(list, zip(*partial, strict=True))
        binding.cells[:, at] = shards.joined(folds, binding.cells[:, at])


def _refused(binding: Binding, names: Mapping[str, Value]) -> bool:
    """Whether it is known that the step does not count, and what changes all the same."""
    kernel = binding.kernel
    return kernel.group.verdict <= names.keys() and not names.get(kernel.rule.accept, True)


def _sent(run: Generator[_Given, float, None], total: float) -> _Given | None:
    try:
        return run.send(total)
    except StopIteration:
        return None


def _show(binding: Binding, names: Mapping[str, Value]) -> None:
    """Writes the values of the group where the kernel reads them."""
    for name, at in binding.kernel.group.places.items():
        if name in names:
            binding.group_values[at] = names[name]


def _reduced(gave: Sequence[_Given], order: Sequence[Array]) -> float:
    """What all tensors gave, reduced one after the other, in the order of the tensors."""
    assert len(gave) == len(order), "the kernels of one step reduce different things"
    how = gave[0].how
    start = {"sum": 0.0, "max": -math.inf, "min": math.inf}[how]
    values = np.full(1 + sum(map(len, order)), start)
    for each, places in zip(gave, order, strict=True):
        values[1 + places] = each.values
    with np.errstate(all="ignore"):
        if how == "sum":
            return float(np.add.accumulate(values)[-1])  # not `sum`, which adds up pairs
        found = float(values.max() if how == "max" else values.min())
    # A zero has the sign of the first one.
    return float(values[values == 0][0]) if found == 0 else found


def _found(expr: Expr, size: Callable[[Extent], float]) -> Expr:
    """`expr` with numbers and names for what only the whole group knows."""
    match expr:
        case Load():
            return Local(load_name(expr.array), Extent.GROUP, Type.REAL)
        case Size():
            return Const(size(expr.of))
    return rebuilt(expr, tuple(_found(arg, size) for arg in children(expr)))
