"""One step of tensors with values in common: what each gives is reduced on the host, which computes the rest once.

In: bindings, one for each kernel that a step needs. Out: whether the step counts; then parameters and states are
changed in place, those of the group too. Between two stretches of the kernels' work, all threads are at rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..ir.evaluate import HyperValues, Value, ValuesByCount, evaluate
from ..ir.expr import Const, Expr, Extent, Load, Local, Reduce, Size, children, rebuilt
from ..ir.primitives import FOLD_OF, Type
from ..ir.rule import Assign
from ..lowering.sweeps import Group, joined, load_name
from .arrays import Array
from .binding import Binding

__all__ = ["Shards", "run_together"]


@dataclass(frozen=True)
class Shards:
    """Of the tensors of a binding, which may be shards that other processes have the rest of. `counts`: how many values
    of each extent the whole tensors have. `joined(folds, parts)`: what whole tensors give, a row each, to reductions
    that are so folded, a column each, if those here give `parts`. All processes call it, and get the same bits."""

    counts: Sequence[Mapping[Extent, int]]
    joined: Callable[[Sequence[str], Array], Array]


def run_together(
    bindings: Sequence[Binding],
    order: Sequence[Array],
    values: Sequence[ValuesByCount],
    step: int,
    t: int,
    group: Mapping[str, Array],
    threads: int,
    grain: int | None = None,
    shards: Sequence[Shards] | None = None,
) -> bool:
    """One step of tensors that have values in common, in one binding for each kernel; `order[b][i]` is the place of
    tensor i of binding b among all, in which order they are reduced. It is number `step` of each since it counts, and
    number `t` of the group, whose hyperparameters are the first of the sets `values`. `group`: the states of the group,
    which are updated. `shards`: of each binding, where tensors lie in shards.

    Whether the step counts: if the rule says that it does not, nothing has been written."""
    known: list[dict[str, Value]] = []
    runs = []
    counts = [each.counts for each in shards or bindings]

    def size(of: Extent) -> float:
        return float(sum(own[of] for each in counts for own in each))

    for i, binding in enumerate(bindings):
        binding.begin(values, step)
        program = binding.kernel.group
        names: dict[str, Value] = dict(zip(program.scalars, binding.kernel.program.run(values[0][t], t), strict=True))
        names |= {load_name(name): float(group[name]) for name in program.states}
        known.append(names)
        runs.append(_run(binding, size, names, values[0][t], t, threads, grain, shards[i] if shards else None))
    # All kernels come to the same reductions in the same order, whatever else they do.
    gave = [next(run, None) for run in runs]
    while gave[0] is not None:
        total = _reduced([each for each in gave if each is not None], order)
        gave = [_sent(run, total) for run in runs]
    assert gave == [None] * len(gave), "the kernels of one step reduce different things"
    if not all(map(_counts, bindings, known)):
        return False
    for name, value in bindings[0].kernel.group.new_states(known[0]).items():
        group[name][...] = value
    return True


@dataclass(frozen=True)
class _Given:
    """What the tensors of one kernel give to a reduction over all of them."""

    how: str
    values: Array


def _run(
    binding: Binding,
    size: Callable[[Extent], float],
    names: dict[str, Value],
    values: HyperValues,
    t: int,
    threads: int,
    grain: int | None,
    shards: Shards | None,
) -> Generator[_Given, float, None]:
    """The whole work of one kernel and what the host computes between its stretches, which goes to `names`. It stops at
    every reduction over the group, and goes on with the result."""
    kernel = binding.kernel
    _show(binding, names)
    for stretch in range(len(kernel.stretches)):
        binding.work(stretch, threads, grain)
        if stretch == len(kernel.group.works):
            return
        work = kernel.group.works[stretch]
        if shards is not None:
            _join(binding, work.code, shards)
        for assign in work.code if isinstance(work, Group) else ():
            if isinstance(assign.value, Reduce):
                given = binding.cells[:, kernel.group.cells[assign.target]]
                names[assign.target] = yield _Given(FOLD_OF[assign.value.op], given)
            else:
                names[assign.target] = evaluate(_found(assign.value, size), values, t, names)
        if not _counts(binding, names):
            return
        _show(binding, names)


def _join(binding: Binding, code: Sequence[Assign], shards: Shards) -> None:
    """Puts what the shards have of these values together, in the cells of the tensors, all in one exchange."""
    cells = binding.kernel.group.cells
    partial = []
    for assign in code:
        if not joined(assign.value):
            continue
        if isinstance(assign.value, Size):
            of = assign.value.of
            binding.cells[:, cells[assign.target]] = [counts[of] for counts in shards.counts]
        elif isinstance(assign.value, Reduce):
            partial.append((cells[assign.target], FOLD_OF[assign.value.op]))
    if partial:
        at, folds = map(list, zip(*partial, strict=True))
        binding.cells[:, at] = shards.joined(folds, binding.cells[:, at])


def _counts(binding: Binding, names: Mapping[str, Value]) -> bool:
    """Whether the step counts, as far as it is known."""
    return bool(names.get(binding.kernel.rule.accept, True))


def _sent(run: Generator[_Given, float, None], total: float) -> _Given | None:
    try:
        return run.send(total)
    except StopIteration:
        return None


def _show(binding: Binding, names: Mapping[str, Value]) -> None:
    """The values of the group to where the kernel reads them."""
    for name, at in binding.kernel.group.places.items():
        if name in names:
            binding.group_values[at] = names[name]


def _reduced(gave: Sequence[_Given], order: Sequence[Array]) -> float:
    """What all tensors gave, reduced in their order, one behind the other."""
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
    # Of a zero, the sign that the first one has.
    return float(values[values == 0][0]) if found == 0 else found


def _found(expr: Expr, size: Callable[[Extent], float]) -> Expr:
    """`expr` with numbers and names for what only the whole group knows."""
    match expr:
        case Load():
            return Local(load_name(expr.array), Extent.GROUP, Type.REAL)
        case Size():
            return Const(size(expr.of))
    return rebuilt(expr, tuple(_found(arg, size) for arg in children(expr)))
