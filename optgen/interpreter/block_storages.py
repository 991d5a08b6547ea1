"""Storages in NumPy whose neighbours share a scale.

In: values in C order, or codes and scales; whether numbers have a sign. Out: codes and scales, or the values.

The scale of a block is the largest of its sizes. Where that is less than 2⁻⁹⁴, all is 0; if there is an infinity or a
NaN, all is NaN. A code without a sign is 0 for 0 and negative numbers only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..ir.storages import Storage

__all__ = ["load_blocks", "store_blocks"]

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"

_MAGNITUDE, _SIGN = np.uint32(0x7FFFFFFF), np.uint32(31)
_NAN, _LARGEST, _SMALLEST = np.uint32(0x7FC00000), np.uint32(0x7F7FFFFF), np.uint32((127 - 94) << 23)


def load_blocks(storage: Storage, codes: Array, scales: Array, count: int, signed: bool) -> Array:
    """The `count` values that these codes and scales keep."""
    levels = storage.levels[not signed]
    codes, scale = _in_blocks(_unpacked(storage, codes, count), storage.block), scales[:, None]
    decode = _decode_log if storage.dropped else _decode_linear
    return np.asarray(decode(storage, codes.astype(np.uint32), scale, levels).reshape(-1)[:count], np.float32)


def store_blocks(storage: Storage, x: Array, random: Array | None, signed: bool) -> tuple[Array, Array]:
    """The codes and scales that keep `x`, one-dimensional."""
    levels = storage.levels[not signed]
    values = _in_blocks(x, storage.block)
    chances = None if random is None else _in_blocks(random, storage.block)
    u = values.view(np.uint32)
    scale = _scales(u)
    encode = _encode_log if storage.dropped else _encode_linear
    with np.errstate(invalid="ignore", over="ignore"):
        codes = encode(storage, values, scale, levels, chances)
    if not signed:
        codes = np.where(u >> _SIGN == 1, 0, np.maximum(codes, u > 0))
    elif storage.dropped:
        codes = codes | (u >> _SIGN).astype(np.int32) * (levels + 1)
    codes = np.where(scale > 0, codes, 0).astype(np.uint8)
    return _packed(storage, codes.reshape(-1)[: x.size]), scale[:, 0]


def _in_blocks(x: Array, block: int) -> Array:
    """One block in a row; the last one is filled up with zeros."""
    rows = -(-x.size // block)
    filled = np.zeros(rows * block, x.dtype)
    filled[: x.size] = x
    return filled.reshape(rows, block)


def _scales(u: Array) -> Array:
    """The scale of each row, in a column."""
    largest = (u & _MAGNITUDE).max(axis=1, keepdims=True, initial=0)
    usable = np.where(largest < _SMALLEST, np.uint32(0), largest)
    return np.asarray(np.where(usable > _LARGEST, _NAN, usable).view(np.float32))


# ---- Logarithmic: even steps of the bits of a float32, down from those of the scale ----


def _encode_log(storage: Storage, x: Array, scale: Array, levels: int, random: Array | None) -> Array:
    dropped = storage.dropped
    distance = scale.view(np.uint32) - (x.view(np.uint32) & _MAGNITUDE)
    added = np.uint32(1 << (dropped - 1)) if random is None else random << np.uint32(dropped - 16)
    return np.maximum(levels - (distance + added >> np.uint32(dropped)).astype(np.int32), 0)


def _decode_log(storage: Storage, codes: Array, scale: Array, levels: int) -> Array:
    level, sign = codes & np.uint32(levels), codes & np.uint32(levels + 1)
    size = scale.view(np.uint32) - ((np.uint32(levels) - level) << np.uint32(storage.dropped))
    nothing = np.where(np.isnan(scale), _NAN, np.uint32(0))
    u: Array = np.where(level > 0, size, nothing) | sign * np.uint32(2**31 // (levels + 1))
    return u.view(np.float32)


# ---- Linear: even steps up to the scale ----


def _encode_linear(storage: Storage, x: Array, scale: Array, levels: int, random: Array | None) -> Array:
    usable, most = scale > 0, np.float32(levels)
    steps = x * (most / np.where(usable, scale, np.float32(1)))
    if random is not None:  # an odd number of 2**-16, so that it is more than -1/2 and less than 1/2
        steps = steps + ((random | np.uint32(1)).astype(np.int32) - 32768).astype(np.float32) * np.float32(2.0**-16)
    return np.rint(np.where(usable, np.clip(steps, -most, most), np.float32(0))).astype(np.int32)


def _decode_linear(storage: Storage, codes: Array, scale: Array, levels: int) -> Array:
    signed = levels == storage.levels[0]
    steps = (codes.astype(np.int8) if signed else codes).astype(np.float32)
    # Of -128, which no store gives; and of 0 where the scale is infinite.
    with np.errstate(over="ignore", invalid="ignore"):
        return steps * (np.float32(1) / np.float32(levels)) * scale  # the highest level is 1 times the scale


# ---- Several codes in a byte: the first half of a block in the lower bits, the second one in the upper bits ----


def _packed(storage: Storage, codes: Array) -> Array:
    if storage.packed == 1:
        return codes
    kept = np.empty(storage.lengths(codes.size)[0], np.uint8)
    whole = codes.size // storage.block * storage.block
    low, high = _halves(codes[:whole].reshape(-1, storage.block))
    kept[: whole // 2] = (low | high << 4).reshape(-1)
    low, high = _halves(codes[None, whole:])
    kept[whole // 2 :] = low[0]
    kept[whole // 2 :][: high.size] |= high[0] << 4
    return kept


def _unpacked(storage: Storage, codes: Array, count: int) -> Array:
    if storage.packed == 1:
        return codes
    whole = count // storage.block * storage.block
    blocks, last = codes[: whole // 2].reshape(-1, storage.block // 2), codes[whole // 2 :]
    found = np.empty(count, np.uint8)
    found[:whole] = np.concatenate([blocks & 15, blocks >> 4], axis=1).reshape(-1)
    found[whole:] = np.concatenate([last & 15, last[: (count - whole) // 2] >> 4])
    return found


def _halves(rows: Array) -> tuple[Array, Array]:
    """The first has one more if a row is odd."""
    half = -(-rows.shape[1] // 2)
    return rows[:, :half], rows[:, half:]
