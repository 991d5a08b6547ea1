"""Steps in PyTorch of rules whose steps have several phases: run as a whole, or broken off and gone on with.

In: a closure, and what runs one phase. Out: the loss at the first point; or an error that says how such a step is run.
Of a step that is broken off: the numbers of its parameters, for a state dict.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch

from ..errors import ArgumentError, StateError, shown
from ..runtime.engine import StepEngine
from ..runtime.phases import is_between_phases
from ..runtime.slots import Key

__all__ = ["expect_closure", "expect_numbers", "key_of_numbers", "numbers_of_begun", "rest_of_step"]


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
        if engine.phase <= before:  # of the next step, or the same again
            return found[0]


def numbers_of_begun(engine: StepEngine, params: Iterable[torch.Tensor]) -> list[int]:
    """The numbers of those of all parameters that the step between two of its phases is of; none between two steps."""
    begun = frozenset(engine.begun or ()) if is_between_phases(engine.states.group) else ()
    return [i for i, p in enumerate(params) if id(p) in begun]


def key_of_numbers(numbers: Collection[int], params: Iterable[torch.Tensor]) -> Key | None:
    """What the engine knows such a step by; None without numbers."""
    return tuple(id(p) for i, p in enumerate(params) if i in numbers) or None


def expect_numbers(numbers: object, count: int) -> None:
    """StateError unless a state dict has the numbers of some of so many parameters as those of a step."""
    if not isinstance(numbers, list | tuple) or not all(type(i) is int and 0 <= i < count for i in numbers):
        message = f"expected the numbers of the parameters of the step that has begun, from 0 to {count - 1}"
        raise StateError(f"{message}, got {shown(numbers)}", hint="it is damaged")
