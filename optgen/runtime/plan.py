"""Step plans: lists of parameters and gradients, checked once and bound to kernels.

In: arrays that `arrays` has accepted, with their slots. Out: `rebind`, which takes the arrays of the next step without
checking them again where it can, and `run`, the step.

A plan keeps states alive, and is forgotten with the first of them. It keeps no parameter and no gradient alive: it
knows their addresses, so each step begins by making sure that the arrays are still the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..ir.evaluate import ValuesByCount
from ..ir.rule import Rule
from .addresses import bounds
from .arrays import COMPUTE, Array
from .bound import BoundKernels
from .guard import NUMPY, BoundGradients, Guard
from .kernel import Kernel
from .slots import Key, Slot, Ticks, owner_of

__all__ = ["StepPlan", "StepPlans", "key_of_list"]

#: How many times each parameter is in the plans that an optimiser remembers, on average. It is in one of them where all
#: are stepped together, or one by one, however many they are.
MOST_PLANS = 4


class StepPlan:
    """One checked list: `params` and `grads` as they were given, `ps` and `gs` the plain arrays behind them, `slots`.

    `kernel` gives the kernel of a dtype and a variant; what it raises goes through. `variants` says for each parameter
    in which one it is updated. `threads` is how many a step may use.
    """

    def __init__(
        self,
        kernel: Callable[[str, int], Kernel],
        params: Sequence[Any],
        grads: Sequence[Any],
        ps: Sequence[Array],
        gs: Sequence[Array],
        slots: Sequence[Slot],
        variants: Sequence[int],
        threads: int,
    ) -> None:
        self.slots = slots
        keys = [(COMPUTE[p.dtype], variant) for p, variant in zip(ps, variants, strict=True)]
        self.dtypes = frozenset(dtype for dtype, _ in keys)

        def arrays(i: int, rule: Rule) -> tuple[Array, ...]:
            return ps[i], gs[i], *(slots[i].arrays[name] for name in rule.tensor_states)

        self._bound = BoundKernels(kernel, keys, arrays, threads)
        self.grouped = self._bound.grouped
        self.plain = all(isinstance(p, np.ndarray) for p in params)
        if ps:
            written = [bounds(x) for p, slot in zip(ps, slots, strict=True) for x in (p, *slot.arrays.values())]
            given = [g if isinstance(g, np.ndarray) else plain for g, plain in zip(grads, gs, strict=True)]
            gradients = BoundGradients(given, gs, written, self._bound.cells, fixed=self._bound.overwrites)
            runtime = self._bound.bindings[0].kernel.runtime.path
            arrays_given = _arrays(params)
            alone = [owner_of(p) is p for p in arrays_given]
            self._guard = Guard(arrays_given, alone, runtime, NUMPY, gradients)
        self._ticks = Ticks()
        self._ticks.whole = False

    def rebind(self, params: Sequence[Any], grads: Sequence[Any]) -> bool:
        """Binds these gradients; False, with nothing changed, unless arrays and layouts are those of this plan."""
        if not self.slots:
            return not params and not grads
        arrays = params if self.plain else _arrays(params)
        if type(arrays) is not list:
            arrays = list(arrays)
        return self._guard.rebind(arrays, grads if type(grads) is list else list(grads))

    @property
    def counts(self) -> set[int]:
        """The counts of updates that the slots are at."""
        self._settle()
        return {t + self._ticks.n for t in self._bound.before}

    def _settle(self) -> None:
        """Makes the slots count together, if any of them was elsewhere since the last step."""
        if self._ticks.whole:
            return
        self._ticks = Ticks()
        for slot in self.slots:
            slot.join(self._ticks)
        self._bound.count_from([slot.t for slot in self.slots])

    def run(self, values: ValuesByCount, group: Mapping[str, Array]) -> bool:
        """One step; False if it does not count, as the rule has it: then nothing has changed. The arrays of this plan
        must be alive and as they were: it was just made, or `rebind` said so. `group`: the states of all parameters
        together."""
        self._settle()
        count = self._ticks.n + 1
        if not self._bound.run([values], count, group):
            return False
        self._ticks.n = count
        return True


def _arrays(params: Sequence[Any]) -> list[Any]:
    return [p if isinstance(p, np.ndarray) else getattr(p, "data", None) for p in params]


class StepPlans:
    """The plans of an optimiser by the identities of their parameters; the oldest makes room for the newest.

    Whatever allocates memory may run the garbage collector, and with it `forget`: any plan may be gone meanwhile.
    """

    def __init__(self) -> None:
        self._plans: dict[int, tuple[Key, StepPlan]] = {}  # by number, which slots go by
        self._numbers: dict[Key, int] = {}
        self._last: StepPlan | None = None
        self._made, self._oldest = 0, 1
        self._size = self._slots = 0  # of all plans together: with each slot as often as it is there, and once

    def for_step(self, params: Sequence[Any], grads: Sequence[Any]) -> StepPlan | None:
        """The plan by which these may be stepped without checks, if there is one."""
        last = self._last
        if last is not None and last.rebind(params, grads):
            return last
        plan = self.of(key_of_list(params))
        if plan is None or plan is last or not plan.rebind(params, grads):
            return None
        self._last = plan
        return plan

    def of(self, key: Key) -> StepPlan | None:
        """The plan that is kept by this key."""
        _, plan = self._plans.get(self._numbers.get(key, 0), (key, None))
        return plan

    def __len__(self) -> int:
        return len(self._plans)

    def keep(self, key: Key, plan: StepPlan) -> None:
        self._drop(self._numbers.get(key, 0))
        number = self._numbers[key] = self._made = self._made + 1
        self._plans[number] = key, plan
        self._last = plan
        self._size += len(plan.slots)
        for slot in plan.slots:
            self._slots += not slot.plans
            slot.plans.add(number)
        while self._size > MOST_PLANS * self._slots:
            self._drop(self._oldest)
            self._oldest += 1

    def forget(self, slot: Slot) -> None:
        """Drops the plans with this slot, so that they do not keep its memory."""
        for number in list(slot.plans):
            self._drop(number)

    def _drop(self, number: int) -> None:
        key, plan = self._plans.pop(number, ((), None))
        if plan is None:
            return
        del self._numbers[key]
        if plan is self._last:
            self._last = None
        self._size -= len(plan.slots)
        for slot in plan.slots:
            slot.plans.discard(number)
            self._slots -= not slot.plans


def key_of_list(params: Sequence[Any]) -> Key:
    return tuple(map(id, params))
