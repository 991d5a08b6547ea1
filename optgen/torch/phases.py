"""Whole steps in PyTorch, of rules whose steps have several phases.

In: a closure, and what runs one phase. Out: the loss at the first point; or an error that says how such a step is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..errors import ArgumentError
from ..runtime.engine import StepEngine

__all__ = ["expect_closure", "rest_of_step"]


def expect_closure(name: str, engine: StepEngine, params: Sequence[torch.Tensor], *, begun: bool) -> None:
    """ArgumentError for a step of several phases without a closure, unless it makes states: the first one, and all
    gradients are zero, as in the step that PyTorch's distributed checkpoints take before they load."""
    if begun or any([p.grad is not None and p.grad.any() for p in params]):
        message = f"{name}: expected a closure, since a step has the phases {', '.join(engine.phases)}"
        hint = "opt.step(closure) takes the gradient before each; or name the phase of this call: "
        raise ArgumentError(message, hint=f"{hint}opt.step(phase={engine.phases[engine.phase]!r})")


def rest_of_step(engine: StepEngine, run: Callable[[], Any]) -> Any:
    """The phases of a step that are left, up to one that is not accepted; gives what `run` gives for the first."""
    found: list[Any] = []
    while True:
        before = engine.phase
        found.append(run())
        if engine.phase in (0, before):
            return found[0]
