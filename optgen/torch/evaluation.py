"""Evaluation of tensors: what parameters of PyTorch are evaluated with.

In: the parameters of an optimiser between two steps. Out: those that were stepped, and what writes to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..runtime.engine import StepEngine
from ..runtime.evaluation import evaluated
from .states import TensorStates

__all__ = ["evaluated_tensors"]


def evaluated_tensors(
    engine: StepEngine, states: TensorStates, params: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], Callable[[], object]]:
    """Those of all parameters that have states, and what writes to them what they are evaluated with."""
    hypers = engine.hypers
    chosen = [(i, p) for i, p in enumerate(params) if states.entries.kept.get(p)]
    places, stepped = [i for i, _ in chosen], [p for _, p in chosen]
    rules = [hypers.compilation.rules[hypers.variant(i, tuple(p.shape))] for i, p in chosen]
    return stepped, evaluated(engine, stepped, places, states.find(stepped, [], rules, places))
