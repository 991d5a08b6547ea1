"""Lowered rule to C: the statements that update one element. The loops around them are the template's.

In: a lowered rule and a compute type. Out: an `Element`. No text of a spec gets into C but through here: names are
made safe and unique by `Names`, text in comments by `comment`, numbers by `literal`.
"""

from __future__ import annotations

import math
import re
import struct
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from ..course import Course, MemoryPass
from ..ir import Assign, Call, Const, Expr, Extent, Load, Local, Reduce, Rule, Size, extent_of, type_of, walk
from ..ops import FOLD_OF, Type
from .forms import Form, Power, write
from .places import Places, is_down
from .text import expression, formula

__all__ = [
    "DEFINED", "DOUBLE", "DTYPES", "FORMS", "CType", "Element", "Fold", "Line", "Names", "comment", "definition",
    "element", "literal", "suffixed", "uses",
]  # fmt: skip


@dataclass(frozen=True)
class CType:
    """A compute type: NumPy's name, C's name, the suffix of its literals and functions, the `struct` code."""

    dtype: str
    name: str
    suffix: str
    code: str

    @property
    def short(self) -> str:
        return {"float32": "f32", "float64": "f64"}[self.dtype]


SINGLE, DOUBLE = CType("float32", "float", "f", "f"), CType("float64", "double", "", "d")
DTYPES = (SINGLE, DOUBLE)

_P = Power
#: `{f}` is the suffix of math.h's functions for the type.
FORMS: dict[str, Form] = {
    "neg": Form("-{0}", _P.SIGN, (_P.RAISE,)),
    "add": Form("{0} + {1}", _P.ADD, (_P.ADD, _P.MULTIPLY)),
    "sub": Form("{0} - {1}", _P.ADD, (_P.ADD, _P.MULTIPLY)),
    "mul": Form("{0} * {1}", _P.MULTIPLY, (_P.MULTIPLY, _P.SIGN)),
    "div": Form("{0} / {1}", _P.MULTIPLY, (_P.MULTIPLY, _P.SIGN)),
    "powi": Form("pow{{f}}({0}, {1})"),  # never of an element: the pass `powers` has made products of it
    "pow": Form("pow{{f}}({0}, {1})"),
    "sqrt": Form("sqrt{{f}}({0})"),
    "exp": Form("exp{{f}}({0})"),
    "log": Form("log{{f}}({0})"),
    "abs": Form("fabs{{f}}({0})"),
    "sign": Form("optgen_sign{{f}}({0})"),
    "floor": Form("floor{{f}}({0})"),
    "min": Form("optgen_min{{f}}({0}, {1})"),
    "max": Form("optgen_max{{f}}({0}, {1})"),
    "lt": Form("{0} < {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "le": Form("{0} <= {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "gt": Form("{0} > {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "ge": Form("{0} >= {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "eq": Form("{0} == {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "ne": Form("{0} != {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    # Of single bits: both sides are always computed, which a vector does anyway.
    "and": Form("{0} & {1}", _P.AND, (_P.ATOM, _P.ATOM)),
    "or": Form("{0} | {1}", _P.OR, (_P.ATOM, _P.ATOM)),
    "not": Form("!{0}", _P.SIGN, (_P.ATOM,)),
    "where": Form("{0} ? {1} : {2}", _P.CHOICE, (_P.ATOM, _P.OR, _P.OR)),
}

#: What C's library has not, or not with these NaNs and zeros.
DEFINED = {
    "min": "return ((b < a) | (b != b)) ? b : a;",
    "max": "return ((b > a) | (b != b)) ? b : a;",
    "sign": "return a > 0 ? 1 : a < 0 ? -1 : a == 0 ? 0 : a;",
}

#: Names that the templates use around formulas; those of functions that they call, of their own and of C's library;
#: and all that look like the macros and types of a header, since a system may have more of those than ours.
_RESERVED = re.compile(
    r"i|n|at|by|given|scalars|kernels|work|signgam|math_errhandling|memcpy|(sqrt|exp|log|fabs|pow|floor)f?"
    r"|values|tensor|of|of_\w*[^_]|matrix_i|row_i|column_i|total"
    r"|optgen_\w*[^_]|\w+_f(32|64)_\w*[^_]|\w+_t|[A-Z][A-Z0-9_]*[A-Z0-9]"
)


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


def element(plan: Course, each: MemoryPass, checked: Rule, ctype: CType, places: Places) -> Element:
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


def _fold(reduction: Assign, places: Places) -> Fold:
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


def literal(value: float, ctype: CType) -> str:
    """The number that `value` is once it is rounded to the type, in as few digits as give it back exactly."""
    bits = struct.pack(ctype.code, value)
    (rounded,) = struct.unpack(ctype.code, bits)
    if math.isinf(rounded):
        return "-INFINITY" if rounded < 0 else "INFINITY"
    digits = next(text for n in range(1, 18) if _reads_as(text := f"{rounded:.{n}g}", bits, ctype))
    return (digits if any(c in digits for c in ".e") else f"{digits}.0") + ctype.suffix


def _reads_as(digits: str, bits: bytes, ctype: CType) -> bool:
    """Whether a C compiler makes `bits` of the number `digits`."""
    near = float(digits)
    if ctype.dtype == "float64":
        return struct.pack(ctype.code, near) == bits
    # C rounds the decimal number once, `float` and `pack` round it twice: which is the same if no neighbour of what
    # `float` gives would go to another float32.
    around = (math.nextafter(near, -math.inf), near, math.nextafter(near, math.inf))
    return all(struct.pack(ctype.code, x) == bits for x in (around if near else (near,)))


def comment(text: str) -> str:
    """`text` as it may stand inside a C comment: nothing in it ends the comment or hides from the reader."""
    plain = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in text)
    return plain.replace("*/", "* /").replace("/*", "/ *")


def uses(value: Expr, op: str) -> bool:
    return any(isinstance(e, Call) and e.op == op for e in walk(value))


def suffixed(text: str, ctype: CType) -> str:
    return text.replace("{f}", ctype.suffix)


def definition(op: str, ctype: CType) -> str:
    takes = "a, b" if "b" in DEFINED[op] else "a"
    arguments = ", ".join(f"{ctype.name} {name}" for name in takes.split(", "))
    return f"static inline {ctype.name} optgen_{op}{ctype.suffix}({arguments}) {{ {DEFINED[op]} }}"


class Names:
    """C names, each given once; a name that is reserved or taken gets underscores behind it."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def make(self, name: str) -> str:
        while name in self.taken or _RESERVED.fullmatch(name):
            name += "_"
        self.taken.add(name)
        return name
