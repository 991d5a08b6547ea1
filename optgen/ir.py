"""The typed intermediate representation. Frozen; never strings; text exists only before `parse` and after `emit`.

    rule     = Rule(name, summary, reference, hypers*, flags*, states*, scalars*, body*)
    hyper    = Hyper(name, default+, vector, range, doc)      run-time argument; a number, or several: beta[1], beta[2]
    flag     = Flag(name, default, doc, value)                compile-time choice; `value` is this variant's
    state    = State(name, init, doc)                         a tensor shaped as the parameter; init is a constant expr
    assign   = Assign(target, value)                          target: a state, "p", or a new local name
    expr     = Const(value)                                   a literal
             | Scalar(hyper, index)                           a hyperparameter; of several values, index from 1; else 0
             | Count()                                        t, the updates of this parameter, this one included
             | Load(array)                                    "p", "g" or a state, as it was before the step
             | Local(name, extent, type)                      the value of an earlier assignment (or hoisted scalar)
             | Call(op, args+)                                op: a row of ops.OPS

    extent   = CONSTANT < STEP < ELEMENT                      inferred: that of a Call is the largest of its arguments

`body` runs in order and assigns every name once; it assigns "p" and each state. `scalars` is empty until the pass
`hoist` moves everything of extent CONSTANT or STEP there: what is in `scalars` is computed in float64 on the host,
once a step; a value of extent STEP or less that meets one of extent ELEMENT is rounded once to the compute type.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from .ops import LARGEST_POWER, OPS, Type

__all__ = [
    "GRADIENT", "PARAMETER", "Assign", "Call", "Const", "Count", "Expr", "Extent", "Flag", "Hyper", "Interval", "Load",
    "Local", "Rule", "Scalar", "State", "children", "extent_of", "kernel_scalars", "loads", "rebuilt", "type_of",
    "verify", "walk",
]  # fmt: skip

PARAMETER, GRADIENT = "p", "g"


class Extent(IntEnum):
    """How often a value changes: never while the hyperparameters stay, once a step, or from element to element."""

    CONSTANT = 0
    STEP = 1
    ELEMENT = 2


@dataclass(frozen=True)
class Const:
    value: float

    # 0 and -0 are equal numbers, but not the same literal: a pass must never take one for the other.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[float, float]:
        return self.value, math.copysign(1.0, self.value)


@dataclass(frozen=True)
class Scalar:
    hyper: str
    index: int


@dataclass(frozen=True)
class Count:
    pass


@dataclass(frozen=True)
class Load:
    array: str


@dataclass(frozen=True)
class Local:
    name: str
    extent: Extent
    type: Type


@dataclass(frozen=True)
class Call:
    op: str
    args: tuple[Expr, ...]
    extent: Extent = field(init=False, compare=False, repr=False)
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "extent", max(map(extent_of, self.args), default=Extent.CONSTANT))
        object.__setattr__(self, "_hash", hash((self.op, self.args)))

    # Kept, since the hash of a deep expression would go through all of it each time.
    def __hash__(self) -> int:
        return self._hash

    # Hashes of text differ from process to process, so a kept one must not travel.
    def __reduce__(self) -> tuple[object, ...]:
        return Call, (self.op, self.args)


Expr: TypeAlias = Const | Scalar | Count | Load | Local | Call

_POWERS = frozenset(Const(float(n)) for n in range(2, LARGEST_POWER + 1))


@dataclass(frozen=True)
class Assign:
    target: str
    value: Expr


@dataclass(frozen=True)
class Interval:
    """The values a hyperparameter may take: `[0, 1)` has its lower end closed and its upper end open."""

    low: float
    high: float
    low_closed: bool
    high_closed: bool

    def __contains__(self, x: float) -> bool:
        above = self.low <= x if self.low_closed else self.low < x
        below = x <= self.high if self.high_closed else x < self.high
        return above and below

    def __str__(self) -> str:
        ends = ("[" if self.low_closed else "(", "]" if self.high_closed else ")")
        return f"{ends[0]}{self.low:g}, {self.high:g}{ends[1]}"


@dataclass(frozen=True)
class Hyper:
    name: str
    default: tuple[float, ...]
    vector: bool
    range: Interval
    doc: str


@dataclass(frozen=True)
class Flag:
    name: str
    default: bool
    doc: str
    value: bool


@dataclass(frozen=True)
class State:
    name: str
    init: Expr
    doc: str


@dataclass(frozen=True)
class Rule:
    name: str
    summary: str
    reference: str
    hypers: tuple[Hyper, ...]
    flags: tuple[Flag, ...]
    states: tuple[State, ...]
    body: tuple[Assign, ...]
    scalars: tuple[Assign, ...] = ()

    @property
    def variant(self) -> str:
        """The flags that are set, joined by underscores; empty for the variant without any."""
        return "_".join(flag.name for flag in self.flags if flag.value)

    @property
    def arrays(self) -> tuple[str, ...]:
        """All arrays that a step touches, in the order in which a kernel takes them."""
        return (PARAMETER, GRADIENT, *(state.name for state in self.states))

    @property
    def stores(self) -> frozenset[str]:
        """The arrays that a step writes."""
        return frozenset(a.target for a in self.body) & frozenset(self.arrays)


def extent_of(expr: Expr) -> Extent:
    match expr:
        case Const() | Scalar():
            return Extent.CONSTANT
        case Count():
            return Extent.STEP
        case Load():
            return Extent.ELEMENT
        case Local() | Call():
            return expr.extent


def type_of(expr: Expr) -> Type:
    match expr:
        case Local():
            return expr.type
        case Call():
            return OPS[expr.op].gives
        case _:
            return Type.REAL


def children(expr: Expr) -> tuple[Expr, ...]:
    return expr.args if isinstance(expr, Call) else ()


def rebuilt(expr: Expr, args: tuple[Expr, ...]) -> Expr:
    """`expr` with other arguments; the same object where nothing changed."""
    return Call(expr.op, args) if isinstance(expr, Call) and args != expr.args else expr


def walk(expr: Expr) -> Iterator[Expr]:
    """`expr` and everything below it, arguments before what is made of them."""
    for child in children(expr):
        yield from walk(child)
    yield expr


def loads(rule: Rule) -> frozenset[str]:
    """The arrays whose old value a step reads."""
    return frozenset(e.array for a in rule.body for e in walk(a.value) if isinstance(e, Load))


def kernel_scalars(rule: Rule) -> tuple[Assign, ...]:
    """The scalars that the elements of a lowered rule read: what a kernel takes, in this order."""
    read = {e.name for a in rule.body for e in walk(a.value) if isinstance(e, Local)}
    return tuple(a for a in rule.scalars if a.target in read)


def verify(rule: Rule) -> Rule:
    """`rule` itself, if every invariant of the grammar above holds; an AssertionError that names the fault if not.

    Faults of a spec never get here, `check` reports them to the author; what this finds is a fault of a pass.
    """
    stores = {PARAMETER, *(state.name for state in rule.states)}
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
                expect(expr.array in rule.arrays, f"no array {expr.array}")
            case Local():
                expect(defined.get(expr.name) == (expr.extent, expr.type), f"{expr.name} is not what it was defined as")
            case Call():
                expect(expr.op in OPS, f"no primitive {expr.op}")
                for arg in expr.args:
                    verify_expr(arg)
                types = tuple(map(type_of, expr.args))
                expect(types == OPS[expr.op].takes, f"{expr.op} of wrong types or number of arguments")
                expect(expr.op != "powi" or expr.args[1] in _POWERS, "powi with an exponent that is no literal")

    names = [part.name for parts in (rule.hypers, rule.flags) for part in parts] + list(rule.arrays)
    expect(len(set(names)) == len(names), "two parts of one name")
    for state in rule.states:
        verify_expr(state.init)
        expect(extent_of(state.init) == Extent.CONSTANT, f"initial value of {state.name} is not constant")
    for block in (rule.scalars, rule.body):
        for assign in block:
            verify_expr(assign.value)
            expect(assign.target not in defined, f"{assign.target} assigned twice")
            expect(assign.target != GRADIENT, "the gradient is assigned")
            number = type_of(assign.value) is Type.REAL
            expect(number or assign.target not in stores, f"{assign.target} is assigned a condition")
            if block is rule.scalars:
                scalar = extent_of(assign.value) <= Extent.STEP and assign.target not in stores
                expect(scalar, f"scalar {assign.target} is no scalar")
            defined[assign.target] = (extent_of(assign.value), type_of(assign.value))
    expect(stores <= set(defined), "a state or the parameter is never assigned")
    return rule
