"""Whole powers become products: `powi(x, n)` turns into the multiplications that define it.

Guarantees: no `powi` is left that C would have to compute, no expression is written out twice, every value is the same
to the bit.
Does not: touch powers of a step or a group, which the host computes; share products that others wrote out (`cse` does).
"""

from __future__ import annotations

from ..frozen import replace
from ..ir.expr import Call, Const, Expr, Extent, Local, children, extent_of, rebuilt, type_of
from ..ir.primitives import power_steps
from ..ir.rule import Assign, Rule
from ..names import numbered

__all__ = ["run"]


def run(rule: Rule) -> Rule:
    taken = {a.target for a in rule.body} | set(rule.arrays) | {state.name for state in rule.states}
    body: list[Assign] = []
    known: dict[Expr, Local] = {}

    def named(expr: Expr) -> Expr:
        """What is multiplied by itself has a name: else powers of powers would grow without bounds."""
        if not isinstance(expr, Call):
            return expr
        if expr not in known:
            known[expr] = Local(numbered("x", taken), extent_of(expr), type_of(expr))
            body.append(Assign(known[expr].name, expr))
        return known[expr]

    def expanded(expr: Expr) -> Expr:
        expr = rebuilt(expr, tuple(map(expanded, children(expr))))
        if not (isinstance(expr, Call) and expr.op == "powi" and extent_of(expr) > Extent.GROUP):
            return expr
        base, exponent = expr.args
        assert isinstance(exponent, Const)
        powers = {1: named(base)}
        for i, j in power_steps(int(exponent.value)):
            powers[i + j] = Call("mul", (named(powers[i]), named(powers[j])))
        return powers[int(exponent.value)]

    for assign in rule.body:
        value = expanded(assign.value)  # first, since it may name what it is made of
        body.append(Assign(assign.target, value))
    return replace(rule, body=tuple(body))
