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
from .names import canonical, is_name
from .ops import FUNCTIONS, LARGEST_POWER, OPS, Type
from .syntax import Broken, Choice, FormulaAst, HyperAst, Invoke, Item, Name, Number, Operation, SpecAst, StateAst, Term

__all__ = ["ARGUMENTS", "check"]

DELTA = "delta"
MOST_FLAGS = 6

#: Names that an optimiser object has for itself, which no hyperparameter or flag may take.
ARGUMENTS = frozenset(
    ("self", "backend", "threads", "step", "state", "state_dict", "load_state_dict", "copy", "rule", "spec", "bind")
)
GIVEN = {PARAMETER: "the parameter", GRADIENT: "the gradient", "t": "the count of updates", DELTA: "the step"}
C_KEYWORDS = frozenset({
    "alignas", "alignof", "asm", "auto", "bool", "break", "case", "char", "const", "constexpr", "continue", "default",
    "do", "double", "else", "enum", "extern", "false", "float", "for", "goto", "if", "inline", "int", "long", "nullptr",
    "register", "restrict", "return", "short", "signed", "sizeof", "static", "static_assert", "struct", "switch",
    "thread_local", "true", "typedef", "typeof", "union", "unsigned", "void", "volatile", "while",
})  # fmt: skip
_RANGE = re.compile(r"([\[(])\s*([^,\s]+)\s*,\s*([^,\s]+)\s*([\])])")


def check(spec: SpecAst) -> tuple[Rule, ...]:
    """The rule in all its variants, that of the default flags first; SpecError lists every fault of the spec."""
    checker = _Checker(spec)
    checker.check_names()
    hypers = tuple(filter(None, map(checker.hyper, spec.hypers)))
    flags = spec.flags[:MOST_FLAGS]
    choices = itertools.product(*((flag.default, not flag.default) for flag in flags))
    rules = [checker.variant(hypers, dict(zip((f.name for f in flags), values, strict=True))) for values in choices]
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

    def __post_init__(self) -> None:
        self.faults.extend(self.spec.faults)

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

    def check_name(self, name: str, span: Span, what: str) -> None:
        if not is_name(name):
            hint = "a name is a letter, then letters, digits and underscores, in ASCII or Greek"
            self.fault(span, f"{name!r} cannot be the name of a {what}", hint)
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
        flags = tuple(Flag(f.name, f.default, f.doc, choice[f.name]) for f in spec.flags if f.name in choice)
        states = tuple(filter(None, map(variant.state, spec.states)))
        variant.active = {state.name for state in states}
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
        if spec.faults:  # a formula that could not be read may use any name in it
            self.used.update(map(canonical, re.findall(r"\w+", spec.source)))
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

    def fault(self, span: Span, message: str, hint: str | None = None) -> None:
        self.checker.fault(span, message, hint)

    def state(self, ast: StateAst) -> State | None:
        if ast.when is not None and self.decide(ast.when) is not True:
            return None
        init = self.expr(ast.init)
        if init is None:
            return State(ast.name, Const(0.0), ast.doc)  # the fault is noted; the formulas may go on
        if extent_of(init) > Extent.CONSTANT or type_of(init) is not Type.REAL:
            message = f"the initial value of {ast.name!r} must be made of numbers and hyperparameters only"
            self.fault(ast.init.span, message, "the gradient, the parameter and t are not known before the first step")
        return State(ast.name, init, ast.doc)

    def decide(self, test: Term) -> bool | None:
        """The truth of a condition on flags."""
        match test:
            case Name() if test.name in self.choice:
                self.checker.used.add(test.name)
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
        flags = ", ".join(self.choice) or "none here"
        hint = f"flags: {flags}; to choose by a value, write where(condition, a, b)"
        self.fault(test.span, "a condition of flags was expected (flag, not, and, or)", hint)
        return None

    def assign(self, formula: FormulaAst) -> None:
        target, spec = formula.target, self.checker.spec
        states = {state.name for state in spec.states}
        value = self.expr(formula.value) if target in self.active or target not in states else None
        if target in states:
            self.checker.written.add(target)
            if target not in self.active:
                return  # a state that this variant does not have
        problem = self.target_fault(target, states)
        if problem:
            self.fault(formula.span, *problem)
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
        spec = self.checker.spec
        if target in self.locals or target in self.failed:
            return f"{target!r} is assigned twice", "each name is assigned once; give the second value its own name"
        if target in states or target == DELTA:
            return None
        if target in GIVEN:
            hint = "write delta = ..., which is subtracted from p" if target == PARAMETER else _RENAME
            return f"{target!r} is {GIVEN[target]}, which a rule does not assign", hint
        for what, parts in (("hyperparameter", spec.hypers), ("flag", spec.flags)):
            if target in {part.name for part in parts}:
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
        elif DELTA not in self.failed and not spec.unread:
            message = "no formula gives 'delta', what is subtracted from the parameter"
            self.fault(spec.formulas_span, message, "for example: delta = eta*g")

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
                return None
            case Broken():
                return None

    def name(self, term: Name) -> Expr | None:
        name, spec = term.name, self.checker.spec
        if name in self.locals:
            self.checker.used.add(name)
            return self.locals[name]
        if name in self.active:
            self.checker.used.add(name)
            return Load(name)
        if name in (PARAMETER, GRADIENT):
            return Load(name)
        if name == "t":
            return Count()
        for hyper in spec.hypers:
            if hyper.name == name:
                self.checker.used.add(name)
                if not hyper.vector:
                    return Scalar(name, 0)
                size = len(hyper.default or ("", ""))
                self.fault(term.span, f"{term.spelled!r} has {size} values", f"write {name}[1] to {name}[{size}]")
                return None
        if name in self.failed:
            self.checker.used.add(name)
            return None
        self.unknown(term)
        return None

    def unknown(self, term: Name) -> None:
        spec, name = self.checker.spec, term.name
        if name in self.choice:
            self.checker.used.add(name)
            self.fault(term.span, f"the flag {name!r} is no number", f"write: a if {name} else b")
        elif any(state.name == name for state in spec.states):
            message = f"this variant has no state {name!r}"
            self.fault(term.span, message, "choose with the flag that it depends on: a if flag else b")
        elif any(formula.target == name for formula in spec.formulas):
            self.checker.used.add(name)
            hint = "formulas run in order; move the one that gives it before this one"
            self.fault(term.span, f"{term.spelled!r} is used before it has a value", hint)
        else:
            known = [*(h.name for h in spec.hypers), *(s.name for s in spec.states), *GIVEN]
            known += [*(f.target for f in spec.formulas), *FUNCTIONS]
            close = get_close_matches(name, [k for k in known if k != name], 1)
            hint = "define it as a hyperparameter or a state, or before this formula"
            if close:
                hint = f"did you mean {close[0]!r}?"
            self.fault(term.span, f"unknown name {term.spelled!r}", hint)

    def item(self, term: Item) -> Expr | None:
        for hyper in self.checker.spec.hypers:
            if hyper.name != term.name:
                continue
            self.checker.used.add(term.name)
            size = len(hyper.default or ())
            if not hyper.vector:
                if hyper.default:
                    message = f"{term.spelled!r} is one number, not several"
                    self.fault(term.span, message, f"write {term.name}")
            elif not 1 <= term.index <= size:
                message = f"{term.name}[1] to {term.name}[{size}] was expected, got {term.spelled}[{term.index}]"
                self.fault(term.span, message, "values are counted from 1")
            else:
                return Scalar(term.name, term.index)
            return None
        known = any(term.name == part.name for part in self.checker.spec.states) or term.name in GIVEN
        if known or term.name in self.locals:
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
