"""The hyperparameters and flags of an optimiser: given once in any spelling, then attributes that are checked.

In: what a constructor was called with. Out: an object whose attributes are the hyperparameters, and the variant of the
rule that its flags choose. What steps and keeps state is `optimiser`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, ClassVar

from ..compiler.driver import Compilation
from ..errors import ArgumentError, HyperparameterError
from ..ir.evaluate import Always, Steps, evaluate
from ..ir.expr import Expr
from ..ir.rule import Rule
from ..names import canonical
from ..notation.text import expression
from .hyperparameters import Given, Spellings, checked, number, resolved, suggestion

__all__ = ["Configured", "expect_backend"]

BACKENDS = ("kernel", "interpreter")


class Configured:
    """Base of `Optimiser`. Attributes of its own begin with an underscore, and are set through `__dict__`."""

    _compilation: ClassVar[Compilation]
    _spellings: ClassVar[Spellings]

    _values: MutableMapping[str, tuple[Given, ...]]
    _always: Steps
    _scheduled: bool  # whether a value is a function of the step
    _flags: dict[str, bool]
    _backend: str
    _variants: dict[bool, int]  # by whether a parameter is a matrix
    _decided: Mapping[str, Expr]  # the conditions of the flags that hyperparameters decided
    _held: set[str]  # the dtypes that are known to hold every constant of the rule

    def _begin(self, values: Mapping[str, Any], flags: Mapping[str, Any], backend: str) -> None:
        """What the constructors of generated classes do: all hyperparameters and flags as given, to be checked."""
        expect_backend(backend)
        given = {name: checked(self._spellings[name][0], v) for name, v in values.items()}
        chosen = {}
        for flag in self._compilation.rules[0].flags:
            value = flags[flag.name]
            if value is None and flag.when is not None:
                value = self._decide(flag.when, given)
            if not isinstance(value, bool):
                raise ArgumentError(f"the flag {flag.name}: True or False was expected, got {value!r}")
            chosen[flag.name] = value
        # Those that hyperparameters decided, since another value of these may want another variant.
        decided = {f.name: f.when for f in self._compilation.rules[0].flags if f.when and flags[f.name] is None}
        self._start(given, chosen, backend, decided)

    def _decide(self, when: Expr, given: Mapping[str, tuple[Given, ...]]) -> bool:
        return bool(evaluate(when, resolved(self._compilation.rules[0].hypers, given, 1), 0, {}))

    def _start(
        self,
        values: MutableMapping[str, tuple[Given, ...]],
        flags: dict[str, bool],
        backend: str,
        decided: Mapping[str, Expr],
    ) -> None:
        """Begins with what has been checked."""
        # Not by attribute: those are hyperparameters.
        self.__dict__.update(
            _values=values,
            _always=Always(values),  # type: ignore[arg-type]  # to be asked while none is a function
            _scheduled=any(map(callable, sum(values.values(), ()))),
            _flags=flags,
            _decided=decided,
            _backend=backend,
            _variants=self._compilation.variants(flags),
            _held=set(),
        )

    @property
    def rule(self) -> Rule:
        """The checked rule, in the variant of this optimiser's flags; that for matrices, if there are two."""
        return self._compilation.rules[next(iter(self._variants.values()))]

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
        raise AttributeError(f"{type(self).__name__} has no {name!r}{self._suggestion(name, self._names())}")

    def _suggestion(self, name: str, names: Sequence[str]) -> str:
        return suggestion(name, names)

    def __setattr__(self, name: str, value: Any) -> None:
        hyper, index = self._spellings.get(canonical(name), (None, None))
        if hyper is None:
            if canonical(name) in self._flags:
                raise ArgumentError(f"the flag {name!r} is chosen when the optimiser is made")
            meant = self._suggestion(name, list(self._values))
            raise ArgumentError(f"{type(self).__name__} has no hyperparameter {name!r}{meant}")
        if index is None:
            values = checked(hyper, value)
        else:
            before = list(self._values[hyper.name])
            before[index] = number(hyper, value, index)
            values = tuple(before)
        self._refuse_other_variant({**self._values, hyper.name: values})
        self._values[hyper.name] = values
        self._changed()

    def _changed(self) -> None:
        """Something else than before is among the hyperparameters."""
        self.__dict__["_scheduled"] = any(map(callable, sum(self._values.values(), ())))
        self._held.clear()

    def _refuse_other_variant(self, values: Mapping[str, tuple[Given, ...]]) -> None:
        """HyperparameterError if these values would have decided another way about a flag."""
        for name, when in self._decided.items():
            chosen = self._flags[name]
            if self._decide(when, values) is not chosen:
                since = f"since {expression(when)}" if chosen else f"since not {expression(when)}"
                message = f"{type(self).__name__} was made with {name}={chosen}, {since}"
                hint = f"make a new one, or choose when it is made: {name}={not chosen}"
                raise HyperparameterError(f"{message}; these values need the other variant", hint=hint)

    def _value(self, name: str) -> Any:
        """A hyperparameter as callers see it: one value, or a tuple."""
        values = self._values[name]
        return values if self._spellings[name][0].vector else values[0]

    def _names(self) -> list[str]:
        return [*self._values, *self._flags]

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self._names()]

    def __repr__(self) -> str:
        # Not getattr: a chain may have the name twice.
        arguments = [f"{name}={self._value(name)!r}" for name in self._values]
        for flag in self.rule.flags:
            usual = flag.default if flag.when is None else self._decide(flag.when, self._values)
            arguments += [f"{flag.name}={flag.value}"] * (flag.value is not usual)
        arguments += [f"backend={self._backend!r}"] if self._backend != BACKENDS[0] else []
        return f"{type(self).__name__}({', '.join(arguments)})"


def expect_backend(backend: object) -> None:
    """ArgumentError unless there is such a backend."""
    if backend not in BACKENDS:
        raise ArgumentError(f"backend: one of {', '.join(BACKENDS)} was expected, got {backend!r}")
