"""Traversals: which sweeps over memory a step needs on one course.

In: a lowered rule, the conditions under which its values are needed, and a course. Out: its sweeps, in order.

A value reduced over elements is known after a sweep over them; what depends on it waits for the next sweep. Nothing
else waits. Of a value that several sweeps need, only what memory holds is kept: a state that was written is read again,
anything else is computed again, to the same bits. So is a state that its storage rounds: formulas see it as it was
computed.
"""

from __future__ import annotations

from ..ir.expr import Expr, Extent, Load, Local, Reduce, children, extent_of, rebuilt, reduces_elements, walk
from ..ir.rule import Assign, Rule
from .courses import Condition, Course, Needs, costly, under
from .work import Sweep

__all__ = ["Traversals", "reduction_key"]


class Traversals:
    """The sweeps of a step on one course; on the empty one, of any step.

    `level` of a value: after how many sweeps it can be known. `written`: in which sweep an array is written.
    """

    def __init__(self, rule: Rule, conditions: Needs, course: Course = ()) -> None:
        self.rule = rule
        self.conditions = conditions
        self.course = course
        self.scalars = {a.target: a.value for a in rule.scalars}
        self.values = {a.target: a.value for a in rule.body}
        self._on_course: dict[tuple[str, Course], Expr] = {}
        self.level: dict[str, int] = {}
        self.given: dict[str, int] = {}  # of a reduction: after how many sweeps its tensors have given to it
        last = 0
        for assign in rule.body:
            self.level[assign.target] = self.given[assign.target] = self.known_after(assign.value)
            if reduction_key(assign.value) >= 0:
                last = self.level[assign.target] = max(self.level[assign.target], last)
        self.arrays = set(rule.arrays)
        self.rounded = {name for name, _ in rule.storages}
        # Nothing is written before it is known that the step counts.
        counts = max((self.level.get(name, 0) for name in rule.verdict), default=0)
        self.written = {name: max(self.level[name], counts) for name in rule.stores if name in self.arrays}
        reduced = [self.given[a.target] for a in rule.body if reduces_elements(a.value)]
        self.count = max([0, *(1 + k for k in self.written.values()), *reduced])
        while self.put_off() or self.leave_out():
            pass

    def known_after(self, expr: Expr) -> int:
        own = 1 if reduces_elements(expr) else 0
        return own + max((self.level.get(e.name, 0) for e in walk(expr) if isinstance(e, Local)), default=0)

    def put_off(self) -> bool:
        """Puts off the writing of one array to a sweep that still reads its old value; False if there is none."""
        for k in range(self.count):
            for name in self.needs(k)[2]:
                if self.written.get(name, k) < k:
                    self.written[name] = k
                    return True
        return False

    def leave_out(self) -> bool:
        """Leaves out a sweep that only writes on this course: a later one writes for it; False if there is none."""
        for k in range(self.count - 1 if self.course else 0):
            roots = self.roots(k)
            later = next((i for i in range(k + 1, self.count) if self.roots(i)), None)
            if roots and later is not None and self.course_of(k) == self.course and self.written.keys() >= set(roots):
                self.written |= dict.fromkeys(roots, later)
                return True
        return False

    def course_of(self, k: int) -> Course:
        """The conditions of the course that are known before sweep k."""
        return tuple(each for each in self.course if self.level.get(each.test.name, 0) <= k)

    def value(self, name: str, k: int) -> Expr:
        """A value as it is in sweep k on this course."""
        key = name, self.course_of(k)
        if key not in self._on_course:
            self._on_course[key] = under(self.values[name], key[1], self.conditions)
        return self._on_course[key]

    def roots(self, k: int) -> list[str]:
        """What sweep k is for: arrays to write, values to fold."""
        excluded = {each.opposite for each in self.course_of(k)}
        written, used = self.conditions.written, self.conditions.used
        return [
            a.target
            for a in self.rule.body
            if (self.written.get(a.target) == k and excluded.isdisjoint(written[a.target]))
            or (reduces_elements(a.value) and self.given[a.target] == k + 1 and excluded.isdisjoint(used[a.target]))
        ]

    def needs(self, k: int) -> tuple[set[str], set[str], set[str]]:
        """Of sweep k: the values that it computes, the arrays that it reads as an earlier sweep has written them, and
        those that it reads as they were before the step."""
        computed: set[str] = set()
        new: set[str] = set()
        old: set[str] = set()
        pending = self.roots(k)
        while pending:
            name = pending.pop()
            if name in computed:
                continue
            computed.add(name)
            for e in walk(self.value(name, k)):
                if isinstance(e, Load) and e.extent == Extent.ELEMENT:
                    old.add(e.array)
                elif isinstance(e, Local) and self.is_of_elements(e.name):
                    if self.written.get(e.name, k) < k and e.name not in self.rounded:
                        new.add(e.name)
                    else:
                        pending.append(e.name)
        return computed, new, old

    def is_of_elements(self, name: str) -> bool:
        return name in self.values and extent_of(self.values[name]) == Extent.ELEMENT

    def sweep(self, k: int) -> Sweep | None:
        """Sweep k on this course; None if there is nothing to do in it."""
        computed, new, old = self.needs(k)
        if not computed:
            return None

        def read(expr: Expr) -> Expr:
            if isinstance(expr, Local) and expr.name in new:
                return Load(expr.name)
            return rebuilt(expr, tuple(map(read, children(expr))))

        body: list[Assign] = []
        reductions: list[Assign] = []
        for assign in self.rule.body:
            if assign.target in computed:
                into = reductions if reduces_elements(assign.value) else body
                into.append(Assign(assign.target, read(self.value(assign.target, k))))
        stores = tuple(name for name in self.rule.arrays if self.written.get(name) == k and name in self.roots(k))
        loads = tuple(name for name in self.rule.arrays if name in old | new)
        return Sweep(k, self.course_of(k), loads, frozenset(new), tuple(body), stores, tuple(reductions))

    # ---- What a course is worth ----

    def on(self, condition: Condition) -> Traversals:
        """The sweeps on this course where the condition holds too."""
        return Traversals(self.rule, self.conditions, (*self.course, condition))

    def cost(self, k: int) -> int:
        """What sweep k costs for each element: reads, writes, values to fold, and operations that take long."""
        sweep = self.sweep(k)
        if sweep is None:
            return 0
        folded = len(sweep.reductions)
        return sweep.traffic + folded + costly(a.value for a in (*sweep.body, *sweep.reductions))

    @property
    def whole_cost(self) -> int:
        return sum(map(self.cost, range(self.count)))


def reduction_key(expr: Expr) -> int:
    """Which reduction over the group this is, where tensors in two variants take part in it; else -1."""
    return expr.key if isinstance(expr, Reduce) else -1
