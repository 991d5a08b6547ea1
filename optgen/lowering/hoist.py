"""Hoisting: what has fewer values than the elements around it is computed as often as it has values.

Guarantees: every largest expression of lesser extent inside another has a name, and every reduction too; `scalars`
holds all of extent CONSTANT or STEP, which the host computes once a step; `body` holds no hyperparameter and no t, only
locals and literals; a value is rounded once, where it meets an element, exactly as before.
Does not: hoist literals, which the emitter writes where they stand.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir.expr import (
    Const,
    Count,
    Expr,
    Extent,
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
    taken = {a.target for a in rule.body} | set(rule.arrays) | {state.name for state in rule.states}
    scalars: list[Assign] = []
    body: list[Assign] = []
    known: dict[Expr, Local] = {}
    stored: dict[str, Expr] = {}  # what an array is assigned, if that is no value for each element

    def read(expr: Expr) -> Expr:
        """An expression of `scalars`, which cannot read what `body` assigns."""
        if isinstance(expr, Local):
            return stored.get(expr.name, expr)
        return rebuilt(expr, tuple(map(read, children(expr))))

    def named(expr: Expr, value: Expr, block: list[Assign]) -> Local:
        if expr not in known:
            name = _named(expr, taken)
            block.append(Assign(name, value))
            known[expr] = Local(name, extent_of(expr), type_of(expr))
        return known[expr]

    def inside(expr: Expr, extent: Extent) -> Expr:
        """`expr` as it stands in an expression of this extent."""
        own = extent_of(expr)
        if isinstance(expr, Const | Load):
            return expr
        if own <= Extent.STEP:
            expr = read(expr)
            return expr if isinstance(expr, Const | Local) else named(expr, expr, scalars)
        if isinstance(expr, Local):
            return stored.get(expr.name, expr)
        value = whole(expr)
        return named(value, value, body) if own != extent or isinstance(expr, Reduce) else value

    def whole(expr: Expr) -> Expr:
        """`expr` with names for all in it that has fewer values."""
        extent = reduced_extent(expr) if isinstance(expr, Reduce) else extent_of(expr)
        return rebuilt(expr, tuple(inside(arg, extent) for arg in children(expr)))

    for assign in rule.body:
        extent = extent_of(assign.value)
        if extent > Extent.STEP and (extent == Extent.ELEMENT or assign.target not in rule.arrays):
            value = whole(assign.value)
            # What has been named inside another formula already is not computed again.
            body.append(Assign(assign.target, known.get(value, value)))
        elif assign.target in rule.stores:
            stored[assign.target] = inside(assign.value, Extent.ELEMENT)
            body.append(Assign(assign.target, stored[assign.target]))
        else:
            scalars.append(Assign(assign.target, read(assign.value)))
    return replace(rule, scalars=tuple(scalars), body=tuple(body))


def _named(expr: Expr, taken: set[str]) -> str:
    """A hyperparameter keeps its name, `beta[1]` as `beta1`, where it is free; anything else is a number, `k1`."""
    match expr:
        case Scalar():
            name = f"{expr.hyper}{expr.index or ''}"
        case Count():
            name = "t"
        case Reduce():
            return numbered("r", taken)
        case _:
            return numbered("k", taken)
    if name in taken:
        return numbered(f"{name}_", taken)
    taken.add(name)
    return name
