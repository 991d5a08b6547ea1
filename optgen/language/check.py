"""`SpecAst` to `Rule`s: checks names, types and extents.

In: the syntax tree of a spec, with the faults of its form. Out: one checked `Rule`, open or closed, for each choice of
flags, the defaults first; or one `SpecError` with every fault of all variants. Where a step has several phases, there
are all variants of the first one, then those of the next.

A rule that distinguishes matrices has two variants for each choice, the one for matrices first. Whether a rule
converges, or divides by zero, is not checked.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Mapping

from ..errors import SpecError, SpecWarning
from ..ir import draws
from ..ir.compose import close
from ..ir.evaluate import evaluate
from ..ir.expr import Expr, Extent, Load, Matrices, type_of
from ..ir.interval import Interval
from ..ir.primitives import Type
from ..ir.rule import Dimension, Family, Flag, Hyper, Input, Part, Rule
from ..ir.verify import verify
from .agreement import disagreements
from .demand import Demand
from .elaborate import Variant
from .evaluation import Evaluation
from .limits import MOST_FLAGS, excess_of_rules, excess_of_spec
from .phases import check_phases, states_of_phases
from .spec_names import SpecNames
from .syntax import FlagAst, HyperAst, Item, Name, SpecAst
from .terms import aspects_in, is_of_tiles, mentions_matrix, mentions_tiles, reduced_over, sides_in, subterms
from .vocabulary import MATRIX, TALL, WIDE

__all__ = ["check", "check_open"]

SMALLER = "make two rules, and a chain of them"

_RANGE = re.compile(r"([\[(])\s*([^,\s]+)\s*,\s*([^,\s]+)\s*([\])])\s*(,\s*whole)?")


def check(spec: SpecAst) -> tuple[Rule, ...]:
    """Check a spec. Return its closed variants, the default one first. Raises a SpecError that lists every fault."""
    return tuple(verify(close(rule)) for rule in check_open(spec))


def check_open(spec: SpecAst) -> tuple[Rule, ...]:
    """Check a spec as `check` does, and return its variants open, as parts of chains need them."""
    checker = _Checker(spec)
    checker.check_size()
    checker.find_shapes()
    checker.whens = check_phases(checker)
    checker.check_names()
    hypers = tuple(filter(None, map(checker.hyper, spec.hypers)))
    checker.decide_defaults(hypers)
    rules = checker.variants((*hypers, draws.SEED) if checker.draws else hypers)
    checker.check_uses()
    checker.check_rules(rules)
    if checker.faults:
        raise SpecError(spec.file, spec.text, checker.faults)
    for each in checker.warnings:
        warnings.warn(each.render(spec.file, spec.text.split("\n")), SpecWarning, stacklevel=3)
    return rules


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


class _Checker(SpecNames):
    """The checks of one spec: its names, its variants, and at last whether every name is used."""

    conditions: dict[str, Expr | None]  # of flags that hyperparameters decide
    defaults: dict[str, bool]
    tiled: bool  # whether it mentions rows, columns or matrices

    def check_size(self) -> None:
        """Limit the work of checking: raise SpecError at once for a spec that is too large to be looked at further."""
        if excess := excess_of_spec(self.spec):
            self.fault(self.spec.formulas_span, excess, SMALLER)
            raise SpecError(self.spec.file, self.spec.text, self.faults)

    def find_shapes(self) -> None:
        """Find out whether matrices have a variant of their own."""
        spec = self.spec
        terms = [formula.value for formula in spec.formulas] + [report.value for report in spec.reports]
        conditions = [state.when for state in spec.states] + [report.when for report in spec.reports]
        terms += [when for when in conditions if when is not None]
        terms += [spec.block] if spec.block is not None else []
        self.by_matrix = any(map(mentions_matrix, terms))
        self.aspects = aspects_in(terms, self.given)
        sides = {side for state in spec.states for side in state.dims or ()} | {size.most for size in spec.sizes}
        if not self.aspects and (sides | sides_in(terms)) & {"short", "long"}:
            self.aspects = frozenset({TALL})
        extents = (state.extent for state in spec.states)
        self.tiled = (
            any(mentions_tiles(term, self.given) for term in terms)
            or any(map(is_of_tiles, extents))
            or bool(sides - {""})
        )
        over = {extent.name for term in terms for extent in reduced_over(term)} | {each.extent for each in spec.states}
        if spec.matrices != Matrices.LAST_TWO and not self.tiled and not spec.faults:
            self.needless_matrices()
        if spec.block is not None and "block" not in over and not spec.faults:
            message = "'block' says how many elements a block has, and nothing here has blocks"
            self.fault(spec.block.span, message, "remove it, or reduce over blocks: mean(g**2, block)")

    def needless_matrices(self) -> None:
        """Record the fault of matrices that are said and not there."""
        message = f"{self.spec.matrices!r} says which matrices are meant, and nothing here has rows or columns"
        self.fault(self.spec.matrices_span, message, "remove it, or reduce over rows: mean(g, row)")

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
        free = ast.name in self.spec.looped and len(ast.ranges) == 1
        return Hyper(ast.name, default, ast.vector, tuple(ranges), ast.doc, free)

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
        for name in subterms(term):
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
        none = dict.fromkeys(self.aspects, False)
        matrices = [{MATRIX: True, **none}, *({MATRIX: True, **none, name: True} for name in sorted(self.aspects))]
        shapes = matrices if self.by_matrix or self.tiled else []
        shapes += [{MATRIX: False, **none}] if self.by_matrix or not self.tiled else []
        return [{**choice, **shape} for shape in shapes for choice in found]

    def allows(self, flag: FlagAst, choice: Mapping[str, bool]) -> bool:
        """Whether the requirement of a flag holds, if the flag is set. True too after a fault in the requirement."""
        if flag.requires is None:
            return True
        # A requirement does not count as a use of the flags in it.
        scope = Variant(self, {name: value for name, value in choice.items() if name != flag.name}, uses=False)
        return scope.decide(flag.requires) is not False or not choice[flag.name]

    def variants(self, hypers: tuple[Hyper, ...]) -> tuple[Rule, ...]:
        """The variants of all choices of flags, phase by phase, but for those that have a fault."""
        choices = self.choices()
        read: list[set[str]] = [set() for _ in choices]  # in any phase
        rules: list[Rule | None] = []
        for phase in self.spec.phases:
            reports = self.spec.reports if phase is self.spec.phases[-1] else []
            demand = Demand(phase.formulas, self.spec.states, reports, self.given)
            needed = [demand.of(choice) for choice in choices]
            everywhere = frozenset[str]().union(*needed)
            for choice, own, names in zip(choices, needed, read, strict=True):
                variant = Variant(self, choice, phase=phase, unneeded=everywhere - own)
                rules.append(self.variant(hypers, variant))
                names |= variant.read
                if phase is self.spec.phases[-1]:
                    for name in variant.active.keys() - names:
                        self.idle.setdefault(name, variant.chosen())
        return tuple(filter(None, rules))

    def variant(self, hypers: tuple[Hyper, ...], variant: Variant) -> Rule | None:
        """The variant with these flags, without the formulas that only others need. None if it has a fault."""
        before = len(self.faults)
        spec, choice, phase = self.spec, variant.choice, variant.phase
        assert phase is not None
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
        states += (draws.STREAM,) if self.draws else ()
        states += tuple(states_of_phases(self.whens)) if self.phased else ()
        variant.active = {state.name: Load(state.name, state.extent, state.dims) for state in states}
        variant.begun = True
        for formula in phase.formulas:
            variant.assign(formula)
        variant.check_symmetric(states)
        last = phase is spec.phases[-1]
        reports = tuple(filter(None, map(variant.report, spec.reports))) if last else ()
        after = Evaluation(self, choice, active=variant.active, begun=True)
        for formula in spec.evaluation:
            after.assign(formula)
        after.finish()
        block = variant.block(hypers)
        variant.read |= after.read
        if self.aspects:
            variant.see_as(Extent.MATRIX, spec.formulas_span)
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
            family=Family(spec.family),
            notes=spec.notes,
            part=Part(spec.part),
            matrix=choice[MATRIX] if self.by_matrix or self.tiled else None,
            matrices=Matrices.FEWEST if variant.seen_as == Extent.INDEX else Matrices(spec.matrices),
            evaluation=tuple(after.body),
            reports=reports,
            inputs=tuple(Input(each.name, Extent[each.extent.upper()], each.doc) for each in spec.inputs),
            block=block,
            tall=choice[TALL] if choice[MATRIX] and TALL in self.aspects else None,
            wide=choice[WIDE] if choice[MATRIX] and WIDE in self.aspects else None,
            dimensions=tuple(Dimension(each.name, each.name, variant.side(each.most)) for each in spec.sizes),
            turns=tuple(sorted(spec.fixed)),
            phase=phase.name,
            phases=tuple(each.name for each in spec.phases) if self.phased else (),
            when=self.whens[spec.phases.index(phase)],
        )

    def check_rules(self, rules: tuple[Rule, ...]) -> None:
        """Check what the variants have together: values of the group, and the work of their kernels."""
        self.faults.extend(disagreements(self.spec, rules))
        seen = {rule.matrices for rule in rules if rule.tiled}
        if seen == {Matrices.FEWEST} and self.spec.matrices != Matrices.LAST_TWO:
            self.needless_matrices()
        for excess in excess_of_rules(rules):
            self.fault(self.spec.formulas_span, excess, SMALLER)
