"""Step plans: lists of parameters and gradients, checked once and bound to kernels.

In: members that the engine has accepted, for this list or for others. Out: `rebind`, which takes the arrays of the next
step without checking them again where it can, and `run`, the step.

A plan keeps states alive, and is forgotten with the first of them. It keeps no gradient alive: it knows addresses, so
each step begins by making sure that the arrays are still the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..frozen import frozen
from ..ir.evaluate import ValuesByCount
from ..ir.rule import Rule
from .array_library import ArrayLibrary, BoundStates, ParameterSlot
from .arrays import Array
from .bound import BoundKernels
from .clock import Clock
from .guard import BoundGradients, Guard
from .library import runtime
from .members import AnyKernel, BoundMember, Member, bind_members
from .reports import of_kernels
from .slots import Key

__all__ = ["StepPlan", "StepPlans", "in_phase", "key_of_list", "plan_of_list", "plan_of_members"]

#: How many times each parameter is in the plans that an optimiser remembers, on average. It is in one of them where all
#: are stepped together, or one by one, however many they are.
MOST_PLANS = 4


@frozen
class ListForm:
    """The list of a plan, beside its members.

    Attributes
    ----------
    count, given
        How many parameters it has, and how many gradients and other inputs.
    places, input_places
        Where those parameters stand that kernels step, and what they are given: their gradients, then each further
        input.
    others
        Where the others stand, which something else steps, and what decides how.
    standing
        Where the whole list stands among all parameters of the optimiser.
    made
        Memory that was made for this step, such as that of a gradient that lay in other shards: it lives with the plan,
        by which no other step may go.
    """

    count: int
    given: int
    places: Sequence[int]
    input_places: Sequence[int]
    others: Sequence[tuple[int, object]]
    standing: Sequence[int]
    made: Sequence[object] = ()


class StepPlan:
    """One list of parameters and gradients.

    Parameters
    ----------
    library
        That of the arrays.
    members
        The parameters that kernels step.
    states
        The states of the members, which the plans of several phases may share.
    form
        The list in which they stand.
    rules
        The rule, in all its variants.
    cut
        The members as the caller has them, if other processes have parts of them.
    bound
        Whether the members were bound with the gradients of this list; else `rebind` must come before the first step.
    """

    def __init__(
        self,
        library: ArrayLibrary,
        members: Sequence[BoundMember],
        states: BoundStates,
        form: ListForm,
        *,
        rules: Sequence[Rule],
        cut: Sequence[Any] = (),
        bound: bool,
    ) -> None:
        self._library, self._form, self.states = library, form, states
        self.members = members
        self.slots = [member.slot for member in members]
        self.others, self.standing = form.others, form.standing
        self._changed = [member.changed for member in members]  # to be marked so; kept alive by the optimiser
        self._setting = library.setting
        self._setting_then = library.setting() if library.setting else None
        self._mark_changed = library.mark_changed
        kernels, rows = [member.kernel for member in members], [member.row for member in members]
        self.dtypes = frozenset([kernel.dtype for kernel in kernels])
        self._bound = BoundKernels(kernels, rows, *library.threads())
        #: What its kernels report; None if they report nothing.
        self.reports = of_kernels(self._bound, [rules[member.variant] for member in members], self.slots)
        self.grouped = self._bound.grouped
        if cut:
            pairs = zip(self._bound.bindings, self._bound.order, strict=True)
            self._bound.shards = [
                library.shards([cut[i] for i in own], b.kernel, [row.form.block for row in b.rows]) for b, own in pairs
            ]
        #: Whether these members are new, and other lists may have them as they are.
        self.shared = bound and self.lasting and not (self._bound.overwrites or cut)
        self._guard = self._guard_of(bound=bound) if members else None
        deferrable = [may for kind in zip(*[member.deferrable for member in members], strict=True) for may in kind]
        self._deferrable = [i for i, may in enumerate(deferrable) if may]
        self._through = any([member.through for member in members])
        self._plain = not (self.others or self._deferrable or self._through)
        self._sets = [member.hypers for member in members]
        self._clock: Clock | None = None
        self._fits = states.fits

    def _guard_of(self, *, bound: bool) -> Guard:
        members = self.members
        gradients = BoundGradients(
            [x for kind in zip(*[member.inputs for member in members], strict=True) for x in kind],
            self._bound.given_cells(),
            b"".join([member.written for member in members]),
            fixed=not self.lasting or self._bound.overwrites,
            bound=bound,
        )
        return Guard([member.p for member in members], runtime().path, self._library.reader, gradients)

    @property
    def apart(self) -> bool:
        """Whether no interval of memory that a step writes reaches into another one."""
        return self._guard is None or self._guard.apart

    @property
    def places(self) -> Sequence[int]:
        """Where the members stand in the list."""
        return self._form.places

    @property
    def lasting(self) -> bool:
        """Whether another step may go by this plan."""
        return not self._form.made

    def rebind(self, params: list[Any], inputs: list[Any]) -> tuple[list[Any], list[Any]] | None:
        """Bind these inputs; None, with nothing changed, unless arrays and layouts are those of this plan.

        Returns
        -------
        What the kernels have the addresses of. It must be kept until `run` is done.
        """
        if self._setting is not None and self._setting() != self._setting_then:
            return None
        if not self._plain:
            picked = self._picked(params, inputs)
            if picked is None:
                return None
            params, inputs = picked
        if self._guard is None:
            return (params, inputs) if len(params) == len(inputs) == len(self.others) else None
        try:
            fit = self._guard.rebind(params, inputs) and (self._fits is None or self._fits())
        except RuntimeError:  # an array of which there is nothing to see, such as a sparse tensor
            return None
        return (params, inputs) if fit else None

    def _picked(self, params: list[Any], inputs: list[Any]) -> tuple[list[Any], list[Any]] | None:
        """Those that kernels step, as the guard looks at them; None unless the others are those of this plan."""
        library, form = self._library, self._form
        if len(params) != form.count or len(inputs) != form.given:
            return None
        for i, mark in self.others:
            if library.mark(params[i], inputs[i]) != mark:
                return None
        if self.others:
            params, inputs = [params[i] for i in form.places], [inputs[i] for i in form.input_places]
        if self._through:
            params, inputs = list(map(library.parameter_seen, params)), list(map(library.gradient_seen, inputs))
        if any([library.is_deferred(inputs[i]) for i in self._deferrable]):
            return None
        return params, inputs

    @property
    def steps(self) -> int:
        """How many steps its clock has counted; of an earlier phase, how often it has run."""
        return 0 if self._clock is None else self._bound.done

    @property
    def counts(self) -> set[int]:
        """The counts of updates that the slots are at."""
        n = self.settle()
        return {t + n for t in self._bound.before}

    def settle(self) -> int:
        """Make the slots count together, if any of them was given another count. Gives how many steps their clock has
        counted."""
        clock = self.states.clock
        if clock is None or not clock.whole:
            clock = self.states.restart()
        if clock is not self._clock:
            self._bound.follow(clock, self._sets)
            self._clock = clock
        return clock.n

    def run(self, sets: Sequence[ValuesByCount], group: Mapping[str, Array], inputs: Sequence[Any]) -> bool:
        """One step; False if it does not count, as the rule has it: then nothing has changed but what always does.

        The arrays of this plan must be alive and as they were: it was just made, or `rebind` said so. An interrupt is
        raised before anything has changed, or when the step is through and counted.

        Parameters
        ----------
        sets
            The sets of hyperparameters.
        group
            The states of all parameters together.
        inputs
            The gradients of the whole list, and its other inputs, as they were given.
        """
        clock = self._clock
        if clock is None or not clock.whole or clock is not self.states.clock:
            self.settle()
        if self._mark_changed is not None:  # before, so that nothing comes between a change and its count
            self._mark_changed(self._changed)
            if self._bound.overwrites:
                self._mark_changed([g for _, g in self.gradients(inputs)])
        return self._bound.run(sets, group)

    def gradients(self, inputs: Sequence[Any]) -> list[tuple[Rule, Any]]:
        """Of the parameters that kernels step: the rule that steps each, and its gradient."""
        return [(member.kernel.rule, inputs[i]) for member, i in zip(self.members, self._form.places, strict=True)]


def plan_of_list(
    library: ArrayLibrary,
    members: Sequence[Member],
    chosen: Sequence[int],
    others: Sequence[int],
    standing: Sequence[int],
    params: Sequence[Any],
    inputs: Sequence[Any],
    *,
    rules: Sequence[Rule],
    kernels: Sequence[AnyKernel],
    states: BoundStates,
) -> StepPlan:
    """The plan of a list that was checked: of these members, which stand at the positions `chosen`, and of others.

    `kernels`: what steps each member. The rest is as in `StepPlan`.
    """
    given = [member.given for member in members]
    at = [first + i for first in range(0, len(inputs), max(1, len(params))) for i in chosen]
    own = [x for kind in zip(*[member.inputs for member in members], strict=True) for x in kind]
    made = [x for x, i in zip(own, at, strict=True) if x.seen is not library.gradient_seen(inputs[i])]
    marks = [(i, library.mark(params[i], inputs[i])) for i in others]
    form = ListForm(len(params), len(inputs), chosen, at, marks, standing, made)
    bound = bind_members(library, members, states, kernels)
    cut = given if library.in_shards(given) else ()
    return StepPlan(library, bound, states, form, rules=rules, cut=cut, bound=True)


def plan_of_members(
    library: ArrayLibrary,
    members: Sequence[BoundMember],
    states: BoundStates,
    rules: Sequence[Rule],
    standing: Sequence[int],
    given: int,
) -> StepPlan | None:
    """The plan of a list of members that other lists have had; None unless all that a step writes is apart.

    `given`: how many gradients and other inputs the list has. The rest is as in `StepPlan`.
    """
    form = ListForm(len(members), given, range(len(members)), range(given), (), standing)
    plan = StepPlan(library, members, states, form, rules=rules, bound=False)
    return plan if plan.apart else None


class StepPlans:
    """The plans of an optimiser by the identities of their parameters; the oldest makes room for the newest. And the
    members of these plans, of each parameter the newest, for lists that no plan knows.

    Whatever allocates memory may run the garbage collector, and with it `forget`: any plan may be gone meanwhile.
    """

    def __init__(self) -> None:
        self._plans: dict[int, tuple[Key, StepPlan]] = {}  # by number, which slots go by
        self._numbers: dict[Key, int] = {}
        self._members: dict[int, BoundMember] = {}  # by the identity of the parameter, which slots go by too
        #: The plan of the step before.
        self.last: StepPlan | None = None
        self._made, self._oldest = 0, 1
        self._size = self._slots = 0  # of all plans together: with each slot as often as it is there, and once

    def of(self, key: Key) -> StepPlan | None:
        """The plan that is kept by this key."""
        _, plan = self._plans.get(self._numbers.get(key, 0), (key, None))
        return plan

    def members(self, key: Key) -> list[BoundMember]:
        """The parameters of a list, as other lists have had them; none unless all are known, and each is there once."""
        found = [member for identity in key if (member := self._members.get(identity)) is not None]
        return found if len({id(member.slot) for member in found}) == len(key) else []

    def states(self, key: Key, phases: int, slots: Sequence[ParameterSlot]) -> BoundStates | None:
        """The states of these slots, if a plan for the list of this key has bound them in one of so many phases."""
        for number in range(phases):
            plan = self.of(in_phase(key, number))
            if plan is not None and plan.states.are_of(slots):
                return plan.states
        return None

    def __len__(self) -> int:
        return len(self._plans)

    def keep(self, key: Key, plan: StepPlan, phase: int = 0) -> None:
        """Keep a plan for a phase, and its members if they are new. What breaks this off leaves nothing kept."""
        try:
            self._keep(in_phase(key, phase), plan)
            for i, member in zip(plan.places, plan.members, strict=True) if plan.shared else ():
                self._forget_member(member.slot)
                self._members[key[i]] = member
                member.slot.known_as = key[i]
        except BaseException:
            self.clear()
            raise

    def _keep(self, key: Key, plan: StepPlan) -> None:
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
        self._numbers, self._members = {}, {}
        self._size = self._slots = 0
        self.last = None

    def forget(self, slot: ParameterSlot) -> None:
        """Drops the plans with this slot, and its member, so that they do not keep its memory."""
        for number in list(slot.plans):
            self._drop(number)
        self._forget_member(slot)

    def _forget_member(self, slot: ParameterSlot) -> None:
        known = self._members.get(slot.known_as)
        if known is not None and known.slot is slot:
            del self._members[slot.known_as]

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


def in_phase(key: Key, number: int) -> Key:
    """What the plan of such a list is kept by, in the phase of this number."""
    return (number, *key) if number else key
