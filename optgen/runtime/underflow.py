"""Constants of a rule that a compute type rounds to zero.

In: a compilation, once; then values of its hyperparameters, whenever they change.
Out: the first constant that is not zero, but would be; or an error that names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import product

from ..compiler.driver import Compilation
from ..errors import HyperparameterError
from ..ir.evaluate import HyperValues, Program, evaluate
from ..ir.expr import PARAMETER, Const, Expr, Extent, Load, Product, extent_of, replaced, walk
from ..ir.rule import Rule, kernel_scalars

__all__ = ["Constants", "constants_of", "refuse_vanishing", "vanishing"]

#: The largest number that each compute type rounds to zero.
LARGEST_LOST = {"float32": 2.0**-150, "float64": 0.0}


class Constants:
    """The values of a rule that meet elements in the compute type and do not change from step to step."""

    def __init__(self, rule: Rule) -> None:
        met = {e for a in rule.body if extent_of(a.value) == Extent.ELEMENT for e in walk(a.value)}
        names = {getattr(e, "name", "") for e in met}
        self._literals = [(e, e.value) for e in met if isinstance(e, Const)]
        elements = [state.init for state in rule.states if state.extent == Extent.ELEMENT]
        starts = [init for init in elements if Load(PARAMETER) not in set(walk(init))]
        self._starts = [replaced(x, {e: Const(1.0) for e in walk(x) if isinstance(e, Product)}) for x in starts]
        scalars = [a for a in kernel_scalars(rule) if extent_of(a.value) == Extent.CONSTANT and a.target in names]
        self._formulas = [a.value for a in scalars]
        steady = [a for a in rule.scalars if extent_of(a.value) == Extent.CONSTANT]
        self._program = Program(steady, [a.target for a in scalars])

    def of(self, values: HyperValues) -> list[tuple[Expr, float]]:
        """Each constant as a formula and a number."""
        starts = [(init, float(evaluate(init, values, 0, {}))) for init in self._starts]
        known = self._program.run(values, 1)
        return [*self._literals, *starts, *zip(self._formulas, map(float, known), strict=True)]


@cache
def constants_of(compilation: Compilation) -> tuple[Constants, ...]:
    """The constants of each variant, in the order of `compilation.lowered`."""
    return tuple(map(Constants, compilation.lowered))


def vanishing(constants: Iterable[Constants], values: HyperValues, dtype: str) -> tuple[Expr, float] | None:
    """The first constant that would be 0 where it meets an element of this type, as a formula and a number."""
    lost = LARGEST_LOST[dtype]
    for each in constants:
        for formula, value in each.of(values):
            if 0 < abs(value) <= lost:
                return formula, value
    return None


def refuse_vanishing(
    owner: str, compilation: Compilation, variants: Iterable[int], given: Iterable[HyperValues], dtypes: Iterable[str]
) -> None:
    """HyperparameterError if a constant is not zero, but would be in one of these dtypes.

    Parameters
    ----------
    owner
        What the message begins with: the optimiser, and the group if it has several.
    variants
        Positions in `compilation.lowered` of the variants that step, in the first phase.
    given
        Sets of hyperparameters, each to be checked.
    """
    constants = [constants_of(compilation)[i] for variant in set(variants) for i in compilation.in_phases(variant)]
    for values, dtype in product(given, dtypes):
        if found := vanishing(constants, values, dtype):
            from ..notation.text import expression

            message = f"{owner}: {expression(found[0])} = {found[1]:g} would be 0 in {dtype}"
            raise HyperparameterError(message, hint="take a larger value, or parameters of float64")
