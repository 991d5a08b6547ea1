"""The tensors of a step, bound to as many kernels as they need: one for each compute type and variant of the rule.

In: the arrays of each tensor, and which kernel it needs. Out: a `BoundKernels`, whose `run` is one step of all tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from .members import by_kernel

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
    """

    def __init__(
        self,
        kernels: Sequence[Kernel],
        rows: Sequence[TensorRow],
        threads: int,
        team: Team | None = None,
    ) -> None:
        places = by_kernel(kernels)
        self.bindings = [Binding(kernel, [rows[i] for i in own], team) for kernel, own in places.items()]
        self.order = [np.array(own) for own in places.values()]
        #: Those that need memory for a step: they take it before the first of them changes anything.
        self._reducing = [binding for binding in self.bindings if binding.kernel.entry.reduced]
        # By `map`: an interrupt within a generator that is given up half-way would be lost.
        self.grouped = any(map(attrgetter("kernel.rule.grouped"), self.bindings))
        self.overwrites = any(map(attrgetter("kernel.rule.overwrites"), self.bindings))
        #: Whether a step is through with this, and counts: not in an earlier phase.
        self._ends = all(map(attrgetter("kernel.rule.ends_step"), self.bindings))
        self._phases = 0  # how often this has run, where it is such a phase
        self.shards: Sequence[Shards] | None = None  # of each binding, where tensors lie in shards
        self._threads = threads
        self._team = team
        self.before: set[int] = set()
        self._calls: Any = None
        self._gone = False

    def given_cells(self) -> Array:
        """Where kernels find what a step is given: the gradients of all tensors, then each further input of all."""
        given = len(self.bindings[0].kernel.rule.given_arrays)
        cells = np.empty((given, sum(map(len, self.order))), np.int64)
        for binding, own in zip(self.bindings, self.order, strict=True):
            for number in range(given):
                cells[number, own] = binding.given_cells(number)
        return cells.ravel()

    def follow(self, clock: Clock, sets: Sequence[int] | None = None) -> None:
        """Count by this clock from now on. `sets[i]`: which of several sets of hyperparameters tensor i goes by."""
        self.before, self.clock = set(clock.begun), clock
        for binding, own in zip(self.bindings, self.order, strict=True):
            binding.count_from([clock.begun[i] for i in own], None if sets is None else [sets[i] for i in own])
        for binding in self.bindings[:1]:
            ffi = binding.kernel.runtime.ffi
            self._optgen_run = binding.kernel.runtime.library.optgen_run
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
        if not self.bindings:
            return True
        if not rounds_to_nearest():
            with kernel_state(self.bindings[0].kernel.runtime):
                return self.run(values, group)
        clock = self.clock
        step = clock.n + 1
        if clock.prepare is not None:
            clock.prepare(self._ends)
        if self.grouped or self.shards is not None:
            return self._run_grouped(values, step, group)
        for binding in self.bindings:
            binding.begin(values, step)
        calls = self._calls
        if calls is None or (self._team is not None and self._team.gone is not self._gone):
            calls = self._filled()
        if clock.finish is not None:
            return to_its_end(lambda: self._counted(step, calls, len(calls)))
        if not self._optgen_run(calls, len(calls), self._counter, self._small):
            raise self.bindings[0].out_of_memory()
        return True

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

        done = self._phases + 1

        def work() -> bool:
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
