"""Codes: the arrays that keep states in a storage, and the numbers that they stand for.

In: the name of a storage, and codes or numbers. Out: the others, in the compute type or as the storage has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..ir.storages import STORAGES
from .storages import load, store

__all__ = ["code_dtype", "decoded", "encoded"]

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"


def code_dtype(storage: str) -> np.dtype[Any]:
    """The dtype of the codes of a storage."""
    return np.dtype(STORAGES[storage].dtypes[0])


def decoded(storage: str, codes: Array, dtype: Any) -> Array:
    """The numbers that codes stand for, in the compute type `dtype`."""
    return np.asarray(load(STORAGES[storage], (codes.view(code_dtype(storage)),)), dtype)


def encoded(storage: str, numbers: Array, random: Array | None = None) -> Array:
    """The codes of numbers in a compute type: those of float64 are rounded to float32 first. `random`: the bits by
    which each is rounded stochastically."""
    with np.errstate(all="ignore"):  # a number may be an infinity in float32
        return store(STORAGES[storage], np.asarray(numbers, np.float32, order="C"), random)[0]
