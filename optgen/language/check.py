"""`SpecAst` to `Rule`s: checks names, types and extents.

In: the syntax tree of a spec, with the faults of its form. Out: one checked `Rule`, open or closed, for each choice of
flags, the defaults first; or one `SpecError` with every fault of all variants.

A rule that distinguishes matrices has two variants for each choice, the one for matrices first. Whether a rule
converges, or divides by zero, is not checked.
"""

from __future__ import annotations

import itertools
import keyword
import math
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence

from ..errors import Span, SpecError, SpecWarning
from ..ir.compose import ACCEPT, DELTA, PROCEED, close
from ..ir.evaluate import evaluate
from ..ir.expr import (
    COUNTS,
    PARAMETER,
    Call,
    Expr,
    Extent,
    Local,
    Reduce,
    Rows,
    children,
    reduces,
    type_of,
    walk,
)
from ..ir.primitives import Type
from ..ir.rule import Flag, Hyper, Input, Interval, Part, Rule
from ..ir.verify import verify
from ..names import is_name
from .elaborate import Scope, Variant
from .syntax import Choice, FlagAst, HyperAst, InputAst, Invoke, Item, Name, Operation, SpecAst, StateAst, Term
from .vocabulary import C_KEYWORDS, CALLABLE, MATRIX, OVER, RENAME

__all__ = ["ARGUMENTS", "MOST_REDUCTIONS", "check", "check_open"]

MOST_FLAGS = 6
MOST_REDUCTIONS = 32
#: How many operators, functions, choices and assignments a spec may have.
MOST_OPERATIONS = 2000
#: How many a variant may have if all of them are counted once more for each reduction, since what a reduction is taken
#: of may have to be computed again in the sweep that needs it; and how many all variants may have together.
MOST_WORK, MOST_WORK_OF_ALL = 4000, 16_000

SMALLER = "make two rules, and a chain of them"

#: Names that an optimiser object has for itself, which no hyperparameter or flag may take.
ARGUMENTS = frozenset({
    "self", "backend", "threads", "step", "state", "state_dict", "load_state_dict", "save", "load", "copy",
    "rule", "spec", "bind", "parts", "parameters",
})  # fmt: skip
#: What a step is called with already.
STEP_ARGUMENTS = frozenset({"self", "params", "grads", "closure"})
_RANGE = re.compile(r"([\[(])\s*([^,\s]+)\s*,\s*([^,\s]+)\s*([\])])\s*(,\s*whole)?")


def check(spec: SpecAst) -> tuple[Rule, ...]:
    """Check a spec. Return its closed variants, the default one first. Raises a SpecError that lists every fault."""
    return tuple(verify(close(rule)) for rule in check_open(spec))


def check_open(spec: SpecAst) -> tuple[Rule, ...]:
    """Check a spec as `check` does, and return its variants open, as parts of chains need them."""
    checker = _Checker(spec)
    checker.check_size()
    checker.find_shapes()
    checker.find_values()
    checker.check_names()
    hypers = tuple(filter(None, map(checker.hyper, spec.hypers)))
    checker.decide_defaults(hypers)
    choices = checker.choices()
    needed = [checker.needed(choice) for choice in choices]
    everywhere = frozenset[str]().union(*needed)
    rules = [
        checker.variant(hypers, choice, everywhere - own) for choice, own in zip(choices, needed, strict=True)
    ]  # fmt: skip
    checker.check_uses()
    checker.check_groups(tuple(filter(None, rules)))
    checker.check_reductions(tuple(filter(None, rules)))
    checker.check_work(tuple(filter(None, rules)))
    if checker.faults:
        raise SpecError(spec.file, spec.text, checker.faults)
    for each in checker.warnings:
        warnings.warn(each.render(spec.file, spec.text.split("\n")), SpecWarning, stacklevel=3)
    return tuple(filter(None, rules))


def interval(text: str) -> Interval | None:
    """Read an interval such as `[0, 1)` or `[1, inf), whole`. None for any other text."""
    match = _RANGE.fullmatch(text.strip())
    try:
        low, high = (float(match[2]), float(match[3])) if match else (math.nan, math.nan)
    except ValueError:
        return None
    if match is None or not low <= high:
        return None
    return Interval(low, high, match[1] == "[", match[4] == "]", match[5] is not None)


class _Checker(Scope):
    """The checks of one spec: its names, its variants, and at last whether every name is used."""

    conditions: dict[str, Expr | None]  # of flags that hyperparameters decide
    defaults: dict[str, bool]
    values: dict[str, list[tuple[Term, frozenset[str]]]]  # by the name that formulas give them to
    of_group: set[str]  # the names whose formulas reduce over the group
    tiled: bool  # whether it mentions rows, columns or matrices

    def find_values(self) -> None:
        """Collect the values given to each name, with the names that they read, unless a choice decides which."""
        self.values, self.of_group = {}, set()
        for formula in self.spec.formulas:
            terms = list(_terms(formula.value))
            chooses = any(_is_choice(term) for term in terms)
            names = frozenset() if chooses else frozenset(term.name for term in terms if isinstance(term, Name))
            self.values.setdefault(formula.target, []).append((formula.value, names))
            last = [term.args[-1] for term in terms if isinstance(term, Invoke) and term.args]
            if any(isinstance(name, Name) and name.name == Extent.GROUP.name.lower() for name in last):
                self.of_group.add(formula.target)

    def find_shapes(self) -> None:
        """Find out whether matrices have a variant of their own."""
        spec = self.spec
        terms = [formula.value for formula in spec.formulas]
        terms += [state.when for state in spec.states if state.when is not None]
        self.by_matrix = any(map(_mentions_matrix, terms))
        extents = (state.extent for state in spec.states)
        self.tiled = any(_tiled(term, self.given) for term in terms) or any(map(_counts_tiles, extents))
        if spec.rows != Rows.LAST and not self.tiled and not spec.faults:
            message = f"{spec.rows!r} says which rows are meant, and nothing here has rows"
            self.fault(spec.rows_span, message, "remove it, or reduce over rows: mean(g, row)")

    def check_names(self) -> None:
        spec = self.spec
        if spec.name:
            self.check_name(spec.name, spec.name_span, "rule")
        seen: dict[str, str] = {}
        vectors = {h.name: len(h.default or ()) for h in spec.hypers if h.vector}
        numbered = {f"{name}{i}": f"{name}[{i}]" for name, size in vectors.items() for i in range(1, size + 1)}
        of_kinds: tuple[tuple[str, Sequence[HyperAst | FlagAst | StateAst | InputAst]], ...] = (
            ("hyperparameter", spec.hypers), ("flag", spec.flags), ("state", spec.states), ("input", spec.inputs)
        )  # fmt: skip
        for what, parts in of_kinds:
            for part in parts:
                self.check_name(part.name, part.span, what)
                if part.name in seen:
                    message = f"the {what} {part.name!r} shadows the {seen[part.name]} of that name"
                    self.fault(part.span, message, RENAME)
                elif part.name in numbered:
                    message = f"{part.name!r} is how callers may write {numbered[part.name]}"
                    self.fault(part.span, message, RENAME)
                elif what == "input" and part.name in STEP_ARGUMENTS:
                    self.fault(part.span, f"{part.name!r} is what a step is called with already", RENAME)
                elif what in ("hyperparameter", "flag") and part.name in ARGUMENTS:
                    self.fault(part.span, f"{part.name!r} is a name that every optimiser has for itself", RENAME)
                seen.setdefault(part.name, what)
        if len(spec.flags) > MOST_FLAGS:
            message = f"expected at most {MOST_FLAGS} flags, got {len(spec.flags)}"
            hint = "every choice of flags is a kernel of its own: make two rules"
            self.fault(spec.flags[MOST_FLAGS].span, message, hint)
        called: dict[str, tuple[FlagAst, ...]] = {}
        flags = spec.flags[:MOST_FLAGS]
        for count in range(1, len(flags) + 1):
            for chosen in itertools.combinations(flags, count):
                for shape in ("", "_matrix") if self.by_matrix else ("",):
                    name = "_".join(flag.name for flag in chosen) + shape
                    other = called.setdefault(name, chosen)
                    if other is not chosen:
                        longest = max((*other, *chosen), key=lambda flag: len(flag.name))
                        message = f"two variants would be called {name!r}"
                        hint = "variants are called by the flags that are set: rename this one"
                        self.fault(longest.span, message, hint)

    def check_name(self, name: str, span: Span, what: str) -> None:
        if not is_name(name):
            hint = "a name is a letter, then letters, digits and underscores, in ASCII"
            hint += " or Greek" if what != "rule" else ""
            self.fault(span, f"{name!r} cannot be the name of a {what}", hint)
        elif (name in self.given or name in (PROCEED, ACCEPT)) and what != "rule":
            meaning = self.given.get(name, "whether the step goes on" if name == PROCEED else "whether the step counts")
            self.fault(span, f"the {what} {name!r} shadows the given name {name!r}, {meaning}", RENAME)
        elif name in CALLABLE:
            self.fault(span, f"the {what} {name!r} shadows the function {name}()", RENAME)
        elif keyword.iskeyword(name) or name in C_KEYWORDS:
            hint = "write lam, or λ in quotes" if name == "lambda" else RENAME
            self.fault(span, f"{name!r} is a keyword of C or Python, no name for a {what}", hint)

    def hyper(self, ast: HyperAst) -> Hyper | None:
        default = ast.default or ()
        if len(ast.ranges) > 1 and default and len(ast.ranges) != len(default):
            values = f"{len(default)} values" if ast.vector else "one value"
            message = f"{ast.name!r} has {values}, got {len(ast.ranges)} ranges"
            self.fault(ast.ranges[0][1], message, "give one range for all values, or a list with one for each")
            return None
        ranges = []
        for text, span in ast.ranges:
            found = interval(text)
            if found is None:
                self.fault(span, f"expected a range, got {text!r}", 'for example: "[0, 1)", "(0, inf)"')
                return None
            ranges.append(found)
        ranges *= len(default) if len(ranges) == 1 else 1
        for i, (value, within) in enumerate(zip(default, ranges, strict=False)):
            if value not in within:
                name = f"{ast.name}[{i + 1}]" if ast.vector else ast.name
                message = f"the default {value:g} of {name!r} is out of its range {within}"
                self.fault(ast.default_span, message, "change the default or the range")
                return None
        return Hyper(ast.name, default, ast.vector, tuple(ranges), ast.doc)

    def decide_defaults(self, hypers: tuple[Hyper, ...]) -> None:
        """Determine the default of each flag. Conditions are evaluated for the defaults of the hyperparameters."""
        flags = self.spec.flags
        self.defaults = {flag.name: flag.default is True for flag in flags}
        self.conditions = {flag.name: self.condition(flag) for flag in flags if not isinstance(flag.default, bool)}
        values = {hyper.name: hyper.default for hyper in hypers}
        known = len(values) == len(self.hypers) and all(values.values())  # none has a fault
        for name, condition in self.conditions.items():
            if condition is not None and known:
                self.defaults[name] = bool(evaluate(condition, values, 0, {}))

    def condition(self, flag: FlagAst) -> Expr | None:
        """The condition, made of hyperparameters, that decides a flag."""
        term = flag.default
        assert not isinstance(term, bool)
        for name in _terms(term):
            if isinstance(name, Name | Item) and name.name not in self.hypers:
                self.fault(name.span, *self.no_condition(flag, name.name))
                return None
        condition = Variant(self, {MATRIX: False}).expr(term)
        if condition is not None and type_of(condition) is not Type.BOOL:
            self.fault(term.span, *self.no_condition(flag))
            return None
        return condition

    def no_condition(self, flag: FlagAst, name: str = "") -> tuple[str, str]:
        """Message and hint for a flag whose default is anything else."""
        message = f"{flag.name!r}: expected true, false, or a condition of hyperparameters as the default"
        if name in self.flags | {MATRIX}:
            return message, 'what other flags must be is said by: requires = "..."'
        return message, 'for example: "momentum != 0"'

    def choices(self) -> list[dict[str, bool]]:
        """All consistent choices of flags, each with a value of the given flag `matrix`."""
        flags = self.spec.flags[:MOST_FLAGS]
        turns = itertools.product((False, True), repeat=len(flags))
        turned = [
            self.defaults | {f.name: self.defaults[f.name] != turn for f, turn in zip(flags, each, strict=True)}
            for each in turns
        ]
        found = [choice for choice in turned if all(self.allows(flag, choice) for flag in flags)]
        for flag in flags:
            if flag.requires is None:
                continue
            if not any(choice[flag.name] for choice in found):
                message = f"{flag.name!r} can never be set, since it requires {flag.requires_text}"
                self.fault(flag.requires.span, message, "let it require what the other flags allow")
            elif not self.allows(flag, self.defaults) and None not in self.conditions.values():
                message = f"{flag.name!r} is set by default, and what it requires is not: {flag.requires_text}"
                self.fault(flag.requires.span, message, "let the defaults agree with each other")
        shapes = (True, False) if self.by_matrix else (self.tiled,)
        return [{**choice, MATRIX: shape} for shape in shapes for choice in found]

    def allows(self, flag: FlagAst, choice: Mapping[str, bool]) -> bool:
        """Whether the requirement of a flag holds, if the flag is set. True too after a fault in the requirement."""
        if flag.requires is None:
            return True
        # A requirement does not count as a use of the flags in it.
        scope = Variant(self, {name: value for name, value in choice.items() if name != flag.name}, uses=False)
        return scope.decide(flag.requires) is not False or not choice[flag.name]

    def needed(self, choice: Mapping[str, bool]) -> frozenset[str]:
        """What the variant with these flags computes: its outputs, its states, all that they are made of.

        A reduction over the group is always among it: every parameter takes part.
        """
        kept = {s.name for s in self.spec.states if s.when is None or _decided(s.when, choice) is not False}
        found = self.values.keys() & {DELTA, PARAMETER, PROCEED, ACCEPT, *self.given, *kept, *self.of_group}
        pending = list(found)
        while pending:
            for value, names in self.values[pending.pop()]:
                read = names or {part.name for part in _terms_with(value, choice) if isinstance(part, Name)}
                new = (read & self.values.keys()) - found
                pending += new
                found |= new
        return frozenset(found)

    def variant(
        self, hypers: tuple[Hyper, ...], choice: Mapping[str, bool], unneeded: frozenset[str]
    ) -> Rule | None:  # fmt: skip
        """The variant with these flags, without the formulas that only others need. None if it has a fault."""
        before = len(self.faults)
        spec = self.spec
        variant = Variant(self, choice, unneeded=unneeded)
        flags = tuple(
            Flag(
                name=f.name,
                default=self.defaults[f.name],
                doc=f.doc,
                value=choice[f.name],
                when=self.conditions.get(f.name),
                requires=f.requires_text,
            )
            for f in spec.flags
        )
        states = tuple(filter(None, map(variant.state, spec.states)))
        variant.active = {state.name: state.extent for state in states}
        variant.begun = True
        for formula in spec.formulas:
            variant.assign(formula)
        variant.finish()
        if len(self.faults) > before:
            return None
        return Rule(
            name=spec.name,
            summary=spec.summary,
            reference=spec.reference,
            hypers=hypers,
            flags=flags,
            states=states,
            body=tuple(variant.body),
            origin=spec.origin,
            notes=spec.notes,
            part=Part(spec.part),
            matrix=choice[MATRIX] if self.by_matrix or self.tiled else None,
            rows=Rows(spec.rows),
            inputs=tuple(Input(each.name, Extent[each.extent.upper()], each.doc) for each in spec.inputs),
        )

    def check_reductions(self, rules: tuple[Rule, ...]) -> None:
        """Limit the number of reductions, since a sweep keeps a block of each in reach."""
        count = max((len(reduces(a.value for a in rule.body)) for rule in rules), default=0)
        if count > MOST_REDUCTIONS:
            message = f"expected at most {MOST_REDUCTIONS} reductions, got {count}"
            self.fault(self.spec.formulas_span, message, SMALLER)

    def check_size(self) -> None:
        """Limit the work of checking: raise SpecError at once for a spec that is too large to be looked at further."""
        spec = self.spec
        terms = [formula.value for formula in spec.formulas]
        terms += [term for state in spec.states for term in (state.init, state.when) if term is not None]
        terms += [term for flag in spec.flags for term in (flag.default, flag.requires) if isinstance(term, Term)]
        count = len(spec.formulas) + sum(
            isinstance(part, Operation | Invoke | Choice) for term in terms for part in _terms(term)
        )
        variants = 2 ** min(len(spec.flags), MOST_FLAGS)
        if count > MOST_OPERATIONS:
            message = f"expected at most {MOST_OPERATIONS} operations, got {count}"
        elif count * variants > MOST_WORK_OF_ALL:
            message = f"expected at most {MOST_WORK_OF_ALL} operations in all variants, got {count} x {variants}"
        else:
            return
        self.fault(spec.formulas_span, message, SMALLER)
        raise SpecError(spec.file, spec.text, self.faults)

    def check_work(self, rules: tuple[Rule, ...]) -> None:
        """Limit the kernels that are to be made of all variants."""
        sizes = [_size(rule) for rule in rules]
        work = [operations * (1 + reductions) for operations, reductions in sizes]
        if max(work, default=0) > MOST_WORK:
            operations, reductions = sizes[work.index(max(work))]
            message = f"expected at most {MOST_WORK} operations x (1 + reductions)"
            self.fault(self.spec.formulas_span, f"{message}, got {operations} x (1 + {reductions})", SMALLER)
        elif sum(work) > MOST_WORK_OF_ALL:
            message = f"expected at most {MOST_WORK_OF_ALL} operations x (1 + reductions) in all variants"
            self.fault(self.spec.formulas_span, f"{message}, got {sum(work)} in {len(rules)}", SMALLER)

    def check_groups(self, rules: tuple[Rule, ...]) -> None:
        """Check that matrices and other parameters, which one step may mix, agree on the values of the group."""
        others = {tuple(flag.value for flag in rule.flags): rule for rule in rules if rule.matrix is False}
        for rule in rules if others else ():
            other = others.get(tuple(flag.value for flag in rule.flags))
            if rule.matrix and other is not None:
                self.check_pair(rule, other)

    def check_pair(self, rule: Rule, other: Rule) -> None:
        """Compare the states of the group and the reductions over it between a variant for matrices and the other."""
        apart = {s.name for s in set(rule.states) ^ set(other.states) if s.extent == Extent.GROUP}
        for state in self.spec.states:
            if state.name in apart:
                message = f"{state.name!r} is one for all parameters, got another one for matrices than for others"
                self.fault(state.span, message, 'choose by no matrix in its "when" and "init"')
        known: dict[object, int] = {}
        work = [_group_work(each, known) for each in (rule, other)]
        for formula in self.spec.formulas:
            (ops, value), (other_ops, other_value) = (each.get(formula.target, ([], None)) for each in work)
            if ops != other_ops:
                got = f"{', '.join(ops) or 'none'} for matrices and {', '.join(other_ops) or 'none'} for others"
                message = f"expected the same reductions over the group for every parameter, got {got}"
                hint = "choose inside of one reduction: norm(a if matrix else b, group)"
                self.fault(formula.value.span, message, hint)
                break  # later reductions are counted from this one
            if value != other_value and formula.target not in apart:
                message = f"{formula.target!r} is one for all parameters, got another one for matrices than for others"
                self.fault(formula.value.span, message, "choose by matrix inside of reductions over the group only")

    def check_uses(self) -> None:
        """Check that some variant reads every name that the spec defines, and writes every state."""
        spec = self.spec
        if spec.faults and not spec.formulas:
            return  # otherwise every name would be reported
        self.used |= spec.unused | spec.unassigned
        self.written |= spec.unassigned
        for what, parts in (("hyperparameter", spec.hypers), ("flag", spec.flags), ("input", spec.inputs)):
            for part in parts:
                if part.name not in self.used:
                    message = f"the {what} {part.name!r} is never used"
                    self.fault(part.span, message, "use it in a formula, or remove it")
        for state in spec.states:
            if state.name not in self.written and state.name not in self.remembered:
                hint = f"add a formula: {state.name} = ..."
                self.fault(state.span, f"the state {state.name!r} is never written", hint)
            elif state.name not in self.used:
                hint = "remove it, unless it is kept to be looked at"
                self.warn(state.span, f"the state {state.name!r} is written, but never read", hint)
            elif state.name in self.idle and not spec.faults:
                message = f"the state {state.name!r} is written, but never read, if {self.idle[state.name]}"
                hint = 'leave it out of that variant, unless it is kept to be looked at: when = "..."'
                self.warn(state.span, message, hint)
        known = {part.name for parts in (spec.hypers, spec.flags, spec.states, spec.inputs) for part in parts}
        known |= self.given.keys() | {PROCEED, ACCEPT}
        for formula in spec.formulas:
            if formula.target not in self.used and formula.target not in known:
                self.fault(formula.span, f"{formula.target!r} is computed, but never used", "use it, or remove it")


def _size(rule: Rule) -> tuple[int, int]:
    """How many operations a variant has, and how many of them are reductions."""
    parts = [part for assign in rule.body for part in walk(assign.value)]
    reductions = sum(isinstance(part, Reduce) for part in parts)
    return len(rule.body) + sum(isinstance(part, Call) for part in parts) + reductions, reductions


def _group_work(rule: Rule, known: dict[object, int]) -> dict[str, tuple[list[str], int | None]]:
    """The work of each formula for all parameters together: its reductions over the group, and a number for its value.

    Only states of the group and `accept` have a number. Two rules give a value the same number, kept in `known`, if it
    is the same whatever each parameter contributes to the reductions in it.
    """
    states = {state.name for state in rule.states if state.extent == Extent.GROUP}
    numbers: dict[str, int] = {}
    count = 0

    def number(expr: Expr) -> int:
        nonlocal count
        below = tuple(map(number, children(expr)))
        key: object = expr
        match expr:
            case Local():
                return numbers[expr.name]
            case Call():
                key = (expr.op, below)
            case Reduce(over=Extent.GROUP):
                key, count = (expr.op, count), count + 1
            case Reduce():
                key = (expr.op, expr.over, below)
        return known.setdefault(key, len(known))

    work: dict[str, tuple[list[str], int | None]] = {}
    for assign in rule.body:
        value = numbers[assign.target] = number(assign.value)
        ops = [e.op for e in reduces([assign.value]) if e.over == Extent.GROUP]
        work[assign.target] = (ops, value if assign.target in states | {ACCEPT} else None)
    return work


def _terms(term: Term) -> Iterator[Term]:
    """A term and all terms inside it."""
    yield term
    for part in getattr(term, "args", ()):
        yield from _terms(part)
    if isinstance(term, Choice):
        for part in (term.test, term.then, term.other):
            yield from _terms(part)


def _terms_with(term: Term, choice: Mapping[str, bool]) -> Iterator[Term]:
    """A term and all below it, without the sides that these flags do not choose."""
    yield term
    parts: tuple[Term, ...] = getattr(term, "args", ())
    if isinstance(term, Choice):
        parts = (term.test, term.then, term.other)
    if _is_choice(term):
        decided = _decided(parts[0], choice)
        if decided is not None:
            parts = (parts[1 if decided else 2],)
    for part in parts:
        yield from _terms_with(part, choice)


def _is_choice(term: Term) -> bool:
    """Whether this is `a if test else b`, or the same as `where(test, a, b)`."""
    return isinstance(term, Choice) or (isinstance(term, Invoke) and term.function == "where" and len(term.args) == 3)


def _decided(test: Term, choice: Mapping[str, bool]) -> bool | None:
    """The truth of a test, as far as these flags decide it."""
    match test:
        case Name():
            return choice.get(test.name)
        case Operation(op="not", args=(arg,)):
            value = _decided(arg, choice)
            return None if value is None else not value
        case Operation(op=("and" | "or") as op, args=args):
            values = [_decided(arg, choice) for arg in args]
            if (op == "or") in values:  # one false decides `and`, one true decides `or`
                return op == "or"
            return None if None in values else op == "and"
    return None


def _mentions_matrix(term: Term) -> bool:
    """Whether a choice tests the given flag `matrix`. Elsewhere that word names an extent."""
    tests = [choice.test for choice in _terms(term) if isinstance(choice, Choice)]
    tests += [call.args[0] for call in _terms(term) if isinstance(call, Invoke) and _is_choice(call)]
    tests += [term] if isinstance(term, Name | Operation) else []
    found = [part for test in tests for part in _terms(test) if isinstance(part, Name) and part.name == MATRIX]
    reduced = [part.args[-1] for part in _terms(term) if isinstance(part, Invoke) and part.args]
    return any(name not in reduced for name in found)


def _counts_tiles(extent: str) -> bool:
    """Whether this is the extent of matrices, rows or columns."""
    return OVER.get(extent, Extent.CONSTANT) >= Extent.MATRIX


def _tiled(term: Term, given: Collection[str]) -> bool:
    """Whether something is reduced over rows, columns or matrices, or these are counted."""
    last = [part.args[-1] for part in _terms(term) if isinstance(part, Invoke) and part.args]
    if any(isinstance(name, Name) and _counts_tiles(name.name) for name in last):
        return True
    named = {part.name for part in _terms(term) if isinstance(part, Name)}
    return any(name in named and name in given and COUNTS[name].over > Extent.TENSOR for name in COUNTS)
