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
from ..ir.extents import Extent, Matrices, outer_dimensions, varying_dimensions
from ..ir.rule import Rule
from ..paths import constant
from .arrays import Array

__all__ = ["SLAB", "Layout", "LayoutKind", "counts_of", "layout_of"]

_COUNTED = (Extent.TENSOR, Extent.MATRIX, Extent.ROW, Extent.COLUMN, Extent.BLOCK, Extent.ELEMENT)  # by dimensions

#: The most elements of a small matrix; dense ones are taken several at a time.
SLAB = constant("SLAB")


class LayoutKind(IntEnum):
    """How the elements of a tensor lie, seen from the last dimension of its layout; OPTGEN_LAYOUT_* in C."""

    #: Any strides, any alignment.
    STRIDED = 0
    #: Aligned and without gaps.
    DENSE = 1
    #: One matrix, whose rows, or what is between them, lie in several pieces.
    PIECES = 2
    #: Small matrices or blocks, dense from the first to the last.
    SLABS = 3


@frozen
class Layout:
    """How a kernel goes over arrays of one shape.

    `shape`: the dimensions left after merging, the last one innermost. `by[d][a]`: the stride in bytes of array `a`
    along dimension `d`. `offsets`: bytes from the first element of each array to the first one visited. `dense`: one
    dimension, and every array aligned and without gaps; for matrices, which keep their dimensions, every row of every
    array. `pieces`: of one matrix, the rows or what is between them lie in several pieces. `slabs`: the matrices are
    small, and every array is dense from the first to the last.
    """

    dense: bool
    shape: tuple[int, ...]
    by: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    pieces: bool = False
    slabs: bool = False

    @property
    def kind(self) -> LayoutKind:
        if self.slabs:
            return LayoutKind.SLABS
        return LayoutKind.PIECES if self.pieces else LayoutKind.DENSE if self.dense else LayoutKind.STRIDED

    def cells(self) -> list[int]:
        """The layout as the runtime reads it."""
        return [
            self.kind,
            len(self.shape),
            *self.shape,
            *(stride for row in self.by for stride in row),
        ]


def layout_of(arrays: Sequence[Array], *, ordered: bool = False, matrices: Matrices | None = None) -> Layout:
    """The layout of arrays of one shape, the first of which leads: its smallest stride becomes the innermost.

    `ordered`: elements are visited in the order of their indices instead, as reductions need. `matrices`: so they are,
    and the rows and columns of these matrices stay what they are.
    """
    lead = arrays[0]
    outer = outer_dimensions(lead.shape, matrices) if matrices is not None and lead.ndim > 2 else 0
    if outer:
        flat = [y for x in arrays if (y := _as_matrix(x, outer)) is not None]
        if len(flat) == len(arrays):
            return layout_of(flat, matrices=Matrices.LAST_TWO)
    sizes = tuple(x.itemsize for x in arrays)
    if matrices is not None:
        by = tuple(tuple(x.strides[d] for x in arrays) for d in range(lead.ndim))
        smooth = (by[-1] == sizes or lead.shape[-1] <= 1) and all([x.flags.aligned for x in arrays])
        small = 0 < lead.shape[-2] * lead.shape[-1] <= SLAB and lead.size > 0 and not outer
        slabs = small and all([x.flags.c_contiguous and x.flags.aligned for x in arrays])
        return Layout(smooth, lead.shape, by, (0,) * len(arrays), outer > 0, slabs)
    if all([x.flags.c_contiguous and x.flags.aligned for x in arrays]):
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
    dense = len(shape) == 1 and by[0] == sizes and all([x.flags.aligned for x in arrays])
    return Layout(dense, tuple(shape), tuple(by), tuple(offsets))


def _as_matrix(x: Array, outer: int) -> Array | None:
    """The same memory as one matrix, whose rows are made of so many dimensions; None if its rows, or the elements of a
    row, do not follow each other evenly."""
    rows, columns = _merged(x, range(outer)), _merged(x, range(outer, x.ndim))
    if rows is None or columns is None:
        return None
    return as_strided(x, (rows[0], columns[0]), (rows[1], columns[1]))


def _merged(x: Array, dimensions: range) -> tuple[int, int] | None:
    """Several dimensions as one, its length and stride; None if they do not lie so."""
    kept = [(x.shape[d], x.strides[d]) for d in dimensions if x.shape[d] != 1]
    if any([outer[1] != n * stride for outer, (n, stride) in pairwise(kept)]):
        return None
    return math.prod(n for n, _ in kept), kept[-1][1] if kept else x.itemsize


def counts_of(shape: tuple[int, ...], tiled: Rule | None, block: int = 0) -> dict[Extent, int]:
    """The number of values of each extent that a parameter has.

    `tiled`: the rule, if it knows of rows and columns; for any other, the whole tensor is one row. `block`: how many
    elements a block has, if it knows of blocks, which are its rows.
    """
    if tiled is not None and block:
        size = math.prod(shape)
        rows = -(-size // block)
        return dict.fromkeys((*_COUNTED, Extent.INDEX), 1) | {
            Extent.ROW: rows, Extent.BLOCK: rows, Extent.COLUMN: block, Extent.ELEMENT: size
        }  # fmt: skip
    matrices = Matrices.LAST_TWO if tiled is None else tiled.matrices
    lengths = shape if tiled is not None else (1, math.prod(shape))
    return {Extent.INDEX: sum(shape)} | {
        extent: math.prod(lengths[d] for d in varying_dimensions(extent, lengths, matrices)) for extent in _COUNTED
    }
