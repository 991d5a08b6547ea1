"""Courses: what of a step is needed only where a condition holds that is known before the work.

In: a lowered rule. Out: for each value the conditions under which it is needed; expressions as they are under such
conditions; and whether work is worth a course of its own.

    condition = Condition(test, holds)      `test`: a named condition of one value for each tensor, or less
    course    = condition*                  all of which hold

A choice between two values by such a condition needs one of them. What only the other one is made of need not be
computed, and an array that the choice leaves as it was need not be written. The value chosen is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

from ..frozen import frozen, replace
from ..ir.expr import Call, Count, Expr, Extent, Load, Local, Reduce, children, extent_of, rebuilt, type_of, walk
from ..ir.primitives import Type
from ..ir.rule import Assign, Rule

__all__ = ["Condition", "Course", "Needs", "costly", "lasting", "under"]


@frozen
class Condition:
    test: Local
    holds: bool

    @property
    def opposite(self) -> Condition:
        return replace(self, holds=not self.holds)


Course: TypeAlias = tuple[Condition, ...]

#: What takes no longer than a few instructions. Any other primitive is worth a course.
_CHEAP = frozenset({
    "neg", "add", "sub", "mul", "div", "powi", "sqrt", "abs", "sign", "floor", "min", "max",
    "lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not", "where",
})  # fmt: skip
#: What takes as long as several others of those.
_DEAR = {"pow": 3}
_OPPOSITE = {"ne": "eq"}
#: What a comparison of t with a number is for all t from some step on.
_IN_THE_END = {"lt": False, "le": False, "eq": False, "ne": True, "gt": True, "ge": True}
_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}


class Needs:
    """The conditions under which the values of a rule are needed.

    `used`: those of each name that is read. `written`: those under which an array is assigned anything but itself.
    """

    def __init__(self, rule: Rule) -> None:
        self.used: dict[str, frozenset[Condition]] = {}
        self.written: dict[str, frozenset[Condition]] = {}
        self.tested: dict[Condition, None] = {}  # in order: those that choices are made by
        self._conditions = _conditions((*rule.scalars, *rule.body))
        arrays, kept = set(rule.arrays), {rule.accept, *rule.reported, *(state.name for state in rule.small_states)}
        for assign in reversed(rule.body):
            name, value = assign.target, assign.value
            path = self.used.get(name)
            if name in arrays:
                self.written[name] = self.changes(value, name)
                path = self.written[name] & (self.written[name] if path is None else path)
            elif path is None or name in kept or extent_of(value) <= Extent.GROUP:
                # Of a reduction over the group every parameter takes part, whatever becomes of its value there.
                path = self.used[name] = frozenset()
            self._use(value, path)
        #: The tests that decide whether an array is written, or a reduction is needed.
        reduced = (self.used[a.target] for a in rule.body if isinstance(a.value, Reduce))
        self.deciding = {each.test for needed in (*self.written.values(), *reduced) for each in needed}

    def condition(self, test: Expr) -> Condition | None:
        """The condition that a test is; None for one of elements, rows, columns or matrices."""
        plain, holds = _plain(test)
        found = self._conditions.get(plain.name) if isinstance(plain, Local) else None
        return found if found is None or holds else found.opposite

    def changes(self, value: Expr, array: str) -> frozenset[Condition]:
        """The conditions under which `value` is another one than that of the array."""
        if isinstance(value, Call) and value.op == "where" and (condition := self.condition(value.args[0])):
            for kept, side, when in ((2, 1, condition), (1, 2, condition.opposite)):
                same = value.args[kept]
                if isinstance(same, Load) and same.array == array:
                    return self.changes(value.args[side], array) | {when}
        return frozenset()

    def _use(self, expr: Expr, path: frozenset[Condition]) -> None:
        if isinstance(expr, Local):
            self.used[expr.name] = self.used.get(expr.name, path) & path
        elif isinstance(expr, Call) and expr.op == "where" and (condition := self.condition(expr.args[0])):
            test, then, other = expr.args
            self.tested[replace(condition, holds=True)] = None
            self._use(test, path)
            self._use(then, path | {condition})
            self._use(other, path | {condition.opposite})
        else:
            for child in children(expr):
                self._use(child, path)


def _conditions(assigns: Iterable[Assign]) -> dict[str, Condition]:
    """The conditions among these values by their names. Those that are opposites of each other are one condition."""
    named: dict[str, Condition] = {}
    known: dict[Expr, Condition] = {}
    for assign in assigns:
        if type_of(assign.value) is Type.BOOL and extent_of(assign.value) <= Extent.TENSOR:
            plain, holds = _plain(assign.value)
            own = Condition(Local(assign.target, extent_of(assign.value), Type.BOOL), holds)
            same = named.get(plain.name, own) if isinstance(plain, Local) else known.setdefault(plain, own)
            named[assign.target] = same if holds else same.opposite
    return named


def _plain(test: Expr) -> tuple[Expr, bool]:
    """A condition as one without a negation in front; and whether it is that one, or the opposite."""
    match test:
        case Call(op="not", args=(inner,)):
            plain, holds = _plain(inner)
            return plain, not holds
        case Call(op=op, args=args) if op in _OPPOSITE:
            return Call(_OPPOSITE[op], args), False
    return test, True


def under(expr: Expr, course: Course, needs: Needs) -> Expr:
    """`expr` with the choices made that a course decides."""
    if not course:
        return expr
    if isinstance(expr, Call) and expr.op == "where" and (condition := needs.condition(expr.args[0])):
        if condition in course:
            return under(expr.args[1], course, needs)
        if condition.opposite in course:
            return under(expr.args[2], course, needs)
    return rebuilt(expr, tuple(under(arg, course, needs) for arg in children(expr)))


def costly(exprs: Iterable[Expr]) -> int:
    """How many of the operations in these expressions take long; a power counts as several."""
    calls = (e for expr in exprs for e in walk(expr) if isinstance(e, Call) and e.op not in _CHEAP)
    return sum(_DEAR.get(call.op, 1) for call in calls)


def lasting(condition: Condition, values: Mapping[str, Expr]) -> Collection[bool]:
    """What a condition is again and again in a long training, or may be."""
    end = _in_the_end(condition.test, values)
    return (True, False) if end is None else (end is condition.holds,)


def _in_the_end(test: Expr, values: Mapping[str, Expr]) -> bool | None:
    match test:
        case Local(name=name) if name in values:
            return _in_the_end(values[name], values)
        case Call(op="not", args=(inner,)):
            end = _in_the_end(inner, values)
            return None if end is None else not end
        case Call(op=("and" | "or") as op, args=args):
            ends = [_in_the_end(arg, values) for arg in args]
            return (op == "or") if (op == "or") in ends else None if None in ends else op == "and"
        case Call(op=op, args=(a, b)) if op in _IN_THE_END:
            if _is_count(b, values):
                a, b, op = b, a, _MIRRORED.get(op, op)
            if _is_count(a, values) and _is_constant(b, values):
                return _IN_THE_END[op]
    return None


def _is_count(expr: Expr, values: Mapping[str, Expr]) -> bool:
    return isinstance(values.get(expr.name) if isinstance(expr, Local) else expr, Count)


def _is_constant(expr: Expr, values: Mapping[str, Expr]) -> bool:
    leaves = (values.get(e.name, e) if isinstance(e, Local) else e for e in walk(expr))
    return all(extent_of(leaf) == Extent.CONSTANT for leaf in leaves)
