"""Guards a cached step: are these the same arrays with the same layout?

In: arrays that were checked, and what a step needs of them. Out: `Guard.rebind`, called before every step: it points
the kernels at the gradients given, or refuses and changes nothing.

The head of an array says all that a kernel goes by. The runtime reads it in place, at some nanoseconds an array. Where
Python or NumPy lay objects out in another way than they have published, each attribute is asked for instead. A `Reader`
knows the arrays of one library; NumPy's is here.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import accumulate
from operator import ge, is_
from pathlib import Path
from typing import Any

import numpy as np

from ..frozen import frozen
from .addresses import address_of, objects_readable
from .arrays import Array

__all__ = ["NUMPY", "BoundGradients", "DictGuard", "Guard", "Head", "Reader", "Seen", "lists_readable", "see"]

_ALIGNED, _WRITEABLE = 0x0100, 0x0400  # as in NumPy's ndarraytypes.h
_DATA = 2  # the cell of a gradient's table with its address
_HEAD = 9  # cells of 8 bytes that an array of NumPy begins with


@frozen
class Head:
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


@frozen
class Seen:
    """An array as it was seen, in whatever list it stands.

    Attributes
    ----------
    identity
        That of the object, if it is known by that; 0 if another array in the same place is the same parameter.
    cells
        What the runtime knows it by, as its struct is laid out; if it cannot read arrays, the identity of its base.
    mark, address
        What else it is known by.
    kept
        What `cells` has the addresses of. It stays alive, so that nothing else is found at the same place.
    """

    identity: int
    cells: tuple[int, ...]
    mark: object
    address: int
    kept: tuple[object, ...]


def see(x: Any, reader: Reader, *, alone: bool = False) -> Seen:
    """An array as it is. `alone`: it is one object; else it is known by its memory."""
    identity = id(x) if alone else 0
    if not reader.readable():
        return Seen(identity, (id(getattr(x, "base", None)),), reader.mark(x), reader.address(x), ())
    head = reader.head(x)
    kept = np.array(head.extents, np.int64)
    known = (id(type(x)), head.data, head.base, head.dtype, head.more, len(head.extents) // 2, address_of(kept))
    return Seen(identity, known, None, head.data, (kept, x.dtype, type(x)))


@frozen
class BoundGradients:
    """The gradients of a plan.

    Attributes
    ----------
    seen
        Each as it was seen.
    spans
        Of each, where it begins and ends, seen from its first element.
    written
        The intervals of addresses that a step writes.
    cells
        The address where a kernel finds each, and what is to be added to that of its first element.
    fixed
        Whether others are not taken in their place, also if they are laid out as these.
    bound
        Whether kernels have the addresses of these; else `rebind` must come first.
    """

    seen: Sequence[Seen]
    spans: Sequence[tuple[int, int]]
    written: Sequence[tuple[int, int]]
    cells: Sequence[tuple[int, int]]
    fixed: bool
    bound: bool = True


class Guard:
    """The parameters of a step plan, and the layout of their gradients.

    `runtime`: the library of the runtime. Without `gradients`, `rebind` looks at the parameters alone.
    """

    def __init__(
        self, ps: Sequence[Seen], runtime: Path, reader: Reader, gradients: BoundGradients | None = None
    ) -> None:
        self._reader = reader
        gradients = gradients or BoundGradients((), (), (), (), fixed=False)
        gs, self._cells, self._fixed, self._spans = gradients.seen, gradients.cells, gradients.fixed, gradients.spans
        # All memory that a step writes: `lows` in order, and for each number of them how far the memory behind so many
        # reaches.
        intervals = sorted(gradients.written)
        self._lows = [low for low, _ in intervals]
        self._reach = list(accumulate((high for _, high in intervals), max, initial=0))
        self.rebind: Callable[[list[Any], list[Any] | None], bool]
        if reader.readable():
            self._call = _function(runtime)
            self._remember(ps, gs, bound=gradients.bound)
            self.rebind = self._rebind_in_place
        else:
            self._params, self._grads = ps, [g.mark for g in gs]
            self._addresses = [g.address if gradients.bound else 0 for g in gs]
            self.rebind = self._rebind_by_attribute

    def _remember(self, ps: Sequence[Seen], gs: Sequence[Seen], *, bound: bool) -> None:
        """The tables of the runtime, which are laid out as its structs are."""
        params = [(p.identity, *p.cells) for p in ps]
        grads = [(0, *g.cells, *span, *cell) for g, span, cell in zip(gs, self._spans, self._cells, strict=True)]
        self._known = [x.kept for x in (*ps, *gs)]
        tables = [np.array(rows, np.int64) for rows in (params, grads, self._lows, self._reach)]
        if not bound and gs:
            tables[1][:, _DATA] = 0  # so that each is looked at in whole, and bound
        addresses = [table.ctypes.data for table in tables]
        self._tables = tables
        self._roll = np.array([len(ps), len(self._lows), *addresses, self._fixed, self._reader.look], np.int64)
        self._address = self._roll.ctypes.data

    @property
    def apart(self) -> bool:
        """Whether nothing that a step writes reaches into anything else that it writes, as far as intervals tell."""
        return all(map(ge, self._lows, self._reach))

    def _rebind_in_place(self, params: list[Any], grads: list[Any] | None) -> bool:
        """Binds these gradients; False, with nothing changed, unless parameters and layouts are those of the plan.

        A gradient that overlaps with what a step writes is refused too.
        """
        return bool(self._call(self._address, id(params), 0 if grads is None else id(grads)))

    def _rebind_by_attribute(self, params: list[Any], grads: list[Any] | None) -> bool:
        """As `_rebind_in_place`, for lists and arrays of unknown layout."""
        mark, address = self._reader.mark, self._reader.address
        try:
            if list(map(mark, grads or [])) != self._grads or len(params) != len(self._params):
                return False
            for was, p in zip(self._params, params, strict=True):
                if see(p, self._reader, alone=was.identity != 0) != was:
                    return False
        except AttributeError:  # something else than an array
            return False
        addresses = list(map(address, grads or []))
        if addresses == self._addresses:
            return True
        if self._fixed:
            return False
        for at, (low, high) in zip(addresses, self._spans, strict=True):
            if self._reach[bisect_left(self._lows, at + high)] > at + low:
                return False
        for at, (cell, offset) in zip(addresses, self._cells, strict=True):
            ctypes.c_int64.from_address(cell).value = at + offset
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
