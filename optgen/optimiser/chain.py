"""Chains: several optimisers as one. `chain(ClipNorm(1.0), WeightDecay(1e-4), ADAM())` is one rule and one kernel.

In: optimisers that have not stepped. Out: an optimiser over the rule that `compose` makes of their rules; its parts
keep their hyperparameters, and are addressed by their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NoReturn, overload

from ..compiler.driver import Compilation
from ..errors import ArgumentError, StateError
from ..ir.compose import compose
from ..ir.expr import Extent, reduces
from ..ir.rule import Rule
from ..ir.verify import verify
from ..language.check import MOST_REDUCTIONS
from ..names import canonical
from .base import Optimiser, loaded
from .hyperparameters import Given, spellings
from .settings import expect_backend

__all__ = ["Chain", "Optimiser", "chain"]


def chain(*parts: Optimiser, backend: str = "kernel") -> Chain:
    """One optimiser that runs `parts` one behind the other: what a part gives is the next part's gradient.

    The last part's step is subtracted from the parameter. Everything is one rule and one kernel, which goes over memory
    as often as the formulas need and no more. The chain takes copies of the parts; a chain among them becomes its
    parts. `opt[0].eta`, or `opt.eta` if one part only has the name, is read and set while running. A state has the name
    that it has in its part; where several parts have one of that name, with the part's in front: `adam_v`, or
    `ema1_avg` and `ema2_avg` of two of a kind.

    Raises ArgumentError for what is no optimiser, and for parts that do not fit, StateError for one that has stepped.
    """
    return Chain(*parts, backend=backend)


class Chain(Optimiser):
    """What `chain` makes, and `Optimiser(a, b, c)`."""

    _parts: tuple[Optimiser, ...]
    _named: tuple[Mapping[str, str], ...]  # for each part, what its hyperparameters are called in the chain

    def __init__(self, *parts: Optimiser, backend: str = "kernel") -> None:
        expect_backend(backend)
        flat = list(_flat(parts))
        if not flat:
            raise ArgumentError("a chain needs at least one part, got none", hint="chain(ClipNorm(1.0), ADAM())")
        _refuse_misfits(flat)
        self._link([part._twin() for part in flat], backend)

    def _link(self, parts: Sequence[Optimiser], backend: str) -> None:
        """Becomes the chain of these parts, which are its own."""
        compilation, names = _compiled(parts)
        values = _Values([(part._values, mine) for part, mine in zip(parts, names, strict=True)])
        self.__dict__.update(
            _parts=tuple(parts),
            _compilation=compilation,
            _module=None,
            _named=names,
            _spellings=spellings(compilation.rules[0].hypers),
        )
        self._start(values, {}, backend, {})
        # For checkpoints; they are chosen, and the rule of the chain has none.
        self.__dict__["_flags"] = {
            f"{name} of part {i}": value for i, part in enumerate(parts) for name, value in part._flags.items()
        }
        for i, part in enumerate(parts):
            part.__dict__["_held"] = self._held  # what is set there is a change here
            part.__dict__.update(dict.fromkeys(_OF_THE_WHOLE, _Part(i)))

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
        backend = [] if self._backend == "kernel" else [f"backend={self._backend!r}"]
        return f"chain({', '.join([*map(repr, self._parts), *backend])})"

    # ---- Hyperparameters, which stay with the parts ----

    @property
    def _scheduled(self) -> bool:  # type: ignore[override]
        return any(part._scheduled for part in self._parts)

    def _changed(self) -> None:
        for part in self._parts:
            part._changed()

    def _refuse_other_variant(self, values: Mapping[str, tuple[Given, ...]]) -> None:
        for part, names in zip(self._parts, self._named, strict=True):
            part._refuse_other_variant({own: values[name] for own, name in names.items()})

    def _suggestion(self, name: str, names: Sequence[str]) -> str:
        """Where to find a name that several parts have."""
        stem = canonical(name)
        having = [i for i, part in enumerate(self._parts) if stem in part._spellings]
        if not having:
            return super()._suggestion(name, names)
        places = " or ".join(f"opt[{i}].{name} ({type(self._parts[i]).__name__})" for i in having)
        return f" of its own: several parts have it; write {places}"

    # ---- Copies ----

    def _twin(self) -> Chain:
        twin: Chain = object.__new__(Chain)
        twin._link([part._twin() for part in self._parts], self._backend)
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unpickled, (tuple(part._twin() for part in self._parts), self._backend, self.state_dict()))


Optimiser._chain = Chain

#: What a part leaves to the chain.
_OF_THE_WHOLE = ("step", "state", "state_dict", "load_state_dict")


class _Part:
    """In the place of a method of a part that is the chain's business."""

    def __init__(self, place: int) -> None:
        self._place = place

    def __call__(self, *arguments: Any, **keywords: Any) -> NoReturn:
        message = f"part {self._place} of a chain has hyperparameters, and no steps and states of its own"
        raise ArgumentError(message, hint="call the chain itself: opt.step(params, grads), opt.state(p)")


def _unpickled(parts: Sequence[Optimiser], backend: str, saved: dict[str, Any]) -> Optimiser:
    made: Chain = object.__new__(Chain)
    made._link(parts, backend)
    return loaded(made, saved)


def _flat(parts: Sequence[Any]) -> Iterator[Optimiser]:
    for i, part in enumerate(parts):
        if isinstance(part, type) and issubclass(part, Optimiser):
            hint = f"make one: {part.__name__}()"
            raise ArgumentError(f"part {i}: an optimiser was expected, got the class", hint=hint)
        if not isinstance(part, Optimiser):
            hint = "parts are optimisers: chain(ClipNorm(1.0), ADAM())"
            raise ArgumentError(f"part {i}: an optimiser was expected, got {part!r}", hint=hint)
        if len(part._states) or part._states.pending:
            hint = "make it anew, or copy its hyperparameters: a chain begins with states of its own"
            raise StateError(f"part {i}, {type(part).__name__}, has stepped already", hint=hint)
        if isinstance(part, Chain):
            yield from part._parts
        else:
            yield part


def _refuse_misfits(parts: Sequence[Optimiser]) -> None:
    """ArgumentError for parts in an order that means nothing."""
    stepped = False
    for i, part in enumerate(parts):
        kind = part.rule.part
        if kind == "parameter" and not stepped:
            name = type(part).__name__
            message = f"part {i}, {name}, works on the parameter as a rule leaves it, and there is no rule before it"
            raise ArgumentError(message, hint=f"put it behind one: chain(ADAM(), {name}())")
        if kind == "gradient" and i and parts[i - 1].rule.part == "parameter":
            name, before = type(part).__name__, type(parts[i - 1]).__name__
            message = f"part {i}, {name}, works on a gradient or step, and {before} before it gives a parameter"
            raise ArgumentError(message, hint=f"put {name} before {before}")
        stepped = stepped or kind == ""
    rows = {part.rule.rows: type(part).__name__ for part in parts if any(r.tiled for r in _used(part))}
    if len(rows) > 1:
        message = f"{' and '.join(rows.values())} do not fit into one chain: they mean different rows of a parameter"
        raise ArgumentError(message, hint="step them apart")
    held = [i for i, part in enumerate(parts) if any(a.target == "proceed" for a in _open(part, True).body)]
    for i, part in enumerate(parts):
        grouped = [state.name for state in part.rule.states if state.extent == Extent.GROUP]
        if grouped and held and held[0] < i:
            names = type(parts[held[0]]).__name__, type(part).__name__
            message = f"{names[0]} holds back parameters one by one, and {names[1]} has a state of all of them together"
            raise ArgumentError(f"{message} ({', '.join(grouped)})", hint=f"put {names[0]} behind {names[1]}")


def _used(part: Optimiser) -> list[Rule]:
    return [part._compilation.rules[i] for i in set(part._variants.values())]


def _open(part: Optimiser, matrix: bool) -> Rule:
    found = part._variants
    return part._compilation.open[found.get(matrix, next(iter(found.values())))]


def _compiled(parts: Sequence[Optimiser]) -> tuple[Compilation, tuple[Mapping[str, str], ...]]:
    """The rule of the chain, in one variant or two, and what the parts' hyperparameters are called in it."""
    name = "_".join(type(part).__name__ for part in parts)
    shapes = [matrix for matrix in (True, False) if all(matrix in part._variants for part in parts)]
    if not shapes:
        raise ArgumentError(f"{name}: one part works on matrices only, another one on everything else")
    chosen = {matrix: [_open(part, matrix) for part in parts] for matrix in shapes}
    if len(shapes) == 2 and chosen[True] == chosen[False]:
        del chosen[False]
    among = [[rules[i] for rules in chosen.values()] for i in range(len(parts))]
    made = [compose(rules, name, among) for rules in chosen.values()]
    count = max(len(reduces(a.value for a in each.rule.body)) for each in made)
    if count > MOST_REDUCTIONS:
        raise ArgumentError(f"{name}: at most {MOST_REDUCTIONS} reductions were expected in a chain, got {count}")
    return Compilation("", "", "chain", (), tuple(verify(each.rule) for each in made)), made[0].hypers


class _Values(MutableMapping[str, tuple[Given, ...]]):
    """The hyperparameters of all parts under their names in the chain; they stay where the parts have them."""

    def __init__(self, parts: Sequence[tuple[MutableMapping[str, tuple[Given, ...]], Mapping[str, str]]]) -> None:
        self._places = {new: (values, old) for values, names in parts for old, new in names.items()}

    def __getitem__(self, name: str) -> tuple[Given, ...]:
        values, own = self._places[name]
        return values[own]

    def __setitem__(self, name: str, value: tuple[Given, ...]) -> None:
        values, own = self._places[name]
        values[own] = value

    def __delitem__(self, name: str) -> None:
        raise TypeError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
