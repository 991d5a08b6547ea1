"""Addresses: where the elements of an array lie in memory.

In: arrays of NumPy. Out: addresses. Nothing here reads or writes an element.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "address_of", "array_over", "bounds", "objects_readable"]

#: Address of a first byte, and of the one behind the last.
Interval: TypeAlias = tuple[int, int]

#: Where an array has the address of its first element, behind its count of references and its type.
_DATA = 16
_CTYPES: Any = np.ndarray.ctypes.__get__


def address_of(x: NDArray[Any]) -> int:
    """The address of the first element of `x`, whatever a subclass has made of its attributes."""
    if _data_readable():
        return ctypes.c_size_t.from_address(id(x) + _DATA).value  # NumPy itself takes twenty times as long to tell
    return int(_CTYPES(x).data)


def bounds(x: NDArray[Any]) -> Interval:
    """Address of the first byte of `x`, and of the one behind its last."""
    low = high = address_of(x)
    if x.size == 0 or x.flags.c_contiguous:
        return low, low + x.nbytes
    for stride, extent in zip(x.strides, x.shape, strict=True):
        if stride < 0:
            low += stride * (extent - 1)
        else:
            high += stride * (extent - 1)
    return low, high + x.itemsize


def array_over(address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array whose first element is at an address; whatever is there must be alive as long as it is used."""
    begin = sum([min(0, stride * (n - 1)) for n, stride in zip(shape, strides, strict=True) if n > 1])
    reach = sum([abs(stride) * (n - 1) for n, stride in zip(shape, strides, strict=True) if n > 1])
    room = reach + dtype.itemsize if 0 not in shape else 0
    memory: Any = (ctypes.c_char * room).from_address(address + begin)
    return np.ndarray(shape, dtype, memory, -begin, strides)


@cache
def objects_readable() -> bool:
    """Whether the address of an object is its identity, and its head as long as CPython has it."""
    plain = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()
    return plain and ctypes.sizeof(ctypes.c_void_p) == 8


@cache
def _data_readable() -> bool:
    """Whether arrays have the address of their data where NumPy's interface for C has it."""
    whole = np.zeros((5, 7))
    arrays = [whole, whole[1:4:2, ::-1], np.zeros((), np.float32)]
    return objects_readable() and all(
        ctypes.c_size_t.from_address(id(x) + _DATA).value == int(_CTYPES(x).data) for x in arrays
    )
