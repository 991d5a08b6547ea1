"""The step of several tensors together: reductions over all of them, and whether the step counts.

In: what the steps of tensors are evaluated with, of which nothing is computed yet. Out: all that they write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..frozen import frozen
from ..ir.expr import PARAMETER, Expr, Reduce, Size, reduced_extent, walk
from ..ir.extents import Extent
from ..ir.primitives import FOLD_OF
from ..ir.rule import Rule
from .library import Array
from .tensor_step import TensorStep

__all__ = ["Together", "step_together"]

#: How two tensors' shares of a reduction become one.
_JOINED = {"sum": "add", "max": "max", "min": "min"}


@frozen
class Together:
    """What tensors write in one step. `params`: their new values, or what is added to them. `states`: by name, of each
    tensor. `counts`: whether the step counts, True or an array of no dimensions."""

    params: list[Array]
    states: list[dict[str, Array]]
    counts: Any


def step_together(
    runs: Sequence[TensorStep], result: Callable[[TensorStep, str], Array] = TensorStep.written
) -> Together:
    """One step of these tensors; `result` gives what becomes of their parameters."""
    _reduce_over_group(runs)
    counts: Any = True
    for run in runs:
        if run.rule.accept:
            accepted = run.named(run.rule.accept)
            counts = accepted if counts is True else runs[0].joined("and", counts, accepted)
    params = [_if_it_counts(run, counts, PARAMETER, result) for run in runs]
    states = [
        {each.name: _if_it_counts(run, counts, each.name, TensorStep.written) for each in run.rule.states}
        for run in runs
    ]
    return Together(params, states, counts)


def _if_it_counts(run: TensorStep, counts: Any, name: str, result: Callable[[TensorStep, str], Array]) -> Array:
    """What a step makes of an array or a state: `result` if the step counts, True or an array; else what it was, or of
    an update nothing."""
    if name not in run.rule.stores:
        return run.arrays[name]
    new = result(run, name)
    if counts is True or name in run.rule.always:
        return new
    old = 0.0 if result is TensorStep.update else run.arrays[name]
    return run.primitive("where", [run.beside(counts), new, old], new.dtype)


def _reduce_over_group(runs: Sequence[TensorStep]) -> None:
    """Finds the reductions over all tensors, each as soon as those within it are known."""
    wanted = [list(dict.fromkeys(_over_group(run.rule))) for run in runs]
    for exprs in zip(*wanted, strict=True):
        first, *rest = [run.partial(expr) for run, expr in zip(runs, exprs, strict=True)]
        for part in rest:
            op = _JOINED[FOLD_OF[exprs[0].op]] if isinstance(exprs[0], Reduce) else "add"
            first = runs[0].joined(op, first, part)
        for run, expr in zip(runs, exprs, strict=True):
            run.over_group[expr] = first


def _over_group(rule: Rule) -> list[Expr]:
    """The reductions over the group, inner ones first, and with each mean its count."""
    found: list[Expr] = []
    for assign in rule.body:
        for e in walk(assign.value):
            if isinstance(e, Reduce) and e.over == Extent.GROUP:
                found += [Size(Extent.GROUP, reduced_extent(e))] if e.op == "mean" else []
                found.append(e)
            elif isinstance(e, Size) and e.over == Extent.GROUP:
                found.append(e)
    return found
