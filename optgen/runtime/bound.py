"""The tensors of a step, bound to as many kernels as they need: one for each compute type and variant of the rule.

In: the arrays of each tensor, and which kernel it needs. Out: a `BoundKernels`, whose `run` is one step of all tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..ir.evaluate import ValuesByCount
from ..ir.rule import Rule
from .arrays import Array
from .binding import Binding, Team, rows_of
from .float_state import kernel_state, rounds_to_nearest
from .group_step import GroupStep, Shards
from .kernel import Kernel

__all__ = ["BoundKernels"]


class BoundKernels:
    """Tensors bound to kernels; one step of all of them is `run`.

    Parameters
    ----------
    kernel : gives the kernel for a compute type and a variant; its errors pass through.
    keys : compute type and variant of each tensor.
    arrays : `arrays(i, rule)` gives the arrays of tensor i in the order in which the kernel of `rule` takes them.
    threads : the most threads that a step may use.
    team : whose threads these are, if not the runtime's own.

    Attributes
    ----------
    order : `order[b]`, the places of the tensors of binding b among all.
    cells : `cells[i]`, where a kernel finds gradient i.
    """

    def __init__(
        self,
        kernel: Callable[[str, int], Kernel],
        keys: Sequence[tuple[str, int]],
        arrays: Callable[[int, Rule], Sequence[Array]],
        threads: int,
        team: Team | None = None,
    ) -> None:
        members: dict[tuple[str, int], list[int]] = {}
        for i, key in enumerate(keys):
            members.setdefault(key, []).append(i)
        kernels = [kernel(*key) for key in members]
        self.bindings = [
            Binding(each, rows_of(each, (arrays(i, each.rule) for i in own)), team)
            for each, own in zip(kernels, members.values(), strict=True)
        ]
        #: Those that need memory for a step: they take it before the first of them changes anything.
        self._reducing = [binding for binding in self.bindings if binding.kernel.entry.reduced]
        self.order = [np.array(own) for own in members.values()]
        rows = zip(self.bindings, members.values(), strict=True)
        found = {i: binding.gradient_cell(row) for binding, own in rows for row, i in enumerate(own)}
        self.cells = [found[i] for i in range(len(keys))]
        self.grouped = any(binding.kernel.rule.grouped for binding in self.bindings)
        self.overwrites = any(binding.kernel.rule.overwrites for binding in self.bindings)
        self.shards: Sequence[Shards] | None = None  # of each binding, where tensors lie in shards
        self._threads = threads
        self.count_from([0] * len(keys))

    def count_from(self, before: Sequence[int], sets: Sequence[int] | None = None) -> None:
        """Counts the steps of tensor i from `before[i]`, the updates that it has had.

        `sets[i]`: which of several sets of hyperparameters it goes by.
        """
        self.before = set(before)
        for binding, own in zip(self.bindings, self.order, strict=True):
            binding.count_from([before[i] for i in own], None if sets is None else [sets[i] for i in own])

    def run(self, values: Sequence[ValuesByCount], step: int, group: Mapping[str, Array]) -> bool:
        """Step number `step` since `count_from`; False if it does not count by the rule: then nothing has changed.

        `values`: the sets of hyperparameters. `group`: the states that all tensors have together.
        """
        if not rounds_to_nearest() and self.bindings:
            with kernel_state(self.bindings[0].kernel.runtime):
                return self.run(values, step, group)
        for binding in self._reducing:
            binding.reserve()
        if self.grouped or self.shards is not None:
            t = step + max(self.before)
            return GroupStep(self.bindings, self.order, self._threads, shards=self.shards).run(values, step, t, group)
        for binding in self.bindings:
            binding.begin(values, step)
            binding.work(0, self._threads)
        return True
