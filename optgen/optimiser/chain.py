"""Chains: several optimisers as one rule and one kernel, as in `chain(ClipNorm(1.0), WeightDecay(1e-4), ADAM())`.

In: optimisers that have not stepped.
Out: an optimiser over the rule that `compose` makes of their rules. Its parts keep their settings, and are addressed by
their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from threading import RLock
from typing import Any, NoReturn, overload

from ..errors import ArgumentError, StateError
from .array_engine import Engine, Parameters
from .base import Optimiser, engine_of, hold, loaded, settings_of
from .chain_settings import ChainSettings, joined_rounding, joined_storages
from .checkpoint_file import FilePath
from .parts import compiled, refuse_misfits
from .settings import expect_backend

__all__ = ["Chain", "ChainSettings", "Optimiser", "chain"]


def chain(*parts: Optimiser, backend: str = "kernel", **others: NoReturn) -> Chain:
    """One optimiser that runs `parts` one behind the other: what a part gives is the next part's gradient.

    The last part's step is subtracted from the parameter. Everything is one rule and one kernel, which goes over memory
    as often as the formulas need and no more. The chain takes copies of the parts; a chain among them becomes its
    parts. `opt[0].eta`, or `opt.eta` if one part only has the name, is read and set while running.
    `opt[0].state(p)` has the states of a part, and as `t` its own count of updates, if anything goes by it. In
    `opt.state(p)` a state has the name that it has in its part; where several parts have one of that name, with the
    part's in front: `adam_v`, or `ema1_avg` and `ema2_avg` of two of a kind.

    Raises ArgumentError for what is no optimiser, for parts that do not fit, and for an argument of a part, StateError
    for a part that has stepped.
    """
    return Chain(*parts, backend=backend, **others)


class Chain(Optimiser):
    """What `chain` makes, and `Optimiser(a, b, c)`."""

    _settings: ChainSettings
    _parts: tuple[Optimiser, ...]

    def __init__(self, *parts: Optimiser, backend: str = "kernel", **others: NoReturn) -> None:
        if others:
            hint = "give it to the part that it is for: chain(ClipNorm(1.0), ADAM(eta=0.1))"
            raise ArgumentError(f"chain: expected parts and a backend, got {', '.join(others)}=...", hint=hint)
        expect_backend(backend)
        flat = list(_flat(parts))
        if not flat:
            raise ArgumentError("expected at least one part of a chain, got none", hint="chain(ClipNorm(1.0), ADAM())")
        refuse_misfits(flat)
        self._link([part._twin() for part in flat], backend)

    def _link(self, parts: Sequence[Optimiser], backend: str) -> None:
        """Becomes the chain of these parts, which are its own."""
        compilation, made = compiled(parts)
        of = made[0]
        # A state or a report may be in one of two variants only.
        states, reports = (
            [dict(pair for own in each for pair in own.items()) for each in zip(*named, strict=True)]
            for named in ([each.states for each in made], [each.reports for each in made])
        )
        self.__dict__.update(_parts=tuple(parts), _compilation=compilation, _module=None)
        own = [settings_of(part) for part in parts]
        storages, rounding = joined_storages(own, states), joined_rounding(own, states, of.hypers)
        hold(self, ChainSettings(compilation, own, of.hypers, of.counts, backend, storages, rounding))
        for i, part in enumerate(parts):
            hold(part, settings_of(part), PartEngine(i, self._engine, states[i], reports[i], of.counts[i]))

    @property
    def parts(self) -> tuple[Optimiser, ...]:
        """The parts, whose hyperparameters are those of the chain."""
        return self._parts

    def __len__(self) -> int:
        return len(self._parts)

    @overload
    def __getitem__(self, index: int) -> Optimiser: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Optimiser, ...]: ...
    def __getitem__(self, index: int | slice) -> Optimiser | tuple[Optimiser, ...]:
        return self._parts[index]

    def __iter__(self) -> Iterator[Optimiser]:
        return iter(self._parts)

    def __repr__(self) -> str:
        return f"chain({', '.join([*map(repr, self._parts), *self._settings.backend_argument()])})"

    # ---- Copies ----

    def _twin(self) -> Chain:
        twin: Chain = object.__new__(Chain)
        twin._link([part._twin() for part in self._parts], self.backend)
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unpickled, (tuple(part._twin() for part in self._parts), self.backend, self.state_dict()))


Optimiser._chain = Chain


class PartEngine:
    """The engine of a part: it shows the part's own, and refuses what is the business of the chain.

    Parameters
    ----------
    place
        Which part it is.
    chain
        The engine of the chain.
    states, reports
        What the states and reports of the part are called in the chain.
    count
        The state that counts the updates of the part; empty where that is the count of the chain, None where nothing
        goes by it.
    """

    begun = False

    def __init__(
        self, place: int, chain: Engine, states: Mapping[str, str], reports: Mapping[str, str], count: str | None
    ) -> None:
        self._place = place
        self._chain = chain
        self._states = states
        self._reports = reports
        self._count = count

    @property
    def lock(self) -> RLock:
        return self._chain.lock

    def step(self, *_: Any) -> NoReturn:
        raise self._refusal()

    @property
    def phase(self) -> NoReturn:
        raise self._refusal()

    def state(self, p: Any = None) -> dict[str, Any]:
        whole = self._chain.state(p)
        own = {name: whole[called] for name, called in self._states.items() if called in whole}
        return own if p is None or self._count is None else own | {"t": int(whole[self._count or "t"])}

    def report(self, p: Any = None) -> dict[str, Any]:
        whole = self._chain.report(p)
        return {name: whole[called] for name, called in self._reports.items() if called in whole}

    def set_state(self, p: Any, values: Mapping[str, Any]) -> NoReturn:
        raise self._refusal()

    def state_dict(self) -> NoReturn:
        raise self._refusal()

    def load_state_dict(
        self, saved: Mapping[str, Any], params: Sequence[Any] | None = None, *, convert: bool = False
    ) -> NoReturn:
        raise self._refusal()

    def save(self, path: FilePath, params: Parameters) -> NoReturn:
        raise self._refusal()

    def load(self, path: FilePath, params: Parameters, *, convert: bool = False) -> NoReturn:
        raise self._refusal()

    def eval(self) -> NoReturn:
        raise self._refusal()

    def train(self) -> NoReturn:
        raise self._refusal()

    def copy_to(self, other: Engine) -> None:
        """Nothing: a copy of a part is an optimiser that has not stepped."""

    def _refusal(self) -> ArgumentError:
        message = f"part {self._place} of a chain has hyperparameters and states, and no steps of its own"
        return ArgumentError(message, hint="call the chain itself: opt.step(params, grads), opt.set_state(p, ...)")


def _unpickled(parts: Sequence[Optimiser], backend: str, saved: dict[str, Any]) -> Optimiser:
    made: Chain = object.__new__(Chain)
    made._link(parts, backend)
    return loaded(made, saved)


def _flat(parts: Sequence[Any]) -> Iterator[Optimiser]:
    for i, part in enumerate(parts):
        if isinstance(part, type) and issubclass(part, Optimiser):
            hint = f"make one: {part.__name__}()"
            raise ArgumentError(f"part {i}: expected an optimiser, got the class", hint=hint)
        if not isinstance(part, Optimiser):
            hint = "parts are optimisers: chain(ClipNorm(1.0), ADAM())"
            raise ArgumentError(f"part {i}: expected an optimiser, got {part!r}", hint=hint)
        if engine_of(part).begun:
            hint = "make it anew, or copy its hyperparameters: a chain begins with states of its own"
            raise StateError(
                f"part {i}: expected an optimiser that has not stepped, got {type(part).__name__}, which has", hint=hint
            )
        if isinstance(part, Chain):
            yield from part.parts
        else:
            yield part
