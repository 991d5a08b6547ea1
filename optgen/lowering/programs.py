"""Programs: which of them a rule has, one for each course of a step.

In: a checked rule with products of whole matrices. Out: its `Programs`; None for a rule that only the interpreter can
do.
"""

from __future__ import annotations

from functools import lru_cache

from ..ir.expr import Extent, Local, Product, extent_of
from ..ir.rule import Rule
from . import name_products as naming
from .courses import Condition, Needs
from .planner import planned
from .program import MatrixProgram

__all__ = ["Programs", "programs_of"]

#: How many conditions may part a step: each may double the number of its programs.
MOST_CONDITIONS = 3


class Programs:
    """The programs of a rule, one for each course. `tests`: the conditions that part it, which are scalars."""

    def __init__(self, rule: Rule, *, fuses: bool) -> None:
        self.rule, self.fuses = naming.run(rule), fuses
        self.scalars = tuple(
            a for a in self.rule.body if extent_of(a.value) <= Extent.STEP and a.target not in self.rule.stores
        )
        self.needs = Needs(self.rule)
        self.tests = self._tests()
        self._known: dict[tuple[bool, ...], MatrixProgram] = {}

    def _tests(self) -> tuple[Local, ...]:
        """The conditions under which products are needed, or states are written."""
        products = [a.target for a in self.rule.body if isinstance(a.value, Product)]
        needed = [self.needs.used.get(name, frozenset()) for name in products]
        needed += [self.needs.written.get(name, frozenset()) for name in self.rule.stores]
        needed += [self.needs.changes(a.value, a.target) for a in self.rule.body if a.target in self.rule.stores]
        deciding = {c.test for each in needed for c in each if c.test.extent <= Extent.STEP}
        found = [c.test for c in self.needs.tested if c.test in deciding]
        found += sorted(deciding.difference(found), key=lambda test: test.name)
        return tuple(dict.fromkeys(found))[:MOST_CONDITIONS]

    def of(self, outcome: tuple[bool, ...]) -> MatrixProgram:
        """The program for an outcome of the tests."""
        if outcome not in self._known:
            # A condition holds as its name does, or as the opposite of that.
            course = tuple(Condition(test, holds) for test, holds in zip(self.tests, outcome, strict=True))
            self._known[outcome] = planned(self.rule, course, self.needs, fuses=self.fuses)
        return self._known[outcome]


@lru_cache(maxsize=128)
def programs_of(rule: Rule, *, fuses: bool = False) -> Programs | None:
    """The programs of a closed rule; None for a rule that only the interpreter can do. `fuses`: for a library that
    computes `b*C + a*(A @ B)` in one call, and products of bfloat16."""
    refused = rule.grouped or rule.block or rule.phases or rule.accept or rule.reports
    return Programs(rule, fuses=fuses) if rule.multiplies and not refused else None
