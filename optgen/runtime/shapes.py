"""What a rule makes of the shape of a parameter: which variant steps it, and which states it has.

In: a rule, and a shape. Out: the position of a variant, the shapes of small states, the first states of the group.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .. import interpreter as interp
from ..errors import ArrayError
from ..ir.evaluate import HyperValues
from ..ir.expr import Extent
from ..ir.rule import Rule
from .arrays import Array

__all__ = ["first_group_states", "small_shapes", "variant_for"]


def variant_for(
    variants: Mapping[bool, int], shape: tuple[int, ...], name: str, *, what: str = "a parameter", hint: str
) -> int:
    """The position of the variant that steps a parameter of this shape.

    Parameters
    ----------
    variants
        Positions by whether a parameter is a matrix.
    name, what, hint
        The rule, the parameter, and what to do instead, for the ArrayError where the rule has no such variant.
    """
    found = variants.get(len(shape) >= 2)
    if found is None:
        message = f"{name}: expected a matrix, of two or more dimensions, got {what} of shape {shape}"
        raise ArrayError(message, hint=hint)
    return found


def first_group_states(rule: Rule, values: HyperValues) -> dict[str, Array]:
    """The states of all parameters together before the first step, in float64."""
    names = [state.name for state in rule.states if state.extent == Extent.GROUP]
    initial = interp.initial_state(rule, values) if names else {}
    return {name: np.array(initial[name]) for name in names}


def small_shapes(rule: Rule, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of those states of a parameter that have less than a value for each element."""
    small = (state for state in rule.small_states if state.extent > Extent.GROUP)
    return {state.name: interp.shape_of(state.extent, shape, rule.matrices) for state in small}
