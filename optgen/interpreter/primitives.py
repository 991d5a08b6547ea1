"""The primitives in NumPy, each rounded to the dtype of its arguments; and how reductions go on from value to value.

In: nothing. Out: tables with the keys of `ir.primitives`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..ir.functions.coefficients import NUMBERS
from ..ir.functions.definition import compiled
from ..ir.functions.lookup import function
from ..ir.primitives import DEFINED, power_steps
from ..ir.storages import STORAGES
from .storages import load, store

__all__ = ["AT_ONCE", "FOLDS", "NUMPY"]

if TYPE_CHECKING:
    from numpy.typing import NDArray  # which takes a millisecond to load

Array: TypeAlias = "NDArray[Any]"


def _powi(x: Array, n: Array) -> Array:
    powers = {1: x}
    for i, j in power_steps(int(n)):
        powers[i + j] = powers[i] * powers[j]
    return powers[int(n)]


def _bfloat16(x: Array) -> Array:
    kept = STORAGES["bfloat16"]
    return load(kept, store(kept, x)).astype(x.dtype)


def _mod(a: Array, b: Array) -> Array:
    rest = np.fmod(a, b)
    return np.where(rest == 0, np.copysign(rest, b), np.where((rest < 0) != (b < 0), rest + b, rest))


def _floordiv(a: Array, b: Array) -> Array:
    rest = np.fmod(a, b)
    near = (a - rest) / b - ((rest != 0) & ((rest < 0) != (b < 0)))
    whole = np.floor(near)
    whole = np.where(near - whole > 0.5, whole + 1, whole)
    return np.where(b == 0, a / b, np.where(near == 0, np.copysign(near, a / b), whole))


_TOP, _FRACTION = np.uint64(27), np.uint64(52)


def _bits(x: Any) -> NDArray[np.uint64]:
    return np.asarray(x, np.float64).view(np.uint64)


def _exponent(x: Array, least: float) -> Array:
    return (_bits(x) - _bits(least) + _bits(1.0) >> _FRACTION).astype(np.float64) - 1023


def _significand(x: Array, least: float) -> Array:
    fraction = _bits(x) - _bits(least) + _bits(1.0) & (np.uint64(1) << _FRACTION) - np.uint64(1)
    return (fraction + _bits(least)).view(np.float64)


@cache
def _made(name: str, dtype: str) -> Callable[..., Array]:
    return compiled(function(name, dtype), NUMPY)


def _defined(name: str) -> Callable[..., Array]:
    def call(*args: Array) -> Array:
        dtype = np.result_type(*args)
        return _made(name, dtype.name)(*(np.asarray(arg, np.float64) for arg in args)).astype(dtype)

    return call


NUMPY: dict[str, Callable[..., Any]] = {
    "neg": np.negative,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "powi": _powi,
    "sqrt": np.sqrt,
    "abs": np.absolute,
    "sign": np.sign,
    "floor": np.floor,
    "bfloat16": _bfloat16,
    "mod": _mod,
    "floordiv": _floordiv,
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
    "top": lambda x: (_bits(x) >> _TOP << _TOP).view(np.float64),
    "exponent": _exponent,
    "significand": _significand,
    "power_of_two": lambda k: (_bits(k + (1.5 * 2**52 + 1023)) << _FRACTION).view(np.float64),
    "copysign": np.copysign,
    "two_over_pi": lambda k: np.array(NUMBERS["TWO_OVER_PI"])[np.asarray(k).astype(np.int64) + 42],
    **{name: _defined(name) for name in DEFINED},
}

#: Of each way to fold values: what it starts from, and how it takes one more.
FOLDS: dict[str, tuple[float, Callable[[Any, Any], Any]]] = {
    "sum": (0.0, NUMPY["add"]),
    "max": (-np.inf, NUMPY["max"]),
    "min": (np.inf, NUMPY["min"]),
}


def _first(place: Callable[..., Any]) -> Callable[[Any], Any]:
    """The value at the first place that NumPy finds: where there is NaN, that of the first one."""
    return lambda x: np.take_along_axis(x, place(x, axis=1, keepdims=True), axis=1)[:, 0]


#: What comes of taking one value after the other along the second axis, found at once.
AT_ONCE: dict[Callable[[Any, Any], Any], Callable[[Any], Any]] = {
    NUMPY["add"]: lambda x: np.add.accumulate(x, axis=1)[:, -1],
    NUMPY["max"]: _first(np.argmax),
    NUMPY["min"]: _first(np.argmin),
}
