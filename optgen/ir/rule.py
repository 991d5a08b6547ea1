"""A rule, and what it is made of.

In: expressions. Out: frozen values; `verify` states the invariants that hold for them.

    rule     = Rule(name, summary, reference, hypers*, flags*, states*, body*, scalars*, origin, family, notes, part,
                    matrix, matrices, accept, sharded, inputs*, evaluation*, reports*, block?, phase, phases*, when?,
                    storages*, rounding*, tall, wide, dimensions*, turns*)
    hyper    = Hyper(name, default+, vector, ranges+, doc, free) a run-time argument: one number, or beta[1], beta[2]
    flag     = Flag(name, default, doc, value, when, requires)  a compile-time choice; `value` is this variant's
    state    = State(name, init, doc, extent, always, dims)     values kept from step to step, as many as its extent has
    input    = Input(name, extent, doc)                         what a step is given beside the gradient
    report   = Report(name, value, extent, doc)                 what a step computes, and does not store
    dimension = Dimension(name, hyper, most)                        a length that a hyperparameter says, for states
    assign   = Assign(target, value)                            target: a state, "p", or a new local name

`body` runs in order and assigns every name once; it assigns "p" and each state. A value of lesser extent than ELEMENT
is float64. Where it meets an element, it is rounded to the compute type, once. `scalars` is empty until the pass
`hoist` moves everything of extent CONSTANT or STEP there; the host computes it once a step.

A rule is *open* as `check` first makes it: it assigns "delta" or "p", and may read "grad" and "new" as if they were
arrays. Only a state that starts as the parameter need not be assigned. `compose` closes it, alone or behind others.
Everything else knows closed rules only.

Where a step has several phases, there is a rule for each: all have the same states, and each assigns those that it
changes. One state of the group, `PHASE`, says which phase comes next: 0 between two steps. Where steps may leave out
the first one, another, `FIRST_PHASE`, says with which the next step begins.

`evaluation` assigns "p" what is evaluated in its place, from "p" and the states as a step has left them; it is empty
where that is "p" itself. No kernel runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import cached_property
from typing import TypeAlias

from ..frozen import frozen
from .expr import GRADIENT, PARAMETER, Count, Draw, Expr, Extent, Load, Local, Matrices, Scalar, multiplies, walk
from .extents import Dims
from .interval import Interval

__all__ = [
    "FIRST_PHASE",
    "OF_PHASES",
    "PHASE",
    "Aspect",
    "Assign",
    "Dimension",
    "Family",
    "Flag",
    "Hyper",
    "Input",
    "Lengths",
    "Part",
    "Report",
    "Rounding",
    "Rule",
    "State",
    "Storages",
    "in_phases",
    "kernel_scalars",
    "loads",
]

#: How many values some hyperparameters have, in the order of their names, if not as many as their defaults.
Lengths: TypeAlias = tuple[tuple[str, int], ...]
#: Arrays that are kept in another type than the compute type, each with its storage.
Storages: TypeAlias = tuple[tuple[str, str], ...]
#: Arrays that are rounded stochastically, each with the hyperparameter that is its seed.
Rounding: TypeAlias = tuple[tuple[str, str], ...]

#: The state of the group that holds the number of the phase that comes next, from 0.
PHASE = "phase"
#: The state of the group that holds the number of the phase with which the next step begins, where it need not be 0.
FIRST_PHASE = "first_phase"
OF_PHASES = (PHASE, FIRST_PHASE)


class Part(StrEnum):
    """What a spec is: a rule, or a part of chains that works on the gradient or on the stepped parameter."""

    RULE = ""
    GRADIENT = "gradient"
    PARAMETER = "parameter"


class Family(StrEnum):
    """What rules have in common, in the order in which lists have them."""

    NONE = ""
    MOMENTUM = "momentum"
    ADAGRAD = "adagrad"
    ADAM = "adam"
    SIGN = "sign"
    LAYERWISE = "layerwise"
    MEMORY = "memory"
    CURVATURE = "curvature"
    PARAMETER_FREE = "parameter-free"
    SCHEDULE_FREE = "schedule-free"
    MATRIX = "matrix"
    PARTS = "parts"


class Aspect(StrEnum):
    """What a parameter is to rules: a matrix with more columns than rows, or as many, or fewer; or no matrix."""

    WIDE = "wide"
    SQUARE = "square"
    TALL = "tall"
    VECTOR = "vector"


@frozen
class Assign:
    target: str
    value: Expr


@frozen
class Hyper:
    """A hyperparameter; `ranges`: the range of each of its values. `free`: whether there may be another number of
    values, for which the rule is compiled anew."""

    name: str
    default: tuple[float, ...]
    vector: bool
    ranges: tuple[Interval, ...]
    doc: str
    free: bool = False

    @property
    def range(self) -> str:
        """The ranges in words: one that all values have once, else all of them."""
        texts = list(map(str, self.ranges))
        if len(set(texts)) == 1:
            return texts[0]
        return f"{', '.join(texts[:-1])} and {texts[-1]}"


@frozen
class Flag:
    """A choice at compile time.

    `when`: a condition of hyperparameters that decides where the caller does not; `default` is then its value for their
    defaults. `requires`: what other flags must be where this one is set, in words.
    """

    name: str
    default: bool
    doc: str
    value: bool
    when: Expr | None = None
    requires: str = ""


@frozen
class State:
    """What is kept from step to step. `always`: it changes in steps that do not count too."""

    name: str
    init: Expr
    doc: str
    extent: Extent = Extent.ELEMENT
    always: bool = False
    dims: Dims | None = None  # those of the parameter


@frozen
class Dimension:
    """A dimension of states that is as long as a hyperparameter says, and no longer than `most`: "row" or "column",
    where there is such a limit."""

    name: str
    hyper: str
    most: str = ""


@frozen
class Input:
    """What a step is given beside the gradient: an array like it (ELEMENT), or one number (STEP)."""

    name: str
    extent: Extent
    doc: str


@frozen
class Report:
    """What a step gives beside what it writes. `value`: the local that holds it. `extent`: less than ELEMENT."""

    name: str
    value: str
    extent: Extent
    doc: str


@frozen
class Rule:
    """One variant of a rule, or of a part of chains.

    `matrix`: whether this variant is for tensors of two or more dimensions, or for the others; None if it does not
    matter. `matrices`: how a parameter is seen as matrices. `accept`: the local that tells whether a step counts, a
    value of the group; empty if every step counts. If it is false, nothing is written but the gradient and the states
    that `always` change. `sharded`: whether tensors may be shards of larger ones, over which this rule then reduces;
    the pass `name_sizes` sets it. `block`: how many elements a block of a tensor has, a value of it; None if there are
    no blocks. `phases`: the names of the phases of a step, of which this is `phase`; empty where a step has but one.
    `when`: the condition, of t and hyperparameters, on which a step has this phase; None if each has.
    `storages`, `rounding`: those of the arrays that a kernel is made for; other rules have none. `tall`, `wide`:
    whether this variant is for matrices with more rows than columns, or fewer; None if it does not matter. `turns`: the
    hyperparameters that say how many turns a loop has; the body is that for one value of each. `of_matrices`: whether
    reductions over a tensor go by its rows, as in a step of which this is a part.
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
    family: Family = Family.NONE
    notes: str = ""
    part: Part = Part.RULE
    matrix: bool | None = None
    matrices: Matrices = Matrices.LAST_TWO
    accept: str = ""
    sharded: bool = False
    inputs: tuple[Input, ...] = ()
    evaluation: tuple[Assign, ...] = ()
    reports: tuple[Report, ...] = ()
    block: Expr | None = None
    phase: str = ""
    phases: tuple[str, ...] = ()
    when: Expr | None = None
    storages: Storages = ()
    rounding: Rounding = ()
    tall: bool | None = None
    wide: bool | None = None
    dimensions: tuple[Dimension, ...] = ()
    turns: tuple[str, ...] = ()
    of_matrices: bool = False

    @cached_property
    def variant(self) -> str:
        """The phase and the flags that are set, joined by underscores; empty for the variant without any."""
        flags = [flag.name for flag in self.flags if flag.value]
        shape = ["matrix"] * bool(self.matrix) + ["tall"] * bool(self.tall) + ["wide"] * bool(self.wide)
        return "_".join([*filter(None, [self.phase]), *flags, *shape])

    def takes(self, aspect: Aspect) -> bool:
        """Whether this variant is for such parameters."""
        return (
            self.matrix in (None, aspect != Aspect.VECTOR)
            and self.tall in (None, aspect == Aspect.TALL)
            and self.wide in (None, aspect == Aspect.WIDE)
        )

    @cached_property
    def multiplies(self) -> bool:
        """Whether a step has products of whole matrices."""
        return any(multiplies(assign.value) for assign in self.body)

    @property
    def ends_step(self) -> bool:
        """Whether a step is through with this phase, and counts."""
        return self.phase == self.phases[-1] if self.phases else True

    @cached_property
    def arrays(self) -> tuple[str, ...]:
        """All arrays with a value for every element, in the order in which a kernel takes them."""
        return (PARAMETER, *self.given_arrays, *self.element_states)

    @cached_property
    def given_arrays(self) -> tuple[str, ...]:
        """What a step is given for each parameter: the gradient, and the inputs that are like it."""
        return (GRADIENT, *(each.name for each in self.inputs if each.extent == Extent.ELEMENT))

    @property
    def given_numbers(self) -> tuple[str, ...]:
        """The inputs that are one number."""
        return tuple(each.name for each in self.inputs if each.extent == Extent.STEP)

    @cached_property
    def element_states(self) -> tuple[str, ...]:
        return tuple(state.name for state in self.states if state.extent == Extent.ELEMENT and state.dims is None)

    @cached_property
    def matrix_states(self) -> tuple[State, ...]:
        """The states that are matrices of other dimensions than the parameter, in the compute type."""
        return tuple(state for state in self.states if state.extent == Extent.ELEMENT and state.dims is not None)

    @cached_property
    def small_states(self) -> tuple[State, ...]:
        """The states of lesser extent than ELEMENT, which are float64."""
        return tuple(state for state in self.states if state.extent < Extent.ELEMENT)

    @cached_property
    def tensor_states(self) -> tuple[str, ...]:
        """The states that each tensor has, in the order in which a kernel takes them: those of elements first."""
        small = (state.name for state in self.small_states if state.extent > Extent.GROUP)
        return (*self.element_states, *small)

    @cached_property
    def stores(self) -> frozenset[str]:
        """The parameter, the states and the gradient, as far as a step writes them."""
        return frozenset(a.target for a in self.body) & {PARAMETER, GRADIENT, *(state.name for state in self.states)}

    @cached_property
    def always(self) -> frozenset[str]:
        """What is written in a step that does not count too."""
        return self.stores & {GRADIENT, *(state.name for state in self.states if state.always)}

    @cached_property
    def verdict(self) -> frozenset[str]:
        """The values to know before anything is written: whether the step counts, and what changes if it does not."""
        return self.always - {GRADIENT} | {self.accept} if self.accept else frozenset()

    @cached_property
    def reported(self) -> frozenset[str]:
        """The values that are reported."""
        return frozenset(report.value for report in self.reports)

    @cached_property
    def draws(self) -> bool:
        """Whether a step draws random numbers."""
        return any(isinstance(e, Draw) for a in self.body for e in walk(a.value))

    @cached_property
    def overwrites(self) -> bool:
        """Whether a step overwrites the gradient."""
        return any(a.target == GRADIENT for a in self.body)

    @cached_property
    def tiled(self) -> bool:
        """Whether a step goes over matrices, since it knows of rows and columns; or over blocks, which are its rows."""
        tiles = (Extent.MATRIX, Extent.ROW, Extent.COLUMN, Extent.INDEX, Extent.BLOCK)
        reduced = (*tiles, Extent.TENSOR) if self.of_matrices else tiles
        over = {getattr(e, "over", None) for a in self.body for e in walk(a.value)}
        return self.multiplies or not over.isdisjoint(reduced) or any(state.extent in tiles for state in self.states)

    @cached_property
    def grouped(self) -> bool:
        """Whether a value of a step depends on all its tensors together."""
        return any(state.extent == Extent.GROUP for state in self.states) or any(
            getattr(e, "over", None) == Extent.GROUP for a in self.body for e in walk(a.value)
        )


def in_phases(rules: Sequence[Rule], variant: int) -> range:
    """Where a variant of the first phase stands among the `rules` of all phases: one position for each phase."""
    return range(variant, len(rules), max(1, len(rules) // max(1, len(rules[0].phases))))


def loads(rule: Rule) -> frozenset[str]:
    """The arrays, and the states of lesser extent, whose old value a step reads."""
    return frozenset(e.array for a in rule.body for e in walk(a.value) if isinstance(e, Load))


def kernel_scalars(rule: Rule) -> tuple[Assign, ...]:
    """The scalars that `body` of a lowered rule reads, or a step reports: what a kernel takes, in this order."""
    read = {e.name for a in rule.body for e in walk(a.value) if isinstance(e, Local)} | rule.reported
    key = {Count(), *(Scalar(seed, 0) for _, seed in rule.rounding)} if rule.rounding else ()
    return tuple(a for a in rule.scalars if a.target in read or a.value in key)
