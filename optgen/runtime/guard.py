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
from operator import is_
from pathlib import Path
from typing import Any

import numpy as np

from ..frozen import frozen
from .addresses import address_of, bounds, objects_readable
from .arrays import Array

__all__ = ["NUMPY", "BoundGradients", "DictGuard", "Guard", "Head", "Reader", "lists_readable"]

_ALIGNED, _WRITEABLE = 0x0100, 0x0400  # as in NumPy's ndarraytypes.h
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
class BoundGradients:
    """Gradients as they are given, then further inputs, and the `memory` of each as an array of NumPy. `written`: the
    intervals of addresses that a step writes. `cells[i]`: the address where a kernel finds gradient i, and what is to
    be added to that of its first element. `fixed`: others are not taken in their place, also if they are laid out as
    these."""

    given: Sequence[Any]
    memory: Sequence[Array]
    written: Sequence[tuple[int, int]]
    cells: Sequence[tuple[int, int]]
    fixed: bool


class Guard:
    """The parameters of a step plan, and the layout of their gradients.

    `own[i]`: parameter i is one object; else it is known by its memory, and another array in the same place is the
    same parameter. `runtime`: the library of the runtime. Without `gradients`, `rebind` looks at the parameters alone.
    """

    def __init__(
        self,
        ps: Sequence[Any],
        own: Sequence[bool],
        runtime: Path,
        reader: Reader,
        gradients: BoundGradients | None = None,
    ) -> None:
        self._reader = reader
        self._objects = [id(p) if alone else 0 for p, alone in zip(ps, own, strict=True)]
        gradients = gradients or BoundGradients((), (), (), (), fixed=False)
        gs, self._cells, self._fixed = gradients.given, gradients.cells, gradients.fixed
        # Of each gradient, where it begins and ends, seen from its first element; and all memory that a step writes:
        # `lows` in order, and for each number of them how far the memory behind so many reaches.
        self._spans = [
            (low - at, high - at) for g in gradients.memory for at, (low, high) in [(address_of(g), bounds(g))]
        ]
        intervals = sorted(gradients.written)
        self._lows = [low for low, _ in intervals]
        self._reach = list(accumulate((high for _, high in intervals), max, initial=0))
        self.rebind: Callable[[list[Any], list[Any] | None], bool]
        if reader.readable():
            self._call = _function(runtime)
            self._remember(ps, gs)
            self.rebind = self._rebind_in_place
        else:
            self._params = [(reader.mark(p), reader.address(p), id(getattr(p, "base", None))) for p in ps]
            self._grads = list(map(reader.mark, gs))
            self._addresses = list(map(reader.address, gs))
            self.rebind = self._rebind_by_attribute

    def _remember(self, ps: Sequence[Any], gs: Sequence[Any]) -> None:
        """The tables of the runtime, which are laid out as its structs are."""
        self._extents: dict[tuple[int, ...], Array] = {}  # keeps their memory alive

        def cells(x: Any) -> list[int]:
            head = self._reader.head(x)
            kept = self._extents.setdefault(head.extents, np.array(head.extents, np.int64))
            known = [id(type(x)), head.data, head.base, head.dtype, head.more]
            return [*known, len(head.extents) // 2, address_of(kept)]

        params = [[object_, *cells(p)] for object_, p in zip(self._objects, ps, strict=True)]
        grads = [[0, *cells(g), *span, *cell] for g, span, cell in zip(gs, self._spans, self._cells, strict=True)]
        # What is known by its address stays alive, so that nothing else is found at the same place.
        self._known = {kept for x in (*ps, *gs) for kept in (x.dtype, type(x))}
        tables = [np.array(rows, np.int64) for rows in (params, grads, self._lows, self._reach)]
        addresses = [table.ctypes.data for table in tables]
        self._tables = tables
        counts = len(ps), len(gs), len(self._lows)
        self._roll = np.array([*counts, *addresses, self._fixed, self._reader.look], np.int64)
        self._address = self._roll.ctypes.data

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
            for known, was, p in zip(self._objects, self._params, params, strict=True):
                if (known and known != id(p)) or (mark(p), address(p), id(getattr(p, "base", None))) != was:
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
