"""Elaboration of what a parameter is evaluated with: the formulas of `[evaluation]` in one variant of a rule.

In: a choice of flags, and the syntax tree of a spec in the `Scope` that all its variants share. Out: a body that
assigns the parameter. It is run between two steps, so there is no gradient, no input and no value of a step in it.
"""

from __future__ import annotations

from ..ir.compose import DELTA, GIVEN_GRADIENT, NEW, PROCEED
from ..ir.expr import GRADIENT, PARAMETER, Expr, Extent
from .elaborate import Variant
from .syntax import FormulaAst, Invoke, Name, Term

__all__ = ["Evaluation"]

_OF_STEPS = (GRADIENT, DELTA, GIVEN_GRADIENT, NEW, PROCEED)


class Evaluation(Variant):
    """The formulas of `[evaluation]` under one choice of flags. A method that finds a fault returns None."""

    def name(self, term: Name) -> Expr | None:
        name, scope = term.name, self.scope
        made = name in scope.targets - scope.states and name not in self.locals
        if name not in self.failed and name != PARAMETER and (name in _OF_STEPS or name in scope.inputs or made):
            self.fault(
                term.span, f"{term.spelled!r} belongs to a step, and there is none", "write it with p and states"
            )
            self.use(name)
            return None
        return super().name(term)

    def reduce(self, term: Invoke, given: tuple[Term, ...], named: Extent | None) -> Expr | None:
        hint = "keep it as a state, which [update] writes"
        self.fault(term.span, f"{term.function}(): expected operations on elements, got a reduction", hint)
        for arg in given:
            self.use_all(arg)
        return None

    def refuses_target(self, formula: FormulaAst) -> bool:
        target = formula.target
        if target == PARAMETER and not self.is_assigned(target):
            return False
        if target in self.scope.states or target in _OF_STEPS:
            self.fault(formula.span, f"{target!r} is written by [update] alone", "[evaluation] gives p")
            return True
        return super().refuses_target(formula)

    def finish(self) -> None:
        """Check that there is a parameter."""
        spec = self.scope.spec
        if spec.evaluation and PARAMETER not in self.locals.keys() | self.failed:
            self.fault(spec.evaluation_span, "no formula gives 'p', what is evaluated", "for example: p = avg")
