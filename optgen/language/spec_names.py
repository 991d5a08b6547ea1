"""The names that a spec defines: whether each can be one, is free, and is used.

In: the `Scope` of a spec; for uses, after all of its variants were looked at. Out: a fault for each name that does not
do, a warning for a state that is written and never read.
"""

from __future__ import annotations

import itertools
import keyword
from collections.abc import Sequence

from ..errors import Span
from ..ir.compose import ACCEPT, PROCEED
from ..names import is_name
from .limits import MOST_FLAGS
from .resolve import Scope
from .syntax import FlagAst, HyperAst, InputAst, StateAst
from .terms import names_in, subterms
from .vocabulary import CALLABLE, RENAME

__all__ = ["ARGUMENTS", "STEP_ARGUMENTS", "SpecNames", "no_name"]

#: Names that an optimiser object has for itself, which no hyperparameter or flag may take.
ARGUMENTS = frozenset({
    "self", "backend", "threads", "step", "state", "state_dict", "load_state_dict", "save", "set_state", "load", "copy",
    "rule", "spec", "bind", "parts", "parameters", "phase", "eval", "train", "report", "storage", "rounding",
    "function",
})  # fmt: skip
#: What a step is called with already, by names that no input may take.
STEP_ARGUMENTS = frozenset({"self", "params", "grads", "closure", "phase"})


class SpecNames(Scope):
    """The checks of names."""

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
        for report in spec.reports:
            if not is_name(report.name):
                self.fault(report.span, *no_name(report.name, "report"))
        if len(spec.flags) > MOST_FLAGS:
            message = f"expected at most {MOST_FLAGS} flags, got {len(spec.flags)}"
            hint = "every choice of flags is a kernel of its own: make two rules"
            self.fault(spec.flags[MOST_FLAGS].span, message, hint)
        called: dict[str, tuple[FlagAst, ...]] = {}
        flags = spec.flags[:MOST_FLAGS]
        phases = [phase.name for phase in spec.phases]
        for count in range(not self.phased, len(flags) + 1):
            for chosen in itertools.combinations(flags, count):
                for phase, shape in itertools.product(phases, ("", "matrix") if self.by_matrix else ("",)):
                    name = "_".join(filter(None, [phase, *(flag.name for flag in chosen), shape]))
                    other = called.setdefault(name, chosen)
                    if other is not chosen:
                        longest = max((*other, *chosen), key=lambda flag: len(flag.name))
                        message = f"two variants would be called {name!r}"
                        hint = "variants are called by the flags that are set: rename this one"
                        self.fault(longest.span, message, hint)

    def check_name(self, name: str, span: Span, what: str) -> None:
        if not is_name(name):
            self.fault(span, *no_name(name, what))
        elif (name in self.given or name in (PROCEED, ACCEPT)) and what != "rule":
            meaning = self.given.get(name, "whether the step goes on" if name == PROCEED else "whether the step counts")
            self.fault(span, f"the {what} {name!r} shadows the given name {name!r}, {meaning}", RENAME)
        elif name in CALLABLE:
            self.fault(span, f"the {what} {name!r} shadows the function {name}()", RENAME)
        elif keyword.iskeyword(name):
            hint = "write lam, or λ in quotes" if name == "lambda" else RENAME
            self.fault(span, f"{name!r} is a keyword of Python, no name for a {what}", hint)

    def check_uses(self) -> None:
        """Check that some variant reads every name that the spec defines, and writes every state."""
        spec = self.spec
        if spec.faults and not spec.formulas:
            return  # otherwise every name would be reported
        self.used |= spec.unused | spec.unassigned | spec.fixed
        self.used |= {side for state in spec.states for side in state.dims or ()}
        self.used |= names_in(subterms(spec.block)) if spec.block is not None else frozenset()
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
        for formula in (*spec.formulas, *spec.evaluation):
            if formula.target not in self.used and formula.target not in known:
                name = formula.spelled or formula.target
                self.fault(formula.span, f"{name!r} is computed, but never used", "use it, or remove it")


def no_name(name: str, what: str) -> tuple[str, str]:
    """Message and hint for what cannot be a name."""
    letters = "ASCII" if what == "rule" else "ASCII or Greek"
    hint = f"a name is a letter, then letters, digits and underscores, in {letters}"
    return f"{name!r} cannot be the name of a {what}", hint
