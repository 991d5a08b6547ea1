"""The syntax tree of a spec, with the place of every part.

In: what `parse` reads from a file. Out: what `check` gives a meaning.

    spec     = SpecAst(file, text, name, summary, reference, origin, family, notes, part, matrices, block?, hypers*,
                       flags*, states*, inputs*, reports*, phases+, evaluation*, faults*)
    phase    = PhaseAst(name, span, formulas*, when?)
    term     = Number | Name | Item | Operation | Invoke | Choice | Broken
    loop     = LoopAst(variable, over, body*)
    looped   = Indexed | Gathered

A `Broken` term stands where a fault was reported. Loops, and the two kinds of terms that loops are about, are written
out before anything has a meaning (`loops`): `check` never sees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from ..errors import Diagnostic, Span
from ..frozen import frozen

__all__ = [
    "Broken", "Choice", "FlagAst", "FormulaAst", "Gathered", "HyperAst", "Indexed", "InputAst", "Invoke", "Item",
    "LoopAst", "Name", "Number", "Operation", "PhaseAst", "ReportAst", "SizeAst", "SpecAst", "StateAst",
    "Term",
]  # fmt: skip


@frozen
class Number:
    span: Span
    value: float
    whole: bool


@frozen
class Name:
    span: Span
    name: str
    spelled: str


@frozen
class Item:
    """`beta[1]`: one of the values of a hyperparameter."""

    span: Span
    name: str
    spelled: str
    index: int


@frozen
class Operation:
    """An operator, by the name of its primitive."""

    span: Span
    op: str
    args: tuple[Term, ...]


@frozen
class Invoke:
    """A function called by name, known or not."""

    span: Span
    function: str
    args: tuple[Term, ...]


@frozen
class Choice:
    """`then if test else other`, or `where(test, then, other)`.

    A test of flags is decided when a variant is made. Any other test chooses where the rule runs.
    """

    span: Span
    test: Term
    then: Term
    other: Term


@frozen
class Broken:
    """A term with a reported fault, which causes no further faults."""

    span: Span


@frozen
class Indexed:
    """`m[k]`: one of several values, by an index that a loop gives."""

    span: Span
    name: str
    spelled: str
    index: Term


@frozen
class Gathered:
    """`sum(m[b] for b in beta)`: one value of those of all turns of a loop."""

    span: Span
    function: str
    value: Term
    variable: str
    variable_span: Span
    over: Term


Term: TypeAlias = Number | Name | Item | Operation | Invoke | Choice | Broken | Indexed | Gathered


@frozen
class HyperAst:
    name: str
    span: Span
    default: tuple[float, ...] | None
    default_span: Span
    vector: bool
    ranges: tuple[tuple[str, Span], ...]  # one for all values, or one for each
    doc: str


@frozen
class FlagAst:
    name: str
    span: Span
    default: bool | Term  # a term is a condition of hyperparameters
    requires: Term | None
    requires_text: str
    doc: str


@frozen
class StateAst:
    name: str
    span: Span
    init: Term
    when: Term | None
    extent: str
    extent_span: Span
    doc: str
    each: int | str  # how many there are: a number, or one for each value of a hyperparameter; 0 for a single one
    each_span: Span
    always: bool  # whether it changes in steps that do not count too
    dims: tuple[str, str] | None = None  # of a matrix that is not like the parameter


@frozen
class InputAst:
    name: str
    span: Span
    extent: str
    doc: str


@frozen
class SizeAst:
    """A length that a rule names. A hyperparameter of that name says it."""

    name: str
    span: Span
    most: str  # a side of the parameter that it may not exceed
    most_span: Span


@frozen
class ReportAst:
    name: str
    span: Span
    value: Term
    when: Term | None
    doc: str


@frozen
class FormulaAst:
    """`index`: which of several values is assigned. `before`: the name of the value that a loop has given last.
    `spelled`: what the author calls the target, where a loop assigns it again and again."""

    target: str
    span: Span
    value: Term
    index: Term | None = None
    before: str = ""
    spelled: str = ""


@frozen
class LoopAst:
    """`for variable in over:` and the formulas of a turn."""

    span: Span
    variable: str
    over: Term
    body: tuple[FormulaAst | LoopAst, ...]


@frozen
class PhaseAst:
    """One phase of a step. The only phase of a step that has no others has no name."""

    name: str
    span: Span
    formulas_span: Span
    formulas: tuple[FormulaAst, ...] = ()
    when: Term | None = None


_NO_PHASE = PhaseAst("", Span(1, 1), Span(1, 1))


@dataclass
class SpecAst:
    """One spec as written. `faults` is empty for a well-formed one."""

    file: str
    text: str
    name: str = ""
    name_span: Span = Span(1, 1)  # noqa: RUF009  (frozen)
    summary: str = ""
    reference: str = ""
    origin: str = ""
    family: str = ""
    notes: str = ""
    part: str = ""
    matrices: str = "last two"
    matrices_span: Span = Span(1, 1)  # noqa: RUF009  (frozen)
    block: Term | None = None  # how many elements a block has
    hypers: list[HyperAst] = field(default_factory=list)
    flags: list[FlagAst] = field(default_factory=list)
    sizes: list[SizeAst] = field(default_factory=list)
    states: list[StateAst] = field(default_factory=list)
    inputs: list[InputAst] = field(default_factory=list)
    reports: list[ReportAst] = field(default_factory=list)
    phases: list[PhaseAst] = field(default_factory=lambda: [_NO_PHASE])
    evaluation: list[FormulaAst] = field(default_factory=list)
    evaluation_span: Span = Span(1, 1)  # noqa: RUF009  (frozen)
    #: How many values hyperparameters have, and how many turns others say that loops have, if not as written.
    lengths: Mapping[str, int] = field(default_factory=dict)
    looped: set[str] = field(default_factory=set)  # the hyperparameters that loops go over
    fixed: set[str] = field(default_factory=set)  # those that say how many turns a loop has
    # Words of malformed text, any of which may be assigned or used there: no faults are reported about them.
    unassigned: set[str] = field(default_factory=set)
    unused: set[str] = field(default_factory=set)
    faults: list[Diagnostic] = field(default_factory=list)

    @property
    def formulas(self) -> list[FormulaAst]:
        """The formulas of all phases."""
        return [formula for phase in self.phases for formula in phase.formulas]

    @property
    def formulas_span(self) -> Span:
        return self.phases[0].formulas_span
