"""Rules as loops that Numba compiles, one call a tensor, on all threads.

Every number is made float32 beforehand, as careful users do. A Python float would turn the loop into float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np

from .contestant import Array, Contestant, copy_all
from .rules import ARGUMENTS

__all__ = ["RULES", "make"]

_compiled = numba.njit(parallel=True, fastmath=False, error_model="numpy")
f32 = np.float32


@_compiled
def _descent(p, g, eta):  # type: ignore[no-untyped-def]
    for i in numba.prange(p.size):
        p[i] -= eta * g[i]


@_compiled
def _momentum(p, g, v, eta, rho):  # type: ignore[no-untyped-def]
    for i in numba.prange(p.size):
        v[i] = rho * v[i] + eta * g[i]
        p[i] -= v[i]


@_compiled
def _rmsprop(p, g, acc, eta, rho, rest, eps):  # type: ignore[no-untyped-def]
    for i in numba.prange(p.size):
        acc[i] = rho * acc[i] + rest * g[i] * g[i]
        p[i] -= eta * g[i] / (np.sqrt(acc[i]) + eps)


@_compiled
def _adam(p, g, m, v, beta1, rest1, beta2, rest2, rate, root, eps, keep):  # type: ignore[no-untyped-def]
    for i in numba.prange(p.size):
        m[i] = beta1 * m[i] + rest1 * g[i]
        v[i] = beta2 * v[i] + rest2 * g[i] * g[i]
        p[i] = keep * p[i] - rate * m[i] / (root * np.sqrt(v[i]) + eps)


def _adam_numbers(t: int, eta: float, decay: float) -> tuple[float, ...]:
    rate, root = eta / (1 - 0.9**t), 1 / math.sqrt(1 - 0.999**t)
    return 0.9, 1 - 0.9, 0.999, 1 - 0.999, rate, root, 1e-8, 1 - eta * decay


_SGD = ARGUMENTS["SGD"]

#: By rule: the loop, how many states it has, and the numbers of step t.
RULES: dict[str, tuple[Any, int, Callable[[int], tuple[float, ...]]]] = {
    "Descent": (_descent, 0, lambda t: (0.1,)),
    "Momentum": (_momentum, 1, lambda t: (0.01, 0.9)),
    "SGD": (_momentum, 1, lambda t: (_SGD["lr"], _SGD["momentum"])),
    "RMSProp": (_rmsprop, 1, lambda t: (0.001, 0.9, 1 - 0.9, 1e-8)),
    "RMSprop": (_rmsprop, 1, lambda t: (0.01, 0.99, 1 - 0.99, 1e-8)),
    "ADAM": (_adam, 2, lambda t: _adam_numbers(t, 1e-3, 0.0)),
    "Adam": (_adam, 2, lambda t: _adam_numbers(t, 1e-3, 0.0)),
    "AdamW": (_adam, 2, lambda t: _adam_numbers(t, 1e-3, 0.01)),
}


def make(rule: str, params: Sequence[Array], mode: str) -> Contestant:
    loop, count, numbers = RULES[rule]
    own, grads = [p.copy() for p in params], [np.empty_like(p) for p in params]
    states = [[np.zeros(p.size, p.dtype) for _ in range(count)] for p in own]
    rows = [(p.ravel(), g.ravel(), *mine) for p, g, mine in zip(own, grads, states, strict=True)]
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        given = tuple(map(f32, numbers(t)))
        for row in rows:
            loop(*row, *given)

    return Contestant(step, lambda new: copy_all(new, grads), lambda: own)
