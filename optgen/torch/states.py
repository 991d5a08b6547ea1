"""The states of tensors, kept where PyTorch keeps them: in `optimizer.state`, under the names that PyTorch has.

In: parameters, and what the caller or a checkpoint has put into `optimizer.state`. Out: slots for the step engine, and
the states of a step plan as kernels take them.

A state is the caller's as much as ours: any of them may be replaced between two steps, and a step finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np
import torch

from .. import interpreter as interp
from ..interpreter.codes import encoded
from ..ir.evaluate import HyperValues
from ..ir.expr import Extent
from ..ir.rule import Rule, State
from ..runtime.arrays import Array
from ..runtime.members import Member
from ..runtime.shapes import chosen_once, state_shape
from .bound_states import BoundTensors, Entries
from .checkpoint import expect_state
from .naming import Naming
from .param_groups import Groups
from .sharding import cut, part_of, small_like
from .slots import TensorSlot
from .tensors import local, memory, wide

__all__ = ["TensorStates"]


class TensorStates:
    """Those of all parameters of an optimiser.

    Parameters
    ----------
    groups
        The groups of the optimiser.

    Attributes
    ----------
    entries
        `optimizer.state`, set before every step, and what is known of it.
    """

    def __init__(self, naming: Naming, groups: Groups) -> None:
        self._naming = naming
        self._groups = groups
        self.entries = Entries()
        self.group: dict[str, Array] = {}
        self._plans: dict[Any, set[int]] = {}  # by parameter

    by_identity = True

    def has_begun(self, slot: TensorSlot) -> bool:
        return bool(slot.kept)

    def find(
        self, given: Sequence[Any], ps: Sequence[Array], rules: Sequence[Rule], places: Sequence[int]
    ) -> list[TensorSlot]:
        kept = self.entries.kept
        slots = []
        for p, rule, place in zip(given, rules, places, strict=True):
            own = kept.get(p, {})
            for state, key in self._naming.own_states(rule):
                dtype = self._naming.storing.dtype(state.name, p, self._groups.what(place))
                if (x := own.get(key)) is not None:
                    shape = state_shape(rule, state, self._groups.values_at(place), tuple(p.shape))
                    shape = self._naming.storing.shape(state.name, shape)
                    what, hint = f"{self._groups.what(place)}: its state {key}", self._kept_as(rule, state)
                    expect_state(what, state, x, shape, dtype, hint)
            slots.append(TensorSlot(self._naming, p, own, rule, self._plans.setdefault(p, set())))
        return slots

    def _kept_as(self, rule: Rule, state: State) -> str:
        """What to say of a state that has another shape than it began with."""
        sizing = chosen_once([rule]) if state.extent == Extent.BLOCK or state.dims is not None else ()
        keys = " and ".join(sorted(self._naming.hypers[name] for name in sizing))
        return f"leave {keys} as it was: it says how large they are" if keys else "states keep their shapes"

    def ordinals(self, found: Sequence[TensorSlot]) -> list[int]:
        kept = self.entries.kept
        old, new = {p: i for i, p in enumerate(kept)}, count(len(kept))
        return [old[slot.p] if slot.p in old else next(new) for slot in found]

    def begin(
        self, slot: TensorSlot, given: Any, p: Array, rule: Rule, values: HyperValues, ordinal: int
    ) -> TensorSlot:
        initial: dict[str, Any] = {}
        for state, key in self._naming.own_states(rule):
            own = state.extent < Extent.ELEMENT or state.dims is not None
            x = slot.kept.get(key)
            if x is None:
                initial = initial or _initial(rule, values, given, ordinal)
                shape = state_shape(rule, state, values, tuple(given.shape)) if own else None
                small = state.extent < Extent.ELEMENT
                strategy, storing = self._naming.strategy, self._naming.storing
                if kept := storing.in_blocks(state.name):
                    numbers = np.broadcast_to(initial[state.name], tuple(given.shape))
                    slot.add(state.name, torch.from_numpy(encoded(kept, numbers)))
                    continue
                dtype = strategy.small_dtype(state.extent, given) if small else storing.dtype(state.name, given)
                slot.add(state.name, _new_state(given, shape, initial[state.name], dtype))
        return slot

    def registration(self, members: Sequence[Member]) -> tuple[Callable[[], None], Callable[[], None]]:
        kept = self.entries.kept
        slots: list[Any] = [member.slot for member in members]
        before = [(slot, slot.p in kept, set(kept.get(slot.p, ()))) for slot in slots]

        def keep() -> None:
            for slot in slots:
                slot.keep(kept)

        def take_back() -> None:
            for slot, there, keys in before:
                if not there:
                    kept.pop(slot.p, None)
                for key in kept.get(slot.p, {}).keys() - keys:
                    del kept[slot.p][key]

        return keep, take_back

    def bound(self, slots: Sequence[TensorSlot]) -> BoundTensors:
        return BoundTensors(self.entries, slots, counted=self._naming.counted)

    def has_others(self, slots: Sequence[TensorSlot]) -> bool:
        return False  # what all parameters have together is of those with a gradient


def _initial(rule: Rule, values: HyperValues, p: Any, ordinal: int) -> dict[str, Any]:
    """What the states of a parameter start as: matrices as those of the whole, which is known by its shape."""
    initial = interp.initial_state(rule, values, memory(wide(p)), ordinal)
    if rule.matrix_states and cut(p):
        whole = interp.initial_state(rule, values, np.broadcast_to(0.0, tuple(p.shape)), ordinal)
        initial |= {state.name: whole[state.name] for state in rule.matrix_states}
    return initial


def _new_state(p: torch.Tensor, shape: tuple[int, ...] | None, value: Any, dtype: torch.dtype) -> torch.Tensor:
    """A state filled with a number or an array: laid out as the parameter is, or of this shape and dtype."""
    if shape is not None:
        made = small_like(p, shape, value if isinstance(value, float) else 0.0, dtype)
        if not isinstance(value, float):
            local(made).copy_(torch.from_numpy(np.array(part_of(made, value))))
        return made
    with torch.no_grad():
        made = torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format)
        parts = torch.view_as_real(made) if made.is_complex() else made  # of a complex number, either part
        if not isinstance(value, float):
            local(parts).copy_(torch.from_numpy(value))
        elif value:
            parts.fill_(value)
    return made
