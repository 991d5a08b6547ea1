"""The states of an optimiser: one slot a parameter, found by the memory that the parameter is, held weakly.

A parameter is a place in the memory of its owner, the object that memory lives and dies with: two views of one place,
even made anew for every step, are one parameter with one state, which goes away with the owner. Saved states that no
parameter has taken up yet wait in `pending`, and are taken up in order by parameters that are stepped for the first
time.
"""

from __future__ import annotations

import numbers
import operator
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from typing import Any, TypeAlias

import numpy as np

from .. import interpreter as interp
from ..errors import ArrayError, StateError, shown
from ..interpreter.codes import decoded
from ..ir.evaluate import HyperValues
from ..ir.expr import Extent
from ..ir.rule import Rule, Storages
from ..runtime.arrays import COMPUTE, Array, compute_type, storage_of
from ..runtime.members import Member
from ..runtime.shapes import own_shapes
from ..runtime.slots import BoundSlots, Key, Shapes, Slot, array_at, key_of, keys_of, owner_of
from .checkpoint import listed, scalar
from .saved_storages import STORAGES_KEY, entry_storages, in_storage, read_storages, saved_form
from .settings import Settings

__all__ = [
    "MOST_UPDATES", "States", "expect_fit", "expect_number", "new_slot", "read_count", "read_saved", "read_state",
]  # fmt: skip

#: Counts are exact in float64, in which the scalars of a step are computed.
MOST_UPDATES = 2**53
#: More than any memory has.
MOST_ELEMENTS = 2**62


class States:
    """Slots by parameter, in the order in which the parameters were first stepped.

    `forget` is called with each slot that goes away. Whatever allocates memory may run the garbage collector, and with
    it `_drop`: nothing here goes over a dictionary that may change meanwhile.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._slots: dict[Key, Slot] = {}
        self._owners: dict[int, tuple[weakref.ref[Any], list[Key]]] = {}
        self.forget: Callable[[Slot], None] = lambda _: None
        self.pending: list[Slot] = []
        self.group: dict[str, Array] = {}  # states of all parameters together

    def __len__(self) -> int:
        return len(self._slots)

    def of(self, p: Array) -> Slot | None:
        """The slot of a parameter, if it has one."""
        return self._slots.get(key_of(p, owner_of(p)))

    def slots(self) -> list[Slot]:
        return list(self._slots.values())

    def parameters(self) -> list[tuple[Any, Array, Slot]]:
        """All parameters with their slots; and with each its owner, to be kept as long as the array is used."""
        found = []
        for key, slot in self._slots.copy().items():
            owner = self._owners[key[0]][0]() if key[0] in self._owners else None
            if owner is not None:
                found.append((owner, array_at(key), slot))
        return found

    # ---- What the step engine asks for ----

    by_identity = False  # views of one place are one parameter, which `find` knows

    def find(
        self, given: Sequence[Any], ps: Sequence[Array], rules: Sequence[Rule], places: Sequence[int]
    ) -> list[Slot | None]:
        """The slot of each parameter, or the pending one that it will take up; None for one that was never stepped."""
        found = [self._slots.get(key) for key in keys_of(ps)]
        if self._settings.rule.grouped:
            self._expect_group(found)
        pending = iter(self.pending)
        for i, p in enumerate(ps):
            if found[i] is None and (saved := next(pending, None)) is not None:
                expect_fit(saved, p.shape, str(p.dtype), i)
                found[i] = saved
        return found

    def _expect_group(self, found: Sequence[Slot | None]) -> None:
        """ArrayError unless all parameters of before are here: a value of the group is of all of them or wrong."""
        name = self._settings.rule.name
        if not found:
            message = f"{name} reduces over all parameters of a step: expected at least one, got none"
            raise ArrayError(message, hint="give all parameters in one step")
        here = {id(slot) for slot in found if slot}
        absent = sum(id(slot) not in here for slot in self.slots())
        absent += max(0, len(self.pending) - found.count(None))  # loaded, and not taken up by this step
        if absent:
            count = len(self) + len(self.pending)
            message = f"{name} reduces over all parameters: expected the {count} of before, got all but {absent}"
            raise ArrayError(message, hint="step them together, with a gradient of zeros where there is none")

    def has_begun(self, slot: Slot | None) -> bool:
        return slot is not None

    def ordinals(self, found: Sequence[Slot | None]) -> list[int]:
        new = count(self.next_ordinal)
        return [next(new) if slot is None else -1 for slot in found]  # others have begun

    @property
    def next_ordinal(self) -> int:
        """Which parameter the next new one will be."""
        return len(self._slots) + len(self.pending)

    def begin(self, slot: Slot | None, given: Any, p: Array, rule: Rule, values: HyperValues, ordinal: int) -> Slot:
        storages = self._settings.storages(0, rule)
        if slot is None:
            return new_slot(p, rule, values, ordinal, storages)
        # A pending one is laid out.
        return self.of(p) or Slot.of(p, slot.arrays, own_shapes(rule, values, p.shape), storages).take(slot)

    def registration(self, members: Sequence[Member]) -> tuple[Callable[[], None], Callable[[], None]]:
        new = [member for member in members if self.of(member.p.memory) is None]
        pending = self.pending

        def keep() -> None:
            for member in new:
                slot: Any = member.slot
                self.add(member.p.memory, slot)
            self.pending = pending[len(new) :]

        def take_back() -> None:
            for member in new:
                self._remove(member.p.memory)
            self.pending = pending

        return keep, take_back

    def bound(self, slots: Sequence[Slot]) -> BoundSlots:
        return BoundSlots(slots)

    def has_others(self, slots: Collection[Slot]) -> bool:
        return len(slots) < len(self._slots) + len(self.pending)

    # ---- Parameters come and go ----

    def add(self, p: Array, slot: Slot) -> None:
        """`slot` becomes the state of `p`, which has none."""
        owner = owner_of(p)
        self._add(owner, key_of(p, owner), slot)

    def _add(self, owner: Any, key: Key, slot: Slot) -> None:
        if id(owner) not in self._owners:
            self._owners[id(owner)] = (weakref.ref(owner, _Dropper(self, id(owner))), [])
        self._owners[id(owner)][1].append(key)
        self._slots[key] = slot

    def _drop(self, owner: int) -> None:
        """Forgets all parameters in the memory of an object that is no more."""
        for key in self._owners.pop(owner)[1]:
            slot = self._slots.pop(key, None)
            if slot is not None:
                self.forget(slot)

    def _remove(self, p: Array) -> None:
        """Forgets one parameter, as far as it was added."""
        owner = owner_of(p)
        key = key_of(p, owner)
        self._slots.pop(key, None)
        _, keys = self._owners.get(id(owner), (None, []))
        if key in keys:
            keys.remove(key)
        if not keys:
            self._owners.pop(id(owner), None)

    def saved(self) -> list[dict[str, Any]]:
        """All slots in order, and behind them what is still pending; arrays are copied."""
        return [slot.saved() | entry_storages(slot.storages) for slot in (*self.slots(), *self.pending)]

    def copy_to(self, other: States) -> None:
        """The same parameters with copies of their slots."""
        for key, slot in self._slots.copy().items():
            owner = self._owners[key[0]][0]() if key[0] in self._owners else None
            if owner is not None:
                other._add(owner, key, slot.copy())
        other.pending = self.pending.copy()  # nothing writes to these slots
        other.group = {name: array.copy() for name, array in self.group.items()}


def new_slot(p: Array, rule: Rule, values: HyperValues, ordinal: int, storages: Storages) -> Slot:
    """The slot of a parameter that was never stepped, with these hyperparameters in its first step."""
    kept = storage_of(p.dtype)
    numbers = decoded(kept, p, compute_type(p.dtype), p.shape) if kept else p
    initial = interp.initial_state(rule, values, numbers, ordinal)
    own = [state.name for state in rule.states if state.extent > Extent.GROUP]
    slot = Slot.of(p, own, own_shapes(rule, values, p.shape), storages)
    for name in own:
        slot.put(name, initial[name])
    return slot


class _Dropper:
    """Called when an owner dies; it must not keep the states alive itself."""

    def __init__(self, states: States, owner: int) -> None:
        self.states = weakref.ref(states)
        self.owner = owner

    def __call__(self, _: object) -> None:
        states = self.states()
        if states is not None:
            states._drop(self.owner)


# ---- Saved states ----


def expect_number(saved: int, present: int) -> None:
    """StateError unless there are as many saved parameters as present ones."""
    if saved != present:
        raise StateError(f"expected saved states of {present} parameters, got {saved}")


def expect_fit(saved: Slot, shape: tuple[int, ...], dtype: str, which: int) -> None:
    """StateError unless `saved` is of this shape and dtype, those of parameter `which`."""
    if (saved.shape, saved.dtype) != (shape, dtype):
        expected, got = f"{shape}, {dtype}", f"{saved.shape}, {saved.dtype}"
        hint = "give the parameters in the order in which they were first stepped"
        raise StateError(f"parameter {which}: expected a saved state of {expected}, got {got}", hint=hint)


Fields: TypeAlias = Callable[[tuple[int, ...]], tuple[Sequence[str], Shapes, Storages]]


def read_saved(entries: object, fields: Fields, *, convert: bool) -> list[Slot]:
    """The saved parameters of a state dict, with copies of their arrays; a StateError says which is not one.

    `fields` gives the names of the states of a parameter of some shape, the shapes of those that are small, and the
    storages of others. An entry has "shape", "dtype", the count "t", and "state": for each name an array, of that shape
    and dtype if it is not small, or of codes if it is among its "storages". Other storages than those that `fields`
    gives are an error, unless they may be converted.
    """
    if not isinstance(entries, list | tuple):
        raise StateError(f"expected a list of saved parameters, got {type(entries).__name__}")
    return [_read_entry(entry, fields, f"saved parameter {i}", convert=convert) for i, entry in enumerate(entries)]


def read_count(where: str, given: object) -> int:
    """A count of updates; StateError for what is none. `where`: how the message begins."""
    try:
        t = operator.index(given)  # type: ignore[arg-type]  # which raises
    except TypeError:
        t = -1
    if not 0 <= t <= MOST_UPDATES:
        raise StateError(f"{where}expected a count of updates as t, got {shown(given)}")
    return t


def read_state(name: str, given: object, kept: Array) -> Array:
    """A copy of what takes the place of a state; StateError unless it is of the same shape and dtype, or a number for a
    single one."""
    if isinstance(given, np.generic):  # what comes of arithmetic with an array of one number
        given = np.asarray(given)
    elif kept.shape == () and isinstance(given, numbers.Real) and not isinstance(given, bool):
        given = np.array(float(given))
    _expect_array("", name, given, kept.shape, str(kept.dtype))
    return np.array(given)


def _expect_array(where: str, name: str, given: object, shape: tuple[int, ...], dtype: str) -> None:
    expected = f"{where}expected {name} as an array of {shape}, {dtype}"
    if not isinstance(given, np.ndarray):
        raise StateError(f"{expected}, got {type(given).__name__}")
    if (given.shape, str(given.dtype)) != (shape, dtype):
        raise StateError(f"{expected}, got {given.shape}, {given.dtype}")


def _read_entry(entry: object, fields: Fields, which: str, *, convert: bool) -> Slot:
    if not isinstance(entry, Mapping) or not {"shape", "dtype", "t", "state"} <= entry.keys():
        got = listed(entry) if isinstance(entry, Mapping) else shown(entry)
        raise StateError(f"{which}: expected shape, dtype, t and state, got {got}")
    state, dtype = entry["state"], scalar(entry["dtype"])
    if not isinstance(dtype, str) or dtype not in COMPUTE:
        raise StateError(f"{which}: expected one of {', '.join(COMPUTE)} as dtype, got {shown(dtype)}")
    try:
        shape = tuple(map(operator.index, entry["shape"]))
    except TypeError:
        shape = (-1,)
    if not all(0 <= size < MOST_ELEMENTS for size in shape):
        raise StateError(f"{which}: expected a tuple of numbers as shape, got {shown(entry['shape'])}")
    t = read_count(f"{which}: ", entry["t"])
    names, shapes, storages = fields(shape)
    kept, wanted = read_storages(which, entry.get(STORAGES_KEY, {})), dict(storages)
    if not isinstance(state, Mapping) or set(state) != set(names):
        message = f"{which}: expected the states {listed(tuple(names))}, got {listed(state)}"
        raise StateError(message)
    arrays, own = {}, COMPUTE[dtype]
    for name in names:
        of = saved_form(kept.get(name), shape, own)
        if name in shapes:
            of = shapes[name].shape, shapes[name].dtype(own)
        _expect_array(f"{which}: ", name, state[name], *of)
        try:
            arrays[name] = in_storage(name, state[name], kept.get(name), wanted.get(name), own, shape, convert=convert)
        except StateError as error:
            raise StateError(f"{which}: {error.message}", hint=error.hint) from None
    return Slot(shape, dtype, t, arrays, storages)
