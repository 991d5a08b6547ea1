"""Demand: which formulas a variant needs.

In: the formulas of a phase, and a choice of flags. Out: the names that the variant computes.

A formula that only the other side of a choice needs is no part of a variant: it may have no meaning there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..ir.compose import ACCEPT, DELTA, PROCEED
from ..ir.expr import PARAMETER, Extent
from .syntax import Choice, FormulaAst, ReportAst, StateAst, Term
from .terms import chosen_subterms, decided, names_in, reduced_over, subterms

__all__ = ["Demand"]

_GROUP = Extent.GROUP.name.lower()


class Demand:
    """What formulas that run together read, and the reports of them, asked of each variant.

    `given`: the names that have a value without a formula; one that is assigned all the same is looked at, and refused.
    """

    def __init__(
        self, formulas: Sequence[FormulaAst], states: Sequence[StateAst], reports: Sequence[ReportAst],
        given: Collection[str],
    ) -> None:  # fmt: skip
        self._states = states
        self._reports = reports
        self._outputs = {DELTA, PARAMETER, PROCEED, ACCEPT, *given}
        self._values: dict[str, list[tuple[Term, frozenset[str] | None]]] = {}  # and what is read, whatever the flags
        for formula in formulas:
            terms = list(subterms(formula.value))
            chooses = any(isinstance(term, Choice) for term in terms)
            read = None if chooses else names_in(terms)
            self._values.setdefault(formula.target, []).append((formula.value, read))
            # Every parameter takes part in a reduction over the group.
            if any(extent.name == _GROUP for extent in reduced_over(formula.value)):
                self._outputs.add(formula.target)

    def of(self, choice: Mapping[str, bool]) -> frozenset[str]:
        """What the variant with these flags computes: its outputs, states and reports, all that they are made of."""
        kept = {s.name for s in self._states if s.when is None or decided(s.when, choice) is not False}
        reported = frozenset[str]().union(
            *(
                names_in(chosen_subterms(report.value, choice))
                for report in self._reports
                if report.when is None or decided(report.when, choice) is not False
            )
        )
        found = self._values.keys() & (self._outputs | kept | reported)
        pending = list(found)
        while pending:
            for value, always in self._values[pending.pop()]:
                read = names_in(chosen_subterms(value, choice)) if always is None else always
                new = (read & self._values.keys()) - found
                pending += new
                found |= new
        return frozenset(found)
