"""The reference interpreter, the oracle: runs a checked rule, before any pass, with NumPy.

It shares with the kernels the names of the primitives and the arithmetic of scalars (`host`), and nothing else.
Slow and plain on purpose: one array for every operation, each rounded to the compute type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .host import Value, Values, evaluate
from .ir import PARAMETER, Call, Expr, Extent, Load, Local, Rule, extent_of
from .ops import power_steps

__all__ = ["NUMPY", "initial_state", "step"]

Array: TypeAlias = NDArray[Any]


def _powi(x: Array, n: Array) -> Array:
    powers = {1: x}
    for i, j in power_steps(int(n)):
        powers[i + j] = powers[i] * powers[j]
    return powers[int(n)]


NUMPY: dict[str, Callable[..., Any]] = {
    "neg": np.negative,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "powi": _powi,
    "pow": np.power,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "abs": np.absolute,
    "sign": np.sign,
    # np.minimum and np.maximum take either zero of two, by position and processor; these take the first.
    "min": lambda a, b: np.where((b < a) | np.isnan(b), b, a),
    "max": lambda a, b: np.where((b > a) | np.isnan(b), b, a),
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "where": np.where,
}


def initial_state(rule: Rule, values: Values) -> dict[str, float]:
    """What each state starts as, in float64."""
    return {state.name: float(evaluate(state.init, values, 0, {})) for state in rule.states}


def step(rule: Rule, values: Values, t: int, arrays: Mapping[str, Array]) -> None:
    """One step, in place. `arrays` holds "p", "g" and every state, of one shape and one dtype, the compute type."""
    dtype = arrays[PARAMETER].dtype
    names: dict[str, Value | Array] = {}

    def operand(expr: Expr) -> Array:
        """A value of any extent as an operand of the compute type: here a scalar is rounded, once."""
        result = value(expr)
        return np.asarray(result, dtype=None if isinstance(result, bool | np.bool_) else dtype)

    def value(expr: Expr) -> Value | Array:
        if extent_of(expr) <= Extent.STEP:
            return evaluate(expr, values, t, names)  # type: ignore[arg-type]
        match expr:
            case Load():
                return arrays[expr.array]
            case Local():
                return names[expr.name]
            case Call():
                result: Array = NUMPY[expr.op](*map(operand, expr.args))
                return result
        raise AssertionError(f"{expr} has no value")

    with np.errstate(all="ignore"):
        for assign in rule.body:
            result = value(assign.value)
            # A view would change under the feet of later formulas when the arrays are written.
            names[assign.target] = result.copy() if isinstance(assign.value, Load) else result  # type: ignore[union-attr]
        for name in rule.stores:
            arrays[name][...] = names[name]
