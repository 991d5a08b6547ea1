"""Slots: the state of one parameter, found by the memory that the parameter is.

In: arrays of NumPy. Out: a `Slot` for each, with its count of updates and its state arrays; and the key that finds it.
A parameter is a place in the memory of its owner, the object that memory lives and dies with: two views of one place
are one parameter.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from operator import is_
from typing import Any, TypeAlias

import numpy as np

from ..errors import ArrayError
from ..interpreter.codes import code_dtype, code_shape, decoded, encoded
from ..ir.rule import Storages
from .addresses import address_of, array_over
from .arrays import COMPUTE, Array, compute_type, empty_beside
from .clock import Clock
from .shapes import OwnShape

__all__ = ["BoundSlots", "Key", "Shapes", "Slot", "array_at", "key_of", "keys_of", "owner_of"]

Key: TypeAlias = tuple[Any, ...]
#: The states that are not like the parameter, and the shapes that they have.
Shapes: TypeAlias = Mapping[str, OwnShape]


class BoundSlots:
    """The slots of a plan; `clock` counts the steps that they take together, once and not slot by slot."""

    __slots__ = ("_slots", "clock")

    fits = None  # slots have the same arrays for life

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self.clock: Clock | None = None

    def are_of(self, slots: Sequence[Slot]) -> bool:
        return len(slots) == len(self._slots) and all(map(is_, slots, self._slots))

    def arrays(self, i: int, names: Sequence[str]) -> list[Array]:
        return [self._slots[i].arrays[name] for name in names]

    def restart(self) -> Clock:
        clock = Clock([slot.t for slot in self._slots])
        for slot in self._slots:
            slot.join(clock)
        self.clock = clock
        return clock


class Slot:
    """The state of one parameter: its shape and dtype, `t` updates so far, and an array for each name: one like the
    parameter, of codes where it is among the `storages`, or of float64 where there is not a value for each element."""

    __slots__ = ("__weakref__", "_count", "arrays", "aside", "dtype", "known_as", "plans", "shape", "storages")

    def __init__(
        self, shape: tuple[int, ...], dtype: str, t: int, arrays: dict[str, Array], storages: Storages = ()
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.arrays = arrays
        self.storages = storages
        #: The parameter as it is trained, while it has other values to be evaluated with.
        self.aside: Array | None = None
        self.plans: set[int] = set()  # the numbers of plans to forget together with it
        self.known_as = 0  # the identity by which its parameter is known
        self._count: tuple[int, Clock | None] = t, None

    @property
    def owner(self) -> Slot:
        """What the parameter is known by."""
        return self

    @property
    def t(self) -> int:
        t, clock = self._count
        return t if clock is None else t + clock.n

    @t.setter
    def t(self, t: int) -> None:
        _, before = self._count
        if before is not None:
            before.whole = False
        self._count = t, None

    def join(self, clock: Clock) -> None:
        """From now on `t` grows with this clock, which has counted nothing yet."""
        t, before = self._count
        if before is not None:
            before.whole = False
            t += before.n
        self._count = t, clock

    @classmethod
    def of(cls, p: Array, names: Iterable[str], shapes: Shapes, storages: Storages = ()) -> Slot:
        """A slot for `p` that has never been stepped, with anything as its states: for each name an array laid out as
        `p` is, or of the shape and type that `shapes` gives."""
        kept, own = dict(storages), np.dtype(compute_type(p.dtype))

        def empty(name: str) -> Array:
            if name in shapes:
                return np.empty(shapes[name].shape, shapes[name].dtype(str(own)))
            storage = kept.get(name)
            shape = code_shape(storage, p.shape) if storage else p.shape
            if storage and shape != p.shape:
                return np.zeros(shape, code_dtype(storage))
            return empty_beside(p, code_dtype(storage) if storage else own)

        return cls(p.shape, str(p.dtype), 0, {name: empty(name) for name in names}, storages)

    def put(self, name: str, value: Any) -> None:
        """Set a state to a number, or to an array of its shape."""
        array, storage = self.arrays[name], dict(self.storages).get(name)
        with np.errstate(all="ignore"):  # a number may be an infinity in float32
            array[...] = encoded(storage, np.broadcast_to(value, self.shape)) if storage else value

    def take(self, other: Slot) -> Slot:
        """Take over the count and the states of another slot, which are in the same storages; gives this one."""
        self.t = other.t
        for name, array in self.arrays.items():
            array[...] = other.arrays[name]
        return self

    @property
    def numbers(self) -> dict[str, Array]:
        """The states as numbers: the arrays themselves, or what their codes stand for."""
        return self.arrays | {
            name: decoded(storage, self.arrays[name], self.compute, self.shape) for name, storage in self.storages
        }

    @property
    def compute(self) -> str:
        """The compute type."""
        return COMPUTE[self.dtype]

    def copy(self) -> Slot:
        arrays = {name: array.copy("K") for name, array in self.arrays.items()}
        return Slot(self.shape, self.dtype, self.t, arrays, self.storages)

    def saved(self) -> dict[str, Any]:
        """The slot as it stands in a state dict; arrays are copied."""
        state = {name: array.copy() for name, array in self.arrays.items()}
        return {"shape": self.shape, "dtype": self.dtype, "t": self.t, "state": state}


#: The base of an array, whatever a class derived from that of arrays calls so.
_array_base = np.ndarray.base.__get__


def owner_of(p: Array) -> Any:
    """The object whose life is the life of the memory of `p`: the last of its bases that can be watched."""
    owner: Any = p
    passed: list[Any] = []  # neither arrays nor views of memory: they may call anything their base, even themselves
    while True:
        base: Any
        if type(owner) is np.ndarray:
            base = owner.base
        elif isinstance(owner, np.ndarray):
            base = _array_base(owner)
        elif isinstance(owner, memoryview):
            base = owner.obj
        elif any([owner is other for other in passed]):
            return owner
        else:
            passed.append(owner)
            base = getattr(owner, "base", None)
        if base is None:
            return owner
        try:
            weakref.ref(base)
        except TypeError:
            return owner
        owner = base


def key_of(p: Array, owner: object) -> Key:
    return (id(owner), address_of(p), p.shape, p.strides, p.dtype)


def array_at(key: Key) -> Array:
    """The parameter that is found by this key, whose owner must be alive."""
    _, address, shape, strides, dtype = key
    return array_over(address, shape, strides, dtype)


def keys_of(ps: Sequence[Array]) -> list[Key]:
    """What each parameter is found by; ArrayError if two are the same."""
    keys = [key_of(p, owner_of(p)) for p in ps]
    first: dict[Key, int] = {}
    for i, key in enumerate(keys):
        if first.setdefault(key, i) != i:
            message = f"expected each parameter once, got one array as parameter {first[key]} and parameter {i}"
            raise ArrayError(message, hint="leave the second one out")
    return keys
