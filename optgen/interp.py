"""The reference interpreter, the oracle: runs a checked rule, before any pass, with NumPy.

It shares with the kernels the names of the primitives and the arithmetic of scalars (`host`), and nothing else.
Slow and plain on purpose: one array for every operation, each rounded to the compute type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .host import Values, evaluate
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
    run = _Step(values, t, arrays, {})
    with np.errstate(all="ignore"):
        for assign in rule.body:
            result = run.value(assign.value)
            # An array of the caller's would change under the feet of a later name when the arrays are written.
            run.names[assign.target] = np.copy(result) if isinstance(assign.value, Load) else result
        for name in rule.stores:
            arrays[name][...] = run.names[name]


@dataclass
class _Step:
    """What the expressions of one step are evaluated with."""

    values: Values
    t: int
    arrays: Mapping[str, Array]
    names: dict[str, Any]  # of extent STEP or less a Python number, else an array

    def value(self, expr: Expr) -> Any:
        if extent_of(expr) <= Extent.STEP:
            return evaluate(expr, self.values, self.t, self.names)
        match expr:
            case Load():
                return self.arrays[expr.array]
            case Local():
                return self.names[expr.name]
            case Call():
                return NUMPY[expr.op](*map(self.operand, expr.args))
        raise AssertionError(f"{expr} has no value")

    def operand(self, expr: Expr) -> Any:
        """A value as an operand among elements: here a number of the host is rounded to the compute type, once."""
        value = self.value(expr)
        return self.arrays[PARAMETER].dtype.type(value) if isinstance(value, float) else value
