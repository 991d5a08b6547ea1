"""Hoisting: every largest expression of extent CONSTANT or STEP is computed once a step, on the host.

Guarantees: `body` holds no hyperparameter and no t, only locals that `scalars` defines, and literals; a value that
the host computes is rounded once, where it meets an element, exactly as before.
Does not: hoist literals, which the emitter writes where they stand.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir import Assign, Const, Count, Expr, Extent, Local, Rule, Scalar, children, extent_of, rebuilt, type_of

__all__ = ["run"]


def run(rule: Rule) -> Rule:
    taken = {a.target for a in rule.body} | set(rule.arrays)
    scalars: list[Assign] = []
    known: dict[Expr, Local] = {}

    def hoisted(expr: Expr) -> Expr:
        if isinstance(expr, Const) or extent_of(expr) == Extent.ELEMENT:
            return rebuilt(expr, tuple(map(hoisted, children(expr))))
        if isinstance(expr, Local):
            return expr
        if expr not in known:
            name = _fresh(_name(expr), taken)
            scalars.append(Assign(name, expr))
            known[expr] = Local(name, extent_of(expr), type_of(expr))
        return known[expr]

    body: list[Assign] = []
    for assign in rule.body:
        if extent_of(assign.value) == Extent.ELEMENT or assign.target in rule.arrays:
            body.append(Assign(assign.target, hoisted(assign.value)))
        else:
            scalars.append(assign)
    return replace(rule, scalars=tuple(scalars), body=tuple(body))


def _name(expr: Expr) -> str:
    """A hyperparameter keeps its name, `beta[1]` as `beta1`; anything else is a number of the step, `k`."""
    match expr:
        case Scalar():
            return f"{expr.hyper}{expr.index}" if expr.index else expr.hyper
        case Count():
            return "t"
    return "k"


def _fresh(name: str, taken: set[str]) -> str:
    """`name`, with a number behind it where it is taken."""
    fresh, number = name, 1
    while fresh in taken:
        number += 1
        fresh = f"{name}{number}" if not name[-1].isdigit() else f"{name}_{number}"
    taken.add(fresh)
    return fresh
