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
               inferred: that of a Call is the least that is not below any of its arguments (`join`)

`body` runs in order and assigns every name once; it assigns "p" and each state. A value of lesser extent than ELEMENT
is float64, and rounded once to the compute type where it meets one of extent ELEMENT. `scalars` is empty until the
pass `hoist` moves everything of extent CONSTANT or STEP there: it is computed on the host, once a step.

A rule as `check` first makes it is *open*: it assigns "delta" or "p", and may read "grad" and "new" as if they were
arrays. Only a state that starts as the parameter need not be assigned. `compose` closes it, alone or behind others;
everything else knows closed rules only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import reduce
from typing import TypeAlias

from .ops import LARGEST_POWER, OPS, REDUCTIONS, Type

__all__ = [
    "GRADIENT", "PARAMETER", "Assign", "Call", "Const", "Count", "Expr", "Extent", "Flag", "Hyper", "Interval", "Load",
    "Local", "Reduce", "Rule", "Scalar", "Size", "State", "children", "extent_of", "join", "kernel_scalars", "loads",
    "rebuilt", "reduces", "replaced", "type_of", "verify", "walk",
]  # fmt: skip

PARAMETER, GRADIENT = "p", "g"


class Extent(IntEnum):
    """How many values there are: one while the hyperparameters stay, one a step, ... or one for every element.

    GROUP: one a step for all its tensors. TENSOR: one for each tensor. MATRIX: one for each matrix of the last two
    dimensions. ROW, COLUMN: one for each row or column of such a matrix; of these two, neither is below the other.
    """

    CONSTANT = 0
    STEP = 1
    GROUP = 2
    TENSOR = 3
    MATRIX = 4
    ROW = 5
    COLUMN = 6
    ELEMENT = 7

    @property
    def words(self) -> str:
        """What has one value of this extent, for messages."""
        return _WORDS[self]


_WORDS = {
    Extent.CONSTANT: "a constant",
    Extent.STEP: "one value a step",
    Extent.GROUP: "one value for all parameters (group)",
    Extent.TENSOR: "one value for each parameter (tensor)",
    Extent.MATRIX: "one value for each matrix (matrix)",
    Extent.ROW: "one value for each row (row)",
    Extent.COLUMN: "one value for each column (column)",
    Extent.ELEMENT: "one value for each element (element)",
}


def join(a: Extent, b: Extent) -> Extent:
    """The least extent that is below neither: a row and a column meet in an element."""
    return Extent.ELEMENT if {a, b} == {Extent.ROW, Extent.COLUMN} else max(a, b)


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
class Size:
    over: Extent
    of: Extent = Extent.ELEMENT


@dataclass(frozen=True)
class Load:
    array: str
    extent: Extent = Extent.ELEMENT


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
        object.__setattr__(self, "extent", reduce(join, map(extent_of, self.args), Extent.CONSTANT))
        object.__setattr__(self, "_hash", hash((self.op, self.args)))

    # Kept, since the hash of a deep expression would go through all of it each time.
    def __hash__(self) -> int:
        return self._hash

    # Hashes of text differ from process to process, so a kept one must not travel.
    def __reduce__(self) -> tuple[object, ...]:
        return Call, (self.op, self.args)


@dataclass(frozen=True)
class Reduce:
    """`key`: which reduction over the group this is, where tensors in two variants take part in it; else -1."""

    op: str
    args: tuple[Expr, ...]
    over: Extent
    key: int = -1
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.op, self.args, self.over, self.key)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[object, ...]:
        return Reduce, (self.op, self.args, self.over, self.key)


Expr: TypeAlias = Const | Scalar | Count | Size | Load | Local | Call | Reduce

_POWERS = frozenset(Const(float(n)) for n in range(2, LARGEST_POWER + 1))


@dataclass(frozen=True)
class Assign:
    target: str
    value: Expr


@dataclass(frozen=True)
class Interval:
    """The values a hyperparameter may take: `[0, 1)` has its lower end closed and its upper end open, and
    `[1, inf), whole` has whole numbers only."""

    low: float
    high: float
    low_closed: bool
    high_closed: bool
    whole: bool = False

    def __contains__(self, x: float) -> bool:
        above = self.low <= x if self.low_closed else self.low < x
        below = x <= self.high if self.high_closed else x < self.high
        return above and below and (not self.whole or math.isinf(x) or x == math.floor(x))

    def __str__(self) -> str:
        ends = ("[" if self.low_closed else "(", "]" if self.high_closed else ")")
        return f"{ends[0]}{self.low:g}, {self.high:g}{ends[1]}{', whole' * self.whole}"


@dataclass(frozen=True)
class Hyper:
    """`ranges`: for each value the one that it must be in."""

    name: str
    default: tuple[float, ...]
    vector: bool
    ranges: tuple[Interval, ...]
    doc: str

    @property
    def range(self) -> str:
        """The ranges in words: one that all values have once, else all of them."""
        texts = list(map(str, self.ranges))
        if len(set(texts)) == 1:
            return texts[0]
        return f"{', '.join(texts[:-1])} and {texts[-1]}"


@dataclass(frozen=True)
class Flag:
    """`when`: a condition of hyperparameters that decides where the caller does not; then `default` is its value for
    their defaults. `requires`: what other flags must be where this one is set, in words."""

    name: str
    default: bool
    doc: str
    value: bool
    when: Expr | None = None
    requires: str = ""


@dataclass(frozen=True)
class State:
    name: str
    init: Expr
    doc: str
    extent: Extent = Extent.ELEMENT


@dataclass(frozen=True)
class Rule:
    """`part`: "" for a rule, else "gradient" or "parameter", the two kinds of parts that are none by themselves.

    `matrix`: whether this variant is for tensors of two and more dimensions, or for the others; None if it does not
    matter. `rows`: "last" if these are the rows of the last two dimensions, "first" for slices of the first dimension.
    `accept`: the condition on which a step counts, a value of the group; if it is false nothing is written but the
    gradient. Empty if every step counts. `sharded`: whether tensors may be the shards of larger ones, of which this
    rule then reduces all; a pass says so.
    """

    name: str
    summary: str
    reference: str
    hypers: tuple[Hyper, ...]
    flags: tuple[Flag, ...]
    states: tuple[State, ...]
    body: tuple[Assign, ...]
    scalars: tuple[Assign, ...] = ()
    origin: str = ""
    notes: str = ""
    part: str = ""
    matrix: bool | None = None
    rows: str = "last"
    accept: str = ""
    sharded: bool = False

    @property
    def variant(self) -> str:
        """The flags that are set, joined by underscores; empty for the variant without any."""
        return "_".join([flag.name for flag in self.flags if flag.value] + ["matrix"] * bool(self.matrix))

    @property
    def arrays(self) -> tuple[str, ...]:
        """All arrays with a value for every element, in the order in which a kernel takes them."""
        return (PARAMETER, GRADIENT, *(state.name for state in self.states if state.extent == Extent.ELEMENT))

    @property
    def small_states(self) -> tuple[State, ...]:
        """The states of lesser extent than ELEMENT, which are float64."""
        return tuple(state for state in self.states if state.extent < Extent.ELEMENT)

    @property
    def tensor_states(self) -> tuple[str, ...]:
        """The states that each tensor has, in the order in which a kernel takes them: those of elements first."""
        small = (state.name for state in self.small_states if state.extent > Extent.GROUP)
        return (*self.arrays[2:], *small)

    @property
    def stores(self) -> frozenset[str]:
        """The parameter, the states and the gradient, as far as a step writes them."""
        return frozenset(a.target for a in self.body) & {PARAMETER, GRADIENT, *(state.name for state in self.states)}

    @property
    def overwrites(self) -> bool:
        """Whether a step leaves something else in the gradient than it was."""
        return any(a.target == GRADIENT for a in self.body)

    @property
    def tiled(self) -> bool:
        """Whether a step knows of rows and columns, so that it goes over matrices."""
        tiles = (Extent.MATRIX, Extent.ROW, Extent.COLUMN)
        return any(getattr(e, "over", None) in tiles for a in self.body for e in walk(a.value)) or any(
            state.extent in tiles for state in self.states
        )

    @property
    def grouped(self) -> bool:
        """Whether a value of a step depends on all its tensors together."""
        return any(state.extent == Extent.GROUP for state in self.states) or any(
            getattr(e, "over", None) == Extent.GROUP for a in self.body for e in walk(a.value)
        )


def extent_of(expr: Expr) -> Extent:
    match expr:
        case Const() | Scalar():
            return Extent.CONSTANT
        case Count():
            return Extent.STEP
        case Size():
            return Extent.GROUP if expr.over == Extent.GROUP else Extent.TENSOR
        case Load() | Local() | Call():
            return expr.extent
        case Reduce():
            return expr.over


def type_of(expr: Expr) -> Type:
    match expr:
        case Local():
            return expr.type
        case Call():
            return OPS[expr.op].gives
        case _:
            return Type.REAL


def children(expr: Expr) -> tuple[Expr, ...]:
    return expr.args if isinstance(expr, Call | Reduce) else ()


def rebuilt(expr: Expr, args: tuple[Expr, ...]) -> Expr:
    """`expr` with other arguments; the same object where nothing changed."""
    if isinstance(expr, Call) and args != expr.args:
        return Call(expr.op, args)
    if isinstance(expr, Reduce) and args != expr.args:
        return Reduce(expr.op, args, expr.over, expr.key)
    return expr


def replaced(expr: Expr, known: dict[Expr, Expr]) -> Expr:
    """`expr` with other leaves in the place of those in `known`."""
    return known[expr] if expr in known else rebuilt(expr, tuple(replaced(arg, known) for arg in children(expr)))


def walk(expr: Expr) -> Iterator[Expr]:
    """`expr` and everything below it, arguments before what is made of them."""
    for child in children(expr):
        yield from walk(child)
    yield expr


def loads(rule: Rule) -> frozenset[str]:
    """The arrays whose old value a step reads; and the states of lesser extent."""
    return frozenset(e.array for a in rule.body for e in walk(a.value) if isinstance(e, Load))


def reduces(exprs: Iterable[Expr]) -> list[Reduce]:
    """All reductions in `exprs`, inner ones first."""
    return [e for expr in exprs for e in walk(expr) if isinstance(e, Reduce)]


def kernel_scalars(rule: Rule) -> tuple[Assign, ...]:
    """The scalars that `body` of a lowered rule reads: what a kernel takes, in this order."""
    read = {e.name for a in rule.body for e in walk(a.value) if isinstance(e, Local)}
    return tuple(a for a in rule.scalars if a.target in read)


def varies_within(extent: Extent, over: Extent) -> bool:
    """Whether values of this extent, more than one of them, are what a reduction over `over` can take."""
    if over in (Extent.ROW, Extent.COLUMN):
        return extent == Extent.ELEMENT
    return extent > over and over in (Extent.GROUP, Extent.TENSOR, Extent.MATRIX)


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
                extent = reduce(join, map(extent_of, expr.args), Extent.CONSTANT)
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
                most = extents[assign.target]
                expect(join(extent, most) == most, f"{assign.target} is assigned more values than it has")
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
