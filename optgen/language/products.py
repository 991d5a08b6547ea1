"""Products of whole matrices: from terms to typed expressions.

In: terms, and the names of a variant for matrices. Out: a `Product`, or None for a term with a fault.

A matrix has a pair of dimensions, `row by column` for the parameter. Two of them fit by their symbols, whatever lengths
these have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..errors import Span
from ..ir.expr import Call, Expr, Extent, Local, Product, Scalar, children, dims_of, extent_of, rebuilt, type_of
from ..ir.extents import IDENTITY, Dims
from ..ir.primitives import Type
from .indices import OF_ELEMENT, Indices
from .syntax import Invoke, Name, Operation, Term
from .vocabulary import MATRIX, SIDES, TALL, WIDE

__all__ = ["Products", "sized"]

#: The functions that are of symmetric matrices only.
_OF_SYMMETRIC = ("power", "eigenvectors", "eigenvalues")
#: What functions of a square matrix give, other than one like it: a value for each row, or one.
_GIVES_ROWS, _GIVES_ONE = ("eigenvalues", "diagonal"), ("trace",)
_ONE = Dims("", "")

Written: TypeAlias = Operation | Invoke


@dataclass
class Products(Indices):
    """The products of one choice of flags. A method that finds a fault returns None."""

    #: What has to be symmetric, the function that asks for it, and where.
    symmetric: list[tuple[Expr, str, Span]] = field(default_factory=list)
    #: The values that are rounded to bfloat16.
    halves: set[str] = field(default_factory=set)

    def is_half(self, expr: Expr) -> bool:
        """Whether a value is rounded to bfloat16, or made of matrices that are: then it is rounded too, once."""
        match expr:
            case Local(name=name):
                return name in self.halves
            case Call(op="bfloat16"):
                return True
            case Call() | Product():
                matrices = [arg for arg in expr.args if extent_of(arg) > Extent.MATRIX and type_of(arg) is Type.REAL]
                return type_of(expr) is Type.REAL and bool(matrices) and all(map(self.is_half, matrices))
        return False

    def product(self, op: str, term: Written, args: list[Expr | None]) -> Product | None:
        """Elaborate a product, or a function of whole matrices."""
        found = [arg for arg in args if arg is not None]
        if not self.choice[MATRIX]:
            message = "there are no products of matrices where the parameter is no matrix"
            self.fault(term.span, message, "choose with the given flag: a if matrix else b")
            return None
        for arg, place in zip(args, term.args, strict=True):
            if arg is not None and type_of(arg) is not Type.REAL:
                self.fault(place.span, "expected a matrix, got a condition", "write 1 if condition else 0")
                found.remove(arg)
        if len(found) < len(args):
            return None
        if Extent.INDEX in map(extent_of, found):
            self.fault(term.span, f"expected matrices, got {Extent.INDEX.words}", OF_ELEMENT)
            return None
        self.see_as(Extent.MATRIX, term.span)
        match op:
            case "matmul":
                return self._matmul(term, *found)
            case "transpose" if extent_of(found[0]) < Extent.MATRIX:
                self.fault(term.span, "expected a matrix to transpose, got a number", "leave .T out")
                return None
            case "transpose":
                return Product(op, tuple(found), dims_of(found[0]).transposed)
            case "orthonormal":
                return Product(op, tuple(found), dims_of(found[0])) if self._whole(op, term, found[0]) else None
            case "leading":
                return self._leading(term, *found)
            case "sorting" | "diag":
                return self._of_vector(op, term, found[0])
        return self._of_square(op, term, *found)

    def _matmul(self, term: Written, a: Expr, b: Expr) -> Product | None:
        for arg, place in zip((a, b), term.args, strict=True):
            if dims_of(arg) == _ONE:
                self.fault(place.span, "expected a matrix, got a number", "write `*` for a product with a number")
                return None
        if IDENTITY in (dims_of(a), dims_of(b)):
            self.fault(term.span, "a product with I, or a multiple of it, is one with a number", "write `*`: 2*A")
            return None
        left, right = dims_of(a), dims_of(b)
        if left.columns != right.rows:
            wanted = f"one row for each {left.columns}" if left.columns else "one row"
            message = f"the left has {left.words}: expected {wanted} on the right, got {right.words}"
            hint = "transpose the right: @ (...).T" if left.columns == right.columns else None
            self.fault(term.span, message, hint)
            return None
        return Product("matmul", (a, b), Dims(left.rows, right.columns))

    def side(self, name: str) -> str:
        """A dimension by its symbol: the shorter and the longer side are rows or columns in this variant."""
        short = "column" if self.choice.get(TALL, not self.choice.get(WIDE, True)) else "row"
        return {"short": short, "long": "column" if short == "row" else "row"}.get(name, name)

    def sides(self, terms: Sequence[Term]) -> Dims | None:
        """The dimensions of a matrix by the names of two, as `extent` has them; None if these are no such names."""
        sizes = [size.name for size in self.scope.spec.sizes]
        names = [term.name for term in terms if isinstance(term, Name) and term.name in (*SIDES, *sizes)]
        if len(names) != 2 or len(terms) != 2:
            return None
        self.scope.used |= set(names)
        return Dims(*map(self.side, names))

    def _of_square(self, name: str, term: Written, a: Expr, *more: Expr) -> Product | None:
        dims = dims_of(a)
        if not dims.square or dims in (_ONE, IDENTITY):
            words = "an identity without a size" if dims == IDENTITY else f"one of {dims.words}"
            self.fault(term.span, f"{name}() is of square matrices, got {words}", f"for example: {name}(g @ g.T)")
            return None
        for exponent in more:
            if extent_of(exponent) > Extent.STEP:
                message = f"{name}(): expected an exponent of numbers and hyperparameters"
                self.fault(term.args[1].span, message, "for example: power(L, -1/4)")
                return None
        if name in _OF_SYMMETRIC:
            self.symmetric.append((a, name, term.span))
        gives = Dims(dims.rows, "") if name in _GIVES_ROWS else _ONE if name in _GIVES_ONE else dims
        return Product(name, (a, *more), gives)

    def _whole(self, name: str, term: Written, a: Expr) -> bool:
        """Whether an argument has both dimensions; record the fault if not."""
        dims = dims_of(a)
        if dims.extent == Extent.ELEMENT and dims != IDENTITY:
            return True
        self.fault(term.span, f"{name}() is of matrices, got one of {dims.words}", f"for example: {name}(g)")
        return False

    def _leading(self, term: Written, a: Expr, count: Expr) -> Product | None:
        if not (isinstance(count, Scalar) and count.hyper in {each.name for each in self.scope.spec.sizes}):
            message = "leading(): expected the name of a size as the number of vectors"
            self.fault(term.args[1].span, message, 'for example: [sizes] rank = { default = 8, most = "short" }')
            return None
        if not self._whole("leading", term, a):
            return None
        return Product("leading", (a, count), Dims(dims_of(a).rows, count.hyper))

    def _of_vector(self, name: str, term: Written, v: Expr) -> Product | None:
        dims = dims_of(v)
        symbol = dims.rows or dims.columns
        if dims.extent not in (Extent.ROW, Extent.COLUMN):
            message = f"{name}() is of one value for each row or column, got {dims.words}"
            self.fault(term.span, message, f"for example: {name}(sum(g, row))")
            return None
        return Product(name, (v,), Dims(symbol, symbol))


def sized(expr: Expr, dims: Dims) -> Expr:
    """`expr` with identities of these dimensions where they take them from where they stand."""
    if isinstance(expr, Product) and expr.op == "identity" and expr.dims == IDENTITY:
        return Product("identity", (), dims)
    return rebuilt(expr, tuple(sized(arg, dims) for arg in children(expr)))
