"""Random bits for stochastic rounding.

In: a seed, the count of updates, the number of a parameter and of a stream, and the numbers of elements. Out: 16 random
bits for each element.

Philox4x32-10 gives the keys, four words for each step of a parameter. With two of them, every element's number is
hashed to a word of 32 bits, by lowbias32 (Wellons 2018). A word serves two streams: its upper half is the even one. The
number of an element is that in the whole tensor, so shards and shares of work have the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .draws import philox

__all__ = ["rounding_bits", "rounding_keys"]

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"

#: The highest bit of the counter's last word: no draw of a rule has it, so no key is the word of a draw.
_KEYS = 1 << 31


def rounding_keys(seed: int, t: int, parameter: int, slab: int, stream: int) -> tuple[int, int]:
    """The two keys of a stream, for the `slab` of 2³² elements."""
    counter = (t % 2**32, t >> 32, parameter, _KEYS | stream // 4 << 24 | slab)
    words = philox(counter, (seed % 2**32, seed >> 32))
    first = stream % 4 // 2 * 2
    return int(words[first]), int(words[first + 1])


def rounding_bits(seed: int, t: int, parameter: int, stream: int, elements: Array) -> Array:
    """16 random bits, as uint32, for each of these elements of a parameter at the update `t`."""
    elements = np.asarray(elements, np.uint64)
    slabs, words = elements >> np.uint64(32), np.empty(elements.shape, np.uint32)
    for slab in np.unique(slabs):
        here = slabs == slab
        words[here] = _word(elements[here].astype(np.uint32), *rounding_keys(seed, t, parameter, int(slab), stream))
    return words & np.uint32(0xFFFF) if stream % 2 else words >> np.uint32(16)


def _word(element: Array, first: int, second: int) -> Array:
    x = element * np.uint32(0x9E3779B9) + np.uint32(first)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x += np.uint32(second)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x
