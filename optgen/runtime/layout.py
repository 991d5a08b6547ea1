"""Layouts: the order and the strides in which a kernel goes over arrays, and how many values of each extent they have.

In: arrays of one shape that `arrays` has accepted. Out: a `Layout`, and counts. Nothing here writes to an array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from itertools import pairwise

from numpy.lib.stride_tricks import as_strided

from ..frozen import frozen
from ..ir.expr import Extent, Rows, varying_dimensions
from ..ir.rule import Rule
from ..paths import constant
from .arrays import Array

__all__ = ["SLAB", "Layout", "LayoutKind", "counts_of", "layout_of"]

_COUNTED = (Extent.TENSOR, Extent.MATRIX, Extent.ROW, Extent.COLUMN, Extent.ELEMENT)

#: The most elements of a small matrix; dense ones are taken several at a time.
SLAB = constant("SLAB")


class LayoutKind(IntEnum):
    """How the elements of a tensor lie, seen from the last dimension of its layout; OPTGEN_LAYOUT_* in C."""

    #: Any strides, any alignment.
    STRIDED = 0
    #: Aligned and without gaps.
    DENSE = 1
    #: Each row is a slice of the first dimension, in several pieces.
    SLICES = 2
    #: Small matrices, dense from the first to the last.
    SLABS = 3


@frozen
class Layout:
    """How a kernel goes over arrays of one shape.

    `shape`: the dimensions left after merging, the last one innermost. `by[d][a]`: the stride in bytes of array `a`
    along dimension `d`. `offsets`: bytes from the first element of each array to the first one visited. `dense`: one
    dimension, and every array aligned and without gaps; for matrices, which keep their dimensions, every row of every
    array. `slices`: the rows are slices of the first dimension. `slabs`: the matrices are small, and every array is
    dense from the first to the last.
    """

    dense: bool
    shape: tuple[int, ...]
    by: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    slices: bool = False
    slabs: bool = False

    @property
    def kind(self) -> LayoutKind:
        if self.slabs:
            return LayoutKind.SLABS
        if self.slices:
            return LayoutKind.SLICES
        return LayoutKind.DENSE if self.dense else LayoutKind.STRIDED

    def cells(self) -> list[int]:
        """The layout as the runtime reads it."""
        return [
            self.kind,
            len(self.shape),
            *self.shape,
            *(stride for row in self.by for stride in row),
        ]


def layout_of(arrays: Sequence[Array], *, ordered: bool = False, tiled: bool = False, slices: bool = False) -> Layout:
    """The layout of arrays of one shape, the first of which leads: its smallest stride becomes the innermost.

    `ordered`: elements are visited in the order of their indices instead, as reductions need. `tiled`: so they are, and
    rows and columns stay what they are. `slices`: these rows are the slices of the first dimension.
    """
    lead = arrays[0]
    if slices and lead.ndim > 2:
        flat = [_as_matrix(x) for x in arrays]
        matrices = [x for x in flat if x is not None]
        if len(matrices) == len(arrays):  # each slice lies in one piece
            return layout_of(matrices, tiled=True)
    sizes = tuple(x.itemsize for x in arrays)
    if tiled:
        by = tuple(tuple(x.strides[d] for x in arrays) for d in range(lead.ndim))
        smooth = (by[-1] == sizes or lead.shape[-1] <= 1) and all(x.flags.aligned for x in arrays)
        sliced = slices and lead.ndim > 2
        small = 0 < lead.shape[-2] * lead.shape[-1] <= SLAB and lead.size > 0 and not sliced
        slabs = small and all(x.flags.c_contiguous and x.flags.aligned for x in arrays)
        return Layout(smooth, lead.shape, by, (0,) * len(arrays), sliced, slabs)
    if all(x.flags.c_contiguous and x.flags.aligned for x in arrays):
        return Layout(True, (lead.size,), (sizes,), (0,) * len(arrays))
    offsets = [0] * len(arrays)
    dimensions: list[tuple[int, tuple[int, ...]]] = []
    for d, extent in enumerate(lead.shape):
        strides = tuple(x.strides[d] for x in arrays)
        if extent == 1:
            continue
        if strides[0] < 0 and not ordered:  # from the other end, so that a reversed array may still be dense
            offsets = [o + s * (extent - 1) for o, s in zip(offsets, strides, strict=True)]
            strides = tuple(-s for s in strides)
        dimensions.append((extent, strides))
    if not ordered:
        dimensions.sort(key=lambda dimension: -dimension[1][0])
    merged: list[tuple[int, tuple[int, ...]]] = []
    for extent, strides in dimensions:
        if merged and merged[-1][1] == tuple(s * extent for s in strides):
            merged[-1] = (merged[-1][0] * extent, strides)
        else:
            merged.append((extent, strides))
    if not merged:
        merged = [(lead.size, sizes)]
    shape, by = zip(*merged, strict=True)
    dense = len(shape) == 1 and by[0] == sizes and all(x.flags.aligned for x in arrays)
    return Layout(dense, tuple(shape), tuple(by), tuple(offsets))


def _as_matrix(x: Array) -> Array | None:
    """The same memory with a row for each slice of the first dimension; None if the elements do not lie so."""
    inner = [(n, stride) for n, stride in zip(x.shape[1:], x.strides[1:], strict=True) if n != 1]
    if any(outer[1] != n * stride for outer, (n, stride) in pairwise(inner)):
        return None
    shape = (x.shape[0], math.prod(x.shape[1:]))
    return as_strided(x, shape, (x.strides[0], inner[-1][1] if inner else x.itemsize))


def counts_of(shape: tuple[int, ...], tiled: Rule | None) -> dict[Extent, int]:
    """The number of values of each extent that a parameter has.

    `tiled`: the rule, if it knows of rows and columns; for any other, the whole tensor is one row.
    """
    rows = Rows.LAST if tiled is None else tiled.rows
    lengths = shape if tiled is not None else (1, math.prod(shape))
    return {
        extent: math.prod(lengths[d] for d in varying_dimensions(extent, len(lengths), rows)) for extent in _COUNTED
    }
