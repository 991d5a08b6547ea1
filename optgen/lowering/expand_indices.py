"""Reductions over indices, and of their values for elements, become those over rows and columns.

A row has an index of each of the outer dimensions, a column one of each of the others. Of `min(acc, element)`, what the
indices of a row come to is computed once for each row, and so for columns.

Guarantees: no reduction goes over INDEX, and none over ELEMENT; every value is the same to the bit.
Does not: name what it makes (`hoist` does).
"""

from __future__ import annotations

from ..frozen import replace
from ..ir.expr import Call, Expr, Extent, PerIndex, Reduce, children, rebuilt
from ..ir.rule import Assign, Rule

__all__ = ["run"]


def run(rule: Rule) -> Rule:
    return replace(rule, body=tuple(Assign(a.target, _lowered(a.value)) for a in rule.body))


def _lowered(expr: Expr) -> Expr:
    expr = rebuilt(expr, tuple(map(_lowered, children(expr))))
    match expr:
        case Reduce(op=op, args=args, over=Extent.INDEX):
            return PerIndex(op, Reduce(op, args, Extent.ROW), Reduce(op, args, Extent.COLUMN))
        case Reduce(op=op, args=args, over=Extent.ELEMENT):
            return Call(op, (Reduce(op, args, Extent.ROW), Reduce(op, args, Extent.COLUMN)))
    return expr
