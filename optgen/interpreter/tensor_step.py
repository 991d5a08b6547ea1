"""The step of one tensor: its expressions, evaluated.

In: a checked rule, hyperparameters, and the arrays of a tensor. Out: the value of every name; they are written last.

One array for every operation, each rounded to the compute type. Arrays in other storages are loaded before all
formulas, and stored after them. Values of lesser extent than an element are float64.
For a step, a group or a tensor they are Python numbers. For rows, columns and matrices they are arrays with as many
dimensions as the parameter, of length 1 along those that do not count; for blocks and indices they are arrays of one
dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..frozen import frozen, replace
from ..ir.draws import normal_of
from ..ir.evaluate import HOST, HyperValues, evaluate
from ..ir.expr import (
    PARAMETER,
    Call,
    Const,
    Count,
    Draw,
    Expr,
    Extent,
    Given,
    Load,
    Local,
    Matrices,
    Ordinal,
    PerIndex,
    Reduce,
    Scalar,
    Shape,
    Size,
    extent_of,
    joint_dims,
    reduced_extent,
    type_of,
    varying_dimensions,
)
from ..ir.extents import Dims, outer_dimensions
from ..ir.primitives import FOLD_OF, Type
from ..ir.rule import Rounding, Rule, Storages
from .codes import decoded, encoded
from .draws import drawn
from .folds import as_blocks, as_matrices, fold_blocks, fold_columns, in_order
from .indices import beside, of_indices
from .primitives import FOLDS, NUMPY
from .rounding import rounding_bits

__all__ = ["GroupReduction", "Step", "Tensor", "shape_of"]

if TYPE_CHECKING:
    from numpy.typing import NDArray  # which takes a millisecond to load

Array: TypeAlias = "NDArray[Any]"


@frozen
class Tensor:
    """One parameter of a step: its `t`, this update included; "p", "g", other inputs, and every state but those of the
    group. `storages`: the arrays that are kept in another type than the compute type, each with its storage.
    `rounding`: those of them that are rounded stochastically."""

    t: int
    arrays: Mapping[str, Array]
    storages: Storages = ()
    rounding: Rounding = ()

    def loaded(self) -> dict[str, Array]:
        """The arrays in the compute type."""
        dtype = np.dtype(np.float32) if PARAMETER in dict(self.storages) else self.arrays[PARAMETER].dtype
        shape = self.arrays[PARAMETER].shape
        made = {name: decoded(storage, self.arrays[name], dtype, shape) for name, storage in self.storages}
        return {**self.arrays, **made}


def shape_of(
    extent: Extent, shape: tuple[int, ...], matrices: Matrices = Matrices.LAST_TWO, block: int = 0
) -> tuple[int, ...]:
    """The shape of a state of an extent, for a parameter of this shape: as many dimensions, or none at all; one for
    indices, and for blocks of so many elements."""
    if extent <= Extent.TENSOR:
        return ()
    if extent == Extent.INDEX:
        return (sum(shape),)
    if extent == Extent.BLOCK:
        return (-(-int(np.prod(shape)) // block),)
    varying = varying_dimensions(extent, shape, matrices)
    return tuple(n if d in varying else 1 for d, n in enumerate(shape))


class GroupReduction(Exception):
    """What a tensor gives to the next reduction over the group, whose result a step needs to go on."""

    def __init__(self, fold: str, value: float) -> None:
        self.fold, self.value = fold, value


@frozen
class Step:
    """What the expressions of one step of one tensor are evaluated with."""

    rule: Rule
    values: HyperValues
    t: int
    arrays: Mapping[str, Array]
    names: dict[str, Any]
    known: list[float]
    group: Mapping[str, Array] | None = None
    once: tuple[HyperValues, int] | None = None  # what a value of the group is computed with
    block: int = 0  # how many elements a block has
    results: Mapping[str, Array] = {}  # of products that are replayed: values to take instead of computing them

    def run(self) -> None:
        for assign in self.rule.body:
            # What all tensors have together is computed once, from the group's own scalars.
            shared = self.group is not None and assign.target in self.group
            result = (self._once() if shared else self).value(assign.value)
            # A copy, since writing the caller's arrays would otherwise change the values of later names.
            self.names[assign.target] = np.copy(result) if isinstance(assign.value, Load) else result

    @property
    def counts(self) -> bool:
        return not self.rule.accept or bool(self.names[self.rule.accept])

    def write(self, names: Iterable[str], to: Tensor) -> None:
        storages, rounding = dict(to.storages), dict(to.rounding)
        for name in names:
            value = self.stored(name)
            if name in storages:
                random = self._rounding_bits(name, rounding[name]) if name in rounding else None
                codes = encoded(storages[name], np.broadcast_to(value, self.shape).astype(self.dtype), random)
                to.arrays[name].view(codes.dtype)[...] = codes
            else:
                self._array(name)[...] = value

    def stored(self, name: str) -> Any:
        """The value of a name as its array takes it."""
        value = self.names[name]
        if not self.block or name not in self.rule.arrays:
            return value
        extent = next(extent_of(assign.value) for assign in self.rule.body if assign.target == name)
        return self._beside_elements(value) if extent == Extent.BLOCK else value

    def value(self, expr: Expr) -> Any:
        """A Python number up to extent TENSOR, else an array; for rows, columns and matrices of float64."""
        match expr:
            case Const() | Scalar() | Given():
                return evaluate(expr, self.values, 0, {})
            case Count():
                return float(self.t)
            case Size():
                return self._count(expr.of, expr.over)
            case Shape():
                return float(expr.of(self.shape))
            case Load():
                array = self._array(expr.array)
                return float(array) if expr.extent <= Extent.TENSOR else array
            case Local():
                return self.names[expr.name]
            case Reduce():
                return self._beside(expr) if reduced_extent(expr) == Extent.INDEX else self.reduce(expr)
            case PerIndex():
                rows, columns = self.value(expr.rows), self.value(expr.columns)
                return of_indices(rows, columns, self.shape, self._outer, *FOLDS[expr.op])
            case Draw():
                return self._draw(expr)
            case Call():
                if expr.extent <= Extent.TENSOR:
                    run = self._once() if expr.extent == Extent.GROUP else self
                    return HOST[expr.op](*map(run.value, expr.args))
                if expr.extent < Extent.ELEMENT:
                    gives = [bool if type_of(expr) is Type.BOOL else float]
                    return np.vectorize(HOST[expr.op], otypes=gives)(*map(self.value, expr.args))
                return NUMPY[expr.op](*map(self.operand, expr.args))
        raise AssertionError(f"{expr} has no value")

    def _once(self) -> Step:
        """The same step with the hyperparameters and the count of the group, for a value of the group."""
        if self.once is None or self.once == (self.values, self.t):
            return self
        values, t = self.once
        again = replace(self, values=values, t=t, names=dict(self.names), once=None)
        for assign in self.rule.body:
            if extent_of(assign.value) <= Extent.STEP and assign.target in self.names:
                again.names[assign.target] = again.value(assign.value)
        return again

    def operand(self, expr: Expr) -> Any:
        """A value as an operand among elements, where a number of the host is rounded to the compute type, once."""
        value = self.value(expr)
        if extent_of(expr) == Extent.BLOCK:
            value = self._beside_elements(value)
        if extent_of(expr) == Extent.ELEMENT or type_of(expr) is Type.BOOL:
            return value
        return self.dtype.type(value) if isinstance(value, float) else value.astype(self.dtype)

    def _beside_elements(self, blocks: Array) -> Array:
        """The value of each block beside each of its elements."""
        return np.repeat(blocks, self.block)[: int(np.prod(self.shape))].reshape(self.shape)

    def _array(self, name: str) -> Array:
        return self.group[name] if self.group is not None and name in self.group else self.arrays[name]

    # ---- Random numbers ----

    def _draw(self, expr: Draw) -> Array:
        """The numbers of a draw, one for each element, in the compute type."""
        if expr.op == "normal":
            tail = f"{expr.number}"  # no name of a formula
            self.names[tail] = self._draw(replace(expr, op="tail"))
            return np.asarray(self.value(normal_of(Local(tail, Extent.ELEMENT, Type.REAL, expr.dims))))
        seed, t, parameter = (int(self.value(key)) for key in expr.key)
        shape = self._shape_of(Extent.ELEMENT, expr.dims)
        return drawn(expr.op, expr.number, (seed, t, parameter), shape, self.arrays[PARAMETER].dtype)

    def _rounding_bits(self, name: str, seed: str) -> Array:
        """The random bits by which an array is rounded, for each element."""
        stream = next(state.name for state in self.rule.states if state.init == Ordinal())
        elements = np.arange(int(np.prod(self.shape)), dtype=np.uint64).reshape(self.shape)
        parameter, number = int(self.arrays[stream]), self.rule.arrays.index(name)
        return rounding_bits(int(self.values[seed][0]), self.t, parameter, number, elements)

    # ---- Reductions ----

    @property
    def shape(self) -> tuple[int, ...]:
        return self.arrays[PARAMETER].shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The compute type."""
        return self.arrays[PARAMETER].dtype

    @property
    def matrices(self) -> Matrices:
        return self.rule.matrices

    def reduce(self, expr: Reduce) -> Any:
        of, dims = reduced_extent(expr), joint_dims(expr.args)
        args = [self._widened(arg, of, dims) for arg in expr.args]
        x = args[0]
        if expr.op in ("dot", "norm"):
            x = args[0] * args[-1]
        total = self._fold(FOLD_OF[expr.op], x, of, expr.over, dims)
        if expr.op == "norm":
            return HOST["sqrt"](total) if isinstance(total, float) else np.sqrt(total)
        if expr.op == "mean":
            count = self._count(of, expr.over, dims)
            return HOST["div"](total, count) if isinstance(total, float) else total / count
        return total

    def _beside(self, expr: Reduce) -> Any:
        """A reduction of values of indices: to one for each of the elements, rows or columns that have these indices,
        or for the tensor."""
        if expr.over not in (Extent.ROW, Extent.COLUMN, Extent.ELEMENT):
            return self.reduce(expr)
        values = self._widened(expr.args[0], Extent.INDEX, None)
        rows, columns = beside(values, self.shape, self._outer, *FOLDS[expr.op])
        if expr.over == Extent.ELEMENT:
            return NUMPY[expr.op](rows.astype(self.dtype), columns.astype(self.dtype))
        return rows if expr.over == Extent.ROW else columns

    @property
    def _outer(self) -> int:
        return outer_dimensions(self.shape, self.matrices)

    def _widened(self, expr: Expr, of: Extent, dims: Dims | None) -> Array:
        """A value as float64, one for each of extent `of`; an element is rounded to the compute type before."""
        value = self.operand(expr) if of == Extent.ELEMENT else self.value(expr)
        return np.broadcast_to(np.asarray(value, np.float64), self._shape_of(of, dims))

    def _shape_of(self, extent: Extent, dims: Dims | None = None) -> tuple[int, ...]:
        """The shape of the values of an extent, for a matrix of other dimensions than the parameter of these `dims`."""
        return shape_of(extent, self.shape, self.matrices, self.block)

    def _count(self, of: Extent, over: Extent, dims: Dims | None = None) -> Any:
        """How many values of extent `of` there are in each of extent `over`: a number, for blocks an array."""
        each = int(np.prod(self._shape_of(of, dims)))
        if over == Extent.GROUP:
            return self._over_group("sum", float(each))
        if over == Extent.BLOCK:
            begins = np.arange(0, each, self.block, dtype=np.float64)
            return np.minimum(each - begins, self.block)
        among = int(np.prod(self._shape_of(over, dims)))
        return float(each // among) if among else 0.0

    def _over_group(self, fold: str, value: float) -> float:
        if not self.known:
            raise GroupReduction(fold, value)
        return self.known.pop(0)

    def _fold(self, fold: str, x: Array, of: Extent, over: Extent, dims: Dims | None) -> Any:
        """`x`, of extent `of`, folded to one value for each of extent `over`."""
        if over == Extent.GROUP:
            own = self._fold(fold, x, of, Extent.TENSOR, dims) if of > Extent.TENSOR else float(x)
            return self._over_group(fold, own)
        start, take = FOLDS[fold]
        target = self._shape_of(over, dims)
        if not self.rule.tiled:
            return float(fold_blocks(x.reshape(1, -1), start, take)[0])
        if self.block:
            x = as_blocks(x, self.block if of == Extent.ELEMENT else 1, start)
        elif of == Extent.INDEX:
            x = x[None, None]
        else:
            x = x.reshape(as_matrices(x.shape, self.matrices))
        if over == Extent.COLUMN:
            return fold_columns(x, start, take).reshape(target)
        rows: Array
        if of == Extent.ELEMENT:
            rows = fold_blocks(x.reshape(x.shape[0] * x.shape[1], x.shape[2]), start, take).reshape(x.shape[:2])
            if over == Extent.INDEX:
                return of_indices(rows, fold_columns(x, start, take), self.shape, self._outer, start, take)
            if over in (Extent.ROW, Extent.BLOCK):
                return rows.reshape(target)
        else:
            rows = x.reshape(x.shape[0], x.shape[1] * x.shape[2])
        # Rows of a matrix in order, or of all matrices.
        count = int(np.prod(target))
        result = in_order(rows.reshape(count, rows.size // max(1, count)), start, take)
        return result.reshape(target) if over > Extent.TENSOR else float(result[0])
