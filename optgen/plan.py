"""A list of parameters and gradients that was checked once, bound to kernels: what one step after another needs.

In: arrays that `arrays` has accepted, with their slots. Out: `takes`, whether the next step may go without checks,
and `run`, the step. A plan keeps the states alive, and is forgotten with the first of them; it keeps no parameter and
no gradient alive. Of these it knows addresses, so every step makes sure that the arrays are still what they were.
"""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from operator import attrgetter, call, is_
from typing import Any

import numpy as np
from _cffi_backend import FFI

from .arrays import COMPUTE, Array, bounds
from .group import run_together
from .host import Steps
from .kernel import Binding, Kernel
from .state import Key, Slot

__all__ = ["Plan", "Plans"]

#: How many lists of parameters an optimiser remembers; one each for who updates 1024 parameters one by one.
MOST_PLANS = 1024

_ffi = FFI()  # the compiled one: `cffi.FFI` is twice as slow

# What must not change of an array while its plan is used.
_param_mark = attrgetter("shape", "strides", "dtype", "flags.writeable")
_grad_mark = attrgetter("__class__", "shape", "strides", "dtype", "flags.aligned")


class Plan:
    """One checked list: `params` as they were given, `ps` the arrays behind them, their gradients `gs` and `slots`.

    `kernel` gives the kernel of a dtype and a variant; what it raises goes through. `variants` says for each parameter
    in which one it is updated. `threads` is how many a step may use.
    """

    def __init__(
        self,
        kernel: Callable[[str, int], Kernel],
        params: Sequence[Any],
        ps: Sequence[Array],
        gs: Sequence[Array],
        slots: Sequence[Slot],
        variants: Sequence[int],
        threads: int,
    ) -> None:
        self.slots = slots
        self.threads = threads
        members: dict[tuple[str, int], list[int]] = {}
        for i, (p, variant) in enumerate(zip(ps, variants, strict=True)):
            members.setdefault((COMPUTE[p.dtype], variant), []).append(i)
        self.dtypes = frozenset(dtype for dtype, _ in members)
        self.bindings = []
        self.order = list(members.values())
        places: dict[int, tuple[Binding, int]] = {}
        for (dtype, variant), own in members.items():
            chosen = kernel(dtype, variant)
            states = chosen.rule.tensor_states
            binding = Binding(chosen, [(ps[i], gs[i], *(slots[i].arrays[name] for name in states)) for i in own])
            self.bindings.append((binding, [slots[i] for i in own]))
            places |= {i: (binding, row) for row, i in enumerate(own)}
        self.grouped = any(binding.kernel.rule.grouped for binding, _ in self.bindings)
        self.places = [places[i] for i in range(len(ps))]  # where gradient i stands
        self.plain = all(isinstance(p, np.ndarray) for p in params)
        given = params if self.plain else _arrays(params)
        # NumPy does not move the memory of an array that is watched: `resize` is refused.
        self.params = [weakref.ref(p) for p in given]
        self.param_marks = list(map(_param_mark, given))
        self.grads = [weakref.ref(g) for g in gs]
        self.grad_marks = list(map(_grad_mark, gs))
        self.pointers = [_ffi.from_buffer if g.flags.c_contiguous else _pointer for g in gs]
        # Of each gradient, where it begins and ends, seen from its first element; and all memory that a step writes:
        # `lows` in order, and for each number of them how far the memory behind so many reaches.
        self.spans = [(low - g.ctypes.data, high - g.ctypes.data) for g in gs for low, high in [bounds(g)]]
        written = sorted(bounds(x) for p, slot in zip(ps, slots, strict=True) for x in (p, *slot.arrays.values()))
        self.lows = [low for low, _ in written]
        self.reach = list(accumulate((high for _, high in written), max, initial=0))

    def takes(self, params: Sequence[Any], grads: Sequence[Any]) -> bool:
        """Whether these are the parameters of this plan as they were, with gradients laid out as its own were."""
        try:
            arrays = params if self.plain else _arrays(params)
            if not _are(arrays, self.params) or list(map(_param_mark, arrays)) != self.param_marks:
                return False
            if list(map(_grad_mark, grads)) != self.grad_marks:
                return False
        except AttributeError:  # something else than an array
            return False
        return _are(grads, self.grads) or self._rebind(grads)

    def _rebind(self, grads: Sequence[Array]) -> bool:
        """Other gradients in the place of the present ones, unless one overlaps with memory that the step writes."""
        table = _ffi.new("void *[]", list(map(call, self.pointers, grads)))
        addresses = _ffi.unpack(_ffi.cast("intptr_t *", table), len(table))
        lows, reach = self.lows, self.reach
        for address, (low, high) in zip(addresses, self.spans, strict=True):
            if reach[bisect_left(lows, address + high)] > address + low:
                return False
        for address, (binding, row) in zip(addresses, self.places, strict=True):
            binding.set_gradient(row, address)
        self.grads = list(map(weakref.ref, grads))
        return True

    def run(self, values: Steps, group: Mapping[str, Array]) -> None:
        """One step. The arrays of this plan must be alive and as they were: it was just made, or `takes` said so.
        `group`: the states of all parameters together."""
        if self.grouped:
            bindings, counts = [], []
            for binding, slots in self.bindings:
                bindings.append(binding)
                counts.append([slot.t + 1 for slot in slots])
            run_together(bindings, self.order, values, counts, group, self.threads)
            for slot in self.slots:
                slot.t += 1
            return
        for binding, slots in self.bindings:
            ts = [slot.t + 1 for slot in slots]
            binding.run(values, ts, self.threads)
            for slot, t in zip(slots, ts, strict=True):
                slot.t = t


def _arrays(params: Sequence[Any]) -> list[Any]:
    return [p if isinstance(p, np.ndarray) else p.data for p in params]


def _are(arrays: Sequence[Any], watched: Sequence[weakref.ref[Any]]) -> bool:
    return all(map(is_, map(call, watched), arrays))


def _pointer(x: Array) -> Any:
    """The address of any array; `from_buffer` gives that of a C-contiguous one, at a sixth of the cost."""
    return _ffi.cast("void *", x.ctypes.data)


class Plans:
    """The plans of an optimiser by the identities of their parameters; the oldest makes room for the newest."""

    def __init__(self) -> None:
        self._plans: dict[Key, Plan] = {}
        self.get = self._plans.get

    def __len__(self) -> int:
        return len(self._plans)

    def keep(self, key: Key, plan: Plan) -> None:
        self._drop(key)
        while len(self._plans) >= MOST_PLANS:
            self._drop(next(iter(self._plans)))
        self._plans[key] = plan
        for slot in plan.slots:
            slot.plans.add(key)

    def forget(self, slot: Slot) -> None:
        """Drops the plans with this slot, so that they do not keep its memory."""
        for key in list(slot.plans):
            self._drop(key)

    def _drop(self, key: Key) -> None:
        plan = self._plans.pop(key, None)
        for slot in plan.slots if plan else ():
            slot.plans.discard(key)
