"""The optimiser object: hyperparameters, state and steps of one rule, over the kernel or the interpreter.

Generated modules derive their classes from `Optimiser`, and so does `chains.Chain`. A step is checked before anything
is touched; a list of parameters that was checked once is not checked again while its arrays stay what they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence, Set
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .. import interpreter as interp
from ..compiler import driver
from ..errors import ArgumentError, ArrayError, HyperparameterError, StateError
from ..ir.evaluate import Steps, Values, evaluate
from ..ir.expr import GRADIENT, Expr, Extent
from ..ir.rule import Rule
from ..notation.text import expression
from ..runtime.arrays import LEAVE_OUT, Array, as_gradient, as_parameter, refuse_overlaps
from ..runtime.kernel import Kernel, kernel_of
from ..runtime.machine import threads
from ..runtime.plan import Plan, Plans
from ..runtime.underflow import constants_of, vanishing
from . import classes
from .checkpoint import FORMAT, expect_same, read_group, read_value, saved_value
from .hyperparameters import Given, any_spelling, resolved, spellings
from .settings import Configured
from .state import Shapes, Slot, States, expect_fit, expect_number, keys_of, read_saved

__all__ = ["Optimiser", "loaded"]

ALL_OF_THEM = "give zeros: what depends on all parameters would be another number without this one"


class Optimiser(Configured):
    """Base of all optimisers; its subclasses are made from specs.

    Hyperparameters are attributes, in ASCII or Greek: `opt.eta = 0.01` holds from the next step on. `opt.beta` is a
    tuple, `opt.beta1` its first value. In the place of a number there may be a schedule, a function of the step: it is
    called once a step, with the count t that this update has, and gives a number. Setting one raises
    HyperparameterError for a number out of its range, and ArgumentError for what is no number, or for another name.

    `Optimiser(a, b, c)` is the chain of these optimisers, as `chain(a, b, c)` is.

    The state of a parameter is found by the memory that the parameter is, and goes away with it. An optimiser may be
    used by one thread at a time.
    """

    _module: ClassVar[str | None]
    _chain: ClassVar[type[Optimiser]]  # what `Optimiser(...)` makes; set by the room that defines it

    _plans: Plans
    _states: States

    def __init_subclass__(
        cls, *, text: str | None = None, file: str = "", module: str | None = None,
        compilation: driver.Compilation | None = None,
    ) -> None:  # fmt: skip
        """A rule's class comes from a `compilation`, or, in a generated module, from the spec's text and its file."""
        if compilation is None:
            if text is None:  # a class that somebody derives from one of these
                return
            compilation = driver.compile_text(text, file, Path(module).stem if module else "")
        cls._compilation = compilation
        cls._module = module
        cls._spellings = spellings(cls._compilation.rules[0].hypers)
        cls.__init__ = any_spelling(cls.__init__, cls._spellings)  # type: ignore[method-assign]

    def __new__(cls, /, *arguments: Any, **keywords: Any) -> Optimiser:
        made: Optimiser = object.__new__(getattr(cls, "_chain", cls) if cls is Optimiser else cls)
        return made

    def __init__(self, *parts: Any, backend: str = "kernel") -> None:
        name = type(self).__name__
        raise ArgumentError(f"{name} is made of no spec, and is no rule itself", hint="from optgen import ADAM")

    def _start(
        self,
        values: MutableMapping[str, tuple[Given, ...]],
        flags: dict[str, bool],
        backend: str,
        decided: Mapping[str, Expr],
    ) -> None:
        super()._start(values, flags, backend, decided)
        plans = Plans()
        self.__dict__.update(_plans=plans, _states=States(plans.forget))

    def _rule_of(self, shape: tuple[int, ...]) -> Rule:
        """The rule in the variant for a parameter of this shape."""
        variant = self._variants.get(len(shape) >= 2)
        if variant is None:
            hint = "step it with another rule, one optimiser for each"
            message = f"{self.rule.name} works on matrices, of two or more dimensions, got a parameter of shape {shape}"
            raise ArrayError(message, hint=hint)
        return self._compilation.rules[variant]

    # ---- Steps ----

    def step(self, params: Sequence[Any], grads: Sequence[Any]) -> bool:
        """One update of every parameter in place, in one call of the kernel. Whether it counts: False if a rule like
        Unscale says that these gradients are none to step with; then no parameter, state or count has changed.

        `params`: arrays of float32 or float64, or tracked parameters (whose `data` is such an array), of any shapes
        and strides, each once. `grads`: for each parameter an array of its shape and dtype, with any strides.

        Raises ArrayError for what cannot be stepped, StateError for a parameter that does not fit the saved state it
        would take up, HyperparameterError for one that vanishes in a parameter's dtype, CompilerNotFound if a kernel
        must be compiled and cannot. Then no parameter, state or count has changed.
        """
        if type(params) not in (tuple, list) or type(grads) not in (tuple, list):
            params, grads = _listed(params, "parameters"), _listed(grads, "gradients")
        if self._backend == "interpreter":
            return self._interpret(params, grads)
        plan = self._plans.for_step(params, grads)
        if plan is None or (plan.grouped and self._has_others(plan)):
            return self._step_anew(params, grads)
        values = self._steps(plan.counts) if self._scheduled else self._always
        if not self._held.issuperset(plan.dtypes):
            self._refuse_vanishing(plan.dtypes, values)
        if not plan.run(values, self._states.group):
            return self._refused(grads, values)
        return True

    def _has_others(self, plan: Plan) -> bool:
        """Whether there are parameters besides those of a plan, which may date from a time when there were none."""
        return len(plan.slots) < len(self._states) + len(self._states.pending)

    def _values_of(self, slots: Sequence[Slot]) -> Steps:
        """The hyperparameters by the count of a step, for slots that are at any."""
        return self._steps({slot.t for slot in slots}) if self._scheduled else self._always

    def _steps(self, counts: Set[int]) -> Steps:
        """As `_values_of` for so many updates before: schedules are called here, and what they give is checked."""
        hypers = self._compilation.rules[0].hypers
        self._held.clear()  # other values than before, of which none may vanish either
        steps = {t + 1: resolved(hypers, self._values, t + 1) for t in sorted(counts or {0})}
        for values in steps.values():
            self._refuse_other_variant(values)
        return steps

    def _step_anew(self, params: Sequence[Any], grads: Sequence[Any]) -> bool:
        # `ps` and `gs` must live until the plan has run: it holds addresses only.
        ps, gs, slots, values = self._accept(params, grads)
        variants = [self._variants[p.ndim >= 2] for p in ps]
        plan = Plan(self._kernel, params, ps, gs, slots, variants, threads())
        self._register(ps, slots)
        self._plans.keep(tuple(map(id, params)), plan)
        if not plan.run(values, self._group(values, slots)):
            return self._refused(gs, values)
        return True

    def _refused(self, grads: Sequence[Array], values: Steps) -> bool:
        """After a step that does not count: gradients are left as the rule leaves them, in any case."""
        for g in grads:
            for assign in self._rule_of(g.shape).body:
                if assign.target == GRADIENT:
                    g[...] = evaluate(assign.value, next(iter(values.values())), 0, {})
        return False

    def _interpret(self, params: Sequence[Any], grads: Sequence[Any]) -> bool:
        ps, gs, slots, values = self._accept(params, grads)
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

    def _accept(
        self, params: Sequence[Any], grads: Sequence[Any]
    ) -> tuple[list[Array], list[Array], list[Slot], Steps]:
        """The arrays, slots and hyperparameters of a step, after every check. New slots are not registered yet."""
        if len(params) != len(grads):
            raise ArrayError(f"a gradient for each of {len(params)} parameters was expected, got {len(grads)}")
        if self.rule.part == "parameter":
            name = self.rule.name
            message = f"{name} works on the parameter as a rule leaves it, and is none by itself"
            raise ArgumentError(message, hint=f"put it behind one: chain(ADAM(), {name}())")
        count, grouped = len(params), self.rule.grouped
        ps = [as_parameter(p, i, count) for i, p in enumerate(params)]
        absent = ALL_OF_THEM if grouped else LEAVE_OUT
        overwrites = self.rule.overwrites
        gs = [
            as_gradient(g, p, i, count, absent, written=overwrites)
            for i, (g, p) in enumerate(zip(grads, ps, strict=True))
        ]
        rules = [self._rule_of(p.shape) for p in ps]
        found = [self._states.find(key) for key in keys_of(ps)]
        if grouped:
            self._expect_group(found)
        # Before memory is taken for new states: a refused step should not take it.
        refuse_overlaps(ps, gs, [array for slot in found if slot for array in slot.arrays.values()],
                        overwrites=overwrites)  # fmt: skip
        known: list[Slot | None] = []
        pending = iter(self._states.pending)
        for i, (slot, p) in enumerate(zip(found, ps, strict=True)):
            if slot is None and (saved := next(pending, None)) is not None:
                expect_fit(saved, p.shape, str(p.dtype), i)
                slot = saved
            known.append(slot)
        values = self._values_of([slot or Slot((), "", 0, {}) for slot in known])
        self._refuse_vanishing({str(p.dtype) for p in ps}, values)
        slots = []
        for rule, slot, own, p in zip(rules, known, found, ps, strict=True):
            if slot is None:
                slots.append(self._new_slot(p, rule, values[1]))
            else:
                slots.append(own or Slot.of(p, slot.t, slot.arrays, shapes(rule, p.shape)))
        return ps, gs, slots, values

    def _expect_group(self, found: Sequence[Slot | None]) -> None:
        """ArrayError unless all parameters of before are here: a value of the group is of all of them or wrong."""
        if not found:
            message = f"{self.rule.name} reduces over all parameters of a step: some were expected, got none"
            raise ArrayError(message, hint="give all parameters in one step")
        here = {id(slot) for slot in found if slot}
        absent = sum(id(slot) not in here for slot in self._states.slots())
        absent += max(0, len(self._states.pending) - found.count(None))  # loaded, and not taken up by this step
        if absent:
            count = len(self._states) + len(self._states.pending)
            before = f"the {count} of before were expected, {absent} are missing"
            message = f"{self.rule.name} reduces over all parameters: {before}"
            raise ArrayError(message, hint="step them together, with a gradient of zeros where there is none")

    def _group(self, values: Steps, slots: Sequence[Slot]) -> dict[str, Array]:
        """The states of all parameters together, begun with the first step."""
        group = self._states.group
        if not group and slots and self.rule.grouped:
            group |= self._new_group(values[max(slot.t for slot in slots) + 1])
        return group

    def _new_group(self, values: Values) -> dict[str, Array]:
        rule = self.rule
        names = [state.name for state in rule.states if state.extent == Extent.GROUP]
        initial = interp.initial_state(rule, values) if names else {}
        return {name: np.array(initial[name]) for name in names}

    def _register(self, ps: Sequence[Array], slots: Sequence[Slot]) -> None:
        for key, p, slot in zip(keys_of(ps), ps, slots, strict=True):
            if self._states.find(key) is None:
                self._states.add(p, slot)
                del self._states.pending[:1]

    def _new_slot(self, p: Array, rule: Rule, values: Values) -> Slot:
        initial = interp.initial_state(rule, values, p)
        own = {state.name: initial[state.name] for state in rule.states if state.extent > Extent.GROUP}
        return Slot.of(p, 0, own, shapes(rule, p.shape))

    def _kernel(self, dtype: str, variant: int) -> Kernel:
        return kernel_of(self._compilation, variant, dtype, self._module)

    def _refuse_vanishing(self, dtypes: Iterable[str], values: Steps) -> None:
        """HyperparameterError if a constant of the rule is not zero, but would be in one of these types."""
        new = set(dtypes) - self._held
        if not new:
            return
        constants = [constants_of(self._compilation)[i] for i in set(self._variants.values())]
        for given, dtype in product(values.values(), new):
            if found := vanishing(constants, given, dtype):
                message = f"{type(self).__name__}: {expression(found[0])} = {found[1]:g} would be 0 in {dtype}"
                raise HyperparameterError(message, hint="take a larger value, or parameters of float64")
        self._held.update(new)

    # ---- State ----

    def state(self, p: Any) -> dict[str, Any]:
        """The state of parameter `p`: an array for each name of the spec (read-only, live), and the count `t`.

        The arrays have the shape and dtype of `p`; where there is not a value for each element, they are of float64 and
        of a shape that goes with `p` by NumPy's rules. Of a parameter that was never stepped: what its state would
        start as, and t = 0; or, of a loaded state that waits for its parameters, the part that fits. StateError if more
        than one part fits, since their order will decide; ArrayError for what is no parameter.
        """
        array = as_parameter(p, 0, 1)
        slot = self._states.find(keys_of([array])[0]) or self._awaited_slot(array)
        group = self._states.group
        if slot is None or (self.rule.grouped and not group):  # what they would start as
            first = self._values_of([])[1]
            slot = slot or self._new_slot(array, self._rule_of(array.shape), first)
            group = group or self._new_group(first)
        views: dict[str, Any] = {}
        for name, values in {**slot.arrays, **group}.items():
            views[name] = view = values.view()
            view.flags.writeable = False
        return views | {"t": slot.t}

    def _awaited_slot(self, p: Array) -> Slot | None:
        """The pending slot that `p` will take up, if that can be told before it is stepped."""
        fitting = [slot for slot in self._states.pending if (slot.shape, slot.dtype) == (p.shape, str(p.dtype))]
        if len(fitting) > 1:
            hint = "say which parameters it is of: opt.load_state_dict(saved, params)"
            raise StateError(f"{len(fitting)} loaded states of shape {p.shape} wait for their parameters", hint=hint)
        return fitting[0] if fitting else None

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, in plain containers and arrays: rule, hyperparameters, and for each
        parameter, in the order in which they were first stepped, its shape, dtype, count and states (copies)."""
        saved = {
            "format": FORMAT,
            "rule": self.rule.name,
            "flags": dict(self._flags),
            "hyperparameters": {n: saved_value(self._spellings[n][0], values) for n, values in self._values.items()},
            "parameters": self._states.saved(),
        }
        if self._states.group:
            saved["group"] = {name: array.copy() for name, array in self._states.group.items()}
        return saved

    def load_state_dict(self, saved: Mapping[str, Any], params: Sequence[Any] | None = None) -> None:
        """Takes over what `state_dict` gave: hyperparameters, counts and states (copies).

        The saved parameters are, in order, `params` if given, and then no others; else the parameters that this
        optimiser has; and if it has none, those that it will be given, each checked when it is first stepped.

        Raises StateError if `saved` is of another rule, flags, shapes, dtypes or number, HyperparameterError or
        ArgumentError for its hyperparameters, ArrayError for `params`. Then nothing has changed.
        """
        values, slots, group = self._read_state(saved)
        if params is not None:
            params = _listed(params, "parameters")
            arrays = [as_parameter(p, i, len(params)) for i, p in enumerate(params)]
            keys_of(arrays)
            refuse_overlaps(arrays, [], [])
            expect_number(len(slots), len(arrays))
            for i, (slot, p) in enumerate(zip(slots, arrays, strict=True)):
                expect_fit(slot, p.shape, str(p.dtype), i)
            laid_out = [
                Slot.of(p, slot.t, slot.arrays, shapes(self._rule_of(p.shape), p.shape))
                for slot, p in zip(slots, arrays, strict=True)
            ]
            self._take_values(values)
            plans = Plans()
            self.__dict__.update(_plans=plans, _states=States(plans.forget))
            self._states.group = group
            for p, slot in zip(arrays, laid_out, strict=True):
                self._states.add(p, slot)
            return
        present = self._states.slots()
        if present:
            expect_number(len(slots), len(present) + len(self._states.pending))
        for i, (slot, own) in enumerate(zip(slots, present, strict=False)):
            expect_fit(slot, own.shape, own.dtype, i)
        self._take_values(values)
        for slot, own in zip(slots, present, strict=False):
            own.fill(slot.t, slot.arrays)
        self._states.pending = slots[len(present) :]
        self._states.group = group

    def _take_values(self, values: Mapping[str, tuple[Given, ...]]) -> None:
        self._values.update(values)
        self._changed()

    def _read_state(
        self, saved: Mapping[str, Any]
    ) -> tuple[dict[str, tuple[Given, ...]], list[Slot], dict[str, Array]]:
        expect_same(saved, self.rule.name, self._flags, self._values)
        given = saved["hyperparameters"]
        values = {n: read_value(self._spellings[n][0], given[n], own) for n, own in self._values.items()}
        self._refuse_other_variant(values)
        slots = read_saved(saved["parameters"], self._saved_fields)
        names = [state.name for state in self.rule.states if state.extent == Extent.GROUP]
        return values, slots, read_group(saved.get("group", {}), names, begun=bool(slots))

    def _saved_fields(self, shape: tuple[int, ...]) -> tuple[list[str], Shapes]:
        """The names of the states that a parameter of this shape has, and the shapes of the small ones."""
        rule = self._rule_of(shape)
        return [state.name for state in rule.states if state.extent > Extent.GROUP], shapes(rule, shape)

    # ---- Copies ----

    def __copy__(self) -> Optimiser:
        """An optimiser for the same parameters, with a state of its own."""
        twin = self._twin()
        self._states.copy_to(twin._states)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Optimiser:
        """As from a pickle: the parameters that the copy is given first take up the state, in order."""
        return loaded(self._twin(), self.state_dict())

    def _twin(self) -> Optimiser:
        """An optimiser like this one, which has not stepped."""
        return _revive(type(self), dict(self._values), dict(self._flags), self._backend, dict(self._decided))

    def __reduce__(self) -> tuple[Any, ...]:
        cls: Any = type(self)
        if cls.__module__.startswith("optgen.loaded."):
            cls = (self._compilation.text, self._compilation.file)
        made = (cls, dict(self._values), self._flags, self._backend, dict(self._decided))
        return (_unpickled, (made, self.state_dict()))


def _revive(
    cls: Any, values: dict[str, tuple[Given, ...]], flags: dict[str, bool], backend: str, decided: dict[str, Expr]
) -> Optimiser:
    if isinstance(cls, tuple):
        cls = classes.module_class(driver.compile_text(*cls))
    optimiser: Optimiser = object.__new__(cls)
    optimiser._start(values, flags, backend, decided)
    return optimiser


def loaded(optimiser: Optimiser, saved: dict[str, Any]) -> Optimiser:
    optimiser.load_state_dict(saved)
    return optimiser


def _unpickled(made: tuple[Any, ...], saved: dict[str, Any]) -> Optimiser:
    return loaded(_revive(*made), saved)


def shapes(rule: Rule, shape: tuple[int, ...]) -> Shapes:
    """The shapes of the states of a parameter that have not a value for each element."""
    return {s.name: interp.shape_of(s.extent, shape, rule.rows) for s in rule.small_states if s.extent > Extent.GROUP}


def _listed(given: Any, what: str) -> list[Any]:
    if isinstance(given, np.ndarray) or not isinstance(given, Iterable):
        raise ArrayError(f"a sequence of {what} was expected, got {type(given).__name__}", hint="opt.step([p], [g])")
    return list(given)
