"""Elaboration of one variant of a rule: its states and its formulas.

In: a choice of flags, and the syntax tree of a spec in the `Scope` that all its variants share. Out: states and a body,
of which `check` makes a `Rule`. Faults and used names are recorded in the scope.
"""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..ir.compose import ACCEPT, DELTA, GIVEN_GRADIENT, PROCEED
from ..ir.expr import (
    PARAMETER,
    Call,
    Const,
    Expr,
    Extent,
    Load,
    Local,
    Product,
    Scalar,
    dims_of,
    extent_of,
    local_of,
    type_of,
    walk,
)
from ..ir.extents import IDENTITY, Dims, default_dims, join_dims
from ..ir.primitives import Type
from ..ir.rule import Assign, Hyper, Part, Report, State
from ..ir.symmetry import Symmetry
from ..names import is_name, numbered
from .expressions import Expressions
from .indices import OF_ELEMENT
from .phases import assignments
from .products import sized
from .syntax import FormulaAst, Name, ReportAst, StateAst
from .terms import subterms
from .vocabulary import (
    CALLABLE,
    COMPARE,
    INITIAL,
    MATRIX,
    NO_OUTPUT,
    OF_BLOCKS,
    OF_MATRICES,
    OUTPUTS,
    RENAME,
    SIZE_OF_BLOCK,
)

__all__ = ["Variant"]


@dataclass
class Variant(Expressions):
    """The elaboration of one choice of flags. A method that finds a fault returns None."""

    body: list[Assign] = field(default_factory=list)
    unneeded: frozenset[str] = frozenset()  # what only other variants need

    def state(self, ast: StateAst) -> State | None:
        if ast.when is not None and self.decide(ast.when) is False:
            return None
        extent = Extent[ast.extent.upper()]
        dims = self.dims(ast)
        self.see_as(extent if dims is None else Extent.MATRIX, ast.extent_span)
        init = self.expr(ast.init)
        if init is not None and dims_of(init) == IDENTITY:
            init = self.unit(ast, init, dims)
        if init is None:
            return State(
                ast.name, Const(0.0), ast.doc, extent, dims=dims
            )  # the fault is recorded; formulas may still use the state
        leaves = {e for e in walk(init) if not isinstance(e, Const | Scalar | Call | Product)}
        if type_of(init) is not Type.REAL or not leaves <= {Load(PARAMETER)}:
            self.fault(ast.init.span, *INITIAL)
        elif leaves and (extent < Extent.ELEMENT or dims is not None):
            message = _wrong_extent(ast.name, extent, Extent.ELEMENT)
            if dims is not None:
                message = f"{ast.name!r}: expected {dims.words}, got what is made of p"
            self.fault(ast.init.span, message, "only a state like the parameter may start as p")
        if (Extent.MATRIX <= extent < Extent.ELEMENT or dims is not None) and not self.choice[MATRIX]:
            words = extent.words if dims is None else f"a matrix of {dims.words}"
            message = f"{ast.name!r} has {words}, and there is none where the parameter is no matrix"
            self.fault(ast.extent_span, message, 'add: when = "matrix"')
        if ast.always and extent != Extent.GROUP:
            message = f"{_wrong_extent(ast.name, Extent.GROUP, extent)}, of what changes in steps that do not count"
            self.fault(ast.extent_span, message, 'write: extent = "group", always = true')
        if leaves:
            self.scope.remembered.add(ast.name)
        return State(ast.name, init, ast.doc, extent, ast.always, dims)

    def dims(self, ast: StateAst) -> Dims | None:
        """The dimensions of a state that is a matrix other than the parameter."""
        if ast.dims is None:
            return None
        found = Dims(*map(self.side, ast.dims))
        return None if found == default_dims(Extent.ELEMENT) else found

    def unit(self, ast: StateAst, init: Expr, dims: Dims | None) -> Expr | None:
        """An initial value that is made of the identity, in the size of its state."""
        if dims is not None and dims.square:
            return sized(init, dims)
        words = "row by column" if dims is None else dims.words
        self.fault(ast.init.span, f"{ast.name!r} starts as an identity, and is {words}", 'write: extent = "row, row"')
        return None

    def block(self, hypers: Sequence[Hyper]) -> Expr | None:
        """How many elements a block has; None where there are no blocks."""
        term = self.scope.spec.block
        if term is None or self.seen_as != Extent.BLOCK:
            return None
        for name in subterms(term):
            known = {*self.scope.hypers, *self.choice, *OF_BLOCKS}
            if isinstance(name, Name) and name.name not in known:
                message = f"{name.spelled!r} says nothing of how many elements a block has"
                self.fault(name.span, message, SIZE_OF_BLOCK)
                return None
        size = Expressions(self.scope, self.choice).expr(term)
        wrong = size is not None and type_of(size) is not Type.REAL
        match size:
            case Const(value=value):
                wrong = not (value >= 1 and value.is_integer())
            case Scalar(hyper=called):
                ranges = [each for hyper in hypers if hyper.name == called for each in hyper.ranges]
                wrong = not all(each.whole and each.low >= 1 for each in ranges)
        if wrong:
            message = "expected a whole number of 1 or more as how many elements a block has"
            self.fault(term.span, message, SIZE_OF_BLOCK)
        return size

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

    @property
    def moves(self) -> bool:
        """Whether p may be moved before delta is subtracted from it: in the last of several phases."""
        return self.scope.phased and self.phase == self.scope.spec.phases[-1]

    @property
    def outputs(self) -> tuple[str, ...]:
        """What may be assigned of delta and p: in phases, either moves the parameter."""
        return (DELTA, PARAMETER) if self.scope.phased else OUTPUTS[self.scope.spec.part]

    def report(self, ast: ReportAst) -> Report | None:
        """A report of this variant. A value that has a name already is reported by it."""
        if ast.when is not None and self.decide(ast.when) is False:
            return None
        value = self.expr(ast.value)
        if value is None:
            return None
        if type_of(value) is not Type.REAL:
            self.fault(ast.value.span, f"{ast.name!r}: expected a number, got a condition", "write 1 if x > 0 else 0")
            return None
        if extent_of(value) == Extent.ELEMENT:
            message = _wrong_extent(
                ast.name, Extent.TENSOR, Extent.ELEMENT, ", or of rows, columns, indices, matrices or blocks"
            )
            self.fault(ast.value.span, message, "reduce it: mean(x), norm(x), max(x)")
            return None
        for each in walk(value):
            if isinstance(each, Local) and each.name in (DELTA, PARAMETER) and each.extent < Extent.ELEMENT:
                message = f"{ast.name!r}: {each.name!r} is given on as one value for each element"
                self.fault(ast.value.span, message, "report what it is made of")
                return None
        if not isinstance(value, Local) or value.name in self.active:
            self.define(numbered(f"report_{ast.name}", self.known() | self.locals.keys()), value)
            value = next(reversed(self.locals.values()))
        return Report(ast.name, value.name, extent_of(value), ast.doc)

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
            if target not in self.outputs:
                message = f"a part {scope.spec.part!r} assigns {OUTPUTS[scope.spec.part][0]!r}, got {target!r}"
                hint = "'delta' goes on in the gradient's place, 'p' is the new parameter"
                self.fault(formula.span, message, hint)
            elif (self.is_assigned(DELTA) or self.is_assigned(PARAMETER)) and not self.moves:
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
        elif target in (*CALLABLE, *OF_MATRICES):
            self.fault(formula.span, f"{target!r} shadows the function {target}()", RENAME)
        elif keyword.iskeyword(target):
            self.fault(formula.span, f"{target!r} is a keyword of Python, no name for a value", RENAME)
        return len(scope.faults) > before

    def refuses_value(self, formula: FormulaAst, value: Expr) -> bool:
        """Record a fault if a value does not fit its target. Return whether there is one."""
        target, span = formula.target, formula.value.span
        extent, number = extent_of(value), type_of(value) is Type.REAL
        stored = self.active.get(target, Load(target))
        own, dims = stored.extent, join_dims(dims_of(value), dims_of(stored))
        before = len(self.scope.faults)
        if target in (PROCEED, ACCEPT) and number:
            self.fault(span, f"{target!r}: expected a condition, got a number", COMPARE)
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
        elif formula.before in self.locals and self.locals[formula.before].type is not type_of(value):
            got = type_of(value).value
            message = f"{formula.spelled!r}: expected {self.locals[formula.before].type.value} in every turn, got {got}"
            self.fault(span, message, "give the second value its own name")
        elif formula.before in self.locals and join_dims(dims_of(self.locals[formula.before]), dims_of(value)) is None:
            begun, ended = dims_of(self.locals[formula.before]).words, dims_of(value).words
            message = f"{formula.spelled!r} is {begun} where a turn of the loop begins, and {ended} where it ends"
            self.fault(span, message, "give the second value its own name")
        elif dims_of(value) == IDENTITY:
            message = f"{formula.spelled or target!r}: an identity takes its size from what it is added to"
            self.fault(span, message, f"give it that of a square matrix A: {formula.spelled or target} = 0*A + I")
        elif (target in self.active or target in (DELTA, PARAMETER)) and extent == own and dims != dims_of(stored):
            message = f"{target!r}: expected {dims_of(stored).words}, got {dims_of(value).words}"
            self.fault(span, message, "a transposed matrix is A.T, a product A @ B")
        elif extent == Extent.INDEX != own or (own == Extent.INDEX and not extent <= own):
            reduced = "reduce it: max(x, index), min(x, index)"
            self.fault(span, _wrong_extent(target, own, extent), OF_ELEMENT if extent == Extent.INDEX else reduced)
        elif not extent <= own:
            over = "" if own == Extent.TENSOR else f", {own.name.lower()}"
            reduced = ", ".join(f"{name}(x{over})" for name in ("sum", "mean", "norm"))
            hint = f"reduce it: {reduced}; or give the state another extent"
            self.fault(span, _wrong_extent(target, own, extent), hint)
        return len(self.scope.faults) > before

    def define(self, target: str, value: Expr) -> None:
        if self.is_half(value):
            value = value if _is_rounded(value) else Call("bfloat16", (value,))
            self.halves.add(target)
        self.body.append(Assign(target, value))
        self.locals[target] = local_of(target, value)

    def check_symmetric(self, states: Sequence[State]) -> None:
        """Check that what functions of symmetric matrices are given is known to be symmetric."""
        if not self.symmetric:
            return
        symmetry = Symmetry(self.body, states)
        for value, name, span in self.symmetric:
            if not symmetry.known(value):
                message = f"{name}() is of symmetric matrices, and this is not known to be one"
                self.fault(span, message, "known are A @ A.T, I, sums, multiples and powers of symmetric ones")

    def finish(self) -> None:
        """Check that there is an output; say which phase comes next."""
        spec, phase = self.scope.spec, self.phase
        assert phase is not None
        outputs = {*OUTPUTS[spec.part]} if self.moves else {DELTA, PARAMETER}
        given = self.locals.keys() | self.failed | spec.unassigned
        if not outputs & given and (phase.formulas or not spec.faults):
            self.fault(phase.formulas_span, *NO_OUTPUT[spec.part if not self.scope.phased or self.moves else Part.RULE])
        if self.scope.phased:
            self.body += assignments(self.scope.whens, spec.phases.index(phase))


def _is_rounded(expr: Expr) -> bool:
    """Whether a value made of numbers of bfloat16 is one without being rounded."""
    return isinstance(expr, Local) or (isinstance(expr, Call | Product) and expr.op in ("bfloat16", "transpose"))


def _wrong_extent(name: str, expected: Extent, got: Extent, least: str = "") -> str:
    return f"{name!r}: expected {expected.words}{least}, got {got.words}"
