"""The states of the parameters of a step plan, and the clock by which these count together.

In: slots. Out: arrays of NumPy, and before each step, whether they are still what `optimizer.state` has.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

from ..runtime.arrays import Array
from ..runtime.clock import Clock
from ..runtime.guard import DictGuard, Guard
from ..runtime.library import runtime
from .slots import NEVER, BoundSlot, TensorSlot
from .small_states import SmallStates
from .tensor_library import TensorLibrary

__all__ = ["BoundTensors", "Entries"]


class Entries:
    """What `optimizer.state` has, as it was last noted.

    Attributes
    ----------
    kept
        `optimizer.state`, set before every step.
    """

    def __init__(self) -> None:
        self.kept: dict[Any, dict[str, Any]] = {}
        self._noted: tuple[int, Any] = 0, None  # a version, and what the entries had then

    def are(self, version: int) -> bool:
        """Whether all entries have the very objects that they had in this version, one that `note` gave."""
        known, seen = self._noted
        return version == known and seen.same(list(self.kept.values()))

    def note(self) -> int:
        """Note what all entries have now: their version, which is another one after a change."""
        version, seen = self._noted
        if seen is None or not self.are(version):
            self._noted = version + 1, DictGuard(self.kept.values(), runtime().path)  # at once
        return self._noted[0]


class BoundTensors:
    """The states of the parameters of a plan, and their clock."""

    def __init__(self, entries: Entries, slots: Sequence[TensorSlot], *, counted: bool) -> None:
        self._entries, self._slots, self._counted = entries, slots, counted
        self._own: list[BoundSlot] = []
        for slot in slots:
            slot.bound = slot.bound or BoundSlot(slot, counted=counted)
            self._own.append(slot.bound)
        self.clock: Clock | None = None
        self._memory = [x for own in self._own for x in own.memory]
        self._guard = Guard([seen for own in self._own for seen in own.seen], runtime().path, TensorLibrary.reader)
        versions = {own.version for own in self._own}
        self._version = versions.pop() if len(versions) == 1 else NEVER
        self._small = None if self._version == NEVER else self._gathered()

    def _gathered(self) -> SmallStates | None:
        """What is copied of all."""
        counts = [count for own in self._own for count in own.counts]
        states = [state for own in self._own for state in own.small]
        return SmallStates(counts, states, runtime().path, TensorLibrary.reader) if counts or states else None

    def are_of(self, slots: Sequence[TensorSlot]) -> bool:
        """Whether these are the states of those slots. If they are, and other lists have changed them, the clock is no
        longer whole."""
        found = [x for slot in slots for x in slot.arrays.values()], [x for own in self._own for x in own.tensors]
        entries = [slot.kept for slot in slots], [slot.kept for slot in self._slots]
        alike = all([len(one) == len(other) and all(map(is_, one, other)) for one, other in (found, entries)])
        return alike and self.fits()

    def arrays(self, i: int, names: Sequence[str]) -> list[Array]:
        return [self._own[i].arrays[name] for name in names]

    def fits(self) -> bool:
        if not self._guard.rebind(self._memory, None):
            return False
        if self._is_current():
            return True
        kept = self._entries.kept
        if any([slot.has_entry and slot.kept is not kept.get(slot.p) for slot in self._slots]):
            return False
        found = [slot.kept.get(key) for slot in self._slots for key in slot.names.values()]
        if not all(map(is_, found, [x for own in self._own for x in own.tensors])):
            return False
        if not all([state.keeps_shape for own in self._own for state in own.small]):
            return False
        if self.clock is not None:
            self.clock.whole = False  # something else was changed, such as a count
        return True

    def _is_current(self) -> bool:
        """Whether nothing was exchanged since all was held, and no count is another."""
        small = self._small
        return self._entries.are(self._version) and (small is None or small.read())

    def restart(self) -> Clock:
        if not self._is_current():
            self._hold()
        begun = [int(own.counts[0].array) for own in self._own] if self._counted else [slot.t for slot in self._slots]
        small = self._small
        clock = Clock(begun) if small is None else Clock(begun, small.address)
        if small is not None and small.asks:
            clock.prepare, clock.finish = small.prepare, small.finish
        for own in self._own:
            own.join(clock)
        self.clock = clock
        for slot in self._slots if not self._counted else ():
            slot.t = 1  # for the next time, since states show it then
        return clock

    def _hold(self) -> None:
        readable = TensorLibrary.reader.readable()
        for own, slot in zip(self._own, self._slots, strict=True):
            own.hold(slot, readable=readable)
        version = self._entries.note()
        for own in self._own:
            own.version = version
        self._small = self._gathered()
        self._version = version  # last: an interrupt may come between
