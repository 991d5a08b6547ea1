"""The phases of a step: in which steps each of them is, and which comes next.

In: the phases of a spec. Out: their conditions, and what they keep and assign, in IR.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from ..ir.expr import Call, Const, Count, Expr, Extent, extent_of, replaced, type_of
from ..ir.primitives import Type
from ..ir.rule import FIRST_PHASE, PHASE, Assign, Part, State
from ..names import is_name
from .expressions import Expressions
from .resolve import Scope
from .spec_names import no_name
from .syntax import Item, Name, PhaseAst
from .terms import subterms
from .vocabulary import GIVEN_TO_PHASES, MATRIX, RENAME

__all__ = ["Conditions", "assignments", "check_phases", "states_of_phases"]

#: The condition of each phase, in order; None for one that every step has.
Conditions: TypeAlias = Sequence[Expr | None]


def check_phases(scope: Scope) -> Conditions:
    """Check the names of phases, what has them, and their conditions. Gives these."""
    spec = scope.spec
    if not scope.phased:
        return [None]
    seen: set[str] = set()
    for phase in spec.phases:
        if not is_name(phase.name) or keyword.iskeyword(phase.name):
            scope.fault(phase.span, *no_name(phase.name, "phase"))
        elif phase.name in seen:
            scope.fault(phase.span, f"two phases are called {phase.name!r}", RENAME)
        seen.add(phase.name)
    if spec.part == Part.PARAMETER:
        message = "a part 'parameter' has no phases: the rule before it has stepped"
        scope.fault(spec.phases[0].span, message, 'phases belong to a rule, or to part = "gradient"')
    if (last := spec.phases[-1]).when is not None:
        message = f"every step ends with its last phase {last.name!r}, got a condition on which it is left out"
        scope.fault(last.when.span, message, "leave it out, or put what every step does into a phase behind it")
    return [_condition(scope, phase) for phase in spec.phases]


def _condition(scope: Scope, phase: PhaseAst) -> Expr | None:
    term = phase.when
    if term is None:
        return None
    message = f"{phase.name!r}: expected a condition of t and hyperparameters, which is known before the step"
    for name in subterms(term):
        if isinstance(name, Name | Item) and name.name not in scope.hypers and name.name != "t":
            scope.used.add(name.name)
            scope.fault(name.span, message, 'for example: when = "t % k == 0"')
            return None
    found = Expressions(scope, {MATRIX: False}).expr(term)
    if found is not None and not (type_of(found) is Type.BOOL and extent_of(found) <= Extent.STEP):
        scope.fault(term.span, message, 'for example: when = "t % k == 0"')
        return None
    return found


def states_of_phases(whens: Conditions) -> Iterator[State]:
    """What a rule with these phases keeps to know which comes next."""
    yield State(PHASE, Const(0.0), GIVEN_TO_PHASES[PHASE], Extent.GROUP)
    if whens[0] is not None:
        yield State(FIRST_PHASE, _next(whens, 0, Const(1.0)), GIVEN_TO_PHASES[FIRST_PHASE], Extent.GROUP)


def assignments(whens: Conditions, number: int) -> Iterator[Assign]:
    """What the phase of this number says of the one that comes next."""
    if number + 1 < len(whens):
        yield Assign(PHASE, _next(whens, number + 1, Count()))
        return
    yield Assign(PHASE, Const(0.0))
    if whens[0] is not None:
        yield Assign(FIRST_PHASE, _next(whens, 0, Call("add", (Count(), Const(1.0)))))


def _next(whens: Conditions, first: int, t: Expr) -> Expr:
    """The number of the first phase from `first` on that step `t` has."""
    found: Expr = Const(float(len(whens) - 1))
    for number in reversed(range(first, len(whens) - 1)):
        when, own = whens[number], Const(float(number))
        found = own if when is None else Call("where", (replaced(when, {Count(): t}), own, found))
    return found
