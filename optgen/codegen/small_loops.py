"""What stands between two passes of a kernel, as C: the statements for each tensor, matrix, row or column, in float64.

In: a piece of the stages of a rule. Out: a `Loop`; what goes around its statements is the template's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..ir.expr import Const, Expr, Extent, Local, Reduce, extent_of, reduced_extent, reduces_elements, type_of, walk
from ..ir.primitives import FOLD_OF, Type
from ..ir.rule import Rule
from ..lowering.stages import Small
from ..lowering.sweeps import Sweeps
from ..notation.printer import Power, write
from ..notation.text import expression, formula
from .c_language import DEFINED, DOUBLE, FORMS, Names, definition, literal, suffixed, uses
from .element import Line
from .storage import INDEX, Storage

__all__ = ["Loop", "between"]


@dataclass(frozen=True)
class Loop:
    """Statements for each matrix, row or column of a tensor, or for the tensor itself. `scalars`: what they have of the
    step, by name, place and meaning."""

    over: Extent
    scalars: tuple[tuple[str, str, str], ...]
    lines: tuple[Line, ...]
    definitions: tuple[str, ...]

    @property
    def index(self) -> str:
        """With what these are counted; none for the tensor itself."""
        return INDEX[self.over] if self.over > Extent.TENSOR else ""

    @property
    def matrices(self) -> bool:
        return self.over == Extent.MATRIX

    @property
    def rows(self) -> bool:
        return self.over == Extent.ROW

    @property
    def in_matrix(self) -> bool:
        """Whether a row or column must know in which matrix it stands."""
        return not self.matrices and any("matrix_i" in line.code for line in self.lines)


def between(plan: Sweeps, work: Small, checked: Rule, places: Storage) -> Loop:
    names = Names()
    meanings = {a.target: expression(a.value) for a in plan.scalars}
    written = {a.target: formula(a) for a in checked.body}
    ctype = DOUBLE
    # Of what a pass has added up, the elements are no business of this.
    values = [a.value for a in work.code if not reduces_elements(a.value)]
    step = list(dict.fromkeys(e for v in values for e in walk(v) if isinstance(e, Local) and e.extent <= Extent.STEP))
    local = {e: names.make(e.name) for e in step}

    def atom(expr: Expr) -> tuple[str, Power]:
        if isinstance(expr, Const):
            text = literal(expr.value, ctype)
            return text, Power.SIGN if text.startswith("-") else Power.ATOM
        text = local[expr] if isinstance(expr, Local) and expr in local else places.of(expr)
        return (f"({text} != 0)" if type_of(expr) is Type.BOOL else text), Power.ATOM

    def text_of(expr: Expr) -> str:
        return suffixed(write(expr, FORMS, atom)[0], ctype)

    lines = []
    for assign in work.code:
        value, extent = assign.value, extent_of(assign.value)
        place = places.contribution(assign.target) if extent == Extent.GROUP else ""
        if work.keep:
            place = f"((double *)of_at[{places.states[assign.target]}])[{INDEX[work.over]}]"
        place = place or places.cell(assign.target, extent)
        if isinstance(value, Reduce):
            code = _reduction(value, place, plan, places, assign.target, text_of)
        else:
            code = [f"{place} = {text_of(value)};"]
        shown = f"keep {assign.target}" if work.keep else written.get(assign.target, formula(assign))
        lines += [Line(line, "" if i else shown) for i, line in enumerate(code)]
    ops = [op for op in DEFINED if any(uses(value, op) for value in values)]
    return Loop(
        work.over,
        tuple((local[e], f"of_step[{places.step[e.name]}]", meanings[e.name]) for e in step),
        tuple(lines),
        tuple(definition(op, ctype) for op in ops),
    )


def _reduction(
    value: Reduce, place: str, plan: Sweeps, places: Storage, target: str, text_of: Callable[[Expr], str]
) -> Sequence[str]:
    """A value of lesser extent from what a pass has left, or from other small values."""
    how = FOLD_OF[value.op]
    if reduces_elements(value):
        if value.over == Extent.COLUMN:
            where = f"of_panel{places.down[target]} + column_i"
            return [f"{place} = optgen_line_{how}({where}, of_high, of_width);"]
        where = f"of_partial{places.along[target]}"
        match value.over:
            case Extent.ROW:
                return [f"{place} = optgen_line_{how}({where} + row_i * of_blocks, of_blocks, 1);"]
            case Extent.MATRIX:
                return [f"{place} = optgen_runs_{how}({where} + matrix_i * of.rows * of_blocks, of.rows, of_blocks);"]
        return [f"{place} = optgen_runs_{how}({where}, {'of_height' if plan.rule.tiled else '1'}, of_blocks);"]
    each = " * ".join(f"({text_of(arg)})" for arg in value.args)
    of = reduced_extent(value)
    if of <= Extent.TENSOR:  # what a tensor gives to the group
        return [f"{place} = {each};"]
    start = {"sum": "0.0", "max": "-(double)INFINITY", "min": "(double)INFINITY"}[how]
    index = INDEX[of]
    count = {Extent.MATRIX: "of.matrices", Extent.ROW: "of.rows", Extent.COLUMN: "of.columns"}[of]
    first = f"matrix_i * {count}" if value.over == Extent.MATRIX else "0"
    many = count if value.over == Extent.MATRIX or of == Extent.MATRIX else f"of.matrices * {count}"
    loop = f"for (int64_t {index} = {first}; {index} < {first} + {many}; ++{index})"
    if value.over != Extent.MATRIX and of != Extent.MATRIX and "matrix_i" in each:
        loop = f"for (int64_t {index} = 0, matrix_i = 0; {index} < {many}; ++{index}, matrix_i = {index} / {count})"
    return [
        "{",
        "    double total = " + start + ";",
        f"    {loop} total = optgen_take_{how}(total, {each});",
        f"    {place} = total;",
        "}",
    ]
