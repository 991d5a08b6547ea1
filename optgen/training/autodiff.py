"""`gradient`, over the HIPS `autograd` library.

In: a loss written as a closure over parameters in ordinary NumPy. Out: its gradient for every parameter, as plain
arrays: right, or refused by name. Nothing here knows about optimisers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from autograd.tracer import isbox

from ..errors import TrackError
from .params import Gradients, Param, Params
from .tape import Array, Tape, current, pull_back
from .tracked import unwrapped

__all__ = ["gradient"]


def gradient(f: Callable[[], Any], params: Params | Iterable[Param]) -> Gradients:
    """The gradient of the real number `f()` for each of `params`.

    Parameters
    ----------
    f : callable without arguments
        Uses the parameters as a closure, and returns one real number: a Python number, or an array of size 1. Threads
        that it starts are not recorded.
    params : Params, or iterable of Param
        A parameter that `f` does not use gets zeros. Any other parameter is a constant to `f`.

    Returns
    -------
    Gradients
        For each parameter an array of its shape and dtype; and the loss as `value`.

    Raises
    ------
    TrackError
        If `f` returns anything else, does something that has no gradient, or calls `gradient`.

    Examples
    --------
    >>> W = param([1.0, 2.0])
    >>> gradient(lambda: np.sum(W * W), [W])[W]
    array([2., 4.])
    """
    theta = params if isinstance(params, Params) else Params(params)
    if current.get() is not None:
        raise TrackError(
            "expected `gradient` outside of `gradient`, got one inside", hint="there are only first derivatives here"
        )
    tape = Tape(theta)
    roots = [box._node for box in tape.boxes.values()]
    token = current.set(tape)
    try:
        end = unwrapped(f())
    finally:
        current.reset(token)
        tape.close()
    value = _real(end._value if isbox(end) else end)
    found = pull_back(end._node, tape, np.ones_like(end._value)) if isbox(end) else {}
    return Gradients(theta, [_own(p.data, found.get(root)) for p, root in zip(theta, roots, strict=True)], value)


def _real(value: Any) -> float:
    """Convert the loss to a float. Raises `TrackError` unless it is one real number."""
    number = isinstance(value, (int, float, np.ndarray, np.generic)) and np.asarray(value).dtype.kind in "iuf"
    if not number or np.size(value) != 1:
        came = f"shape {np.shape(value)}" if number else str(getattr(value, "dtype", type(value).__name__))
        hint = "sum it, or take its mean" if number else "the function must return it"
        raise TrackError(f"expected the loss to be one real number, got {came}", hint=hint)
    return float(np.asarray(value).item())


def _own(data: Array, g: Any) -> Array:
    """Copy `g` into an array laid out like `data`, since autograd shares memory between gradients where it can."""
    own = np.zeros_like(data)
    if g is not None:
        own[...] = np.real(g)
    return own
