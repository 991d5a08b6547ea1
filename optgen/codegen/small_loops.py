"""Small loops as C: the statements that run once per tensor, matrix, row, column or index, in float64.

In: a small loop of the stages of a rule. Out: its statements and what they need; the loop around them is the
template's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..frozen import frozen
from ..ir.expr import (
    Const,
    Expr,
    Extent,
    Load,
    Local,
    PerIndex,
    Reduce,
    Shape,
    Size,
    children,
    extent_of,
    reduced_extent,
    reduces_elements,
    type_of,
    walk,
)  # fmt: skip
from ..ir.primitives import FOLD_OF, Type
from ..ir.rule import Assign, Rule
from ..lowering.work import SmallLoop, Sweeps
from ..notation.printer import Power, write
from ..notation.text import expression, formula
from .c_language import DOUBLE, FORMS, Names, literal, suffixed
from .element import STARTS, Line, ScalarField
from .functions import c_functions
from .places import ALL_INDICES, INDEX, KEPT, Base, Need, Place, Places, SlotPlace
from .telling_names import telling_names

__all__ = ["SmallLoopBody", "small_loop"]


#: The dimensions of a row, and of a column: behind the first of these numbers, up to the second.
_DIMENSIONS_OF = {Extent.ROW: ("0", "of.outer"), Extent.COLUMN: ("of.outer", "of.layout[-1]")}


@frozen
class SmallLoopBody:
    """Statements for each matrix, row, column or index of a tensor, or for it as a whole. `scalars`: what they read of
    the step; `needs`: what else must be declared for them."""

    over: Extent
    scalars: tuple[ScalarField, ...]
    lines: tuple[Line, ...]
    needs: frozenset[Need]
    definitions: tuple[str, ...]

    @property
    def index(self) -> str:
        """The loop variable; empty for statements of the tensor itself."""
        return INDEX[self.over].value if self.over in INDEX else ""

    @property
    def each(self) -> str:
        """The field of a shape that counts the values of a matrix."""
        return KEPT[self.over].value

    @property
    def in_matrix(self) -> bool:
        """Whether a row or column must know the matrix that it is in."""
        return self.over != Extent.MATRIX and Base.MATRIX in self.needs


def small_loop(plan: Sweeps, work: SmallLoop, checked: Rule, places: Places) -> SmallLoopBody:
    """The C of a small loop of `plan`; the formulas in its comments are those of the rule `checked`."""
    names = Names(small_loop=True)
    meanings = {a.target: expression(a.value) for a in plan.scalars}
    telling = telling_names(plan.scalars, checked)
    written = {a.target: formula(a) for a in checked.body}
    # The elements of a reduction over elements are the sweep's business.
    values = [a.value for a in work.code if not reduces_elements(a.value)]
    courses = {a.target: plan.courses.get(a.target, ()) for a in work.code}
    read = [e for v in values for e in walk(v) if isinstance(e, Local) and e.extent <= Extent.STEP]
    step = list(dict.fromkeys(read + [each.test for course in courses.values() for each in course]))
    local = {e: names.make(telling[e.name]) for e in step}

    def atom(expr: Expr) -> tuple[str, Power]:
        if isinstance(expr, Const):
            text = literal(expr.value, DOUBLE)
            return text, Power.SIGN if text.startswith("-") else Power.ATOM
        if isinstance(expr, PerIndex):
            rows, columns = (places.first(each) for each in children(expr))
            return f"optgen_of_index_{expr.op}({rows}, {columns}, of, index_i)", Power.ATOM
        text = local[expr] if isinstance(expr, Local) and expr in local else places.of(expr).c
        return (f"({text} != 0)" if type_of(expr) is Type.BOOL else text), Power.ATOM

    def text_of(expr: Expr) -> str:
        return suffixed(write(expr, FORMS, atom)[0], DOUBLE)

    lines: list[Line] = []
    needs: set[Need] = set()
    for assign in work.code:
        target = _target(assign, work, places)
        needs |= target.needs
        if not isinstance(assign.value, Reduce):
            code = [f"{target.c} = {text_of(assign.value)};"]
            needs |= _needs(_read([assign.value], local, places))
            needs |= {Base.SHAPE} if any(isinstance(e, PerIndex) for e in walk(assign.value)) else set()
        elif reduces_elements(assign.value):
            call, more = _of_sweep(assign, assign.value, plan, places)
            code = [f"{target.c} = {call};"]
            needs |= more
        else:
            taken = _read(assign.value.args, local, places)
            code, more = _of_values(assign.value, target.c, text_of, taken)
            needs |= more
        if course := courses[assign.target]:
            tests = [f"{local[each.test]} {'!=' if each.holds else '=='} 0" for each in course]
            code = [f"if ({' && '.join(tests)})", *(f"    {line}" for line in code)]
        shown = f"keep {assign.target}" if work.keep else written.get(assign.target, formula(assign))
        lines += [Line(line, "" if i else shown) for i, line in enumerate(code)]
    if local:
        needs.add(Base.STEP)
    return SmallLoopBody(
        over=work.over,
        scalars=tuple(ScalarField(local[e], places.of(e), meanings[e.name]) for e in step),
        lines=tuple(lines),
        needs=frozenset(needs),
        definitions=c_functions(values, DOUBLE),
    )


def _target(assign: Assign, work: SmallLoop, places: Places) -> SlotPlace:
    extent = extent_of(assign.value)
    if work.keep:
        return places.state(assign.target, work.over)
    return places.contribution(assign.target) if extent == Extent.GROUP else places.cell(assign.target, extent)


def _read(values: Iterable[Expr], local: dict[Local, str], places: Places) -> list[Place]:
    """The places that the C of some values reads; the step's scalars have names of their own."""
    small = (e for value in values for e in walk(value) if isinstance(e, Local | Load | Shape | Size))
    return [places.of(e) for e in small if not (isinstance(e, Local) and e in local)]


def _needs(places: Iterable[Place]) -> frozenset[Need]:
    return frozenset().union(*(place.needs for place in places))


def _of_sweep(assign: Assign, value: Reduce, plan: Sweeps, places: Places) -> tuple[str, set[Need]]:
    """A value from what a sweep has folded: the call, and what it needs."""
    how = FOLD_OF[value.op]
    array = places.reduced(assign.target, down=value.over == Extent.COLUMN)
    match value.over:
        case Extent.COLUMN:
            call = f"optgen_line_{how}({array.name} + column_i, panels, width)"
            return call, {array, Base.COLUMN, Base.HIGH, Base.WIDTH}
        case Extent.ROW | Extent.BLOCK:
            call = f"optgen_line_{how}({array.name} + row_i * blocks, blocks, 1)"
            return call, {array, Base.ROW, Base.BLOCKS}
        case Extent.MATRIX:
            call = f"optgen_runs_{how}({array.name} + matrix_i * of.rows * blocks, of.rows, blocks)"
            return call, {array, Base.MATRIX, Base.SHAPE, Base.BLOCKS}
    if plan.rule.tiled:
        return f"optgen_runs_{how}({array.name}, height, blocks)", {array, Base.HEIGHT, Base.BLOCKS}
    return f"optgen_runs_{how}({array.name}, 1, blocks)", {array, Base.BLOCKS}


def _of_values(
    value: Reduce, target: str, text_of: Callable[[Expr], str], read: list[Place]
) -> tuple[list[str], set[Need]]:
    """A value from others of less than element extent: the statements, and what they need."""
    needs: set[Need] = set(_needs(read))
    each = " * ".join(f"({text_of(arg)})" for arg in value.args)
    of = reduced_extent(value)
    if of <= Extent.TENSOR:  # what a tensor gives to the group
        return [f"{target} = {each};"], needs
    how = FOLD_OF[value.op]
    start = STARTS[how]
    if of == Extent.INDEX and value.over in _DIMENSIONS_OF:
        first, end = _DIMENSIONS_OF[value.over]
        code = [
            "{",
            f"    double total = {start};",
            f"    int64_t rest = {INDEX[value.over].value}, before = optgen_indices(of.layout, {end});",
            f"    for (int64_t k = {end}; k > {first}; --k) {{",
            "        const int64_t length = of.layout[-1 - k];",
            "        const int64_t index_i = (before -= length) + rest % length;",
            "        rest /= length;",
            f"        total = optgen_take_{how}(total, {each});",
            "    }",
            f"    {target} = total;",
            "}",
        ]
        return code, needs - {Base.INDEX} | {INDEX[value.over], Base.SHAPE}
    index = INDEX[of].value
    count = f"of.{KEPT[of].value}"
    in_matrix = any(place.counted_by == Extent.MATRIX for place in read)
    inner = {INDEX[of]}
    if value.over == Extent.MATRIX:
        first, end = f"matrix_i * {count}", f"(matrix_i + 1) * {count}"
    elif of == Extent.INDEX:
        first, end = "0", ALL_INDICES
    elif of == Extent.MATRIX:
        first, end = "0", count
    else:
        first, end = "0", f"of.matrices * {count}"
        inner.add(Base.MATRIX)
    head = f"for (int64_t {index} = {first}; {index} < {end}; ++{index})"
    if in_matrix and Base.MATRIX in inner and of != Extent.MATRIX:
        head = f"for (int64_t {index} = 0, matrix_i = 0; {index} < {end}; ++{index}, matrix_i = {index} / {count})"
    needs = needs - inner | {Base.SHAPE} | ({Base.MATRIX} if value.over == Extent.MATRIX else set())
    code = [
        "{",
        f"    double total = {start};",
        f"    {head}",
        f"        total = optgen_take_{how}(total, {each});",
        f"    {target} = total;",
        "}",
    ]
    return code, needs
