"""The rule of an optimiser as a pure function: `ADAM.function("jax")`, `chain(...).function("torch")`.

In: a class of optimisers, or an optimiser with its hyperparameters and flags. Out: a `RuleFunction`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError
from ..ir.rule import Rule
from ..names import canonical
from .hyperparameters import checked
from .settings import Settings

if TYPE_CHECKING:
    from ..functional import RuleFunction

__all__ = ["FunctionOf"]


class FunctionOf:
    """The method `function` of optimisers, and of their classes: there it is that of an optimiser without arguments."""

    def __get__(self, instance: Any, owner: Any) -> Callable[[str], RuleFunction]:
        def function(library: str) -> RuleFunction:
            """The rule as a pure function of arrays of a library: "numpy", "torch" or "jax".

            Hyperparameters and flags are those of the optimiser; of a class, the defaults. What a step is given beside
            them may be traced. Raises ArgumentError for another library, and for hyperparameters that are schedules;
            OptgenError if the library is not installed.

            >>> import numpy as np
            >>> from optgen import ADAM
            >>> adam = ADAM.function("numpy")
            >>> params = {"w": np.zeros(3)}
            >>> state = adam.init(params)
            >>> params, state = adam(params, {"w": np.ones(3)}, state, 1, {"eta": 0.1})
            >>> params["w"].round(6)
            array([-0.1, -0.1, -0.1])
            """
            from .base import settings_of  # which has this as a method

            return function_of(settings_of(owner() if instance is None else instance), library)

        return function


def function_of(settings: Settings, library: str) -> RuleFunction:
    """The function of the rule of these settings."""
    from ..functional import RuleFunction

    owner, compilation = settings.owner, settings.compilation
    if settings.scheduled:
        names = [name for name, values in settings.values.items() if any(map(callable, values))]
        message = f"{owner}: expected numbers, got a schedule of {', '.join(names)}: a function has no steps to count"
        raise ArgumentError(message, hint="give a number, and the value of each step in its call")

    def rules(shape: tuple[int, ...]) -> Sequence[Rule]:
        return [compilation.rules[i] for i in compilation.in_phases(settings.variant(None, shape))]

    return RuleFunction(library, owner, rules, dict(settings.values), lambda given: _read(settings, given))


def _read(settings: Settings, given: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """The hyperparameters that a step is given: numbers are checked, and arrays are taken as they are."""
    found: dict[str, tuple[Any, ...]] = {}
    for name, value in given.items():
        known = settings.spellings
        hyper, index = known.get(name if name in known else canonical(name), (None, None))
        if hyper is None:
            meant = settings.suggestion(name, list(settings.values))
            raise ArgumentError(f"{settings.owner} has no hyperparameter {name!r}{meant}")
        if hyper.name in settings.sizing:
            message = f"{settings.owner}: {hyper.name} is chosen when the optimiser is made"
            raise ArgumentError(message, hint=f"make one: {settings.owner}({hyper.name}=...).function(...)")
        own = list(found.get(hyper.name, settings.values[hyper.name]))
        if index is not None:
            own[index] = value
        elif hyper.vector:
            own = list(value)
        else:
            own = [value]
        numbers = all(isinstance(each, int | float) for each in own)
        found[hyper.name] = checked(hyper, own if hyper.vector else own[0]) if numbers else tuple(own)
        if len(own) != len(settings.values[hyper.name]):
            count = len(settings.values[hyper.name])
            raise ArgumentError(f"{settings.owner}: {hyper.name}: expected {count} values, got {len(own)}")
    return found
