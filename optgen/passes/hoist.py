"""Hoisting: every largest expression of extent CONSTANT or STEP is computed once a step, on the host.

Guarantees: `body` holds no hyperparameter and no t, only locals that `scalars` defines, and literals; a value that
the host computes is rounded once, where it meets an element, exactly as before.
Does not: hoist literals, which the emitter writes where they stand.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir import Assign, Const, Count, Expr, Extent, Local, Rule, Scalar, children, extent_of, rebuilt, type_of
from ..names import numbered

__all__ = ["run"]


def run(rule: Rule) -> Rule:
    taken = {a.target for a in rule.body} | set(rule.arrays)
    scalars: list[Assign] = []
    known: dict[Expr, Local] = {}
    stored: dict[str, Expr] = {}  # what a state or the parameter is assigned, if that is a scalar

    def read(expr: Expr) -> Expr:
        """An expression of `scalars`, which cannot read what `body` assigns."""
        if isinstance(expr, Local):
            return stored.get(expr.name, expr)
        return rebuilt(expr, tuple(map(read, children(expr))))

    def hoisted(expr: Expr) -> Expr:
        if isinstance(expr, Const) or extent_of(expr) == Extent.ELEMENT:
            return rebuilt(expr, tuple(map(hoisted, children(expr))))
        expr = read(expr)
        if isinstance(expr, Const | Local):
            return expr
        if expr not in known:
            name = _named(expr, taken)
            scalars.append(Assign(name, expr))
            known[expr] = Local(name, extent_of(expr), type_of(expr))
        return known[expr]

    body: list[Assign] = []
    for assign in rule.body:
        if extent_of(assign.value) == Extent.ELEMENT:
            body.append(Assign(assign.target, hoisted(assign.value)))
        elif assign.target in rule.arrays:
            stored[assign.target] = hoisted(assign.value)
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
        case _:
            return numbered("k", taken)
    if name in taken:
        return numbered(f"{name}_", taken)
    taken.add(name)
    return name
