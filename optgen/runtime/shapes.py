"""What a rule makes of the shape of a parameter: which variant steps it, and which states it has.

In: a rule, and a shape. Out: the position of a variant, the shapes of small states, the size of a block, the first
states of the group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import TypeAlias

import numpy as np

from .. import interpreter as interp
from ..errors import ArrayError, HyperparameterError
from ..frozen import frozen
from ..ir.evaluate import HyperValues, block_size
from ..ir.expr import Extent, Matrices, Product, Scalar, walk
from ..ir.extents import Dims
from ..ir.rule import Aspect, Rule, State
from .arrays import Array

__all__ = [
    "BlockOf",
    "OwnShape",
    "aspect_of",
    "block_of",
    "chosen_once",
    "first_group_states",
    "own_shapes",
    "refuse_sides",
    "state_shape",
    "variant_for",
]


@frozen
class OwnShape:
    """The shape of a state that is not like its parameter; `small`: it has less than a value for each element, and they
    are float64. Others are of the compute type."""

    shape: tuple[int, ...]
    small: bool

    def dtype(self, compute: str) -> str:
        return "float64" if self.small else compute


#: How many elements a block of a parameter has, by its shape; 0 if there are none.
BlockOf: TypeAlias = Callable[[tuple[int, ...]], int]


def variant_for(
    variants: Mapping[Aspect, int],
    shape: tuple[int, ...],
    matrices: Matrices,
    name: str,
    *,
    what: str = "a parameter",
    hint: str,
) -> int:
    """The position of the variant that steps a parameter of this shape.

    Parameters
    ----------
    variants
        Positions by what a parameter is.
    matrices
        How a parameter of more than two dimensions is seen as matrices.
    name, what, hint
        The rule, the parameter, and what to do instead, for the ArrayError where the rule has no such variant.
    """
    found = variants.get(aspect_of(shape, matrices))
    if found is None:
        message = f"{name}: expected a matrix, of two or more dimensions, got {what}, of shape {shape}"
        raise ArrayError(message, hint=hint)
    return found


def aspect_of(shape: tuple[int, ...], matrices: Matrices) -> Aspect:
    """What a parameter of this shape is to rules."""
    if len(shape) < 2:
        return Aspect.VECTOR
    _, rows, columns = interp.as_matrices(shape, matrices)
    return Aspect.TALL if rows > columns else Aspect.WIDE if rows < columns else Aspect.SQUARE


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


def own_shapes(rule: Rule, values: HyperValues, shape: tuple[int, ...]) -> dict[str, OwnShape]:
    """The shapes of those states of a parameter that are not like it."""
    small = [state for state in rule.small_states if state.extent > Extent.GROUP]
    found = {state.name: OwnShape(state_shape(rule, state, values, shape), small=True) for state in small}
    for state in rule.matrix_states:
        found[state.name] = OwnShape(state_shape(rule, state, values, shape), small=False)
    return found


def state_shape(rule: Rule, state: State, values: HyperValues, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a state of a parameter of this shape."""
    if state.dims is not None and state.extent == Extent.ELEMENT:
        return _matrix_shape(rule, state.dims, values, shape)
    block = block_of(rule, values, shape) if state.extent == Extent.BLOCK else 0
    return interp.shape_of(state.extent, shape, rule.matrices, block)


def refuse_sides(rule: Rule, values: HyperValues, shape: tuple[int, ...], what: str) -> None:
    """HyperparameterError if a length of the rule is more than this shape allows; ArrayError if the sides of a matrix
    are not those that a function needs. `what`: what the parameter is called."""
    sides = interp.side_lengths(rule, values, shape)
    of = f"{what}, a matrix of {sides['row']} by {sides['column']}"
    for each in rule.dimensions:
        if each.most and sides[each.name] > sides[each.most]:
            most = f"{sides[each.most]}, the {each.most}s of {of}"
            message = f"{rule.name}: expected {each.hyper} to be at most {most}, got {sides[each.name]}"
            raise HyperparameterError(message, hint="give it less, or step this parameter with another rule")
    for name, dims in _narrow(rule):
        if sides[dims.columns] > sides[dims.rows]:
            got = f"{sides[dims.rows]} by {sides[dims.columns]} ({dims.words})"
            message = f"{rule.name}: {name}() gives no more columns than rows, asked for {got} of {of}"
            raise ArrayError(message, hint="transpose what it is given, or step this parameter with another rule")


@cache
def _narrow(rule: Rule) -> tuple[tuple[str, Dims], ...]:
    """The functions in a rule whose results have no more columns than rows, and the dimensions of these."""
    found = {e for assign in rule.body for e in walk(assign.value) if isinstance(e, Product)}
    return tuple(dict.fromkeys((e.op, e.dims) for e in found if e.op in ("orthonormal", "leading")))


def _matrix_shape(rule: Rule, dims: Dims, values: HyperValues, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of matrices of these dimensions: one for each matrix of the parameter. HyperparameterError if one of
    them is longer than it may be."""
    refuse_sides(rule, values, shape, "a parameter")
    sides = interp.side_lengths(rule, values, shape)
    batch = shape[:-2] if rule.matrices == Matrices.LAST_TWO else ()
    return (*batch, sides[dims.rows], sides[dims.columns])


def chosen_once(rules: Iterable[Rule]) -> frozenset[str]:
    """The hyperparameters of these variants that are chosen when an optimiser is made, since they say how many elements
    a block has, how long a dimension of a state is, or how many turns a loop has."""
    found: set[str] = set()
    for rule in rules:
        made_of = () if rule.block is None else walk(rule.block)
        found |= {e.hyper for e in made_of if isinstance(e, Scalar)}
        found |= {*(each.hyper for each in rule.dimensions), *rule.turns}
    return frozenset(found)
