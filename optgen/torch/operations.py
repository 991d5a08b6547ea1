"""A step by PyTorch's own operations, for tensors on devices that kernels do not reach.

In: parameters and gradients, of which one is not on the CPU. Out: these parameters and their states, stepped where they
are; what is computed for all of them together is computed where the first one is.

Nothing waits for a device, unless the rule refuses steps or has states of the group, which are on the host. Results are
near those of kernels, and not the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import ArrayError
from ..functional.tensor_step import TensorStep
from ..functional.together import step_together
from ..functional.torch_library import LIBRARY
from ..ir.evaluate import HyperValues
from ..ir.expr import GRADIENT, PARAMETER
from ..ir.extents import Extent
from ..ir.rule import Rule
from ..runtime.lacking import Lacking
from .naming import Naming
from .param_groups import Groups
from .sharding import cut
from .slots import TensorSlot
from .states import TensorStates
from .tensors import DTYPES

__all__ = ["elsewhere", "evaluated_by_operations", "step_by_operations"]

_TAKEN = (*(dtype for dtype in DTYPES if not dtype.is_complex), torch.bfloat16, torch.float16)


def elsewhere(tensors: Sequence[Any]) -> bool:
    """Whether one of them is not on the CPU; None is nowhere."""
    return any([x is not None and x.device.type != "cpu" for x in tensors])


def step_by_operations(
    naming: Naming,
    groups: Groups,
    states: TensorStates,
    params: Sequence[Any],
    given: Sequence[Any],
    numbers: HyperValues,
    lacking: Sequence[Lacking] = (),
) -> None:
    """One step of the parameters that have a gradient.

    Parameters
    ----------
    naming, groups, states
        The rule, and what its groups and parameters have.
    params, given
        All parameters; their gradients, and behind them the other inputs. None for a parameter that stays.
    numbers, lacking
        What else the step is given, and what it is not.

    Raises
    ------
    ArrayError, ArgumentError
        For what the rule does not take. Then nothing has changed.
    """
    places = [i for i in range(len(params)) if given[i] is not None]
    for i in places:
        _expect_taken(naming, groups.what(i), params[i], given[i :: len(params)])
        for each in lacking:
            if each.of is None or id(params[i]) in each.of:
                raise each.error(i)
    with torch.no_grad():
        ordinals = _ordinals(states, [params[i] for i in places])
        begun = [
            _begun(naming, groups, states, i, [params[i], *given[i :: len(params)]], ordinal, numbers)
            for i, ordinal in zip(places, ordinals, strict=True)
        ]
        found = step_together([run for run, _ in begun])
        counts = found.counts is True or bool(found.counts)
        for (run, slot), p, states_of in zip(begun, found.params, found.states, strict=True):
            new = {PARAMETER: p, **{name: states_of[name] for name in slot.arrays}}
            if GRADIENT in run.rule.stores:
                new[GRADIENT] = run.written(GRADIENT)
            _write(new, run.arrays)
            slot.keep(states.entries.kept)
            slot.t = slot.t + counts
        for name in [state.name for state in naming.rules[0].states if state.extent == Extent.GROUP and places]:
            states.group[name] = np.array(float(found.states[0][name]))


def evaluated_by_operations(naming: Naming, states: TensorStates, p: Any, rule: Rule, values: HyperValues) -> Any:
    """What a parameter is evaluated with after its last step."""
    slot = TensorSlot(naming, p, states.entries.kept[p], rule, set())
    together = {name: torch.tensor(float(x), device=p.device) for name, x in states.group.items()}
    with torch.no_grad():
        arrays = {PARAMETER: p, **slot.arrays, **together}
        return TensorStep(LIBRARY, rule, values, slot.t, arrays, rule.evaluation).written(PARAMETER)


def _expect_taken(naming: Naming, what: str, p: Any, inputs: Sequence[Any]) -> None:
    """An error unless operations step a parameter, which messages call `what`, by its gradient and other inputs."""
    name, rule = naming.name, naming.rules[0]
    if rule.phases:
        hint = "keep the model on the CPU, or step it with another rule"
        raise ArrayError(f"{what} is on {p.device}: {name} has steps of several phases, on the CPU alone", hint=hint)
    if naming.storing.rounding or naming.storing.has_blocks:
        message = f"{what} is on {p.device}: states in blocks and stochastic rounding are for the CPU"
        raise ArrayError(message, hint="keep states in bfloat16 or float16, or as they are")
    if p.device.type == "meta" and (rule.accept or any(state.extent == Extent.GROUP for state in rule.states)):
        raise ArrayError(f"{what} is on meta: {name} looks at numbers, and there are none")
    for x in inputs:
        if x.device != p.device:
            raise ArrayError(f"{what} is on {p.device}, and its gradient or another input on {x.device}")
    if cut(p):
        raise ArrayError(f"{what} lies in shards on {p.device}: {name} steps those on the CPU")
    if any(x.layout is not torch.strided for x in (p, *inputs)):
        raise ArrayError(f"{what}: {name} does not support sparse gradients", hint="make them dense")
    if p.dtype not in _TAKEN:
        message = f"{what}: expected a parameter of float32, float64, bfloat16 or float16 on {p.device}, got {p.dtype}"
        raise ArrayError(message, hint="convert the model, or leave the parameter out")


def _write(new: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write new values into the arrays of these names. One may be an array that is written too, as of a ring, or a view
    of one; whether tensors share memory, not every device says."""
    olds = set(map(id, arrays.values()))
    apart = {name: x.clone() if id(x) in olds or x._is_view() else x for name, x in new.items()}
    for name, x in apart.items():
        arrays[name].copy_(x)


def _ordinals(states: TensorStates, params: Sequence[Any]) -> list[int]:
    """Which parameter of the optimiser each is: those with states first, in their order."""
    known = {p: i for i, p in enumerate(states.entries.kept)}
    new = iter(range(len(known), len(known) + len(params)))
    return [known[p] if p in known else next(new) for p in params]


def _begun(
    naming: Naming, groups: Groups, states: TensorStates, place: int, given: Sequence[Any], ordinal: int,
    numbers: HyperValues,
) -> tuple[TensorStep, TensorSlot]:  # fmt: skip
    """The step of a parameter by its gradient and other inputs, and its entry in `optimizer.state`; the states that it
    lacks begin."""
    p = given[0]
    rule = naming.rules[groups.variant(place, tuple(p.shape))]
    slot = TensorSlot(naming, p, states.entries.kept.get(p, {}), rule, set())
    arrays = dict(zip((PARAMETER, *rule.given_arrays), given, strict=False))
    run = TensorStep(LIBRARY, rule, {**groups.values_at(place), **numbers}, slot.t + 1, arrays, rule.body)
    kept = slot.arrays
    for state in rule.states:
        if state.extent == Extent.GROUP:
            together = states.group.get(state.name)
            begun = run.initial(state, ordinal) if together is None else torch.tensor(float(together))
            arrays[state.name] = begun.to(device=p.device, dtype=run.wide)
            continue
        if state.name not in kept:
            small = state.extent < Extent.ELEMENT
            dtype = run.wide if small and naming.strategy.checks_values else naming.storing.dtype(state.name, p)
            slot.add(state.name, run.initial(state, ordinal).to(dtype))
        arrays[state.name] = slot.arrays[state.name]
    return run, slot
