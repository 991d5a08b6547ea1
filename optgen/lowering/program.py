"""Programs: a step of a rule with products of whole matrices, as a straight line of work.

In: nothing; `programs` plans them. Out: frozen values.

    program  = MatrixProgram(rule, turned*, steps*, places*, scalars*)
    step     = Segment(rule, frame, arrays*)         formulas between products, which kernels compute in sweeps
             | Multiplication(op, args+, target)     one call of a library on whole matrices
    place    = Place(dims, extent, slot)             memory for a value between steps
    operand  = Operand(array, turned)                a place, a state, an input or the parameter; or its transpose

A segment is a rule of its own, which goes over matrices of the dimensions of its frame: its states are arrays that it
reads and writes. States of the step and the parameter are written by segments only.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TypeAlias

from ..frozen import frozen
from ..ir.expr import Const, Extent, Local
from ..ir.extents import Dims
from ..ir.rule import Assign, Rule

__all__ = ["MatrixProgram", "Multiplication", "Operand", "Place", "Segment", "Step"]


@frozen
class Operand:
    """A matrix by its array, of these dimensions as it lies in memory. `turned`: its transpose. `half`: it is kept as
    bfloat16."""

    array: str
    dims: Dims
    extent: Extent = Extent.ELEMENT
    turned: bool = False
    half: bool = False


@frozen
class Segment:
    """Formulas over matrices of the dimensions `frame`. `arrays`: what each state of its `rule` is."""

    rule: Rule
    frame: Dims
    arrays: Mapping[str, Operand]

    __hash__ = object.__hash__


@frozen
class Multiplication:
    """A product or a function of whole matrices; `target`: the place of the result. `symmetric`: it is known to be.

    `op` is one of `primitives.PRODUCTS`, or "multiply": `a*(A @ B) + b*C` of A, B, a, C and b, or without C and b; or
    "convert": the same matrix, as bfloat16 or from that.
    """

    op: str
    args: tuple[Operand | Const | Local, ...]
    target: Operand
    symmetric: bool = False

    @cached_property
    def operands(self) -> tuple[Operand, ...]:
        return tuple(arg for arg in self.args if isinstance(arg, Operand))


Step: TypeAlias = Segment | Multiplication


@frozen
class Place:
    """Memory for a value of such matrices. `slot`: places of one slot are never used at once. `half`: of bfloat16."""

    dims: Dims
    extent: Extent
    slot: int
    half: bool = False


@frozen
class MatrixProgram:
    """A step of one course.

    Attributes
    ----------
    rule
        The rule with names for its products, before its matrices were turned.
    turned
        The names of those that are kept as transposes.
    steps
        The work, in order; none of it writes what it reads, but for arrays that a segment goes over.
    places
        The memory that it takes, by the names of arrays.
    scalars
        What products need of numbers, among values of lesser extent; known before the step.
    """

    rule: Rule
    turned: frozenset[str]
    steps: tuple[Step, ...]
    places: Mapping[str, Place]
    scalars: tuple[Assign, ...]

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @cached_property
    def stacks(self) -> bool:
        """Whether products are of places only, so that many parameters can go through them together."""
        return all(
            operand.array in self.places
            for step in self.steps
            if isinstance(step, Multiplication)
            for operand in step.operands
        )

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(step for step in self.steps if isinstance(step, Segment))
