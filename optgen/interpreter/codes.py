"""Codes: the arrays that keep states in a storage, and the numbers that they stand for.

In: the name of a storage, and codes or numbers. Out: the others, in the compute type or as the storage has them.

Where neighbours share scales, codes and scales lie in one array of bytes, as `Storage.begins` says: in the order of the
indices of elements, whatever the strides of the parameter are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..ir.storages import storage_called
from .storages import load, store

__all__ = ["code_dtype", "code_shape", "decoded", "encoded"]

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"


def code_dtype(storage: str) -> np.dtype[Any]:
    """The dtype of the codes of a storage."""
    return np.dtype(storage_called(storage).dtypes[0])


def code_shape(storage: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the array that keeps a state of this shape."""
    row = storage_called(storage)
    return (row.begins(int(np.prod(shape)))[1],) if row.block else shape


def decoded(storage: str, codes: Array, dtype: Any, shape: tuple[int, ...]) -> Array:
    """The numbers of this shape that codes stand for, in the compute type `dtype`."""
    row = storage_called(storage)
    if not row.block:
        return np.asarray(load(row, (codes.view(code_dtype(storage)),)), dtype)
    count = int(np.prod(shape))
    at, end = row.begins(count)
    arrays = codes[: row.lengths(count)[0]], codes[at:end].view(np.float32)
    return np.asarray(load(row, arrays, count, signed=row.signed).reshape(shape), dtype)


def encoded(storage: str, numbers: Array, random: Array | None = None) -> Array:
    """The codes of numbers in a compute type: those of float64 are rounded to float32 first. `random`: the bits by
    which each is rounded stochastically."""
    row = storage_called(storage)
    with np.errstate(all="ignore"):  # a number may be an infinity in float32
        x = np.asarray(numbers, np.float32, order="C")
        if not row.block:
            return store(row, x, random)[0]
        codes, scales = store(row, x.reshape(-1), None if random is None else random.reshape(-1), signed=row.signed)
    at, end = row.begins(x.size)
    kept = np.zeros(end, np.uint8)
    kept[: codes.size] = codes
    kept[at:].view(np.float32)[...] = scales
    return kept
