"""What stands between two passes of a kernel, as C: the statements for each tensor, matrix, row and column, in float64.

In: a piece of the course of a rule. Out: a `Small`; the loops around it are the template's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..course import Course, MemoryPass, reduced_extent
from ..ir import Assign, Const, Expr, Extent, Local, Reduce, Rule, extent_of, type_of, walk
from ..ops import FOLD_OF, Type
from .c import DEFINED, DOUBLE, FORMS, Line, Names, definition, fold_of, literal, suffixed, uses
from .forms import Power, write
from .places import INDEX, Places
from .text import expression, formula

__all__ = ["Loop", "Small", "between", "last"]


@dataclass(frozen=True)
class Loop:
    """Statements for each matrix, row or column of a tensor, or for the tensor itself."""

    over: Extent
    lines: tuple[Line, ...]

    @property
    def matrices(self) -> bool:
        return self.over == Extent.MATRIX

    @property
    def rows(self) -> bool:
        return self.over == Extent.ROW

    @property
    def columns(self) -> bool:
        return self.over == Extent.COLUMN


@dataclass(frozen=True)
class Small:
    """What is computed for a tensor between two passes, in float64."""

    scalars: tuple[tuple[str, str, str], ...]
    loops: tuple[Loop, ...]
    definitions: tuple[str, ...]


def between(plan: Course, code: Sequence[Assign], checked: Rule, places: Places, before: MemoryPass | None) -> Small:
    """The C of what stands between two passes, of which `before` is the last one that reduces."""
    names = Names()
    meanings = {a.target: expression(a.value) for a in plan.scalars}
    written = {a.target: formula(a) for a in checked.body}
    ctype = DOUBLE
    # Of what the pass before has added up, the elements are no business of this.
    values = [a.value for a in code if not (isinstance(a.value, Reduce) and reduced_extent(a.value) == Extent.ELEMENT)]
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

    loops = []
    for assign in code:
        value, extent = assign.value, extent_of(assign.value)
        place = places.contribution(assign.target) if extent == Extent.GROUP else places.cell(assign.target, extent)
        extent = max(extent, Extent.TENSOR)
        if isinstance(value, Reduce):
            lines = _reduction(value, place, plan, before, assign.target, text_of)
        else:
            lines = [f"{place} = {text_of(value)};"]
        shown = written.get(assign.target, formula(assign))
        loops.append(Loop(extent, tuple(Line(line, "" if i else shown) for i, line in enumerate(lines))))
    ops = [op for op in DEFINED if any(uses(value, op) for value in values)]
    return Small(
        tuple((local[e], f"of_step[{places.step[e.name]}]", meanings[e.name]) for e in step),
        tuple(loops),
        tuple(definition(op, ctype) for op in ops),
    )


def _reduction(
    value: Reduce, place: str, plan: Course, before: MemoryPass | None, target: str, text_of: Callable[[Expr], str]
) -> list[str]:
    """A value of lesser extent from what the pass before has left, or from other small values."""
    how = FOLD_OF[value.op]
    if reduced_extent(value) == Extent.ELEMENT:
        assert before is not None
        down = [a for a in before.reductions if fold_of(a.value).down]
        along = [a for a in before.reductions if not fold_of(a.value).down]
        if value.over == Extent.COLUMN:
            at = [a.target for a in down].index(target)
            where = f"of_panels + (matrix_i * of_high * of_down + {at}) * of.columns + column_i % of.columns"
            return [f"{place} = optgen_line_{how}({where}, of_high, of_down * of.columns);"]
        at, stride = [a.target for a in along].index(target), "of_kept"
        blocks = "of_blocks" if plan.rule.tiled else "of_all_blocks"
        match value.over:
            case Extent.ROW:
                where = f"of_partials + row_i * of_blocks * {stride} + {at}"
                return [f"{place} = optgen_line_{how}({where}, of_blocks, {stride});"]
            case Extent.MATRIX:
                where = f"of_partials + matrix_i * of.rows * of_blocks * {stride} + {at}"
                return [f"{place} = optgen_runs_{how}({where}, of.rows, of_blocks, {stride});"]
        runs = "of.matrices * of.rows" if plan.rule.tiled else "1"
        return [f"{place} = optgen_runs_{how}(of_partials + {at}, {runs}, {blocks}, {stride});"]
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
        "double total = " + start + ";",
        f"{loop} total = optgen_take_{how}(total, {each});",
        f"{place} = total;",
    ]


def last(plan: Course, places: Places) -> tuple[Loop, ...]:
    """Where the states of lesser extent get their new values, when no pass needs the old ones any more."""
    loops = []
    values = {a.target: a.value for a in plan.rule.body}
    for name, at in places.states.items():
        if name not in values:
            continue
        extent = next(state.extent for state in plan.rule.states if state.name == name)
        own = extent_of(values[name])
        value = values[name] if own <= Extent.STEP else Local(name, own, Type.REAL)
        text = literal(value.value, DOUBLE) if isinstance(value, Const) else places.of(value)
        loops.append(Loop(extent, (Line(f"((double *)tensor->at[{at}])[{INDEX[extent]}] = {text};", f"keep {name}"),)))
    return tuple(loops)
