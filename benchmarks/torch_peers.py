"""torch.optim in its four ways to take a step, and what torch has for the chains.

loop        tensor by tensor
foreach     operation by operation, over all tensors
fused       one kernel, where torch has one
compiled    `torch.compile` of the step, as in torch's tutorial: the learning rate is a tensor, so that a new rate
            compiles nothing anew
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .contestant import Array, Contestant
from .rules import ARGUMENTS, CHAINS, SCALE

__all__ = ["RULES", "make"]

OPTIMISERS = (
    "SGD", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "ASGD", "Adafactor",
)  # fmt: skip
FUSED = ("SGD", "Adam", "AdamW", "Adagrad")

#: By way. A chain is timed in its fastest way on a CPU, the fused one.
RULES: dict[str, tuple[str, ...]] = {
    "loop": OPTIMISERS,
    "foreach": OPTIMISERS,
    "fused": (*FUSED, *CHAINS),
    "compiled": OPTIMISERS,
}

WAYS: dict[str, dict[str, Any]] = {
    "loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "compiled": {},
}


def make(rule: str, params: Sequence[Array], mode: str) -> Contestant:
    own = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in params]
    grads = [torch.empty_like(p) for p in own]
    for p, g in zip(own, grads, strict=True):
        p.grad = g
    arguments = dict(WAYS[mode], **ARGUMENTS.get(rule, {}))
    step: Callable[[], object]
    if rule in CHAINS:
        step = _chain(rule, torch.optim.AdamW(own, **arguments), own, grads)
    else:
        maker = getattr(torch.optim, rule)
        if mode == "compiled":
            torch._dynamo.reset()  # code compiled for other lists counts towards a limit
            arguments["lr"] = torch.tensor(arguments.get("lr", maker([torch.zeros(1)]).defaults["lr"]))
        optimiser = maker(own, **arguments)
        step = torch.compile(optimiser.step, fullgraph=False) if mode == "compiled" else optimiser.step

    def take(new: Sequence[Array]) -> None:
        for g, each in zip(grads, new, strict=True):
            g.copy_(torch.from_numpy(each))

    return Contestant(step, take, lambda: [p.detach().numpy() for p in own])


def _chain(rule: str, optimiser: Any, own: list[Any], grads: list[Any]) -> Callable[[], None]:
    """The best calls that torch has for a chain, one after another."""
    if rule == "clip+AdamW":

        def clipped() -> None:
            torch.nn.utils.clip_grad_norm_(own, 1.0)
            optimiser.step()

        return clipped

    averages = [p.detach().clone() for p in own]
    inverse, found = torch.tensor(1 / SCALE), torch.zeros(1)

    @torch.no_grad()
    def tail() -> None:
        # As torch.amp.GradScaler and torch.optim.swa_utils.AveragedModel do it.
        found.zero_()
        torch._amp_foreach_non_finite_check_and_unscale_(grads, found, inverse)
        torch.nn.utils.clip_grad_norm_(own, 1.0)
        if not found.item():
            optimiser.step()
        torch._foreach_lerp_(averages, own, 1 - 0.999)
        torch._foreach_zero_(grads)

    return tail
