"""Who steps which parameter of a PyTorch optimiser: kernels, the interpreter, or PyTorch's own loop.

In: parameters and gradients. Out: which way each goes, or an error that says what to do.

Kernels step dense tensors on the CPU: of float32 and float64, real or complex, and of 16 bits. The strategy of a rule
decides about the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..compiler.toolchain import find_compiler
from ..errors import ArrayError, CompilerNotFound
from ..runtime.programs import has_programs
from .inputs import expect_like
from .naming import Naming
from .param_groups import Groups
from .sharding import cut, expect_apart, expect_numbered
from .tensors import DTYPES, has_memory, local, mode, steppable, storage_of

__all__ = ["ElsewhereError", "TensorWays"]


class ElsewhereError(ArrayError):
    """A parameter or gradient that is on no CPU: there a step is done by operations of PyTorch."""


class TensorWays:
    """The ways of one optimiser.

    Parameters
    ----------
    naming, groups
        Its rule, and what its groups chose.
    optimizer
        Gives the optimiser itself, which PyTorch's loop is run on.
    """

    def __init__(self, naming: Naming, groups: Groups, optimizer: Callable[[], Any]) -> None:
        self._naming = naming
        self._groups = groups
        self._optimizer = optimizer
        self.by_programs = True
        self.interprets = naming.strategy.interprets

    def divided(self, places: Sequence[int], params: list[Any], inputs: list[Any]) -> tuple[list[int], list[int]]:
        kernels: list[int] = []
        others: list[int] = []
        for i, (place, p) in enumerate(zip(places, params, strict=True)):
            g, *more = inputs[i :: len(params)]
            expect_like(self._naming.rules[0], self._groups.what(place), p, more)
            (kernels if self._takes(p, [g, *more], place) else others).append(i)
        for place, p in zip(places, params, strict=True):
            expect_apart(self._naming.rules, self._groups.variants_at(place), p, place)
            storing = self._naming.storing
            if storing.rounding or storing.has_blocks:
                expect_numbered(self._naming.name, p, place, blocks=storing.has_blocks)
        return self._naming.strategy.divided(kernels, others, grouped=self._naming.grouped)

    def step_foreign(self, params: Sequence[torch.Tensor]) -> None:
        self._naming.strategy.step_others(self._optimizer(), params)

    def step_traced(self, params: Sequence[torch.Tensor]) -> None:
        """One step by operations of PyTorch, which are recorded or replaced at this moment."""
        naming, what = self._naming, mode()
        naming.strategy.expect_not_traced(naming.name, what)
        if naming.storing.storages or naming.storing.rounding:
            message = f"{naming.name}: {what} is active, and would not see the kernels that step states in storages"
            raise ArrayError(message, hint="step outside of it, or leave storage and rounding out")
        if params:
            self.step_foreign(params)

    def _takes(self, p: torch.Tensor, inputs: Sequence[torch.Tensor], place: int) -> bool:
        """Whether kernels step such a parameter; if not, it is an error unless there is another way."""
        naming, what = self._naming, self._groups.what(place)
        by_kernel = (
            all([steppable(p, x) for x in inputs]) and self._groups.by_kernel(place) and not (p.is_conj() or p.is_neg())
        )
        if by_kernel and any([storage_of(x) for x in (p, *inputs)]) and not _compiles():
            by_kernel = bool(naming.storing.storages or naming.storing.rounding)  # which needs a compiler, and says so
        if by_kernel and naming.storing.has_blocks:  # kernels have these for dense tensors, and rules without rows
            rule = naming.rules[self._groups.variant(place, tuple(p.shape))]
            by_kernel = not rule.tiled and all([local(x).is_contiguous() for x in (p, *inputs)])
        if by_kernel and naming.multiplies:
            own = naming.compilation.in_phases(self._groups.variant(place, tuple(p.shape)))
            multiplying = [naming.rules[i] for i in own if naming.rules[i].multiplies]
            stored = cut(p) or naming.storing.storages or any([storage_of(x) for x in (p, *inputs)])
            by_programs = self.by_programs and all(map(has_programs, multiplying)) and not stored
            by_kernel = by_programs or not multiplying
        if p.is_complex() and any([rule.tiled for rule in naming.rules]):  # which would take two parts for a dimension
            naming.strategy.expect_real(what, naming.name)
            by_kernel = False
        if p.is_inference() and not torch.is_inference_mode_enabled():
            message = f"{what}: expected an ordinary tensor, got one made in inference mode"
            raise ArrayError(message, hint="make the model outside of torch.inference_mode(), or give p.clone()")
        if not by_kernel:
            for x in inputs:
                self._expect_other_way(local(p), local(x), what)
        return by_kernel

    def _expect_other_way(self, p: torch.Tensor, g: torch.Tensor, what: str) -> None:
        """An error that says what to use, unless there is another way to step such a parameter."""
        strategy, storing = self._naming.strategy, self._naming.storing
        if p.device.type != "cpu" or g.device.type != "cpu":
            device = (p if p.device.type != "cpu" else g).device
            raise ElsewhereError(f"{what} is on {device}: kernels step on the CPU")
        if (storing.storages or storing.rounding) and not strategy.interprets:
            kind = "contiguous tensors, of a rule without rows," if storing.has_blocks else "dense tensors"
            got = f"{p.dtype}, {p.layout} on {p.device}, with a gradient of {g.dtype}, {g.layout} on {g.device}"
            message = f"{what}: expected {kind} of real numbers on the CPU, which kernels step in storages, got {got}"
            raise ArrayError(message, hint="leave out storage and rounding, or whatever asks for PyTorch's own step")
        for x in (p, g):
            if not has_memory(x):
                strategy.expect_memory(what, self._naming.name, x)
                return
        if p.dtype not in (*DTYPES, torch.bfloat16, torch.float16):
            kinds = "float32, float64, bfloat16, float16, complex64 or complex128"
            message = f"{what}: expected a parameter of {kinds}, got {p.dtype}"
            raise ArrayError(message, hint="convert the model, or leave the parameter out")
        strategy.expect_gradient(what, self._naming.name, p, g)


def _compiles() -> bool:
    """Whether there is a compiler: `optgen build` makes no kernels for tensors of 16 bits, which few rules need."""
    try:
        find_compiler()
    except CompilerNotFound:
        return False
    return True
