"""Loops written out: a spec without loops, which is what all that follows knows.

In: the formulas and loops of a spec, as they were read. Out: its formulas in the order in which a step runs them, and
its states; faults are recorded in the spec.

A turn of a loop is its formulas with the loop's name replaced: by a value of a hyperparameter, `beta[2]`, or by a whole
number. What is one of several, `m[b]`, has a name of its own, `m2`. A name that loops assign again and again keeps it
for the last value; the values before are called otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from ..errors import Diagnostic, Span
from ..frozen import frozen, replace
from ..names import numbered
from .limits import MOST_OPERATIONS
from .syntax import (
    Broken,
    Choice,
    FlagAst,
    FormulaAst,
    Gathered,
    Indexed,
    Invoke,
    Item,
    LoopAst,
    Name,
    Number,
    Operation,
    ReportAst,
    SpecAst,
    StateAst,
    Term,
)  # fmt: skip
from .terms import names_in, subterms
from .vocabulary import CALLABLE, GIVEN, RENAME

__all__ = ["write_out"]

#: What the name of a loop stands for in a turn.
Turn: TypeAlias = Number | Item
#: How whole numbers are computed that say which turn or which value is meant.
_WHOLE: dict[str, Callable[..., int | None]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "mod": lambda a, b: a % b if b else None,
    "floordiv": lambda a, b: a // b if b else None,
    "neg": lambda a: -a,
}
_SEVERAL = "expected a hyperparameter with several values, or range(...)"


def write_out(
    spec: SpecAst, statements: Sequence[Sequence[FormulaAst | LoopAst]], evaluation: Sequence[FormulaAst | LoopAst]
) -> None:  # fmt: skip
    """Give a spec its states, reports and the formulas of each phase without loops, and what it evaluates."""
    writer = _Writer(spec, [each for phase in statements for each in phase])
    spec.flags = [writer.flag(flag) for flag in spec.flags]
    spec.states = [member for state in spec.states for member in writer.members_of(state)]
    spec.phases = [
        replace(phase, formulas=writer.formulas(own), when=writer.condition(phase.when))
        for phase, own in zip(spec.phases, statements, strict=True)
    ]
    spec.reports = [writer.report(report) for report in spec.reports]
    spec.evaluation = list(writer.formulas(evaluation))


@frozen
class _Written:
    """A formula in one turn; `turn`: what the names of its loops stand for."""

    formula: FormulaAst
    turn: Mapping[str, Turn]


class _Writer:
    def __init__(self, spec: SpecAst, statements: Sequence[FormulaAst | LoopAst]) -> None:
        self.spec = spec
        self.lists = {h.name: len(h.default or ()) for h in spec.hypers if h.vector}
        self.wholes = {  # hyperparameters that are whole numbers, however they are set
            h.name: int(h.default[0])
            for h in spec.hypers
            if h.default and not h.vector and h.default[0].is_integer() and "whole" in h.ranges[0][0]
        }
        self.counts = {state.name: self.count(state) for state in spec.states if state.each}
        formulas = list(_formulas(statements))
        self.indexed = {formula.target for formula in formulas if formula.index is not None}
        self.single = {
            part.name for parts in (spec.hypers, spec.flags, spec.states, spec.inputs) for part in parts
        } | GIVEN.keys()
        self.taken = {*self.single, *(formula.target for formula in formulas), *CALLABLE}
        self.current: dict[str, str] = {}  # what a name is called since a loop has assigned it
        self.written = 0

    def fault(self, span: Span, message: str, hint: str | None = None) -> Broken:
        self.spec.faults.append(Diagnostic(span, message, hint))
        return Broken(span)

    # ---- Flags and states ----

    def flag(self, flag: FlagAst) -> FlagAst:
        default = self.term(flag.default, {}) if isinstance(flag.default, Term) else flag.default
        return replace(flag, default=default, requires=self.condition(flag.requires))

    def report(self, report: ReportAst) -> ReportAst:
        value, when = self.term(report.value, {}), self.condition(report.when)
        return ReportAst(report.name, report.span, value, when, report.doc)

    def condition(self, test: Term | None) -> Term | None:
        return None if test is None else self.term(test, {})

    def count(self, state: StateAst) -> int:
        """How many states a declaration of several makes."""
        if isinstance(state.each, int):
            if state.each <= MOST_OPERATIONS:
                return state.each
            self.fault(state.each_span, f"expected at most {MOST_OPERATIONS} states, got {state.each}")
        elif state.each in self.lists:
            return self.lists[state.each]
        elif state.each not in self.spec.unused:
            message = f"expected the name of a hyperparameter with several values, got {state.each!r}"
            self.fault(state.each_span, message, 'for example: each = "beta"')
        return 0

    def members_of(self, state: StateAst) -> Iterator[StateAst]:
        """The states that a declaration makes."""
        state = replace(state, init=self.term(state.init, {}), when=self.condition(state.when))
        if not state.each:
            yield state
        for i in range(self.counts.get(state.name, 0)):
            name = f"{state.name}{i + 1}"
            if name in self.taken:
                message = f"{name!r} is how {state.name}[{i + 1}] is called, and another name too"
                self.fault(state.span, message, RENAME)
                return
            yield replace(state, name=name, each=0)

    # ---- Turns ----

    def formulas(self, statements: Sequence[FormulaAst | LoopAst]) -> tuple[FormulaAst, ...]:
        """The formulas that run together, without loops."""
        self.current.clear()
        return tuple(self.named(list(self.turns_of(statements, {}))))

    def turns_of(self, statements: Sequence[FormulaAst | LoopAst], turn: Mapping[str, Turn]) -> Iterator[_Written]:
        """The formulas of all turns, in order."""
        for statement in statements:
            if isinstance(statement, FormulaAst):
                self.written += 1
                if self.written <= MOST_OPERATIONS:
                    yield _Written(statement, turn)
                elif self.written == MOST_OPERATIONS + 1:
                    message = f"expected loops of at most {MOST_OPERATIONS} formulas altogether, got more"
                    self.fault(statement.span, message, "let them have fewer turns")
            else:
                yield from self.turns_of_loop(statement, turn)

    def turns_of_loop(self, loop: LoopAst, turn: Mapping[str, Turn]) -> Iterator[_Written]:
        refused = self.refuses_variable(loop.variable, loop.span, turn)
        values = [] if refused else self.values(loop.over, turn)
        if not values:  # no further faults about what it assigns and reads
            formulas = list(_formulas(loop.body))
            self.spec.unassigned |= {formula.target for formula in formulas}
            self.spec.unused |= names_in(part for formula in formulas for part in subterms(formula.value))
        for value in values:
            if self.written <= MOST_OPERATIONS:
                yield from self.turns_of(loop.body, {**turn, loop.variable: value})

    def refuses_variable(self, name: str, span: Span, turn: Mapping[str, Turn]) -> bool:
        """Record the fault of a loop whose name is another's. Return whether there is one."""
        if name in turn or name in self.taken:
            self.fault(span, f"the name {name!r} of a loop is another's too", RENAME)
            return True
        return False

    def values(self, over: Term, turn: Mapping[str, Turn]) -> list[Turn]:
        """What the name of a loop stands for, turn after turn."""
        match over:
            case Name(span=span, name=name, spelled=spelled) if name in self.lists:
                self.spec.unused.add(name)
                self.spec.looped.add(name)
                return [Item(span, name, spelled, i + 1) for i in range(self.lists[name])]
            case Invoke(span=span, function="range", args=args) if 1 <= len(args) <= 3:
                ends = [end for arg in args if (end := self.whole(arg, turn)) is not None]
                if len(ends) < len(args):
                    hint = 'range(3), or range(steps) with steps = { default = 5, range = "[1, 99], whole" }'
                    self.fault(span, "expected range() of whole numbers that the spec states", hint)
                    return []
                found = range(*ends) if ends[2:] != [0] else range(0)
                if not 0 < len(found) <= MOST_OPERATIONS:
                    got = "none" if not found else f"{len(found)}"
                    self.fault(span, f"expected a loop of 1 to {MOST_OPERATIONS} turns, got {got}")
                    return []
                return [Number(span, float(i), True) for i in found]
            case Broken():
                return []
        if not (isinstance(over, Name) and over.name in self.spec.unassigned | self.spec.unused):
            known = ", ".join(self.lists)
            self.fault(over.span, _SEVERAL, f"there are: {known}" if known else "for example: beta, range(1, 4)")
        self.spec.unused |= names_in(subterms(over))
        return []

    def whole(self, term: Term, turn: Mapping[str, Turn]) -> int | None:
        """The whole number that a term is in a turn; None if it is anything else."""
        match term:
            case Number(value=value, whole=True):
                return int(value)
            case Name(name=name) if name in self.wholes:
                self.spec.fixed.add(name)
                return self.spec.lengths.get(name, self.wholes[name])
            case Name(name=name) if isinstance(turn.get(name), Number):
                return self.whole(turn[name], turn)
            case Invoke(function="len", args=(Name(name=name),)) if name in self.lists or name in self.counts:
                self.spec.unused.add(name)
                return self.lists.get(name, 0) or self.counts.get(name, 0)
            case Operation(op=op, args=args) if op in _WHOLE:
                numbers = [number for arg in args if (number := self.whole(arg, turn)) is not None]
                return _WHOLE[op](*numbers) if len(numbers) == len(args) else None
        return None

    # ---- Terms ----

    def term(self, term: Term, turn: Mapping[str, Turn]) -> Term:
        """A term in a turn."""
        match term:
            case Name(span=span, name=name, spelled=spelled):
                if name in turn:
                    return replace(turn[name], span=span)
                if self.counts.get(name):
                    message = f"{spelled!r} stands for {self.counts[name]} states"
                    return self.fault(span, message, f"write {name}[1] to {name}[{self.counts[name]}]")
                return replace(term, name=self.current.get(name, name))
            case Indexed():
                return self.member(term, turn)
            case Invoke(function="len", args=(_,)):
                count = self.whole(term, turn)
                if count is None:
                    return self.fault(term.span, "len(): expected the name of several values", "for example: len(beta)")
                return Number(term.span, float(count), True)
            case Gathered():
                return self.gathered(term, turn)
            case Operation(args=args) | Invoke(args=args):
                return replace(term, args=tuple(self.term(arg, turn) for arg in args))
            case Choice(test=test, then=then, other=other):
                sides = {"test": test, "then": then, "other": other}
                return replace(term, **{name: self.term(side, turn) for name, side in sides.items()})
        return term

    def index(self, term: Term, turn: Mapping[str, Turn]) -> int | None:
        """Which of several values is meant: a whole number, or the turn of a loop over the values of a list."""
        if isinstance(term, Name) and isinstance(value := turn.get(term.name), Item):
            return value.index
        found = self.whole(term, turn)
        if found is None and not isinstance(term, Broken):
            message = "expected a whole number from 1 as the index, or the name of a loop"
            got = f"; got {term.spelled}" if isinstance(term, Name) else ""
            self.fault(term.span, message + got, "for example: beta[1]")
            self.spec.unused |= names_in(subterms(term))
        return found

    def member(self, term: Indexed, turn: Mapping[str, Turn]) -> Term:
        """One of several values, by its own name; of a hyperparameter, its item."""
        index, name = self.index(term.index, turn), term.name
        if index is None:
            self.spec.unused.add(name)
            return Broken(term.span)
        if name in self.counts:
            if not 1 <= index <= self.counts[name]:
                if not self.counts[name]:
                    return Broken(term.span)  # its declaration has a fault
                message = f"expected {name}[1] to {name}[{self.counts[name]}], got {term.spelled}[{index}]"
                return self.fault(term.span, message, "values are counted from 1")
        elif name not in self.indexed:
            return Item(term.span, name, term.spelled, index)
        own = f"{name}{index}"
        return Name(term.span, self.current.get(own, own), f"{term.spelled}[{index}]")

    def gathered(self, term: Gathered, turn: Mapping[str, Turn]) -> Term:
        """One value of those of all turns."""
        if self.refuses_variable(term.variable, term.variable_span, turn):
            return Broken(term.span)
        found = [self.term(term.value, {**turn, term.variable: each}) for each in self.values(term.over, turn)]
        if not found:
            return Broken(term.span)
        op = {"sum": "add", "mean": "add"}.get(term.function)
        total = found[0]
        for each in found[1:]:
            both = (total, each)
            total = Operation(term.span, op, both) if op else Invoke(term.span, term.function, both)
        if term.function == "mean":
            total = Operation(term.span, "div", (total, Number(term.span, float(len(found)), True)))
        return total

    # ---- Names ----

    def named(self, written: Sequence[_Written]) -> list[FormulaAst]:
        """The formulas of all turns, each with a name of its own."""
        targets = [self.target(each) for each in written]
        last: dict[str, int] = {}
        for i, (target, each) in enumerate(zip(targets, written, strict=True)):
            if target and (target not in last or each.turn):  # outside of loops, nothing is assigned again
                last[target] = i
        formulas = []
        seen: set[str] = set()
        for i, (target, each) in enumerate(zip(targets, written, strict=True)):
            if not target:
                continue
            value = self.term(each.formula.value, each.turn)
            before = self.current.get(target, "")
            again = target in seen and not each.turn
            name = target if again or i == last[target] else numbered(f"{target}_", self.taken)
            formulas.append(FormulaAst(name, each.formula.span, value, before=before, spelled=target))
            self.current[target] = name
            seen.add(target)
        return formulas

    def target(self, written: _Written) -> str:
        """The name that a formula assigns in its turn; empty after a fault."""
        formula = written.formula
        if formula.index is None:
            if self.counts.get(formula.target):
                self.term(Name(formula.span, formula.target, formula.target), {})
                return ""
            return formula.target
        if formula.target in self.single and not self.counts.get(formula.target):
            hint = f'declare several: {formula.target} = {{ init = "0", each = 3 }}'
            self.fault(formula.span, f"{formula.target!r} takes no index", hint)
            return ""
        spelled = Indexed(formula.span, formula.target, formula.target, formula.index)
        member = self.member(spelled, written.turn)
        return member.name if isinstance(member, Name) else ""


def _formulas(statements: Sequence[FormulaAst | LoopAst]) -> Iterator[FormulaAst]:
    for each in statements:
        if isinstance(each, LoopAst):
            yield from _formulas(each.body)
        else:
            yield each
