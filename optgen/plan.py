"""A list of parameters and gradients that was checked once, bound to kernels: what one step after another needs.

In: arrays that `arrays` has accepted, with their slots. Out: `takes`, whether the next step may go without checks,
and `run`, the step. A plan holds the states, and nothing else, alive.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from .arrays import Array, bounds
from .host import Values
from .kernel import Binding, Kernel, threads
from .state import Slot

__all__ = ["Plan"]


class Plan:
    """One checked list: `groups` says which of its positions have which dtype, `kernels` has one for each dtype."""

    def __init__(
        self,
        kernels: dict[str, Kernel],
        groups: dict[str, list[int]],
        params: Sequence[Any],
        grads: Sequence[Any],
        ps: Sequence[Array],
        gs: Sequence[Array],
        slots: Sequence[Slot],
    ) -> None:
        self.slots = slots
        self.dtypes = frozenset(groups)
        self.bindings = []
        self.rows: list[tuple[Binding, int]] = [None] * len(ps)  # type: ignore[list-item]
        for dtype, members in groups.items():
            binding = Binding(kernels[dtype], [(ps[i], gs[i], *slots[i].arrays.values()) for i in members])
            self.bindings.append((binding, [slots[i] for i in members]))
            for row, i in enumerate(members):
                self.rows[i] = (binding, row)
        # Weak, so that a plan keeps no parameter alive; and what each array was like when it was checked.
        self.params: list[Callable[[], Any]] = [weakref.ref(p) for p in params]
        self.param_marks = [_mark(p) for p in ps]
        self.grads = [_reference(g) for g in grads]
        self.grad_marks = [_mark(g) for g in gs]
        self.spans = [(low - g.ctypes.data, high - g.ctypes.data) for g in gs for low, high in [bounds(g)]]
        written = sorted(bounds(x) for p, slot in zip(ps, slots, strict=True) for x in (p, *slot.arrays.values()))
        self.lows = [low for low, _ in written]
        self.highs = list(accumulate((high for _, high in written), max))

    def takes(self, params: Sequence[Any], grads: Sequence[Any]) -> bool:
        """Whether these are the arrays of this plan, with other values at most; or gradients just like its own."""
        if len(grads) != len(self.grads):
            return False
        for p, reference, mark in zip(params, self.params, self.param_marks, strict=True):
            if reference() is not p:
                return False
            x = p if isinstance(p, np.ndarray) else p.data
            if (x.shape, x.strides, x.flags.num, x.dtype) != mark:
                return False
        for i, g in enumerate(grads):
            if type(g) is not np.ndarray or (g.shape, g.strides, g.flags.num, g.dtype) != self.grad_marks[i]:
                return False
            if self.grads[i]() is not g and not self._rebind(i, g):
                return False
        return True

    def _rebind(self, i: int, g: Array) -> bool:
        """Another array in the place of gradient `i`, unless it overlaps with memory that the step writes."""
        binding, row = self.rows[i]
        address = binding.kernel.address(g)
        low, high = self.spans[i]
        low, high = address + low, address + high
        before = bisect_right(self.lows, high - 1) - 1
        if before >= 0 and self.highs[before] > low:
            return False
        binding.set_gradient(row, address)
        self.grads[i] = weakref.ref(g)
        return True

    def run(self, values: Values) -> None:
        count = threads()
        for binding, slots in self.bindings:
            ts = [slot.t + 1 for slot in slots]
            binding.run(values, ts, count)
            for slot, t in zip(slots, ts, strict=True):
                slot.t = t


def _mark(x: Array) -> tuple[Any, ...]:
    return (x.shape, x.strides, x.flags.num, x.dtype)


def _reference(x: Any) -> Callable[[], Any]:
    return weakref.ref(x) if isinstance(x, np.ndarray) else lambda: None
