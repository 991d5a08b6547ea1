"""Hoisting: a value of lesser extent than the expression around it is computed once for each of its values.

Guarantees: every largest expression of lesser extent inside another has a name, and every reduction too; `scalars`
holds all of extent CONSTANT or STEP, which the host computes once a step; `body` holds no hyperparameter and no t, only
locals and literals; a value is rounded once, where it meets an element, exactly as before.
Does not: hoist literals, which stand where they are used.
"""

from __future__ import annotations

from ..frozen import replace
from ..ir.expr import (
    Const,
    Count,
    Expr,
    Extent,
    Given,
    Load,
    Local,
    Reduce,
    Scalar,
    children,
    extent_of,
    rebuilt,
    reduced_extent,
    type_of,
)
from ..ir.rule import Assign, Rule
from ..names import numbered

__all__ = ["run"]


def run(rule: Rule) -> Rule:
    hoisting = _Hoisting(rule)
    for assign in rule.body:
        hoisting.assign(assign)
    return replace(rule, scalars=tuple(hoisting.scalars), body=tuple(hoisting.body))


class _Hoisting:
    """The assignments of a rule so far, in the two blocks where they belong."""

    def __init__(self, rule: Rule) -> None:
        self.arrays, self.stores = frozenset(rule.arrays), rule.stores
        self.taken = {a.target for a in rule.body} | self.arrays | {state.name for state in rule.states}
        self.scalars: list[Assign] = []
        self.body: list[Assign] = []
        self.known: dict[Expr, Local] = {}  # what has been given a name
        self.stored: dict[str, Expr] = {}  # what an array is assigned, if that is no value for each element

    def assign(self, assign: Assign) -> None:
        """Adds an assignment to the block in which it is computed once for each of its values."""
        target, extent = assign.target, extent_of(assign.value)
        if extent > Extent.STEP and (extent == Extent.ELEMENT or target not in self.arrays):
            value = self.whole(assign.value)
            # What has been named inside another formula already is not computed again.
            self.body.append(Assign(target, self.known.get(value, value)))
        elif target in self.stores:
            self.stored[target] = self.inside(assign.value, Extent.ELEMENT)
            self.body.append(Assign(target, self.stored[target]))
        else:
            self.scalars.append(Assign(target, self.scalar(assign.value)))

    def scalar(self, expr: Expr) -> Expr:
        """An expression of `scalars`, which cannot read what `body` assigns."""
        if isinstance(expr, Local):
            return self.stored.get(expr.name, expr)
        return rebuilt(expr, tuple(map(self.scalar, children(expr))))

    def inside(self, expr: Expr, extent: Extent) -> Expr:
        """`expr` as it stands in an expression of this extent."""
        own = extent_of(expr)
        if isinstance(expr, Const | Load):
            return expr
        if own <= Extent.STEP:
            expr = self.scalar(expr)
            return expr if isinstance(expr, Const | Local) else self.named(expr, self.scalars)
        if isinstance(expr, Local):
            return self.stored.get(expr.name, expr)
        value = self.whole(expr)
        return self.named(value, self.body) if own != extent or isinstance(expr, Reduce) else value

    def whole(self, expr: Expr) -> Expr:
        """`expr` with names for all in it that has fewer values."""
        extent = reduced_extent(expr) if isinstance(expr, Reduce) else extent_of(expr)
        return rebuilt(expr, tuple(self.inside(arg, extent) for arg in children(expr)))

    def named(self, expr: Expr, block: list[Assign]) -> Local:
        """The name of `expr`, which is assigned in `block` where it has none yet."""
        if expr not in self.known:
            name = _named(expr, self.taken)
            block.append(Assign(name, expr))
            self.known[expr] = Local(name, extent_of(expr), type_of(expr))
        return self.known[expr]


def _named(expr: Expr, taken: set[str]) -> str:
    """A hyperparameter keeps its name, `beta[1]` as `beta1`, where it is free, and so does a number that is given;
    anything else is a number, `k1`."""
    match expr:
        case Scalar():
            name = f"{expr.hyper}{expr.index or ''}"
        case Count():
            name = "t"
        case Given():
            name = expr.name
        case Reduce():
            return numbered("r", taken)
        case _:
            return numbered("k", taken)
    if name in taken:
        return numbered(f"{name}_", taken)
    taken.add(name)
    return name
