"""Numbers that are hard to keep in few bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from optgen.ir.storages import Storage

__all__ = ["SCALES", "Array", "bits", "block_sample", "every_code", "hard_points"]

Array = np.ndarray[Any, np.dtype[Any]]
#: Of blocks: powers of two, others, the least and the largest.
SCALES = [1.0, 1.0625, 1.9999999, 3.7, 127.0, 2.0**-94, 1.1e-20, 3.4028234663852886e38]


def bits(x: Any) -> Array:
    return np.asarray(x, np.float32).view(np.uint32)


def hard_points() -> Array:
    """Ties, their neighbours and the ends of ranges, special values, and some of all bits."""
    rng = np.random.default_rng(0)
    exponents = np.array([0, 1, 2, 60, 88, 101, 102, 103, 104, 111, 112, 113, 114, 126, 127, 141, 142, 143, 253, 254])
    mantissas = {0, 1, 2**23 - 1}
    for dropped in (7, 8, 13, 14, 15, 16, 20, 22):
        for odd in (0, 1, 2, 3, 2 ** (23 - dropped) - 1):
            tie = (odd << dropped) + (1 << (dropped - 1))
            mantissas |= {(tie + near) % 2**23 for near in (-1, 0, 1)}
    finite = exponents[:, None] << 23 | np.array(sorted(mantissas))
    special = np.array([0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0x7FABCDEF])
    found = np.concatenate([finite.ravel(), special]).astype(np.uint32)
    every = rng.integers(0, 2**32, 30_000, np.uint32)
    return np.concatenate([found, found | np.uint32(1 << 31), every]).view(np.float32)


def block_sample(count: int, seed: int = 0) -> Array:
    """Numbers of many sizes, with blocks of special ones."""
    rng = np.random.default_rng([seed, count])
    x = (rng.standard_normal(count) * 2.0 ** rng.uniform(-40, 2, count)).astype(np.float32)
    x[rng.random(count) < 0.05] = 0.0
    x[rng.random(count) < 0.05] = -0.0
    for start in range(0, count, 256):
        here = slice(start, start + 256)
        match start // 256 % 10:
            case 1:
                x[here] *= np.float32(1e-30)
            case 2:
                x[here] = x[here] * np.float32(2.0**-110)
            case 3:
                x[start + 100 : start + 101] = np.inf
            case 4:
                x[start + 3 : start + 4] = np.nan
            case 5:
                x[here] = 0.0
            case 6:
                x[here] = rng.integers(0, 0x7F800000, x[here].size, np.uint32).view(np.float32)
            case 7:
                x[start + 7 : start + 8] = np.array([0xFF800001], np.uint32).view(np.float32)
    return x


def every_code(storage: Storage, signed: bool) -> Array:
    """The codes that a store gives, as the bytes of one block."""
    if storage.packed == 2:
        low = np.arange(64, dtype=np.uint8) % 16
        return low | low[::-1] << 4
    codes = np.arange(256, dtype=np.uint8)
    return np.where(codes == 128, 127, codes).astype(np.uint8) if storage.name == "linear8" and signed else codes
