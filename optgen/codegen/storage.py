"""Where the values of lesser extent than an element stand while a step runs: as C reads them.

In: the course of a rule. Out: `Storage`, which gives for a value the expression of C that finds it; the templates
declare the pointers that these begin with.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..ir.expr import Expr, Extent, Load, Local, Reduce, Size
from ..lowering.stages import in_place
from ..lowering.sweeps import Sweeps, group_names, load_name

__all__ = ["INDEX", "NAMED", "Storage", "is_down"]

#: With what the values of an extent are counted.
INDEX = {Extent.TENSOR: "0", Extent.MATRIX: "matrix_i", Extent.ROW: "row_i", Extent.COLUMN: "column_i"}
#: What the values of an extent are called, each with a number behind.
NAMED = {Extent.MATRIX: "matrix", Extent.ROW: "row", Extent.COLUMN: "column"}


class Storage:
    """Where the values of lesser extent stand, for all work of one course."""

    def __init__(self, plan: Sweeps) -> None:
        self.sweeps = plan
        self.rule = plan.rule
        self.step = {a.target: i for i, a in enumerate(plan.scalars)}
        self.small = {extent: {name: i for i, name in enumerate(plan.small(extent))} for extent in Extent}
        first = len(plan.rule.arrays)
        kept = [state for state in plan.rule.states if Extent.GROUP < state.extent < Extent.ELEMENT]
        self.states = {state.name: first + i for i, state in enumerate(kept)}
        self.in_place = in_place(plan)
        self.group = group_names(plan)
        # What passes have reduced so far: along the rows, and down the columns.
        reduced = [a for each in plan.sweeps for a in each.reductions]
        self.along = _numbered(a.target for a in reduced if not is_down(a.value))
        self.down = _numbered(a.target for a in reduced if is_down(a.value))

    def of(self, expr: Expr) -> str:
        """A small value as an expression of float64, seen from one of a row of elements."""
        match expr:
            case Size():
                return f"optgen_among({_COUNTS[expr.of]}, {_COUNTS[expr.over]})"
            case Load():
                if expr.extent == Extent.GROUP:
                    return f"of_group[{self.group[load_name(expr.array)]}]"
                return f"((const double *)of_at[{self.states[expr.array]}])[{INDEX[expr.extent]}]"
            case Local(extent=extent):
                if extent <= Extent.STEP:
                    return f"of_step[{self.step[expr.name]}]"
                if extent == Extent.GROUP:
                    return f"of_group[{self.group[expr.name]}]"
                return self.cell(expr.name, extent)
        raise AssertionError(f"{expr} is no small value")

    def cell(self, name: str, extent: Extent) -> str:
        if name in self.in_place:
            return f"((double *)of_at[{self.states[name]}])[{INDEX[extent]}]"
        at = self.small[extent][name]
        return f"of_tensor[{at}]" if extent == Extent.TENSOR else f"of_{NAMED[extent]}{at}[{INDEX[extent]}]"

    def contribution(self, name: str) -> str:
        """What a tensor gives to a reduction over the group."""
        return f"of_tensor[{self.small[Extent.TENSOR][name]}]"


def is_down(value: Expr) -> bool:
    """Whether a reduction goes down the columns."""
    return isinstance(value, Reduce) and value.over == Extent.COLUMN


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: i for i, name in enumerate(names)}


_COUNTS = {
    Extent.TENSOR: "1", Extent.MATRIX: "of.matrices", Extent.ROW: "of.matrices * of.rows",
    Extent.COLUMN: "of.matrices * of.columns", Extent.ELEMENT: "of.elements",
}  # fmt: skip
