"""Random numbers of rules in another array library: the words of Philox4x32-10, in arithmetic of 32 bits.

In: which draw of a rule it is, its key, and how many elements there are. Out: a number for each of them: the same that
the interpreter draws.

All words stay below 2**32, so that libraries without whole numbers of 64 bits compute them too; where a library has
wider ones, `& LOW` cuts what a product has above.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ArrayError
from .library import Array, LibraryTable

__all__ = ["drawn"]

_LOW = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85


def drawn(
    library: LibraryTable, op: str, number: int, key: Sequence[Any], count: int, dtype: Any, bits: int, like: Array
) -> Array:
    """The numbers of a draw in `dtype`, whose significands have `bits` of the words; `key`: the seed, the count of
    updates, the parameter, as numbers or arrays."""
    if count > _LOW:
        raise ArrayError(f"random numbers are drawn for at most {_LOW} elements, got {count}")
    seed, t, parameter = (library.word(each, like) for each in key)
    counter = library.indices(count, like), library.word(0, like), t, library.word(number, like)
    first, second = _philox(library, counter, (seed, parameter), like)
    upper = library.cast(first, dtype)
    match op:
        case "rademacher":
            return library.primitives["where"](
                first >= library.word(1 << 31, like),
                library.number(-1.0, dtype, like),
                library.number(1.0, dtype, like),
            )
        case _ if bits == 24:
            whole = library.cast(first >> 8, dtype)
        case _:
            whole = upper * 2.0**20 + library.cast(second >> 12, dtype)
    if op == "uniform":
        return whole * 2.0**-bits
    size = (whole + 1.0) * 2.0 ** -(bits + 1)
    return library.primitives["where"]((second & library.word(1, like)) != library.word(0, like), -size, size)


def _philox(library: LibraryTable, counter: Sequence[Array], key: Sequence[Array], like: Array) -> tuple[Array, Array]:
    """The first two of four words."""
    a, b, c, d = counter
    first, second = key
    by, also = (library.word(each, like) for each in _MULTIPLIERS)
    low = library.word(_LOW, like)
    for _ in range(10):
        left, right = _product(by, a, library, like), _product(also, c, library, like)
        a, b, c, d = right[0] ^ b ^ first, right[1], left[0] ^ d ^ second, left[1]
        first, second = (
            word + library.word(step, like) & low for word, step in zip((first, second), _WEYL, strict=True)
        )
    return a, b


def _product(x: Array, y: Array, library: LibraryTable, like: Array) -> tuple[Array, Array]:
    """The upper and the lower word of a product of two words, made of products of half words."""
    half = library.word(0xFFFF, like)
    x0, x1, y0, y1 = x & half, x >> 16, y & half, y >> 16
    middle = x1 * y0 + (x0 * y0 >> 16)
    other = x0 * y1 + (middle & half)
    upper = x1 * y1 + (middle >> 16) + (other >> 16)
    return upper, x * y & library.word(_LOW, like)
