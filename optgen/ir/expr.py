"""The expressions of a rule.

In: nothing; `language` makes the values. Out: frozen values, to be compared, hashed, walked and rebuilt.

    expr     = Const(value)                     a literal
             | Scalar(hyper, index)             a hyperparameter; index from 1 where it has several values, else 0
             | Count()                          t, the updates of this parameter, this one included
             | Given(name)                      a number that the step is given, such as the loss
             | Size(over, of)                   the number of values of extent `of` in each of `over`
             | Shape(dimension)                 how long a dimension of the parameter is, or how many there are
             | Load(array, extent, dims)        "p", "g", an input or a state, as it was before the step
             | Local(name, extent, type, dims)  the value of an earlier assignment, or of a scalar
             | Call(op, args+)                  op: a row of primitives.OPS
             | Draw(op, number, key)            a random number for each element; op: "tail" or one of draws.DRAWS
             | Ordinal()                        which parameter of an optimiser this is, as it begins; in initial values
             | Reduce(op, args+, over, key)     op: a row of primitives.REDUCTIONS; one value for each of `over`
             | PerIndex(op, rows, columns)      one value for each index of each dimension, of those of rows and columns
             | Product(op, args*, dims)         op: a row of primitives.PRODUCTS, of whole matrices

`extents` has what a value varies with. Values of rows, columns and elements are those of the parameter, unless they say
of which other `dims` they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from ..frozen import derived, frozen
from .extents import Dims, Extent, Matrices, default_dims, join, join_dims, varies_within, varying_dimensions
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
    "PerIndex",
    "Product",
    "Reduce",
    "Scalar",
    "Shape",
    "Size",
    "children",
    "dims_of",
    "extent_of",
    "join",
    "joint_dims",
    "joint_extent",
    "local_of",
    "multiplies",
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


def joint_extent(exprs: Iterable[Expr]) -> Extent:
    """The extent of what is made of all these expressions."""
    return join(*map(extent_of, exprs))


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
    dims: Dims | None = None  # those of the parameter


@frozen
class Local:
    name: str
    extent: Extent
    type: Type
    dims: Dims | None = None


@frozen
class Call:
    op: str
    args: tuple[Expr, ...]
    extent: Extent = derived()
    dims: Dims | None = derived()
    _hash: int = derived()

    def __post_init__(self) -> None:
        object.__setattr__(self, "extent", joint_extent(self.args))
        object.__setattr__(self, "dims", _own_dims(self.args))
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
    dims: Dims | None = derived()
    _hash: int = derived()

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", _reduced_dims(_own_dims(self.args), self.over))
        object.__setattr__(self, "_hash", hash((self.op, self.args, self.over, self.key)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[object, ...]:
        return Reduce, (self.op, self.args, self.over, self.key)


@frozen
class Draw:
    """A random number for each element, in float64; it is rounded once where it meets another element.

    `number`: which draw of the rule it is. `key`: the seed, the count of updates, the number of the parameter. `dims`:
    those of a matrix that is not like the parameter.
    """

    op: str
    number: int
    key: tuple[Expr, Expr, Expr]
    dims: Dims | None = None


@frozen
class Ordinal:
    pass


@frozen
class PerIndex:
    """What a reduction over all elements of each index of a dimension comes to, by one over rows and one over columns.

    Each dimension is one of the rows or one of the columns: it is what all of these with that index come to, folded in
    order as `op` says. Only lowered rules have it.
    """

    op: str
    rows: Expr
    columns: Expr


@frozen
class Product:
    """What a library computes of whole matrices, in the compute type; `dims` are those of the result."""

    op: str
    args: tuple[Expr, ...]
    dims: Dims
    _hash: int = derived()

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.op, self.args, self.dims)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[object, ...]:
        return Product, (self.op, self.args, self.dims)


Expr: TypeAlias = (
    Const | Scalar | Count | Given | Size | Shape | Load | Local | Call | Draw | Ordinal | Reduce | PerIndex | Product
)


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
        case PerIndex():
            return Extent.INDEX
        case Product():
            return expr.dims.extent


def dims_of(expr: Expr) -> Dims:
    """The dimensions of a value as a matrix; of one that is the same all over a matrix, 1 by 1."""
    own = expr.dims if isinstance(expr, Load | Local | Call | Reduce | Product | Draw) else None
    return default_dims(extent_of(expr)) if own is None else own


def joint_dims(exprs: Iterable[Expr]) -> Dims | None:
    """The dimensions of what is made of these, element by element; None if they do not fit."""
    found: Dims | None = Dims("", "")
    for expr in exprs:
        found = found if found is None else join_dims(found, dims_of(expr))
    return found


def _own_dims(args: tuple[Expr, ...]) -> Dims | None:
    """The dimensions of what is made of `args`, where they are not those of the parameter."""
    if all(getattr(arg, "dims", None) is None for arg in args):
        return None
    joint = joint_dims(args)
    return None if joint in (None, default_dims(joint_extent(args))) else joint


def _reduced_dims(dims: Dims | None, over: Extent) -> Dims | None:
    """The dimensions of what is left of others in a reduction over rows or columns."""
    if dims is None or over not in (Extent.ROW, Extent.COLUMN):
        return None
    left = Dims(dims.rows, "") if over == Extent.ROW else Dims("", dims.columns)
    return None if left == default_dims(over) else left


def local_of(name: str, value: Expr) -> Local:
    """The name of a value that was assigned to it."""
    dims = dims_of(value)
    return Local(name, extent_of(value), type_of(value), None if dims == default_dims(extent_of(value)) else dims)


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
    if isinstance(expr, PerIndex):
        return expr.rows, expr.columns
    return expr.args if isinstance(expr, Call | Reduce | Product) else ()


def rebuilt(expr: Expr, args: tuple[Expr, ...]) -> Expr:
    """`expr` with other arguments; the same object where nothing changed."""
    if isinstance(expr, Call) and args != expr.args:
        return Call(expr.op, args)
    if isinstance(expr, Reduce) and args != expr.args:
        return Reduce(expr.op, args, expr.over, expr.key)
    if isinstance(expr, Product) and args != expr.args:
        return Product(expr.op, args, expr.dims)
    if isinstance(expr, Draw) and args != expr.key:
        seed, count, parameter = args
        return Draw(expr.op, expr.number, (seed, count, parameter), expr.dims)
    if isinstance(expr, PerIndex) and args != (expr.rows, expr.columns):
        return PerIndex(expr.op, *args)
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


def multiplies(expr: Expr) -> bool:
    """Whether an expression has a product of whole matrices, or a random matrix that is not like the parameter."""
    return any(isinstance(e, Product) or (isinstance(e, Draw) and e.dims is not None) for e in walk(expr))


def reduced_extent(expr: Reduce) -> Extent:
    """The extent of what is reduced."""
    return joint_extent(expr.args)


def reduces_elements(expr: Expr) -> bool:
    """Whether a value is reduced over elements, which takes a sweep."""
    return isinstance(expr, Reduce) and reduced_extent(expr) == Extent.ELEMENT
