"""The parts of a step that no array library changes.

In: a rule with its variants, and hyperparameters.
Out: the variant for a shape, states of the group as they begin, and gradients after a step that does not count.

The engine of an array library (`optimiser.array_engine` for NumPy, `torch.optimizer` for PyTorch) looks at arrays and
writes them; what it looks for and what it writes stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from .. import interpreter as interp
from ..errors import ArrayError
from ..ir.evaluate import HyperValues, evaluate
from ..ir.expr import GRADIENT, Extent
from ..ir.rule import Rule
from .arrays import Array

__all__ = ["first_group_states", "leave_gradients", "small_shapes", "variant_for"]


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
        message = f"{name} works on matrices, of two or more dimensions, got {what} of shape {shape}"
        raise ArrayError(message, hint=hint)
    return found


def first_group_states(rule: Rule, values: HyperValues) -> dict[str, Array]:
    """The states of all parameters together before the first step, in float64."""
    names = [state.name for state in rule.states if state.extent == Extent.GROUP]
    initial = interp.initial_state(rule, values) if names else {}
    return {name: np.array(initial[name]) for name in names}


def small_shapes(rule: Rule, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of those states of a parameter that have less than a value for each element."""
    return {s.name: interp.shape_of(s.extent, shape, rule.rows) for s in rule.small_states if s.extent > Extent.GROUP}


def leave_gradients(gradients: Iterable[tuple[Rule, Callable[[float], object]]], values: HyperValues) -> None:
    """Writes gradients after a step that does not count: a rule may leave a value in them in any case.

    `gradients` has for each one the rule that would have stepped it, and the function that fills it with a number.
    """
    for rule, fill in gradients:
        for assign in rule.body:
            if assign.target == GRADIENT:
                fill(float(evaluate(assign.value, values, 0, {})))
