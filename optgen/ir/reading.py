"""Reading: which inputs a step reads, as far as that is known before it.

In: a closed rule, and what is known before a step: hyperparameters, a count, states of one number. Out: the names of
the inputs that the step depends on, and of those that it gives to the steps of other parameters.

A choice by a condition that is known reads one of its sides. What the other side is made of changes no value, whatever
it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from .evaluate import HOST, HyperValues, Value, evaluate
from .expr import Call, Const, Count, Expr, Extent, Given, Load, Local, Reduce, Scalar, children, extent_of, walk
from .rule import Rule

__all__ = ["InputsRead", "inputs_read"]


class InputsRead(NamedTuple):
    """The inputs of one parameter.

    Attributes
    ----------
    own
        Those that its step reads.
    shared
        Those of them that are reduced over all parameters: every parameter gives its own.
    given
        Those that it gives to such reductions, whoever reads what these come to.
    """

    own: frozenset[str]
    shared: frozenset[str]
    given: frozenset[str]


def inputs_read(
    rule: Rule, values: HyperValues, t: int, states: Mapping[str, float], lacking: Collection[str]
) -> InputsRead:
    """Those of the inputs `lacking` that a step of one parameter reads or gives.

    Parameters
    ----------
    rule
        The rule, in the variant that steps the parameter.
    values, t
        Its hyperparameters and its count of updates, this one included.
    states
        Its states of one number, as they are before the step.
    """

    def followed(*exprs: Expr) -> _Reading:
        reading = _Reading(rule, values, t, states, frozenset(lacking))
        reading.follow(exprs)
        return reading

    formulas = {assign.target: assign.value for assign in rule.body}
    roots = rule.stores | rule.reported | {rule.accept}
    own = followed(*(formulas[name] for name in roots if name in formulas))
    over_all = [e for assign in rule.body for e in walk(assign.value) if _is_over_all(e)]
    shared, given = (followed(*(arg for e in each for arg in children(e))) for each in (own.over_all, over_all))
    return InputsRead(*(frozenset(each.found) for each in (own, shared, given)))


def _is_over_all(expr: Expr) -> bool:
    return isinstance(expr, Reduce) and expr.over == Extent.GROUP


class _Reading:
    def __init__(
        self, rule: Rule, values: HyperValues, t: int, states: Mapping[str, float], lacking: frozenset[str]
    ) -> None:
        self.formulas = {assign.target: assign.value for assign in rule.body}
        self.values, self.t, self.states, self.lacking = values, t, states, lacking
        self.found: set[str] = set()
        self.over_all: list[Expr] = []  # the reductions over all parameters that were met
        self._known: dict[str, Value | None] = {}

    def follow(self, exprs: Collection[Expr]) -> None:
        """Note what these values depend on."""
        pending, seen = list(exprs), set()
        while pending:
            for expr in self.read(pending.pop()):
                if isinstance(expr, Local) and expr.name not in seen:
                    seen.add(expr.name)
                    pending.append(self.formulas[expr.name])
                elif isinstance(expr, Load | Given) and (name := _name(expr)) in self.lacking:
                    self.found.add(name)

    def read(self, expr: Expr) -> list[Expr]:
        """The names and arrays that a value depends on."""
        if self.known(expr) is not None:
            return []
        if isinstance(expr, Call) and expr.op == "where" and (test := self.known(expr.args[0])) is not None:
            return self.read(expr.args[1 if test else 2])
        if _is_over_all(expr):
            self.over_all.append(expr)
        below = [each for child in children(expr) for each in self.read(child)]
        return [expr] if isinstance(expr, Local | Load | Given) else below

    def known(self, expr: Expr) -> Value | None:
        """The value of an expression of one number; None if it is not known before the step."""
        match expr:
            case Const() | Scalar() | Count():
                return evaluate(expr, self.values, self.t, {})
            case Given():
                return None if expr.name in self.lacking else evaluate(expr, self.values, self.t, {})
            case Load():
                return self.states.get(expr.array)
            case Local() if extent_of(expr) <= Extent.TENSOR:
                if expr.name not in self._known:
                    self._known[expr.name] = self.known(self.formulas[expr.name])
                return self._known[expr.name]
            case Call() if extent_of(expr) <= Extent.TENSOR:
                return self.called(expr.op, [self.known(arg) for arg in expr.args])
        return None

    def called(self, op: str, args: list[Value | None]) -> Value | None:
        if op in ("and", "or") and (op == "or") in args:  # one false decides `and`, one true decides `or`
            return op == "or"
        if op == "where" and args[0] is not None:
            return args[1 if args[0] else 2]
        found = [arg for arg in args if arg is not None]
        return HOST[op](*found) if len(found) == len(args) else None


def _name(expr: Load | Given) -> str:
    return expr.array if isinstance(expr, Load) else expr.name
