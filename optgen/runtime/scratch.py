"""Scratch: memory for values between the steps of a program, which parameters go through one after another.

In: numbers of slots, and sizes. Out: arrays of NumPy over that memory.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .addresses import address_of
from .arrays import Array

__all__ = ["LINE", "Scratch"]

#: Where an array begins: at a cache line.
LINE = 64


class Scratch:
    """Memory by the numbers of slots: `reserve` all that is needed at once, then take arrays of it."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._memory: dict[int, Array] = {}

    def reserve(self, slot: int, size: int) -> bool:
        """Make room for so many bytes; whether there was less."""
        grows = size > self._sizes.get(slot, -1)
        if grows:
            self._memory.pop(slot, None)
            self._sizes[slot] = size
        return grows

    def array(self, slot: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array in this slot."""
        memory = self._memory.get(slot)
        if memory is None:
            memory = self._memory[slot] = np.empty(self._sizes[slot] + LINE, np.uint8)
        begin = -address_of(memory) % LINE
        size = math.prod(shape) * np.dtype(dtype).itemsize
        found: Array = memory[begin : begin + size].view(dtype).reshape(shape)
        return found
