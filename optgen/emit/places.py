"""Where the values of lesser extent than an element stand while a step runs: as C reads them.

In: the course of a rule. Out: `Places`, which gives for a value the expression of C that finds it; the templates
declare the pointers that these begin with.
"""

from __future__ import annotations

from ..course import Course, group_names, load_name
from ..ir import Expr, Extent, Load, Local, Size

__all__ = ["INDEX", "Places"]

#: With what the values of an extent are counted.
INDEX = {Extent.TENSOR: "0", Extent.MATRIX: "matrix_i", Extent.ROW: "row_i", Extent.COLUMN: "column_i"}


class Places:
    """Where the values of lesser extent stand, for all work of one course."""

    def __init__(self, plan: Course) -> None:
        self.course = plan
        self.rule = plan.rule
        self.step = {a.target: i for i, a in enumerate(plan.scalars)}
        self.small = {extent: {name: i for i, name in enumerate(plan.small(extent))} for extent in Extent}
        first = len(plan.rule.arrays)
        kept = [state for state in plan.rule.states if Extent.GROUP < state.extent < Extent.ELEMENT]
        self.states = {state.name: first + i for i, state in enumerate(kept)}
        self.group = group_names(plan)

    def of(self, expr: Expr) -> str:
        """A small value as an expression of float64, seen from one of a row of elements."""
        match expr:
            case Size():
                return f"optgen_among({_COUNTS[expr.of]}, {_COUNTS[expr.over]})"
            case Load():
                if expr.extent == Extent.GROUP:
                    return f"of_group[{self.group[load_name(expr.array)]}]"
                return f"((const double *)tensor->at[{self.states[expr.array]}])[{INDEX[expr.extent]}]"
            case Local(extent=extent):
                if extent <= Extent.STEP:
                    return f"of_step[{self.step[expr.name]}]"
                if extent == Extent.GROUP:
                    return f"of_group[{self.group[expr.name]}]"
                return self.cell(expr.name, extent)
        raise AssertionError(f"{expr} is no small value")

    def cell(self, name: str, extent: Extent) -> str:
        at, many = self.small[extent][name], len(self.small[extent])
        match extent:
            case Extent.TENSOR:
                return f"of_tensor[{at}]"
            case Extent.MATRIX:
                return f"of_matrices[matrix_i * {many} + {at}]"
            case Extent.ROW:
                return f"of_rows[row_i * {many} + {at}]"
        return f"of_columns[{at} * of_width + column_i]"

    def contribution(self, name: str) -> str:
        """What a tensor gives to a reduction over the group."""
        return f"of_tensor[{self.small[Extent.TENSOR][name]}]"


_COUNTS = {
    Extent.TENSOR: "1", Extent.MATRIX: "of.matrices", Extent.ROW: "of.matrices * of.rows",
    Extent.COLUMN: "of.matrices * of.columns", Extent.ELEMENT: "of.elements",
}  # fmt: skip
