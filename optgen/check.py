"""`SpecAst` to `Rule`s: names, types and extents. Every fault is collected, over all variants, and raised once.

In: the syntax tree of a spec, with the faults of its form. Out: one checked `Rule` for each choice of flags, the
defaults first. What is not checked here: whether a rule converges, or divides by zero.
"""

from __future__ import annotations

import itertools
import keyword
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from .errors import Diagnostic, Span, SpecError
from .ir import (
    GRADIENT,
    PARAMETER,
    Assign,
    Call,
    Const,
    Count,
    Expr,
    Extent,
    Flag,
    Hyper,
    Interval,
    Load,
    Local,
    Rule,
    Scalar,
    State,
    extent_of,
    type_of,
    verify,
)
from .names import is_name
from .ops import FUNCTIONS, LARGEST_POWER, OPS, Type
from .syntax import (
    Broken,
    Choice,
    FlagAst,
    FormulaAst,
    HyperAst,
    Invoke,
    Item,
    Name,
    Number,
    Operation,
    SpecAst,
    StateAst,
    Term,
)

__all__ = ["ARGUMENTS", "check"]

DELTA = "delta"
MOST_FLAGS = 6

#: Names that an optimiser object has for itself, which no hyperparameter or flag may take.
ARGUMENTS = frozenset({
    "self", "backend", "threads", "step", "state", "state_dict", "load_state_dict", "copy", "rule", "spec", "bind",
    "super", "values", "flags",  # these in the generated module
})  # fmt: skip
GIVEN = {PARAMETER: "the parameter", GRADIENT: "the gradient", "t": "the count of updates", DELTA: "the step"}
C_KEYWORDS = frozenset({
    "alignas", "alignof", "asm", "auto", "bool", "break", "case", "char", "const", "constexpr", "continue", "default",
    "do", "double", "else", "enum", "extern", "false", "float", "for", "goto", "if", "inline", "int", "long", "nullptr",
    "register", "restrict", "return", "short", "signed", "sizeof", "static", "static_assert", "struct", "switch",
    "thread_local", "true", "typedef", "typeof", "union", "unsigned", "void", "volatile", "while",
})  # fmt: skip
#: How many unknown names get a suggestion: to look for one takes long where a spec is nothing but faults.
MOST_SUGGESTIONS = 50
_RANGE = re.compile(r"([\[(])\s*([^,\s]+)\s*,\s*([^,\s]+)\s*([\])])")


def check(spec: SpecAst) -> tuple[Rule, ...]:
    """The rule in all its variants, that of the default flags first; SpecError lists every fault of the spec."""
    checker = _Checker(spec)
    checker.check_names()
    hypers = tuple(filter(None, map(checker.hyper, spec.hypers)))
    flags = spec.flags[:MOST_FLAGS]
    defaults = {flag.name: flag.default for flag in spec.flags}
    choices = itertools.product(*((flag.default, not flag.default) for flag in flags))
    rules = [
        checker.variant(hypers, defaults | dict(zip((flag.name for flag in flags), values, strict=True)))
        for values in choices
    ]
    checker.check_uses()
    if checker.faults:
        raise SpecError(spec.file, spec.text, checker.faults)
    return tuple(map(verify, filter(None, rules)))


def interval(text: str) -> Interval | None:
    """`[0, 1)` as an Interval; None if the text is none."""
    match = _RANGE.fullmatch(text.strip())
    try:
        low, high = (float(match[2]), float(match[3])) if match else (math.nan, math.nan)
    except ValueError:
        return None
    if match is None or not low <= high:
        return None
    return Interval(low, high, match[1] == "[", match[4] == "]")


@dataclass
class _Checker:
    """The faults and the uses of names, over all variants."""

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

    def check_names(self) -> None:
        spec = self.spec
        if spec.name:
            self.check_name(spec.name, spec.name_span, "rule")
        seen: dict[str, str] = {}
        vectors = {h.name: len(h.default or ()) for h in spec.hypers if h.vector}
        numbered = {f"{name}{i}": f"{name}[{i}]" for name, size in vectors.items() for i in range(1, size + 1)}
        for what, parts in (("hyperparameter", spec.hypers), ("flag", spec.flags), ("state", spec.states)):
            for part in parts:
                self.check_name(part.name, part.span, what)
                if part.name in seen:
                    message = f"the {what} {part.name!r} shadows the {seen[part.name]} of that name"
                    self.fault(part.span, message, _RENAME)
                elif part.name in numbered:
                    message = f"{part.name!r} is how callers may write {numbered[part.name]}"
                    self.fault(part.span, message, _RENAME)
                elif what != "state" and part.name in ARGUMENTS:
                    self.fault(part.span, f"{part.name!r} is a name that every optimiser has for itself", _RENAME)
                seen.setdefault(part.name, what)
        if len(spec.flags) > MOST_FLAGS:
            message = f"at most {MOST_FLAGS} flags were expected, got {len(spec.flags)}"
            hint = "every choice of flags is a kernel of its own: make two rules"
            self.fault(spec.flags[MOST_FLAGS].span, message, hint)
        called: dict[str, tuple[FlagAst, ...]] = {}
        flags = spec.flags[:MOST_FLAGS]
        for count in range(1, len(flags) + 1):
            for chosen in itertools.combinations(flags, count):
                name = "_".join(flag.name for flag in chosen)
                other = called.setdefault(name, chosen)
                if other is not chosen:
                    longest = max((*other, *chosen), key=lambda flag: len(flag.name))
                    message = f"two variants would be called {name!r}"
                    self.fault(longest.span, message, "variants are called by the flags that are set: rename this one")

    def check_name(self, name: str, span: Span, what: str) -> None:
        if not is_name(name):
            hint = "a name is a letter, then letters, digits and underscores, in ASCII"
            hint += " or Greek" if what != "rule" else ""
            self.fault(span, f"{name!r} cannot be the name of a {what}", hint)
        elif what == "rule" and name == "super":
            self.fault(span, f"{name!r} is a name that every optimiser has for itself", _RENAME)
        elif name in GIVEN and what != "rule":
            self.fault(span, f"the {what} {name!r} shadows the given name {name!r}, {GIVEN[name]}", _RENAME)
        elif name in FUNCTIONS:
            self.fault(span, f"the {what} {name!r} shadows the function {name}()", _RENAME)
        elif keyword.iskeyword(name) or name in C_KEYWORDS:
            self.fault(span, f"{name!r} is a keyword of C or Python, no name for a {what}", _RENAME)

    def hyper(self, ast: HyperAst) -> Hyper | None:
        if not ast.range:
            self.fault(ast.span, f"hyperparameter {ast.name!r} has no range", 'for example: range = "[0, inf)"')
            return None
        range_ = interval(ast.range)
        if range_ is None:
            hint = 'for example: "[0, 1)", "(0, inf)"'
            self.fault(ast.range_span, f"a range was expected, got {ast.range!r}", hint)
            return None
        for value in ast.default or ():
            if value not in range_ or not math.isfinite(value):
                message = f"the default {value:g} of {ast.name!r} is out of its range {range_}"
                self.fault(ast.default_span, message, "change the default or the range")
                return None
        return Hyper(ast.name, ast.default or (), ast.vector, range_, ast.doc)

    def variant(self, hypers: tuple[Hyper, ...], choice: Mapping[str, bool]) -> Rule | None:
        """The rule with these flags; None if a fault was found."""
        before = len(self.faults)
        spec = self.spec
        variant = _Variant(self, choice)
        flags = tuple(Flag(f.name, f.default, f.doc, choice[f.name]) for f in spec.flags)
        states = tuple(filter(None, map(variant.state, spec.states)))
        variant.active = {state.name for state in states}
        variant.begun = True
        for formula in spec.formulas:
            variant.assign(formula)
        variant.finish()
        if len(self.faults) > before:
            return None
        body = tuple(variant.body)
        return Rule(spec.name, spec.summary, spec.reference, hypers, flags, states, body)

    def check_uses(self) -> None:
        """Every name that the spec defines must be read in some variant, and every state written."""
        spec = self.spec
        if spec.faults and not spec.formulas:
            return  # it would be said of everything
        self.used |= spec.unused | spec.unassigned
        self.written |= spec.unassigned
        for what, parts in (("hyperparameter", spec.hypers), ("flag", spec.flags)):
            for part in parts:
                if part.name not in self.used:
                    message = f"the {what} {part.name!r} is never used"
                    self.fault(part.span, message, "use it in a formula, or remove it")
        for state in spec.states:
            if state.name not in self.written:
                hint = f"add a formula: {state.name} = ..."
                self.fault(state.span, f"the state {state.name!r} is never written", hint)
            elif state.name not in self.used:
                self.fault(state.span, f"the state {state.name!r} is written, but never read", "remove it")
            elif state.name in self.idle and not spec.faults:
                message = f"the state {state.name!r} is written, but never read, if {self.idle[state.name]}"
                self.fault(state.span, message, 'a variant has only the states that it needs; add: when = "..."')
        known = {part.name for parts in (spec.hypers, spec.flags, spec.states) for part in parts} | GIVEN.keys()
        for formula in spec.formulas:
            if formula.target not in self.used and formula.target not in known:
                self.fault(formula.span, f"{formula.target!r} is computed, but never used", "use it, or remove it")


@dataclass
class _Variant:
    """One choice of flags: terms become typed expressions. A method that finds a fault gives None."""

    checker: _Checker
    choice: Mapping[str, bool]
    active: set[str] = field(default_factory=set)
    body: list[Assign] = field(default_factory=list)
    locals: dict[str, Local] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    begun: bool = False  # the initial values are done, the formulas follow

    def use(self, name: str) -> None:
        self.read.add(name)
        self.checker.used.add(name)

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
        self.checker.fault(span, message, hint)

    def state(self, ast: StateAst) -> State | None:
        if ast.when is not None and self.decide(ast.when) is False:
            return None
        init = self.expr(ast.init)
        if init is None:
            return State(ast.name, Const(0.0), ast.doc)  # the fault is noted; the formulas may go on
        if extent_of(init) > Extent.CONSTANT or type_of(init) is not Type.REAL:
            self.fault(ast.init.span, *_INITIAL)
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
        target, states = formula.target, self.checker.states
        value = self.expr(formula.value) if target in self.active or target not in states else None
        if target in states:
            self.checker.written.add(target)
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
            hint = "write delta = ..., which is subtracted from p" if target == PARAMETER else _RENAME
            return f"{target!r} is {GIVEN[target]}, which a rule does not assign", hint
        for what, names in (("hyperparameter", self.checker.hypers), ("flag", self.checker.flags)):
            if target in names:
                return f"{target!r} is a {what}, which a rule does not assign", _RENAME
        if not is_name(target):
            return f"{target!r} cannot be a name", "a letter, then letters, digits and underscores, in ASCII or Greek"
        if target in FUNCTIONS:
            return f"{target!r} shadows the function {target}()", _RENAME
        if keyword.iskeyword(target) or target in C_KEYWORDS:
            return f"{target!r} is a keyword of C or Python, no name for a value", _RENAME
        return None

    def finish(self) -> None:
        """The end that every rule has: delta is subtracted from the parameter. States must all be written."""
        spec = self.checker.spec
        if DELTA in self.locals:
            # The one place where this formula stands.
            self.define(PARAMETER, Call("sub", (Load(PARAMETER), self.locals[DELTA])))
        elif DELTA not in self.failed | spec.unassigned and (spec.formulas or not spec.faults):
            message = "no formula gives 'delta', what is subtracted from the parameter"
            self.fault(spec.formulas_span, message, "for example: delta = eta*g")
        for name in self.active - self.read:
            flags = " and ".join(flag if value else f"not {flag}" for flag, value in self.choice.items())
            self.checker.idle.setdefault(name, flags)

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
        if hyper := self.checker.hypers.get(name):
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
        checker, name = self.checker, term.name
        self.use(name)
        if name in checker.spec.unassigned:
            pass
        elif name in self.choice:
            self.fault(term.span, f"the flag {name!r} is no number", f"write: a if {name} else b")
        elif not self.begun and name in checker.states | checker.targets:
            self.fault(term.span, *_INITIAL)
        elif name in checker.states:
            message = f"this variant has no state {name!r}"
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
        if hyper := self.checker.hypers.get(term.name):
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
        if term.name in (self.checker.states | GIVEN.keys() | self.locals.keys()):
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
        return Call(op, tuple(arg for arg in args if arg is not None)) if found else None


_RENAME = "choose another name"
_INITIAL = (
    "an initial value must be a number, made of numbers and hyperparameters only",
    "nothing else is known before the first step",
)
