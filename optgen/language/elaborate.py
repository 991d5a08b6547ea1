"""Elaboration of one variant of a rule: turns terms into typed expressions, and resolves names.

In: a choice of flags, and the syntax tree of a spec in the `Scope` that all its variants share. Out: states and a body,
of which `check` makes a `Rule`. Faults and used names are recorded in the scope.
"""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import Diagnostic, Span
from ..ir.compose import ACCEPT, DELTA, GIVEN_GRADIENT, PROCEED
from ..ir.expr import (
    COUNTS,
    GRADIENT,
    PARAMETER,
    Call,
    Const,
    Count,
    Expr,
    Extent,
    Given,
    Load,
    Local,
    Reduce,
    Scalar,
    extent_of,
    joint_extent,
    type_of,
    varies_within,
    walk,
)
from ..ir.primitives import FUNCTIONS, LARGEST_POWER, OPS, REDUCTIONS, Type
from ..ir.rule import Assign, State
from ..names import close_matches, is_name
from .syntax import Broken, Choice, FormulaAst, Invoke, Item, Name, Number, Operation, SpecAst, StateAst, Term
from .vocabulary import (
    C_KEYWORDS,
    CALLABLE,
    GIVEN,
    GIVEN_TO_PARTS,
    INITIAL,
    MATRIX,
    MOST_SUGGESTIONS,
    NO_OUTPUT,
    NOT_YET,
    OUTPUTS,
    OVER,
    OVER_WORDS,
    RENAME,
    SAID_AS,
    SUM_AS_PRODUCT,
    WRITTEN_OUT,
)

__all__ = ["Scope", "Variant"]

_COMPARE = "compare it: x > 0"


@dataclass
class Scope:
    """What a spec defines, and what the elaboration of its variants has found out."""

    spec: SpecAst
    faults: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    idle: dict[str, str] = field(default_factory=dict)  # states that some variant keeps and never reads
    hints: dict[str, str] = field(default_factory=dict)  # by unknown name
    remembered: set[str] = field(default_factory=set)  # states that start as p, and need not change afterwards

    def __post_init__(self) -> None:
        spec = self.spec
        self.faults.extend(spec.faults)
        self.states = {state.name for state in spec.states}
        self.targets = {formula.target for formula in spec.formulas}
        self.hypers = {hyper.name: hyper for hyper in reversed(spec.hypers)}
        self.flags = {flag.name for flag in spec.flags}
        self.inputs = {each.name: Extent[each.extent.upper()] for each in spec.inputs}
        own = {*self.states, *self.targets, *self.hypers, *self.flags, *self.inputs}
        own &= {"rows", "columns"}  # these may be taken
        self.given = {name: what for name, what in GIVEN.items() if name not in own}
        self.given |= GIVEN_TO_PARTS if spec.part else {}
        self.by_matrix = False  # whether matrices have a variant of their own

    def fault(self, span: Span, message: str, hint: str | None = None) -> None:
        self.faults.append(Diagnostic(span, message, hint))

    def warn(self, span: Span, message: str, hint: str) -> None:
        self.warnings.append(Diagnostic(span, message, hint))


@dataclass
class Variant:
    """The elaboration of one choice of flags. A method that finds a fault returns None."""

    scope: Scope
    choice: Mapping[str, bool]
    active: dict[str, Extent] = field(default_factory=dict)  # the states of this variant
    body: list[Assign] = field(default_factory=list)
    locals: dict[str, Local] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    begun: bool = False  # whether the initial values are done
    uses: bool = True  # whether reading a name counts as a use
    unneeded: frozenset[str] = frozenset()  # what only other variants need
    assigned: str = ""  # whose formula is read

    def use(self, name: str) -> None:
        if self.uses:
            self.read.add(name)
            self.scope.used.add(name)

    def use_all(self, term: Term) -> None:
        """Mark all names in an undecidable term as used, since any of them may be."""
        match term:
            case Name() | Item():
                self.use(term.name)
            case Operation() | Invoke():
                for arg in term.args:
                    self.use_all(arg)
            case Choice():
                for part in (term.test, term.then, term.other):
                    self.use_all(part)

    def fault(self, span: Span, message: str, hint: str | None = None) -> None:
        self.scope.fault(span, message, hint)

    def state(self, ast: StateAst) -> State | None:
        if ast.when is not None and self.decide(ast.when) is False:
            return None
        extent = Extent[ast.extent.upper()]
        init = self.expr(ast.init)
        if init is None:
            return State(
                ast.name, Const(0.0), ast.doc, extent
            )  # the fault is recorded; formulas may still use the state
        leaves = {e for e in walk(init) if not isinstance(e, Const | Scalar | Call)}
        if type_of(init) is not Type.REAL or not leaves <= {Load(PARAMETER)}:
            self.fault(ast.init.span, *INITIAL)
        elif leaves and extent < Extent.ELEMENT:
            message = _wrong_extent(ast.name, extent, Extent.ELEMENT)
            self.fault(ast.init.span, message, "only a state with a value for each element may start as p")
        if Extent.MATRIX <= extent < Extent.ELEMENT and not self.choice[MATRIX]:
            message = f"{ast.name!r} has {extent.words}, and there is none where the parameter is no matrix"
            self.fault(ast.extent_span, message, 'add: when = "matrix"')
        if leaves:
            self.scope.remembered.add(ast.name)
        return State(ast.name, init, ast.doc, extent)

    def decide(self, test: Term) -> bool | None:
        """Decide a condition of flags. None after a fault."""
        match test:
            case Name() if test.name in self.choice:
                self.use(test.name)
                return self.choice[test.name]
            case Operation(op="not", args=(arg,)):
                value = self.decide(arg)
                return None if value is None else not value
            case Operation(op=("and" | "or") as op, args=args):
                left, right = map(self.decide, args)
                if left is None or right is None:
                    return None
                return (left and right) if op == "and" else (left or right)
            case Broken():
                return None
        self.use_all(test)
        flags = ", ".join(self.choice) or "none here"
        close = close_matches(test.name, self.choice) if isinstance(test, Name) else []
        hint = f"did you mean {close[0]!r}? " if close else ""
        hint += f"flags: {flags}"
        self.fault(test.span, "expected a condition of flags (flag, not, and, or)", hint)
        return None

    def condition(self, test: Term) -> bool | Expr | None:
        """Decide the flags in a test: true, false, or the condition that is left. None after a fault."""
        match test:
            case Name() if test.name in self.choice:
                self.use(test.name)
                return self.choice[test.name]
            case Operation(op="not", args=(arg,)):
                inner = self.condition(arg)
                return not inner if isinstance(inner, bool) else self.call("not", test, [inner])
            case Operation(op=("and" | "or") as op, args=args):
                left, right = map(self.condition, args)
                if isinstance(left, bool):  # `true and x` is x, and `true or x` is true
                    return right if left is (op == "and") else left
                if isinstance(right, bool):
                    return left if right is (op == "and") else right
                return self.call(op, test, [left, right])
        value = self.expr(test)
        if value is not None and type_of(value) is not Type.BOOL:
            self.fault(test.span, f"expected {Type.BOOL.value}, got {Type.REAL.value}", _COMPARE)
            return None
        return value

    def choose(self, term: Choice) -> Expr | None:
        """Choose a side if flags decide. Otherwise, leave the choice to where the rule runs."""
        test = self.condition(term.test)
        if isinstance(test, bool):  # the other side is checked in the variants that have it
            return self.expr(term.then if test else term.other)
        sides = (term.test, term.then, term.other)
        return self.call("where", Invoke(term.span, "where", sides), [test, *map(self.expr, sides[1:])])

    def assign(self, formula: FormulaAst) -> None:
        if formula.target in self.unneeded:
            self.failed.add(formula.target)  # nothing that this variant computes reads it
            return
        target, states = formula.target, self.scope.states
        self.assigned = target
        value = self.expr(formula.value) if target in self.active or target not in states else None
        if target in states:
            self.scope.written.add(target)
            if target not in self.active:
                return  # this variant lacks the state
        if self.refuses_target(formula):
            self.use(target)  # no further faults about it
            if target not in self.locals:
                self.failed.add(target)
        elif value is None or self.refuses_value(formula, value):
            self.failed.add(target)
        else:
            self.define(target, value)

    def is_assigned(self, name: str) -> bool:
        """Whether an earlier formula has assigned this name, with or without a fault."""
        return name in self.locals or name in self.failed

    def refuses_target(self, formula: FormulaAst) -> bool:
        """Record a fault if a formula must not assign its name. Return whether there is one."""
        target, scope = formula.target, self.scope
        before = len(scope.faults)
        if self.is_assigned(target):
            hint = "each name is assigned once; give the second value its own name"
            self.fault(formula.span, f"{target!r} is assigned twice", hint)
        elif target in (DELTA, PARAMETER):
            if target not in OUTPUTS[scope.spec.part]:
                message = f"a part {scope.spec.part!r} assigns {OUTPUTS[scope.spec.part][0]!r}, got {target!r}"
                hint = "'delta' goes on in the gradient's place, 'p' is the new parameter"
                self.fault(formula.span, message, hint)
            elif self.is_assigned(DELTA) or self.is_assigned(PARAMETER):
                hint = "a rule gives either delta, what is subtracted from p, or p itself"
                self.fault(formula.span, "both 'delta' and 'p' are assigned", hint)
        elif target in scope.states or target in (PROCEED, ACCEPT) or (target == GIVEN_GRADIENT and scope.spec.part):
            pass
        elif target in scope.given:
            self.fault(formula.span, f"{target!r} is {scope.given[target]}, which a rule does not assign", RENAME)
        elif target in scope.hypers:
            self.fault(formula.span, f"{target!r} is a hyperparameter, which a rule does not assign", RENAME)
        elif target in scope.flags:
            self.fault(formula.span, f"{target!r} is a flag, which a rule does not assign", RENAME)
        elif target in scope.inputs:
            self.fault(formula.span, f"{target!r} is an input, which a rule does not assign", RENAME)
        elif not is_name(target):
            hint = "a letter, then letters, digits and underscores, in ASCII or Greek"
            self.fault(formula.span, f"{target!r} cannot be a name", hint)
        elif target in CALLABLE:
            self.fault(formula.span, f"{target!r} shadows the function {target}()", RENAME)
        elif keyword.iskeyword(target) or target in C_KEYWORDS:
            self.fault(formula.span, f"{target!r} is a keyword of C or Python, no name for a value", RENAME)
        return len(scope.faults) > before

    def refuses_value(self, formula: FormulaAst, value: Expr) -> bool:
        """Record a fault if a value does not fit its target. Return whether there is one."""
        target, span = formula.target, formula.value.span
        extent, number = extent_of(value), type_of(value) is Type.REAL
        own = self.active.get(target, Extent.ELEMENT)
        before = len(self.scope.faults)
        if target in (PROCEED, ACCEPT) and number:
            self.fault(span, f"{target!r}: expected a condition, got a number", _COMPARE)
        elif target == PROCEED and extent > Extent.TENSOR:
            message = _wrong_extent(target, Extent.TENSOR, extent, " or less")
            self.fault(span, message, "reduce what it compares: sum(x), max(x), norm(x)")
        elif target == ACCEPT and extent != Extent.GROUP:
            hint = "reduce what it compares over the group: max(x, group)"
            self.fault(span, _wrong_extent(target, Extent.GROUP, extent), hint)
        elif target == GIVEN_GRADIENT and self.scope.spec.part and not (number and extent == Extent.CONSTANT):
            message = "'grad', what the gradient is left as: expected a number or a hyperparameter"
            self.fault(span, message, "for example: grad = 0")
        elif (target in self.active or target in (DELTA, PARAMETER)) and not number:
            self.fault(span, f"{target!r}: expected a number, got a condition", "write a if condition else b")
        elif not extent <= own:
            over = "" if own == Extent.TENSOR else f", {own.name.lower()}"
            reduced = ", ".join(f"{name}(x{over})" for name in ("sum", "mean", "norm"))
            hint = f"reduce it: {reduced}; or give the state another extent"
            self.fault(span, _wrong_extent(target, own, extent), hint)
        return len(self.scope.faults) > before

    def define(self, target: str, value: Expr) -> None:
        self.body.append(Assign(target, value))
        self.locals[target] = Local(target, extent_of(value), type_of(value))

    def finish(self) -> None:
        """Check that there is an output, and that every kept state is read."""
        spec = self.scope.spec
        outputs = {DELTA, PARAMETER}
        if not outputs & (self.locals.keys() | self.failed | spec.unassigned) and (spec.formulas or not spec.faults):
            self.fault(spec.formulas_span, *NO_OUTPUT[spec.part])
        for name in self.active.keys() - self.read:
            self.scope.idle.setdefault(name, self.chosen())

    def chosen(self) -> str:
        """The flags of this variant in words."""
        names = [name for name in self.choice if name != MATRIX or self.scope.by_matrix]
        return " and ".join(name if self.choice[name] else f"not {name}" for name in names)

    def expr(self, term: Term) -> Expr | None:
        match term:
            case Number():
                return Const(term.value)
            case Name():
                return self.name(term)
            case Item():
                return self.item(term)
            case Operation():
                return self.operation(term)
            case Invoke():
                return self.invoke(term)
            case Choice():
                return self.choose(term)
            case Broken():
                return None

    def name(self, term: Name) -> Expr | None:
        name = term.name
        if name in self.locals:
            self.use(name)
            return self.locals[name]
        if name in self.active:
            self.use(name)
            return Load(name, self.active[name])
        if name in (PARAMETER, GRADIENT) or (name in GIVEN_TO_PARTS and self.scope.spec.part):
            return Load(name)
        if name == "t":
            return Count()
        if name in self.scope.inputs and self.begun:
            self.use(name)
            return Load(name) if self.scope.inputs[name] == Extent.ELEMENT else Given(name)
        if (count := COUNTS.get(name)) and name in self.scope.given:
            if count.over > Extent.TENSOR and not self.choice[MATRIX]:
                message = f"there are no {name} where the parameter is no matrix"
                self.fault(term.span, message, "choose with the given flag: a if matrix else b")
                return None
            return count
        if hyper := self.scope.hypers.get(name):
            self.use(name)
            if not hyper.vector:
                return Scalar(name, 0)
            if hyper.default:
                size = len(hyper.default)
                self.fault(term.span, f"{term.spelled!r} has {size} values", f"write {name}[1] to {name}[{size}]")
            return None
        if name in self.failed:
            self.use(name)
            return None
        self.unknown(term)
        return None

    def unknown(self, term: Name) -> None:
        checker, name = self.scope, term.name
        self.use(name)
        if name in checker.spec.unassigned:
            pass
        elif name in self.choice:
            self.fault(term.span, f"the flag {name!r} is no number", f"write: a if {name} else b")
        elif not self.begun and name in checker.states | checker.targets | checker.inputs.keys():
            self.fault(term.span, *INITIAL)
        elif name in checker.states:
            message = f"there is no state {name!r} if {self.chosen()}"
            self.fault(term.span, message, "choose with the flag that it depends on: a if flag else b")
        elif name in OVER:
            hint = f"for example: norm(g, {name})"
            self.fault(term.span, f"{name!r} is an extent, which is written last in a reduction", hint)
        elif name in checker.targets:
            hint = f'declare it, if it is kept from step to step: [state] {name} = {{ init = "0" }}'
            if name != self.assigned:
                hint = f"formulas run in order: move the one that gives it before this one; or {hint}"
            self.fault(term.span, f"{term.spelled!r} is used before it has a value", hint)
        elif name == DELTA:
            hint = "give the step a name of its own, and assign p = p - step"
            self.fault(term.span, f"{term.spelled!r} has no value where p itself is assigned", hint)
        elif name in GIVEN_TO_PARTS:
            hint = 'write part = "gradient" or part = "parameter" at the top, if this is one'
            self.fault(term.span, f"{term.spelled!r} is given to parts of chains only", hint)
        else:
            if name not in checker.hints:
                hint = "define it as a hyperparameter, an input or a state, or before this formula"
                if len(checker.hints) < MOST_SUGGESTIONS:
                    known = sorted({
                        *checker.hypers, *checker.flags, *checker.inputs, *checker.states, *checker.targets,
                        *checker.given, *CALLABLE,
                    })  # fmt: skip
                    if close := close_matches(name, known):
                        hint = f"did you mean {close[0]!r}?"
                checker.hints[name] = hint
            self.fault(term.span, f"unknown name {term.spelled!r}", checker.hints[name])

    def item(self, term: Item) -> Expr | None:
        if hyper := self.scope.hypers.get(term.name):
            self.use(term.name)
            size = len(hyper.default or ())
            if not hyper.vector:
                if hyper.default:
                    message = f"{term.spelled!r} is one number, not several"
                    self.fault(term.span, message, f"write {term.name}")
            elif not size:
                pass  # its default has a fault
            elif not 1 <= term.index <= size:
                message = f"expected {term.name}[1] to {term.name}[{size}], got {term.spelled}[{term.index}]"
                self.fault(term.span, message, "values are counted from 1")
            else:
                return Scalar(term.name, term.index)
            return None
        if term.name in (self.scope.states | self.scope.inputs.keys() | self.scope.given.keys() | self.locals.keys()):
            self.use(term.name)
            self.fault(term.span, f"{term.spelled!r} takes no index", "formulas work element by element")
        else:
            self.unknown(Name(term.span, term.name, term.spelled))
        return None

    def operation(self, term: Operation) -> Expr | None:
        args = [self.expr(arg) for arg in term.args]
        exponent = term.args[-1]
        whole = isinstance(exponent, Number) and exponent.whole and 2 <= exponent.value <= LARGEST_POWER
        return self.call("powi" if term.op == "pow" and whole else term.op, term, args)

    def invoke(self, term: Invoke) -> Expr | None:
        name, last = term.function, term.args[-1] if term.args else None
        if name in REDUCTIONS:
            if isinstance(last, Name) and last.name in OVER:
                return self.reduce(term, term.args[:-1], OVER[last.name])
            # `max(a, b)` is the larger of two values, `max(a)` the maximum over all elements.
            if name not in FUNCTIONS or len(term.args) != len(OPS[name].takes):
                return self.reduce(term, term.args, None)
        if name == "where" and len(term.args) == 3:
            return self.choose(Choice(term.span, *term.args))
        if name == "clip" and len(term.args) == 3:
            x, low, high = term.args
            return self.invoke(Invoke(term.span, "min", (Invoke(term.span, "max", (x, low)), high)))
        args = [self.expr(arg) for arg in term.args]
        if name == "clip":
            self.fault(term.span, f"clip(): expected 3 arguments, got {len(args)}", "write clip(x, low, high)")
            return None
        if name not in FUNCTIONS:
            close = close_matches(name, (*CALLABLE, *WRITTEN_OUT))
            hint = f"did you mean {close[0]}()? " if close else ""
            hint += f"there are: {', '.join((*CALLABLE, *WRITTEN_OUT))}"
            hint = f"write {SAID_AS[name]}" if name in SAID_AS else hint
            message = f"unknown function {name!r}"
            if what := NOT_YET.get(name):
                message += f": {what} cannot be said in this language yet"
            self.fault(term.span, message, hint)
            return None
        takes = len(OPS[name].takes)
        if len(args) != takes:
            arguments = "1 argument" if takes == 1 else f"{takes} arguments"
            self.fault(term.span, f"{name}(): expected {arguments}, got {len(args)}")
            return None
        return self.call(name, term, args)

    def reduce(self, term: Invoke, given: tuple[Term, ...], named: Extent | None) -> Expr | None:
        """Elaborate a reduction over the `named` extent, or over the parameter if there is none."""
        over, name = named or Extent.TENSOR, term.function
        if len(given) != REDUCTIONS[name]:
            self.wrong_number(term, given, named)
            return None
        args = [self.expr(arg) for arg in given]
        found = [arg for arg in args if arg is not None]
        for arg, place in zip(args, given, strict=True):
            if arg is not None and type_of(arg) is not Type.REAL:
                self.fault(place.span, "expected a number, got a condition", "write 1 if condition else 0")
                found.remove(arg)
        if len(found) < len(args):
            return None
        if not self.choice[MATRIX] and Extent.MATRIX <= over < Extent.ELEMENT:
            message = f"there is no {over.name.lower()} where the parameter is no matrix"
            self.fault(term.span, message, "choose with the given flag: a if matrix else b")
            return None
        of = joint_extent(found)
        if varies_within(of, over):
            return Reduce(name, tuple(found), over)
        words = f"{name}() over {OVER_WORDS[over]} was given {of.words}"
        wider = [extent.name.lower() for extent in OVER.values() if extent < over and varies_within(of, extent)]
        written = f"{name}({', '.join('xy'[: len(found)])}, {wider[-1]})" if wider else ""
        if {of, over} == {Extent.ROW, Extent.COLUMN}:
            self.fault(term.span, f"{words}, not one for each element", f"to reduce all of these, write {written}")
        else:
            hint = "leave the reduction out"
            if name == "sum" and over in SUM_AS_PRODUCT:
                hint = f"a sum of equal values is a product: write {SUM_AS_PRODUCT[over]}"
            hint += f", or write {written}" if wider else ""
            self.fault(term.span, f"{words}, which is the same all over it", hint)
        return None

    def wrong_number(self, term: Invoke, given: tuple[Term, ...], named: Extent | None) -> None:
        """Record the fault of a reduction with too few or too many arguments."""
        name, takes, last = term.function, REDUCTIONS[term.function], given[-1] if given else None
        extents = ", ".join(OVER)
        unknown = isinstance(last, Name) and last.name not in self.known() - COUNTS.keys()
        if named is None and len(given) == takes + 1 and isinstance(last, Name) and unknown:
            close = close_matches(last.name, OVER)
            hint = f"did you mean {close[0]!r}? " if close else ""
            self.fault(last.span, f"expected an extent, got {last.spelled!r}", f"{hint}there are: {extents}")
            self.use(last.name)
            given = given[:-1]
        elif name not in FUNCTIONS:
            words, values = "1 value" if takes == 1 else f"{takes} values", ", ".join("xy"[:takes])
            hint = f"write {name}({values}), or {name}({values}, row) with one of {extents}"
            self.fault(term.span, f"{name}(): expected {words}, then an extent if it has one; got {len(given)}", hint)
        elif named is None:
            hint = f"nest it: {name}(a, {name}(b, c)); {name}(x) is that of all elements"
            self.fault(term.span, f"{name}(): expected 1 or 2 values, got {len(given)}", hint)
        else:
            over = named.name.lower()
            hint = f"write {name}(x, {over}); {name}(a, b) has no extent, it is that of two values"
            self.fault(term.span, f"{name}() over {OVER_WORDS[named]}: expected 1 value, got {len(given)}", hint)
        for arg in given:
            if not isinstance(arg, Name) or arg.name not in OVER:
                self.expr(arg)

    def known(self) -> set[str]:
        """All names with a meaning in this spec."""
        scope = self.scope
        defined = {*scope.hypers, *scope.flags, *scope.inputs, *scope.states, *scope.targets}
        return {*defined, *scope.given, *scope.spec.unassigned}

    def call(self, op: str, term: Operation | Invoke, args: list[Expr | None]) -> Expr | None:
        found = True
        for expected, arg, place in zip(OPS[op].takes, args, term.args, strict=True):
            if arg is None:
                found = False
            elif type_of(arg) is not expected:
                hint = "write 1 if condition else 0" if expected is Type.REAL else _COMPARE
                self.fault(place.span, f"expected {expected.value}, got {type_of(arg).value}", hint)
                found = False
        if found and op == "div" and args[1] == Const(0.0):
            self.fault(term.span, "a division by zero", "write the condition that you mean: a/x if x > 0 else b")
            return None
        return Call(op, tuple(arg for arg in args if arg is not None)) if found else None


def _wrong_extent(name: str, expected: Extent, got: Extent, least: str = "") -> str:
    return f"{name!r}: expected {expected.words}{least}, got {got.words}"
