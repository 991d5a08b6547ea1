"""What a split of arrays is given: parameters by name, optimisers for its lines, gradients in the order of parameters.

In: what a caller gave. Out: the same as plain dicts and lists, or an error that says what was expected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArrayError, StateError, shown
from ..runtime.phases import expect_one_phase
from .array_engine import ArrayEngine
from .base import Optimiser, engine_of
from .division import SplitLine, listed_names
from .inputs import kind_of

__all__ = ["array_engine", "in_order", "listed_values", "optimiser_of"]


def optimiser_of(line: SplitLine) -> Optimiser:
    """A copy of the optimiser that a line was given."""
    given = line.rule
    if isinstance(given, type) and issubclass(given, Optimiser):
        message = f"split: {line.name}: expected an optimiser, got the class"
        raise ArgumentError(message, hint=f"make one: {line.name}={given.__name__}()")
    if not isinstance(given, Optimiser) or not isinstance(engine_of(given), ArrayEngine):
        raise ArgumentError(f"split: {line.name}: expected an optimiser, got {shown(given)}", hint="such as ADAM(1e-3)")
    expect_one_phase(f"split: {line.name}", given.rule.name, given.rule.phases)
    if engine_of(given).begun:
        message = (
            f"split: {line.name}: expected an optimiser that has not stepped, got {type(given).__name__}, which has"
        )
        raise StateError(message, hint="make it anew: a split begins with states of its own")
    return copy(given)


def array_engine(opt: Optimiser) -> ArrayEngine:
    engine = engine_of(opt)
    assert isinstance(engine, ArrayEngine)
    return engine


def in_order(given: Any, names: Sequence[str], what: str) -> list[Any]:
    """Something for each parameter, in their order."""
    if isinstance(given, Mapping):
        if given.keys() != set(names):
            got = listed_names(map(str, given))
            raise ArgumentError(f"expected {what} of {listed_names(names)}, got those of {got}")
        return [given[name] for name in names]
    return listed_values(given, what, len(names))


def listed_values(given: Any, what: str, count: int | None = None) -> list[Any]:
    if isinstance(given, np.ndarray) or not isinstance(given, Iterable):
        hint = "opt.step({'W': W}, {'W': g}), or opt.step([W], [g])"
        raise ArrayError(f"expected a sequence or mapping of {what}, got {kind_of(given)}", hint=hint)
    values = list(given)
    if count is not None and len(values) != count:
        raise ArrayError(f"expected {what} of {count} parameters, got {len(values)}")
    return values
