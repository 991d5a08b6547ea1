"""Orientation: each matrix of a step is kept one way round, so that no transpose is ever computed.

In: a rule in which products have names. Out: the same, where names of `turned` stand for the transposes of what they
were. A formula goes over elements either way round; a product of transposes is the transpose of the product, the other
way round. What is reduced keeps its own way, since the order of a reduction is that of rows and columns.

Guarantees: in formulas transposes are of names and arrays only, and stand only where the same matrix is needed both
ways, or where a reduction needs it the other way.
"""

from __future__ import annotations

from ..frozen import frozen, replace
from ..ir.expr import Call, Expr, Extent, Load, Local, Product, Reduce, children, dims_of, extent_of, local_of, rebuilt
from ..ir.extents import Dims
from ..ir.rule import Assign, Rule
from .name_products import transposed

__all__ = ["PARAMETER_DIMS", "Oriented", "oriented"]

PARAMETER_DIMS = Dims("row", "column")


@frozen
class Oriented:
    """A rule whose matrices have one orientation each; `turned`: the names of transposes."""

    rule: Rule
    turned: frozenset[str]


def oriented(rule: Rule) -> Oriented:
    turning = _Turning(rule)
    body = tuple(map(turning.assign, rule.body))
    return Oriented(replace(rule, body=body), frozenset(turning.turned))


class _Turning:
    def __init__(self, rule: Rule) -> None:
        self.ways: dict[frozenset[str], Dims] = {frozenset(("row", "column")): PARAMETER_DIMS}
        for state in rule.matrix_states:
            if state.dims is not None:
                self._way(state.dims)
        self.stores = rule.stores
        self.turned: dict[str, Local] = {}

    def _way(self, dims: Dims) -> Dims:
        """How matrices of these dimensions are kept, as the first of them is."""
        return self.ways.setdefault(frozenset((dims.rows, dims.columns)), dims)

    def assign(self, assign: Assign) -> Assign:
        target, value = assign.target, assign.value
        dims = dims_of(value)
        of_elements = extent_of(value) == Extent.ELEMENT
        free = isinstance(value, Call) or (isinstance(value, Product) and value.op == "matmul")
        if of_elements and free and target not in self.stores and self._way(dims) != dims:
            made = self.turn(value)
            self.turned[target] = local_of(target, made)
            return Assign(target, made)
        if of_elements:
            self._way(dims)
        return Assign(target, self.plain(value))

    def plain(self, expr: Expr) -> Expr:
        """`expr` of names as they are kept."""
        match expr:
            case Local(name=name) if name in self.turned:
                return transposed(self.turned[name])
            case Product(op="transpose", args=(inner,)):
                return self.turn(inner)
        return rebuilt(expr, tuple(map(self.plain, children(expr))))

    def turn(self, expr: Expr) -> Expr:
        """The transpose of `expr`."""
        match expr:
            case Local(name=name) if name in self.turned:
                return self.turned[name]
            case Local() | Load():
                return transposed(expr)
            case Product(op="transpose", args=(inner,)):
                return self.plain(inner)
            case Product(op="matmul", args=(a, b)):
                return Product("matmul", (self.turn(b), self.turn(a)), expr.dims.transposed)
            case Call():
                return Call(expr.op, tuple(map(self.turn, expr.args)))
            case Reduce() | Product():
                raise AssertionError(f"{expr} has a name")
        return expr
