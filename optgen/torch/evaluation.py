"""Evaluation of tensors: what parameters of PyTorch are evaluated with.

In: the parameters of an optimiser between two steps. Out: those that were stepped, and what writes to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..runtime.engine import StepEngine
from ..runtime.evaluation import evaluated
from .naming import Naming
from .operations import elsewhere, evaluated_by_operations
from .param_groups import Groups
from .states import TensorStates

__all__ = ["evaluated_tensors"]


def evaluated_tensors(
    naming: Naming, groups: Groups, engine: StepEngine, states: TensorStates, params: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], Callable[[], object]]:
    """Those of all parameters that have states, and what writes to them what they are evaluated with."""
    hypers = engine.hypers
    chosen = [(i, p) for i, p in enumerate(params) if states.entries.kept.get(p)]
    places, stepped = [i for i, _ in chosen], [p for _, p in chosen]
    rules = [hypers.compilation.rules[hypers.variant(i, tuple(p.shape))] for i, p in chosen]
    if elsewhere(stepped):
        sets = [groups.values_at(i) for i in places]
        found = [evaluated_by_operations(naming, states, *each) for each in zip(stepped, rules, sets, strict=True)]
        return stepped, lambda: torch._foreach_copy_([p.detach() for p in stepped], found)
    return stepped, evaluated(engine, stepped, places, states.find(stepped, [], rules, places))
