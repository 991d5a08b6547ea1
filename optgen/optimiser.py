"""The optimiser object: hyperparameters, state and steps of one rule, over the kernel or the interpreter.

Generated modules derive their classes from `Optimiser`. A step is checked before anything is touched; a list of
parameters that was checked once is not checked again while its arrays stay what they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from . import driver, interp
from .arrays import Array, as_gradient, as_parameter, refuse_overlaps
from .emit.text import expression
from .errors import ArgumentError, ArrayError, HyperparameterError, StateError
from .host import Program
from .hyperparameters import Spellings, any_spelling, checked, number, spellings, suggestion
from .ir import Const, Expr, Extent, Rule, extent_of, kernel_scalars, walk
from .kernel import Kernel, threads
from .names import canonical
from .plan import Plan, Plans
from .state import Slot, States, expect_fit, expect_number, keys_of, read_saved

__all__ = ["Optimiser"]

BACKENDS = ("kernel", "interpreter")
FORMAT = 1
#: Of each compute type the largest number that it rounds to zero.
VANISHING = {"float32": 2.0**-150, "float64": 0.0}


class Optimiser:
    """Base of all optimisers; its subclasses are made from specs.

    Hyperparameters are attributes, in ASCII or Greek: `opt.eta = 0.01` holds from the next step on. `opt.beta` is a
    tuple, `opt.beta1` its first value. Setting one raises HyperparameterError for a number out of its range, and
    ArgumentError for what is no number, or for another name.

    The state of a parameter is found by the memory that the parameter is, and goes away with it. An optimiser may be
    used by one thread at a time.
    """

    _compilation: ClassVar[driver.Compilation]
    _module: ClassVar[str]
    _spellings: ClassVar[Spellings]

    _values: dict[str, tuple[float, ...]]
    _flags: dict[str, bool]
    _backend: str
    _variant: int
    _held: set[str]  # the dtypes that are known to hold every constant of the rule
    _plans: Plans
    _states: States

    def __init_subclass__(cls, *, text: str | None = None, file: str = "", module: str = "") -> None:
        if text is None:  # a class that somebody derives from a generated one
            return
        cls._compilation = driver.compile_text(text, file)
        cls._module = module
        cls._spellings = spellings(cls._compilation.rules[0].hypers)
        cls.__init__ = any_spelling(cls.__init__, cls._spellings)  # type: ignore[method-assign]

    def __init__(self) -> None:
        name = type(self).__name__
        raise ArgumentError(f"{name} is made of no spec, and is no rule itself", hint="from optgen import ADAM")

    def _begin(self, values: Mapping[str, Any], flags: Mapping[str, Any], backend: str) -> None:
        """What the constructors of generated classes do: all hyperparameters and flags as given, to be checked."""
        if backend not in BACKENDS:
            raise ArgumentError(f"backend: one of {', '.join(BACKENDS)} was expected, got {backend!r}")
        for name, value in flags.items():
            if not isinstance(value, bool):
                raise ArgumentError(f"the flag {name}: True or False was expected, got {value!r}")
        self._start({name: checked(self._spellings[name][0], v) for name, v in values.items()}, dict(flags), backend)

    def _start(self, values: dict[str, tuple[float, ...]], flags: dict[str, bool], backend: str) -> None:
        plans = Plans()
        # Not by attribute: those are hyperparameters.
        self.__dict__.update(
            _values=values,
            _flags=flags,
            _backend=backend,
            _variant=self._compilation.variant(flags),
            _held=set(),
            _plans=plans,
            _states=States(plans.forget),
        )

    # ---- Hyperparameters ----

    @property
    def rule(self) -> Rule:
        """The checked rule, in the variant of this optimiser's flags."""
        return self._compilation.rules[self._variant]

    @property
    def backend(self) -> str:
        """Either "kernel" or "interpreter"."""
        return self._backend

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        hyper, index = self._spellings.get(canonical(name), (None, None))
        if hyper is not None:
            values = self._values[hyper.name]
            return values if index is None and hyper.vector else values[index or 0]
        if canonical(name) in self._flags:
            return self._flags[canonical(name)]
        raise AttributeError(f"{type(self).__name__} has no {name!r}{suggestion(name, self._names())}")

    def __setattr__(self, name: str, value: Any) -> None:
        hyper, index = self._spellings.get(canonical(name), (None, None))
        if hyper is None:
            if canonical(name) in self._flags:
                raise ArgumentError(f"the flag {name!r} is chosen when the optimiser is made")
            message = f"{type(self).__name__} has no hyperparameter {name!r}{suggestion(name, list(self._values))}"
            raise ArgumentError(message)
        if index is None:
            self._values[hyper.name] = checked(hyper, value)
        else:
            values = list(self._values[hyper.name])
            values[index] = number(hyper, value)
            self._values[hyper.name] = tuple(values)
        self._held.clear()

    def _names(self) -> list[str]:
        return [*self._values, *self._flags]

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self._names()]

    def __repr__(self) -> str:
        arguments = [f"{name}={getattr(self, name)!r}" for name in self._values]
        arguments += [f"{flag.name}={flag.value}" for flag in self.rule.flags if flag.value != flag.default]
        arguments += [f"backend={self._backend!r}"] if self._backend != BACKENDS[0] else []
        return f"{type(self).__name__}({', '.join(arguments)})"

    # ---- Steps ----

    def step(self, params: Sequence[Any], grads: Sequence[Any]) -> None:
        """One update of every parameter in place, in one call of the kernel.

        `params`: arrays of float32 or float64, or tracked parameters (whose `data` is such an array), of any shapes
        and strides, each once. `grads`: for each parameter an array of its shape and dtype, with any strides.

        Raises ArrayError for what cannot be stepped, StateError for a parameter that does not fit the saved state it
        would take up, HyperparameterError for one that vanishes in a parameter's dtype, CompilerNotFound if a kernel
        must be compiled and cannot. Then no parameter, state or count has changed.
        """
        if type(params) not in (tuple, list) or type(grads) not in (tuple, list):
            params, grads = _listed(params, "parameters"), _listed(grads, "gradients")
        if self._backend == "interpreter":
            self._interpret(params, grads)
            return
        plan = self._plans.get(tuple(map(id, params)))
        if plan is None or not plan.takes(params, grads):
            self._step_anew(params, grads)
            return
        if not self._held.issuperset(plan.dtypes):
            self._refuse_vanishing(plan.dtypes)
        plan.run(self._values)

    def _step_anew(self, params: Sequence[Any], grads: Sequence[Any]) -> None:
        # `ps` and `gs` must live until the plan has run: it holds addresses only.
        ps, gs, slots = self._accept(params, grads)
        plan = Plan(self._kernel, params, ps, gs, slots, threads())
        self._register(ps, slots)
        self._plans.keep(tuple(map(id, params)), plan)
        plan.run(self._values)

    def _interpret(self, params: Sequence[Any], grads: Sequence[Any]) -> None:
        ps, gs, slots = self._accept(params, grads)
        self._register(ps, slots)
        for p, g, slot in zip(ps, gs, slots, strict=True):
            interp.step(self.rule, self._values, slot.t + 1, {"p": p, "g": g, **slot.arrays})
            slot.t += 1

    def _accept(self, params: Sequence[Any], grads: Sequence[Any]) -> tuple[list[Array], list[Array], list[Slot]]:
        """The arrays and slots of a step, after every check. New slots are not registered yet."""
        if len(params) != len(grads):
            raise ArrayError(f"a gradient for each of {len(params)} parameters was expected, got {len(grads)}")
        count = len(params)
        ps = [as_parameter(p, i, count) for i, p in enumerate(params)]
        gs = [as_gradient(g, p, i, count) for i, (g, p) in enumerate(zip(grads, ps, strict=True))]
        found = [self._states.find(key) for key in keys_of(ps)]
        # Before memory is taken for new states: a refused step should not take it.
        refuse_overlaps(ps, gs, [array for slot in found if slot for array in slot.arrays.values()])
        self._refuse_vanishing({str(p.dtype) for p in ps})
        pending = iter(self._states.pending)
        slots = []
        for i, (slot, p) in enumerate(zip(found, ps, strict=True)):
            if slot is None and (saved := next(pending, None)) is not None:
                expect_fit(saved, p.shape, str(p.dtype), i)
                slot = Slot.of(p, saved.t, saved.arrays)
            slots.append(slot or self._new_slot(p))
        return ps, gs, slots

    def _register(self, ps: Sequence[Array], slots: Sequence[Slot]) -> None:
        for key, p, slot in zip(keys_of(ps), ps, slots, strict=True):
            if self._states.find(key) is None:
                self._states.add(p, slot)
                del self._states.pending[:1]

    def _new_slot(self, p: Array) -> Slot:
        return Slot.of(p, 0, interp.initial_state(self.rule, self._values))

    def _kernel(self, dtype: str) -> Kernel:
        return driver.kernel(self._compilation, self._variant, dtype, self._module)

    def _refuse_vanishing(self, dtypes: Iterable[str]) -> None:
        """HyperparameterError if a constant of the rule is not zero, but would be in one of these types."""
        for dtype in set(dtypes) - self._held:
            for formula, value in self._constants().items():
                if 0 < abs(value) <= VANISHING[dtype]:
                    message = f"{type(self).__name__}: {expression(formula)} = {value:g} would be 0 in {dtype}"
                    raise HyperparameterError(message, hint="take a larger value, or parameters of float64")
            self._held.add(dtype)

    def _constants(self) -> dict[Expr, float]:
        """All that meets elements in the compute type and does not change from step to step, with its values."""
        rule = self._compilation.lowered[self._variant]
        scalars = [a for a in kernel_scalars(rule) if extent_of(a.value) == Extent.CONSTANT]
        values = Program(rule.scalars, [a.target for a in scalars]).run(self._values, 1)
        initial = interp.initial_state(rule, self._values)
        return {
            **{e: e.value for a in rule.body for e in walk(a.value) if isinstance(e, Const)},
            **{state.init: initial[state.name] for state in rule.states},
            **{a.value: value for a, value in zip(scalars, values, strict=True)},
        }

    # ---- State ----

    def state(self, p: Any) -> dict[str, Any]:
        """The state of parameter `p`: an array for each name of the spec (read-only, live), and the count `t`.

        The arrays have the shape and dtype of `p`. Of a parameter that was never stepped: what its state would start
        as, and t = 0; or, of a loaded state that waits for its parameters, the part that fits. StateError if more
        than one part fits, since their order will decide; ArrayError for what is no parameter.
        """
        array = as_parameter(p, 0, 1)
        slot = self._states.find(keys_of([array])[0]) or self._awaited_slot(array) or self._new_slot(array)
        views: dict[str, Any] = {}
        for name, values in slot.arrays.items():
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
        return {
            "format": FORMAT,
            "rule": self.rule.name,
            "flags": dict(self._flags),
            "hyperparameters": {name: getattr(self, name) for name in self._values},
            "parameters": self._states.saved(),
        }

    def load_state_dict(self, saved: Mapping[str, Any], params: Sequence[Any] | None = None) -> None:
        """Takes over what `state_dict` gave: hyperparameters, counts and states (copies).

        The saved parameters are, in order, `params` if given, and then no others; else the parameters that this
        optimiser has; and if it has none, those that it will be given, each checked when it is first stepped.

        Raises StateError if `saved` is of another rule, flags, shapes, dtypes or number, HyperparameterError or
        ArgumentError for its hyperparameters, ArrayError for `params`. Then nothing has changed.
        """
        values, slots = self._read_state(saved)
        if params is not None:
            params = _listed(params, "parameters")
            arrays = [as_parameter(p, i, len(params)) for i, p in enumerate(params)]
            keys_of(arrays)
            refuse_overlaps(arrays, [], [])
            expect_number(len(slots), len(arrays))
            for i, (slot, p) in enumerate(zip(slots, arrays, strict=True)):
                expect_fit(slot, p.shape, str(p.dtype), i)
            laid_out = [Slot.of(p, slot.t, slot.arrays) for slot, p in zip(slots, arrays, strict=True)]
            self._start(values, self._flags, self._backend)
            for p, slot in zip(arrays, laid_out, strict=True):
                self._states.add(p, slot)
            return
        present = self._states.slots()
        if present:
            expect_number(len(slots), len(present) + len(self._states.pending))
        for i, (slot, own) in enumerate(zip(slots, present, strict=False)):
            expect_fit(slot, own.shape, own.dtype, i)
        self._values.update(values)
        self._held.clear()
        for slot, own in zip(slots, present, strict=False):
            own.fill(slot.t, slot.arrays)
        self._states.pending = slots[len(present) :]

    def _read_state(self, saved: Mapping[str, Any]) -> tuple[dict[str, tuple[float, ...]], list[Slot]]:
        keys = ("format", "rule", "flags", "hyperparameters", "parameters")
        if not isinstance(saved, Mapping) or not set(keys) <= set(saved):
            raise StateError(f"what state_dict() gives was expected, with {', '.join(keys)}")
        if saved["format"] != FORMAT:
            raise StateError(f"a state of format {FORMAT} was expected, got {saved['format']!r}")
        if saved["rule"] != self.rule.name:
            raise StateError(f"a state of {self.rule.name} was expected, got one of {saved['rule']}")
        if saved["flags"] != self._flags:
            raise StateError(f"a state with the flags {self._flags} was expected, got {saved['flags']}")
        given = saved["hyperparameters"]
        if not isinstance(given, Mapping) or set(given) != set(self._values):
            got = ", ".join(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
            message = f"the hyperparameters {', '.join(self._values) or 'none'} were expected, got {got or 'none'}"
            raise StateError(message)
        values = {name: checked(self._spellings[name][0], given[name]) for name in self._values}
        return values, read_saved(saved["parameters"], [state.name for state in self.rule.states])

    # ---- Copies ----

    def __copy__(self) -> Optimiser:
        """An optimiser for the same parameters, with a state of its own."""
        twin = _revive(type(self), dict(self._values), dict(self._flags), self._backend, None)
        self._states.copy_to(twin._states)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Optimiser:
        """As from a pickle: the parameters that the copy is given first take up the state, in order."""
        return _revive(type(self), dict(self._values), dict(self._flags), self._backend, self.state_dict())

    def __reduce__(self) -> tuple[Any, ...]:
        cls: Any = type(self)
        if cls.__module__.startswith("optgen.loaded."):
            cls = (self._compilation.text, self._compilation.file)
        return (_revive, (cls, self._values, self._flags, self._backend, self.state_dict()))


def _revive(
    cls: Any,
    values: dict[str, tuple[float, ...]],
    flags: dict[str, bool],
    backend: str,
    saved: dict[str, Any] | None,
) -> Optimiser:
    if isinstance(cls, tuple):
        cls = driver.module_class(driver.compile_text(*cls))
    optimiser: Optimiser = cls.__new__(cls)
    optimiser._start(values, flags, backend)
    if saved is not None:
        optimiser.load_state_dict(saved)
    return optimiser


def _listed(given: Any, what: str) -> list[Any]:
    if isinstance(given, np.ndarray) or not isinstance(given, Iterable):
        raise ArrayError(f"a sequence of {what} was expected, got {type(given).__name__}", hint="opt.step([p], [g])")
    return list(given)
