"""The step of one tensor: its expressions, evaluated with another array library.

In: a checked rule, hyperparameters, a count, and the arrays of a tensor. Out: the value of every name.

Numbers of Python stay what they are, and are computed on the host, as long as no array meets them: so a count or a
hyperparameter that is given as a number costs nothing, and one that is given as an array may be traced. Values of less
than element extent are of the library's widest type. Of a choice that is decided by a number of Python, only the side
that is chosen is computed.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import reduce
from typing import Any

from ..frozen import replace
from ..interpreter import as_matrices, by_dimension, shape_of, side_lengths
from ..ir.draws import normal_of
from ..ir.evaluate import HOST, block_size
from ..ir.expr import (
    PARAMETER,
    Call,
    Const,
    Count,
    Draw,
    Expr,
    Given,
    Load,
    Local,
    Ordinal,
    Product,
    Reduce,
    Scalar,
    Size,
    dims_of,
    extent_of,
    joint_dims,
    local_of,
    reduced_extent,
    type_of,
)
from ..ir.expr import Shape as Length
from ..ir.extents import Dims, Extent, Matrices, default_dims, varying_dimensions
from ..ir.primitives import FOLD_OF, Type
from ..ir.rule import Assign, Part, Rule, State
from .draws import drawn
from .library import Array, LibraryTable, Shape

__all__ = ["TensorStep"]

#: The primitives in which a number of Python may stand beside an array.
_ARITHMETIC = frozenset(("neg", "add", "sub", "mul", "div", "lt", "le", "gt", "ge", "eq", "ne", "powi"))
#: What changes nothing in a reduction.
_START = {"sum": 0.0, "max": -math.inf, "min": math.inf}


class TensorStep:
    """What the expressions of one step of one tensor are evaluated with.

    Parameters
    ----------
    library
        What arrays are computed with.
    rule
        The rule, in the variant for this tensor.
    values
        The numbers of each hyperparameter, and what else the step is given; of Python, or arrays.
    t
        The count of updates, this one included; likewise.
    arrays
        "p", "g", the inputs, and every state.
    formulas
        Those of the step, or those of what is evaluated.

    Attributes
    ----------
    over_group
        The values of the reductions over all tensors, as far as they are known.
    """

    def __init__(
        self,
        library: LibraryTable,
        rule: Rule,
        values: Mapping[str, tuple[Any, ...]],
        t: Any,
        arrays: Mapping[str, Array],
        formulas: Sequence[Assign],
    ) -> None:
        self.library = library
        self.rule = rule
        self.values = values
        self.t = t
        self.arrays = arrays
        self.over_group: dict[Expr, Any] = {}
        self.names: MutableMapping[str, Any] = {}
        self._formulas = {assign.target: assign.value for assign in formulas}
        self._p = arrays[PARAMETER]
        self.dtype = library.compute_type(self._p)
        self.wide = library.wide_type(self._p)
        self.own_shape: Shape = tuple(self._p.shape)
        whole = rule.multiplies
        self.shape = as_matrices(self.own_shape, rule.matrices) if whole else self.own_shape
        self.matrices = Matrices.LAST_TWO if whole else rule.matrices
        self.block = int(block_size(rule, values, self.own_shape))

    # ---- Results ----

    def named(self, name: str) -> Any:
        """The value of a name, computed when it is first asked for."""
        if name not in self.names:
            self.names[name] = self.value(self._formulas[name])
        return self.names[name]

    def written(self, name: str) -> Array:
        """The value of an array or a state after the step, as it is kept."""
        if name not in self._formulas:
            return self.arrays[name]
        local = local_of(name, self._formulas[name])
        return self.kept(name, self.operand(local) if local.extent == Extent.ELEMENT else self.value(local))

    def update(self, name: str) -> Array:
        """What a step adds to the parameter, before that is rounded to its type; of a part that works on the gradient,
        what this becomes."""
        match self._formulas[name]:
            case Call(op="sub", args=(Load(array), step)) if array == name:
                change = self._spread(self.operand(step), self._shape_of(Extent.ELEMENT))
                change = change if self.rule.part == Part.GRADIENT else self.primitive("neg", [change], self.dtype)
            case _:
                new, old = (self.library.cast(x, self.dtype) for x in (self.written(name), self._p))
                change = self.primitive("sub", [new, old], self.dtype)
        return self.library.cast(change, self._p.dtype).reshape(self.own_shape)

    def beside(self, value: Any) -> Any:
        """A value of another tensor, which may be on another device."""
        return self.library.beside(value, self._p) if self.library.owns(value) else value

    def joined(self, op: str, own: Any, other: Any) -> Any:
        """A primitive of a value here and one of another tensor."""
        return self.primitive(op, [own, self.beside(other)], self.wide)

    def kept(self, name: str, value: Any) -> Array:
        """A value in the shape and type in which the array or state of this name is kept."""
        state = next((each for each in self.rule.states if each.name == name), None)
        if state is None:
            state, dtype = State(name, Const(0.0), ""), self._p.dtype
        else:
            dtype = self.dtype if state.extent == Extent.ELEMENT else self.wide
        value = self._spread(value, self._shape_of(state.extent, state.dims))
        found, shape = self.library.cast(value, dtype), self.state_shape(state)
        return found if tuple(found.shape) == shape else found.reshape(shape)

    def state_shape(self, state: State) -> Shape:
        """The shape of a state of this tensor, as it is kept."""
        if state.extent <= Extent.TENSOR:
            return ()
        found = self._shape_of(state.extent, state.dims)
        if not self.rule.multiplies:
            return found
        if state.extent == Extent.ELEMENT and state.dims is None:
            return self.own_shape
        if state.dims is not None:
            batch = self.own_shape[:-2] if self.rule.matrices == Matrices.LAST_TWO else ()
            return (*batch, *found[1:])
        return shape_of(state.extent, self.own_shape, self.rule.matrices, self.block)

    def initial(self, state: State, ordinal: int) -> Array:
        """The state of this tensor before the first step."""
        value = float(ordinal) if state.init == Ordinal() else self.value(state.init)
        return self.library.apart(self.kept(state.name, value))

    # ---- Values ----

    def value(self, expr: Expr) -> Any:
        """A number of Python or an array of no dimensions, up to extent TENSOR. Else an array with as many dimensions
        as the tensor has, of length 1 along those that do not count; for blocks, of one dimension."""
        match expr:
            case Const():
                return expr.value
            case Scalar():
                return self.values[expr.hyper][max(0, expr.index - 1)]
            case Given():
                return self.values[expr.name][0]
            case Count():
                return float(self.t) if isinstance(self.t, int) else self.t
            case Size():
                return self._count(expr.of, expr.over)
            case Length():
                return float(expr.of(self.own_shape))
            case Load():
                return self._loaded(expr)
            case Local():
                return self.named(expr.name)
            case Reduce():
                return self._reduced(expr)
            case Draw():
                return self._drawn(expr)
            case Product():
                return self._product(expr)
            case Call(op="where", args=(test, then, other)) if extent_of(test) <= Extent.TENSOR:
                return self._chosen(expr, self.value(test), then, other)
            case Call():
                return self._called(expr)
        raise AssertionError(f"{expr} has no value")

    def operand(self, expr: Expr) -> Any:
        """A value as an operand among elements, in the compute type."""
        value = self.value(expr)
        if extent_of(expr) == Extent.BLOCK:
            value = self._beside_elements(value)
        plain = type_of(expr) is Type.BOOL or not self.library.owns(value)
        return value if plain else self.library.cast(value, self.dtype)

    def _loaded(self, expr: Load) -> Array:
        array = self.arrays[expr.array]
        if expr.extent == Extent.ELEMENT:
            array = self.library.cast(array, self.dtype)
        if self.rule.multiplies and expr.extent > Extent.TENSOR:
            return array.reshape(self._shape_of(expr.extent, expr.dims))
        return array

    def _called(self, expr: Call) -> Any:
        among = expr.extent == Extent.ELEMENT
        args = [self.operand(arg) if among else self.value(arg) for arg in expr.args]
        return self.primitive(expr.op, args, self.dtype if among else self.wide)

    def primitive(self, op: str, args: list[Any], dtype: Any) -> Any:
        """A primitive of numbers of Python, or of arrays and numbers."""
        if not any(map(self.library.owns, args)):
            return HOST[op](*args)
        if not (self.library.weak and op in _ARITHMETIC):
            args = [arg if self.library.owns(arg) else self._number(arg, dtype) for arg in args]
        return self.library.primitives[op](*args)

    def _number(self, value: float | bool, dtype: Any) -> Array:
        return self.library.number(value, bool if isinstance(value, bool) else dtype, self._p)

    def _chosen(self, expr: Call, test: Any, then: Expr, other: Expr) -> Any:
        """One of two values, by what is the same all over the tensor."""
        among = expr.extent == Extent.ELEMENT
        if not self.library.owns(test):
            chosen = then if test else other
            return self.operand(chosen) if among else self.value(chosen)
        if not self.rule.multiplies:
            return self._called(expr)
        dtype = self.dtype if among else self.wide
        shape = self._shape_of(expr.extent, dims_of(expr))

        def side(chosen: Expr) -> Callable[[], Array]:
            """One side by itself: what is computed there is known there only."""

            def found() -> Array:
                apart = self._apart()
                value = apart.operand(chosen) if among else apart.value(chosen)
                value = self.library.cast(value, dtype) if self.library.owns(value) else self._number(value, dtype)
                return self.library.broadcast(value, shape)

            return found

        return self.library.select(test, side(then), side(other))

    def _apart(self) -> TensorStep:
        """The same step, whose further names are its own."""
        apart = object.__new__(TensorStep)
        apart.__dict__.update(self.__dict__, names=ChainMap({}, self.names))
        return apart

    # ---- Shapes ----

    def _shape_of(self, extent: Extent, dims: Dims | None = None) -> Shape:
        if not self.rule.multiplies or extent <= Extent.TENSOR:
            return shape_of(extent, self.shape, self.matrices, self.block)
        within = default_dims(Extent.ELEMENT) if dims is None else dims
        kept = {Extent.MATRIX: Dims("", ""), Extent.ROW: Dims(within.rows, ""), Extent.COLUMN: Dims("", within.columns)}
        return self._of(kept.get(extent, within))

    def _of(self, dims: Dims) -> Shape:
        """The shape of matrices of these dimensions."""
        return self.shape[0], self._sides[dims.rows], self._sides[dims.columns]

    @property
    def _sides(self) -> dict[str, int]:
        return side_lengths(self.rule, self.values, self.own_shape)

    def _spread(self, value: Any, shape: Shape) -> Array:
        value = value if self.library.owns(value) else self._number(value, self.dtype)
        return value if tuple(value.shape) == shape else self.library.broadcast(value, shape)

    def _beside_elements(self, blocks: Array) -> Array:
        """The value of each block beside each of its elements."""
        count = math.prod(self.shape)
        rows = self.library.broadcast(blocks.reshape((-1, 1)), (-(-count // self.block), self.block))
        return rows.reshape((-1,))[:count].reshape(self.shape)

    # ---- Reductions ----

    def _reduced(self, expr: Reduce) -> Any:
        if expr.over == Extent.GROUP:
            return self._finished(expr, self.beside(self.over_group[expr]))
        if expr.over == Extent.ELEMENT:
            values = self.library.cast(self._widened(expr.args[0], Extent.INDEX, None), self.dtype)
            return reduce(self.library.primitives[expr.op], by_dimension(values, self.shape))
        return self._finished(expr, self._folded(expr, expr.over))

    def partial(self, expr: Reduce | Size) -> Any:
        """What this tensor gives to a reduction over the group, or to a count of it."""
        return self._count(expr.of, Extent.TENSOR) if isinstance(expr, Size) else self._folded(expr, Extent.TENSOR)

    def _folded(self, expr: Reduce, over: Extent) -> Array:
        of, dims = reduced_extent(expr), joint_dims(expr.args)
        x, *more = [self._widened(arg, of, dims) for arg in expr.args]
        if expr.op in ("dot", "norm"):
            x = x * (more[0] if more else x)
        fold = FOLD_OF[expr.op]
        if of <= over:
            return x
        reduced = self.library.reductions[fold]
        if of in (Extent.BLOCK, Extent.INDEX):
            return reduced(x, (0,)).reshape(())
        if over == Extent.BLOCK:
            return reduced(self._in_blocks(x, _START[fold]), (1,)).reshape((-1,))
        if over == Extent.INDEX:
            others = [tuple(d for d in range(x.ndim) if d != own) for own in range(x.ndim)]
            return self.library.join([reduced(x, axes).reshape((-1,)) for axes in others])
        varying = varying_dimensions(over, self.shape, self.matrices)
        axes = tuple(d for d in range(len(self.shape)) if d not in varying)
        return reduced(x, axes).reshape(self._shape_of(over, dims)) if axes else x

    def _finished(self, expr: Reduce, total: Array) -> Any:
        if expr.op == "norm":
            return self.primitive("sqrt", [total], self.wide)
        if expr.op == "mean":
            count = self._count(reduced_extent(expr), expr.over, joint_dims(expr.args))
            return self.primitive("div", [total, count], self.wide)
        return total

    def _widened(self, expr: Expr, of: Extent, dims: Dims | None) -> Array:
        value = self.operand(expr) if of == Extent.ELEMENT else self.value(expr)
        value = self.library.cast(value, self.wide) if self.library.owns(value) else self._number(value, self.wide)
        return self.library.broadcast(value, self._shape_of(of, dims))

    def _in_blocks(self, x: Array, start: float) -> Array:
        """A row for each block; what the last one lacks changes nothing."""
        count = math.prod(self.shape)
        missing = -count % self.block
        flat = x.reshape((-1,))
        if missing:
            flat = self.library.join([flat, self.library.broadcast(self._number(start, self.wide), (missing,))])
        return flat.reshape((-1, self.block))

    def _count(self, of: Extent, over: Extent, dims: Dims | None = None) -> Any:
        """How many values of extent `of` there are in each of extent `over`."""
        if over == Extent.GROUP:
            return self.over_group[Size(over, of)]
        each = math.prod(self._shape_of(of, dims))
        if over == Extent.BLOCK:
            sizes = [min(self.block, each - begin) for begin in range(0, each, self.block)]
            return self.library.join([self._number(float(n), self.wide).reshape((1,)) for n in sizes])
        among = math.prod(self._shape_of(over, dims))
        return float(each // among) if among else 0.0

    # ---- Random numbers, and whole matrices ----

    def _drawn(self, expr: Draw) -> Array:
        if expr.op == "normal":
            tail = f"{expr.number}"  # no name of a formula
            self.names[tail] = self._drawn(replace(expr, op="tail"))
            return self.value(normal_of(Local(tail, Extent.ELEMENT, Type.REAL, expr.dims)))
        shape = self._shape_of(Extent.ELEMENT, expr.dims)
        bits = 52 if self.dtype.itemsize == 8 else 24
        key = [self.value(each) for each in expr.key]
        flat = drawn(self.library, expr.op, expr.number, key, math.prod(shape), self.dtype, bits, self._p)
        return flat.reshape(shape)

    def _product(self, expr: Product) -> Array:
        if expr.op == "identity":
            return self.library.identity(self._sides[expr.dims.rows], self.dtype, self._p)[None]
        found = self.library.products[expr.op](*map(self._argument, expr.args))
        return found if extent_of(expr) == Extent.ELEMENT else self.library.cast(found, self.wide)

    def _argument(self, expr: Expr) -> Any:
        """A whole matrix, or a number."""
        if extent_of(expr) < Extent.MATRIX:
            return self.value(expr)
        return self._spread(self.operand(expr), self._of(dims_of(expr)))
