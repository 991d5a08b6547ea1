"""Lowered rule to C: the statements that update one element. The loops around them are the template's.

In: a lowered rule and a compute type. Out: an `Element`. No text of a spec gets into C but through here: names are
made safe and unique by `Names`, text in comments by `comment`, numbers by `literal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..ir.expr import Const, Expr, Extent, Load, Local, Reduce, Size, extent_of, type_of, walk
from ..ir.primitives import FOLD_OF, Type
from ..ir.rule import Assign, Rule
from ..lowering.sweeps import Sweep, Sweeps
from ..notation.printer import Power, write
from ..notation.text import expression, formula
from .c_language import DEFINED, FORMS, CType, Names, definition, literal, suffixed, uses
from .storage import Storage, is_down

__all__ = ["Element", "Fold", "Line", "element"]


@dataclass(frozen=True)
class Line:
    """One C statement, and the formula that it computes, if it is one of the author's."""

    code: str
    formula: str


@dataclass(frozen=True)
class Fold:
    """How a reduction goes on from a block: "sum", "max" or "min"; along the run, or down the columns of its panel; and
    which one it is of all that go this way."""

    how: str
    down: bool
    place: int


@dataclass(frozen=True)
class Element:
    """One pass over the elements as C.

    `scalars` come in with one value for a row of elements: name, where it stands, meaning; `columns` with one for each
    element, as numbers of float64. `arrays` are read and written: the pointer's name, whether it is written, its place.
    `reduced` are pointers to what is to be reduced, as `folds` say.
    """

    ctype: CType
    scalars: tuple[tuple[str, str, str], ...]
    columns: tuple[tuple[str, str, str], ...]
    arrays: tuple[tuple[str, bool, int], ...]
    reduced: tuple[str, ...]
    folds: tuple[Fold, ...]
    loads: tuple[str, ...]
    lines: tuple[Line, ...]
    stores: tuple[str, ...]
    definitions: tuple[str, ...]


def element(plan: Sweeps, each: Sweep, checked: Rule, ctype: CType, places: Storage) -> Element:
    """The C of one pass of `plan`, which is the course of `checked`; the formulas in its comments are those of it."""
    rule, names = plan.rule, Names()
    meanings = {a.target: expression(a.value) for a in (*plan.scalars, *checked.body)}
    values = [a.value for a in (*each.body, *each.reductions)]
    small = list(dict.fromkeys(e for value in values for e in walk(value) if _is_small(e)))
    # In the order in which the step knows them, then the rest as they come.
    small.sort(key=lambda e: places.step.get(getattr(e, "name", ""), len(places.step)))
    old = {array: names.make(array) for array in rule.arrays if array in each.loads}
    local: dict[Expr, str] = {e: names.make(_name_of(e)) for e in small}
    own = {a.target: f"{a.target}_new" if a.target in each.stores else a.target for a in each.body}
    computed = {target: names.make(name) for target, name in own.items()}
    pointer = {array: names.make(f"{array}_at") for array in rule.arrays}
    column = {e: names.make(f"{local[e]}_at") for e in small if extent_of(e) == Extent.COLUMN}
    reduced = [names.make(f"{a.target}_at") for a in each.reductions]
    written = {a.target: formula(a) for a in checked.body}

    def atom(expr: Expr) -> tuple[str, Power]:
        match expr:
            case Const():
                text = literal(expr.value, ctype)
                return text, Power.SIGN if text.startswith("-") else Power.ATOM
            case Load(extent=Extent.ELEMENT):
                return old[expr.array], Power.ATOM
            case Local() if expr.name in computed:
                return computed[expr.name], Power.ATOM
        assert expr in local, f"{expr} was not lowered"
        return (f"({local[expr]} != 0)" if type_of(expr) is Type.BOOL else local[expr]), Power.ATOM

    def text_of(expr: Expr) -> str:
        return suffixed(write(expr, FORMS, atom)[0], ctype)

    lines = []
    for assign in each.body:
        kind = "int" if type_of(assign.value) is Type.BOOL else ctype.name
        again = assign.target in rule.arrays and assign.target not in each.stores
        shown = "" if again else written.get(assign.target, "")
        lines.append(Line(f"const {kind} {computed[assign.target]} = {text_of(assign.value)};", shown))
    for assign, at in zip(each.reductions, reduced, strict=True):
        assert isinstance(assign.value, Reduce)
        factors = [f"(double)({text_of(arg)})" for arg in assign.value.args]
        lines.append(Line(f"*{at} = {' * '.join(factors)};", written.get(assign.target, expression(assign.value))))
    used = [array for array in rule.arrays if array in each.loads or array in each.stores]
    rows = [e for e in small if extent_of(e) != Extent.COLUMN]
    return Element(
        ctype,
        tuple((local[e], places.of(e), _meaning(e, meanings)) for e in rows),
        tuple((column[e], places.of(e), _meaning(e, meanings)) for e in small if e in column),
        tuple((pointer[array], array in each.stores, rule.arrays.index(array)) for array in used),
        tuple(reduced),
        tuple(_fold(a, places) for a in each.reductions),
        (
            *(f"const {ctype.name} {old[array]} = *{pointer[array]};" for array in each.loads),
            *(f"const {ctype.name} {local[e]} = ({ctype.name})*{at};" for e, at in column.items()),
        ),
        tuple(lines),
        tuple(f"*{pointer[array]} = {computed[array]};" for array in each.stores),
        tuple(definition(op, ctype) for op in DEFINED if any(uses(value, op) for value in values)),
    )


def _fold(reduction: Assign, places: Storage) -> Fold:
    name, value = reduction.target, reduction.value
    assert isinstance(value, Reduce)
    down = is_down(value)
    return Fold(FOLD_OF[value.op], down, (places.down if down else places.along)[name])


def _is_small(expr: Expr) -> bool:
    return isinstance(expr, Local | Load | Size) and extent_of(expr) < Extent.ELEMENT


def _name_of(expr: Expr) -> str:
    match expr:
        case Local():
            return expr.name
        case Load():
            return expr.array
    assert isinstance(expr, Size)
    return "size"


def _meaning(expr: Expr, meanings: Mapping[str, str]) -> str:
    return meanings.get(expr.name, expr.name) if isinstance(expr, Local) else f"{_name_of(expr)}, as it was"
