"""Signs: which states are never negative, as far as formulas show it.

In: the checked rules of a step, one for each phase. Out: the names of these states, such as second moments, which are
means of squares.

A state may be NaN all the same, where a gradient is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .expr import Call, Const, Count, Expr, Extent, Load, Local, Scalar, Shape, Size
from .rule import Rule

__all__ = ["never_negative"]

#: Primitives that are never negative, and those that are not if none of their arguments is.
_ALWAYS = frozenset({"abs", "sqrt", "exp", "sigmoid"})
_IF_ALL = frozenset({"add", "div", "min", "powi", "pow", "cbrt"})


def never_negative(rules: Sequence[Rule]) -> frozenset[str]:
    """The states of elements that begin with no negative number, and are given none by any of the rules of a step."""
    known = frozenset(s.name for rule in rules for s in rule.states if s.extent == Extent.ELEMENT)
    while given := frozenset().union(*(_Signs(rule, known).negative for rule in rules)):
        known -= given
    return known


def _factors(expr: Expr) -> list[Expr]:
    if isinstance(expr, Call) and expr.op == "mul":
        return [factor for arg in expr.args for factor in _factors(arg)]
    return [expr]


class _Signs:
    """What is known of the values of a rule, if these states are never negative."""

    def __init__(self, rule: Rule, states: frozenset[str]) -> None:
        self._states = states
        self._ranges = {hyper.name: hyper.ranges for hyper in rule.hypers}
        self._never_negative: set[str] = set()
        self._factors: set[str] = set()  # from 0 to 1
        for assign in rule.body:  # in order, so that no value is more than one name away from what is known
            if self.of(assign.value):
                self._never_negative.add(assign.target)
            if self._at_most_one(assign.value):
                self._factors.add(assign.target)
        assigned = {assign.target for assign in rule.body}
        #: Those of the states that may be negative all the same.
        self.negative = {
            state.name
            for state in rule.states
            if state.name in states
            and not (self.of(state.init) and (state.name not in assigned or state.name in self._never_negative))
        }

    def of(self, expr: Expr) -> bool:
        """Whether an expression is never negative."""
        match expr:
            case Const():
                return expr.value >= 0
            case Scalar():
                return self._range(expr)[0] >= 0
            case Count() | Size() | Shape():
                return True
            case Load():
                return expr.array in self._states
            case Local():
                return expr.name in self._never_negative
            case Call(op="sub"):
                return expr.args[0] == Const(1.0) and self._at_most_one(expr.args[1])
            case Call(op="where"):
                return all(map(self.of, expr.args[1:]))
            case Call(op="max"):
                return any(map(self.of, expr.args))
            case Call(op="mul"):
                alone = [factor for factor, times in Counter(_factors(expr)).items() if times % 2]
                return all(map(self.of, alone))
            case Call(op="powi") if isinstance(expr.args[1], Const) and expr.args[1].value % 2 == 0:
                return True
            case Call():
                return expr.op in _ALWAYS or (expr.op in _IF_ALL and all(map(self.of, expr.args)))
        return False

    def _at_most_one(self, expr: Expr) -> bool:
        """Whether an expression is a factor from 0 to 1, or a power of one."""
        match expr:
            case Const():
                return 0 <= expr.value <= 1
            case Scalar():
                low, high = self._range(expr)
                return low >= 0 and high <= 1
            case Local():
                return expr.name in self._factors
            case Call(op="pow" | "powi"):
                return self._at_most_one(expr.args[0]) and self.of(expr.args[1])
            case Call(op="mul"):
                return all(map(self._at_most_one, expr.args))
        return False

    def _range(self, expr: Scalar) -> tuple[float, float]:
        interval = self._ranges[expr.hyper][max(0, expr.index - 1)]
        return interval.low, interval.high
