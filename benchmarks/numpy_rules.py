"""Flux's eleven rules as a competent NumPy user writes them by hand.

In: a parameter, its gradient, states and the count of steps. Out: a step, in place.

A step allocates nothing: every sweep writes in place or into scratch made beforehand. Factors common to all elements
(bias corrections, their roots, rates) are gathered into one Python float. That saves whole sweeps and, unlike a NumPy
scalar, leaves float32 in float32. The gradient is only read. Left out is what hardly anyone writes: arrays cut into
blocks for the cache, and averages without their weights.

    state = INIT["ADAM"](p)
    for t in range(1, steps + 1):
        RULES["ADAM"](p, gradient(p), state, t, eta=0.01)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
State = dict[str, Array]

EPS = 1e-8


def descent(p: Array, g: Array, state: State, t: int, *, eta: float = 0.1) -> None:
    s = state["s"]
    np.multiply(g, eta, out=s)
    p -= s


def momentum(p: Array, g: Array, state: State, t: int, *, eta: float = 0.01, rho: float = 0.9) -> None:
    v, s = state["v"], state["s"]
    np.multiply(g, eta, out=s)
    v *= rho
    v += s
    p -= v


def nesterov(p: Array, g: Array, state: State, t: int, *, eta: float = 0.001, rho: float = 0.9) -> None:
    v, s = state["v"], state["s"]
    np.multiply(g, eta, out=s)
    v *= rho
    v -= s
    p -= s
    np.multiply(v, rho, out=s)
    p += s


def rmsprop(
    p: Array, g: Array, state: State, t: int, *, eta: float = 0.001, rho: float = 0.9, eps: float = EPS
) -> None:
    acc, s = state["acc"], state["s"]
    _average_square(acc, g, rho, s)
    np.sqrt(acc, out=s)
    s += eps
    np.divide(g, s, out=s)
    s *= eta
    p -= s


def adam(
    p: Array,
    g: Array,
    state: State,
    t: int,
    *,
    eta: float = 0.001,
    beta: tuple[float, float] = (0.9, 0.999),
    eps: float = EPS,
) -> None:
    m, v, s = state["m"], state["v"], state["s"]
    _average(m, g, beta[0], s)
    _average_square(v, g, beta[1], s)
    # As the paper advises: both corrections go into the rate, and the second into eps, so no array is corrected.
    root = math.sqrt(1.0 - beta[1] ** t)
    np.sqrt(v, out=s)
    s += eps * root
    np.divide(m, s, out=s)
    s *= eta * root / (1.0 - beta[0] ** t)
    p -= s


def adamax(
    p: Array,
    g: Array,
    state: State,
    t: int,
    *,
    eta: float = 0.001,
    beta: tuple[float, float] = (0.9, 0.999),
    eps: float = EPS,
) -> None:
    m, u, s = state["m"], state["u"], state["s"]
    _average(m, g, beta[0], s)
    u *= beta[1]
    np.abs(g, out=s)
    np.maximum(u, s, out=u)
    np.add(u, eps, out=s)
    np.divide(m, s, out=s)
    s *= eta / (1.0 - beta[0] ** t)
    p -= s


def adagrad(p: Array, g: Array, state: State, t: int, *, eta: float = 0.1, eps: float = EPS) -> None:
    acc, s = state["acc"], state["s"]
    np.multiply(g, g, out=s)
    acc += s
    np.sqrt(acc, out=s)
    s += eps
    np.divide(g, s, out=s)
    s *= eta
    p -= s


def adadelta(p: Array, g: Array, state: State, t: int, *, rho: float = 0.9, eps: float = EPS) -> None:
    acc, dacc, s, r = state["acc"], state["dacc"], state["s"], state["r"]
    _average_square(acc, g, rho, s)
    # One root of the quotient instead of a quotient of two roots.
    np.add(dacc, eps, out=s)
    np.add(acc, eps, out=r)
    s /= r
    np.sqrt(s, out=s)
    s *= g
    p -= s
    _average_square(dacc, s, rho, s)


def amsgrad(
    p: Array,
    g: Array,
    state: State,
    t: int,
    *,
    eta: float = 0.001,
    beta: tuple[float, float] = (0.9, 0.999),
    eps: float = EPS,
) -> None:
    m, v, vhat, s = state["m"], state["v"], state["vhat"], state["s"]
    _average(m, g, beta[0], s)
    _average_square(v, g, beta[1], s)
    np.maximum(vhat, v, out=vhat)
    np.sqrt(vhat, out=s)
    s += eps
    np.divide(m, s, out=s)
    s *= eta
    p -= s


def nadam(
    p: Array,
    g: Array,
    state: State,
    t: int,
    *,
    eta: float = 0.001,
    beta: tuple[float, float] = (0.9, 0.999),
    eps: float = EPS,
) -> None:
    m, v, s, r = state["m"], state["v"], state["s"], state["r"]
    b1, b2 = beta
    _average(m, g, b1, s)
    _average_square(v, g, b2, s)
    # The correction of v is divided out of the fraction; with the rate it rides on the two weights of the numerator.
    root = math.sqrt((1.0 - b2**t) / b2)
    np.multiply(m, eta * root * b1 / (1.0 - b1 ** (t + 1)), out=s)
    np.multiply(g, eta * root * (1.0 - b1) / (1.0 - b1**t), out=r)
    s += r
    np.sqrt(v, out=r)
    r += eps * root
    s /= r
    p -= s


def adamw(
    p: Array,
    g: Array,
    state: State,
    t: int,
    *,
    eta: float = 0.001,
    beta: tuple[float, float] = (0.9, 0.999),
    decay: float = 0.0,
    eps: float = EPS,
    coupled: bool = False,
) -> None:
    # ADAM's step does not depend on p, so the old p may shrink first; without decay the pass is saved.
    if decay:
        p *= 1.0 - (eta * decay if coupled else decay)
    adam(p, g, state, t, eta=eta, beta=beta, eps=eps)


def _average(a: Array, x: Array, keep: float, s: Array) -> None:
    """a ← keep·a + (1 − keep)·x."""
    a *= keep
    np.multiply(x, 1.0 - keep, out=s)
    a += s


def _average_square(a: Array, x: Array, keep: float, s: Array) -> None:
    """a ← keep·a + (1 − keep)·x²; s may be x itself where x is no longer needed."""
    a *= keep
    np.multiply(x, x, out=s)
    s *= 1.0 - keep
    a += s


def _init(*names: str, at: float = 0.0, scratch: str = "s") -> Callable[[Array], State]:
    """A maker of states: the named arrays filled with `at`, and one scratch array for each letter of `scratch`."""

    def init(p: Array) -> State:
        return {name: np.full_like(p, at) for name in names} | {name: np.empty_like(p) for name in scratch}

    return init


RULES: dict[str, Callable[..., None]] = {
    "Descent": descent,
    "Momentum": momentum,
    "Nesterov": nesterov,
    "RMSProp": rmsprop,
    "ADAM": adam,
    "AdaMax": adamax,
    "ADAGrad": adagrad,
    "ADADelta": adadelta,
    "AMSGrad": amsgrad,
    "NADAM": nadam,
    "ADAMW": adamw,
}

# Two rules start at eps: here at its default, whatever eps the steps are then given.
INIT: dict[str, Callable[[Array], State]] = {
    "Descent": _init(),
    "Momentum": _init("v"),
    "Nesterov": _init("v"),
    "RMSProp": _init("acc"),
    "ADAM": _init("m", "v"),
    "AdaMax": _init("m", "u"),
    "ADAGrad": _init("acc", at=EPS),
    "ADADelta": _init("acc", "dacc", scratch="sr"),
    "AMSGrad": _init("m", "v", "vhat", at=EPS),
    "NADAM": _init("m", "v", scratch="sr"),
    "ADAMW": _init("m", "v"),
}
