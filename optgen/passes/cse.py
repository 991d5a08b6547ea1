"""Common subexpressions: what stands more than once in `body` is computed once and named.

Guarantees: every element operation occurs once in `body`, and every value is the same to the bit.
Does not: see through algebra (`a*b` and `b*a` are two), reorder anything.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ..ir import Assign, Call, Expr, Local, Rule, children, extent_of, rebuilt, type_of
from ..names import numbered

__all__ = ["run"]


def run(rule: Rule) -> Rule:
    uses = _uses(rule)
    taken = {a.target for a in (*rule.scalars, *rule.body)} | set(rule.arrays)
    body: list[Assign] = []
    known: dict[Expr, Local] = {}

    def shared(expr: Expr) -> Expr:
        if expr in known:
            return known[expr]
        new = rebuilt(expr, tuple(map(shared, children(expr))))
        if isinstance(expr, Call) and uses[expr] > 1:
            known[expr] = Local(numbered("x", taken), extent_of(expr), type_of(expr))
            body.append(Assign(known[expr].name, new))
            return known[expr]
        return new

    for assign in rule.body:
        value = assign.value
        new = known.get(value) or rebuilt(value, tuple(map(shared, children(value))))
        body.append(Assign(assign.target, new))
        if isinstance(value, Call):
            known.setdefault(value, Local(assign.target, extent_of(value), type_of(value)))
    return replace(rule, body=tuple(body))


def _uses(rule: Rule) -> Counter[Expr]:
    """How often each expression would be computed; what stands inside a repeated one counts once with it."""
    uses: Counter[Expr] = Counter()

    def count(expr: Expr) -> None:
        uses[expr] += 1
        if uses[expr] == 1:
            for child in children(expr):
                count(child)

    for assign in rule.body:
        count(assign.value)
    return uses
