"""The typed intermediate representation. Frozen; never strings; text exists only before `parse` and after `emit`.

    rule     = Rule(name, summary, reference, hypers*, flags*, states*, body*, scalars*, origin, notes, part, matrix,
                    rows)
    hyper    = Hyper(name, default+, vector, ranges+, doc)    run-time argument; a number, or several: beta[1], beta[2]
    flag     = Flag(name, default, doc, value, when, requires) compile-time choice; `value` is this variant's
    state    = State(name, init, doc, extent)                 values kept from step to step, as many as its extent has
    assign   = Assign(target, value)                          target: a state, "p", or a new local name
    expr     = Const(value)                                   a literal
             | Scalar(hyper, index)                           a hyperparameter; of several values, index from 1; else 0
             | Count()                                        t, the updates of this parameter, this one included
             | Size(over, of)                                 how many values of extent `of` there are in each of `over`
             | Load(array, extent)                            "p", "g" or a state, as it was before the step
             | Local(name, extent, type)                      the value of an earlier assignment (or hoisted scalar)
             | Call(op, args+)                                op: a row of ops.OPS
             | Reduce(op, args+, over, key)                   op: a row of ops.REDUCTIONS; one value for each of `over`

    extent   = CONSTANT < STEP < GROUP < TENSOR < MATRIX < ROW, COLUMN < ELEMENT
               sets of what a value varies with; that of a Call is the union of its arguments' (`join`)

`body` runs in order and assigns every name once; it assigns "p" and each state. A value of lesser extent than ELEMENT
is float64, and rounded once to the compute type where it meets one of extent ELEMENT. `scalars` is empty until the
pass `hoist` moves everything of extent CONSTANT or STEP there: it is computed on the host, once a step.

A rule as `check` first makes it is *open*: it assigns "delta" or "p", and may read "grad" and "new" as if they were
arrays. Only a state that starts as the parameter need not be assigned. `compose` closes it, alone or behind others;
everything else knows closed rules only.
"""

from __future__ import annotations

import math

from .expr import (
    GRADIENT,
    PARAMETER,
    Call,
    Const,
    Expr,
    Extent,
    Load,
    Local,
    Reduce,
    Scalar,
    extent_of,
    reduced_extent,
    type_of,
    varies_within,
    walk,
)
from .primitives import LARGEST_POWER, OPS, REDUCTIONS, Type
from .rule import Rule

__all__ = ["verify"]


_POWERS = frozenset(Const(float(n)) for n in range(2, LARGEST_POWER + 1))


def verify(rule: Rule) -> Rule:
    """`rule` itself, if every invariant of the grammar above holds; an AssertionError that names the fault if not.

    Faults of a spec never get here, `check` reports them to the author; what this finds is a fault of a pass.
    """
    extents = {PARAMETER: Extent.ELEMENT, GRADIENT: Extent.ELEMENT} | {s.name: s.extent for s in rule.states}
    stores = {PARAMETER, GRADIENT, *(state.name for state in rule.states)}
    sizes = {hyper.name: len(hyper.default) if hyper.vector else 0 for hyper in rule.hypers}
    defined: dict[str, tuple[Extent, Type]] = {}

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
            case Load():
                expect(expr.array in extents, f"no array {expr.array}")
                expect(expr.extent == extents[expr.array], f"{expr.array} is loaded as another extent than it has")
            case Local():
                expect(defined.get(expr.name) == (expr.extent, expr.type), f"{expr.name} is not what it was defined as")
            case Call():
                expect(expr.op in OPS, f"no primitive {expr.op}")
                for arg in expr.args:
                    verify_expr(arg)
                types = tuple(map(type_of, expr.args))
                expect(types == OPS[expr.op].takes, f"{expr.op} of wrong types or number of arguments")
                expect(expr.op != "powi" or expr.args[1] in _POWERS, "powi with an exponent that is no literal")
            case Reduce():
                for arg in expr.args:
                    verify_expr(arg)
                expect(REDUCTIONS.get(expr.op) == len(expr.args), f"no reduction {expr.op} of {len(expr.args)}")
                expect(all(type_of(arg) is Type.REAL for arg in expr.args), f"{expr.op} of conditions")
                extent = reduced_extent(expr)
                expect(varies_within(extent, expr.over), f"{expr.op} over {expr.over.name} of {extent.name}")

    for hyper in rule.hypers:
        expect(len(hyper.ranges) == len(hyper.default), f"{hyper.name} has not a range for each value")
    names = [part.name for parts in (rule.hypers, rule.flags, rule.states) for part in parts] + [PARAMETER, GRADIENT]
    expect(len(set(names)) == len(names), "two parts of one name")
    for state in rule.states:
        verify_expr(state.init)
        may_read = {Load(PARAMETER)} if state.extent == Extent.ELEMENT else set()
        leaves = [e for e in walk(state.init) if not isinstance(e, Const | Scalar | Call)]
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
            defined[assign.target] = (extent, type_of(assign.value))
    condition = (Extent.GROUP, Type.BOOL)
    known = not rule.accept or defined.get(rule.accept) == condition
    expect(known, "whether a step counts is no condition of the group")
    kept = {GRADIENT} | {state.name for state in rule.states if Load(PARAMETER) in set(walk(state.init))}
    expect(stores - kept <= set(defined), "a state or the parameter is never assigned")
    return rule
