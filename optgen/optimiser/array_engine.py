"""Steps and states of one optimiser over arrays of NumPy.

In: settings, then parameters and gradients.
Out: parameters and states changed in place; or an error, and then nothing has changed.

A step is checked before anything is touched. Lists that were checked once are not checked again while their arrays stay
what they were: a step plan knows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from .. import interpreter as interp
from ..errors import ArgumentError, ArrayError, HyperparameterError, StateError
from ..ir.evaluate import HyperValues, ValuesByCount
from ..ir.expr import Extent
from ..ir.rule import Rule
from ..runtime.arrays import LEAVE_OUT, Array, as_gradient, as_parameter
from ..runtime.engine import first_group_states, leave_gradients, small_shapes, variant_for
from ..runtime.kernel import Kernel, kernel_of
from ..runtime.machine import threads
from ..runtime.overlaps import refuse_overlaps
from ..runtime.plan import StepPlan, StepPlans, key_of_list
from ..runtime.slots import Shapes, Slot, keys_of
from .checkpoint import FORMAT, expect_same, read_group, read_value, saved_value
from .checkpoint_file import FilePath, read_checkpoint, write_checkpoint
from .hyperparameters import Given
from .settings import Settings
from .state import States, expect_fit, expect_number, read_saved

__all__ = ["ArrayEngine", "Engine", "Parameters"]

#: Parameters, of which a mapping gives the names.
Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]

ALL_OF_THEM = "give zeros: what depends on all parameters would be another number without this one"
ANOTHER_RULE = "step it with another rule, one optimiser for each"


class Engine(Protocol):
    """What an optimiser leaves to its engine; the methods are those of `Optimiser`."""

    def step(self, params: Sequence[Any], grads: Sequence[Any]) -> bool: ...
    def state(self, p: Any) -> dict[str, Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, saved: Mapping[str, Any], params: Sequence[Any] | None = None) -> None: ...
    def save(self, path: FilePath, params: Parameters) -> None: ...
    def load(self, path: FilePath, params: Parameters) -> None: ...
    def copy_to(self, other: Engine) -> None:
        """Gives `other` the same parameters, with copies of their states."""

    @property
    def begun(self) -> bool:
        """Whether there are states."""


class ArrayEngine:
    """The engine of an optimiser with these settings; `module` is the file of its class, if that was built."""

    def __init__(self, settings: Settings, module: str | None) -> None:
        self.settings = settings
        self._module = module
        self._interprets = settings.backend == "interpreter"
        self._start_anew()

    def _start_anew(self) -> None:
        self.plans = StepPlans()
        self.states = States(self.plans.forget)

    @property
    def begun(self) -> bool:
        return bool(len(self.states) or self.states.pending)

    def _rule_of(self, shape: tuple[int, ...]) -> Rule:
        """The rule in the variant for a parameter of this shape."""
        settings = self.settings
        return settings.compilation.rules[
            variant_for(settings.variants, shape, settings.rule.name, hint=ANOTHER_RULE)
        ]  # fmt: skip

    # ---- Steps ----

    def step(self, params: Sequence[Any], grads: Sequence[Any]) -> bool:
        if type(params) not in (tuple, list) or type(grads) not in (tuple, list):
            params, grads = _listed(params, "parameters"), _listed(grads, "gradients")
        if self._interprets:
            return self._interpret(params, grads)
        plan = self.plans.for_step(params, grads)
        if plan is None or (plan.grouped and self._has_others(plan)):
            return self._step_anew(params, grads)
        settings = self.settings
        values = settings.at(plan.counts) if settings.scheduled else settings.always
        if not settings.known_to_fit(plan.dtypes):
            settings.refuse_vanishing(plan.dtypes, values)
        return plan.run(values, self.states.group) or self._refused(grads, values)

    def _has_others(self, plan: StepPlan) -> bool:
        """Whether there are parameters besides those of a plan, which may date from a time when there were none."""
        return len(plan.slots) < len(self.states) + len(self.states.pending)

    def _step_anew(self, params: Sequence[Any], grads: Sequence[Any]) -> bool:
        # `ps` and `gs` must live until the plan has run: it holds addresses only.
        ps, gs, slots, values = self.accept(params, grads)
        variants = [self.settings.variants[p.ndim >= 2] for p in ps]
        plan = StepPlan(self._kernel, params, grads, ps, gs, slots, variants, threads())
        self._register(ps, slots)
        self.plans.keep(key_of_list(params), plan)
        return plan.run(values, self._group(values, slots)) or self._refused(gs, values)

    def _kernel(self, dtype: str, variant: int) -> Kernel:
        return kernel_of(self.settings.compilation, variant, dtype, self._module)

    def _refused(self, grads: Sequence[Array], values: ValuesByCount) -> bool:
        """Leaves gradients as the rule does after a step that does not count; gives False."""
        plain = map(np.asarray, grads)
        leave_gradients(((self._rule_of(g.shape), g.fill) for g in plain), next(iter(values.values())))
        return False

    def _interpret(self, params: Sequence[Any], grads: Sequence[Any]) -> bool:
        ps, gs, slots, values = self.accept(params, grads)
        self._register(ps, slots)
        group = self._group(values, slots)
        tensors = [
            (self._rule_of(p.shape), values[slot.t + 1], interp.Tensor(slot.t + 1, {"p": p, "g": g, **slot.arrays}))
            for p, g, slot in zip(ps, gs, slots, strict=True)
        ]
        if tensors:
            t = max(slot.t for slot in slots) + 1
            if not interp.step_group(tensors, group, values[t], t):
                return False
        for slot in slots:
            slot.t += 1
        return True

    # ---- Checks before a step ----

    def accept(
        self, params: Sequence[Any], grads: Sequence[Any]
    ) -> tuple[list[Array], list[Array], list[Slot], ValuesByCount]:
        """The arrays, slots and hyperparameters of a step, after every check. New slots are not registered yet."""
        rule = self.settings.rule
        if len(params) != len(grads):
            raise ArrayError(f"a gradient for each of {len(params)} parameters was expected, got {len(grads)}")
        if rule.part == "parameter":
            message = f"{rule.name} works on the parameter as a rule leaves it, and is none by itself"
            raise ArgumentError(message, hint=f"put it behind one: chain(ADAM(), {rule.name}())")
        count = len(params)
        ps = [as_parameter(p, i, count) for i, p in enumerate(params)]
        absent = ALL_OF_THEM if rule.grouped else LEAVE_OUT
        gs = [
            as_gradient(g, p, i, count, absent, written=rule.overwrites)
            for i, (g, p) in enumerate(zip(grads, ps, strict=True))
        ]
        rules = [self._rule_of(p.shape) for p in ps]
        found = [self.states.find(key) for key in keys_of(ps)]
        if rule.grouped:
            self._expect_group(found)
        # Before memory is taken for new states: a refused step should not take it.
        states = [array for slot in found if slot for array in slot.arrays.values()]
        refuse_overlaps(ps, gs, states, overwrites=rule.overwrites)
        known: list[Slot | None] = []
        pending = iter(self.states.pending)
        for i, (slot, p) in enumerate(zip(found, ps, strict=True)):
            if slot is None and (saved := next(pending, None)) is not None:
                expect_fit(saved, p.shape, str(p.dtype), i)
                slot = saved
            known.append(slot)
        values = self.settings.at({slot.t if slot else 0 for slot in known})
        self.settings.refuse_vanishing({str(p.dtype) for p in ps}, values)
        slots = []
        for each, slot, own, p in zip(rules, known, found, ps, strict=True):
            if slot is None:
                slots.append(_new_slot(p, each, values[1]))
            else:
                slots.append(own or Slot.of(p, slot.t, slot.arrays, small_shapes(each, p.shape)))
        return ps, gs, slots, values

    def _expect_group(self, found: Sequence[Slot | None]) -> None:
        """ArrayError unless all parameters of before are here: a value of the group is of all of them or wrong."""
        name = self.settings.rule.name
        if not found:
            message = f"{name} reduces over all parameters of a step: some were expected, got none"
            raise ArrayError(message, hint="give all parameters in one step")
        here = {id(slot) for slot in found if slot}
        absent = sum(id(slot) not in here for slot in self.states.slots())
        absent += max(0, len(self.states.pending) - found.count(None))  # loaded, and not taken up by this step
        if absent:
            count = len(self.states) + len(self.states.pending)
            message = f"{name} reduces over all parameters: the {count} of before were expected, {absent} are missing"
            raise ArrayError(message, hint="step them together, with a gradient of zeros where there is none")

    def _group(self, values: ValuesByCount, slots: Sequence[Slot]) -> dict[str, Array]:
        """The states of all parameters together, begun with the first step."""
        group, rule = self.states.group, self.settings.rule
        if not group and slots and rule.grouped:
            group |= first_group_states(rule, values[max(slot.t for slot in slots) + 1])
        return group

    def _register(self, ps: Sequence[Array], slots: Sequence[Slot]) -> None:
        for key, p, slot in zip(keys_of(ps), ps, slots, strict=True):
            if self.states.find(key) is None:
                self.states.add(p, slot)
                del self.states.pending[:1]

    # ---- States ----

    def state(self, p: Any) -> dict[str, Any]:
        array = as_parameter(p, 0, 1)
        slot = self.states.find(keys_of([array])[0]) or self._awaited_slot(array)
        group, rule = self.states.group, self.settings.rule
        if slot is None or (rule.grouped and not group):  # what they would start as
            first = self.settings.at(set())[1]
            slot = slot or _new_slot(array, self._rule_of(array.shape), first)
            group = group or first_group_states(rule, first)
        views: dict[str, Any] = {}
        for name, values in {**slot.arrays, **group}.items():
            views[name] = view = values.view()
            view.flags.writeable = False
        return views | {"t": slot.t}

    def _awaited_slot(self, p: Array) -> Slot | None:
        """The pending slot that `p` will take up, if that can be told before it is stepped."""
        fitting = [slot for slot in self.states.pending if (slot.shape, slot.dtype) == (p.shape, str(p.dtype))]
        if len(fitting) > 1:
            hint = "say which parameters it is of: opt.load_state_dict(saved, params)"
            raise StateError(f"{len(fitting)} loaded states of shape {p.shape} wait for their parameters", hint=hint)
        return fitting[0] if fitting else None

    def _saved_settings(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "format": FORMAT,
            "rule": settings.rule.name,
            "flags": settings.saved_flags(),
            "hyperparameters": {n: saved_value(settings.spellings[n][0], v) for n, v in settings.values.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        saved = self._saved_settings() | {"parameters": self.states.saved()}
        if self.states.group:
            saved["group"] = {name: array.copy() for name, array in self.states.group.items()}
        return saved

    def load_state_dict(self, saved: Mapping[str, Any], params: Sequence[Any] | None = None) -> None:
        values, slots, group = self._read_state(saved)
        if params is not None:
            self._load_for(_listed(params, "parameters"), values, slots, group)
            return
        present = self.states.slots()
        if present:
            expect_number(len(slots), len(present) + len(self.states.pending))
        for i, (slot, own) in enumerate(zip(slots, present, strict=False)):
            expect_fit(slot, own.shape, own.dtype, i)
        self.settings.replace(values)
        for slot, own in zip(slots, present, strict=False):
            own.fill(slot.t, slot.arrays)
        self.states.pending = slots[len(present) :]
        self.states.group = group

    def _load_for(
        self,
        params: Sequence[Any],
        values: Mapping[str, tuple[Given, ...]],
        slots: Sequence[Slot],
        group: dict[str, Array],
    ) -> None:
        """Takes over a state that has been read, for these parameters and no others."""
        arrays = [as_parameter(p, i, len(params)) for i, p in enumerate(params)]
        keys_of(arrays)
        refuse_overlaps(arrays, [], [])
        expect_number(len(slots), len(arrays))
        for i, (slot, p) in enumerate(zip(slots, arrays, strict=True)):
            expect_fit(slot, p.shape, str(p.dtype), i)
        laid_out = [
            Slot.of(p, slot.t, slot.arrays, small_shapes(self._rule_of(p.shape), p.shape))
            for slot, p in zip(slots, arrays, strict=True)
        ]
        self.settings.replace(values)
        self._start_anew()
        self.states.group = group
        for p, slot in zip(arrays, laid_out, strict=True):
            self.states.add(p, slot)

    def _read_state(
        self, saved: Mapping[str, Any]
    ) -> tuple[dict[str, tuple[Given, ...]], list[Slot], dict[str, Array]]:
        settings = self.settings
        expect_same(saved, settings.rule.name, settings.saved_flags(), settings.values)
        given = saved["hyperparameters"]
        values = {n: read_value(settings.spellings[n][0], given[n], own) for n, own in settings.values.items()}
        settings.refuse_other_variant(values)
        slots = read_saved(saved["parameters"], self._saved_fields)
        names = [state.name for state in settings.rule.states if state.extent == Extent.GROUP]
        return values, slots, read_group(saved.get("group", {}), names, begun=bool(slots))

    def _saved_fields(self, shape: tuple[int, ...]) -> tuple[list[str], Shapes]:
        """The names of the states that a parameter of this shape has, and the shapes of the small ones."""
        rule = self._rule_of(shape)
        return [state.name for state in rule.states if state.extent > Extent.GROUP], small_shapes(rule, shape)

    # ---- Files ----

    def save(self, path: FilePath, params: Parameters) -> None:
        arrays = _named(params)
        slots = dict(zip(arrays, map(self.states.find, keys_of(list(arrays.values()))), strict=True))
        absent = len(self.states) - sum(slot is not None for slot in slots.values())
        if self.states.pending:
            hint = "step them first, or say which they are: opt.load_state_dict(saved, params)"
            raise StateError(f"{len(self.states.pending)} loaded states wait for their parameters", hint=hint)
        if absent:
            message = f"all parameters that this optimiser has stepped were expected, {absent} are missing"
            raise StateError(
                message, hint="give the arrays themselves, not copies; let go of those that are not needed"
            )
        write_checkpoint(path, self._saved_settings(), arrays, slots, self.states.group)

    def load(self, path: FilePath, params: Parameters) -> None:
        arrays = _named(params)
        keys_of(list(arrays.values()))
        refuse_overlaps(list(arrays.values()), [], [])
        saved, values = read_checkpoint(path, arrays)
        begun = {name: entry for name, entry in saved["parameters"].items() if entry is not None}
        try:
            self.load_state_dict(saved | {"parameters": [*begun.values()]}, [arrays[name] for name in begun])
        except (StateError, HyperparameterError, ArgumentError) as error:
            raise type(error)(f"{path}: {error.message}", hint=error.hint) from None
        for name, array in arrays.items():
            array[...] = values[name]

    def copy_to(self, other: Engine) -> None:
        assert isinstance(other, ArrayEngine)
        self.states.copy_to(other.states)


def _new_slot(p: Array, rule: Rule, values: HyperValues) -> Slot:
    initial = interp.initial_state(rule, values, p)
    own = {state.name: initial[state.name] for state in rule.states if state.extent > Extent.GROUP}
    return Slot.of(p, 0, own, small_shapes(rule, p.shape))


def _named(params: Parameters) -> dict[str, Array]:
    """The arrays behind parameters, by the names that they have in a mapping; in a sequence, by their places."""
    if not isinstance(params, Mapping):
        params = {str(i): p for i, p in enumerate(_listed(params, "parameters"))}
    for name in params:
        if not isinstance(name, str) or any("\ud800" <= c <= "\udfff" for c in name):
            raise ArgumentError(f"a text was expected as the name of a parameter, got {name!r}")
    return {name: as_parameter(p, name, len(params)) for name, p in params.items()}


def _listed(given: Any, what: str) -> list[Any]:
    if isinstance(given, np.ndarray) or not isinstance(given, Iterable):
        raise ArrayError(f"a sequence of {what} was expected, got {type(given).__name__}", hint="opt.step([p], [g])")
    return list(given)
