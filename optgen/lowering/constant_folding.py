"""Exact folding: arithmetic on literals is done now; `x*1`, `x/1`, `x - 0`, `-(-x)` and choices already made vanish.

Guarantees: every value is the same to the bit, for NaN, infinities and both zeros too; no extent changes.
Does not: fold what only real numbers allow, such as `x + 0` (wrong for -0), `x*0` (wrong for NaN), `x - x`.
"""

from __future__ import annotations

import math

from ..frozen import replace
from ..ir.evaluate import evaluate
from ..ir.expr import Call, Const, Expr, children, extent_of, rebuilt
from ..ir.rule import Assign, Rule

__all__ = ["run"]


def run(rule: Rule) -> Rule:
    return replace(rule, body=tuple(Assign(a.target, _folded(a.value)) for a in rule.body))


def _folded(expr: Expr) -> Expr:
    expr = rebuilt(expr, tuple(map(_folded, children(expr))))
    match expr:
        case Call(args=args) if all(isinstance(arg, Const) for arg in args):
            value = evaluate(expr, {}, 0, {})
            # A condition stays, since constants are numbers; so does what is no finite number.
            return expr if isinstance(value, bool) or not math.isfinite(value) else Const(value)
        case Call(op="mul", args=(x, Const(1.0)) | (Const(1.0), x)) | Call(op="div", args=(x, Const(1.0))):
            return x
        case Call(op="sub", args=(x, Const(zero))) if zero == 0 and math.copysign(1.0, zero) > 0:
            return x
        case Call(op="neg", args=(Call(op="neg", args=(x,)),)):
            return x
        case Call(op="where", args=(Call(args=args) as condition, then, other)) if all(
            isinstance(arg, Const) for arg in args
        ):
            chosen = then if evaluate(condition, {}, 0, {}) else other
            # A scalar in the place of an element would no longer be rounded to the compute type here.
            return chosen if extent_of(chosen) == extent_of(expr) else expr
    return expr
