"""The tensors of a step, checked once and bound to kernels: what one step after another needs.

In: parameters with gradients and states that kernels can step. Out: `takes`, whether the next step may go without
checks, and `run`, the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import is_
from typing import Any

import numpy as np
import torch

from ..arrays import Array, as_gradient, as_parameter, bounds, refuse_overlaps
from ..driver import Compilation, kernel
from ..group import run_together
from ..host import Steps
from ..kernel import Binding, threads
from ..roll import Roll
from .mesh import cut, shards_of
from .tensors import DTYPES, TENSORS, local, memory

__all__ = ["Member", "TensorPlan"]


class Member:
    """One parameter of a step: its gradient, its `variant` of the rule, the set of hyperparameters that it goes by, and
    its `state`, of which `names` are what a kernel takes, in order."""

    __slots__ = ("before", "g", "names", "own", "p", "state", "variant")

    def __init__(
        self, p: Any, g: Any, variant: int, own: int, state: dict[str, Any], names: Sequence[str], before: int
    ) -> None:
        self.p, self.g, self.variant, self.own = p, g, variant, own
        self.state, self.names, self.before = state, names, before


class TensorPlan:
    """`members` are the parameters of a step, `places` where they stand among all of the optimiser; `rest` are those
    that are stepped by something else, and all others must have no gradient.

    `clocked`: the states have a count, "step", of which one tensor for all is kept here.
    """

    def __init__(
        self,
        compilation: Compilation,
        module: str | None,
        members: Sequence[Member],
        places: Sequence[int],
        rest: Sequence[int],
        count: int,
        clocked: bool,
    ) -> None:
        self.members = members
        self.rest = list(rest)
        self._count = count
        self._places = None if len(places) == count else list(places)
        self._idle = sorted(set(range(count)) - set(places) - set(rest))
        self.tensors = [member.p for member in members]
        self._locals = any(local(p) is not p for p in self.tensors)
        self._clocked = clocked
        self._threads = threads()
        number = len(members)
        ps = [as_parameter(memory(member.p), i, number) for i, member in enumerate(members)]
        # A gradient with a conjugation that is still to be made is made now, and looked at again the next time.
        # So is one that had to be laid out as its parameter is.
        self._lazy = any(x.g.is_conj() or x.g.is_neg() or x.g is not x.p.grad for x in members)
        made = [local(member.g).resolve_conj().resolve_neg() for member in members]
        gs = [as_gradient(memory(g), p, i, number) for i, (g, p) in enumerate(zip(made, ps, strict=True))]
        states = [[memory(member.state[name]) for name in member.names] for member in members]
        refuse_overlaps(ps, gs, [array for arrays in states for array in arrays])
        self._keep = made if self._lazy else None

        groups: dict[tuple[str, int], list[int]] = {}
        for i, member in enumerate(members):
            groups.setdefault((DTYPES[member.p.dtype], member.variant), []).append(i)
        self._order = [np.array(own) for own in groups.values()]
        self._bindings = []
        cells: dict[int, tuple[int, int]] = {}
        cuts = any(map(cut, self.tensors))
        compilation = compilation.in_shards if cuts else compilation
        for (dtype, variant), own in groups.items():
            binding = Binding(kernel(compilation, variant, dtype, module), [(ps[i], gs[i], *states[i]) for i in own])
            self._bindings.append(binding)
            cells |= {i: binding.gradient_cell(row) for row, i in enumerate(own)}
        self._shards = None
        if cuts:
            pairs = zip(self._bindings, groups.values(), strict=True)
            self._shards = [shards_of([self.tensors[i] for i in own], binding.kernel) for binding, own in pairs]
        self._grouped = compilation.sharded or any(binding.kernel.rule.grouped for binding in self._bindings)
        written = [bounds(x) for p, arrays in zip(ps, states, strict=True) for x in (p, *arrays)]
        fixed = self._lazy or any(binding.kernel.rule.overwrites for binding in self._bindings)
        self._roll = Roll(
            [local(p) for p in self.tensors], [True] * number, made, gs, written, [cells[i] for i in range(number)],
            fixed, self._bindings[0].kernel.runtime.path, TENSORS,
        )  # fmt: skip
        self._kept = [member.state[name] for member in members for name in member.names]
        self._start()

    # ---- Counts ----

    def _start(self) -> None:
        """Counts from where the states are, in a tensor of this plan."""
        begun = [member.before for member in self.members]
        if self._clocked:
            begun = [int(member.state["step"]) if "step" in member.state else 0 for member in self.members]
            dtype = torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
            steps = torch.tensor(begun, dtype=dtype)
            for member, step in zip(self.members, steps.unbind(), strict=True):
                member.state["step"] = step
            self._steps: Array = steps.numpy()
            self._expected = self._steps.copy()
        self._begun, self._n = begun, 0
        for binding, own in zip(self._bindings, self._order, strict=True):
            binding.count_from([begun[i] for i in own], [self.members[i].own for i in own])
        self._seen: list[Any] = []

    def _counts_on(self, states: Mapping[Any, dict[str, Any]]) -> bool:
        """Whether the states are those that kernels are bound to; counts are begun anew if they are not as left."""
        seen = list(chain.from_iterable(map(dict.values, states.values())))
        same = len(seen) == len(self._seen) and all(map(is_, seen, self._seen))
        if same and (not self._clocked or np.array_equal(self._steps, self._expected)):
            return True
        for member in self.members:
            if member.state is not states.get(member.p) or not all(name in member.state for name in member.names):
                return False
        own = [member.state[name] for member in self.members for name in member.names]
        if not all(map(is_, own, self._kept)):
            return False
        if self._seen:  # else it has just begun
            for member in self.members:
                member.before = 1
            self._start()
        self._seen = list(chain.from_iterable(map(dict.values, states.values())))
        return True

    # ---- Steps ----

    def takes(self, params: list[Any], grads: list[Any], states: Mapping[Any, dict[str, Any]]) -> bool:
        """Whether all parameters of the optimiser are as they were, with gradients laid out as theirs were, or none."""
        if len(params) != self._count or any(grads[i] is not None for i in self._idle):
            return False
        if self._places is not None:
            params, grads = [params[i] for i in self._places], [grads[i] for i in self._places]
        if self._locals:
            params, grads = list(map(local, params)), list(map(local, grads))
        try:
            return self._roll.call(params, grads) and self._counts_on(states)
        except (RuntimeError, BufferError):  # a tensor of which there is nothing to see, such as a sparse one
            return False

    def run(self, values: Sequence[Steps], states: Mapping[Any, dict[str, Any]], group: Mapping[str, Array]) -> bool:
        """One step; False if it does not count, as the rule has it. The plan was just made, or `takes` said so."""
        if not self._seen:
            self._counts_on(states)
        count = self._n + 1
        if self._grouped:
            t = count + max(self._begun)
            if not run_together(
                self._bindings, self._order, values, count, t, group, self._threads, shards=self._shards
            ):
                return False
        else:
            for binding in self._bindings:
                binding.run(values, count, self._threads)
        self._n = count
        if self._clocked:
            self._steps += 1
            self._expected += 1
        # Autograd is told, so that a backward through the old values is refused.
        torch.autograd.graph.increment_version(self.tensors)
        return True
