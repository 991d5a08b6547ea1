"""The optimiser object: hyperparameters, state and steps of one rule, over the kernel or the interpreter.

Generated modules derive their classes from `Optimiser`. A step is checked before anything is touched; a list of
parameters that was checked once is not checked again while its arrays stay what they were.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from . import driver, interp
from .arrays import COMPUTE, Array, as_gradient, as_parameter, refuse_overlaps
from .emit.text import expression
from .errors import ArgumentError, ArrayError, HyperparameterError, StateError
from .host import Program
from .hyperparameters import any_spelling, checked, find, number, suggestion
from .ir import Const, Extent, Hyper, Rule, extent_of, walk
from .kernel import Kernel
from .names import canonical
from .plan import Plan
from .state import Key, Slot, States, check_saved, fitting_slot

__all__ = ["Optimiser"]

BACKENDS = ("kernel", "interpreter")
FORMAT = 1
#: How many lists of parameters an optimiser remembers; one each for who updates 1024 parameters one by one.
MOST_PLANS = 1024


class Optimiser:
    """Base of all optimisers; its subclasses are made from specs.

    Hyperparameters are attributes, in ASCII or Greek: `opt.eta = 0.01` holds from the next step on. `opt.beta` is a
    tuple, `opt.beta1` its first value.
    """

    _compilation: ClassVar[driver.Compilation]
    _module: ClassVar[str]
    _hypers: ClassVar[dict[str, Hyper]]

    _values: dict[str, tuple[float, ...]]
    _flags: dict[str, bool]

    def __init_subclass__(cls, *, text: str | None = None, file: str = "", module: str = "") -> None:
        if text is None:  # a class that somebody derives from a generated one
            return
        cls._compilation = driver.compile_text(text, file)
        cls._module = module
        cls._hypers = {hyper.name: hyper for hyper in cls._compilation.rules[0].hypers}
        cls.__init__ = any_spelling(cls.__init__, cls._hypers)  # type: ignore[method-assign]

    def __init__(self, values: Mapping[str, Any], flags: Mapping[str, bool], backend: str) -> None:
        if not hasattr(self, "_compilation"):
            raise ArgumentError("Optimiser is the base of all rules, and none itself", hint="from optgen import ADAM")
        if backend not in BACKENDS:
            raise ArgumentError(f"backend: one of {', '.join(BACKENDS)} was expected, got {backend!r}")
        for name, value in flags.items():
            if not isinstance(value, bool):
                raise ArgumentError(f"the flag {name}: True or False was expected, got {value!r}")
        self._start({name: checked(self._hypers[name], v) for name, v in values.items()}, dict(flags), backend)

    def _start(self, values: dict[str, tuple[float, ...]], flags: dict[str, bool], backend: str) -> None:
        assign = object.__setattr__
        assign(self, "_values", values)
        assign(self, "_flags", flags)
        assign(self, "_backend", backend)
        assign(self, "_variant", self._compilation.variant(flags))
        assign(self, "_held", set())  # the dtypes that hold every constant of the rule
        assign(self, "_plans", {})
        assign(self, "_states", States(self._forget_plans_of()))

    # ---- Hyperparameters ----

    @property
    def rule(self) -> Rule:
        """The checked rule, in the variant of this optimiser's flags."""
        return self._compilation.rules[self._variant]

    @property
    def backend(self) -> str:
        """ "kernel" or "interpreter"."""
        return self._backend

    _backend: str
    _variant: int
    _held: set[str]
    _plans: dict[Key, Plan]
    _states: States

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        hyper, index = find(self._hypers, canonical(name))
        if hyper is not None:
            values = self._values[hyper.name]
            return values if index is None and hyper.vector else values[index or 0]
        if canonical(name) in self._flags:
            return self._flags[canonical(name)]
        raise AttributeError(f"{type(self).__name__} has no {name!r}{suggestion(name, self._names())}")

    def __setattr__(self, name: str, value: Any) -> None:
        hyper, index = find(self._hypers, canonical(name))
        if hyper is None:
            if canonical(name) in self._flags:
                raise ArgumentError(f"the flag {name!r} is chosen when the optimiser is made")
            message = f"{type(self).__name__} has no hyperparameter {name!r}{suggestion(name, self._names())}"
            raise ArgumentError(message)
        if index is None:
            self._values[hyper.name] = checked(hyper, value)
        else:
            values = list(self._values[hyper.name])
            values[index] = number(hyper, value)
            self._values[hyper.name] = tuple(values)
        self._held.clear()

    def _names(self) -> list[str]:
        return [*self._hypers, *self._flags]

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self._names()]

    def __repr__(self) -> str:
        arguments = [f"{name}={getattr(self, name)!r}" for name in self._hypers]
        arguments += [f"{name}=True" if value else f"{name}=False" for name, value in self._flags.items()
                      if value != next(f.default for f in self.rule.flags if f.name == name)]  # fmt: skip
        arguments += [f"backend={self._backend!r}"] if self._backend != BACKENDS[0] else []
        return f"{type(self).__name__}({', '.join(arguments)})"

    # ---- Steps ----

    def step(self, params: Sequence[Any], grads: Sequence[Any]) -> None:
        """One update of every parameter in place, in one call of the kernel.

        `params`: arrays of float32 or float64, or tracked parameters, of any shapes and strides, each once. `grads`:
        for each parameter an array of its shape and dtype. Raises ArrayError for what cannot be stepped; then no
        parameter, state or count has changed.
        """
        if type(params) not in (tuple, list) or type(grads) not in (tuple, list):
            params, grads = _listed(params, "parameters"), _listed(grads, "gradients")
        if self._backend == "interpreter":
            self._interpret(params, grads)
            return
        plan = self._plans.get(tuple(map(id, params)))
        if plan is None or not plan.takes(params, grads):
            plan = self._make_plan(params, grads)
        if not self._held.issuperset(plan.dtypes):
            self._refuse_vanishing(plan.dtypes)
        plan.run(self._values)

    def _accept(self, params: Sequence[Any], grads: Sequence[Any]) -> tuple[list[Array], list[Array], list[Slot]]:
        """The arrays and slots of a step, after every check. New slots are not registered yet."""
        if len(params) != len(grads):
            raise ArrayError(f"a gradient for each of {len(params)} parameters was expected, got {len(grads)}")
        count = len(params)
        ps = [as_parameter(p, i, count) for i, p in enumerate(params)]
        gs = [as_gradient(g, p, i, count) for i, (g, p) in enumerate(zip(grads, ps, strict=True))]
        names = [state.name for state in self.rule.states]
        pending = iter(self._states.pending)
        slots = []
        for i, p in enumerate(ps):
            slot = self._states.find(p)
            if slot is None and (saved := next(pending, None)) is not None:
                slot = fitting_slot(saved, p, names, f"parameter {i}")
            slots.append(slot)
        self._refuse_vanishing({str(p.dtype) for p in ps})
        # Before memory is taken for new states: a refused step should not take it.
        refuse_overlaps(ps, gs, [array for slot in slots if slot for array in slot.arrays.values()])
        return ps, gs, [slot or self._new_slot(p) for slot, p in zip(slots, ps, strict=True)]

    def _register(self, ps: Sequence[Array], slots: Sequence[Slot]) -> None:
        for p, slot in zip(ps, slots, strict=True):
            if self._states.find(p) is not slot:
                self._states.add(p, slot)
                del self._states.pending[:1]

    def _new_slot(self, p: Array) -> Slot:
        initial = interp.initial_state(self.rule, self._values)
        slot = Slot({})
        for name, value in initial.items():
            slot.arrays[name] = array = np.empty_like(p, order="K", subok=False)
            array.fill(value)
        return slot

    def _interpret(self, params: Sequence[Any], grads: Sequence[Any]) -> None:
        ps, gs, slots = self._accept(params, grads)
        self._register(ps, slots)
        for p, g, slot in zip(ps, gs, slots, strict=True):
            interp.step(self.rule, self._values, slot.t + 1, {"p": p, "g": g, **slot.arrays})
            slot.t += 1

    def _make_plan(self, params: Sequence[Any], grads: Sequence[Any]) -> Plan:
        ps, gs, slots = self._accept(params, grads)
        groups: dict[str, list[int]] = {}
        for i, p in enumerate(ps):
            groups.setdefault(COMPUTE[p.dtype], []).append(i)
        kernels = {dtype: self._kernel(dtype) for dtype in groups}
        self._register(ps, slots)
        plan = Plan(kernels, groups, params, grads, ps, gs, slots)
        key = tuple(map(id, params))
        while len(self._plans) >= MOST_PLANS:
            self._plans.pop(next(iter(self._plans)))
        self._plans[key] = plan
        for slot in slots:
            slot.plans.add(key)
        return plan

    def _kernel(self, dtype: str) -> Kernel:
        return driver.kernel(self._compilation, self._variant, dtype, self._module)

    def _forget_plans_of(self) -> Callable[[Slot], None]:
        """Forgets plans together with a slot, so that they do not keep its memory."""
        plans = self._plans

        def forget(slot: Slot) -> None:
            for key in slot.plans:
                plans.pop(key, None)

        return forget

    def _refuse_vanishing(self, dtypes: Iterable[str]) -> None:
        """HyperparameterError if a constant of the rule is not zero, but would be in one of these types."""
        lowered = self._compilation.lowered[self._variant]
        for dtype in set(dtypes) - self._held:
            names = {a.target: a.value for a in lowered.scalars if extent_of(a.value) == Extent.CONSTANT}
            program = Program(lowered.scalars, list(names))
            constants = dict(zip(map(expression, names.values()), program.run(self._values, 1), strict=True))
            literals = {e.value for a in lowered.body for e in walk(a.value) if isinstance(e, Const)}
            constants |= {expression(Const(value)): value for value in literals}
            for text, value in constants.items():
                if value != 0 and _rounded(value, dtype) == 0:
                    message = f"{type(self).__name__}: {text} = {value:g} would be 0 in {dtype}"
                    raise HyperparameterError(message, hint="take a larger value, or parameters of float64")
            self._held.add(dtype)

    # ---- State ----

    def state(self, p: Any) -> dict[str, Any]:
        """The state of parameter `p`: an array for each name of the spec (read-only, live), and the count `t`.

        Of a parameter that was never stepped: what the state would start as, and t = 0.
        """
        array = as_parameter(p, 0, 1)
        slot = self._states.find(array) or self._new_slot(array)
        views: dict[str, Any] = {}
        for name, values in slot.arrays.items():
            views[name] = view = values.view()
            view.flags.writeable = False
        return views | {"t": slot.t}

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, in plain containers and arrays: rule, hyperparameters, and for each
        parameter, in the order in which they were first stepped, its shape, dtype, count and states (copies)."""
        return {
            "format": FORMAT,
            "rule": self.rule.name,
            "flags": dict(self._flags),
            "hyperparameters": {name: getattr(self, name) for name in self._hypers},
            "parameters": self._states.saved(),
        }

    def load_state_dict(self, saved: Mapping[str, Any], params: Sequence[Any] | None = None) -> None:
        """Takes over what `state_dict` gave. StateError if it is of another rule, flags, shapes, dtypes or number.

        The saved parameters are, in order, `params` if given; else the parameters that this optimiser has; and if it
        has none, those that it will be given, each checked when it is stepped for the first time.
        """
        values, entries = self._read_state(saved)
        names = [state.name for state in self.rule.states]
        if params is not None:
            params = _listed(params, "parameters")
            arrays = [as_parameter(p, i, len(params)) for i, p in enumerate(params)]
            refuse_overlaps(arrays, [], [])
            _expect_number(len(entries), len(arrays))
            pairs = enumerate(zip(entries, arrays, strict=True))
            slots = [fitting_slot(entry, p, names, f"parameter {i}") for i, (entry, p) in pairs]
            self._restart(values)
            for p, slot in zip(arrays, slots, strict=True):
                self._states.add(p, slot)
        elif len(self._states):
            present = list(self._states.items())
            _expect_number(len(entries), len(present))
            for i, (entry, (shape, dtype, _)) in enumerate(zip(entries, present, strict=True)):
                if (tuple(entry["shape"]), entry["dtype"]) != (shape, dtype):
                    got = f"{tuple(entry['shape'])}, {entry['dtype']}"
                    raise StateError(f"parameter {i}: a saved state of {shape}, {dtype} was expected, got {got}")
            self._values.update(values)
            self._held.clear()
            for entry, (_, _, slot) in zip(entries, present, strict=True):
                slot.t = int(entry["t"])
                for name, array in slot.arrays.items():
                    array[...] = entry["state"][name]
        else:
            self._restart(values)
            self._states.pending = [{**e, "state": {n: a.copy() for n, a in e["state"].items()}} for e in entries]

    def _restart(self, values: dict[str, tuple[float, ...]]) -> None:
        self._start(values, self._flags, self._backend)

    def _read_state(self, saved: Mapping[str, Any]) -> tuple[dict[str, tuple[float, ...]], list[Mapping[str, Any]]]:
        keys = ("format", "rule", "flags", "hyperparameters", "parameters")
        if not isinstance(saved, Mapping) or not set(keys) <= set(saved):
            raise StateError(f"what state_dict() gives was expected, with {', '.join(keys)}")
        if saved["format"] != FORMAT:
            raise StateError(f"a state of format {FORMAT} was expected, got {saved['format']!r}")
        if saved["rule"] != self.rule.name:
            raise StateError(f"a state of {self.rule.name} was expected, got one of {saved['rule']}")
        if saved["flags"] != self._flags:
            raise StateError(f"a state with the flags {self._flags} was expected, got {saved['flags']}")
        if set(saved["hyperparameters"]) != set(self._hypers):
            got = ", ".join(saved["hyperparameters"]) or "none"
            raise StateError(f"the hyperparameters {', '.join(self._hypers) or 'none'} were expected, got {got}")
        values = {name: checked(self._hypers[name], value) for name, value in saved["hyperparameters"].items()}
        return values, check_saved(saved["parameters"], [state.name for state in self.rule.states])

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


def _expect_number(saved: int, present: int) -> None:
    if saved != present:
        raise StateError(f"saved states of {present} parameters were expected, got {saved}")


def _rounded(value: float, dtype: str) -> float:
    code = "f" if dtype == "float32" else "d"
    try:
        return float(struct.unpack(code, struct.pack(code, value))[0])
    except OverflowError:
        return math.inf


