"""The hyperparameters and flags of one optimiser, checked when they are given and whenever they change.

In: what a constructor was called with, in any spelling.
Out: a `Settings`, held by an optimiser and its engine: values, flags, and the variants of the rule that these choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import chain
from types import MappingProxyType
from typing import Any

from ..compiler.driver import Compilation
from ..errors import ArgumentError, HyperparameterError, shown
from ..ir.draws import SEED
from ..ir.evaluate import Always, HyperValues, ValuesByCount, evaluate
from ..ir.expr import Expr
from ..ir.rule import Rounding, Rule, Storages
from ..names import canonical
from ..runtime.array_library import ParameterSlot
from ..runtime.programs import has_programs
from ..runtime.shapes import block_of, chosen_once, own_shapes, variant_for
from ..runtime.slots import Shapes
from ..runtime.underflow import refuse_vanishing
from .hyperparameters import Given, Spellings, checked, number, other_lengths, plain, resolved, spellings, suggestion
from .state_storages import chosen_rounding, chosen_storages, rounding_argument, storage_argument

__all__ = ["Settings", "check_settings", "expect_backend", "of_lengths"]

BACKENDS = ("kernel", "interpreter")


class Settings:
    """What one optimiser was told.

    Parameters
    ----------
    owner
        What messages call the optimiser.
    compilation
        The rule, in all its variants.
    spellings
        Every name under which a hyperparameter is known.
    values
        The numbers and schedules of each hyperparameter, checked.
    flags
        The choice made for each flag.
    decided
        The conditions of those flags that hyperparameters decided.
    backend
        Either "kernel" or "interpreter".
    storages
        The states that are kept in another type than the compute type, each with its storage.
    rounding
        The arrays that are rounded stochastically, each with the hyperparameter that is its seed.

    Attributes
    ----------
    variants
        Positions in `compilation.rules`, by what a parameter is.
    sizing
        The hyperparameters that are chosen when the optimiser is made: they say how large blocks and states are, and
        how many turns loops have.
    scheduled
        Whether a value is a function of the step.
    """

    def __init__(
        self,
        owner: str,
        compilation: Compilation,
        spellings: Spellings,
        values: Mapping[str, tuple[Given, ...]],
        flags: dict[str, bool],
        decided: Mapping[str, Expr],
        backend: str,
        storages: Mapping[str, str] = MappingProxyType({}),
        rounding: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        if rounding:
            compilation, spellings = rounded(compilation)
        self.owner = owner
        self.compilation = compilation
        self.spellings = spellings
        self.values = values
        self.flags = _usual(compilation) | flags  # a pickle may be older than a flag
        self.decided = decided
        self.backend = backend
        self.chosen_storages, self.chosen_rounding = storages, rounding
        self.variants = compilation.variants(flags)
        self._rules = _in_all_phases(compilation, self.variants.values())
        self.sizing = chosen_once(self._rules)
        self._fixed: Sequence[ValuesByCount] | None
        self._read()
        self._holding: set[str] = set()  # dtypes that were found to hold every constant of the rule

    # ---- What is chosen ----

    @property
    def rule(self) -> Rule:
        """The rule in the variant of these flags; that for matrices, if there are two."""
        return self.compilation.rules[next(iter(self.variants.values()))]

    @property
    def scheduled(self) -> bool:
        return self._fixed is None

    def names(self) -> list[str]:
        """All hyperparameters and flags."""
        return [*self.values, *self.flags]

    def saved_flags(self) -> dict[str, bool]:
        """The flags as a state dict has them."""
        return dict(self.flags)

    def usual_flags(self) -> dict[str, bool]:
        """What those flags are by default that a state dict may be older than."""
        return _usual(self.compilation)

    def suggestion(self, name: str, names: Sequence[str]) -> str:
        """The end of a message about the unknown `name`."""
        return suggestion(name, names)

    def arguments(self) -> list[str]:
        """The arguments of a constructor that gives the same settings, as source text."""
        whole = {each.name for each in self.rule.hypers if not each.vector and each.ranges[0].whole}
        given = [f"{name}={(plain if name in whole else repr)(self.value(name))}" for name in self.values]
        for flag in self.rule.flags:
            usual = flag.default if flag.when is None else _decide(self.compilation, flag.when, self.values)
            given += [f"{flag.name}={flag.value}"] * (flag.value is not usual)
        return [*given, *self.backend_argument(), *self._storage_arguments()]

    def _storage_arguments(self) -> list[str]:
        of = self._rules, self.chosen_storages
        return [*storage_argument(*of), *rounding_argument(*of, self.chosen_rounding)]

    def backend_argument(self) -> list[str]:
        return [f"backend={self.backend!r}"] if self.backend != BACKENDS[0] else []

    def rule_of(self, shape: tuple[int, ...]) -> Rule:
        """The rule in the variant for a parameter of this shape; ArrayError if there is none."""
        return self.compilation.rules[self.variant(None, shape)]

    def own_shapes(self, shape: tuple[int, ...]) -> Shapes:
        """The shapes of those states of a parameter of this shape that have less than a value for each element."""
        return own_shapes(self.rule_of(shape), self._sizes, shape)

    def block(self, place: int, rule: Rule, shape: tuple[int, ...]) -> int:
        return block_of(rule, self._sizes, shape)

    @property
    def _sizes(self) -> HyperValues:
        """The values of those hyperparameters that are chosen once, which are no schedules."""
        return {name: self.values[name] for name in self.sizing}  # type: ignore[misc]

    # ---- Values ----

    def value(self, name: str) -> Any:
        """A hyperparameter as callers see it: one value, or a tuple."""
        values = self.values[name]
        return values if self.spellings[name][0].vector else values[0]

    def get(self, name: str) -> Any:
        """A hyperparameter or flag in any spelling. AttributeError if there is none of that name."""
        stem = canonical(name)
        hyper, index = self.spellings.get(stem, (None, None))
        if hyper is not None:
            return self.value(hyper.name) if index is None else self.values[hyper.name][index]
        if stem in self.flags:
            return self.flags[stem]
        raise AttributeError(f"{self.owner} has no {name!r}{self.suggestion(name, self.names())}")

    def set(self, name: str, value: Any) -> None:
        """Sets a hyperparameter in any spelling; raises as `Optimiser` says, and then nothing has changed."""
        hyper, index = self.spellings.get(canonical(name), (None, None))
        if hyper is None:
            if canonical(name) in self.flags:
                raise ArgumentError(f"the flag {name!r} is chosen when the optimiser is made")
            meant = self.suggestion(name, list(self.values))
            raise ArgumentError(f"{self.owner} has no hyperparameter {name!r}{meant}")
        if index is None:
            values = checked(hyper, value)
        else:
            before = list(self.values[hyper.name])
            before[index] = number(hyper, value, index)
            values = tuple(before)
        self.refuse_other_variant({**self.values, hyper.name: values})
        self.replace({hyper.name: values})

    def replace(self, values: Mapping[str, tuple[Given, ...]]) -> None:
        """Takes over values that have been checked."""
        self.values = {**self.values, **values}
        self._read()
        self.forget_dtypes()

    def _read(self) -> None:
        scheduled = any(map(callable, chain.from_iterable(self.values.values())))
        self._fixed = None if scheduled else (Always(self.values),)  # type: ignore[arg-type]  # now all are numbers

    def refuse_other_variant(self, values: Mapping[str, tuple[Given, ...]]) -> None:
        """HyperparameterError if these values would have decided another way about a flag, or are others of those that
        are chosen once."""
        for name in sorted(self.sizing):
            if values[name] != self.values[name]:
                own, other = (", ".join(map(plain, each[name])) for each in (self.values, values))
                message = f"{self.owner} was made with {name}={own}, which is chosen when it is made; got {other}"
                raise HyperparameterError(message, hint="make a new one")
        for name, when in self.decided.items():
            chosen = self.flags[name]
            if _decide(self.compilation, when, values) is not chosen:
                from ..notation.text import expression

                since = f"since {expression(when)}" if chosen else f"since not {expression(when)}"
                message = f"{self.owner} was made with {name}={chosen}, {since}"
                hint = f"make a new one, or choose when it is made: {name}={not chosen}"
                raise HyperparameterError(f"{message}; these values need the other variant", hint=hint)

    # ---- Steps ----

    # What the step engine asks of hyperparameters. All parameters go by one set.

    @property
    def fixed(self) -> Sequence[ValuesByCount] | None:
        """The one set of values for any step; None while a value is a function of the step."""
        return self._fixed

    def sets_at(self, slots: Sequence[ParameterSlot | None], ahead: int = 1) -> Sequence[ValuesByCount]:
        """The one set of values for parameters with these states; schedules are called, and their results checked."""
        fixed = self.fixed
        if fixed is not None:
            return fixed
        self.forget_dtypes()  # every step has values of its own
        steps = self.values_at(slots, ahead)
        for values in steps.values():
            self.refuse_other_variant(values)
        return (steps,)

    def values_at(self, slots: Sequence[ParameterSlot | None], ahead: int) -> dict[int, HyperValues]:
        """The values of all hyperparameters by the count of an update."""
        hypers = self.compilation.rules[0].hypers
        counts = {slot.t if slot else 0 for slot in slots} or {0}
        return {t + ahead: resolved(hypers, self.values, t + ahead) for t in sorted(counts)}

    def number(self, place: int, dtype: str) -> int:
        return 0

    def storages(self, place: int, rule: Rule) -> Storages:
        chosen = self.chosen_storages
        return tuple((name, chosen[name]) for name in rule.element_states if name in chosen) if chosen else ()

    def rounding(self, place: int, rule: Rule) -> Rounding:
        chosen = self.chosen_rounding
        return tuple((name, chosen[name]) for name in rule.arrays if name in chosen) if chosen else ()

    @property
    def multiplies(self) -> bool:
        """Whether a step has products of whole matrices, which no kernel computes."""
        return any(rule.multiplies for rule in self._rules)

    @property
    def has_programs(self) -> bool:
        """Whether programs do all that has such products."""
        return all(has_programs(rule) for rule in self._rules if rule.multiplies)

    def variant(self, place: int | None, shape: tuple[int, ...]) -> int:
        """The position in `compilation.rules` of the variant for a parameter of this shape. `place`: where it stands
        among several, for messages; None if they name it otherwise."""
        if self.rule.part == "parameter":
            message = f"{self.rule.name} works on the parameter as a rule leaves it, and is none by itself"
            raise ArgumentError(message, hint=f"put it behind one: chain(ADAM(), {self.rule.name}())")
        what = "a parameter" if place is None else self.what(place)
        hint = "step it with another rule, both as one optimiser: optgen.split(...)"
        return variant_for(self.variants, shape, self.rule.matrices, self.rule.name, what=what, hint=hint)

    def what(self, place: int) -> str:
        return f"parameter {place}"

    def known_to_fit(self, dtypes: Set[str]) -> bool:
        """Whether `refuse_vanishing` has accepted these dtypes since the last change."""
        return self._holding.issuperset(dtypes)

    def accept_dtypes(self, dtypes: Set[str]) -> None:
        """Notes that every constant of the rule is representable in these dtypes."""
        self._holding.update(dtypes)

    def forget_dtypes(self) -> None:
        self._holding.clear()

    def refuse_vanishing(self, dtypes: Set[str], sets: Sequence[ValuesByCount]) -> None:
        """HyperparameterError if a constant of the rule is not zero, but would be in one of these dtypes."""
        new = {dtype for dtype in dtypes if not self.known_to_fit({dtype})}
        if new:
            refuse_vanishing(self.owner, self.compilation, self.variants.values(), sets[0].values(), new)
            self.accept_dtypes(new)


def check_settings(
    owner: str,
    compilation: Compilation,
    known: Spellings,
    values: Mapping[str, Any],
    flags: Mapping[str, Any],
    backend: str,
    storage: object = None,
    rounding: object = None,
    seed: object = None,
) -> Settings:
    """Settings from the arguments of a constructor.

    `known` has every name of a hyperparameter, `values` all of them as given, `flags` all flags: True, False, or None
    for one that the hyperparameters decide. Raises HyperparameterError or ArgumentError for what is not allowed.
    """
    expect_backend(backend)
    compilation, known = of_lengths(compilation, known, values)
    given = {name: checked(known[name][0], value) for name, value in values.items()}
    chosen = {}
    for flag in compilation.rules[0].flags:
        value = flags[flag.name]
        if value is None and flag.when is not None:
            value = _decide(compilation, flag.when, given)
        if not isinstance(value, bool):
            raise ArgumentError(f"the flag {flag.name}: expected True or False, got {value!r}")
        chosen[flag.name] = value
    for name in sorted(chosen_once(compilation.rules)):
        if any(map(callable, given[name])):
            message = f"{name}: expected a number, got a schedule: it is chosen when an optimiser is made"
            raise ArgumentError(message, hint="schedule another hyperparameter")
    storages: Mapping[str, str] = {}
    stochastic: Mapping[str, str] = {}
    if storage is not None or rounding is not None:
        own = _in_all_phases(compilation, compilation.variants(chosen).values())
        storages = chosen_storages(owner, own, storage)
        stochastic = dict.fromkeys(chosen_rounding(owner, own, storages, rounding), SEED.name)
    if stochastic and SEED.name not in given:
        given |= {SEED.name: checked(SEED, 0 if seed is None else seed)}
    elif seed is not None:
        message = f"seed: expected none, since nothing of {owner} is rounded stochastically, got {shown(seed)}"
        raise ArgumentError(message, hint="leave it out")
    # Kept, since other values of these hyperparameters may need the other variant.
    decided = {f.name: f.when for f in compilation.rules[0].flags if f.when and flags[f.name] is None}
    return Settings(owner, compilation, known, given, chosen, decided, backend, storages, stochastic)


def _in_all_phases(compilation: Compilation, variants: Iterable[int]) -> list[Rule]:
    """These variants of the rule, in each phase."""
    return [compilation.rules[i] for variant in variants for i in compilation.in_phases(variant)]


def rounded(compilation: Compilation) -> tuple[Compilation, Spellings]:
    """The rule with a seed, and the names of its hyperparameters."""
    made = compilation.rounded
    return made, spellings(made.rules[0].hypers)


def of_lengths(compilation: Compilation, known: Spellings, values: Mapping[str, Any]) -> tuple[Compilation, Spellings]:
    """The rule, and the names of its hyperparameters, where these have as many values as are given."""
    lengths = other_lengths(compilation.rules[0], values)
    made = compilation.of_lengths(lengths)
    return made, spellings(made.rules[0].hypers) if lengths else known


def _usual(compilation: Compilation) -> dict[str, bool]:
    return {flag.name: flag.default for flag in compilation.rules[0].flags}


def _decide(compilation: Compilation, when: Expr, given: Mapping[str, tuple[Given, ...]]) -> bool:
    return bool(evaluate(when, resolved(compilation.rules[0].hypers, given, 1), 0, {}))


def expect_backend(backend: object) -> None:
    """ArgumentError unless there is such a backend."""
    if backend not in BACKENDS:
        raise ArgumentError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
