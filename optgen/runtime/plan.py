"""Step plans: lists of parameters and gradients, checked once and bound to kernels.

In: parameters that the engine has accepted, with their slots. Out: `rebind`, which takes the arrays of the next step
without checking them again where it can, and `run`, the step.

A plan keeps states alive, and is forgotten with the first of them. It keeps no gradient alive: it knows addresses, so
each step begins by making sure that the arrays are still the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..frozen import frozen
from ..ir.evaluate import ValuesByCount
from ..ir.rule import Rule
from .array_library import ArrayLibrary, BoundStates, ParameterSlot
from .arrays import Array
from .bound import BoundKernels
from .clock import Clock
from .group_step import Shards
from .guard import BoundGradients, Guard
from .kernel import Kernel
from .members import BoundMember, KernelKey
from .slots import Key

__all__ = ["ListForm", "StepPlan", "StepPlans", "key_of_list"]

#: How many times each parameter is in the plans that an optimiser remembers, on average. It is in one of them where all
#: are stepped together, or one by one, however many they are.
MOST_PLANS = 4


@frozen
class ListForm:
    """The list of a plan.

    Attributes
    ----------
    count
        How many parameters it has.
    places
        Where those stand in it that kernels step; None if these are all.
    others
        The places of the others, which something else steps, and what decides how.
    standing
        Where the whole list stands among all parameters of the optimiser.
    """

    count: int
    places: Sequence[int] | None
    others: Sequence[tuple[int, object]]
    standing: Sequence[int]


class StepPlan:
    """One checked list.

    Parameters
    ----------
    library
        That of the arrays.
    members
        The parameters that kernels step.
    kernels
        Those that they need.
    states
        The states of the members.
    form
        The list in which they stand.
    shards
        Gives the wholes of those at some positions, for a kernel, where other processes have parts of them.
    bound
        Whether kernels have the addresses of their gradients; else `rebind` must come before the first step.
    """

    def __init__(
        self,
        library: ArrayLibrary,
        members: Sequence[BoundMember],
        kernels: Mapping[KernelKey, Kernel],
        states: BoundStates,
        form: ListForm,
        *,
        shards: Callable[[Sequence[int], Kernel], Shards] | None = None,
        bound: bool = True,
    ) -> None:
        self._library = library
        self.slots = [m.slot for m in members]
        self.others, self.standing, self._count, self._places = form.others, form.standing, form.count, form.places
        self._changed = [m.changed for m in members if m.changed is not None]  # kept alive by the optimiser
        self._setting = library.setting
        self._setting_then = library.setting() if library.setting else None
        self._mark_changed = library.mark_changed
        keys = [m.key for m in members]
        self.dtypes = frozenset(dtype for dtype, _ in keys)
        self._bound = BoundKernels(kernels, keys, [m.row for m in members], *library.threads())
        self.grouped, self._overwrites = self._bound.grouped, self._bound.overwrites
        if shards is not None:
            pairs = zip(self._bound.bindings, self._bound.order, strict=True)
            self._bound.shards = [shards(own.tolist(), binding.kernel) for binding, own in pairs]
        self._made = [m.made for m in members if m.made is not None]  # lives with the plan
        self._guard: Guard | None = None
        if members:
            gradients = BoundGradients(
                [m.g for m in members], [m.span for m in members], [low for m in members for low in m.written],
                self._bound.cells, fixed=not self.lasting or self._overwrites, bound=bound,
            )  # fmt: skip
            runtime = self._bound.bindings[0].kernel.runtime.path
            self._guard = Guard([m.p for m in members], runtime, library.reader, gradients)
        self._deferrable = [i for i, m in enumerate(members) if m.deferrable]
        self._through = any(m.through for m in members)
        self._plain = not (self.others or self._deferrable or self._through)
        self._sets = [m.hypers for m in members]
        self._states = states
        self._clock: Clock | None = None
        self._fits = states.fits
        #: The members, if any other list may have them as they are.
        self.members = members if self._is_free(shards is not None) else ()

    def _is_free(self, sharded: bool) -> bool:
        alone = self._plain and self.lasting and self._places is None and not (sharded or self._overwrites)
        return alone and self._mark_changed is None and self._fits is None

    @property
    def apart(self) -> bool:
        """Whether nothing that a step writes reaches into anything else that it writes, as far as intervals tell."""
        return self._guard is None or self._guard.apart

    @property
    def lasting(self) -> bool:
        """Whether another step may go by this plan."""
        return not self._made

    def rebind(self, params: list[Any], grads: list[Any]) -> tuple[list[Any], list[Any]] | None:
        """Bind these gradients; None, with nothing changed, unless arrays and layouts are those of this plan.

        Returns
        -------
        What the kernels have the addresses of. It must be kept until `run` is done.
        """
        if self._setting is not None and self._setting() != self._setting_then:
            return None
        if not self._plain:
            picked = self._picked(params, grads)
            if picked is None:
                return None
            params, grads = picked
        if self._guard is None:
            return (params, grads) if len(params) == len(grads) == len(self.others) else None
        try:
            fit = self._guard.rebind(params, grads) and (self._fits is None or self._fits())
        except RuntimeError:  # an array of which there is nothing to see, such as a sparse tensor
            return None
        return (params, grads) if fit else None

    def _picked(self, params: list[Any], grads: list[Any]) -> tuple[list[Any], list[Any]] | None:
        """Those that kernels step, as the guard looks at them; None unless the others are those of this plan."""
        library = self._library
        if len(params) != self._count or len(grads) != self._count:
            return None
        for i, mark in self.others:
            if library.mark(params[i], grads[i]) != mark:
                return None
        if self._places is not None:
            params, grads = [params[i] for i in self._places], [grads[i] for i in self._places]
        if self._through:
            params, grads = list(map(library.parameter_seen, params)), list(map(library.gradient_seen, grads))
        if any(library.is_deferred(grads[i]) for i in self._deferrable):
            return None
        return params, grads

    @property
    def steps(self) -> int:
        """How many steps its clock has counted."""
        return 0 if self._clock is None else self._clock.n

    @property
    def counts(self) -> set[int]:
        """The counts of updates that the slots are at."""
        n = self.settle()
        return {t + n for t in self._bound.before}

    def settle(self) -> int:
        """Make the slots count together, if any of them was given another count. Gives how many steps their clock has
        counted."""
        clock = self._states.clock
        if clock is None or not clock.whole:
            clock = self._states.restart()
        if clock is not self._clock:
            self._bound.follow(clock, self._sets)
            self._clock = clock
        return clock.n

    def run(self, sets: Sequence[ValuesByCount], group: Mapping[str, Array], grads: Sequence[Any]) -> bool:
        """One step; False if it does not count, as the rule has it: then nothing has changed.

        The arrays of this plan must be alive and as they were: it was just made, or `rebind` said so. An interrupt is
        raised before anything has changed, or when the step is through and counted.

        Parameters
        ----------
        sets
            The sets of hyperparameters.
        group
            The states of all parameters together.
        grads
            The gradients of the whole list, as they were given.
        """
        clock = self._clock
        if clock is None or not clock.whole or clock is not self._states.clock:
            self.settle()
        if self._mark_changed is not None:  # before, so that nothing comes between a change and its count
            self._mark_changed(self._changed)
            if self._overwrites:
                self._mark_changed(grads if self._places is None else [grads[i] for i in self._places])
        return self._bound.run(sets, group)

    def gradients(self, grads: Sequence[Any]) -> list[tuple[Rule, Any]]:
        """Of the parameters that kernels step: the rule that steps each, and its gradient."""
        chosen = grads if self._places is None else [grads[i] for i in self._places]
        rules = {
            int(i): b.kernel.rule for b, own in zip(self._bound.bindings, self._bound.order, strict=True) for i in own
        }
        return [(rules[i], g) for i, g in enumerate(chosen)]


class StepPlans:
    """The plans of an optimiser by the identities of their parameters; the oldest makes room for the newest.

    Whatever allocates memory may run the garbage collector, and with it `forget`: any plan may be gone meanwhile.
    """

    def __init__(self) -> None:
        self._plans: dict[int, tuple[Key, StepPlan]] = {}  # by number, which slots go by
        self._numbers: dict[Key, int] = {}
        #: The plan of the step before.
        self.last: StepPlan | None = None
        self._made, self._oldest = 0, 1
        self._members: dict[int, BoundMember] = {}  # by the identity of a parameter
        self._identities: dict[int, int] = {}  # by the identity of a slot: the last of its parameter
        self._size = self._slots = 0  # of all plans together: with each slot as often as it is there, and once

    def of(self, key: Key) -> StepPlan | None:
        """The plan that is kept by this key."""
        _, plan = self._plans.get(self._numbers.get(key, 0), (key, None))
        return plan

    def __len__(self) -> int:
        return len(self._plans)

    def members_of(self, params: Sequence[Any]) -> list[BoundMember] | None:
        """These parameters as other lists have had them; None if one is not known, or is there twice."""
        found = [member for member in map(self._members.get, map(id, params)) if member is not None]
        return found if len({id(member.slot) for member in found}) == len(params) else None

    def keep(self, key: Key, plan: StepPlan) -> None:
        for identity, member in zip(key, plan.members, strict=False):
            if self._members.get(identity) is not member:
                self._members.pop(self._identities.get(id(member.slot), 0), None)
                self._members[identity], self._identities[id(member.slot)] = member, identity
        self._drop(self._numbers.get(key, 0))
        number = self._numbers[key] = self._made = self._made + 1
        self._plans[number] = key, plan
        self.last = plan
        self._size += len(plan.slots)
        for slot in plan.slots:
            self._slots += not slot.plans
            slot.plans.add(number)
        while self._size > MOST_PLANS * self._slots:
            self._drop(self._oldest)
            self._oldest += 1

    def clear(self) -> None:
        for number in list(self._plans):
            self._drop(number)
        self._members, self._identities = {}, {}
        self.last = None

    def forget(self, slot: ParameterSlot) -> None:
        """Drops the plans with this slot, so that they do not keep its memory."""
        self._members.pop(self._identities.pop(id(slot), 0), None)
        for number in list(slot.plans):
            self._drop(number)

    def _drop(self, number: int) -> None:
        key, plan = self._plans.pop(number, ((), None))
        if plan is None:
            return
        self._numbers.pop(key, None)
        if plan is self.last:
            self.last = None
        self._size -= len(plan.slots)
        for slot in plan.slots:
            slot.plans.discard(number)
            self._slots -= not slot.plans


def key_of_list(params: Sequence[Any]) -> Key:
    return tuple(map(id, params))
