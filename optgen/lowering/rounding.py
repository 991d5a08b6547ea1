"""For arrays that are rounded stochastically: what their random bits depend on becomes known to the kernel.

Guarantees: the seed of each of them and the count of updates are among the scalars.
Does not: draw. A kernel makes the bits where a sweep begins with some elements.
"""

from __future__ import annotations

from ..frozen import replace
from ..ir.expr import Count, Expr, Scalar
from ..ir.rule import Assign, Rounding, Rule
from ..names import numbered

__all__ = ["run"]


def run(rule: Rule, rounding: Rounding) -> Rule:
    key: list[Expr] = [Count(), *(Scalar(seed, 0) for _, seed in rounding)]
    known = {assign.value for assign in rule.scalars}
    taken = {a.target for a in (*rule.body, *rule.scalars)} | set(rule.arrays) | {s.name for s in rule.states}
    new = [Assign(numbered("key", taken), value) for value in dict.fromkeys(key) if value not in known]
    return replace(rule, scalars=(*rule.scalars, *new), rounding=rounding)
