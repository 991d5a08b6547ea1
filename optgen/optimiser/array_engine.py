"""The step engine of one optimiser over arrays of NumPy, and its states.

In: settings, then parameters and gradients; or a saved state.
Out: parameters and states changed in place; state dicts; or an error, and then nothing has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import RLock
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..errors import ArgumentError, ArrayError, StateError
from ..ir.evaluate import HyperValues
from ..ir.expr import Extent
from ..ir.rule import Storages
from ..ir.storages import in_blocks
from ..runtime.arrays import Array, as_parameter
from ..runtime.engine import StepEngine
from ..runtime.evaluation import evaluated
from ..runtime.interrupts import to_its_end
from ..runtime.numpy_library import ArrayWays, NumPyLibrary
from ..runtime.overlaps import refuse_overlaps
from ..runtime.phases import expect_phase, expect_phase_number, expect_whole_step
from ..runtime.reports import last_reports
from ..runtime.shapes import first_group_states
from ..runtime.slots import Shapes, Slot, keys_of
from .checkpoint import FORMAT, expect_same, read_group, read_value, saved_value
from .checkpoint_file import FilePath, load_checkpoint, write_checkpoint
from .hyperparameters import Given
from .inputs import arrays_of, expect_inputs, kind_of, numbers_of
from .saved_rounding import with_seeds
from .settings import Settings
from .state import States, expect_fit, expect_number, new_slot, read_count, read_saved, read_state

__all__ = ["ArrayEngine", "Engine", "Parameters"]

_STEP_THEM = "step them first, or say which they are: opt.load_state_dict(saved, params)"

#: Parameters, of which a mapping gives the names.
Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]


class Engine(Protocol):
    """What an optimiser leaves to its engine; the methods are those of `Optimiser`."""

    def step(
        self, params: Sequence[Any], grads: Sequence[Any], inputs: Mapping[str, Any], phase: str | None = None
    ) -> bool | str: ...
    @property
    def phase(self) -> str | None: ...
    def state(self, p: Any = None) -> dict[str, Any]: ...
    def report(self, p: Any = None) -> dict[str, Any]: ...
    def set_state(self, p: Any, values: Mapping[str, Any]) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(
        self, saved: Mapping[str, Any], params: Sequence[Any] | None = None, *, convert: bool = False
    ) -> None: ...
    def save(self, path: FilePath, params: Parameters) -> None: ...
    def load(self, path: FilePath, params: Parameters, *, convert: bool = False) -> None: ...
    def eval(self) -> None: ...
    def train(self) -> None: ...
    def copy_to(self, other: Engine) -> None:
        """Gives `other` the same parameters, with copies of their states."""

    @property
    def begun(self) -> bool:
        """Whether there are states."""

    @property
    def lock(self) -> RLock:
        """Held by whoever steps, reads or changes the optimiser."""


class ArrayEngine:
    """The engine of an optimiser with these settings; `module` is the file of its class, if that was built."""

    def __init__(self, settings: Settings, module: str | None) -> None:
        self.settings = settings
        #: Whether a step is given gradients alone, and has one phase.
        self._plain = not settings.rule.inputs and not settings.compilation.phases
        self.states = States(settings)
        by_kernels = settings.backend != "interpreter"
        ways = ArrayWays(
            by_kernels=by_kernels,
            multiplies=settings.multiplies,
            by_programs=by_kernels and settings.has_programs,
            rule_of=settings.rule_of if in_blocks(settings.chosen_storages.items()) else None,
        )
        self.engine = StepEngine(NumPyLibrary(), settings, self.states, ways, module)
        self.states.forget = self.engine.plans.forget

    def _start_anew(self) -> None:
        self.states = States(self.settings)
        self.states.forget = self.engine.plans.forget
        self.engine.begin_anew(self.settings, self.states, self.engine.ways)

    @property
    def lock(self) -> RLock:
        return self.engine.lock

    @property
    def begun(self) -> bool:
        return bool(len(self.states) or self.states.pending)

    @property
    def phase(self) -> str | None:
        phases = self.settings.compilation.phases
        return phases[self.engine.phase] if phases else None

    def step(
        self, params: Sequence[Any], grads: Sequence[Any], inputs: Mapping[str, Any], phase: str | None = None
    ) -> bool | str:
        # Lists of our own: nobody else can change them, and they hold the arrays until the step is through.
        params = params.copy() if type(params) is list else _listed(params, "parameters")
        grads = grads.copy() if type(grads) is list else _listed(grads, "gradients")
        if self._plain and not inputs and phase is None:
            return self.engine.step(params, grads)
        with self.engine.lock:
            rule = self.settings.rule
            if phase is not None:
                expect_phase(rule.name, self.engine.phases, self.engine.phase, phase)
            found, lacking = expect_inputs(rule, rule.inputs, inputs, "opt.step(params, grads, ")
            arrays = arrays_of(rule, found, grads, len(params))
            counts = self.engine.step(params, [*grads, *arrays], numbers_of(rule, found), lacking)
            return counts and (self.phase or True)

    # ---- States ----

    def state(self, p: Any = None) -> dict[str, Any]:
        if p is None:
            return _views(self._group)
        array = as_parameter(p, 0, 1)
        slot = self.states.of(array) or self._awaited_slot(array)
        if slot is None:  # what it would start as
            slot = self._new_slot(array)
        return _views({**slot.numbers, **self._group}) | {"t": slot.t}

    def _new_slot(self, p: Array) -> Slot:
        rule = self.settings.rule_of(p.shape)
        return new_slot(p, rule, self._first, self.states.next_ordinal, self.settings.storages(0, rule))

    @property
    def _first(self) -> HyperValues:
        """The hyperparameters of a first step."""
        return self.settings.sets_at(())[0][1]

    @property
    def _group(self) -> dict[str, Array]:
        """The states of all parameters together, or what they would start as."""
        rule, begun = self.settings.rule, self.states.group
        return first_group_states(rule, self._first) if rule.grouped and not begun else begun

    def report(self, p: Any = None) -> dict[str, Any]:
        array = None if p is None else as_parameter(p, 0, 1)
        found = last_reports(self.engine.reports, self.settings.compilation.rules)
        shared = {name: value for each in found for name, value in each.shared().items()}
        if array is None or not found:
            return shared
        slot = self.states.of(array)
        own = [values for each in found if (values := each.of(slot)) is not None] if slot is not None else []
        if not own:
            raise StateError("expected a parameter of the last step, got another one", hint="step it, then ask")
        return {**own[0], **shared}

    def set_state(self, p: Any, values: Mapping[str, Any]) -> None:
        self.engine.expect_rest("set a state")
        self.engine.expect_training("set a state")
        array = as_parameter(p, 0, 1)
        slot, group = self.states.of(array), self._group
        if slot is None and self.states.pending:
            raise self._waiting(_STEP_THEM)
        own = slot or self._new_slot(array)
        kept = {**own.numbers, **group}
        known = [*kept, "t"]
        for name in values:
            if name not in known:
                raise ArgumentError(f"expected a state among {', '.join(known)}, got {name}")
        t = read_count("", values.get("t", own.t))
        copies = {name: read_state(name, values[name], kept[name]) for name in values.keys() & kept.keys()}
        expect_phase_number(self.engine.phases, group | copies)

        def write() -> bool:
            if self.states.of(array) is None:
                self.states.add(array, own)
            for name, value in copies.items():
                if name in group:
                    group[name][...] = value
                else:
                    own.put(name, value)
            own.t = t
            self.states.group = group
            return True

        to_its_end(write)

    def _waiting(self, hint: str) -> StateError:
        return StateError(f"{len(self.states.pending)} loaded states wait for their parameters", hint=hint)

    def _awaited_slot(self, p: Array) -> Slot | None:
        """The pending slot that `p` will take up, if that can be told before it is stepped."""
        fitting = [slot for slot in self.states.pending if (slot.shape, slot.dtype) == (p.shape, str(p.dtype))]
        if len(fitting) > 1:
            hint = "say which parameters it is of: opt.load_state_dict(saved, params)"
            raise StateError(f"{len(fitting)} loaded states of shape {p.shape} wait for their parameters", hint=hint)
        return fitting[0] if fitting else None

    def saved_settings(self) -> dict[str, Any]:
        """What a state dict has beside states."""
        settings = self.settings
        return {
            "format": FORMAT,
            "rule": settings.rule.name,
            "flags": settings.saved_flags(),
            "hyperparameters": {n: saved_value(settings.spellings[n][0], v) for n, v in settings.values.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        saved = self.saved_settings() | {"parameters": self.states.saved()}
        if self.states.group:
            saved["group"] = {name: array.copy() for name, array in self.states.group.items()}
        return saved

    def load_state_dict(
        self, saved: Mapping[str, Any], params: Sequence[Any] | None = None, *, convert: bool = False
    ) -> None:
        self.expect_loadable()
        to_its_end(self.loading(saved, params, convert=convert))

    def expect_loadable(self) -> None:
        """ArgumentError where no state can be loaded now."""
        self.engine.expect_rest("load a state")
        self.engine.expect_training("load a state")

    def loading(self, saved: Mapping[str, Any], params: Sequence[Any] | None, *, convert: bool) -> Callable[[], bool]:
        """What takes over a saved state, which is read and checked here: it may be begun anew at any point."""
        values, slots, group = self._read_state(saved, convert=convert)
        if params is not None:
            return self._loading_for(_listed(params, "parameters"), values, slots, group)
        present = self.states.slots()
        if present:
            expect_number(len(slots), len(present) + len(self.states.pending))
        for i, (slot, own) in enumerate(zip(slots, present, strict=False)):
            expect_fit(slot, own.shape, own.dtype, i)

        def load() -> bool:
            self.settings.replace(values)
            for slot, own in zip(slots, present, strict=False):
                own.take(slot)
            self.states.pending = slots[len(present) :]
            self.states.group = group
            return True

        return load

    def _loading_for(
        self,
        params: Sequence[Any],
        values: Mapping[str, tuple[Given, ...]],
        slots: Sequence[Slot],
        group: dict[str, Array],
    ) -> Callable[[], bool]:
        """What takes over a state that has been read, for these parameters and no others."""
        arrays = [as_parameter(p, i, len(params)) for i, p in enumerate(params)]
        keys_of(arrays)
        refuse_overlaps(arrays, [], [])
        expect_number(len(slots), len(arrays))
        for i, (slot, p) in enumerate(zip(slots, arrays, strict=True)):
            expect_fit(slot, p.shape, str(p.dtype), i)
        laid_out = [
            Slot.of(p, slot.arrays, self.settings.own_shapes(p.shape), slot.storages).take(slot)
            for slot, p in zip(slots, arrays, strict=True)
        ]

        def load() -> bool:
            self.settings.replace(values)
            self._start_anew()
            self.states.group = group
            for p, slot in zip(arrays, laid_out, strict=True):
                self.states.add(p, slot)
            return True

        return load

    def _read_state(
        self, saved: Mapping[str, Any], *, convert: bool
    ) -> tuple[dict[str, tuple[Given, ...]], list[Slot], dict[str, Array]]:
        settings = self.settings
        saved = with_seeds(saved, settings, convert=convert)
        expect_same(saved, settings.rule.name, settings.saved_flags(), settings.usual_flags(), settings.values)
        given = saved["hyperparameters"]
        values = {n: read_value(settings.spellings[n][0], given[n], own) for n, own in settings.values.items()}
        settings.refuse_other_variant(values)
        slots = read_saved(saved["parameters"], self._saved_fields, convert=convert)
        names = [state.name for state in settings.rule.states if state.extent == Extent.GROUP]
        group = read_group(saved.get("group", {}), names, begun=bool(slots))
        expect_phase_number(self.engine.phases, group)
        return values, slots, group

    def _saved_fields(self, shape: tuple[int, ...]) -> tuple[list[str], Shapes, Storages]:
        """The names of the states that a parameter of this shape has, the shapes of the small ones, and the storages
        of others."""
        rule = self.settings.rule_of(shape)
        names = [state.name for state in rule.states if state.extent > Extent.GROUP]
        return names, self.settings.own_shapes(shape), self.settings.storages(0, rule)

    # ---- Evaluation ----

    def eval(self) -> None:
        self.engine.expect_rest("evaluate")
        if self.engine.evaluating or not self.settings.rule.evaluation:
            return
        expect_whole_step("evaluate", self.engine.phases, self.states.group)
        if self.states.pending:
            raise self._waiting(_STEP_THEM)
        known = self.states.parameters()
        arrays, slots = [p for _, p, _ in known], [slot for _, _, slot in known]
        write = evaluated(self.engine, arrays, range(len(known)), slots)
        aside = [p.copy() for p in arrays]
        self.engine.evaluating = True
        for slot, values in zip(slots, aside, strict=True):
            slot.aside = values
        write()

    def train(self) -> None:
        self.engine.expect_rest("train")
        for _owner, p, slot in self.states.parameters():
            if slot.aside is not None:
                p[...] = slot.aside
                slot.aside = None
        self.engine.evaluating = False

    # ---- Files ----

    def save(self, path: FilePath, params: Parameters) -> None:
        self.engine.expect_training("save parameters")
        arrays = _named(params)
        keys_of(list(arrays.values()))
        slots = {name: self.states.of(array) for name, array in arrays.items()}
        absent = len(self.states) - sum(slot is not None for slot in slots.values())
        if self.states.pending:
            raise self._waiting(_STEP_THEM)
        if absent:
            message = f"expected all parameters that this optimiser has stepped, got all but {absent}"
            raise StateError(
                message, hint="give the arrays themselves, not copies; let go of those that are not needed"
            )
        write_checkpoint(path, self.saved_settings(), arrays, slots, self.states.group)

    def load(self, path: FilePath, params: Parameters, *, convert: bool = False) -> None:
        self.engine.expect_rest("load a checkpoint")
        self.engine.expect_training("load a checkpoint")
        arrays = _named(params)
        keys_of(list(arrays.values()))
        refuse_overlaps(list(arrays.values()), [], [])

        def loading(saved: dict[str, Any]) -> Callable[[], bool]:
            begun = {name: entry for name, entry in saved["parameters"].items() if entry is not None}
            own = [arrays[name] for name in begun]
            return self.loading(saved | {"parameters": [*begun.values()]}, own, convert=convert)

        load_checkpoint(path, arrays, loading)

    def copy_to(self, other: Engine) -> None:
        assert isinstance(other, ArrayEngine)
        self.engine.expect_training("copy an optimiser")
        self.states.copy_to(other.states)


def _views(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Views of states that nobody writes to: `set_state` checks what is set."""
    views = {name: values.view() for name, values in arrays.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


def _named(params: Parameters) -> dict[str, Array]:
    """The arrays behind parameters, by the names that they have in a mapping; in a sequence, by their places."""
    if not isinstance(params, Mapping):
        params = {str(i): p for i, p in enumerate(_listed(params, "parameters"))}
    for name in params:
        if not isinstance(name, str) or any("\ud800" <= c <= "\udfff" for c in name):
            raise ArgumentError(f"expected a text as the name of a parameter, got {name!r}")
    return {name: as_parameter(p, name, len(params)) for name, p in params.items()}


def _listed(given: Any, what: str) -> list[Any]:
    if isinstance(given, np.ndarray) or not isinstance(given, Iterable):
        raise ArrayError(f"expected a sequence of {what}, got {kind_of(given)}", hint="opt.step([p], [g])")
    return list(given)
