"""The states of an optimiser: one slot a parameter, found by the memory that the parameter is, held weakly.

A parameter is a region of memory: two views of one region, even made anew for every step, are one parameter with one
state. A slot goes away with the array that owns the memory. Saved states that no parameter has taken up yet wait in
`pending`, and are taken up in order by parameters that are stepped for the first time.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from .arrays import Array
from .errors import StateError

__all__ = ["Key", "Saved", "Slot", "States", "check_saved", "fitting_slot"]

Key: TypeAlias = tuple[object, ...]
#: One parameter in a state dict: {"shape", "dtype", "t", "state": {name: array}}.
Saved: TypeAlias = Mapping[str, Any]


@dataclass(eq=False)
class Slot:
    """The state of one parameter: `t` updates so far, and an array of the parameter's shape and dtype for each name."""

    arrays: dict[str, Array]
    t: int = 0
    plans: set[Key] = field(default_factory=set)  # the plans to forget together with it

    def saved(self) -> dict[str, Any]:
        example = next(iter(self.arrays.values()), None)
        if example is None:
            return {"t": self.t, "state": {}}
        return {"t": self.t, "state": {name: array.copy() for name, array in self.arrays.items()}}


def _owner(p: Array) -> Any:
    """The object whose life is the life of the memory of `p`: the last base that can be watched."""
    while isinstance(p.base, np.ndarray):
        p = p.base
    try:
        weakref.ref(p.base)
    except TypeError:
        return p
    return p if p.base is None else p.base


def _key(p: Array, owner: object) -> Key:
    return (id(owner), p.ctypes.data, p.shape, p.strides, p.dtype.str)


class States:
    """Slots by parameter, in the order in which the parameters were first stepped."""

    def __init__(self, forget: Callable[[Slot], None]) -> None:
        self._slots: dict[Key, Slot] = {}
        self._shapes: dict[Key, tuple[tuple[int, ...], str]] = {}
        self._owners: dict[int, tuple[weakref.ref[Any], list[Key]]] = {}
        self._forget = forget
        self.pending: list[Saved] = []

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, p: Array) -> Slot | None:
        return self._slots.get(_key(p, _owner(p)))

    def add(self, p: Array, slot: Slot) -> None:
        """`slot` becomes the state of `p`, in place of one that it may have."""
        owner = _owner(p)
        key = _key(p, owner)
        old = self._slots.get(key)
        if old is not None:
            self._forget(old)
        elif id(owner) in self._owners:
            self._owners[id(owner)][1].append(key)
        else:
            self._owners[id(owner)] = (weakref.ref(owner, _Dropper(self, id(owner))), [key])
        self._slots[key] = slot
        self._shapes[key] = (p.shape, str(p.dtype))

    def drop(self, owner: int) -> None:
        """Forgets all parameters in the memory of an object that is no more."""
        for key in self._owners.pop(owner)[1]:
            self._forget(self._slots.pop(key))
            del self._shapes[key]

    def items(self) -> Iterator[tuple[tuple[int, ...], str, Slot]]:
        """Shape, dtype and slot of every parameter."""
        for key, slot in self._slots.items():
            yield (*self._shapes[key], slot)

    def saved(self) -> list[dict[str, Any]]:
        """All slots in order, and behind them what is still pending; arrays are copied."""
        live = [{"shape": shape, "dtype": dtype, **slot.saved()} for shape, dtype, slot in self.items()]
        return live + [dict(entry) for entry in self.pending]

    def copy_to(self, other: States) -> None:
        """The same parameters with copies of their slots."""
        for owner, (reference, keys) in self._owners.items():
            alive = reference()
            if alive is not None:
                other._owners[owner] = (weakref.ref(alive, _Dropper(other, owner)), list(keys))
        for key, slot in self._slots.items():
            other._slots[key] = Slot({name: array.copy("K") for name, array in slot.arrays.items()}, slot.t)
        other._shapes.update(self._shapes)
        other.pending = list(self.pending)


class _Dropper:
    """Called when an owner dies; it must not keep the states alive itself."""

    def __init__(self, states: States, owner: int) -> None:
        self.states = weakref.ref(states)
        self.owner = owner

    def __call__(self, _: object) -> None:
        states = self.states()
        if states is not None:
            states.drop(self.owner)


def fitting_slot(saved: Saved, p: Array, names: Sequence[str], which: str) -> Slot:
    """A slot for `p` from its saved form; StateError if the shape, dtype or names are others."""
    shape = tuple(saved["shape"])
    if shape != p.shape or saved["dtype"] != str(p.dtype):
        message = f"{which}: {p.shape}, {p.dtype} was expected, the saved state is of {shape}, {saved['dtype']}"
        raise StateError(message, hint="give the parameters in the order in which they were first stepped")
    slot = Slot({}, int(saved["t"]))
    for name in names:
        slot.arrays[name] = np.empty_like(p, order="K", subok=False)
        slot.arrays[name][...] = saved["state"][name]
    return slot


def check_saved(entries: object, names: Sequence[str]) -> list[Saved]:
    """The list of saved parameters, if each is one of this rule; else a StateError that says which is not."""
    if not isinstance(entries, list | tuple):
        raise StateError(f"a list of saved parameters was expected, got {type(entries).__name__}")
    for i, entry in enumerate(entries):
        which = f"saved parameter {i}"
        if not isinstance(entry, Mapping) or not {"shape", "dtype", "t", "state"} <= entry.keys():
            raise StateError(f"{which}: shape, dtype, t and state were expected")
        if not isinstance(entry["t"], int | np.integer) or entry["t"] < 0:
            raise StateError(f"{which}: a count of updates was expected as t, got {entry['t']!r}")
        if not isinstance(entry["state"], Mapping) or set(entry["state"]) != set(names):
            got = ", ".join(entry["state"]) or "none" if isinstance(entry["state"], Mapping) else "none"
            raise StateError(f"{which}: the states {', '.join(names) or 'none'} were expected, got {got}")
        for name, array in entry["state"].items():
            if not isinstance(array, np.ndarray) or array.shape != tuple(entry["shape"]):
                raise StateError(f"{which}: {name} of shape {tuple(entry['shape'])} was expected")
            if str(array.dtype) != entry["dtype"]:
                raise StateError(f"{which}: {name} in {entry['dtype']} was expected, got {array.dtype}")
    return list(entries)
