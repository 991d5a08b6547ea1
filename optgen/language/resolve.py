"""Names of a variant: what each one means, and what to say of one that means nothing.

In: names in formulas, a choice of flags, and the `Scope` that all variants of a spec share. Out: typed expressions.
Faults and used names are recorded in the scope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import Diagnostic, Span
from ..ir.compose import DELTA
from ..ir.draws import DRAWS
from ..ir.expr import COUNTS, GRADIENT, PARAMETER, Count, Expr, Extent, Given, Load, Local, Product, Scalar, Shape
from ..ir.extents import IDENTITY
from ..ir.rule import PHASE
from ..names import close_matches
from .syntax import Invoke, Item, Name, PhaseAst, SpecAst, Term
from .terms import names_in, subterms
from .vocabulary import (
    CALLABLE,
    CONSTANTS,
    ELEMENT,
    FREE,
    GIVEN,
    GIVEN_TO_DRAWS,
    GIVEN_TO_PARTS,
    GIVEN_TO_PHASES,
    INITIAL,
    MATRIX,
    MOST_SUGGESTIONS,
    OVER,
    TALL,
    UNIT,
    WIDE,
)

__all__ = ["Resolver", "Scope"]

#: As what a parameter may be seen in a variant.
_SEEN_AS = {Extent.BLOCK: "blocks", Extent.INDEX: "indices", Extent.MATRIX: "rows, columns or matrices"}


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
        self.phased = len(spec.phases) > 1
        self.hypers = {hyper.name: hyper for hyper in reversed(spec.hypers)}
        self.flags = {flag.name for flag in spec.flags}
        self.inputs = {each.name: Extent[each.extent.upper()] for each in spec.inputs}
        own = {*self.states, *self.targets, *self.hypers, *self.flags, *self.inputs}
        own &= FREE
        self.given = {name: what for name, what in GIVEN.items() if name not in own}
        self.given |= GIVEN_TO_PARTS if spec.part else {}
        terms = (term for formula in spec.formulas for term in subterms(formula.value))
        drawn = (term.span for term in terms if isinstance(term, Invoke) and term.function in DRAWS)
        self.draws = {span: number for number, span in enumerate(dict.fromkeys(drawn))}
        self.given |= GIVEN_TO_DRAWS if self.draws else {}
        self.given |= {PHASE: GIVEN_TO_PHASES[PHASE]} if self.phased else {}
        self.given |= GIVEN_TO_PHASES if spec.phases[0].when is not None else {}
        self.aspects = frozenset[str]()  # which of the given flags `tall` and `wide` it knows
        self.by_matrix = False  # whether matrices have a variant of their own
        self.whens: Sequence[Expr | None] = [None]  # the condition of each phase, None for one that every step has

    def fault(self, span: Span, message: str, hint: str | None = None) -> None:
        self.faults.append(Diagnostic(span, message, hint))

    def warn(self, span: Span, message: str, hint: str) -> None:
        self.warnings.append(Diagnostic(span, message, hint))


@dataclass
class Resolver:
    """The names of one choice of flags. A method that finds a fault returns None."""

    scope: Scope
    choice: Mapping[str, bool]
    active: dict[str, Load] = field(default_factory=dict)  # the states of this variant
    locals: dict[str, Local] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    begun: bool = False  # whether the initial values are done
    uses: bool = True  # whether reading a name counts as a use
    assigned: str = ""  # whose formula is read
    phase: PhaseAst | None = None  # the one whose formulas these are
    seen_as: Extent | None = None  # a block, an index, or a matrix with its rows and columns, if there are any

    def fault(self, span: Span, message: str, hint: str | None = None) -> None:
        self.scope.fault(span, message, hint)

    def use(self, name: str) -> None:
        if self.uses:
            self.read.add(name)
            self.scope.used.add(name)

    def use_all(self, term: Term) -> None:
        """Mark all names in an undecidable term as used, since any of them may be."""
        for name in names_in(subterms(term)):
            self.use(name)

    def name(self, term: Name) -> Expr | None:
        name = term.name
        if name in self.locals:
            self.use(name)
            return self.locals[name]
        if name in self.active:
            self.use(name)
            return self.active[name]
        if name in (PARAMETER, GRADIENT) or (name in GIVEN_TO_PARTS and self.scope.spec.part):
            return Load(name)
        if name == "t":
            return Count()
        if name in self.scope.inputs and self.begun:
            self.use(name)
            return Load(name) if self.scope.inputs[name] == Extent.ELEMENT else Given(name)
        if name == UNIT and name in self.scope.given:
            if not self.choice[MATRIX]:
                message = "there is no identity matrix where the parameter is no matrix"
                self.fault(term.span, message, "choose with the given flag: a if matrix else b")
                return None
            return Product("identity", (), IDENTITY)
        if name == "ndim" and name in self.scope.given:
            return Shape()
        if (count := COUNTS.get(name)) and name in self.scope.given:
            if count.over > Extent.TENSOR and not self.choice[MATRIX]:
                message = f"there are no {name} where the parameter is no matrix"
                self.fault(term.span, message, "choose with the given flag: a if matrix else b")
                return None
            self.see_as(count.over, term.span)
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

    def see_as(self, extent: Extent, span: Span) -> None:
        """Note that a parameter is seen as blocks, indices or matrices; record a fault if it is seen as two of them."""
        if not Extent.TENSOR < extent < Extent.ELEMENT:
            return
        seen = extent if extent in (Extent.BLOCK, Extent.INDEX) else Extent.MATRIX
        if self.seen_as not in (None, seen):
            words = ", and ".join(words for each, words in _SEEN_AS.items() if each in (seen, self.seen_as))
            message = f"{words}, do not fit into one variant"
            self.fault(span, message, "choose with a flag: a if matrix else b; or make two rules")
        elif seen == Extent.BLOCK and self.scope.spec.block is None:
            message = "nothing says how many elements a block has"
            self.fault(span, message, 'add it to [update]: block = 64; or a hyperparameter: block = "k"')
        self.seen_as = seen

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
        elif name in (*OVER, ELEMENT):
            hint = f"for example: {'norm(g' if name in OVER else 'min(acc'}, {name})"
            self.fault(term.span, f"{name!r} is an extent, which is written last in a reduction", hint)
        elif name in checker.targets:
            hint = f'declare it, if it is kept from step to step: [state] {name} = {{ init = "0" }}'
            if self.phase is not None and name not in {formula.target for formula in self.phase.formulas}:
                hint = f'another phase gives it: keep it as a state, [state] {name} = {{ init = "0" }}'
            elif name != self.assigned:
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
                    if name in CONSTANTS:
                        hint = f"there are no named constants: write {CONSTANTS[name]!r}"
                    elif one := self.one_of_several(name):
                        hint = f"write {one}"
                    elif close := close_matches(name, known):
                        hint = f"did you mean {close[0]!r}?"
                checker.hints[name] = hint
            self.fault(term.span, f"unknown name {term.spelled!r}", checker.hints[name])

    def one_of_several(self, name: str) -> str:
        """`beta1` as `beta[1]`, if that is one of the values of a hyperparameter; else nothing."""
        stem = name.rstrip("0123456789")
        hyper, index = self.scope.hypers.get(stem), name[len(stem) :]
        if hyper is None or not hyper.vector or not index or not 1 <= int(index) <= len(hyper.default or ()):
            return ""
        self.use(stem)
        return f"{stem}[{int(index)}]"

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

    def known(self) -> set[str]:
        """All names with a meaning in this spec."""
        scope = self.scope
        defined = {*scope.hypers, *scope.flags, *scope.inputs, *scope.states, *scope.targets}
        return {*defined, *scope.given, *scope.spec.unassigned}

    def chosen(self) -> str:
        """The flags of this variant in words."""
        shapes = {MATRIX} if self.scope.by_matrix else set()
        names = [
            name for name in self.choice if name not in (MATRIX, TALL, WIDE) or name in shapes | self.scope.aspects
        ]
        return " and ".join(name if self.choice[name] else f"not {name}" for name in names)
