"""The functions of autograd that stand for those of NumPy inside `gradient`, and repairs of autograd.

In: a NumPy function or ufunc method. Out: a function with a right gradient, or None. The entries of `OWN` are there
because autograd gives a wrong gradient, or none, for some arguments; each is checked against finite differences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.tracer import isbox

from ..errors import TrackError

__all__ = ["INSTEAD", "OWN", "rule_of", "spelled"]

INSTEAD = "write it with functions that have one, or take the plain value, `.data`, if no gradient shall flow"


def _moved(function: Callable[..., Any]) -> Callable[..., Any]:
    """The rule of a function that only moves elements; an array of positions shows where they go."""

    def rule(x: Any, *args: Any, **kwargs: Any) -> Any:
        return anp.ravel(x)[function(np.arange(x.size).reshape(x.shape), *args, **kwargs)]

    return rule


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, axis=0, keepdims=False: function(x, axis=axis, keepdims=keepdims)


def _cholesky(a: Any) -> Any:
    # NumPy reads the lower triangle only; autograd shares the gradient between both.
    return anp.linalg.cholesky(anp.tril(a) + anp.swapaxes(anp.tril(a, -1), -1, -2))


def _clip(x: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    return anp.clip(x, a_min if min is None else min, a_max if max is None else max)


def _kron(a: Any, b: Any) -> Any:
    if max(anp.ndim(a), anp.ndim(b)) > 2:
        raise TrackError("autograd has no gradient of `kron` beyond matrices", hint=INSTEAD)
    return anp.kron(a, b)


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    if isinstance(axis, tuple):
        axis = tuple(i % x.ndim for i in axis)
    plain = {1: anp.sum, np.inf: anp.max, -np.inf: anp.min}.get(ord)
    if plain is not None and (x.ndim == 1 if axis is None else not isinstance(axis, tuple)):
        return plain(anp.abs(x), axis=axis, keepdims=keepdims)
    norm = anp.linalg.norm(x, ord, axis)
    return anp.reshape(norm, np.linalg.norm(x._value, ord, axis, keepdims=True).shape) if keepdims else norm


def _prod(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    if not np.all(x._value):
        raise TrackError("autograd has no gradient of `prod` with a zero among the factors", hint=INSTEAD)
    return anp.prod(x, axis=axis, keepdims=keepdims)


def _reshape(x: Any, shape: Any, order: str = "C") -> Any:
    if order not in ("C", "F"):
        raise TrackError(f"expected order 'C' or 'F' inside `gradient`, got {order!r}", hint="choose one of them")
    return anp.reshape(x, shape, order=order)


def _transpose(x: Any, axes: Any = None) -> Any:
    return anp.transpose(x, None if axes is None else [axis % x.ndim for axis in axes])


def _where(condition: Any, x: Any, y: Any) -> Any:
    # autograd forgets that the branches are broadcast.
    ones = np.ones(np.broadcast_shapes(*map(anp.shape, (condition, x, y))), np.int8)
    return anp.where(condition, *(anp.multiply(v, ones) if isbox(v) else v for v in (x, y)))


OWN: dict[Any, Callable[..., Any]] = {
    np.add.reduce: _reduced(anp.sum),
    np.maximum.reduce: _reduced(anp.max),
    np.minimum.reduce: _reduced(anp.min),
    np.multiply.reduce: _reduced(_prod),
    np.clip: _clip,
    np.copy: lambda a, order="K", subok=False: anp.array(a),
    np.full_like: lambda a, fill_value: anp.multiply(np.ones_like(a._value), fill_value),
    np.kron: _kron,
    np.linalg.cholesky: _cholesky,
    np.linalg.norm: _norm,
    np.positive: anp.array,
    np.prod: _prod,
    np.ravel: lambda x, order="C": _reshape(x, -1, order),
    np.reshape: _reshape,
    np.transpose: _transpose,
    np.where: _where,
} | {
    function: _moved(function)
    for function in (np.broadcast_to, np.diagonal, np.flip, np.repeat, np.roll, np.take, np.take_along_axis, np.tile)
}


def spelled(function: Any) -> str:
    owner = getattr(function, "__self__", function)
    if not isinstance(owner, np.ufunc):
        return f"`{function.__module__.replace('numpy', 'np', 1)}.{function.__name__}`"
    name = owner.__name__ if owner is function else f"{owner.__name__}.{function.__name__}"
    return f"`np.{name}`" if getattr(np, owner.__name__, None) is owner else f"`{name}`"


def rule_of(function: Any) -> Any:
    """autograd's function for a NumPy function, or None."""
    if function in OWN:
        return OWN[function]
    if isinstance(function, np.ufunc):
        rule = getattr(anp, function.__name__, None)
        return rule if getattr(rule, "fun", None) is function else None
    # Without numpy.fft, where autograd forgets some of the norms.
    namespaces = {"numpy": anp, "numpy.linalg": anp.linalg}
    return getattr(namespaces.get(getattr(function, "__module__", "")), function.__name__, None)
