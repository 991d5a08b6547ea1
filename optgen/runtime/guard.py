"""Guards a cached step: are these the same arrays with the same layout?

In: arrays that were checked, and what a step needs of them. Out: `Guard.rebind`, called before every step: it points
the kernels at the gradients given, or refuses and changes nothing.

The head of an array says all that a kernel goes by. The runtime reads it in place, at some nanoseconds an array. Where
Python or NumPy lay objects out in another way than they have published, each attribute is asked for instead. A `Reader`
knows the arrays of one library; NumPy's is here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from operator import is_
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from ..frozen import frozen
from .addresses import address_of, bounds, objects_readable
from .arrays import Array

__all__ = [
    "NUMPY",
    "BoundGradients",
    "DictGuard",
    "Guard",
    "Head",
    "Reader",
    "Seen",
    "SeenGradient",
    "lists_readable",
    "see",
    "see_gradient",
]

_ALIGNED, _WRITEABLE = 0x0100, 0x0400  # as in NumPy's ndarraytypes.h
_HEAD = 9  # cells of 8 bytes that an array of NumPy begins with


class Head(NamedTuple):
    """What an array is, as the runtime sees it: `extents` are its shape, then its strides; `more` has whatever else
    must not change."""

    data: int
    base: int
    dtype: int
    more: int
    extents: tuple[int, ...]


@frozen
class Reader:
    """How the arrays of a library are looked at. `readable`: whether the runtime can, `look` then the address of the
    function that tells of an array, 0 for NumPy's. `head` gives what that sees, and `mark` the same as anything that
    can be compared, but for the address that `address` gives; `mark` raises AttributeError for what is no array."""

    readable: Callable[[], bool]
    look: int
    head: Callable[[Any], Head]
    mark: Callable[[Any], object]
    address: Callable[[Any], int]


class Seen(NamedTuple):
    """An array as it was seen, whatever list it stands in.

    Attributes
    ----------
    identity
        That of the object, if it is known by that; 0 if it is known by its memory, and another array in the same place
        is the same parameter.
    row
        What the runtime knows it by, as its struct is laid out; empty if the runtime cannot look at arrays.
    mark, base, address
        What it is known by then: `base` is the identity of its base, `address` that of its first element.
    kept
        What `row` has the addresses of. It stays alive, so that nothing else is found at the same place.
    """

    identity: int
    row: bytes
    mark: object
    base: int
    address: int
    kept: tuple[object, ...]


class SeenGradient(NamedTuple):
    """A gradient, or another input, as it was seen. Another one with its layout takes its place.

    Attributes
    ----------
    row, mark, address, kept
        As of any array that was seen; the row goes on with what follows.
    low, high
        Where its memory begins and ends, counted from its first element.
    offset
        What is to be added to the address of that, for the kernel.
    """

    row: bytes
    mark: object
    address: int
    kept: tuple[object, ...]
    low: int
    high: int
    offset: int


_SEEN, _BEYOND = Struct("8q").pack, Struct("4q").pack
#: The cells in the row of a gradient; that with its address, and that with where the kernel finds it.
_CELLS, _ADDRESS, _CELL = 12, 2, 10


def see(x: Any, reader: Reader, *, alone: bool = False) -> Seen:
    """An array as it is. `alone`: its memory is told by this one object."""
    identity = id(x) if alone else 0
    if not reader.readable():
        return Seen(identity, b"", reader.mark(x), id(getattr(x, "base", None)), reader.address(x), ())
    head = reader.head(x)
    extents = _kept_extents(head.extents)
    known = id(type(x)), head.data, head.base, head.dtype, head.more, len(head.extents) // 2, address_of(extents)
    return Seen(identity, _SEEN(identity, *known), None, head.base, head.data, (extents, x.dtype, type(x)))


@lru_cache(4096)  # most arrays of a model have one of a few shapes
def _kept_extents(extents: tuple[int, ...]) -> Array:
    return np.array(extents, np.int64)


def see_gradient(x: Any, memory: Array, offset: int, reader: Reader) -> SeenGradient:
    """A gradient as it is, which lies in `memory`."""
    seen, (low, high) = see(x, reader), bounds(memory)
    at = seen.address
    row = seen.row + _BEYOND(low - at, high - at, 0, offset)
    return SeenGradient(row, seen.mark, at, seen.kept, low - at, high - at, offset)


@frozen
class BoundGradients:
    """The gradients of a list, then its further inputs, and all that is written there.

    Attributes
    ----------
    given
        Each as it was seen.
    cells
        The address where a kernel finds each.
    written
        The intervals of addresses that a step writes, two numbers each.
    fixed
        Whether others are not taken in their place, also if they are laid out as these.
    bound
        Whether kernels have the addresses of these; else `rebind` must give some before the first step.
    """

    given: Sequence[SeenGradient]
    cells: Array
    written: bytes
    fixed: bool
    bound: bool


_NO_GRADIENTS = BoundGradients((), np.zeros(0, np.int64), b"", fixed=False, bound=True)


class Guard:
    """The parameters of a step plan, and the layout of their gradients.

    `runtime`: the library of the runtime. Without `gradients`, `rebind` looks at the parameters alone.
    """

    def __init__(
        self, ps: Sequence[Seen], runtime: Path, reader: Reader, gradients: BoundGradients = _NO_GRADIENTS
    ) -> None:
        self._reader = reader
        self._params, self._grads, self._cells = ps, gradients.given, gradients.cells
        self._fixed = gradients.fixed
        # All memory that a step writes: `lows` in order, and for each number of them how far the memory behind so many
        # reaches.
        lows, highs = np.frombuffer(gradients.written, np.int64).reshape(-1, 2).T
        order = np.argsort(lows, kind="stable")
        self._lows = lows[order]
        self._reach = np.concatenate(([0], np.maximum.accumulate(highs[order])))
        self.rebind: Callable[[list[Any], list[Any] | None], bool]
        if reader.readable():
            self._call = _function(runtime)
            self._remember(bound=gradients.bound)
            self.rebind = self._rebind_in_place
        else:
            self._addresses = [g.address if gradients.bound else 0 for g in self._grads]
            self.rebind = self._rebind_by_attribute

    def _remember(self, *, bound: bool) -> None:
        """The tables of the runtime, which are laid out as its structs are."""
        params = np.frombuffer(b"".join([p.row for p in self._params]), np.int64)
        grads = np.frombuffer(bytearray().join([g.row for g in self._grads]), np.int64).reshape(-1, _CELLS)
        grads[:, _CELL] = self._cells
        if not bound:
            grads[:, _ADDRESS] = 0  # where no memory is: what comes is another one
        tables = self._tables = (params, grads, self._lows, self._reach)
        counts = len(self._params), len(self._grads), len(self._lows)
        addresses = map(address_of, tables)
        self._roll = np.array([*counts, *addresses, self._fixed, self._reader.look], np.int64)
        self._address = address_of(self._roll)

    @property
    def apart(self) -> bool:
        """Whether no interval that a step writes reaches into another one."""
        return bool((self._lows >= self._reach[:-1]).all())

    def _rebind_in_place(self, params: list[Any], grads: list[Any] | None) -> bool:
        """Binds these gradients; False, with nothing changed, unless parameters and layouts are those of the plan.

        A gradient that overlaps with what a step writes is refused too.
        """
        return bool(self._call(self._address, id(params), 0 if grads is None else id(grads)))

    def _rebind_by_attribute(self, params: list[Any], grads: list[Any] | None) -> bool:
        """As `_rebind_in_place`, for lists and arrays of unknown layout."""
        given = grads or []
        if len(params) != len(self._params) or len(given) != len(self._grads):
            return False
        try:
            for was, p in zip(self._params, params, strict=True):
                if see(p, self._reader, alone=was.identity != 0) != was:
                    return False
            found = [see(g, self._reader) for g in given]
        except AttributeError:  # something else than an array
            return False
        if [g.mark for g in found] != [g.mark for g in self._grads]:
            return False
        addresses = [g.address for g in found]
        if addresses == self._addresses:
            return True
        if self._fixed:
            return False
        for at, g in zip(addresses, self._grads, strict=True):
            if self._reach[np.searchsorted(self._lows, at + g.high)] > at + g.low:
                return False
        for at, g, cell in zip(addresses, self._grads, self._cells.tolist(), strict=True):
            ctypes.c_int64.from_address(cell).value = at + g.offset
        self._addresses = addresses
        return True


@cache
def _function(runtime: Path) -> Any:
    # Unlike what is called through cffi, it keeps the interpreter's lock: nobody changes the lists meanwhile.
    function = ctypes.PyDLL(str(runtime)).optgen_roll_call
    function.argtypes = (ctypes.c_void_p,) * 3
    function.restype = ctypes.c_int32
    return function


class DictGuard:
    """The values of some dictionaries, as they are now: `same` tells whether they are still the very same objects. What
    is no dictionary counts as an empty one."""

    def __init__(self, dicts: Iterable[object], runtime: Path) -> None:
        self._kept = _values_of(dicts)
        self._table = np.array(list(map(id, self._kept)), np.int64)
        if lists_readable():
            self._call = _comparing(runtime)
            self._given = self._table.ctypes.data, len(self._kept), _NEXT
            self.same = self._read
        else:
            self.same = self._ask

    def _read(self, dicts: list[object]) -> bool:
        return bool(self._call(id(dicts), *self._given))

    def _ask(self, dicts: list[object]) -> bool:
        found = _values_of(dicts)
        return len(found) == len(self._kept) and all(map(is_, found, self._kept))


def _values_of(dicts: Iterable[object]) -> list[Any]:
    return [value for each in dicts if isinstance(each, dict) for value in each.values()]


_NEXT = ctypes.cast(ctypes.pythonapi.PyDict_Next, ctypes.c_void_p).value


@cache
def _comparing(runtime: Path) -> Any:
    function = ctypes.PyDLL(str(runtime)).optgen_roll_values
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    function.restype = ctypes.c_int32
    return function


# ---- Arrays of NumPy ----


#: The attributes of an array, whatever a subclass has made of them.
_BASE, _FLAGS, _DTYPE = np.ndarray.base.__get__, np.ndarray.flags.__get__, np.ndarray.dtype.__get__
_SHAPE, _STRIDES = np.ndarray.shape.__get__, np.ndarray.strides.__get__


def _base(x: Array) -> int:
    base = _BASE(x)
    return 0 if base is None else id(base)


def _numpy_head(x: Array) -> Head:
    flags = _FLAGS(x).num & (_ALIGNED | _WRITEABLE)
    return Head(address_of(x), _base(x), id(_DTYPE(x)), flags, (*_SHAPE(x), *_STRIDES(x)))


def _numpy_mark(x: Array) -> tuple[Any, ...]:
    if not isinstance(x, np.ndarray):
        raise AttributeError
    return type(x), _SHAPE(x), _STRIDES(x), _DTYPE(x), _FLAGS(x).aligned, _FLAGS(x).writeable


@cache
def lists_readable() -> bool:
    """Whether lists lie in memory as the runtime takes for granted."""
    if not objects_readable():
        return False
    some: list[object] = [None, 1.5, "x"]
    head = _words(id(some), 4)
    return head[1:3] == [id(list), len(some)] and _words(head[3], len(some)) == list(map(id, some))


@cache
def readable() -> bool:
    """Whether lists and arrays of NumPy lie in memory as the runtime takes for granted."""
    if not lists_readable() or np.intp().itemsize != 8:
        return False
    whole = np.zeros((5, 7, 3), np.float32)
    arrays: list[Array] = [whole, whole[1:4:2, ::-1], np.zeros((), np.float64)]
    arrays[1].flags.writeable = False
    return all(map(_is_laid_out, arrays))


def _is_laid_out(x: Array) -> bool:
    _, type_, data, rank, shape, strides, base, dtype, flags = _words(id(x), _HEAD)
    told = (type_, data, rank & 0xFFFFFFFF, base, dtype, flags & 0xFFFFFFFF)
    if told != (id(type(x)), x.ctypes.data, x.ndim, _base(x), id(x.dtype), x.flags.num):
        return False
    return (*_words(shape, x.ndim), *_words(strides, x.ndim)) == (*x.shape, *x.strides)


def _words(address: int, count: int) -> list[int]:
    found: list[int] = np.frombuffer(ctypes.string_at(address, 8 * count), np.int64).tolist() if count else []
    return found


NUMPY = Reader(lambda: readable(), 0, _numpy_head, _numpy_mark, address_of)
