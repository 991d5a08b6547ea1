"""One step of a checked rule, before any pass.

In: a checked rule, hyperparameters, and the arrays of one or more tensors. Out: the arrays after one step, in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..ir.evaluate import HyperValues, block_size, evaluate
from ..ir.expr import PARAMETER, Call, Expr, Extent, Load, Local, Ordinal, extent_of, multiplies, type_of
from ..ir.rule import Rule
from .matrix_step import MatrixStep, initial_matrix
from .primitives import FOLDS
from .tensor_step import GroupReduction, Step, Tensor

__all__ = ["Tensor", "computed_group", "evaluated", "initial_state", "step", "step_group"]

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"


def initial_state(rule: Rule, values: HyperValues, p: Array | None = None, ordinal: int = 0) -> dict[str, Any]:
    """The initial value of each state, in float64: a number, or an array like `p` where it depends on the parameter. A
    matrix of other dimensions is given as one, or as a number for all of it.

    `ordinal`: how many parameters the optimiser had before this one.
    """
    initial = {}
    for state in rule.states:
        if multiplies(state.init):
            initial[state.name] = initial_matrix(rule, state, values, p)
        elif any(e == Load(PARAMETER) for e in _leaves(state.init)):
            place = np.zeros(0) if p is None else p
            run = Step(rule, values, 0, {PARAMETER: place}, {}, [])
            with np.errstate(all="ignore"):
                initial[state.name] = run.value(state.init)
        elif state.init == Ordinal():
            initial[state.name] = float(ordinal)
        else:
            initial[state.name] = float(evaluate(state.init, values, 0, {}))
    return initial


def evaluated(rule: Rule, values: HyperValues, tensor: Tensor) -> Array:
    """What a parameter is evaluated with after an update, from the arrays that this has left."""
    run = _begun(rule, values, tensor.t, tensor.loaded())
    with np.errstate(all="ignore"):
        for assign in rule.evaluation:
            run.names[assign.target] = run.value(assign.value)
        made = next(assign.value for assign in rule.evaluation if assign.target == PARAMETER)
        return np.broadcast_to(run.operand(Local(PARAMETER, extent_of(made), type_of(made))), run.shape)


def step(rule: Rule, values: HyperValues, t: int, arrays: Mapping[str, Array]) -> bool:
    """One step of one tensor, in place; whether it counts, as for `step_group`.

    `arrays` holds "p", "g" and every state. Those of extent ELEMENT have one shape, and the compute type as dtype; the
    others are float64, of the shape that `shape_of` gives.
    """
    group = {state.name: arrays[state.name] for state in rule.states if state.extent == Extent.GROUP}
    return step_group([(rule, values, Tensor(t, arrays))], group, values, t)


def step_group(
    tensors: Sequence[tuple[Rule, HyperValues, Tensor]], group: Mapping[str, Array], values: HyperValues, t: int
) -> bool:
    """One step of all tensors, in place, each in its own variant and with its own hyperparameters.

    `group` holds the states of extent GROUP. What is computed once for all tensors has the hyperparameters `values` and
    the count `t`.

    Returns whether the step counts. If not, nothing has changed but gradients that the rule overwrites, and states that
    always change.
    """
    write, _ = computed_group(tensors, group, values, t)
    return write()


def computed_group(
    tensors: Sequence[tuple[Rule, HyperValues, Tensor]], group: Mapping[str, Array], values: HyperValues, t: int
) -> tuple[Callable[[], bool], list[dict[str, Any]]]:
    """The step that `step_group` does, computed and not yet written: a call writes it, as often as one likes. With it
    what each tensor reports."""
    known: list[float] = []  # the values of the reductions over the group, in the order in which a step meets them
    while True:
        runs, parts = [], []
        for rule, own, tensor in tensors:
            run = _begun(rule, own, tensor.t, tensor.loaded(), known, group, (values, t))
            runs.append(run)
            try:
                with np.errstate(all="ignore"):
                    run.run()
            except GroupReduction as needed:
                parts.append(needed)
        if not parts:
            break
        known.append(_over_group(parts))
    counts = all([run.counts for run in runs])

    def write() -> bool:
        for run, (_, _, tensor) in zip(runs, tensors, strict=True):
            with np.errstate(all="ignore"):
                run.write(run.rule.stores if counts else run.rule.always, tensor)
        return counts

    return write, [{report.name: run.names[report.value] for report in run.rule.reports} for run in runs]


def _over_group(parts: Sequence[GroupReduction]) -> float:
    start, take = FOLDS[parts[0].fold]
    total: Any = start
    with np.errstate(all="ignore"):
        for part in parts:
            total = take(total, np.float64(part.value))
    return float(total)


def _begun(
    rule: Rule,
    values: HyperValues,
    t: int,
    arrays: Mapping[str, Array],
    known: Sequence[float] = (),
    group: Mapping[str, Array] | None = None,
    once: tuple[HyperValues, int] | None = None,
) -> Step:
    """The step of one tensor, of which nothing is computed yet."""
    block = int(block_size(rule, values, arrays[PARAMETER].shape))
    kind = MatrixStep if rule.multiplies else Step
    return kind(rule, values, t, arrays, {}, list(known), group, once, block)


def _leaves(expr: Expr) -> list[Expr]:
    return [expr] if not isinstance(expr, Call) else [leaf for arg in expr.args for leaf in _leaves(arg)]
