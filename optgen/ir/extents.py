"""Extents: what a value varies with; and the dimensions of matrices.

In: nothing. Out: values that are compared and joined.

    extent   = CONSTANT < STEP < GROUP < TENSOR < MATRIX < ROW, COLUMN, INDEX < ELEMENT; TENSOR < BLOCK < ELEMENT
    dims     = Dims(rows, columns)          of a matrix, by the symbols of its dimensions

An extent is the set of what a value varies with; that of what is made of several values is the union of theirs.
"""

from __future__ import annotations

import math
from enum import Enum, StrEnum

from ..frozen import frozen

__all__ = [
    "IDENTITY", "Dims", "Extent", "Matrices", "default_dims", "join", "join_dims", "outer_dimensions", "varies_within",
    "varying_dimensions",
]  # fmt: skip


class Extent(Enum):
    """What a value varies with, as a set; `<` and `<=` are inclusion, so rows, columns and blocks are unordered.

    CONSTANT: nothing but the hyperparameters. STEP: one value a step. GROUP: one for all tensors of a step. TENSOR: one
    for each tensor. MATRIX: one for each matrix of the last two dimensions. ROW, COLUMN: one for each row or column of
    such a matrix. INDEX: one for each index of each dimension of a tensor, those of the first dimension first; an
    element belongs to as many as there are dimensions. BLOCK: one for so many neighbouring elements of a tensor, in the
    order of their indices. ELEMENT: one for each element.
    """

    CONSTANT = frozenset[str]()
    STEP = CONSTANT | {"step"}
    GROUP = STEP | {"group"}
    TENSOR = GROUP | {"tensor"}
    MATRIX = TENSOR | {"matrix"}
    ROW = MATRIX | {"row"}
    COLUMN = MATRIX | {"column"}
    INDEX = MATRIX | {"index"}
    BLOCK = TENSOR | {"block"}
    ELEMENT = ROW | COLUMN | INDEX | BLOCK

    def __repr__(self) -> str:
        return f"Extent.{self.name}"

    # By name: a set of text has another order in each process, and what is built must have the same bytes.
    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        return getattr, (Extent, self.name)

    def __le__(self, other: Extent) -> bool:
        return self._value_ <= other._value_

    def __lt__(self, other: Extent) -> bool:
        return self._value_ < other._value_

    def __ge__(self, other: Extent) -> bool:
        return self._value_ >= other._value_

    def __gt__(self, other: Extent) -> bool:
        return self._value_ > other._value_

    @property
    def words(self) -> str:
        """What has one value of this extent, for messages."""
        return _WORDS[self]


_WORDS = {
    Extent.CONSTANT: "a constant",
    Extent.STEP: "one value a step",
    Extent.GROUP: "one value for all parameters (group)",
    Extent.TENSOR: "one value for each parameter (tensor)",
    Extent.MATRIX: "one value for each matrix (matrix)",
    Extent.ROW: "one value for each row (row)",
    Extent.COLUMN: "one value for each column (column)",
    Extent.INDEX: "one value for each index of each dimension (index)",
    Extent.BLOCK: "one value for each block (block)",
    Extent.ELEMENT: "one value for each element (element)",
}


_NOTHING = Extent.CONSTANT.value
_UNIONS = {extent.value: extent for extent in Extent}


def join(*extents: Extent) -> Extent:
    """The least extent that includes all of these; of none, CONSTANT."""
    return _UNIONS.get(_NOTHING.union(*[extent._value_ for extent in extents]), Extent.ELEMENT)


def varies_within(extent: Extent, over: Extent) -> bool:
    """Whether values of this extent, more than one of them, are what a reduction over `over` can take."""
    return Extent.GROUP <= over < extent


class Matrices(StrEnum):
    """How a parameter of more than two dimensions is seen as matrices: which dimensions are rows "by" columns.

    Of the shape `(a, b, c, d)`, LAST_TWO makes `a*b` matrices of `c` by `d`, FIRST_BY_REST one of `a` by `b*c*d`, and
    ALL_BUT_LAST one of `a*b*c` by `d`. FEWEST makes one that has as few rows and columns together as any that has
    the first dimensions as rows: it is for rules of indices, which do not say what a row is.
    """

    LAST_TWO = "last two"
    FIRST_BY_REST = "first by rest"
    ALL_BUT_LAST = "all but last by last"
    FEWEST = "fewest rows and columns"


def outer_dimensions(shape: tuple[int, ...], matrices: Matrices) -> int:
    """How many dimensions of a shape make the rows of its one matrix; 0 if it may have several matrices."""
    rank = len(shape)
    if matrices == Matrices.FEWEST:
        return min(range(1, rank), key=lambda k: math.prod(shape[:k]) + math.prod(shape[k:]))
    return {Matrices.FIRST_BY_REST: 1, Matrices.ALL_BUT_LAST: rank - 1}.get(matrices, 0)


def varying_dimensions(
    extent: Extent, shape: tuple[int, ...], matrices: Matrices = Matrices.LAST_TWO
) -> frozenset[int]:
    """The dimensions of a parameter along which values of an extent vary; along all others there is one value. Those of
    blocks and indices have a dimension of their own, and vary along none of these.

    The one source of how many rows, columns and matrices there are. `shape`: of two dimensions or more, where the
    extent is one of these three.
    """
    if extent <= Extent.TENSOR or extent in (Extent.INDEX, Extent.BLOCK):
        return frozenset()
    rank, outer = len(shape), outer_dimensions(shape, matrices)
    row, column = ({*range(outer)}, {*range(outer, rank)}) if outer else ({rank - 2}, {rank - 1})
    fixed = {Extent.MATRIX: row | column, Extent.ROW: column, Extent.COLUMN: row}.get(extent, set())
    return frozenset(range(rank)) - fixed


@frozen
class Dims:
    """The dimensions of a matrix by their symbols: "row" and "column" of the parameter, or a name that the rule gives
    to a size. An empty one has length 1.

    Equal symbols are equal lengths, and equal lengths alone mean nothing: a square matrix hides no fault.
    """

    rows: str
    columns: str

    @property
    def transposed(self) -> Dims:
        return Dims(self.columns, self.rows)

    @property
    def square(self) -> bool:
        return self.rows == self.columns

    @property
    def extent(self) -> Extent:
        """The extent of a value of these dimensions."""
        if self.rows and self.columns:
            return Extent.ELEMENT
        return Extent.ROW if self.rows else Extent.COLUMN if self.columns else Extent.MATRIX

    @property
    def words(self) -> str:
        """`row by column`, for messages."""
        return f"{self.rows or 1} by {self.columns or 1}"


#: Those of an identity that takes its size from where it stands.
IDENTITY = Dims("I", "I")
_DIMS = {Extent.ELEMENT: Dims("row", "column"), Extent.ROW: Dims("row", ""), Extent.COLUMN: Dims("", "column")}
_ONE = Dims("", "")


def default_dims(extent: Extent) -> Dims:
    """The dimensions of a value that is like the parameter in those in which it varies."""
    return _DIMS.get(extent, _ONE)


def join_dims(a: Dims, b: Dims) -> Dims | None:
    """The dimensions of what is made of two values, element by element; None if they do not fit."""
    if a == IDENTITY or b == IDENTITY:
        other = b if a == IDENTITY else a
        return IDENTITY if other == _ONE else other if other.square else None
    fits = all(not x or not y or x == y for x, y in ((a.rows, b.rows), (a.columns, b.columns)))
    return Dims(a.rows or b.rows, a.columns or b.columns) if fits else None
