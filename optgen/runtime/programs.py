"""Programs at run time: steps of parameters whose rule has products of whole matrices.

In: bindings of parameters, and the sets of hyperparameters. Out: their step, all of it bound and nothing changed; it
may be broken off between any two calls, and goes on from there. What a library cannot compute however often it is
asked, for want of memory, leaves a step half done.

Parameters go one after another through the same memory; small ones of one shape go together, so that a library has more
to do in a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..compiler.driver import Compilation
from ..ir.evaluate import ValuesByCount
from ..lowering.programs import has_programs
from .arrays import Array
from .chunks import Chunk, Step
from .matrix_library import MatrixLibrary
from .program_binding import Batch, ProgramBinding
from .program_kernel import ProgramKernel, segments_for
from .scratch import Scratch

__all__ = ["ProgramSteps", "has_programs"]

#: How many lists of parameters are remembered, each in one course.
MOST_KNOWN = 16


class ProgramSteps:
    """The programs of an optimiser, bound to its parameters and kept from step to step.

    Parameters
    ----------
    library
        Who computes products.
    compilation, module
        The rule, and the file of its class, if that was built.
    """

    def __init__(self, library: MatrixLibrary, compilation: Compilation, module: str | None = None) -> None:
        self._library, self._compilation, self._module = library, compilation, module
        self._scratch = Scratch()
        self._kernels: dict[tuple[int, str], ProgramKernel] = {}
        self._known: dict[object, tuple[list[Chunk], list[Step]]] = {}

    def takes(self, variant: int) -> bool:
        """Whether there are programs for a variant of the rule."""
        return has_programs(self._compilation.rules[variant])

    def kernel(self, variant: int, dtype: str) -> ProgramKernel:
        """What steps one variant in a compute type. CompilerNotFound where kernels are lacking that its programs
        need."""
        found = self._kernels.get((variant, dtype))
        if found is None:
            fuses, rule = self._library.fuses, self._compilation.rules[variant]
            segments = segments_for(self._compilation, variant, dtype, self._module, fuses=fuses)
            found = self._kernels[variant, dtype] = ProgramKernel(self, rule, dtype, segments, fuses=fuses)
        return found

    def begun(self, bindings: Sequence[ProgramBinding], sets: Sequence[ValuesByCount], step: int) -> Callable[[], None]:
        """One step, of which nothing is done yet: what does it, or what is left of it. `step`: its number since the
        bindings count."""
        each = [(binding, batch) for binding in bindings for batch in binding.batches(sets, step)]
        key = tuple([(binding.threads, binding.team, batch.key) for binding, batch in each])
        known = self._known.pop(key, None)
        if known is None:
            known = self._bound(each, sets, step)
        for chunk, (binding, batch) in zip(known[0], each, strict=True):
            chunk.begin(binding.table[batch.places], sets[batch.number], batch.before + step)
        while len(self._known) >= MOST_KNOWN:
            self._known.pop(next(iter(self._known)))
        self._known[key] = known
        return _Running(known[1])

    def _bound(
        self, each: Sequence[tuple[ProgramBinding, Batch]], sets: Sequence[ValuesByCount], step: int
    ) -> tuple[list[Chunk], list[Step]]:
        scratch = self._scratch
        chunks = [
            Chunk(batch, binding.table[batch.places], sets[batch.number][batch.before + step])
            for binding, batch in each
        ]
        if any([chunk.reserve(scratch) for chunk in chunks]):
            self._known.clear()  # those keep the smaller memory alive
        for chunk, (binding, _) in zip(chunks, each, strict=True):
            chunk.bind(scratch, self._library, binding.threads, binding.team)
        return chunks, [step for chunk in chunks for step in chunk.steps]


class _Running:
    """One step, as far as it is done."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._progress: Array = np.zeros(1, np.int64)

    def __call__(self) -> None:
        progress, steps = self._progress, self._steps
        while (done := int(progress[0])) < len(steps):
            steps[done](progress)
