"""Random numbers: the words of Philox4x32-10, and what is made of them.

In: which draw of a rule it is, its key, a shape and a dtype. Out: a number for each element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

__all__ = ["drawn", "philox"]

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"

_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def drawn(op: str, number: int, key: tuple[int, int, int], shape: tuple[int, ...], dtype: Any) -> Array:
    """The numbers of a draw, in the compute type `dtype`. `key`: the seed, the count of updates, the parameter."""
    seed, t, parameter = key
    elements = np.arange(int(np.prod(shape)), dtype=np.uint64).reshape(shape)
    words = philox((elements & _LOW, elements >> _HALF, t % 2**32, number + (t >> 32 << 8)), (seed, parameter))
    word = words[0] << _HALF | words[1]
    bits = 24 if dtype == np.float32 else 52
    upper = word >> np.uint64(64 - bits)
    match op:
        case "uniform":
            found = upper * 2.0**-bits
        case "tail":
            size = (upper + np.uint64(1)) * 2.0 ** -(bits + 1)
            found = np.where(word & np.uint64(1), -size, size)
        case _:
            found = np.where(word >> np.uint64(63), -1.0, 1.0)
    return np.asarray(found, dtype)


def philox(counter: Sequence[Any], key: Sequence[int]) -> list[Array]:
    """The four words of 32 bits that Philox4x32-10 gives for a counter of four and a key of two, as uint64."""
    a, b, c, d = (np.asarray(word, np.uint64) for word in counter)
    first, second = (np.uint64(word) for word in key)
    for _ in range(10):
        left, right = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (right >> _HALF) ^ b ^ first, right & _LOW, (left >> _HALF) ^ d ^ second, left & _LOW
        first, second = (first + np.uint64(0x9E3779B9)) & _LOW, (second + np.uint64(0xBB67AE85)) & _LOW
    return [a, b, c, d]
