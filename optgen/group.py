"""One step of tensors with values in common: what each gives is reduced on the host, which computes the rest once.

In: bindings, one for each kernel that a step needs. Out: nothing; parameters and states are changed in place, those of
the group too. Between two stretches of the kernels' work, all threads are at rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce

from .arrays import Array
from .course import load_name
from .host import HOST, Steps, Value, evaluate
from .ir import Assign, Const, Expr, Extent, Load, Local, Reduce, Size, children, rebuilt
from .kernel import Binding
from .ops import FOLD_OF, Type

__all__ = ["run_together"]


def run_together(
    bindings: Sequence[Binding],
    order: Sequence[Sequence[int]],
    values: Steps,
    counts: Sequence[Sequence[int]],
    group: Mapping[str, Array],
    threads: int,
    grain: int | None = None,
) -> None:
    """One step of tensors that have values in common, in one binding for each kernel; `order[b][i]` is the place of
    tensor i of binding b among all, in which order they are reduced. `group`: the states of the group, which are
    updated."""
    t = max(max(c, default=0) for c in counts)
    known: list[dict[str, Value]] = []
    for binding, own in zip(bindings, counts, strict=True):
        binding.begin(values, own)
        program = binding.kernel.group
        names: dict[str, Value] = dict(zip(program.scalars, binding.kernel.program.run(values[t], t), strict=True))
        names |= {load_name(name): float(group[name]) for name in program.states}
        known.append(names)
        _show(binding, names)
    stretches = len(bindings[0].kernel.stretches)
    for stretch in range(stretches):
        for binding in bindings:
            binding.work(stretch, threads, grain)
        if stretch + 1 == stretches:
            break
        codes = [binding.kernel.group.works[stretch].code for binding in bindings]
        for assigns in zip(*codes, strict=True):
            total = _reduced(assigns, bindings, order)
            for assign, names in zip(assigns, known, strict=True):
                if total is None:
                    names[assign.target] = evaluate(_found(assign.value, bindings), values[t], t, names)
                else:
                    names[assign.target] = total
        for binding, names in zip(bindings, known, strict=True):
            _show(binding, names)
    for name, value in bindings[0].kernel.group.new_states(known[0]).items():
        group[name][...] = value


def _show(binding: Binding, names: Mapping[str, Value]) -> None:
    """The values of the group to where the kernel reads them."""
    for name, at in binding.kernel.group.places.items():
        if name in names:
            binding.group_values[at] = names[name]


def _reduced(assigns: Sequence[Assign], bindings: Sequence[Binding], order: Sequence[Sequence[int]]) -> float | None:
    """The reduction over all tensors of what each gave; None if this is no reduction."""
    if not isinstance(assigns[0].value, Reduce):
        return None
    gave: dict[int, float] = {}
    for assign, binding, places in zip(assigns, bindings, order, strict=True):
        at = binding.kernel.group.cells[assign.target]
        gave |= dict(zip(places, binding.cells[:, at].tolist(), strict=True))
    how = FOLD_OF[assigns[0].value.op]
    start = {"sum": 0.0, "max": -math.inf, "min": math.inf}[how]
    take = HOST["add" if how == "sum" else how]
    return float(reduce(take, (gave[i] for i in sorted(gave)), start))


def _found(expr: Expr, bindings: Sequence[Binding]) -> Expr:
    """`expr` with numbers and names for what only the whole group knows."""
    match expr:
        case Load():
            return Local(load_name(expr.array), Extent.GROUP, Type.REAL)
        case Size():
            return Const(float(sum(counts[expr.of] for binding in bindings for counts in binding.counts)))
    return rebuilt(expr, tuple(_found(arg, bindings) for arg in children(expr)))
