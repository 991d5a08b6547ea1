"""One step of a checked rule, before any pass.

In: a checked rule, hyperparameters, and the arrays of one or more tensors. Out: the arrays after one step, in place.

One array for every operation, each rounded to the compute type. Arrays in other storages are loaded before all
formulas, and stored after them. Values of lesser extent than an element are float64.
For a step, a group or a tensor they are Python numbers. For rows, columns and matrices they are arrays with as many
dimensions as the parameter, of length 1 along those that do not count; for blocks they are arrays of one dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..frozen import frozen, replace
from ..ir.draws import normal_of
from ..ir.evaluate import HOST, HyperValues, block_size, evaluate
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
    Reduce,
    Scalar,
    Shape,
    Size,
    extent_of,
    reduced_extent,
    type_of,
    varying_dimensions,
)
from ..ir.primitives import FOLD_OF, Type
from ..ir.rule import Rounding, Rule, Storages
from .codes import decoded, encoded
from .draws import drawn
from .folds import as_blocks, as_matrices, fold_blocks, fold_columns, in_order
from .primitives import FOLDS, NUMPY
from .rounding import rounding_bits

__all__ = ["Tensor", "computed_group", "evaluated", "initial_state", "shape_of", "step", "step_group"]

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
        made = {name: decoded(storage, self.arrays[name], dtype) for name, storage in self.storages}
        return {**self.arrays, **made}


def initial_state(rule: Rule, values: HyperValues, p: Array | None = None, ordinal: int = 0) -> dict[str, Any]:
    """The initial value of each state, in float64: a number, or an array like `p` where it depends on the parameter.

    `ordinal`: how many parameters the optimiser had before this one.
    """
    initial = {}
    for state in rule.states:
        if any(e == Load(PARAMETER) for e in _leaves(state.init)):
            place = np.zeros(0) if p is None else p
            run = _Step(rule, values, 0, {PARAMETER: place}, {}, [])
            with np.errstate(all="ignore"):
                initial[state.name] = run.value(state.init)
        elif state.init == Ordinal():
            initial[state.name] = float(ordinal)
        else:
            initial[state.name] = float(evaluate(state.init, values, 0, {}))
    return initial


def shape_of(
    extent: Extent, shape: tuple[int, ...], matrices: Matrices = Matrices.LAST_TWO, block: int = 0
) -> tuple[int, ...]:
    """The shape of a state of an extent, for a parameter of this shape: as many dimensions, or none at all; one for
    blocks, of so many elements."""
    if extent <= Extent.TENSOR:
        return ()
    if extent == Extent.BLOCK:
        return (-(-int(np.prod(shape)) // block),)
    varying = varying_dimensions(extent, len(shape), matrices)
    return tuple(n if d in varying else 1 for d, n in enumerate(shape))


def evaluated(rule: Rule, values: HyperValues, tensor: Tensor) -> Array:
    """What a parameter is evaluated with after an update, from the arrays that this has left."""
    arrays = tensor.loaded()
    run = _Step(rule, values, tensor.t, arrays, {}, [], block=_block(rule, values, arrays))
    with np.errstate(all="ignore"):
        for assign in rule.evaluation:
            run.names[assign.target] = run.value(assign.value)
        made = next(assign.value for assign in rule.evaluation if assign.target == PARAMETER)
        return np.broadcast_to(run.operand(Local(PARAMETER, extent_of(made), type_of(made))), run.shape)


def step(rule: Rule, values: HyperValues, t: int, arrays: Mapping[str, Array]) -> bool:
    """One step of one tensor, in place; whether it counts, as for `step_group`.

    `arrays` holds "p", "g" and every state. Those of extent ELEMENT have one shape, and the compute type as dtype; the
    others are float64, of the shape that `shape_of` gives.
    """
    group = {state.name: arrays[state.name] for state in rule.states if state.extent == Extent.GROUP}
    return step_group([(rule, values, Tensor(t, arrays))], group, values, t)


def step_group(
    tensors: Sequence[tuple[Rule, HyperValues, Tensor]], group: Mapping[str, Array], values: HyperValues, t: int
) -> bool:
    """One step of all tensors, in place, each in its own variant and with its own hyperparameters.

    `group` holds the states of extent GROUP. What is computed once for all tensors has the hyperparameters `values` and
    the count `t`.

    Returns whether the step counts. If not, nothing has changed but gradients that the rule overwrites, and states that
    always change.
    """
    write, _ = computed_group(tensors, group, values, t)
    return write()


def computed_group(
    tensors: Sequence[tuple[Rule, HyperValues, Tensor]], group: Mapping[str, Array], values: HyperValues, t: int
) -> tuple[Callable[[], bool], list[dict[str, Any]]]:
    """The step that `step_group` does, computed and not yet written: a call writes it, as often as one likes. With it
    what each tensor reports."""
    known: list[float] = []  # the values of the reductions over the group, in the order in which a step meets them
    while True:
        runs, parts = [], []
        for rule, own, tensor in tensors:
            block, arrays = _block(rule, own, tensor.arrays), tensor.loaded()
            run = _Step(rule, own, tensor.t, arrays, {}, list(known), group, (values, t), block)
            runs.append(run)
            try:
                with np.errstate(all="ignore"):
                    run.run()
            except _Needs as needed:
                parts.append(needed)
        if not parts:
            break
        known.append(_over_group(parts))
    counts = all([run.counts for run in runs])

    def write() -> bool:
        for run, (_, _, tensor) in zip(runs, tensors, strict=True):
            with np.errstate(all="ignore"):
                run.write(run.rule.stores if counts else run.rule.always, tensor)
        return counts

    return write, [{report.name: run.names[report.value] for report in run.rule.reports} for run in runs]


class _Needs(Exception):
    def __init__(self, fold: str, value: float) -> None:
        self.fold, self.value = fold, value


def _over_group(parts: Sequence[_Needs]) -> float:
    start, take = FOLDS[parts[0].fold]
    total: Any = start
    with np.errstate(all="ignore"):
        for part in parts:
            total = take(total, np.float64(part.value))
    return float(total)


@frozen
class _Step:
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
        extents = {assign.target: extent_of(assign.value) for assign in self.rule.body}
        storages, rounding = dict(to.storages), dict(to.rounding)
        for name in names:
            beside = extents[name] == Extent.BLOCK and name in self.rule.arrays
            value = self._beside_elements(self.names[name]) if beside else self.names[name]
            if name in storages:
                random = self._rounding_bits(name, rounding[name]) if name in rounding else None
                codes = encoded(storages[name], np.broadcast_to(value, self.shape).astype(self.dtype), random)
                to.arrays[name].view(codes.dtype)[...] = codes
            else:
                self._array(name)[...] = value

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
                return self.reduce(expr)
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

    def _once(self) -> _Step:
        """The same step with the hyperparameters and the count of the group, for a value of the group."""
        if self.once is None or self.once == (self.values, self.t):
            return self
        values, t = self.once
        again = _Step(self.rule, values, t, self.arrays, dict(self.names), self.known, self.group, block=self.block)
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
            return np.asarray(self.value(normal_of(Local(tail, Extent.ELEMENT, Type.REAL))))
        seed, t, parameter = (int(self.value(key)) for key in expr.key)
        return drawn(expr.op, expr.number, (seed, t, parameter), self.shape, self.dtype)

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

    def reduce(self, expr: Reduce) -> Any:
        of = reduced_extent(expr)
        args = [self._widened(arg, of) for arg in expr.args]
        x = args[0]
        if expr.op in ("dot", "norm"):
            x = args[0] * args[-1]
        total = self._fold(FOLD_OF[expr.op], x, of, expr.over)
        if expr.op == "norm":
            return HOST["sqrt"](total) if isinstance(total, float) else np.sqrt(total)
        if expr.op == "mean":
            count = self._count(of, expr.over)
            return HOST["div"](total, count) if isinstance(total, float) else total / count
        return total

    def _widened(self, expr: Expr, of: Extent) -> Array:
        """A value as float64, one for each of extent `of`; an element is rounded to the compute type before."""
        value = self.operand(expr) if of == Extent.ELEMENT else self.value(expr)
        return np.broadcast_to(np.asarray(value, np.float64), self._shape_of(of))

    def _shape_of(self, extent: Extent) -> tuple[int, ...]:
        return shape_of(extent, self.shape, self.rule.matrices, self.block)

    def _count(self, of: Extent, over: Extent) -> Any:
        """How many values of extent `of` there are in each of extent `over`: a number, for blocks an array."""
        each = int(np.prod(self._shape_of(of)))
        if over == Extent.GROUP:
            return self._over_group("sum", float(each))
        if over == Extent.BLOCK:
            begins = np.arange(0, each, self.block, dtype=np.float64)
            return np.minimum(each - begins, self.block)
        among = int(np.prod(self._shape_of(over)))
        return float(each // among) if among else 0.0

    def _over_group(self, fold: str, value: float) -> float:
        if not self.known:
            raise _Needs(fold, value)
        return self.known.pop(0)

    def _fold(self, fold: str, x: Array, of: Extent, over: Extent) -> Any:
        """`x`, of extent `of`, folded to one value for each of extent `over`."""
        if over == Extent.GROUP:
            return self._over_group(fold, self._fold(fold, x, of, Extent.TENSOR) if of > Extent.TENSOR else float(x))
        start, take = FOLDS[fold]
        target = self._shape_of(over)
        if not self.rule.tiled:
            return float(fold_blocks(x.reshape(1, -1), start, take)[0])
        if self.block:
            x = as_blocks(x, self.block if of == Extent.ELEMENT else 1, start)
        else:
            x = x.reshape(as_matrices(x.shape, self.rule.matrices))
        if over == Extent.COLUMN:
            return fold_columns(x, start, take).reshape(target)
        rows: Array
        if of == Extent.ELEMENT:
            rows = fold_blocks(x.reshape(x.shape[0] * x.shape[1], x.shape[2]), start, take).reshape(x.shape[:2])
            if over in (Extent.ROW, Extent.BLOCK):
                return rows.reshape(target)
        else:
            rows = x.reshape(x.shape[0], x.shape[1] * x.shape[2])
        # Rows of a matrix in order, or of all matrices.
        count = int(np.prod(target))
        result = in_order(rows.reshape(count, rows.size // max(1, count)), start, take)
        return result.reshape(target) if over > Extent.TENSOR else float(result[0])


def _block(rule: Rule, values: HyperValues, arrays: Mapping[str, Array]) -> int:
    return int(block_size(rule, values, arrays[PARAMETER].shape))


def _leaves(expr: Expr) -> list[Expr]:
    return [expr] if not isinstance(expr, Call) else [leaf for arg in expr.args for leaf in _leaves(arg)]
