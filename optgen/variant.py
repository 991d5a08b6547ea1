"""One variant of a rule, a choice of its flags: terms become typed expressions, names get their meaning.

In: the syntax tree of a spec, through the `Scope` that all its variants share, and a choice. Out: states and a body, as
`check` puts them into a `Rule`; the faults, and which names were used, go to the scope.
"""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from .errors import Diagnostic, Span
from .ir import (
    GRADIENT,
    PARAMETER,
    Assign,
    Call,
    Const,
    Count,
    Expr,
    Extent,
    Load,
    Local,
    Scalar,
    State,
    extent_of,
    type_of,
)
from .names import is_name
from .ops import FUNCTIONS, LARGEST_POWER, OPS, Type
from .syntax import Broken, Choice, FormulaAst, Invoke, Item, Name, Number, Operation, SpecAst, StateAst, Term

__all__ = ["C_KEYWORDS", "GIVEN", "RENAME", "Scope", "Variant"]

DELTA = "delta"
GIVEN = {PARAMETER: "the parameter", GRADIENT: "the gradient", "t": "the count of updates", DELTA: "the step"}
C_KEYWORDS = frozenset({
    "alignas", "alignof", "asm", "auto", "bool", "break", "case", "char", "const", "constexpr", "continue", "default",
    "do", "double", "else", "enum", "extern", "false", "float", "for", "goto", "if", "inline", "int", "long", "nullptr",
    "register", "restrict", "return", "short", "signed", "sizeof", "static", "static_assert", "struct", "switch",
    "thread_local", "true", "typedef", "typeof", "union", "unsigned", "void", "volatile", "while",
})  # fmt: skip
#: How many unknown names get a suggestion: to look for one takes long where a spec is nothing but faults.
MOST_SUGGESTIONS = 50
RENAME = "choose another name"
INITIAL = (
    "an initial value must be a number, made of numbers and hyperparameters only",
    "nothing else is known before the first step",
)


@dataclass
class Scope:
    """What a spec defines, and what was found out about it over all its variants."""

    spec: SpecAst
    faults: list[Diagnostic] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    idle: dict[str, str] = field(default_factory=dict)  # states that some variant has and never reads
    hints: dict[str, str] = field(default_factory=dict)  # what to do about an unknown name

    def __post_init__(self) -> None:
        spec = self.spec
        self.faults.extend(spec.faults)
        self.states = {state.name for state in spec.states}
        self.targets = {formula.target for formula in spec.formulas}
        self.hypers = {hyper.name: hyper for hyper in reversed(spec.hypers)}
        self.flags = {flag.name for flag in spec.flags}

    def fault(self, span: Span, message: str, hint: str | None = None) -> None:
        self.faults.append(Diagnostic(span, message, hint))


@dataclass
class Variant:
    """One choice of flags: terms become typed expressions. A method that finds a fault gives None."""

    scope: Scope
    choice: Mapping[str, bool]
    active: set[str] = field(default_factory=set)
    body: list[Assign] = field(default_factory=list)
    locals: dict[str, Local] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    begun: bool = False  # the initial values are done, the formulas follow

    def use(self, name: str) -> None:
        self.read.add(name)
        self.scope.used.add(name)

    def use_all(self, term: Term) -> None:
        """Of a term that cannot be decided, any part may be meant."""
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
        init = self.expr(ast.init)
        if init is None:
            return State(ast.name, Const(0.0), ast.doc)  # the fault is noted; the formulas may go on
        if extent_of(init) > Extent.CONSTANT or type_of(init) is not Type.REAL:
            self.fault(ast.init.span, *INITIAL)
        return State(ast.name, init, ast.doc)

    def decide(self, test: Term) -> bool | None:
        """The truth of a condition on flags."""
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
        hint = f"flags: {flags}; to choose by a value, write where(condition, a, b)"
        self.fault(test.span, "a condition of flags was expected (flag, not, and, or)", hint)
        return None

    def assign(self, formula: FormulaAst) -> None:
        target, states = formula.target, self.scope.states
        value = self.expr(formula.value) if target in self.active or target not in states else None
        if target in states:
            self.scope.written.add(target)
            if target not in self.active:
                return  # a state that this variant does not have
        problem = self.target_fault(target, states)
        if problem:
            self.fault(formula.span, *problem)
            self.use(target)  # nothing more is said of it, here or where it is read
            if target not in self.locals:
                self.failed.add(target)
        elif value is None:
            self.failed.add(target)
        elif type_of(value) is not Type.REAL and (target in states or target == DELTA):
            message = f"{target!r} must be a number, got a condition"
            self.fault(formula.value.span, message, "write where(condition, a, b)")
            self.failed.add(target)
        else:
            self.define(target, value)

    def define(self, target: str, value: Expr) -> None:
        self.body.append(Assign(target, value))
        self.locals[target] = Local(target, extent_of(value), type_of(value))

    def target_fault(self, target: str, states: set[str]) -> tuple[str, str | None] | None:
        if target in self.locals or target in self.failed:
            return f"{target!r} is assigned twice", "each name is assigned once; give the second value its own name"
        if target in states or target == DELTA:
            return None
        if target in GIVEN:
            hint = "write delta = ..., which is subtracted from p" if target == PARAMETER else RENAME
            return f"{target!r} is {GIVEN[target]}, which a rule does not assign", hint
        for what, names in (("hyperparameter", self.scope.hypers), ("flag", self.scope.flags)):
            if target in names:
                return f"{target!r} is a {what}, which a rule does not assign", RENAME
        if not is_name(target):
            return f"{target!r} cannot be a name", "a letter, then letters, digits and underscores, in ASCII or Greek"
        if target in FUNCTIONS:
            return f"{target!r} shadows the function {target}()", RENAME
        if keyword.iskeyword(target) or target in C_KEYWORDS:
            return f"{target!r} is a keyword of C or Python, no name for a value", RENAME
        return None

    def finish(self) -> None:
        """The end that every rule has: delta is subtracted from the parameter. States must all be written."""
        spec = self.scope.spec
        if DELTA in self.locals:
            # The one place where this formula stands.
            self.define(PARAMETER, Call("sub", (Load(PARAMETER), self.locals[DELTA])))
        elif DELTA not in self.failed | spec.unassigned and (spec.formulas or not spec.faults):
            message = "no formula gives 'delta', what is subtracted from the parameter"
            self.fault(spec.formulas_span, message, "for example: delta = eta*g")
        for name in self.active - self.read:
            flags = " and ".join(flag if value else f"not {flag}" for flag, value in self.choice.items())
            self.scope.idle.setdefault(name, flags)

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
                value = self.decide(term.test)
                if value is not None:  # the other side is checked in the variants that have it
                    return self.expr(term.then if value else term.other)
                self.use_all(term)
                return None
            case Broken():
                return None

    def name(self, term: Name) -> Expr | None:
        name = term.name
        if name in self.locals:
            self.use(name)
            return self.locals[name]
        if name in self.active:
            self.use(name)
            return Load(name)
        if name in (PARAMETER, GRADIENT):
            return Load(name)
        if name == "t":
            return Count()
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
        elif not self.begun and name in checker.states | checker.targets:
            self.fault(term.span, *INITIAL)
        elif name in checker.states:
            flags = " and ".join(flag if value else f"not {flag}" for flag, value in self.choice.items())
            message = f"there is no state {name!r} if {flags}"
            self.fault(term.span, message, "choose with the flag that it depends on: a if flag else b")
        elif name in checker.targets:
            hint = "formulas run in order; move the one that gives it before this one"
            self.fault(term.span, f"{term.spelled!r} is used before it has a value", hint)
        else:
            if name not in checker.hints:
                hint = "define it as a hyperparameter or a state, or before this formula"
                if len(checker.hints) < MOST_SUGGESTIONS:
                    known = sorted({*checker.hypers, *checker.states, *checker.targets, *GIVEN, *FUNCTIONS})
                    if close := get_close_matches(name, known, 1):
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
                pass  # its default is at fault
            elif not 1 <= term.index <= size:
                message = f"{term.name}[1] to {term.name}[{size}] was expected, got {term.spelled}[{term.index}]"
                self.fault(term.span, message, "values are counted from 1")
            else:
                return Scalar(term.name, term.index)
            return None
        if term.name in (self.scope.states | GIVEN.keys() | self.locals.keys()):
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
        args = [self.expr(arg) for arg in term.args]
        if term.function not in FUNCTIONS:
            close = get_close_matches(term.function, FUNCTIONS, 1)
            hint = f"did you mean {close[0]}()? " if close else ""
            hint += f"there are: {', '.join(FUNCTIONS)}"
            self.fault(term.span, f"unknown function {term.function!r}", hint)
            return None
        takes = len(OPS[term.function].takes)
        if len(args) != takes:
            arguments = "1 argument" if takes == 1 else f"{takes} arguments"
            nested = f"nest it: {term.function}(a, {term.function}(b, c))" if term.function in ("min", "max") else None
            self.fault(term.span, f"{term.function}() takes {arguments}, got {len(args)}", nested)
            return None
        return self.call(term.function, term, args)

    def call(self, op: str, term: Operation | Invoke, args: list[Expr | None]) -> Expr | None:
        found = True
        for expected, arg, place in zip(OPS[op].takes, args, term.args, strict=True):
            if arg is None:
                found = False
            elif type_of(arg) is not expected:
                hint = "write where(condition, 1, 0)" if expected is Type.REAL else "compare it: x > 0"
                self.fault(place.span, f"{expected.value} was expected, got {type_of(arg).value}", hint)
                found = False
        if found and op == "div" and args[1] == Const(0.0):
            self.fault(term.span, "a division by zero", "write the condition that you mean: where(x > 0, a/x, b)")
            return None
        return Call(op, tuple(arg for arg in args if arg is not None)) if found else None
