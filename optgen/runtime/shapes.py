"""What a rule makes of the shape of a parameter: which variant steps it, and which states it has.

In: a rule, and a shape. Out: the position of a variant, the shapes of small states, the size of a block, the first
states of the group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import numpy as np

from .. import interpreter as interp
from ..errors import ArrayError, HyperparameterError
from ..ir.evaluate import HyperValues, block_size
from ..ir.expr import Extent, Scalar, walk
from ..ir.rule import Rule, State
from .arrays import Array

__all__ = [
    "BlockOf",
    "block_of",
    "first_group_states",
    "hypers_of_blocks",
    "small_shapes",
    "state_shape",
    "variant_for",
]


#: How many elements a block of a parameter has, by its shape; 0 if there are none.
BlockOf: TypeAlias = Callable[[tuple[int, ...]], int]


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


def block_of(rule: Rule, values: HyperValues, shape: tuple[int, ...]) -> int:
    """How many elements a block of a parameter of this shape has; 0 if the rule has none. HyperparameterError if these
    hyperparameters give no such number."""
    size = block_size(rule, values, shape)
    if rule.block is not None and not (size >= 1 and size == math.floor(size)):
        from ..notation.text import expression

        message = f"{rule.name}: expected blocks of a whole number of elements, 1 or more, got {size:g}"
        hint = f"it is {expression(rule.block)}, of a parameter of shape {shape}"
        raise HyperparameterError(message, hint=hint)
    return int(size)


def small_shapes(rule: Rule, values: HyperValues, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of those states of a parameter that have less than a value for each element."""
    small = (state for state in rule.small_states if state.extent > Extent.GROUP)
    return {state.name: state_shape(rule, state, values, shape) for state in small}


def state_shape(rule: Rule, state: State, values: HyperValues, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a state of a parameter of this shape."""
    block = block_of(rule, values, shape) if state.extent == Extent.BLOCK else 0
    return interp.shape_of(state.extent, shape, rule.matrices, block)


def hypers_of_blocks(rules: Iterable[Rule]) -> frozenset[str]:
    """The hyperparameters that say how many elements a block has in one of these variants."""
    sizes = (rule.block for rule in rules if rule.block is not None)
    return frozenset(e.hyper for size in sizes for e in walk(size) if isinstance(e, Scalar))
