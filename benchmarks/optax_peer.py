"""optax: update and addition compiled into one function by `jax.jit`, which is given its buffers to reuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax

from .contestant import Array, Contestant
from .rules import ARGUMENTS

__all__ = ["RULES", "make"]

_SGD = ARGUMENTS["SGD"]

#: Each with the numbers of our defaults. Two of our rules may be one of optax's. Its NAdam, RAdam, Rprop and Adafactor
#: are absent: they are other rules than torch's of these names.
RULES: dict[str, Callable[[], Any]] = {
    "SGD": lambda: optax.sgd(_SGD["lr"], _SGD["momentum"]),
    "Adam": lambda: optax.adam(1e-3),
    "AdamW": lambda: optax.adamw(1e-3, weight_decay=0.01),
    "Adagrad": lambda: optax.adagrad(0.01, 0.0, 0.0),
    "Adadelta": lambda: optax.adadelta(1.0, 0.9, 1e-6),
    "Adamax": lambda: optax.adamax(2e-3),
    "RMSprop": lambda: optax.rmsprop(0.01, 0.99, eps_in_sqrt=False),
    "Yogi": lambda: optax.yogi(0.01),
    "LAMB": lambda: optax.lamb(1e-3),
    "LARS": lambda: optax.lars(0.1),
    "NovoGrad": lambda: optax.novograd(0.01),
    "Fromage": lambda: optax.fromage(0.01),
    "Adan": lambda: optax.adan(1e-3),
    "SM3": lambda: optax.sm3(0.1),
    "SignSGD": lambda: optax.sign_sgd(1e-3),
    "OptimisticGradient": lambda: optax.optimistic_gradient_descent(0.1),
    "ScheduleFreeSGD": lambda: optax.contrib.schedule_free_sgd(1.0),
    "ScheduleFreeAdamW": lambda: optax.contrib.schedule_free_adamw(2.5e-3),
    "Prodigy": lambda: optax.contrib.prodigy(1.0),
    "DAdaptAdamW": lambda: optax.contrib.dadapt_adamw(1.0),
    "AdaBelief": lambda: optax.adabelief(1e-3),
    "Lion": lambda: optax.lion(1e-3),
    "Descent": lambda: optax.sgd(0.1),
    "ADAM": lambda: optax.adam(1e-3),
    "clip+AdamW": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, weight_decay=0.01)),
}  # fmt: skip


def make(rule: str, params: Sequence[Array], mode: str) -> Contestant:
    transformation = RULES[rule]()

    def update(p: Any, state: Any, g: Any) -> Any:
        updates, state = transformation.update(g, state, p)
        return optax.apply_updates(p, updates), state

    compiled = jax.jit(update, donate_argnums=(0, 1))
    p: Any = [jax.numpy.array(each) for each in params]
    # Donated buffers must not be shared, and some states begin as the parameters themselves.
    state: Any = jax.tree.map(lambda x: jax.numpy.array(x, copy=True), transformation.init(p))
    g: Any = []

    def take(new: Sequence[Array]) -> None:
        nonlocal g
        g = [jax.numpy.array(each) for each in new]

    def step() -> None:
        nonlocal p, state
        p, state = compiled(p, state, g)
        jax.block_until_ready(p)

    return Contestant(step, take, lambda: [np.asarray(each) for each in p])
