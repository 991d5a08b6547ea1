"""DeepSpeed's Adam for CPUs, for training whose optimiser states stay in the host's memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam

from .contestant import Array, Contestant

__all__ = ["RULES", "make"]

#: The weight decay of each rule.
RULES = {"Adam": 0.0, "AdamW": 0.01}


def make(rule: str, params: Sequence[Array], mode: str) -> Contestant:
    own = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in params]
    grads = [torch.empty_like(p) for p in own]
    for p, g in zip(own, grads, strict=True):
        p.grad = g
    optimiser = DeepSpeedCPUAdam(own, weight_decay=RULES[rule], adamw_mode=rule == "AdamW")

    def take(new: Sequence[Array]) -> None:
        for g, each in zip(grads, new, strict=True):
            g.copy_(torch.from_numpy(each))

    return Contestant(optimiser.step, take, lambda: [p.detach().numpy() for p in own])
