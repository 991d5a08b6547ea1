"""Step plans of tensors: parameters, gradients and states, checked once and bound to kernels.

In: parameters, gradients and states that kernels can step.
Out: `rebind`, which binds the gradients of the next step, without checking them again where it can; `run`, the step.

A plan keeps no gradient alive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import is_
from typing import Any

import torch

from ..errors import ArrayError
from ..ir.evaluate import ValuesByCount
from ..runtime import library
from ..runtime.addresses import bounds
from ..runtime.arrays import Array, as_gradient, as_parameter
from ..runtime.bound import BoundKernels
from ..runtime.guard import BoundGradients, DictGuard, Guard
from ..runtime.kernel import kernel_of as kernel
from ..runtime.overlaps import refuse_overlaps
from .naming import STEP, Kind
from .sharding import cut, shards_of
from .small_states import SmallStates
from .tensors import DTYPES, TENSORS, count_dtype, increment_version, local, memory, unresolved
from .threads import threads

__all__ = ["Member", "Taken", "TensorPlan", "accepted", "step_of"]


class Member:
    """One parameter of a step: its `variant` of the rule, the set of hyperparameters that it goes by, and its `state`,
    of which `names` are what a kernel takes, in order; the last `small` have less than a value for each element. Its
    gradient is not kept: that is the caller's memory."""

    __slots__ = ("before", "names", "own", "p", "small", "state", "variant")

    def __init__(
        self, p: Any, variant: int, own: int, state: dict[str, Any], names: Sequence[str], small: int, before: int
    ) -> None:
        self.p, self.variant, self.own = p, variant, own
        self.state, self.names, self.small, self.before = state, names, small, before

    def tensors(self) -> tuple[list[Any], list[Any]]:
        """Its states: those of elements, and the small ones."""
        found = [self.state[name] for name in self.names]
        large = len(found) - self.small
        return found[:large], found[large:]


@dataclass(frozen=True)
class Taken:
    """Gradients as `tensors` that have memory of their own, and arrays over that of parameters and gradients."""

    tensors: Sequence[torch.Tensor]
    ps: Sequence[Array]
    gs: Sequence[Array]


def accepted(params: Sequence[torch.Tensor], grads: Sequence[torch.Tensor], *, overwrites: bool) -> Taken:
    """What a step reads and writes; ArrayError if that overlaps, or cannot be written. `overwrites`: gradients are
    written too."""
    number = len(params)
    ps = [as_parameter(memory(p), i, number) for i, p in enumerate(params)]
    made = [local(g).resolve_conj().resolve_neg() for g in grads]
    gs = [
        as_gradient(memory(g), p, i, number, written=overwrites)
        for i, (g, p) in enumerate(zip(made, ps, strict=True))
    ]  # fmt: skip
    for i, (g, x) in enumerate(zip(grads, made, strict=True)):
        if overwrites and x is not local(g):
            message = f"gradient {i} is a conjugated or negated view, and the step overwrites it"
            raise ArrayError(message, hint="p.grad = p.grad.resolve_conj().resolve_neg() before it")
    refuse_overlaps(ps, gs, [], overwrites=overwrites)
    return Taken(made, ps, gs)


class TensorPlan:
    """`members` are the parameters of a step, `places` where they stand among all `params` of the optimiser; `rest` are
    those that are stepped by something else, and all others must have no gradient.

    `taken`: parameters and gradients as `accepted` has found them.
    """

    def __init__(
        self,
        kind: Kind,
        members: Sequence[Member],
        taken: Taken,
        places: Sequence[int],
        rest: Sequence[int],
        params: Sequence[Any],
        grads: Sequence[Any],
    ) -> None:
        self.members = members
        self.rest = list(rest)
        self._rest = [_kind(params[i], grads[i]) for i in rest]
        self._count = count = len(params)
        self._places = None if len(places) == count else list(places)
        self._idle = sorted(set(range(count)) - set(places) - set(rest))
        self.tensors = [member.p for member in members]
        self._locals = any(local(p) is not p for p in self.tensors)
        self._clocked = kind.counted  # then the states have a count, of which one tensor for all is kept here
        # Memory that was made for this step holds a gradient that was to be conjugated, negated or redistributed.
        # It lives until the step is done, and so does the plan.
        given = [grads[i] for i in places]
        made = any(x is not local(p.grad) for x, p in zip(taken.tensors, self.tensors, strict=True))
        self.made_for_one_step = taken.tensors if made else None
        self._unresolved = [i for i, g in enumerate(given) if unresolved(local(g))]

        self._threads = torch.get_num_threads()
        cuts = any(map(cut, self.tensors))
        compilation = kind.compilation.in_shards if cuts else kind.compilation
        states = [member.tensors() for member in members]
        memories = [list(map(memory, large)) for large, _ in states]
        small = [[memory(x) for x in small] for _, small in states]
        self._small_tensors = [x for _, small in states for x in small]
        self._runtime = library.runtime().path
        self._small = None
        if self._clocked or self._small_tensors:
            shapes = [x.shape for each in small for x in each]
            self._small = SmallStates(len(members) if self._clocked else 0, shapes, self._runtime, TENSORS)
        values = iter(self._small.values if self._small else ())
        arrays = [
            (p, g, *own, *islice(values, member.small))
            for p, g, own, member in zip(taken.ps, taken.gs, memories, members, strict=True)
        ]
        self._bound = BoundKernels(
            lambda dtype, variant: kernel(compilation, variant, dtype, kind.module),
            [(DTYPES[member.p.dtype], member.variant) for member in members],
            lambda i, _: arrays[i],
            *threads(),
        )
        if cuts:
            pairs = zip(self._bound.bindings, self._bound.order, strict=True)
            self._bound.shards = [shards_of([self.tensors[i] for i in own], each.kernel) for each, own in pairs]
        self._kept = [member.state[name] for member in members for name in member.names]
        if members:
            written = [(p, *own, *few) for p, own, few in zip(taken.ps, memories, small, strict=True)]
            refuse_overlaps(taken.ps, taken.gs, [array for each in written for array in each[1:]])
            fixed = made or self._bound.overwrites
            intervals = [bounds(x) for each in written for x in each]
            gradients = BoundGradients(taken.tensors, taken.gs, intervals, self._bound.cells, fixed)
            ps = list(map(local, self.tensors))
            self._guard = Guard(ps, [True] * len(members), self._runtime, TENSORS, gradients)
            # A state may be given other memory without being another tensor.
            self._memory = [local(x) for large, _ in states for x in large]
            self._states = Guard(self._memory, [True] * len(self._memory), self._runtime, TENSORS)
        self._start()

    # ---- Counts ----

    def _start(self) -> None:
        """Counts from where the states are."""
        begun = [member.before for member in self.members]
        if self._small:
            steps = [step_of(member.state) for member in self.members] if self._clocked else []
            self._small.hold(steps, self._small_tensors)
            begun = self._small.counts or begun
        self._n = 0
        self._bound.count_from(begun, [member.own for member in self.members])
        self._seen: DictGuard | None = None

    def _counts_on(self, states: Mapping[Any, dict[str, Any]]) -> bool:
        """Whether the states are those that kernels are bound to; counts are begun anew if they are not as left."""
        same = self._seen is not None and self._seen.same(list(states.values()))
        if same and (not self._small or self._small.read()):
            return True
        for member in self.members:
            if not member.names and not self._clocked:
                continue
            if member.state is not states.get(member.p) or not all(name in member.state for name in member.names):
                return False
        if not all(map(is_, (member.state[name] for member in self.members for name in member.names), self._kept)):
            return False
        if self._seen is not None:  # else it has just begun
            for member in self.members:
                member.before = 1
            self._start()
        self._seen = DictGuard(states.values(), self._runtime)
        return True

    # ---- Steps ----

    def rebind(self, params: list[Any], grads: list[Any], states: Mapping[Any, dict[str, Any]]) -> bool:
        """Binds these gradients; False unless all parameters, and the layouts of gradients, are those of this plan."""
        if torch.get_num_threads() != self._threads:  # whose threads may be those of the steps
            return False
        if len(params) != self._count or any(grads[i] is not None for i in self._idle):
            return False
        for i, kind in zip(self.rest, self._rest, strict=True):
            if grads[i] is None or _kind(params[i], grads[i]) != kind:
                return False
        if not self.members:
            return True
        if self._places is not None:
            params, grads = [params[i] for i in self._places], [grads[i] for i in self._places]
        if self._unresolved and any(_is_lazy(grads[i]) for i in self._unresolved):
            return False
        if self._locals:
            params, grads = list(map(local, params)), list(map(local, grads))
        try:
            fit = self._guard.rebind(params, grads) and self._states.rebind(self._memory, None)
        except RuntimeError:  # a tensor of which there is nothing to see, such as a sparse one
            return False
        return fit and self._counts_on(states)

    def run(
        self, values: Sequence[ValuesByCount], states: Mapping[Any, dict[str, Any]], group: Mapping[str, Array]
    ) -> bool:
        """One step; False if it does not count, as the rule has it. The plan was just made, or `rebind` said so."""
        if self._seen is None:
            self._counts_on(states)
        count = self._n + 1
        if not self._bound.run(values, count, group):
            return False
        self._n = count
        if self._small:
            self._small.write()
        increment_version(self.tensors)
        if self._bound.overwrites:
            increment_version([member.p.grad for member in self.members])
        return True


def step_of(state: dict[str, Any]) -> torch.Tensor:
    """The count of updates in a state, as a tensor."""
    step = state.get(STEP, 0)
    if not isinstance(step, torch.Tensor):
        with torch.inference_mode(False):
            step = state[STEP] = torch.tensor(float(step), dtype=count_dtype(), device="cpu")
    return step


def _is_lazy(g: torch.Tensor | None) -> bool:
    """Whether a gradient is a view that is still to be conjugated or negated."""
    return g is not None and (g.is_conj() or g.is_neg())


def _kind(p: torch.Tensor, g: torch.Tensor) -> tuple[Any, ...]:
    """What decides how a parameter is stepped that kernels do not step."""
    return id(p), p.dtype, p.shape, p.device, type(g), g.dtype, g.layout, g.device
