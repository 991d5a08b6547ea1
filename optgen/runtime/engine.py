"""The step engine: all that is between "these parameters, these gradients" and the kernels, for every array library.

In: an array library, hyperparameters, a store of states; then lists of parameters and inputs. These are the gradients
of all parameters, behind them each further input of all, and numbers such as the loss.
Out: parameters and states changed in place; or an error, and then nothing has changed.

A step is checked before anything is touched. A list that was checked once is not checked again while its arrays stay
what they were: a step plan knows it. What kernels do not step is stepped by the interpreter, or by the array library
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import RLock
from typing import Any

from ..errors import ArgumentError, CompilerNotFound
from ..ir.evaluate import HyperValues, ValuesByCount, evaluate, with_numbers
from ..ir.expr import GRADIENT
from .acceptance import Acceptance, changed_by_schedule
from .array_library import ArrayLibrary
from .collaborators import Hypers, StateStore, Ways
from .forks import in_children
from .interpreted import computed
from .interrupts import to_its_end
from .kernel import kernels_of
from .lacking import Lacking, refuse_read
from .members import Accepted, AnyKernel, Member
from .phases import another_list, is_between_phases, next_phase
from .plan import StepPlan, StepPlans, in_phase, key_of_list, plan_of_list, plan_of_members
from .programs import ProgramSteps
from .reports import Reports
from .shapes import first_group_states
from .slots import Key

__all__ = ["NO_NUMBERS", "StepEngine"]


#: What a step of a rule is given that takes no numbers.
NO_NUMBERS: HyperValues = {}


class StepEngine:
    """The steps of one optimiser.

    Parameters
    ----------
    library
        The array library of its parameters.
    hypers, states, ways
        What it goes by, where it keeps states, and who steps what.
    module
        The file of its class, if that was built.
    """

    def __init__(
        self, library: ArrayLibrary, hypers: Hypers, states: StateStore, ways: Ways, module: str | None
    ) -> None:
        self.library = library
        self._module = module
        self.plans = StepPlans()
        #: Held by whoever steps, reads or changes the optimiser.
        self.lock = RLock()
        self._stepping = False
        self._lacking: Sequence[Lacking] = ()
        self._new: list[Reports] = []
        #: Whether parameters have the values that they are evaluated with.
        self.evaluating = False
        #: What is called once, by the next step, when that is checked and has not changed anything.
        self.when_checked: Callable[[], None] | None = None
        self.begin_anew(hypers, states, ways)
        in_children(self)

    def begin_anew(self, hypers: Hypers, states: StateStore, ways: Ways) -> None:
        """Go by these from now on, and look at every list anew."""
        self.hypers = hypers
        self.phases = hypers.compilation.phases
        #: The parameters of a step that has phases left; None if that is not known.
        self.begun: Key | None = None
        self.states = states
        self.ways = ways
        self._programs = ProgramSteps(self.library.matrices, hypers.compilation, self._module)
        self.plans.clear()
        #: What the last step reports: nothing, if it did not count. None before the first.
        self.reports: list[Reports] | None = None

    def expect_rest(self, what: str) -> None:
        """ArgumentError in the middle of a step: what this thread runs within one, such as a schedule, may read the
        optimiser and not change it. The lock is held."""
        if self._stepping:
            message = f"expected to {what} between two steps, got a call from within one"
            raise ArgumentError(message, hint="a schedule, or what it calls, must not step or load its own optimiser")

    def expect_training(self, what: str) -> None:
        """ArgumentError while parameters have the values that they are evaluated with."""
        if self.evaluating:
            message = f"expected to {what} in training mode, got evaluation mode"
            raise ArgumentError(message, hint="opt.train() first: it gives parameters their values of training back")

    @property
    def phase(self) -> int:
        """The number of the phase of a step that comes next; 0 where steps have but one."""
        return next_phase(self.hypers, self.states.group) if self.phases else 0

    def checked(self) -> None:
        """Called where nothing is left to be checked, and nothing has changed: an error of another step that waits for
        this refuses this one too."""
        then, self.when_checked = self.when_checked, None
        if then is not None:
            then()

    def leave_step(self) -> None:
        """In the child of a fork: whatever other threads did is not done here."""
        self.lock = RLock()
        self._stepping = False

    def step(
        self, params: list[Any], inputs: list[Any], numbers: HyperValues = NO_NUMBERS, lacking: Sequence[Lacking] = ()
    ) -> bool:
        """One step of a list; whether it counts. If not, nothing has changed but what always does. `lacking`: inputs
        with something else in their place."""
        with self.lock:
            if self._stepping:
                self.expect_rest("step")
            if self.evaluating:
                self.expect_training("step")
            self._stepping = True
            if lacking:
                self._lacking = lacking
            try:
                plan = self.plans.last if not self.phases else None  # which is of the phase before
                held = plan.rebind(params, inputs) if plan is not None else None
                # A plan may date from a time when there were no parameters but its own.
                if plan is None or held is None or (plan.grouped and self.states.has_others(plan.slots)):
                    counts = self._step_by_another(params, inputs, numbers)
                else:
                    run = self._run_with_others if plan.others else self._run_kernels
                    counts = run(plan, params, inputs, numbers)
                if not counts or not (self._new or self.phases or self.reports is None):
                    self.reports = []
            finally:
                self._stepping = False
                if lacking or self._new:
                    self._lacking, self._new = (), []
        return counts

    def _step_by_another(self, params: list[Any], inputs: list[Any], numbers: HyperValues) -> bool:
        """One step by another plan than the last one."""
        places = self.library.chosen(params, inputs, len(self.hypers.compilation.rules[0].given_arrays))
        if len(places) < len(params):
            inputs = [inputs[first + i] for first in range(0, len(inputs), len(params)) for i in places]
            params = [params[i] for i in places]
        key, number = key_of_list(params), self.phase
        if not is_between_phases(self.states.group):
            self.begun = key
        elif self.states.by_identity and self.begun not in (None, key):
            raise another_list(self.hypers.compilation.name, self.phases, number)
        kept = self.plans.of(in_phase(key, number))
        plan = kept or self._composed(key, places, len(inputs))
        if plan is not None:
            held = plan.rebind(params, inputs)
            if held is not None and not (plan.grouped and self.states.has_others(plan.slots)):
                if kept is None:
                    self.plans.keep(key, plan)
                self.plans.last = plan
                run = self._run_with_others if plan.others else self._run_kernels
                return run(plan, params, inputs, numbers)
        return self._step_anew(places, params, inputs, numbers)

    def _composed(self, key: Key, places: Sequence[int], given: int) -> StepPlan | None:
        """A plan for a list that has none; None unless its parameters are known, as they are set now, and apart."""
        members, number = self.plans.members(key) if not self.phases else [], self.hypers.number
        if any([number(i, m.kernel.dtype) != m.hypers for i, m in zip(places, members, strict=False)]) or not members:
            return None
        states, rules = self.states.bound([member.slot for member in members]), self.hypers.compilation.rules
        return plan_of_members(self.library, members, states, rules, places, given)

    def _run_kernels(self, plan: StepPlan, params: list[Any], inputs: list[Any], numbers: HyperValues) -> bool:
        """One step by a plan to which these arrays are bound; they are alive as long as the caller has them."""
        sets = self._sets(plan, params, inputs, numbers)
        if self.when_checked is not None:
            self.checked()
        return self._run_checked(plan, inputs, sets)

    def _sets(
        self, plan: StepPlan, params: list[Any], inputs: list[Any], numbers: HyperValues
    ) -> Sequence[ValuesByCount]:
        """The sets of hyperparameters of a step by this plan, after every check that is left."""
        hypers = self.hypers
        sets = hypers.fixed
        if sets is None:
            sets = hypers.sets_at(plan.slots)
            held = plan.rebind(params, inputs)  # a schedule is anybody's code
            if held is None:
                raise changed_by_schedule()
        if not hypers.known_to_fit(plan.dtypes):
            hypers.refuse_vanishing(plan.dtypes, sets)
        if numbers:
            sets = with_numbers(sets, numbers)
        if self._lacking:
            at = [(id(params[i]), plan.standing[i]) for i in plan.places]
            refuse_read(self._lacking, at, plan.members, hypers.compilation.rules, sets)
        return sets

    def _run_checked(self, plan: StepPlan, inputs: list[Any], sets: Sequence[ValuesByCount]) -> bool:
        if plan.reports is not None:
            self._report(plan.reports)
        return plan.run(sets, self.states.group, inputs) or self._refused(plan, inputs, sets)

    def _report(self, reports: Reports) -> None:
        """Note what this step reports, beside what it has reported already."""
        self._new.append(reports)
        self.reports = self._new

    def _refused(self, plan: StepPlan, inputs: Sequence[Any], sets: Sequence[ValuesByCount]) -> bool:
        """Leaves gradients as the rule does after a step that does not count; gives False."""
        values = next(iter(sets[0].values()))
        for rule, g in plan.gradients(inputs):
            for assign in rule.body:
                if assign.target == GRADIENT:
                    self.library.fill(g, float(evaluate(assign.value, values, 0, {})))
        return False

    # ---- Lists that no plan knows ----

    def _step_anew(self, places: Sequence[int], params: list[Any], inputs: list[Any], numbers: HyperValues) -> bool:
        kernels, others = self.ways.divided(places, params, inputs)
        acceptance = self._acceptance(places, params, inputs, numbers)
        own = rest = Accepted((), ())
        if kernels or not others:
            own = acceptance.of(kernels, by_kernel=True)
        if apart := [i for i, member in zip(kernels, own.members, strict=True) if self._is_stored_matrix(member)]:
            kernels, others = [i for i in kernels if i not in apart], sorted([*others, *apart])
            own = acceptance.of(kernels, by_kernel=True)
        if others and self.ways.interprets:
            rest = acceptance.of(others, by_kernel=False)
            if not kernels:
                return self._interpret(rest)
        members, key, slots = own.members, key_of_list(params), [member.slot for member in own.members]
        try:
            steppers = self._kernels(members)
        except CompilerNotFound:  # the interpreter needs none
            if not (self.ways.by_programs and any(map(self._multiplies, members))):
                raise
            self.ways.by_programs = False
            return self._step_anew(places, params, inputs, numbers)
        plan = plan_of_list(
            self.library, members, kernels, others, places, params, inputs,
            rules=self.hypers.compilation.rules, kernels=steppers,
            states=self.plans.states(key, len(self.phases), slots) or self.states.bound(slots),
        )  # fmt: skip
        begin, take_back = self._beginning(own)
        try:
            begin()
            if plan.lasting:
                self.plans.keep(key, plan, self.phase)

            def run() -> bool:
                return not members or self._run_checked(plan, inputs, own.sets)

            return self._others_too(plan, run, rest, params)
        except BaseException:
            if not plan.steps:  # it was refused, or broken off before it began
                take_back()
            raise

    def _acceptance(
        self, places: Sequence[int], params: list[Any], inputs: list[Any], numbers: HyperValues
    ) -> Acceptance:
        """The checks of a list, of which the parameters stand in these `places` among all."""
        return Acceptance(
            self.library, self.hypers, self.states, self.phase, self._lacking, places, params, inputs, numbers
        )  # fmt: skip

    def _multiplies(self, member: Member) -> bool:
        """Whether a program steps a parameter."""
        return self.hypers.compilation.rules[member.variant].multiplies

    def _is_stored_matrix(self, member: Member) -> bool:
        """Whether the interpreter steps a parameter, since programs have all arrays in the compute type."""
        return bool(member.storages) and self._multiplies(member)

    def _kernels(self, members: Sequence[Member]) -> list[AnyKernel]:
        """What steps each of these."""
        whole, sharded = self.hypers.compilation, self.library.in_shards([member.given for member in members])
        by_programs = list(map(self._multiplies, members))
        keys = [
            (member.variant, member.dtype, member.storages, member.rounding)
            for member, by_program in zip(members, by_programs, strict=True)
            if not by_program
        ]
        kernels = iter(kernels_of(whole.in_shards if sharded else whole, keys, self._module) if keys else ())
        return [
            self._programs.kernel(member.variant, member.dtype) if by_program else next(kernels)
            for member, by_program in zip(members, by_programs, strict=True)
        ]

    def _beginning(self, accepted: Accepted) -> tuple[Callable[[], None], Callable[[], None]]:
        """What keeps the slots of parameters that are about to step, and the states of all together; what undoes it."""
        members, group, begun = accepted.members, self.states.group, self.states.group
        if members and not group:
            t = max(member.slot.t for member in members) + 1
            begun = first_group_states(self.hypers.compilation.rules[members[0].variant], accepted.sets[0][t])
        keep, forget = self.states.registration(members)

        def begin() -> None:
            keep()
            self.states.group = begun

        def take_back() -> None:
            self.plans.clear()
            forget()
            self.states.group = group

        return begin, take_back

    # ---- What kernels do not step ----

    def _run_with_others(self, plan: StepPlan, params: list[Any], inputs: list[Any], numbers: HyperValues) -> bool:
        """One step by a plan that has others too."""
        rest = Accepted((), ())
        if self.ways.interprets:
            others = [i for i, _ in plan.others]
            rest = self._acceptance(plan.standing, params, inputs, numbers).of(others, by_kernel=False)
        # Before the interpreter writes: what kernels refuse is refused for all.
        sets = self._sets(plan, params, inputs, numbers) if plan.slots else ()

        def run() -> bool:
            return not plan.slots or self._run_checked(plan, inputs, sets)

        return self._others_too(plan, run, rest, params)

    def _others_too(self, plan: StepPlan, run: Callable[[], bool], rest: Accepted, params: list[Any]) -> bool:
        """The others of a plan first, since what the array library refuses is refused before anything has changed;
        then the kernels."""
        if not rest.members:
            self.checked()
        if plan.others and not rest.members:
            self.ways.step_foreign([params[i] for i, _ in plan.others])
        plan.settle()
        done = plan.steps + 1
        return self._interpret(rest, lambda: plan.steps == done or run())

    def _interpret(self, accepted: Accepted, then: Callable[[], bool] | None = None) -> bool:
        """One step by the interpreter, and what comes `then`, which may be begun anew: both or neither. Gives whether
        it counts."""
        if not accepted.members:
            return then is None or then()
        begin, take_back = self._beginning(accepted)
        try:
            begin()
            programs = self._programs if self.ways.by_programs else None
            write, reports = computed(
                self.library, self.hypers.compilation.rules, accepted, self.states.group, programs
            )
        except BaseException:
            take_back()
            raise
        written = False

        def work() -> bool:
            nonlocal written
            if not written and reports is not None:
                self._report(reports)
            written = True
            counts = write()
            return counts if then is None else then()

        try:
            self.checked()
            return to_its_end(work)
        except BaseException:
            if not written:
                take_back()
            raise
