"""Slots of tensors: the states of one parameter, in `optimizer.state` and as kernels take them.

In: a parameter and its entry in `optimizer.state`. Out: its states by their names in the spec, and arrays of NumPy.

Kernels have states with a value for each element in place; the count and small states are copied, before a step and
after it. Any of them may be the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..ir.rule import Rule, Storages
from ..runtime.arrays import Array
from ..runtime.clock import Clock
from ..runtime.guard import see
from .naming import STEP, Naming
from .small_states import SmallState
from .tensor_library import TensorLibrary
from .tensors import count_dtype, local, memory, storage_of

__all__ = ["NEVER", "BoundSlot", "TensorSlot"]

#: The version of what never held its tensors.
NEVER = -1


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
    known_as
        The identity by which the parameter is known.
    bound
        The states as kernels take them, as soon as kernels do.
    """

    __slots__ = ("_before", "_coded", "_counted", "_new", "bound", "kept", "known_as", "names", "p", "plans", "small")

    def __init__(self, naming: Naming, p: Any, kept: dict[str, Any], rule: Rule, plans: set[int]) -> None:
        self.p = p
        self.kept = kept
        self.names = {state.name: key for state, key in naming.own_states(rule)}
        self.small = {state.name for state in rule.small_states}
        self.plans = plans
        self.known_as = 0
        self.bound: BoundSlot | None = None
        self._counted = naming.counted
        self._coded = {} if rule.multiplies else {x: naming.storing.in_blocks(x) for x in rule.element_states}
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

    @property
    def storages(self) -> Storages:
        """Those of states in codes or of 16 bits; none where a library multiplies matrices, which takes numbers."""
        found = self.arrays
        of = {name: blocks or storage_of(found[name]) for name, blocks in self._coded.items() if name in found}
        return tuple((name, kept) for name, kept in of.items() if kept)

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


class BoundSlot:
    """The states of one parameter, whatever list it stands in.

    Attributes
    ----------
    tensors
        The states, by their order in the slot.
    arrays
        What kernels have of each, by its name in the spec.
    counts, small
        Those that are copied: the count, if there is one, and the states with fewer values than elements.
    memory, seen
        The tensors that kernels write in place, and how they were seen: one may be given other memory without being
        another tensor.
    version
        That of the entries when the copied ones last held their tensors.
    """

    def __init__(self, slot: TensorSlot, *, counted: bool) -> None:
        found, reader = slot.arrays, TensorLibrary.reader
        small = {name: SmallState(memory(found[name]).shape) for name in found if name in slot.small}
        self.tensors = list(found.values())
        self.arrays: dict[str, Array] = {
            name: small[name].array if name in small else memory(x) for name, x in found.items()
        }
        self.counts = [SmallState(())] * counted
        self.small = list(small.values())
        self.memory = [local(x) for name, x in found.items() if name not in small]
        self.seen = [see(x, reader, alone=True) for x in self.memory]
        self.version = NEVER
        self._clock: Clock | None = None

    def hold(self, slot: TensorSlot, *, readable: bool) -> None:
        """Read the count and the small states, and from now on read and write them."""
        for count in self.counts:
            count.hold(slot.step, readable=readable)
        small = [x for name, x in slot.arrays.items() if name in slot.small]
        for each, x in zip(self.small, small, strict=True):
            each.hold(x, readable=readable)

    def join(self, clock: Clock) -> None:
        """From now on the parameter is counted by this clock."""
        if self._clock is not None:
            self._clock.whole = False
        self._clock = clock
