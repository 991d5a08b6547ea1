"""The states of tensors, kept where PyTorch keeps them: in `optimizer.state`, under the names that PyTorch has.

In: parameters, and what the caller or a checkpoint has put into `optimizer.state`. Out: slots for the step engine, and
the clock by which they count.

A state is the caller's as much as ours: any of them may be replaced between two steps, and a step finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from operator import is_
from typing import Any

import torch

from .. import interpreter as interp
from ..ir.evaluate import HyperValues
from ..ir.expr import Extent
from ..ir.rule import Rule
from ..runtime.arrays import Array
from ..runtime.guard import DictGuard, Guard
from ..runtime.library import runtime
from ..runtime.plan import Member
from ..runtime.slots import Key
from .checkpoint import expect_state
from .naming import STEP, Kind
from .sharding import small_like
from .tensors import TENSORS, count_dtype, local, memory, wide

__all__ = ["TensorStates"]


class TensorSlot:
    """The states of one parameter, by their names in the spec: a view of its entry in `optimizer.state`.

    Attributes
    ----------
    kept
        The entry itself.
    names
        By its name in the spec, what each state is called there.
    """

    __slots__ = ("_before", "_counted", "_new", "kept", "names", "p", "plans")

    def __init__(self, kind: Kind, p: Any, kept: dict[str, Any], rule: Rule) -> None:
        self.p = p
        self.kept = kept
        self.names = {state.name: key for state, key in kind.own_states(rule)}
        self.plans: set[Key] = set()
        self._counted = kind.counted
        self._new: dict[str, Any] = {}
        # Where nothing counts, the states show whether there was a step.
        self._before = int(any(kept.get(key) is not None for key in self.names.values()))

    @property
    def t(self) -> int:
        return int(self.kept.get(STEP, 0)) if self._counted else self._before

    @t.setter
    def t(self, t: int) -> None:
        self._before = t
        if self._counted:
            self.kept[STEP] = torch.tensor(float(t), dtype=count_dtype(), device="cpu")

    @property
    def arrays(self) -> Mapping[str, Any]:
        found = {name: self._new.get(key, self.kept.get(key)) for name, key in self.names.items()}
        return {name: x for name, x in found.items() if x is not None}

    def add(self, name: str, x: torch.Tensor) -> None:
        """A state that the parameter lacks, or has in another dtype; not kept before `keep`."""
        self._new[self.names[name]] = x

    def keep(self) -> None:
        self.kept.update(self._new)
        self._new = {}

    @property
    def has_entry(self) -> bool:
        """Whether PyTorch has an entry for this parameter."""
        return bool(self.names) or self._counted


class TensorStates:
    """Those of all parameters of an optimiser.

    Parameters
    ----------
    what
        What the parameter in some place is called in messages.

    Attributes
    ----------
    kept
        `optimizer.state`, set before every step.
    """

    def __init__(self, kind: Kind, what: Callable[[int], str]) -> None:
        self._kind = kind
        self._what = what
        self.kept: dict[Any, dict[str, Any]] = {}
        self.group: dict[str, Array] = {}

    def find(
        self, given: Sequence[Any], ps: Sequence[Array], rules: Sequence[Rule], places: Sequence[int]
    ) -> list[TensorSlot]:
        kept = self.kept
        slots = []
        for p, rule, place in zip(given, rules, places, strict=True):
            own = kept.get(p, {})
            for state, key in self._kind.own_states(rule):
                if (x := own.get(key)) is not None:
                    shape = interp.shape_of(state.extent, tuple(p.shape), rule.rows)
                    expect_state(f"{self._what(place)}: its state {key}", state, x, shape, p.dtype)
            slots.append(TensorSlot(self._kind, p, own, rule))
        return slots

    def begin(self, slot: TensorSlot, given: Any, p: Array, rule: Rule, values: HyperValues) -> TensorSlot:
        initial: dict[str, Any] = {}
        for state, key in self._kind.own_states(rule):
            small = state.extent < Extent.ELEMENT
            x = slot.kept.get(key)
            if x is None:
                initial = initial or interp.initial_state(rule, values, memory(wide(given)))
                shape = interp.shape_of(state.extent, tuple(given.shape), rule.rows) if small else None
                slot.add(state.name, _new_state(given, shape, initial[state.name]))
            elif small and x.dtype is not torch.float64:
                slot.add(state.name, x.double())
        return slot

    def register(self, members: Sequence[Member]) -> None:
        kept = self.kept
        for member in members:
            slot: Any = member.slot
            if slot.has_entry:
                slot.kept = kept[slot.p]  # which makes one
                slot.keep()

    def clock(self, slots: Sequence[TensorSlot]) -> TensorClock:
        return TensorClock(self, slots, counted=self._kind.counted)

    def has_others(self, slots: Collection[TensorSlot]) -> bool:
        return False  # what all parameters have together is of those with a gradient


class TensorClock:
    """Counts the steps of some parameters, in tensors that are views of one: all of them in one operation.

    PyTorch shows the count of a parameter among its states, where a caller may change it.
    """

    def __init__(self, states: TensorStates, slots: Sequence[TensorSlot], *, counted: bool) -> None:
        self._states = states
        self._slots = [slot for slot in slots if slot.has_entry]
        self._counted = counted
        self.begun = [slot.t for slot in slots]
        self.n = 0
        if counted:
            with torch.inference_mode(False):
                steps = torch.tensor(self.begun, dtype=count_dtype(), device="cpu")
            for slot, step in zip(slots, steps.unbind(), strict=True):
                slot.kept[STEP] = step
            self._steps: Array = steps.numpy()
            self._expected = self._steps.copy()
        else:
            for slot in slots:
                slot.t = 1  # for the next clock, since states will show it then
        self._arrays = [slot.kept[key] for slot in self._slots for key in slot.names.values()]
        # A state may be given other memory without being another tensor.
        self._memory = list(map(local, self._arrays))
        self._guard = Guard(self._memory, [True] * len(self._memory), runtime().path, TENSORS)
        self._seen = DictGuard(states.kept.values(), runtime().path)
        self._moved = False

    @property
    def whole(self) -> bool:
        if self._moved:
            return False
        return not self._counted or self._steps.tobytes() == self._expected.tobytes()

    def fits(self) -> bool:
        if not self._guard.rebind(self._memory, None):
            return False
        states = self._states.kept
        if self._seen.same(list(states.values())):
            return True
        if any(slot.kept is not states.get(slot.p) for slot in self._slots):
            return False
        arrays = [slot.kept.get(key) for slot in self._slots for key in slot.names.values()]
        if not all(map(is_, arrays, self._arrays)):
            return False
        self._moved = True  # something else was changed, such as a count
        return True

    def tick(self) -> None:
        self.n += 1
        if self._counted:
            self._steps += 1
            self._expected += 1


def _new_state(p: torch.Tensor, shape: tuple[int, ...] | None, value: Any) -> torch.Tensor:
    """A state filled with a number or an array: laid out as the parameter is, or small, of this shape and float64."""
    if shape is not None:
        return small_like(p, shape, float(value))
    with torch.no_grad():
        made = torch.zeros_like(p, memory_format=torch.preserve_format)
        parts = torch.view_as_real(made) if made.is_complex() else made  # of a complex number, either part
        if not isinstance(value, float):
            local(parts).copy_(torch.from_numpy(value))
        elif value:
            parts.fill_(value)
    return made
