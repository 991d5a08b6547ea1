"""Places: where the C of a step keeps each value of less than element extent.

In: the sweeps of a rule. Out: for each value its place as typed data, which knows its own expression of C and what that
expression needs to have been declared.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TypeAlias

from ..frozen import frozen
from ..ir.expr import Expr, Extent, Load, Local, Reduce, Shape, Size
from ..lowering.stages import in_place
from ..lowering.work import Sweeps, group_names, load_name

__all__ = [
    "ALL_INDICES",
    "INDEX",
    "KEPT",
    "Base",
    "Kept",
    "KeptArray",
    "Need",
    "Place",
    "Places",
    "Ratio",
    "ShapeEntry",
    "SlotPlace",
    "is_down",
]


class Base(Enum):
    """A name that expressions of C begin with. The template's functions declare those that they need."""

    AT = "arrays"
    STEP = "in_step"
    GROUP = "in_group"
    TENSOR = "in_tensor"
    SHAPE = "of"
    MATRIX = "matrix_i"
    ROW = "row_i"
    COLUMN = "column_i"
    INDEX = "index_i"
    BLOCKS = "blocks"
    HEIGHT = "height"
    WIDTH = "width"
    HIGH = "panels"


class Kept(Enum):
    """What a tensor keeps between sweeps: the field of `optgen_space` that holds it."""

    COLUMN = "columns"
    INDEX = "indices"
    MATRIX = "matrices"
    PANEL = "panels"
    PARTIAL = "partials"
    ROW = "rows"


@frozen
class KeptArray:
    """One of the arrays of a field of `optgen_space`."""

    kept: Kept
    number: int

    @property
    def name(self) -> str:
        return f"{self.field}{self.number}"

    @property
    def field(self) -> str:
        return self.kept.value


Need: TypeAlias = Base | KeptArray

#: The index of the values of an extent; and the field that keeps them, whose name the field of a shape has too that
#: counts them. Kernels see blocks as rows.
INDEX = {
    Extent.MATRIX: Base.MATRIX, Extent.ROW: Base.ROW, Extent.COLUMN: Base.COLUMN, Extent.INDEX: Base.INDEX,
    Extent.BLOCK: Base.ROW,
}  # fmt: skip
KEPT = {
    Extent.MATRIX: Kept.MATRIX, Extent.ROW: Kept.ROW, Extent.COLUMN: Kept.COLUMN, Extent.INDEX: Kept.INDEX,
    Extent.BLOCK: Kept.ROW,
}  # fmt: skip


#: How many indices all dimensions have together.
ALL_INDICES = "optgen_indices(of.layout, of.layout[-1])"


class Memory(Enum):
    """The memory of a slot: scalars of the step, values of the group, values of a tensor, or a state of a tensor."""

    STEP = 0
    GROUP = 1
    TENSOR = 2
    STATE = 3


@frozen
class SlotPlace:
    """Where a float64 is kept: slot `number` of a memory. One of matrices, rows, columns or indices is an array."""

    memory: Memory
    number: int
    extent: Extent

    @property
    def counted_by(self) -> Extent | None:
        """Of what there is one value each: matrices, rows, columns or indices; None if it is a single value."""
        return self.extent if self.extent in INDEX else None

    @property
    def array(self) -> KeptArray | None:
        """The array of `optgen_space` that this is a value of."""
        return KeptArray(KEPT[self.extent], self.number) if self.memory is Memory.TENSOR and self.counted_by else None

    @property
    def c(self) -> str:
        match self.memory:
            case Memory.STEP | Memory.GROUP:
                return f"{self._base.value}[{self.number}]"
            case Memory.STATE:
                index = INDEX[self.extent].value if self.counted_by else "0"
                return f"((double *)arrays[{self.number}])[{index}]"
        if self.array:
            return f"{self.array.name}[{INDEX[self.extent].value}]"
        return f"{Base.TENSOR.value}[{self.number}]"

    @property
    def first(self) -> str:
        """The address of the first of several values."""
        return self.array.name if self.array else f"(double *)arrays[{self.number}]"

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({self.array or self._base, *([INDEX[self.extent]] if self.counted_by else [])})

    @property
    def _base(self) -> Base:
        return {Memory.STEP: Base.STEP, Memory.GROUP: Base.GROUP, Memory.TENSOR: Base.TENSOR,
                Memory.STATE: Base.AT}[self.memory]  # fmt: skip


@frozen
class Ratio:
    """How many values of extent `of` there are in each of `over`: computed where it stands, kept nowhere."""

    of: Extent
    over: Extent

    @property
    def counted_by(self) -> Extent | None:
        """Of what there is one value each: blocks, of which the last may be short; None if it is a single value."""
        return Extent.BLOCK if self.over == Extent.BLOCK else None

    @property
    def c(self) -> str:
        if self.over == Extent.BLOCK:
            of, i = Base.SHAPE.value, INDEX[self.over].value
            return f"(double)({i} + 1 < {of}.rows ? {of}.columns : {of}.elements - {i} * {of}.columns)"
        return f"optgen_among({_COUNTS[self.of]}, {_COUNTS[self.over]})"

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Base.SHAPE, *([INDEX[self.over]] if self.over == Extent.BLOCK else [])})


@frozen
class ShapeEntry:
    """The number of dimensions of the parameter, or the length of one: read from the layout, kept nowhere."""

    shape: Shape
    counted_by: Extent | None = None

    @property
    def c(self) -> str:
        lengths = f"{Base.SHAPE.value}.layout"  # each before the number of dimensions
        rank, k = f"{lengths}[-1]", self.shape.dimension
        if k is None:
            return f"(double){rank}"
        place = f"-1 - {k}" if k > 0 else f"{-k - 2} - {rank}"
        return f"({rank} < {abs(k)} ? 1.0 : (double){lengths}[{place}])"

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Base.SHAPE})


Place: TypeAlias = SlotPlace | Ratio | ShapeEntry


class Places:
    """Where the values of less than element extent are kept, for all the work of a step."""

    def __init__(self, plan: Sweeps) -> None:
        self.rule = plan.rule
        self.step = {a.target: i for i, a in enumerate(plan.scalars)}
        self.small = {extent: {name: i for i, name in enumerate(plan.small(extent))} for extent in Extent}
        first = len(plan.rule.arrays)
        kept = [state for state in plan.rule.states if Extent.GROUP < state.extent < Extent.ELEMENT]
        self.states = {state.name: first + i for i, state in enumerate(kept)}
        self.in_place = in_place(plan)
        self.group = group_names(plan)
        # What sweeps reduce: along the rows, and down the columns.
        reduced = [a for each in plan.sweeps for a in each.reductions]
        self.along = _numbered(a.target for a in reduced if not is_down(a.value))
        self.down = _numbered(a.target for a in reduced if is_down(a.value))

    def of(self, expr: Expr) -> Place:
        """The place of a small value."""
        match expr:
            case Size():
                return Ratio(expr.of, expr.over)
            case Shape():
                return ShapeEntry(expr)
            case Load():
                if expr.extent == Extent.GROUP:
                    return SlotPlace(Memory.GROUP, self.group[load_name(expr.array)], expr.extent)
                return self.state(expr.array, expr.extent)
            case Local(extent=extent):
                if extent <= Extent.STEP:
                    return SlotPlace(Memory.STEP, self.step[expr.name], extent)
                if extent == Extent.GROUP:
                    return SlotPlace(Memory.GROUP, self.group[expr.name], extent)
                return self.cell(expr.name, extent)
        raise AssertionError(f"{expr} is no small value")

    def state(self, name: str, extent: Extent) -> SlotPlace:
        return SlotPlace(Memory.STATE, self.states[name], extent)

    def cell(self, name: str, extent: Extent) -> SlotPlace:
        """The place of a value of a tensor, or of its matrices, rows, columns or indices."""
        if name in self.in_place:
            return self.state(name, extent)
        return SlotPlace(Memory.TENSOR, self.small[extent][name], extent)

    def first(self, expr: Expr) -> str:
        """The address of the first of the values that an expression of rows or columns has one of."""
        place = self.of(expr)
        assert isinstance(place, SlotPlace)
        return place.first

    def contribution(self, name: str) -> SlotPlace:
        """What a tensor gives to a reduction over the group."""
        return SlotPlace(Memory.TENSOR, self.small[Extent.TENSOR][name], Extent.TENSOR)

    def reduced(self, name: str, *, down: bool) -> KeptArray:
        """What the blocks of a reduction over elements were folded to, or the panels of one down the columns."""
        return KeptArray(Kept.PANEL, self.down[name]) if down else KeptArray(Kept.PARTIAL, self.along[name])


def is_down(value: Expr) -> bool:
    """Whether a reduction goes down the columns."""
    return isinstance(value, Reduce) and value.over == Extent.COLUMN


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: i for i, name in enumerate(dict.fromkeys(names))}


_COUNTS = {
    Extent.TENSOR: "1", Extent.MATRIX: "of.matrices", Extent.ROW: "of.matrices * of.rows",
    Extent.COLUMN: "of.matrices * of.columns", Extent.INDEX: ALL_INDICES, Extent.BLOCK: "of.rows",
    Extent.ELEMENT: "of.elements",
}  # fmt: skip
