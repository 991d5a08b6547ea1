"""The invariants of a closed rule, checked.

In: a rule, fresh from `check` or after any pass. Out: the same rule, or an AssertionError that names the fault.
"""

from __future__ import annotations

import math

from .expr import (
    GRADIENT,
    PARAMETER,
    Call,
    Const,
    Draw,
    Expr,
    Extent,
    Given,
    Load,
    Local,
    Ordinal,
    PerIndex,
    Product,
    Reduce,
    Scalar,
    extent_of,
    joint_dims,
    joint_extent,
    local_of,
    reduced_extent,
    type_of,
    varies_within,
    walk,
)
from .primitives import FOLD_OF, LARGEST_POWER, OPS, PRODUCTS, REDUCTIONS, Type
from .rule import Rule

__all__ = ["verify"]


_POWERS = frozenset(Const(float(n)) for n in range(2, LARGEST_POWER + 1))


def verify(rule: Rule) -> Rule:
    """The rule itself, if every invariant holds; else an AssertionError that names the fault.

    A fault found here is one of a pass: `check` has reported those of the spec to its author.
    """
    extents = dict.fromkeys(rule.arrays, Extent.ELEMENT) | {s.name: s.extent for s in rule.states}
    dims = {state.name: state.dims for state in rule.states}
    stores = {PARAMETER, GRADIENT, *(state.name for state in rule.states)}
    sizes = {hyper.name: len(hyper.default) if hyper.vector else 0 for hyper in rule.hypers}
    defined: dict[str, Local] = {}

    def expect(condition: bool, fault: str) -> None:
        if not condition:
            raise AssertionError(f"{rule.name}: {fault}")

    def verify_expr(expr: Expr) -> None:
        match expr:
            case Const():
                expect(isinstance(expr.value, float) and math.isfinite(expr.value), f"constant {expr.value!r}")
            case Scalar():
                size = sizes.get(expr.hyper, -1)
                known = expr.index == 0 if size == 0 else 1 <= expr.index <= size
                expect(known, f"no hyperparameter {expr.hyper}[{expr.index}]")
            case Given():
                expect(expr.name in rule.given_numbers, f"no number {expr.name} is given")
            case Load():
                expect(expr.array in extents, f"no array {expr.array}")
                expect(expr.extent == extents[expr.array], f"{expr.array} is loaded as another extent than it has")
                expect(expr.dims == dims.get(expr.array), f"{expr.array} is loaded with other dimensions than it has")
            case Local():
                expect(defined.get(expr.name) == expr, f"{expr.name} is not what it was defined as")
            case Call():
                expect(expr.op in OPS, f"no primitive {expr.op}")
                for arg in expr.args:
                    verify_expr(arg)
                types = tuple(map(type_of, expr.args))
                expect(types == OPS[expr.op].takes, f"{expr.op} of wrong types or number of arguments")
                expect(expr.op != "powi" or expr.args[1] in _POWERS, "powi with an exponent that is no literal")
                expect(joint_dims(expr.args) is not None, f"{expr.op} of matrices that do not fit")
            case Product():
                for arg in expr.args:
                    verify_expr(arg)
                expect(PRODUCTS.get(expr.op) == len(expr.args), f"no product {expr.op} of {len(expr.args)}")
                expect(all(type_of(arg) is Type.REAL for arg in expr.args), f"{expr.op} of conditions")
            case Draw():
                for arg in expr.key:
                    verify_expr(arg)
                expect(joint_extent(expr.key) <= Extent.TENSOR, f"{expr.op} with another key for each element")
            case Reduce():
                for arg in expr.args:
                    verify_expr(arg)
                expect(REDUCTIONS.get(expr.op) == len(expr.args), f"no reduction {expr.op} of {len(expr.args)}")
                expect(all(type_of(arg) is Type.REAL for arg in expr.args), f"{expr.op} of conditions")
                extent = reduced_extent(expr)
                folded = extent == Extent.INDEX and expr.over in (Extent.ROW, Extent.COLUMN, Extent.ELEMENT)
                reduces = varies_within(extent, expr.over) or folded
                expect(reduces, f"{expr.op} over {expr.over.name} of {extent.name}")
            case PerIndex():
                for arg in (expr.rows, expr.columns):
                    verify_expr(arg)
                expect(expr.op in FOLD_OF.values(), f"no fold {expr.op}")
                extents_of = extent_of(expr.rows), extent_of(expr.columns)
                expect(extents_of == (Extent.ROW, Extent.COLUMN), "indices of what are no rows and columns")

    for hyper in rule.hypers:
        expect(len(hyper.ranges) == len(hyper.default), f"{hyper.name} has not a range for each value")
    parts = (rule.hypers, rule.flags, rule.states, rule.inputs)
    names = [part.name for each in parts for part in each] + [PARAMETER, GRADIENT]
    expect(len(set(names)) == len(names), "two parts of one name")
    for state in rule.states:
        verify_expr(state.init)
        may_read: set[Expr] = {Load(PARAMETER)} if state.name in rule.element_states else {Ordinal()}
        leaves = [e for e in walk(state.init) if not isinstance(e, Const | Scalar | Call | Product)]
        expect(set(leaves) <= may_read, f"initial value of {state.name} is not constant")
        expect(state.extent >= Extent.GROUP, f"{state.name} has no extent of a state")
    for block in (rule.scalars, rule.body):
        for assign in block:
            verify_expr(assign.value)
            extent = extent_of(assign.value)
            expect(assign.target not in defined, f"{assign.target} assigned twice")
            expect(assign.target != GRADIENT or extent <= Extent.STEP, "the gradient is assigned elements")
            number = type_of(assign.value) is Type.REAL
            expect(number or assign.target not in stores, f"{assign.target} is assigned a condition")
            if assign.target in stores:
                expect(extent <= extents[assign.target], f"{assign.target} is assigned more values than it has")
            if block is rule.scalars:
                scalar = extent <= Extent.STEP and assign.target not in stores
                expect(scalar, f"scalar {assign.target} is no scalar")
            defined[assign.target] = local_of(assign.target, assign.value)
    for report in rule.reports:
        value = defined.get(report.value, Load(PARAMETER))
        small = extent_of(value) <= report.extent < Extent.ELEMENT and type_of(value) is Type.REAL
        expect(small, f"{report.name} reports no small number")
    known = not rule.accept or defined.get(rule.accept) == Local(rule.accept, Extent.GROUP, Type.BOOL)
    expect(known, "whether a step counts is no condition of the group")
    kept = {GRADIENT} | {
        state.name for state in rule.states if rule.phases or {Load(PARAMETER), Ordinal()} & set(walk(state.init))
    }
    expect(stores - kept <= set(defined), "a state or the parameter is never assigned")
    return rule
