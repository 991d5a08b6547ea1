"""Common subexpressions: what occurs more than once in `body` is computed once and named.

Guarantees: every element operation occurs once in `body`, and every value is the same to the bit.
Does not: see through algebra (`a*b` and `b*a` are two), reorder anything, or remove copies. Every formula of the author
keeps its line.
"""

from __future__ import annotations

from collections import Counter

from ..frozen import replace
from ..ir.expr import Call, Expr, Local, Reduce, children, extent_of, rebuilt, type_of, walk
from ..ir.rule import Assign, Rule
from ..names import numbered

__all__ = ["run"]


def run(rule: Rule) -> Rule:
    body, made = _flat(rule)
    taken = {a.target for a in (*rule.scalars, *rule.body)} | set(rule.arrays) | {state.name for state in rule.states}
    return replace(rule, body=_nested(body, made, taken))


def _flat(rule: Rule) -> tuple[list[Assign], set[str]]:
    """The body with a name for every operation, each operation once; and those names that are not the author's."""
    body: list[Assign] = []
    made: set[str] = set()
    known: dict[Expr, Local] = {}
    copies: dict[str, Expr] = {}

    def original(expr: Expr) -> Expr:
        return copies.get(expr.name, expr) if isinstance(expr, Local) else expr

    def key(call: Call | Reduce) -> Expr:
        return rebuilt(call, tuple(map(original, call.args)))

    def flat(expr: Expr) -> Expr:
        """`expr`, made of names only."""
        call = rebuilt(expr, tuple(map(named, children(expr))))
        return known.get(key(call), call) if isinstance(call, Call | Reduce) else call

    def named(expr: Expr) -> Expr:
        value = flat(expr)
        if not isinstance(value, Call | Reduce):
            return value
        name = f"#{len(made)}"  # no name that a rule may use
        made.add(name)
        body.append(Assign(name, value))
        known[key(value)] = Local(name, extent_of(value), type_of(value))
        return known[key(value)]

    for assign in rule.body:
        value = flat(assign.value)
        body.append(Assign(assign.target, value))
        if isinstance(value, Call | Reduce):
            known[key(value)] = Local(assign.target, extent_of(value), type_of(value))
        else:
            copies[assign.target] = original(value)
    return body, made


def _nested(body: list[Assign], made: set[str], taken: set[str]) -> tuple[Assign, ...]:
    """The body with every made name that is read once written out again, and the others called x1, x2, ..."""
    uses = Counter(e.name for a in body for e in walk(a.value) if isinstance(e, Local))
    values: dict[str, Expr] = {}

    def nested(expr: Expr) -> Expr:
        if isinstance(expr, Local):
            return values.get(expr.name, expr)
        return rebuilt(expr, tuple(map(nested, children(expr))))

    result = []
    for assign in body:
        target, value = assign.target, nested(assign.value)
        if target in made:
            if uses[target] == 1:
                values[target] = value
                continue
            target = numbered("x", taken)
            values[assign.target] = Local(target, extent_of(value), type_of(value))
        result.append(Assign(target, value))
    return tuple(result)
