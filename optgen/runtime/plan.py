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
from .addresses import bounds
from .array_library import ArrayLibrary, BoundStates, Looked, ParameterSlot
from .arrays import Array
from .bound import BoundKernels
from .clock import Clock
from .guard import BoundGradients, Guard
from .kernel import Kernel
from .reports import of_kernels
from .slots import Key

__all__ = ["Accepted", "Member", "StepPlan", "StepPlans", "in_phase", "key_of_list"]

#: How many times each parameter is in the plans that an optimiser remembers, on average. It is in one of them where all
#: are stepped together, or one by one, however many they are.
MOST_PLANS = 4


@frozen
class Member:
    """One parameter of a step, after every check.

    Attributes
    ----------
    given
        The parameter as the caller has it.
    p
        The parameter.
    inputs
        Its gradient, then what else a step is given for it.
    variant
        The position of the variant of the rule that steps it.
    dtype
        Its compute type.
    hypers
        Which of the sets of hyperparameters it goes by.
    slot
        Its state.
    block
        How many elements a block of it has; 0 if the rule has none.
    """

    given: Any
    p: Looked
    inputs: Sequence[Looked]
    variant: int
    dtype: str
    hypers: int
    slot: ParameterSlot
    block: int


@frozen
class Accepted:
    """Parameters of a step after every check, and the sets of hyperparameters for their counts."""

    members: Sequence[Member]
    sets: Sequence[ValuesByCount]


class StepPlan:
    """One checked list.

    Parameters
    ----------
    library
        That of the arrays.
    members
        The parameters that kernels step.
    places
        Where these stand in the list.
    others
        The places of the others, which something else steps.
    standing
        Where the whole list stands among all parameters of the optimiser.
    params, inputs
        The whole list: of the inputs, first the gradient of each parameter, then the next input of each.
    rules
        The rule, in all its variants.
    kernel
        Gives the kernel of a dtype and a variant; what it raises goes through.
    states
        The states of the members, which the plans of several phases may share.
    """

    def __init__(
        self,
        library: ArrayLibrary,
        members: Sequence[Member],
        places: Sequence[int],
        others: Sequence[int],
        standing: Sequence[int],
        params: Sequence[Any],
        inputs: Sequence[Any],
        *,
        rules: Sequence[Rule],
        kernel: Callable[[str, int], Kernel],
        states: BoundStates,
    ) -> None:
        self._library = library
        self.slots = [member.slot for member in members]
        self.others = [(i, library.mark(params[i], inputs[i])) for i in others]
        self.standing = standing
        self._count, self._given = len(params), len(inputs)
        #: Where the members stand in the list; None if they are all of it.
        self.places = list(places) if others else None
        #: Of each member its variant, which set of hyperparameters it goes by, and its state.
        self.members = [(member.variant, member.hypers, member.slot) for member in members]
        # Where the inputs of the members stand, those of one kind after the other.
        at = [first + i for first in range(0, len(inputs), max(1, len(params))) for i in places]
        self._input_places = at if others else None
        given = [member.given for member in members]
        self._changed = given if library.mark_changed else []  # to be marked so; kept alive by the optimiser
        self._setting = library.setting
        self._setting_then = library.setting() if library.setting else None
        self._mark_changed = library.mark_changed
        keys = [(member.dtype, member.variant) for member in members]
        self.dtypes = frozenset(dtype for dtype, _ in keys)

        def arrays(i: int, rule: Rule) -> tuple[Array, ...]:
            own = (x.memory for x in members[i].inputs)
            return members[i].p.memory, *own, *states.arrays(i, rule.tensor_states)

        self._bound = BoundKernels(kernel, keys, arrays, [member.block for member in members], *library.threads())
        #: What its kernels report; None if they report nothing.
        self.reports = of_kernels(self._bound, [rules[member.variant] for member in members], self.slots)
        self.grouped = self._bound.grouped
        if library.in_shards(given):
            pairs = zip(self._bound.bindings, self._bound.order, strict=True)
            blocks = [member.block for member in members]
            self._bound.shards = [
                library.shards([given[i] for i in own], b.kernel, [blocks[i] for i in own]) for b, own in pairs
            ]

        # Memory that was made for this step, such as that of a gradient that lay in other shards, lives with the plan.
        bound = [x for kind in zip(*(member.inputs for member in members), strict=True) for x in kind]
        self._made = [x for x, i in zip(bound, at, strict=True) if x.seen is not library.gradient_seen(inputs[i])]
        self._overwrites = self._bound.overwrites
        self._guard: Guard | None = None
        if members:
            ps = [member.p for member in members]
            written = [bounds(member.p.memory) for member in members]
            written += [bounds(library.memory(x)) for member in members for x in member.slot.arrays.values()]
            fixed = not self.lasting or self._overwrites
            given_arrays = [x.seen for x in bound], [x.memory for x in bound]
            gradients = BoundGradients(*given_arrays, written, self._bound.cells, fixed)
            runtime = self._bound.bindings[0].kernel.runtime.path
            self._guard = Guard(
                [p.seen for p in ps], [library.is_alone(p.seen) for p in ps], runtime, library.reader, gradients
            )
        self._deferrable = [i for i, x in enumerate(bound) if library.may_be_deferred(x.seen)]
        self._through = any([member.p.seen is not member.given for member in members])
        self._plain = not (self.others or self._deferrable or self._through)
        self._sets = [member.hypers for member in members]
        self.states = states
        self._clock: Clock | None = None
        self._fits = states.fits

    @property
    def lasting(self) -> bool:
        """Whether another step may go by this plan."""
        return not self._made

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
        library = self._library
        if len(params) != self._count or len(inputs) != self._given:
            return None
        for i, mark in self.others:
            if library.mark(params[i], inputs[i]) != mark:
                return None
        if self.places is not None and self._input_places is not None:
            params, inputs = [params[i] for i in self.places], [inputs[i] for i in self._input_places]
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
            if self._overwrites:
                self._mark_changed([g for _, g in self.gradients(inputs)])
        return self._bound.run(sets, group)

    def gradients(self, inputs: Sequence[Any]) -> list[tuple[Rule, Any]]:
        """Of the parameters that kernels step: the rule that steps each, and its gradient."""
        chosen = inputs[: self._count] if self.places is None else [inputs[i] for i in self.places]
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
        self._size = self._slots = 0  # of all plans together: with each slot as often as it is there, and once

    def of(self, key: Key) -> StepPlan | None:
        """The plan that is kept by this key."""
        _, plan = self._plans.get(self._numbers.get(key, 0), (key, None))
        return plan

    def states(self, key: Key, phases: int, slots: Sequence[ParameterSlot]) -> BoundStates | None:
        """The states of these slots, if a plan for the list of this key has bound them in one of so many phases."""
        plans = (self.of(in_phase(key, number)) for number in range(phases))
        return next((plan.states for plan in plans if plan is not None and plan.states.are_of(slots)), None)

    def __len__(self) -> int:
        return len(self._plans)

    def keep(self, key: Key, plan: StepPlan) -> None:
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
        self.last = None

    def forget(self, slot: ParameterSlot) -> None:
        """Drops the plans with this slot, so that they do not keep its memory."""
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


def in_phase(key: Key, number: int) -> Key:
    """What the plan of such a list is kept by, in the phase of this number."""
    return (number, *key) if number else key
