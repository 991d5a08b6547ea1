"""The tensors of a step, bound to as many kernels as they need: one for each compute type and variant of the rule.
Variants with products of whole matrices are bound to programs.

In: the arrays of each tensor, and which kernel it needs. Out: a `BoundKernels`, whose `run` is one step of all tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from ..ir.evaluate import ValuesByCount
from .arrays import Array
from .binding import Binding, Team, TensorRow
from .clock import Clock
from .float_state import kernel_state, rounds_to_nearest
from .group_step import GroupStep, Shards
from .interrupts import to_its_end, undisturbed
from .kernel import Kernel
from .library import runtime
from .members import AnyKernel, by_kernel
from .program_binding import ProgramBinding
from .program_kernel import MatrixRow

__all__ = ["BoundKernels"]


class BoundKernels:
    """Tensors bound to kernels; one step of all of them is `run`.

    Parameters
    ----------
    kernels : what steps each tensor.
    rows : the row of each tensor in the table of its kernel.
    threads : the most threads that a step may use.
    team : whose threads these are, if not the runtime's own.

    Attributes
    ----------
    order : `order[b]`, the places of the tensors of binding b among all.
    programs, program_order : the same of what programs step.
    """

    def __init__(
        self,
        kernels: Sequence[AnyKernel],
        rows: Sequence[TensorRow | MatrixRow],
        threads: int,
        team: Team | None = None,
    ) -> None:
        self.bindings: list[Binding] = []
        self.programs: list[ProgramBinding] = []
        self.order: list[Array] = []
        self.program_order: list[Array] = []
        for kernel, own in by_kernel(kernels).items():
            chosen: list[Any] = [rows[i] for i in own]
            if isinstance(kernel, Kernel):
                self.bindings.append(Binding(kernel, chosen, team))
                self.order.append(np.array(own))
            else:
                self.programs.append(ProgramBinding(kernel, chosen, threads, team))
                self.program_order.append(np.array(own))
        #: Those that need memory for a step: they take it before the first of them changes anything.
        self._reducing = [binding for binding in self.bindings if binding.kernel.entry.reduced]
        # By `map`: an interrupt within a generator that is given up half-way would be lost.
        self.grouped = any(map(attrgetter("kernel.rule.grouped"), self.bindings))
        self.overwrites = any(map(attrgetter("kernel.rule.overwrites"), self._every))
        #: Whether a step is through with this, and counts: not in an earlier phase.
        self._ends = all(map(attrgetter("kernel.rule.ends_step"), self.bindings))
        self._phases = 0  # how often this has run, where it is such a phase
        self.shards: Sequence[Shards] | None = None  # of each binding, where tensors lie in shards
        self._threads = threads
        self._team = team
        self.before: set[int] = set()
        self._calls: Any = None
        self._gone = False

    @property
    def _every(self) -> list[Binding | ProgramBinding]:
        return [*self.bindings, *self.programs]

    def given_cells(self) -> Array:
        """Where kernels find what a step is given: the gradients of all tensors, then each further input of all."""
        order = [*self.order, *self.program_order]
        given = len(self._every[0].kernel.rule.given_arrays)
        cells = np.empty((given, sum(map(len, order))), np.int64)
        for binding, own in zip(self._every, order, strict=True):
            for number in range(given):
                cells[number, own] = binding.given_cells(number)
        return cells.ravel()

    def follow(self, clock: Clock, sets: Sequence[int] | None = None) -> None:
        """Count by this clock from now on. `sets[i]`: which of several sets of hyperparameters tensor i goes by."""
        self.before, self.clock = set(clock.begun), clock
        for binding, own in zip(self._every, [*self.order, *self.program_order], strict=True):
            binding.count_from([clock.begun[i] for i in own], None if sets is None else [sets[i] for i in own])
        for _ in self._every[:1]:
            ffi = runtime().ffi
            self._optgen_run = runtime().library.optgen_run
            self._counter, self._small = ffi.cast("int64_t *", clock.address), ffi.cast("void *", clock.small)
            self._no_calls = ffi.NULL

    @property
    def done(self) -> int:
        """How often this has run by the clock; as an earlier phase of a step, at all."""
        return self.clock.n if self._ends else self._phases

    def run(self, values: Sequence[ValuesByCount], group: Mapping[str, Array]) -> bool:
        """One more step by the clock; False if it does not count: then nothing has changed but what always does.

        An interrupt is raised before anything has changed, or when the step is through and counted.

        `values`: the sets of hyperparameters. `group`: the states that all tensors have together.
        """
        if not self._every:
            return True
        if not rounds_to_nearest():
            with kernel_state(runtime()):
                return self.run(values, group)
        clock = self.clock
        step = clock.n + 1
        if clock.prepare is not None:
            clock.prepare(self._ends)
        if self.grouped or self.shards is not None:
            return self._run_grouped(values, step, group)
        for binding in self.bindings:
            binding.begin(values, step)
        if self.programs:
            return self._run_programs(values, step)
        calls = self._calls
        if calls is None or (self._team is not None and self._team.gone is not self._gone):
            calls = self._filled()
        if clock.finish is not None:
            return to_its_end(lambda: self._counted(step, calls, len(calls)))
        if not self._optgen_run(calls, len(calls), self._counter, self._small):
            raise self.bindings[0].out_of_memory()
        return True

    def _run_programs(self, values: Sequence[ValuesByCount], step: int) -> bool:
        """Programs first, and then kernels, which are counted in the same call."""
        for binding in self._reducing:
            binding.reserve()
        run = self._begun_programs(values, step)
        calls = self._filled() if self.bindings else self._no_calls

        def work() -> bool:
            run()
            return self._counted(step, calls, len(self.bindings))

        return to_its_end(work)

    def _begun_programs(self, values: Sequence[ValuesByCount], step: int) -> Callable[[], None]:
        """What does the step of those that programs step, or what is left of it."""
        if not self.programs:
            return lambda: None
        return self.programs[0].kernel.steps.begun(self.programs, values, step)

    def _counted(self, step: int, calls: Any, number: int) -> bool:
        """Runs these calls and counts them as this step, unless that was done, and finishes it."""
        if self.clock.n < step and not self._optgen_run(calls, number, self._counter, self._small):
            raise self.bindings[0].out_of_memory()
        if self.clock.finish is not None:
            self.clock.finish()
        return True

    def _through(self, done: int) -> bool:
        """Finishes a phase that is not the last of its step, and notes that as run number `done`."""
        self._optgen_run(self._no_calls, 0, self._no_calls, self._small)
        if self.clock.finish is not None:
            self.clock.finish()
        self._phases = done
        return True

    def _run_grouped(self, values: Sequence[ValuesByCount], step: int, group: Mapping[str, Array]) -> bool:
        for binding in self._reducing:
            binding.reserve()
        begun = GroupStep(self.bindings, self.order, self._threads, shards=self.shards).begin(
            values, step, step + max(self.before), group
        )

        run, done = self._begun_programs(values, step), self._phases + 1

        def work() -> bool:
            run()
            return begun.advance() and (self._counted(step, self._no_calls, 0) if self._ends else self._through(done))

        return undisturbed(work) if self.shards is not None else to_its_end(work)

    def _filled(self) -> Any:
        """What the runtime is called with, for all bindings at once."""
        gone = self._team is not None and self._team.gone
        calls = self.bindings[0].kernel.runtime.ffi.new("optgen_call[]", len(self.bindings))
        for call, binding in zip(calls, self.bindings, strict=True):
            binding.fill(call, 0, self._threads)
        self._gone, self._calls = gone, calls  # kept when it is whole: this may be broken off at any point
        return calls
