"""Values of the indices of a tensor: one for each index of each dimension, those of the first dimension first.

In: arrays of float64, and a way to fold values. Out: what rows and columns come to for each index, or what indices come
to for each row and column. A row has an index of each of the outer dimensions, of which there are `outer`, and a column
one of each of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .folds import in_order

__all__ = ["beside", "by_dimension", "of_indices"]

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
Take: TypeAlias = Callable[[Any, Any], Any]


def of_indices(
    rows: Array, columns: Array, shape: tuple[int, ...], outer: int, start: float, take: Take
) -> Array:  # fmt: skip
    """Of every index what the rows with it come to, or the columns, folded in order."""
    parts = rows.reshape(shape[:outer]), columns.reshape(shape[outer:])
    return np.concatenate([in_order(_first(x, d), start, take) for x in parts for d in range(x.ndim)])


def _first(x: Array, d: int) -> Array:
    """A row of values for every index of dimension `d`."""
    return np.moveaxis(x, d, 0).reshape(x.shape[d], x.size // max(1, x.shape[d]))


def by_dimension(values: Any, shape: tuple[int, ...]) -> list[Any]:
    """The values of each dimension, along it and with length 1 along all others; also of arrays of another library."""
    own = [values[end - n : end] for n, end in zip(shape, accumulate(shape), strict=True)]
    return [x.reshape(tuple(n if i == d else 1 for i, n in enumerate(shape))) for d, x in enumerate(own)]


def beside(values: Array, shape: tuple[int, ...], outer: int, start: float, take: Take) -> tuple[Array, Array]:
    """Of every row, and of every column, what its indices come to, folded from its last dimension to its first. Both
    have as many dimensions as the tensor."""
    rank = len(shape)
    along = by_dimension(values, shape)
    rows: Array = np.full((*shape[:outer], *(1,) * (rank - outer)), start)
    columns: Array = np.full((*(1,) * outer, *shape[outer:]), start)
    for d in reversed(range(rank)):
        if d < outer:
            rows = take(rows, along[d])
        else:
            columns = take(columns, along[d])
    return rows, columns
