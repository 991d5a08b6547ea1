"""NumPy by hand: Flux's rules, of `numpy_rules`, and those of torch that are the same with other numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import numpy_rules
from .contestant import Array, Contestant, copy_all
from .rules import ARGUMENTS

__all__ = ["RULES", "make"]

#: By rule, the function of `numpy_rules` that takes its steps, and the numbers for it.
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in numpy_rules.RULES},
    "SGD": ("Momentum", {"eta": ARGUMENTS["SGD"]["lr"], "rho": ARGUMENTS["SGD"]["momentum"]}),
    "Adam": ("ADAM", {}),
    "AdamW": ("ADAMW", {"decay": 0.01, "coupled": True}),
    "Adamax": ("AdaMax", {"eta": 0.002}),
    "RMSprop": ("RMSProp", {"eta": 0.01, "rho": 0.99}),
    "Adadelta": ("ADADelta", {"rho": 0.9, "eps": 1e-6}),
}


def make(rule: str, params: Sequence[Array], mode: str) -> Contestant:
    name, arguments = RULES[rule]
    step_one = numpy_rules.RULES[name]
    own, grads = [p.copy() for p in params], [np.empty_like(p) for p in params]
    states = [numpy_rules.INIT[name](p) for p in own]
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        for p, g, state in zip(own, grads, states, strict=True):
            step_one(p, g, state, count, **arguments)

    return Contestant(step, lambda new: copy_all(new, grads), lambda: own)
