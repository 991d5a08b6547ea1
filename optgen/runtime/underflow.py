"""What a rule computes with and does not change from step to step: whether a compute type can hold it.

In: a lowered rule, once; then values of its hyperparameters, at every step with others. Out: the first constant that is
not zero, but would be.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from ..compiler.driver import Compilation
from ..ir.evaluate import Program, Values, evaluate
from ..ir.expr import PARAMETER, Const, Expr, Extent, Load, extent_of, walk
from ..ir.rule import Rule, kernel_scalars

__all__ = ["Constants", "constants_of", "vanishing"]

#: Of each compute type the largest number that it rounds to zero.
LARGEST_LOST = {"float32": 2.0**-150, "float64": 0.0}


class Constants:
    """All that meets elements of a rule in the compute type and does not change from step to step."""

    def __init__(self, rule: Rule) -> None:
        met = {e for a in rule.body if extent_of(a.value) == Extent.ELEMENT for e in walk(a.value)}
        names = {getattr(e, "name", "") for e in met}
        self._literals = [(e, e.value) for e in met if isinstance(e, Const)]
        elements = [state.init for state in rule.states if state.extent == Extent.ELEMENT]
        self._starts = [init for init in elements if Load(PARAMETER) not in set(walk(init))]
        scalars = [a for a in kernel_scalars(rule) if extent_of(a.value) == Extent.CONSTANT and a.target in names]
        self._formulas = [a.value for a in scalars]
        self._program = Program(rule.scalars, [a.target for a in scalars])

    def of(self, values: Values) -> list[tuple[Expr, float]]:
        """Each as a formula and a number."""
        starts = [(init, float(evaluate(init, values, 0, {}))) for init in self._starts]
        known = self._program.run(values, 1)
        return [*self._literals, *starts, *zip(self._formulas, map(float, known), strict=True)]


@cache
def constants_of(compilation: Compilation) -> tuple[Constants, ...]:
    """The constants of each variant, in the order of `compilation.lowered`."""
    return tuple(map(Constants, compilation.lowered))


def vanishing(constants: Iterable[Constants], values: Values, dtype: str) -> tuple[Expr, float] | None:
    """A constant of some rules that would be 0 where it meets an element of this type, as a formula and a number."""
    lost = LARGEST_LOST[dtype]
    for each in constants:
        for formula, value in each.of(values):
            if 0 < abs(value) <= lost:
                return formula, value
    return None
