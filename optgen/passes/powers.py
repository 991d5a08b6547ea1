"""Whole powers become products: `powi(x, n)` turns into the multiplications that define it.

Guarantees: no `powi` of extent ELEMENT is left, and every value is the same to the bit.
Does not: touch powers of scalars, which the host computes; share equal products (`cse` does).
"""

from __future__ import annotations

from dataclasses import replace

from ..ir import Assign, Call, Const, Expr, Extent, Rule, children, extent_of, rebuilt
from ..ops import power_steps

__all__ = ["run"]


def run(rule: Rule) -> Rule:
    return replace(rule, body=tuple(Assign(a.target, _expanded(a.value)) for a in rule.body))


def _expanded(expr: Expr) -> Expr:
    expr = rebuilt(expr, tuple(map(_expanded, children(expr))))
    if not (isinstance(expr, Call) and expr.op == "powi" and extent_of(expr) == Extent.ELEMENT):
        return expr
    base, exponent = expr.args
    assert isinstance(exponent, Const)
    powers = {1: base}
    for i, j in power_steps(int(exponent.value)):
        powers[i + j] = Call("mul", (powers[i], powers[j]))
    return powers[int(exponent.value)]
