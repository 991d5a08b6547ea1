"""The agreement of variants: matrices and other parameters, which one step may mix, share the values of the group.

In: the variants of a spec. Out: the faults of those for matrices that compute another value than those for others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..errors import Diagnostic, Span
from ..ir.compose import ACCEPT
from ..ir.expr import Call, Expr, Extent, Local, Reduce, children, reduces
from ..ir.rule import Rule
from .syntax import PhaseAst, SpecAst

__all__ = ["disagreements"]


def disagreements(spec: SpecAst, rules: Sequence[Rule]) -> Iterator[Diagnostic]:
    """The faults of the variants for matrices, each beside the one with the same flags for others."""
    others = {_choice(rule): rule for rule in rules if rule.matrix is False}
    for rule in rules:
        other = others.get(_choice(rule))
        if rule.matrix and other is not None:
            phase = next(each for each in spec.phases if each.name == rule.phase)
            yield from _between(spec, phase, rule, other)


def _choice(rule: Rule) -> object:
    return rule.phase, tuple(flag.value for flag in rule.flags)


def _between(spec: SpecAst, phase: PhaseAst, rule: Rule, other: Rule) -> Iterator[Diagnostic]:
    """The states of the group, and the reductions over it, that differ between two variants."""
    apart = {s.name for s in set(rule.states) ^ set(other.states) if s.extent == Extent.GROUP}
    for state in spec.states if phase == spec.phases[0] else ():
        if state.name in apart:
            yield Diagnostic(state.span, _another(state.name), 'choose by no matrix in its "when" and "init"')
    known: dict[object, int] = {}
    work = [_group_work(each, known) for each in (rule, other)]
    for formula in phase.formulas:
        (ops, value), (other_ops, other_value) = (each.get(formula.target, ([], None)) for each in work)
        if ops != other_ops:
            yield _other_reductions(formula.value.span, ops, other_ops)
            return  # later reductions are counted from this one
        if value != other_value and formula.target not in apart:
            hint = "choose by matrix inside of reductions over the group only"
            yield Diagnostic(formula.value.span, _another(formula.target), hint)
    values = [{report.name: report.value for report in each.reports} for each in (rule, other)]
    pairs = list(zip(work, values, strict=True))
    for report in spec.reports:
        (ops, _), (other_ops, _) = (each.get(own.get(report.name, ""), ([], None)) for each, own in pairs)
        if ops != other_ops:
            yield _other_reductions(report.value.span, ops, other_ops)
            return


def _other_reductions(span: Span, ops: Sequence[str], other_ops: Sequence[str]) -> Diagnostic:
    got = f"{', '.join(ops) or 'none'} for matrices and {', '.join(other_ops) or 'none'} for others"
    message = f"expected the same reductions over the group for every parameter, got {got}"
    return Diagnostic(span, message, "choose inside of one reduction: norm(a if matrix else b, group)")


def _another(name: str) -> str:
    return f"{name!r} is one for all parameters, got another one for matrices than for others"


def _group_work(rule: Rule, known: dict[object, int]) -> dict[str, tuple[list[str], int | None]]:
    """The work of each formula for all parameters together: its reductions over the group, and a number for its value.

    Only states of the group and `accept` have a number. Two rules give a value the same number, kept in `known`, if it
    is the same whatever each parameter contributes to the reductions in it.
    """
    states = {state.name for state in rule.states if state.extent == Extent.GROUP}
    numbers: dict[str, int] = {}
    count = 0

    def number(expr: Expr) -> int:
        nonlocal count
        below = tuple(map(number, children(expr)))
        key: object = expr
        match expr:
            case Local():
                return numbers[expr.name]
            case Call():
                key = (expr.op, below)
            case Reduce(over=Extent.GROUP):
                key, count = (expr.op, count), count + 1
            case Reduce():
                key = (expr.op, expr.over, below)
        return known.setdefault(key, len(known))

    work: dict[str, tuple[list[str], int | None]] = {}
    for assign in rule.body:
        value = numbers[assign.target] = number(assign.value)
        ops = [e.op for e in reduces([assign.value]) if e.over == Extent.GROUP]
        work[assign.target] = (ops, value if assign.target in states | {ACCEPT} else None)
    return work
