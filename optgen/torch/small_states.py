"""Small states: the counts, and the states of less than element extent, which lie in tensors of the caller.

In: those tensors. Out: arrays of float64 that kernels compute with; `read` before a step, `write` after it.

The tensors stay what they are, in memory shared with other processes too: they are written into, never exchanged, and
each keeps its dtype.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..runtime.arrays import Array
from ..runtime.guard import Reader
from .tensors import local

__all__ = ["SmallStates"]

#: A tensor as the runtime reads it: the object, its memory, where kernels have it, of how many values, and which.
_ROW = np.dtype([(cell, np.int64) for cell in ("object", "data", "values", "count", "wide")])


class SmallStates:
    """Room for a number of `counts`, and for states of these `shapes`: `values` are what kernels compute with.

    `runtime`: the library of the runtime. `reader`: how that looks at tensors.
    """

    def __init__(self, counts: int, shapes: Sequence[tuple[int, ...]], runtime: Path, reader: Reader) -> None:
        every = [*[()] * counts, *shapes]
        sizes = [prod(shape) for shape in every]
        whole = np.zeros(sum(sizes))
        begins = accumulate(sizes, initial=0)
        self._arrays: list[Array] = [
            whole[begin : begin + size].reshape(shape) for begin, size, shape in zip(begins, sizes, every, strict=False)
        ]
        self._counts, self.values = self._arrays[:counts], self._arrays[counts:]
        self._look = reader.look if reader.readable() else 0
        self._read, self._write = _calls(runtime)

    def hold(self, counts: Sequence[Any], states: Sequence[Any]) -> None:
        """Reads these tensors, and from now on reads and writes them."""
        tensors = [local(x) for x in (*counts, *states)]
        in_place = [self._look and _plain(x) for x in tensors]
        rows = [
            (id(x), x.data_ptr(), array.ctypes.data, array.size, x.dtype is torch.float64)
            for x, array, plain in zip(tensors, self._arrays, in_place, strict=True) if plain
        ]  # fmt: skip
        number = sum(map(bool, in_place[: len(counts)]))
        self._rows = np.array(rows, _ROW)
        self._table = np.array([len(rows), number, self._rows.ctypes.data, self._look], np.int64)
        self._address = self._table.ctypes.data
        self._tensors = tensors  # keeps them alive
        self._asked = [i for i, plain in enumerate(in_place) if not plain]
        for array, x in zip(self._arrays, tensors, strict=True):
            array[...] = _values(x)

    @property
    def counts(self) -> list[int]:
        return [int(count) for count in self._counts]

    def read(self) -> bool:
        """False if a tensor has other memory, or a count is not as it was left: then hold them anew."""
        if not self._read(self._address):
            return False
        for i in self._asked:
            found = _values(self._tensors[i])
            if i < len(self._counts) and found != self._arrays[i]:
                return False
            self._arrays[i][...] = found
        return True

    def write(self) -> None:
        """Writes the states, and each count one higher."""
        self._write(self._address)
        for i in self._asked:
            with torch.no_grad():
                x, array = self._tensors[i], self._arrays[i]
                x.copy_(torch.as_tensor(array + (i < len(self._counts))))
                array[...] = _values(x)


def _plain(x: torch.Tensor) -> bool:
    """Whether the runtime can read and write it."""
    return x.dtype in (torch.float32, torch.float64) and x.is_contiguous()


def _values(x: torch.Tensor) -> Array:
    found: Array = x.detach().double().numpy()
    return found


@cache
def _calls(runtime: Path) -> tuple[Any, Any]:
    # Unlike what is called through cffi, they keep the interpreter's lock: nobody exchanges a tensor meanwhile.
    library = ctypes.PyDLL(str(runtime))
    read, write = library.optgen_small_read, library.optgen_small_write
    read.argtypes = write.argtypes = (ctypes.c_void_p,)
    read.restype, write.restype = ctypes.c_int32, None
    return read, write
