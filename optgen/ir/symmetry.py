"""Symmetry: which matrices are symmetric, as far as formulas show it.

In: the body and the states of a rule. Out: whether an expression is known to be symmetric. Nothing is computed, so a
matrix may be symmetric and not be known to be.

A state is symmetric if its initial value is, and what it is assigned is whenever the state is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .expr import Call, Const, Expr, Extent, Load, Local, Product, dims_of, extent_of
from .rule import Assign, State

__all__ = ["Symmetry"]


class Symmetry:
    """The symmetric values of a rule.

    Parameters
    ----------
    body
        The assignments of a step, in order.
    states
        The states, with their initial values.
    """

    def __init__(self, body: Sequence[Assign], states: Iterable[State]) -> None:
        self._values = {assign.target: assign.value for assign in body}
        self._known: dict[Expr, bool] = {}  # each expression is looked at once
        self._locals: set[str] = set()
        square = (state for state in states if state.dims is not None and state.dims.square)
        self._states = {state.name for state in square if state.init == Const(0.0) or self.known(state.init)}
        while leaning := self._leaning(body):
            self._states -= leaning

    def _leaning(self, body: Sequence[Assign]) -> set[str]:
        """The states that are assigned what is not symmetric, even if all of them were."""
        self._known.clear()
        self._locals.clear()
        for assign in body:  # in order, so that no value is more than one name away from what is known
            if self.known(assign.value):
                self._locals.add(assign.target)
        return {name for name in self._states if name in self._values and name not in self._locals}

    def known(self, expr: Expr) -> bool:
        """Whether a matrix is known to be symmetric."""
        if expr not in self._known:
            self._known[expr] = self._found(expr)
        return self._known[expr]

    def _found(self, expr: Expr) -> bool:
        match expr:
            case Local(name=name):
                return name in self._locals
            case Load(array=name):
                return name in self._states
            case Product(op="identity" | "power" | "diag"):
                return True
            case Product(op="transpose" | "inverse", args=(a,)):
                return self.known(a)
            case Product(op="matmul", args=(left, right)):
                return self._is_symmetric_product(left, right)
            case Call():
                # Whatever is done to each element alike leaves a symmetric matrix symmetric.
                matrices = [arg for arg in expr.args if extent_of(arg) > Extent.MATRIX]
                return bool(matrices) and all(dims_of(arg).square and self.known(arg) for arg in matrices)
        return False

    def _is_symmetric_product(self, left: Expr, right: Expr) -> bool:
        """Whether a product is `A A'`, the square of a symmetric matrix, or `A S A'`."""
        if left == self._turned(right):  # by their names
            return True
        left, right = self._shown(left), self._shown(right)
        if left == self._turned(right) or (left == right and self.known(left)):
            return True
        if isinstance(left, Product) and left.op == "matmul":
            a, s = left.args
            if self.known(s) and self._shown(a) == self._turned(right):
                return True
        if isinstance(right, Product) and right.op == "matmul":
            s, a = right.args
            return self.known(s) and left == self._turned(self._shown(a))
        return False

    def _shown(self, expr: Expr) -> Expr:
        """What a name of a product stands for."""
        value = self._values.get(expr.name) if isinstance(expr, Local) else None
        return value if isinstance(value, Product) and value.op in ("matmul", "transpose") else expr

    def _turned(self, expr: Expr) -> Expr:
        """The transpose of a matrix."""
        if isinstance(expr, Product) and expr.op == "transpose":
            return expr.args[0]
        return expr if self.known(expr) else Product("transpose", (expr,), dims_of(expr).transposed)
