"""Programs: which of them a rule has, one for each course of a step, and of which segments they are made.

In: a checked rule with products of whole matrices. Out: its `Programs`; None for a rule that only the interpreter can
do. Of all variants of a rule, the segments: rules that kernels are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product

from ..frozen import replace
from ..ir.expr import Extent, Local, Product, extent_of
from ..ir.rule import Flag, Rule
from . import name_products as naming
from .courses import Condition, Needs
from .planner import planned
from .program import MatrixProgram

__all__ = ["Programs", "has_programs", "programs_of", "segments_of"]

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

    def every(self) -> Iterator[MatrixProgram]:
        """The programs of all courses."""
        return map(self.of, product((False, True), repeat=len(self.tests)))


@lru_cache(maxsize=128)
def programs_of(rule: Rule, *, fuses: bool = False) -> Programs | None:
    """The programs of a closed rule; None for a rule that only the interpreter can do. `fuses`: for a library that
    computes `b*C + a*(A @ B)` in one call, and products of bfloat16."""
    return Programs(rule, fuses=fuses) if has_programs(rule) else None


def has_programs(rule: Rule) -> bool:
    """Whether a rule has products of whole matrices, and programs can do it."""
    return rule.multiplies and not (rule.grouped or rule.block or rule.phases or rule.accept or rule.reports)


def segments_of(rules: Iterable[Rule], libraries: Iterable[bool] = (False, True)) -> tuple[Rule, ...]:
    """The segments of all programs of these rules, each once, as variants of one rule: `segment1` and so on.

    `libraries`: for which of them, as `fuses` of `programs_of`.
    """
    found = {
        segment.rule: None
        for rule in rules
        for fuses in libraries
        if (programs := programs_of(rule, fuses=fuses)) is not None
        for program in programs.every()
        for segment in program.segments
    }
    return tuple(replace(rule, flags=(Flag(f"segment{i}", False, "", True),)) for i, rule in enumerate(found, 1))
