"""The expressions of a rule, and the extents of their values.

In: nothing; `language` makes the values. Out: frozen values, to be compared, hashed, walked and rebuilt.

    expr     = Const(value)                     a literal
             | Scalar(hyper, index)             a hyperparameter; index from 1 where it has several values, else 0
             | Count()                          t, the updates of this parameter, this one included
             | Given(name)                      a number that the step is given, such as the loss
             | Size(over, of)                   the number of values of extent `of` in each of `over`
             | Shape(dimension)                 how long a dimension of the parameter is, or how many there are
             | Load(array, extent)              "p", "g", an input or a state, as it was before the step
             | Local(name, extent, type)        the value of an earlier assignment, or of a scalar
             | Call(op, args+)                  op: a row of primitives.OPS
             | Draw(op, number, key)            a random number for each element; op: "tail" or one of draws.DRAWS
             | Ordinal()                        which parameter of an optimiser this is, as it begins; in initial values
             | Reduce(op, args+, over, key)     op: a row of primitives.REDUCTIONS; one value for each of `over`

    extent   = CONSTANT < STEP < GROUP < TENSOR < MATRIX < ROW, COLUMN < ELEMENT; TENSOR < BLOCK < ELEMENT

An extent is the set of what a value varies with; that of a `Call` is the union of its arguments' (`join`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from enum import Enum, StrEnum
from typing import TypeAlias

from ..frozen import derived, frozen
from .primitives import OPS, REPRESENTATION, Type

__all__ = [
    "COUNTS",
    "GRADIENT",
    "PARAMETER",
    "Call",
    "Const",
    "Count",
    "Draw",
    "Expr",
    "Extent",
    "Given",
    "Load",
    "Local",
    "Matrices",
    "Ordinal",
    "Reduce",
    "Scalar",
    "Shape",
    "Size",
    "children",
    "extent_of",
    "join",
    "joint_extent",
    "rebuilt",
    "reduced_extent",
    "reduces",
    "reduces_elements",
    "replaced",
    "type_of",
    "varies_within",
    "varying_dimensions",
    "walk",
]


PARAMETER, GRADIENT = "p", "g"


class Extent(Enum):
    """What a value varies with, as a set; `<` and `<=` are inclusion, so rows, columns and blocks are unordered.

    CONSTANT: nothing but the hyperparameters. STEP: one value a step. GROUP: one for all tensors of a step. TENSOR: one
    for each tensor. MATRIX: one for each matrix of the last two dimensions. ROW, COLUMN: one for each row or column of
    such a matrix. BLOCK: one for so many neighbouring elements of a tensor, in the order of their indices. ELEMENT: one
    for each element.
    """

    CONSTANT = frozenset[str]()
    STEP = CONSTANT | {"step"}
    GROUP = STEP | {"group"}
    TENSOR = GROUP | {"tensor"}
    MATRIX = TENSOR | {"matrix"}
    ROW = MATRIX | {"row"}
    COLUMN = MATRIX | {"column"}
    BLOCK = TENSOR | {"block"}
    ELEMENT = ROW | COLUMN | BLOCK

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
    Extent.BLOCK: "one value for each block (block)",
    Extent.ELEMENT: "one value for each element (element)",
}


_NOTHING = Extent.CONSTANT.value
_UNIONS = {extent.value: extent for extent in Extent}


def join(*extents: Extent) -> Extent:
    """The least extent that includes all of these; of none, CONSTANT."""
    return _UNIONS.get(_NOTHING.union(*[extent._value_ for extent in extents]), Extent.ELEMENT)


def joint_extent(exprs: Iterable[Expr]) -> Extent:
    """The extent of what is made of all these expressions."""
    return join(*map(extent_of, exprs))


class Matrices(StrEnum):
    """How a parameter of more than two dimensions is seen as matrices: which dimensions are rows "by" columns.

    Of the shape `(a, b, c, d)`, LAST_TWO makes `a*b` matrices of `c` by `d`, FIRST_BY_REST one of `a` by `b*c*d`, and
    ALL_BUT_LAST one of `a*b*c` by `d`.
    """

    LAST_TWO = "last two"
    FIRST_BY_REST = "first by rest"
    ALL_BUT_LAST = "all but last by last"


def varying_dimensions(extent: Extent, rank: int, matrices: Matrices = Matrices.LAST_TWO) -> frozenset[int]:
    """The dimensions of a parameter along which values of an extent vary; along all others there is one value. Those of
    blocks vary along none.

    The one source of how many rows, columns and matrices there are. `rank`: the number of dimensions, at least 2
    where the extent is one of these three.
    """
    if extent <= Extent.TENSOR or extent == Extent.BLOCK:
        return frozenset()
    row, column = {
        Matrices.LAST_TWO: ({rank - 2}, {rank - 1}),
        Matrices.FIRST_BY_REST: ({0}, set(range(1, rank))),
        Matrices.ALL_BUT_LAST: (set(range(rank - 1)), {rank - 1}),
    }[matrices]
    fixed = {Extent.MATRIX: row | column, Extent.ROW: column, Extent.COLUMN: row}.get(extent, set())
    return frozenset(range(rank)) - fixed


@frozen
class Const:
    value: float

    # 0 and -0 are equal numbers, but not the same literal: a pass must never take one for the other.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[float, float]:
        return self.value, math.copysign(1.0, self.value)


@frozen
class Scalar:
    hyper: str
    index: int


@frozen
class Count:
    pass


@frozen
class Given:
    name: str


@frozen
class Size:
    over: Extent
    of: Extent = Extent.ELEMENT


@frozen
class Shape:
    """The length of a dimension of the parameter, 1 if there is no such one; without `dimension`, how many there are.

    Dimensions count from 1, and from the last one backwards from -1.
    """

    dimension: int | None = None

    def of(self, shape: tuple[int, ...]) -> int:
        """Its value for a parameter of this shape."""
        if self.dimension is None:
            return len(shape)
        place = self.dimension - 1 if self.dimension > 0 else len(shape) + self.dimension
        return shape[place] if 0 <= place < len(shape) else 1


#: The counts that formulas have a name for. A matrix has as many rows as a column has elements.
COUNTS = {"size": Size(Extent.TENSOR), "rows": Size(Extent.COLUMN), "columns": Size(Extent.ROW)}


@frozen
class Load:
    array: str
    extent: Extent = Extent.ELEMENT


@frozen
class Local:
    name: str
    extent: Extent
    type: Type


@frozen
class Call:
    op: str
    args: tuple[Expr, ...]
    extent: Extent = derived()
    _hash: int = derived()

    def __post_init__(self) -> None:
        object.__setattr__(self, "extent", joint_extent(self.args))
        object.__setattr__(self, "_hash", hash((self.op, self.args)))

    # Kept, since the hash of a deep expression would go through all of it each time.
    def __hash__(self) -> int:
        return self._hash

    # Hashes of text differ from process to process, so a kept one must not travel.
    def __reduce__(self) -> tuple[object, ...]:
        return Call, (self.op, self.args)


@frozen
class Reduce:
    """`key`: which reduction over the group this is, where tensors in two variants take part in it; else -1."""

    op: str
    args: tuple[Expr, ...]
    over: Extent
    key: int = -1
    _hash: int = derived()

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.op, self.args, self.over, self.key)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[object, ...]:
        return Reduce, (self.op, self.args, self.over, self.key)


@frozen
class Draw:
    """A random number for each element, in float64; it is rounded once where it meets another element.

    `number`: which draw of the rule it is. `key`: the seed, the count of updates, the number of the parameter.
    """

    op: str
    number: int
    key: tuple[Expr, Expr, Expr]


@frozen
class Ordinal:
    pass


Expr: TypeAlias = Const | Scalar | Count | Given | Size | Shape | Load | Local | Call | Draw | Ordinal | Reduce


def extent_of(expr: Expr) -> Extent:
    match expr:
        case Const() | Scalar():
            return Extent.CONSTANT
        case Count() | Given():
            return Extent.STEP
        case Size():
            return expr.over if expr.over in (Extent.GROUP, Extent.BLOCK) else Extent.TENSOR
        case Shape() | Ordinal():
            return Extent.TENSOR
        case Draw():
            return Extent.ELEMENT
        case Load() | Local() | Call():
            return expr.extent
        case Reduce():
            return expr.over


def type_of(expr: Expr) -> Type:
    match expr:
        case Local():
            return expr.type
        case Call():
            return (OPS.get(expr.op) or REPRESENTATION[expr.op]).gives
        case _:
            return Type.REAL


def children(expr: Expr) -> tuple[Expr, ...]:
    if isinstance(expr, Draw):
        return expr.key
    return expr.args if isinstance(expr, Call | Reduce) else ()


def rebuilt(expr: Expr, args: tuple[Expr, ...]) -> Expr:
    """`expr` with other arguments; the same object where nothing changed."""
    if isinstance(expr, Call) and args != expr.args:
        return Call(expr.op, args)
    if isinstance(expr, Reduce) and args != expr.args:
        return Reduce(expr.op, args, expr.over, expr.key)
    if isinstance(expr, Draw) and args != expr.key:
        seed, count, parameter = args
        return Draw(expr.op, expr.number, (seed, count, parameter))
    return expr


def replaced(expr: Expr, known: dict[Expr, Expr]) -> Expr:
    """`expr` with other leaves in the place of those in `known`."""
    return known[expr] if expr in known else rebuilt(expr, tuple(replaced(arg, known) for arg in children(expr)))


def walk(expr: Expr) -> Iterator[Expr]:
    """`expr` and everything below it, arguments before what is made of them."""
    for child in children(expr):
        yield from walk(child)
    yield expr


def reduces(exprs: Iterable[Expr]) -> list[Reduce]:
    """All reductions in `exprs`, inner ones first."""
    return [e for expr in exprs for e in walk(expr) if isinstance(e, Reduce)]


def reduced_extent(expr: Reduce) -> Extent:
    """The extent of what is reduced."""
    return joint_extent(expr.args)


def reduces_elements(expr: Expr) -> bool:
    """Whether a value is reduced over elements, which takes a sweep."""
    return isinstance(expr, Reduce) and reduced_extent(expr) == Extent.ELEMENT


def varies_within(extent: Extent, over: Extent) -> bool:
    """Whether values of this extent, more than one of them, are what a reduction over `over` can take."""
    return Extent.GROUP <= over < extent
