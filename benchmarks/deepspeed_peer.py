"""DeepSpeed's Adam for CPUs, made for optimisers whose states stay in the memory of the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam

from .peers import Array, Contestant

__all__ = ["RULES", "make"]

#: The weight decay of each.
RULES = {"Adam": 0.0, "AdamW": 0.01}


def make(rule: str, params: Sequence[Array], mode: str) -> Contestant:
    own = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in params]
    for p in own:
        p.grad = torch.empty_like(p)
    optimiser = DeepSpeedCPUAdam(own, weight_decay=RULES[rule], adamw_mode=rule == "AdamW")

    def take(new: Sequence[Array]) -> None:
        for p, g in zip(own, new, strict=True):
            p.grad.copy_(torch.from_numpy(g))

    return Contestant(optimiser.step, take, lambda: [p.detach().numpy() for p in own])
