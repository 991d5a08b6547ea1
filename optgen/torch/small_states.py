"""Small states: the counts, and the states of less than element extent, which lie in tensors of the caller.

In: those tensors. Out: arrays of float64 that kernels compute with; `read` before a step. The runtime writes them after
it, in the call that counts it; `finish` those that it cannot.

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
        self._read = _reading(runtime)

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

    @property
    def address(self) -> int:
        """Where the runtime finds the tensors that it writes by itself."""
        return self._address

    @property
    def asks(self) -> bool:
        """Whether there are tensors that PyTorch must write."""
        return bool(self._asked)

    def prepare(self, counts: bool) -> None:
        """Notes what the counts of tensors that PyTorch writes will be; `counts`: whether the step does."""
        self._then = {i: self._arrays[i] + counts for i in self._asked if i < len(self._counts)}

    def finish(self) -> None:
        """Writes the tensors that the runtime did not write. May be done again."""
        with torch.no_grad():
            for i in self._asked:
                x, array = self._tensors[i], self._arrays[i]
                x.copy_(torch.as_tensor(self._then.get(i, array)))
                array[...] = _values(x)


def _plain(x: torch.Tensor) -> bool:
    """Whether the runtime can read and write it."""
    return x.dtype in (torch.float32, torch.float64) and x.is_contiguous()


def _values(x: torch.Tensor) -> Array:
    found: Array = x.detach().double().numpy()
    return found


@cache
def _reading(runtime: Path) -> Any:
    # Unlike what is called through cffi, it keeps the interpreter's lock: nobody exchanges a tensor meanwhile.
    read = ctypes.PyDLL(str(runtime)).optgen_small_read
    read.argtypes = (ctypes.c_void_p,)
    read.restype = ctypes.c_int32
    return read
