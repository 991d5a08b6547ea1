"""Segments: formulas between products, as a rule of their own.

In: the planned values of a step; of one level and frame those that get a place, and the arrays that are written then.
Out: a `Segment`.

Names are numbered, so that segments with the same formulas are the same rule, and share a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..frozen import replace
from ..ir.expr import (
    GRADIENT,
    PARAMETER,
    Const,
    Draw,
    Expr,
    Extent,
    Given,
    Load,
    Local,
    Matrices,
    Product,
    Scalar,
    children,
    extent_of,
    rebuilt,
    type_of,
    walk,
)
from ..ir.extents import Dims
from ..ir.primitives import Type
from ..ir.rule import Assign, Rule, State
from .orientation import PARAMETER_DIMS
from .program import Operand, Segment

if TYPE_CHECKING:
    from .planner import Planner

__all__ = ["segment_rule"]


def segment_rule(
    plan: Planner, level: int, frame: Dims, wanted: Mapping[str, Operand], writes: Sequence[str]
) -> Segment:
    made = _Segment(plan, level, frame)
    for name in plan.values:
        if name in writes:
            made.write(name)
        if name in wanted:
            made.keep(name, wanted[name])
    return made.segment()


class _Segment:
    def __init__(self, plan: Planner, level: int, frame: Dims) -> None:
        self.plan, self.level, self.frame = plan, level, frame
        self.arrays: dict[Operand, str] = {}  # the state of this rule that each of them is
        self.body: list[Assign] = []
        self.known: dict[str, Expr] = {}  # the values that this segment computes, by their names in the step
        self.targets: dict[str, str] = {}

    def segment(self) -> Segment:
        rule = self.plan.rule
        states = tuple(
            State(name, Const(0.0), "", operand.extent if not operand.turned else _turned(operand.extent))
            for operand, name in self.arrays.items()
            if name not in (PARAMETER, GRADIENT)
        )
        read = {e for a in self.body for e in walk(a.value)}
        hypers = {e.hyper for e in read if isinstance(e, Scalar)}
        numbers = {e.name for e in read if isinstance(e, Given)}
        own = Rule(
            rule.name, "", "", tuple(h for h in rule.hypers if h.name in hypers), (), states, tuple(self.body),
            matrices=rule.matrices if self.frame == PARAMETER_DIMS else Matrices.LAST_TWO,
            inputs=tuple(each for each in rule.inputs if each.name in numbers), of_matrices=True,
        )  # fmt: skip
        arrays = {name: operand for operand, name in self.arrays.items()}
        return Segment(own, self.frame, arrays)

    def keep(self, name: str, place: Operand) -> None:
        """Writes a value of this segment to its place."""
        self._write(self.array(place), name)

    def write(self, name: str) -> None:
        """Writes the new value of a state, or of the parameter."""
        self._write(self.array(self.plan.array(name)), name)

    def _write(self, array: str, name: str) -> None:
        if self.plan.is_computed_in(name, self.level, self.frame):
            value = self.local(name)
        else:
            value = self._load(self.plan.operand(Local(name, Extent.ELEMENT, Type.REAL)))
        self.body.append(Assign(array, value))

    def array(self, operand: Operand) -> str:
        """The name of an array in this segment."""
        if operand not in self.arrays:
            real = self.frame == PARAMETER_DIMS and not operand.turned and operand.array in (PARAMETER, GRADIENT)
            self.arrays[operand] = operand.array if real else f"x{len(self.arrays) + 1}"
        return self.arrays[operand]

    def local(self, name: str) -> Expr:
        """A value that this segment computes."""
        if name not in self.known:
            value = self.expr(self.plan.values[name])
            target = f"v{len(self.known) + 1}"
            self.known[name] = Local(target, extent_of(value), type_of(value))
            self.body.append(Assign(target, value))
        return self.known[name]

    def expr(self, expr: Expr) -> Expr:
        """An expression of the step as one of this segment."""
        match expr:
            case Local(name=name) if self.plan.is_computed_in(name, self.level, self.frame):
                return self.local(name)
            case Local() | Load():
                return self._load(self.plan.operand(expr))
            case Product(op="transpose"):
                return self._load(self.plan.operand(expr))
            case Draw() if expr.dims is not None:  # which is like the parameter of this segment
                expr = replace(expr, dims=None)
        return rebuilt(expr, tuple(map(self.expr, children(expr))))

    def _load(self, operand: Operand) -> Load:
        extent = _turned(operand.extent) if operand.turned else operand.extent
        return Load(self.array(operand), extent)


def _turned(extent: Extent) -> Extent:
    return {Extent.ROW: Extent.COLUMN, Extent.COLUMN: Extent.ROW}.get(extent, extent)
