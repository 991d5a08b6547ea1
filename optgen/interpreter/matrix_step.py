"""The step of one tensor of a rule with products of whole matrices.

In: what `Step` is given. Out: the same.

A tensor is seen as matrices, so every array has three dimensions here: which matrix, its rows, its columns. A value is
computed when it is read: what a course of the step does not need may have no meaning there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..frozen import replace
from ..ir.evaluate import HyperValues
from ..ir.expr import (
    PARAMETER,
    Call,
    Expr,
    Extent,
    Load,
    Local,
    Matrices,
    Product,
    Shape,
    dims_of,
    extent_of,
    reduces,
)
from ..ir.extents import Dims, default_dims
from ..ir.primitives import Type
from ..ir.rule import Rule, State
from .folds import as_matrices
from .products import MATRICES
from .tensor_step import Step

__all__ = ["MatrixStep", "initial_matrix", "side_lengths"]

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"


def side_lengths(rule: Rule, values: HyperValues, shape: tuple[int, ...]) -> dict[str, int]:
    """How long the dimensions are that a matrix of this rule may have, by their symbols; 1 for the empty one."""
    _, rows, columns = as_matrices(shape, rule.matrices)
    named = {each.name: int(values[each.hyper][0]) for each in rule.dimensions}
    return {"row": rows, "column": columns, "": 1, **named}


class _Values(dict[str, Any]):
    """The values of names, each computed when it is first read."""

    def __init__(self, of: MatrixStep) -> None:
        self.of = of
        self._formulas = {assign.target: assign.value for assign in of.rule.body}

    def __missing__(self, name: str) -> Any:
        given = self.of.results
        self[name] = found = given[name] if name in given else self.of.value(self._formulas[name])
        return found


class MatrixStep(Step):
    """What the expressions of one step are evaluated with, where there are products in them."""

    def reading(self) -> MatrixStep:
        """The same step, where a value is computed when it is first read."""
        values = _Values(self)
        values.of = replace(self, names=values)
        return values.of

    def run(self) -> None:
        run = self.reading()
        needed = self.rule.stores | self.rule.reported | {self.rule.accept}
        for assign in self.rule.body:
            # All tensors meet the reductions over the group in one order.
            together = any(e.over == Extent.GROUP for e in reduces([assign.value]))
            if together or assign.target in needed:
                self.names[assign.target] = run.names[assign.target]

    def stored(self, name: str) -> Any:
        kept = {state.name: (state.extent, state.dims) for state in self.rule.states}
        extent, dims = kept.get(name, (Extent.ELEMENT, None))
        value = self.names[name]
        if extent == Extent.ELEMENT:
            made = next(assign.value for assign in self.rule.body if assign.target == name)
            value = self.operand(Local(name, extent_of(made), Type.REAL))
        return np.broadcast_to(value, self._shape_of(extent, dims)).reshape(self._array(name).shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return as_matrices(super().shape, self.rule.matrices)

    @property
    def matrices(self) -> Matrices:
        return Matrices.LAST_TWO

    def value(self, expr: Expr) -> Any:
        match expr:
            case Shape():
                return float(expr.of(super().shape))
            case Load() if expr.extent > Extent.TENSOR:
                return self._array(expr.array).reshape(self._shape_of(expr.extent, expr.dims))
            case Product():
                return self._product(expr)
            case Call(op="where", args=(test, then, other)) if extent_of(test) <= Extent.TENSOR:
                chosen = then if self.value(test) else other
                return self.operand(chosen) if expr.extent == Extent.ELEMENT else self.value(chosen)
        return super().value(expr)

    def _product(self, expr: Product) -> Any:
        if expr.op == "identity":
            return np.eye(self._sides[expr.dims.rows], dtype=self.dtype)[None]
        found = MATRICES[expr.op](*map(self._argument, expr.args))
        return found if extent_of(expr) == Extent.ELEMENT else found.astype(np.float64)

    def _argument(self, expr: Expr) -> Any:
        """A whole matrix, or a number."""
        if extent_of(expr) < Extent.MATRIX:
            return self.value(expr)
        return np.broadcast_to(self.operand(expr), self._of(dims_of(expr)))

    @property
    def _sides(self) -> dict[str, int]:
        return side_lengths(self.rule, self.values, super().shape)

    def _of(self, dims: Dims) -> tuple[int, int, int]:
        """The shape of matrices of these dimensions."""
        matrices, _, _ = self.shape
        return matrices, self._sides[dims.rows], self._sides[dims.columns]

    def _shape_of(self, extent: Extent, dims: Dims | None = None) -> tuple[int, ...]:
        if extent <= Extent.TENSOR:
            return ()
        within = default_dims(Extent.ELEMENT) if dims is None else dims
        kept = {Extent.MATRIX: Dims("", ""), Extent.ROW: Dims(within.rows, ""), Extent.COLUMN: Dims("", within.columns)}
        return self._of(kept.get(extent, within))


def initial_matrix(rule: Rule, state: State, values: HyperValues, p: Array | None) -> Any:
    """The initial value of a matrix that is made of the identity."""
    if p is None:
        return 0.0
    run = MatrixStep(rule, values, 0, {PARAMETER: np.asarray(p, np.float64)}, {}, [])
    with np.errstate(all="ignore"):
        (made,) = np.broadcast_to(run.value(state.init), (1, *run._shape_of(Extent.ELEMENT, state.dims)[1:]))
    return np.array(made)
