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
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np
import torch

from ..errors import StateError
from ..runtime.addresses import address_of
from ..runtime.arrays import Array
from ..runtime.guard import Reader, Seen, see
from .tensors import TENSORS, local

__all__ = ["SmallState", "SmallStates"]

#: What the runtime knows of a tensor beside how it was seen: where kernels have it, of how many values, and which.
_BEYOND = Struct("3q").pack


class SmallState:
    """A small state, or a count: the tensor of the caller's, and what kernels have instead, whatever list it stands in.

    Attributes
    ----------
    array
        What kernels compute with.
    tensor
        What is read and written; None before `hold`.
    row
        The tensor as the runtime reads it; empty if PyTorch must read and write it.
    seen
        How it was seen then, which keeps alive what `row` has addresses of.
    """

    __slots__ = ("array", "row", "seen", "tensor")

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.array: Array = np.zeros(shape)
        self.tensor: Any = None
        self.seen: Seen | None = None
        self.row = b""

    @property
    def keeps_shape(self) -> bool:
        """Whether the tensor, if there is one, is still of the shape that kernels know."""
        return self.tensor is None or tuple(self.tensor.shape) == self.array.shape

    def hold(self, x: torch.Tensor, *, readable: bool) -> None:
        """Read a tensor, and from now on read and write it. `readable`: whether the runtime can look at tensors."""
        x, array = local(x), self.array
        values = _values(x)
        if values.shape != array.shape:
            hint = "the states of an optimiser keep their shapes"
            raise StateError(f"expected a state of shape {array.shape}, got {tuple(values.shape)}", hint=hint)
        self.row, self.seen = b"", None
        if readable and x.dtype in (torch.float32, torch.float64) and x.is_contiguous():
            self.seen = see(x, TENSORS, alone=True)
            self.row = self.seen.row + _BEYOND(address_of(array), array.size, x.dtype is torch.float64)
        self.tensor = x
        array[...] = values


class SmallStates:
    """The counts and the small states of some parameters, which hold tensors.

    `runtime`: the library of the runtime. `reader`: how that looks at tensors.
    """

    def __init__(
        self, counts: Sequence[SmallState], states: Sequence[SmallState], runtime: Path, reader: Reader
    ) -> None:
        every = [*counts, *states]
        rows = [each.row for each in every if each.row]
        number = sum([bool(each.row) for each in counts])
        self._rows = np.frombuffer(b"".join(rows), np.uint8)
        look = reader.look if reader.readable() else 0
        self._table = np.array([len(rows), number, address_of(self._rows), look], np.int64)
        #: Where the runtime finds the tensors that it writes by itself.
        self.address = address_of(self._table)
        self._held = [(each.tensor, each.seen) for each in every]  # keeps them alive
        self._asked = [(each, i < len(counts)) for i, each in enumerate(every) if not each.row]
        self._read = _reading(runtime)

    def read(self) -> bool:
        """False if a tensor has other memory or another layout, or a count is not as it was left: then hold them
        anew."""
        if not self._read(self.address):
            return False
        for each, counts in self._asked:
            found = _values(each.tensor)
            if found.shape != each.array.shape or (counts and found != each.array):
                return False
            each.array[...] = found
        return True

    @property
    def asks(self) -> bool:
        """Whether there are tensors that PyTorch must write."""
        return bool(self._asked)

    def prepare(self, counts: bool) -> None:
        """Notes what the counts of tensors that PyTorch writes will be; `counts`: whether the step does."""
        self._then = [each.array + counts if is_count else each.array for each, is_count in self._asked]

    def finish(self) -> None:
        """Writes the tensors that the runtime did not write. May be done again."""
        with torch.no_grad():
            for (each, _), then in zip(self._asked, self._then, strict=True):
                each.tensor.copy_(torch.as_tensor(then))
                each.array[...] = _values(each.tensor)


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
