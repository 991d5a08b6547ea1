"""Normally distributed numbers are made of what kernels draw.

Guarantees: `body` draws nothing but "tail", "uniform" and "rademacher"; every value is the same to the bit.
Does not: draw. The words are drawn where a sweep begins with some elements.
"""

from __future__ import annotations

from ..frozen import replace
from ..ir.draws import normal_of
from ..ir.expr import Draw, Expr, children, rebuilt
from ..ir.rule import Assign, Rule

__all__ = ["run"]


def run(rule: Rule) -> Rule:
    return replace(rule, body=tuple(Assign(a.target, _expanded(a.value)) for a in rule.body))


def _expanded(expr: Expr) -> Expr:
    if isinstance(expr, Draw) and expr.op == "normal":
        return normal_of(replace(expr, op="tail"))
    return rebuilt(expr, tuple(map(_expanded, children(expr))))
