"""Turns: how parameters step that share memory with each other, one after the other as in PyTorch's loop.

In: parameters and gradients, some of which overlap. Out: one step of them, or an error where a rule needs all at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import OverlapError
from ..ir.evaluate import HyperValues
from ..runtime.arrays import Array
from ..runtime.engine import StepEngine
from ..runtime.lacking import Lacking
from ..runtime.overlaps import first_overlap
from ..runtime.reports import Reports
from .naming import Naming
from .operations import elsewhere, step_by_operations
from .param_groups import Groups
from .tensors import has_memory, local
from .ways import TensorWays

__all__ = ["Turn", "Turns", "turns"]

_CLONE = "give each parameter once, and each tensor memory of its own: .clone()"


class Turns:
    """The steps of one optimiser, in one turn or in several.

    Parameters
    ----------
    naming, groups, ways, engine
        Its rule, what its groups chose, who steps which parameter, and what steps a turn.

    Attributes
    ----------
    tied
        Whether parameters shared memory when they were last looked at.
    elsewhere
        Whether one of them, or a gradient, was not on the CPU.
    """

    def __init__(self, naming: Naming, groups: Groups, ways: TensorWays, engine: StepEngine) -> None:
        self._naming = naming
        self._groups = groups
        self._ways = ways
        self._engine = engine
        self.tied = self.elsewhere = False

    def step(
        self, params: list[Any], inputs: list[Any], numbers: HyperValues, lacking: Sequence[Lacking] = ()
    ) -> None:  # fmt: skip
        """One step of the parameters that have a gradient, after a look at all of their memory."""
        count = len(params)
        self.elsewhere = elsewhere([*params, *inputs])
        if self.elsewhere:
            self._step_elsewhere(params, inputs, numbers, lacking)
            return
        found = turns(params, inputs[:count])
        self.tied = len(found) > 1 or any([turn.inside for turn in found])
        if self.tied and (self._naming.grouped or self._naming.overwrites):  # phases are counted for all together
            self._refuse(found)
        given = [i for turn in found for i in turn.places]
        # What nothing steps is refused before the first turn.
        own = [inputs[first + i] for first in range(0, len(inputs), max(1, count)) for i in given]
        self._ways.divided(given, [params[i] for i in given], own)
        reports: list[Reports] = []
        for turn in found:
            of_turn = [x if i % count in turn.places else None for i, x in enumerate(inputs)]
            if turn.inside:
                self._take_apart(params, of_turn, turn.inside)
            try:
                self._engine.step(params, of_turn, numbers, lacking)
            except OverlapError as error:  # of states, or of gradients that are overwritten
                raise OverlapError(error.message, hint=_CLONE) from None
            reports += self._engine.reports or ()
            self._engine.reports = reports

    def _step_elsewhere(
        self, params: list[Any], inputs: list[Any], numbers: HyperValues, lacking: Sequence[Lacking]
    ) -> None:  # fmt: skip
        """One step by operations of PyTorch, in its own loop or by the formulas of the rule."""
        self._engine.plans.clear()
        self._engine.reports = []
        if self._ways.interprets:
            states: Any = self._engine.states
            step_by_operations(self._naming, self._groups, states, params, inputs, numbers, lacking)
        else:
            self._ways.step_foreign([p for p, g in zip(params, inputs, strict=False) if g is not None])

    def _take_apart(self, params: list[Any], grads: list[Any], inside: Sequence[int]) -> None:
        """Leaves no gradient in the memory of its parameter. PyTorch's loop may write a parameter before it reads such
        a gradient, so where the rule is PyTorch's that loop steps it."""
        interprets = self._ways.interprets
        if not interprets:
            self._ways.step_foreign([params[i] for i in inside])
        for i in inside:
            own, apart = grads[i], grads[i].clone() if interprets else None
            for j in range(i, len(grads), len(params)):  # in the place of an input that is not read too
                grads[j] = apart if grads[j] is own else grads[j]

    def _refuse(self, found: Sequence[Turn]) -> None:
        inside = next((i for turn in found for i in turn.inside), None)
        if inside is None:
            what = f"{self._groups.what(found[1].places[0])}, or its gradient, overlaps with one before it"
        else:
            what = f"the gradient of {self._groups.what(inside)} overlaps with it"
        why = "overwrites gradients"
        if self._engine.phases:
            why = "takes all parameters through one phase of a step before the next"
        elif self._naming.grouped:
            why = "computes a value of all parameters"
        raise OverlapError(f"{what}, and {self._naming.name} {why}", hint=_CLONE)


# ---- Which turns ----


@dataclass(frozen=True)
class Turn:
    """Parameters that step together.

    Attributes
    ----------
    places
        Where they stand in the list.
    inside
        Those of them that have their gradient in their own memory.
    """

    places: Sequence[int]
    inside: Sequence[int]


def turns(params: Sequence[torch.Tensor], grads: Sequence[torch.Tensor | None]) -> list[Turn]:
    """Those of a list that have a gradient, in turns. In a turn no parameter shares memory with another one, or with
    the gradient of another one; a turn ends before the first that does."""
    given = [(i, p, g) for i, (p, g) in enumerate(zip(params, grads, strict=True)) if g is not None]
    places = [i for i, _, _ in given]
    ps, gs = [_memory(p) for _, p, _ in given], [_memory(g) for _, _, g in given]
    inside = [first_overlap([p, g], 1) is not None for p, g in zip(ps, gs, strict=True)]
    gs = [_NOTHING if own else g for own, g in zip(inside, gs, strict=True)]
    found, begin = [], 0
    while begin < len(places):
        end = len(places)
        while (pair := first_overlap([*ps[begin:end], *gs[begin:end]], end - begin)) is not None:
            end = begin + max(number % (end - begin) for number in pair)
        found.append(Turn(places[begin:end], [places[i] for i in range(begin, end) if inside[i]]))
        begin = end
    return found


_NOTHING: Array = np.empty(0, np.uint8)


def _memory(x: torch.Tensor) -> Array:
    """An array over the memory of a tensor of any dtype; empty where there is none to see."""
    x = local(x)
    if x.layout is not torch.strided or x.device.type != "cpu" or not has_memory(x):
        return _NOTHING
    size = x.element_size()
    strides = [stride * size for stride in x.stride()]
    seen = torch.empty(0, dtype=torch.uint8, device="cpu")
    seen.set_(x.untyped_storage(), x.storage_offset() * size, (*x.shape, size), (*strides, 1))
    array: Array = seen.numpy().view(f"V{size}")[..., 0]
    return array
