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

from .errors import Span, SpecError
from .ir import Flag, Hyper, Interval, Rule, verify
from .names import is_name
from .ops import FUNCTIONS
from .syntax import FlagAst, HyperAst, SpecAst
from .variant import C_KEYWORDS, GIVEN, RENAME, Scope, Variant

__all__ = ["ARGUMENTS", "check"]

MOST_FLAGS = 6

#: Names that an optimiser object has for itself, which no hyperparameter or flag may take.
ARGUMENTS = frozenset({
    "self", "backend", "threads", "step", "state", "state_dict", "load_state_dict", "copy", "rule", "spec", "bind",
})  # fmt: skip
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


class _Checker(Scope):
    """The names of a spec, its variants, and at the end whether every name is of use."""

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
                    self.fault(part.span, message, RENAME)
                elif part.name in numbered:
                    message = f"{part.name!r} is how callers may write {numbered[part.name]}"
                    self.fault(part.span, message, RENAME)
                elif what != "state" and part.name in ARGUMENTS:
                    self.fault(part.span, f"{part.name!r} is a name that every optimiser has for itself", RENAME)
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
        elif name in GIVEN and what != "rule":
            self.fault(span, f"the {what} {name!r} shadows the given name {name!r}, {GIVEN[name]}", RENAME)
        elif name in FUNCTIONS:
            self.fault(span, f"the {what} {name!r} shadows the function {name}()", RENAME)
        elif keyword.iskeyword(name) or name in C_KEYWORDS:
            hint = "write lam, or λ in quotes" if name == "lambda" else RENAME
            self.fault(span, f"{name!r} is a keyword of C or Python, no name for a {what}", hint)

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
        variant = Variant(self, choice)
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
