"""Reductions in the one order that all of optgen keeps to.

In: arrays of float64, and a way to fold values. Out: arrays of what they were folded to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..ir.extents import Matrices, outer_dimensions
from ..ir.primitives import BLOCK, LANES, PANEL
from .primitives import AT_ONCE

__all__ = ["as_blocks", "as_matrices", "fold_blocks", "fold_columns", "in_order"]

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"


def as_matrices(shape: tuple[int, ...], matrices: Matrices) -> tuple[int, int, int]:
    """How many matrices there are in a shape, of how many rows and columns."""
    if outer := outer_dimensions(shape, matrices):
        return 1, int(np.prod(shape[:outer])), int(np.prod(shape[outer:]))
    return int(np.prod(shape[:-2])), shape[-2], shape[-1]


def as_blocks(x: Array, block: int, start: float) -> Array:
    """One matrix with a row for every so many values of `x`. What a short row lacks is filled with `start`, which
    changes nothing."""
    rows = np.full((-(-x.size // block), block), start)
    rows.reshape(-1)[: x.size] = x.reshape(-1)
    return rows[None]


def in_order(x: Array, start: float, take: Callable[[Any, Any], Any]) -> Array:
    """`x` folded along its second axis, from the first value to the last."""
    begin = np.full((x.shape[0], 1, *x.shape[2:]), start)
    folded: Array = AT_ONCE[take](np.concatenate([begin, x], axis=1))
    return folded


def fold_blocks(runs: Array, start: float, take: Callable[[Any, Any], Any]) -> Array:
    """Each row of `runs` folded in blocks and lanes."""
    count, length = runs.shape
    blocks = -(-length // BLOCK)
    # What a short block lacks is filled with what changes nothing.
    size = BLOCK if blocks > 1 else -(-length // LANES) * LANES
    padded = np.full((count, blocks * size), start)
    padded[:, :length] = runs
    total = in_order(padded.reshape(count * blocks, size // LANES, LANES), start, take)
    width = LANES
    while width > 1:
        width //= 2
        total = take(total[:, :width], total[:, width : 2 * width])
    return in_order(total.reshape(count, blocks), start, take)


def fold_columns(x: Array, start: float, take: Callable[[Any, Any], Any]) -> Array:
    """Each column of each matrix folded, panel by panel."""
    panels = [in_order(x[:, top : top + PANEL], start, take) for top in range(0, x.shape[1], PANEL)]
    return in_order(np.stack(panels, axis=1) if panels else x, start, take)
