"""Storages in NumPy: how each row of the table is loaded and stored.

In: values of the compute type, and 16 random bits for each where rounding is stochastic; or the arrays that keep them.
Out: these arrays, as `Storage.dtypes` and `Storage.lengths` say; or the values, in float32.

All is integer operations and `+ − × ÷` in float32, so that kernels give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..ir.storages import Storage
from .block_storages import load_blocks, store_blocks

__all__ = ["load", "store"]

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"

_MAGNITUDE = np.uint32(0x7FFFFFFF)
#: float32: the bits of infinity, and those of the NaN that every NaN becomes.
_INFINITY, _NAN = np.uint32(0x7F800000), np.uint32(0x7FC00000)
_8, _10, _13, _16 = (np.uint32(bits) for bits in (8, 10, 13, 16))


def load(storage: Storage, arrays: Sequence[Array], count: int | None = None, *, signed: bool = True) -> Array:
    """The values that these arrays keep, in the shape of the first one. Of a block storage there are `count`, in one
    dimension, and they are `signed` or not."""
    if storage.block:
        codes, scales = arrays
        return load_blocks(storage, codes, scales, codes.size * storage.packed if count is None else count, signed)
    return _LOADS[storage.name](*arrays)


def store(storage: Storage, x: Array, random: Array | None = None, *, signed: bool = True) -> tuple[Array, ...]:
    """The arrays that keep `x`, each value rounded to the nearest; or stochastically, by `random`, which has 16 random
    bits as uint32 for each value. A block storage takes one dimension, and values that are `signed` or not."""
    if storage.block:
        return store_blocks(storage, x, random, signed)
    found = _STORES[storage.name](x, random)
    return found if isinstance(found, tuple) else (found,)


def _bits(x: Array) -> Array:
    """The bits of a float32, where every NaN is the same one."""
    return np.where(x != x, _NAN, np.asarray(x, np.float32).view(np.uint32))


def _real(bits: Array | np.uint32) -> Array:
    return np.asarray(bits, np.uint32).view(np.float32)


def _as_is(dtype: str) -> tuple[Callable[[Array], Array], Callable[[Array, Array | None], Array]]:
    def kept(x: Array, random: Array | None = None) -> Array:
        with np.errstate(invalid="ignore", over="ignore"):  # of float64 that float32 cannot hold
            return np.asarray(x, dtype)

    return kept, kept


# ---- bfloat16, and what is split into it and low bits ----


def _load_bfloat16(codes: Array) -> Array:
    return _real(codes.astype(np.uint32) << _16)


def _store_bfloat16(x: Array, random: Array | None) -> Array:
    u = _bits(x)
    even = np.uint32(0x7FFF) + (u >> _16 & np.uint32(1))
    # No NaN is rounded, so that none becomes an infinity.
    return ((u + np.where(x != x, np.uint32(0), even if random is None else random)) >> _16).astype(np.uint16)


def _load_bf16_8(high: Array, low: Array) -> Array:
    return _real((high.astype(np.uint32) << _16) + (low.astype(np.uint32) << _8) - np.uint32(0x8000))


def _store_bf16_8(x: Array, random: Array | None) -> tuple[Array, Array]:
    u = _bits(x) + np.uint32(0x8000) + (np.uint32(0x80) if random is None else random >> _8)
    return (u >> _16).astype(np.uint16), (u >> _8).astype(np.uint8)


def _load_bf16_16(high: Array, low: Array) -> Array:
    return _real((high.astype(np.uint32) << _16) + low.view(np.int16).astype(np.int32).view(np.uint32))


def _store_bf16_16(x: Array, random: Array | None) -> tuple[Array, Array]:
    u = _bits(x)
    return ((u + np.uint32(0x8000)) >> _16).astype(np.uint16), u.astype(np.uint16)


# ---- float16 ----

#: What the exponents of float32 and float16 differ by, in place; the bits of 2**-14, the least normal float16; and
#: those of the float16s infinity and NaN.
_REBIAS, _LEAST = np.uint32(112 << 23), np.uint32(113 << 23)
_HALF_INFINITY, _HALF_NAN = np.uint32(0x7C00), np.uint32(0x7E00)


def _load_float16(codes: Array) -> Array:
    h = codes.astype(np.uint32)
    u = (h & np.uint32(0x7FFF)) << _13
    normal = u + np.where(u >= np.uint32(31 << 23), _REBIAS + _REBIAS, _REBIAS)
    # Subnormal: behind the point of a number that begins with 2**-14, which is taken away.
    small = (_real(u | _LEAST) - _real(_LEAST)).view(np.uint32)
    return _real(np.where(u < np.uint32(1 << 23), small, normal) | (h & np.uint32(0x8000)) << _16)


def _store_float16(x: Array, random: Array | None) -> Array:
    u = np.asarray(x, np.float32).view(np.uint32)
    a = u & _MAGNITUDE
    is_small = a < _LEAST
    size = _real(np.where(is_small, a, np.uint32(0)))
    moved = a - _REBIAS
    if random is None:
        # The last bit of a number from 1/2 to 1 is 2**-24, as that of a subnormal float16.
        small = (size + np.float32(0.5)).view(np.uint32) - np.uint32(0x3F000000)
        normal = (moved + np.uint32(0xFFF) + (moved >> _13 & np.uint32(1))) >> _13
    else:
        small = ((size * np.float32(2.0**40)).astype(np.uint32) + random) >> _16
        normal = (moved + (random >> np.uint32(3))) >> _13
    h = np.minimum(np.where(is_small, small, normal), _HALF_INFINITY) | (u >> _16 & np.uint32(0x8000))
    return np.where(a > _INFINITY, _HALF_NAN, h).astype(np.uint16)


_LOADS: dict[str, Callable[..., Array]] = {
    "bfloat16": _load_bfloat16,
    "float16": _load_float16,
    "bf16+8": _load_bf16_8,
    "bf16+16": _load_bf16_16,
}
_STORES: dict[str, Callable[[Array, Array | None], Array | tuple[Array, ...]]] = {
    "bfloat16": _store_bfloat16,
    "float16": _store_float16,
    "bf16+8": _store_bf16_8,
    "bf16+16": _store_bf16_16,
}
for _name in ("float32", "float64"):
    _LOADS[_name], _STORES[_name] = _as_is(_name)
