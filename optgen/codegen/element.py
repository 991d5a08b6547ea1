"""One sweep as C: the statements that update one element. The loops around them are the template's.

In: a sweep of a lowered rule and a compute type. Out: an `Element`. No text of a spec gets into C but through
`c_language`: names are made safe and unique by `Names`, text in comments by `comment`, numbers by `literal`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..frozen import frozen
from ..ir.expr import (
    Const,
    Count,
    Draw,
    Expr,
    Extent,
    Load,
    Local,
    Ordinal,
    Reduce,
    Scalar,
    Shape,
    Size,
    children,
    extent_of,
    type_of,
    walk,
)  # fmt: skip
from ..ir.primitives import FOLD_OF, Type
from ..ir.rule import Assign, Rule
from ..lowering.work import Sweep, Sweeps
from ..notation.printer import Power, write
from ..notation.text import expression, formula
from .c_language import FORMS, CType, Names, literal, suffixed
from .functions import c_functions
from .memory_type import memory_types
from .places import KeptArray, Need, Place, Places, is_down
from .telling_names import telling_names

__all__ = ["STARTS", "ArrayPointer", "DrawField", "Element", "Fold", "Line", "RoundingKey", "ScalarField", "element"]


@frozen
class Line:
    """One C statement, and the formula that it computes, if it is one of the author's."""

    code: str
    formula: str


@frozen
class ScalarField:
    """A value that an element reads and that has less than element extent: its name in C, its place, its meaning."""

    name: str
    place: Place
    meaning: str


@frozen
class DrawField:
    """The random numbers of a row of elements: the pointer to that of an element, what is drawn, and its key in C."""

    name: str
    op: str
    key: str
    place: DrawPlace


@frozen
class RoundingKey:
    """What the random bits are made of by which an array is rounded: its name in C, and its key."""

    name: str
    key: str
    place: DrawPlace


@frozen
class DrawPlace:
    """What the key of a draw, or of random bits, needs to have been declared."""

    needs: frozenset[Need]


@frozen
class ArrayPointer:
    """One array of a sweep: the name of the pointer to an element of it, its number among the rule's arrays, whether it
    is written, and the type of C that its elements have in memory."""

    name: str
    number: int
    written: bool
    type: str


STARTS = {"sum": "0.0", "max": "-(double)INFINITY", "min": "(double)INFINITY"}


@frozen
class Fold:
    """How a reduction goes on from a block: "sum", "max" or "min"; along the run, or down the columns of its panel; and
    the array that it is folded into."""

    how: str
    down: bool
    into: KeptArray

    @property
    def start(self) -> str:
        """What it starts from, which changes nothing."""
        return STARTS[self.how]


@frozen
class Element:
    """One sweep over the elements as C.

    `scalars` have one value for a row of elements, `columns` and `draws` one float64 for each element. `arrays` are
    read and written. `reduced` are pointers to what is to be reduced, as `folds` say.
    """

    ctype: CType
    scalars: tuple[ScalarField, ...]
    columns: tuple[ScalarField, ...]
    draws: tuple[DrawField, ...]
    rounding: tuple[RoundingKey, ...]
    arrays: tuple[ArrayPointer, ...]
    reduced: tuple[str, ...]
    folds: tuple[Fold, ...]
    loads: tuple[str, ...]
    lines: tuple[Line, ...]
    stores: tuple[str, ...]
    definitions: tuple[str, ...]

    @property
    def small(self) -> tuple[ScalarField, ...]:
        """The scalars and columns."""
        return *self.scalars, *self.columns

    @property
    def needs(self) -> frozenset[Need]:
        """What the places of the scalars, columns and draws need to have been declared."""
        of_draws = [draw.place.needs for draw in self.draws] + [key.place.needs for key in self.rounding]
        return frozenset().union(*(each.place.needs for each in self.small), *of_draws)


def element(plan: Sweeps, each: Sweep, checked: Rule, ctype: CType, places: Places) -> Element:
    """The C of one sweep of `plan`; the formulas in its comments are those of the rule `checked`."""
    rule, names = plan.rule, Names()
    meanings = {a.target: expression(a.value) for a in (*plan.scalars, *checked.body)}
    values = [a.value for a in (*each.body, *each.reductions)]
    small = list(dict.fromkeys(e for value in values for e in _outside_keys(value) if _is_small(e)))
    drawn = list(dict.fromkeys(e for value in values for e in walk(value) if isinstance(e, Draw)))
    # In the order in which the step knows them, then the rest as they come.
    small.sort(key=lambda e: places.step.get(getattr(e, "name", ""), len(places.step)))
    old = {array: names.make(array) for array in rule.arrays if array in each.loads}
    telling = telling_names(plan.scalars, checked)
    fields = Names()
    rows = [e for e in small if extent_of(e) != Extent.COLUMN]
    field = {e: fields.make(telling.get(_name_of(e), _name_of(e))) for e in rows}
    local = {e: names.make(_name_of(e)) for e in small if e not in field} | {e: f"s.{field[e]}" for e in rows}
    local |= {e: names.make(f"{e.op}{e.number + 1}") for e in drawn}
    own = {a.target: f"{a.target}_new" if a.target in each.stores else a.target for a in each.body}
    computed = {target: names.make(name) for target, name in own.items()}
    pointer = {array: names.make(f"{array}_at") for array in rule.arrays}
    memory = memory_types(rule, ctype)
    column = {e: names.make(f"{local[e]}_at") for e in small if extent_of(e) == Extent.COLUMN}
    draws = {e: names.make(f"{local[e]}_at") for e in drawn}
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
    return Element(
        ctype=ctype,
        scalars=tuple(ScalarField(field[e], places.of(e), _meaning(e, meanings)) for e in rows),
        columns=tuple(ScalarField(column[e], places.of(e), _meaning(e, meanings)) for e in small if e in column),
        draws=tuple(_draw(at, e, places) for e, at in draws.items()),
        rounding=tuple(_rounding_key(rule, *kept, places) for kept in rule.rounding if kept[0] in each.stores),
        arrays=tuple(
            ArrayPointer(pointer[array], rule.arrays.index(array), array in each.stores, memory[array].type)
            for array in used
        ),
        reduced=tuple(reduced),
        folds=tuple(_fold(a, places) for a in each.reductions),
        loads=(
            *(f"{old[array]} = {memory[array].load(f'*{pointer[array]}')}" for array in each.loads),
            *(f"{local[e]} = ({ctype.name})*{at}" for e, at in [*column.items(), *draws.items()]),
        ),
        lines=tuple(lines),
        stores=tuple(f"*{pointer[array]} = {memory[array].store(computed[array])};" for array in each.stores),
        definitions=c_functions(values, ctype),
    )


def _fold(reduction: Assign, places: Places) -> Fold:
    name, value = reduction.target, reduction.value
    assert isinstance(value, Reduce)
    down = is_down(value)
    return Fold(FOLD_OF[value.op], down, places.reduced(name, down=down))


def _draw(name: str, draw: Draw, places: Places) -> DrawField:
    of_key = [places.of(value) for value in draw.key]
    seed, t, parameter = (place.c for place in of_key)
    key = f"(optgen_draw_key){{ {seed}, {t}, {parameter}, {draw.number} }}"
    return DrawField(name, draw.op, key, DrawPlace(frozenset().union(*(place.needs for place in of_key))))


def _rounding_key(rule: Rule, array: str, seed: str, places: Places) -> RoundingKey:
    known = {assign.value: assign.target for assign in rule.scalars}
    own: list[Expr] = [Scalar(seed, 0), Count()]
    read: list[Expr] = [Local(known[value], Extent.STEP, Type.REAL) for value in own]
    stream = next(state for state in rule.states if state.init == Ordinal())
    found = [places.of(value) for value in (*read, Load(stream.name, stream.extent))]
    number = rule.arrays.index(array)
    seed_c, t_c, parameter = (place.c for place in found)
    key = f"optgen_rounding_key_of((uint64_t){seed_c}, (uint64_t){t_c}, (uint32_t){parameter}, 0u, {number}u)"
    return RoundingKey(f"optgen_key{number}", key, DrawPlace(frozenset().union(*(place.needs for place in found))))


def _outside_keys(expr: Expr) -> Iterator[Expr]:
    """`expr` and everything below it that meets elements: not what random numbers depend on."""
    for child in () if isinstance(expr, Draw) else children(expr):
        yield from _outside_keys(child)
    yield expr


def _is_small(expr: Expr) -> bool:
    return isinstance(expr, Local | Load | Shape | Size) and extent_of(expr) < Extent.ELEMENT


def _name_of(expr: Expr) -> str:
    match expr:
        case Local():
            return expr.name
        case Load():
            return expr.array
        case Shape():
            return "ndim" if expr.dimension is None else "length"
    assert isinstance(expr, Size)
    return "size"


def _meaning(expr: Expr, meanings: Mapping[str, str]) -> str:
    return meanings.get(expr.name, expr.name) if isinstance(expr, Local) else f"{_name_of(expr)}, as it was"
