"""For tensors in shards: the size and shape of a tensor, which no shard knows by itself, become named values.

Guarantees: `size`, the other counts of a tensor and its lengths stand nowhere but as the whole value of an assignment.
Does not: say how the shards put values together (`sweeps` and `group_step` do).
"""

from __future__ import annotations

from ..frozen import replace
from ..ir.expr import Expr, Extent, Local, Reduce, Shape, Size, replaced, walk
from ..ir.primitives import Type
from ..ir.rule import Assign, Rule
from ..names import numbered

__all__ = ["needed", "run"]


def needed(rule: Rule) -> bool:
    """Whether a lowered rule needs anything of a whole tensor."""
    found = (e for assign in rule.body for e in walk(assign.value))
    return any(_counts(e) or (isinstance(e, Reduce) and e.over == Extent.TENSOR) for e in found)


def _counts(expr: Expr) -> bool:
    return isinstance(expr, Shape) or (isinstance(expr, Size) and expr.over == Extent.TENSOR)


def run(rule: Rule) -> Rule:
    taken = {a.target for a in (*rule.body, *rule.scalars)} | set(rule.arrays) | {s.name for s in rule.states}
    sizes = dict.fromkeys(e for a in rule.body for e in walk(a.value) if _counts(e))
    known: dict[Expr, Expr] = {e: Local(numbered("n", taken), Extent.TENSOR, Type.REAL) for e in sizes}
    named = [Assign(local.name, e) for e, local in known.items() if isinstance(local, Local)]
    body = (*named, *(Assign(a.target, replaced(a.value, known)) for a in rule.body))
    return replace(rule, body=body, sharded=True)
