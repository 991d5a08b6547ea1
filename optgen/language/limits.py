"""The limits of a spec, which keep what it may cost within seconds.

In: the syntax tree of a spec, or all of its variants. Out: what there is too much of, in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ir.draws import DRAWS, MOST_DRAWS
from ..ir.expr import Call, Reduce, walk
from ..ir.rule import Rule
from .syntax import Choice, Invoke, Operation, SpecAst, Term
from .terms import subterms

__all__ = ["MOST_FLAGS", "MOST_OPERATIONS", "MOST_PHASES", "MOST_REDUCTIONS", "excess_of_rules", "excess_of_spec"]

MOST_FLAGS = 6
#: How many phases a step may have, each of which is a kernel of its own.
MOST_PHASES = 4
#: How many reductions a variant may have, since a sweep keeps a block of each in reach.
MOST_REDUCTIONS = 32
#: How many operators, functions, choices and assignments a spec may have.
MOST_OPERATIONS = 2000
#: How many a variant may have if all of them are counted once more for each reduction, since what a reduction is taken
#: of may have to be computed again in the sweep that needs it; and how many all variants may have together.
MOST_WORK, MOST_WORK_OF_ALL = 4000, 16_000


def excess_of_spec(spec: SpecAst) -> str | None:
    """What makes a spec too large to be looked at further; None if nothing does."""
    operations = (isinstance(part, Operation | Invoke | Choice) for term in _terms_of(spec) for part in subterms(term))
    count = len(spec.formulas) + sum(operations)
    variants = 2 ** min(len(spec.flags), MOST_FLAGS)
    if count > MOST_OPERATIONS:
        return f"expected at most {MOST_OPERATIONS} operations, got {count}"
    calls = (part for term in _terms_of(spec) for part in subterms(term) if isinstance(part, Invoke))
    draws = sum(part.function in DRAWS for part in calls)
    if draws > MOST_DRAWS:
        return f"expected at most {MOST_DRAWS} random numbers for an element, got {draws}"
    if count * variants > MOST_WORK_OF_ALL:
        return f"expected at most {MOST_WORK_OF_ALL} operations in all variants, got {count} x {variants}"
    return None


def _terms_of(spec: SpecAst) -> Iterator[Term]:
    yield from (formula.value for formula in spec.formulas)
    yield from (term for state in spec.states for term in (state.init, state.when) if term is not None)
    yield from () if spec.block is None else (spec.block,)
    yield from (term for report in spec.reports for term in (report.value, report.when) if term is not None)
    yield from (term for flag in spec.flags for term in (flag.default, flag.requires) if isinstance(term, Term))


def excess_of_rules(rules: Sequence[Rule]) -> Iterator[str]:
    """What the variants of a spec have too much of for the kernels that are to be made of them."""
    sizes = [_size(rule) for rule in rules]
    reductions = max((reductions for _, reductions in sizes), default=0)
    if reductions > MOST_REDUCTIONS:
        yield f"expected at most {MOST_REDUCTIONS} reductions, got {reductions}"
    work = [operations * (1 + reductions) for operations, reductions in sizes]
    if max(work, default=0) > MOST_WORK:
        operations, reductions = sizes[work.index(max(work))]
        yield f"expected at most {MOST_WORK} operations x (1 + reductions), got {operations} x (1 + {reductions})"
    elif sum(work) > MOST_WORK_OF_ALL:
        expected = f"expected at most {MOST_WORK_OF_ALL} operations x (1 + reductions) in all variants"
        yield f"{expected}, got {sum(work)} in {len(rules)}"


def _size(rule: Rule) -> tuple[int, int]:
    """How many operations a variant has, and how many of them are reductions."""
    parts = [part for assign in rule.body for part in walk(assign.value)]
    reductions = sum(isinstance(part, Reduce) for part in parts)
    return len(rule.body) + sum(isinstance(part, Call) for part in parts) + reductions, reductions
