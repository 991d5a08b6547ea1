"""Norms and means become what they are made of: `norm(x)` is `sqrt(dot(x, x))`, `mean(x)` is `sum(x)` over a count.

Guarantees: of the reductions only `sum`, `dot`, `max` and `min` are left, every value is the same to the bit.
Does not: name them (`hoist` does).
"""

from __future__ import annotations

from ..frozen import replace
from ..ir.expr import Call, Expr, Reduce, Size, children, joint_extent, rebuilt
from ..ir.rule import Assign, Rule

__all__ = ["run"]


def run(rule: Rule) -> Rule:
    return replace(rule, body=tuple(Assign(a.target, _lowered(a.value)) for a in rule.body))


def _lowered(expr: Expr) -> Expr:
    expr = rebuilt(expr, tuple(map(_lowered, children(expr))))
    match expr:
        case Reduce(op="norm", args=(x,)):
            return Call("sqrt", (Reduce("dot", (x, x), expr.over, expr.key),))
        case Reduce(op="mean", args=args):
            return Call("div", (Reduce("sum", args, expr.over, expr.key), Size(expr.over, joint_extent(args))))
    return expr
