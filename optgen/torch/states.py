"""The states of tensors, kept where PyTorch keeps them: in `optimizer.state`, under the names that PyTorch has.

In: parameters, and what the caller or a checkpoint has put into `optimizer.state`. Out: slots for the step engine, and
the states of a step plan as kernels take them.

A state is the caller's as much as ours: any of them may be replaced between two steps, and a step finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from operator import is_
from typing import Any

import torch

from .. import interpreter as interp
from ..ir.evaluate import HyperValues
from ..ir.expr import Extent
from ..ir.rule import Rule
from ..runtime.arrays import Array
from ..runtime.clock import Clock
from ..runtime.guard import DictGuard, Guard
from ..runtime.library import runtime
from ..runtime.plan import Member
from ..runtime.shapes import state_shape
from .checkpoint import expect_state
from .naming import STEP, Naming
from .param_groups import Groups
from .sharding import small_like
from .small_states import SmallStates
from .tensor_library import TensorLibrary
from .tensors import count_dtype, local, memory, wide

__all__ = ["TensorStates"]


class TensorSlot:
    """The states of one parameter, by their names in the spec: a view of its entry in `optimizer.state`.

    Attributes
    ----------
    kept
        The entry itself.
    names
        By its name in the spec, what each state is called there.
    small
        The names of those with fewer values than elements.
    plans
        The numbers of the step plans that the parameter is in, which all of its slots share.
    """

    __slots__ = ("_before", "_counted", "_new", "kept", "names", "p", "plans", "small")

    def __init__(self, naming: Naming, p: Any, kept: dict[str, Any], rule: Rule, plans: set[int]) -> None:
        self.p = p
        self.kept = kept
        self.names = {state.name: key for state, key in naming.own_states(rule)}
        self.small = {state.name for state in rule.small_states}
        self.plans = plans
        self._counted = naming.counted
        self._new: dict[str, Any] = {}
        # Where nothing counts, the states show whether there was a step.
        self._before = int(True in [kept.get(key) is not None for key in self.names.values()])

    @property
    def owner(self) -> Any:
        """What the parameter is known by."""
        return self.p

    @property
    def t(self) -> int:
        return int(self.kept.get(STEP, 0)) if self._counted else self._before

    @t.setter
    def t(self, t: int) -> None:
        if self._counted:
            self.step.fill_(t)
        else:
            self._before = t

    @property
    def step(self) -> torch.Tensor:
        """The count, as a tensor of the entry."""
        step = self.kept.get(STEP, 0)
        if not isinstance(step, torch.Tensor):
            with torch.inference_mode(False):
                step = self.kept[STEP] = torch.tensor(float(step), dtype=count_dtype(), device="cpu")
        return step

    @property
    def arrays(self) -> Mapping[str, Any]:
        found = {name: self._new.get(key, self.kept.get(key)) for name, key in self.names.items()}
        return {name: x for name, x in found.items() if x is not None}

    def add(self, name: str, x: torch.Tensor) -> None:
        """Give a state that is lacking, which is not kept before `keep`."""
        self._new[self.names[name]] = x

    def keep(self, kept: dict[Any, dict[str, Any]]) -> None:
        """Put all into the entry; PyTorch has none for a parameter without states and count."""
        if not self.has_entry:
            return
        self.kept = kept[self.p]  # which makes one
        self.kept.update(self._new)
        self._new = {}
        if self._counted:
            self.step  # noqa: B018  # which makes one

    @property
    def has_entry(self) -> bool:
        return bool(self.names) or self._counted


class TensorStates:
    """Those of all parameters of an optimiser.

    Parameters
    ----------
    groups
        The groups of the optimiser.

    Attributes
    ----------
    kept
        `optimizer.state`, set before every step.
    """

    def __init__(self, naming: Naming, groups: Groups) -> None:
        self._naming = naming
        self._groups = groups
        self.kept: dict[Any, dict[str, Any]] = {}
        self.group: dict[str, Array] = {}
        self._plans: dict[Any, set[int]] = {}  # by parameter

    by_identity = True

    def has_begun(self, slot: TensorSlot) -> bool:
        return bool(slot.kept)

    def find(
        self, given: Sequence[Any], ps: Sequence[Array], rules: Sequence[Rule], places: Sequence[int]
    ) -> list[TensorSlot]:
        kept = self.kept
        slots = []
        for p, rule, place in zip(given, rules, places, strict=True):
            own = kept.get(p, {})
            for state, key in self._naming.own_states(rule):
                if (x := own.get(key)) is not None:
                    shape = state_shape(rule, state, self._groups.values_at(place), tuple(p.shape))
                    expect_state(f"{self._groups.what(place)}: its state {key}", state, x, shape, p.dtype)
            slots.append(TensorSlot(self._naming, p, own, rule, self._plans.setdefault(p, set())))
        return slots

    def ordinals(self, found: Sequence[TensorSlot]) -> list[int]:
        old, new = {p: i for i, p in enumerate(self.kept)}, count(len(self.kept))
        return [old[slot.p] if slot.p in old else next(new) for slot in found]

    def begin(
        self, slot: TensorSlot, given: Any, p: Array, rule: Rule, values: HyperValues, ordinal: int
    ) -> TensorSlot:
        initial: dict[str, Any] = {}
        for state, key in self._naming.own_states(rule):
            small = state.extent < Extent.ELEMENT
            x = slot.kept.get(key)
            if x is None:
                initial = initial or interp.initial_state(rule, values, memory(wide(given)), ordinal)
                shape = state_shape(rule, state, values, tuple(given.shape)) if small else None
                dtype = self._naming.strategy.small_dtype(state.extent, given)
                slot.add(state.name, _new_state(given, shape, initial[state.name], dtype))
        return slot

    def register(self, members: Sequence[Member]) -> Callable[[], None]:
        kept = self.kept
        slots: list[Any] = [member.slot for member in members]
        before = [(slot, slot.p in kept, set(kept.get(slot.p, ()))) for slot in slots]

        def take_back() -> None:
            for slot, there, keys in before:
                if not there:
                    kept.pop(slot.p, None)
                for key in kept.get(slot.p, {}).keys() - keys:
                    del kept[slot.p][key]

        try:
            for slot in slots:
                slot.keep(kept)
        except BaseException:
            take_back()
            raise
        return take_back

    def bound(self, slots: Sequence[TensorSlot]) -> BoundTensors:
        return BoundTensors(self, slots, counted=self._naming.counted)

    def has_others(self, slots: Sequence[TensorSlot]) -> bool:
        return False  # what all parameters have together is of those with a gradient


class BoundTensors:
    """The states of the parameters of a plan, and their clock.

    Kernels have states with a value for each element in place; counts and small states are copied, before a step and
    after it. Any of them may be the caller's.
    """

    def __init__(self, states: TensorStates, slots: Sequence[TensorSlot], *, counted: bool) -> None:
        self._states = states
        self._slots = slots
        self._counted = counted
        self.clock: Clock | None = None
        self._small_tensors = [x for slot in slots for name, x in slot.arrays.items() if name in slot.small]
        self._small = None
        if counted or self._small_tensors:
            shapes = [memory(x).shape for x in self._small_tensors]
            self._small = SmallStates(len(slots) if counted else 0, shapes, runtime().path, TensorLibrary.reader)
        values = iter(self._small.values if self._small else ())
        self._arrays = [
            {name: next(values) if name in slot.small else memory(x) for name, x in slot.arrays.items()}
            for slot in slots
        ]
        self._tensors = [x for slot in slots for x in slot.arrays.values()]
        # A state may be given other memory without being another tensor.
        self._memory = [local(x) for slot in slots for name, x in slot.arrays.items() if name not in slot.small]
        self._guard = Guard(self._memory, [True] * len(self._memory), runtime().path, TensorLibrary.reader)
        self._seen: DictGuard | None = None

    def are_of(self, slots: Sequence[TensorSlot]) -> bool:
        found = [x for slot in slots for x in slot.arrays.values()]
        entries = [slot.kept for slot in slots], [slot.kept for slot in self._slots]
        same = [a is b for known, now in (entries, (found, self._tensors)) for a, b in zip(known, now, strict=False)]
        alike = len(slots) == len(self._slots) and len(found) == len(self._tensors)
        return alike and all(same) and self._guard.rebind(self._memory, None)

    def arrays(self, i: int, names: Sequence[str]) -> list[Array]:
        return [self._arrays[i][name] for name in names]

    def fits(self) -> bool:
        if self._seen is None or not self._guard.rebind(self._memory, None):
            return False
        kept = self._states.kept
        if self._seen.same(list(kept.values())) and (self._small is None or self._small.read()):
            return True
        if any([slot.has_entry and slot.kept is not kept.get(slot.p) for slot in self._slots]):
            return False
        found = [slot.kept.get(key) for slot in self._slots for key in slot.names.values()]
        if not all(map(is_, found, self._tensors)):
            return False
        if self.clock is not None:
            self.clock.whole = False  # something else was changed, such as a count
        return True

    def restart(self) -> Clock:
        begun = [slot.t for slot in self._slots]
        small = self._small
        if small is not None:
            small.hold([slot.step for slot in self._slots] if self._counted else [], self._small_tensors)
        clock = Clock(begun) if small is None else Clock(begun, small.address)
        if small is not None and small.asks:
            clock.prepare, clock.finish = small.prepare, small.finish
        self._seen = DictGuard(self._states.kept.values(), runtime().path)
        self.clock = clock
        for slot in self._slots if not self._counted else ():
            slot.t = 1  # for the next time, since states show it then
        return clock


def _new_state(p: torch.Tensor, shape: tuple[int, ...] | None, value: Any, dtype: torch.dtype) -> torch.Tensor:
    """A state filled with a number or an array: laid out as the parameter is, or small, of this shape and dtype."""
    if shape is not None:
        return small_like(p, shape, float(value), dtype)
    with torch.no_grad():
        made = torch.zeros_like(p, memory_format=torch.preserve_format)
        parts = torch.view_as_real(made) if made.is_complex() else made  # of a complex number, either part
        if not isinstance(value, float):
            local(parts).copy_(torch.from_numpy(value))
        elif value:
            parts.fill_(value)
    return made
