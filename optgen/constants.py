"""What a rule computes with and does not change from step to step: whether a compute type can hold it.

In: lowered rules and the values of their hyperparameters. Out: the first constant that is not zero, but would be.
"""

from __future__ import annotations

from collections.abc import Iterable

from .host import Program, Values
from .interp import initial_state
from .ir import Const, Expr, Extent, Rule, extent_of, kernel_scalars, walk

__all__ = ["vanishing"]

#: Of each compute type the largest number that it rounds to zero.
LARGEST_LOST = {"float32": 2.0**-150, "float64": 0.0}


def vanishing(rules: Iterable[Rule], values: Values, dtype: str) -> tuple[Expr, float] | None:
    """A constant of these rules that would be 0 where it meets an element of this type, as a formula and a number."""
    for rule in rules:
        for formula, value in _constants(rule, values).items():
            if 0 < abs(value) <= LARGEST_LOST[dtype]:
                return formula, value
    return None


def _constants(rule: Rule, values: Values) -> dict[Expr, float]:
    """All that meets elements in the compute type and does not change from step to step."""
    met = {e for a in rule.body if extent_of(a.value) == Extent.ELEMENT for e in walk(a.value)}
    names = {getattr(e, "name", "") for e in met}
    scalars = [a for a in kernel_scalars(rule) if extent_of(a.value) == Extent.CONSTANT and a.target in names]
    known = Program(rule.scalars, [a.target for a in scalars]).run(values, 1)
    initial = initial_state(rule, values)
    starts = [s for s in rule.states if s.extent == Extent.ELEMENT and isinstance(initial[s.name], float)]
    return {
        **{e: e.value for e in met if isinstance(e, Const)},
        **{state.init: initial[state.name] for state in starts},
        **{a.value: value for a, value in zip(scalars, known, strict=True)},
    }
