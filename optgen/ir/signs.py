"""Signs: which states are never negative, as far as formulas show it.

In: a checked rule. Out: the names of these states, such as second moments: means of squares.

A state may be NaN all the same, where a gradient is.
"""

from __future__ import annotations

from collections import Counter

from .expr import Call, Const, Count, Expr, Extent, Load, Local, Scalar, Shape, Size
from .rule import Rule

__all__ = ["never_negative"]

#: Primitives that are never negative, and those that are not if none of their arguments is.
_ALWAYS = frozenset({"abs", "sqrt", "exp", "sigmoid"})
_IF_ALL = frozenset({"add", "div", "min", "powi", "pow", "cbrt"})


def never_negative(rule: Rule) -> frozenset[str]:
    """The states of elements that begin with no negative number and are given none."""
    states = {state.name: state.init for state in rule.states if state.extent == Extent.ELEMENT}
    values = {assign.target: assign.value for assign in rule.body}
    known = frozenset(states)
    while True:
        signs = _Signs(rule, known)
        held = frozenset(n for n in known if signs.of(states[n]) and signs.of(values.get(n, states[n])))
        if held == known:
            return held
        known = held


def _factors(expr: Expr) -> list[Expr]:
    if isinstance(expr, Call) and expr.op == "mul":
        return [factor for arg in expr.args for factor in _factors(arg)]
    return [expr]


class _Signs:
    """What is known of expressions, if these states are never negative."""

    def __init__(self, rule: Rule, states: frozenset[str]) -> None:
        self._states = states
        self._ranges = {hyper.name: hyper.ranges for hyper in rule.hypers}
        self._values = {assign.target: assign.value for assign in rule.body}

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
                return expr.name in self._values and self.of(self._values[expr.name])
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
                return expr.name in self._values and self._at_most_one(self._values[expr.name])
            case Call(op="pow" | "powi"):
                return self._at_most_one(expr.args[0]) and self.of(expr.args[1])
            case Call(op="mul"):
                return all(map(self._at_most_one, expr.args))
        return False

    def _range(self, expr: Scalar) -> tuple[float, float]:
        interval = self._ranges[expr.hyper][max(0, expr.index - 1)]
        return interval.low, interval.high
