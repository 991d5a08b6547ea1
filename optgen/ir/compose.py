"""Open rules to one closed rule: in a chain, the step of each part is the gradient of the next.

In: open rules, each in the variant that is wanted. Out: a closed `Rule`, of the same kind for one part as for many, and
the names of the parts' hyperparameters and states in it. A name that only one part has stays; others get the name of
their part in front. Inputs of one name are one input.

Where a step has several phases, one part has them, and there is a closed rule for each. The parts before that one run
in every phase, those behind it in the last one.

That `delta` is subtracted from the parameter stands here, and only here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..frozen import frozen, replace
from ..names import numbered
from .draws import MOST_DRAWS
from .expr import (
    GRADIENT,
    PARAMETER,
    Call,
    Const,
    Count,
    Draw,
    Expr,
    Extent,
    Load,
    Local,
    Matrices,
    Scalar,
    children,
    extent_of,
    local_of,
    rebuilt,
)
from .keys import keyed
from .part_names import ACCEPT, DELTA, GIVEN_GRADIENT, NEW, PROCEED, names_of, prefixes_of
from .primitives import Type
from .rule import Assign, Family, Report, Rule, State

__all__ = ["ACCEPT", "DELTA", "GIVEN_GRADIENT", "NEW", "PROCEED", "Composed", "close", "compose"]


@frozen
class Composed:
    """A closed rule; and for each part, the names in it of the part's hyperparameters, states and reports.

    `counts`: of each part the state that counts its updates, where a part before it waits; empty where that is t, None
    where nothing goes by it.
    """

    rule: Rule
    hypers: tuple[Mapping[str, str], ...]
    states: tuple[Mapping[str, str], ...]
    reports: tuple[Mapping[str, str], ...]
    counts: tuple[str | None, ...]


def close(rule: Rule) -> Rule:
    """A closed rule of one open rule: a chain of one, which keeps its flags and its kind."""
    return replace(compose([rule], rule.name).rule, flags=rule.flags, part=rule.part)


def compose(
    parts: Sequence[Rule], name: str, among: Sequence[Sequence[Rule]] = (), final: Rule | None = None
) -> Composed:
    """The closed rule `name` that runs the open rules `parts` one after the other.

    `among`: for each part, all variants that one optimiser may use; they get the same names. `final`: the rule of the
    last phase, whose states and evaluation an earlier one has too.

    A part's output is the next part's gradient. A part that assigns "p" hands on how far p moved. Where `proceed` of a
    part is false, p stays as it is, and so does all that the parts behind it own. Where `accept` of a part is false,
    the step changes nothing but the gradient, if a part assigns `grad`.
    """
    taken = {PARAMETER, GRADIENT, DELTA, PROCEED, ACCEPT, GIVEN_GRADIENT, NEW, "t"}
    prefixes = prefixes_of(parts)
    names = names_of(parts, prefixes, among or [[part] for part in parts], taken)
    phased = next((part for part in parts if part.phases), parts[-1])
    running = parts if phased.ends_step else parts[: parts.index(phased) + 1]
    made = _Chain(len(parts), taken)
    for i, part in enumerate(running):
        made.append(part, names[i], prefixes[i], last=i + 1 == len(running))
    first = parts[0]
    alone = len(parts) == 1
    hypers = tuple(
        replace(hyper, name=names[i][hyper.name], free=hyper.free and alone)
        for i, part in enumerate(parts)
        for hyper in part.hypers
    )
    matrix = next((part.matrix for part in parts if part.matrix is not None), None)
    rule = Rule(
        name,
        first.summary if alone else "; then ".join(f"{part.name}: {part.summary.removesuffix('.')}" for part in parts),
        first.reference if alone else "; ".join(filter(None, (part.reference for part in parts))),
        hypers,
        (),
        final.states if final is not None else tuple(made.states),
        tuple(made.body) if matrix is None else keyed(made.body),
        origin=first.origin if alone else "",
        family=first.family if alone else Family.NONE,
        notes=first.notes if alone else "",
        matrix=matrix,
        matrices=next((part.matrices for part in parts if part.matrices != Matrices.LAST_TWO), Matrices.LAST_TWO),
        accept=made.accept.name if made.accept is not None else "",
        evaluation=final.evaluation if final is not None else made.evaluation,
        inputs=tuple({each.name: each for part in parts for each in part.inputs}.values()),
        block=next((made.renamed(p.block, names[i]) for i, p in enumerate(parts) if p.block is not None), None),
        reports=tuple(made.reports),
        phase=phased.phase,
        phases=phased.phases,
        tall=next((part.tall for part in parts if part.tall is not None), None),
        wide=next((part.wide for part in parts if part.wide is not None), None),
        dimensions=tuple(
            replace(each, hyper=names[i][each.hyper]) for i, part in enumerate(parts) for each in part.dimensions
        ),
        turns=tuple(names[i][each] for i, part in enumerate(parts) for each in part.turns),
        when=None if phased.when is None else made.renamed(phased.when, names[parts.index(phased)]),
    )
    return Composed(
        rule,
        tuple({hyper.name: names[i][hyper.name] for hyper in part.hypers} for i, part in enumerate(parts)),
        tuple({state.name: names[i][state.name] for state in part.states} for i, part in enumerate(parts)),
        tuple(
            {each.name: made.report_name(each, prefixes[i]) for each in part.reports} for i, part in enumerate(parts)
        ),
        tuple(made.counts),
    )


@dataclass
class _PartNames:
    """One part while it is appended: its names in the chain, and what it has given so far."""

    names: Mapping[str, str]
    stored: Mapping[str, Expr]  # its states, as the chain loads them
    is_part: bool  # none that stands by itself
    first_draw: int  # the number of its first draw among those of the chain
    known: dict[Expr, Expr] = field(default_factory=dict)  # what its assigned names are in the chain
    moves: bool = False  # whether it gives both the parameter and what is subtracted from it
    output: Expr | None = None
    moved: bool = False  # whether the output is the parameter
    proceed: Expr | None = None


class _Chain:
    """The body so far, and what the next part finds: its gradient, the parameter as it stands, its count."""

    def __init__(self, count: int, taken: set[str]) -> None:
        self.alone = count == 1
        self.taken = taken
        self.body: list[Assign] = []
        self.states: list[State] = []
        self.start: Expr = Load(PARAMETER)  # from where the step goes: another place where a phase has moved it
        self.reports: list[Report] = []
        self.gradient: Expr = Load(GRADIENT)
        self.given: Expr = Load(GRADIENT)  # the gradient before any part; behind one that waits, what it waited for
        self.moved: Expr | None = None  # the parameter, where a part has assigned it
        self.count: Expr | None = Count()  # None until a part that was waited for asks for a count of its own
        self.holds: Expr | None = None  # whether this part takes part in the step
        self.accept: Local | None = None  # whether the step counts
        self.left: Expr | None = None  # what the gradient is left as
        self.draws = 0  # how many the parts so far may have had
        self.evaluation: tuple[Assign, ...] = ()  # of the last part that has any
        self.counts: list[str | None] = []  # by which schedules of each part go
        self.uncounted = 0  # the parts since one that waits

    def append(self, part: Rule, names: Mapping[str, str], prefix: str, *, last: bool) -> None:
        """Appends a part, whose names become `names`; `prefix`: what it is called. `last`: none follows it."""
        self.states += [replace(s, name=names[s.name], init=self.renamed(s.init, names)) for s in part.states]
        stored = {s.name: Load(names[s.name], s.extent, s.dims) for s in part.states}
        moves = {DELTA, PARAMETER} <= {assign.target for assign in part.body}
        at = _PartNames(names, stored, is_part=bool(part.part), first_draw=self.draws, moves=moves)
        self.draws += MOST_DRAWS
        for assign in part.body:
            own = local_of(assign.target, assign.value)
            at.known[own] = self.assigned(assign.target, self.read(assign.value, at), at, last=last)
        self.reports += [self.reported(report, at, prefix) for report in part.reports]
        if part.hypers:
            self.counted()
        self.uncounted += 1
        if part.evaluation:
            self.evaluation = tuple(Assign(a.target, self.between(a.value, at)) for a in part.evaluation)
        assert at.output is not None, f"{part.name} has no output"
        self.pass_on(at.output, at.moved)
        if at.proceed is not None:
            self.hold(at.proceed, wait=not last)
        if last:
            self.finish()

    def read(self, expr: Expr, at: _PartNames) -> Expr:
        """An expression of a part as one of the chain."""
        if expr in at.known:
            return at.known[expr]
        match expr:
            case Load() if expr.array in at.stored:
                return replace(expr, array=at.names[expr.array])
            case Load(array="p"):
                return self.start
            case Load(array="g"):
                return self.gradient
            case Load(array="grad"):
                return self.given
            case Load(array="new"):
                return self.stepped()
            case Count():
                return self.counted()
            case Scalar():
                return Scalar(at.names[expr.hyper], expr.index)
        read = rebuilt(expr, tuple(self.read(arg, at) for arg in children(expr)))
        return replace(read, number=at.first_draw + read.number) if isinstance(read, Draw) else read

    def between(self, expr: Expr, at: _PartNames) -> Expr:
        """An expression of a part as one of the chain between two steps: states and p are what the last step left."""
        match expr:
            case Load() if expr.array in at.stored:
                return replace(expr, array=at.names[expr.array])
            case Count():
                count = self.counted()
                return Load(count.name, Extent.TENSOR) if isinstance(count, Local) else count
            case Scalar():
                return Scalar(at.names[expr.hyper], expr.index)
        return rebuilt(expr, tuple(self.between(arg, at) for arg in children(expr)))

    def assigned(self, target: str, value: Expr, at: _PartNames, *, last: bool) -> Expr:
        """Adds the assignment of `value` to `target` of a part; gives what `target` is in the chain from then on."""
        if target == PROCEED:
            at.proceed = self.define("proceed" if self.alone else self.free("proceed"), value)
            return at.proceed
        if target == ACCEPT:
            return self.accepted(value)
        if target == GIVEN_GRADIENT and at.is_part:
            self.left = value
            return value
        if target == PARAMETER and at.moves:
            self.start, self.moved = self.define(self.free("p"), self.whole(value)), None
            return self.start
        if target in (DELTA, PARAMETER):
            at.moved, at.output = target == PARAMETER, self.output(target, value, last=last)
            return at.output
        if target in at.stored and self.holds is not None:
            value = Call("where", (self.holds, value, at.stored[target]))
        return self.define(at.names[target], value)

    def reported(self, report: Report, at: _PartNames, prefix: str) -> Report:
        """A report of a part as one of the chain: NaN in a step in which the part takes no part."""
        value = at.known[Local(report.value, report.extent, Type.REAL)]
        if self.holds is not None and extent_of(self.holds) <= extent_of(value):
            value = Call("where", (self.holds, value, Call("div", (Const(0.0), Const(0.0)))))
        if not isinstance(value, Local):
            value = self.define(self.free("report"), value)
        return Report(self.report_name(report, prefix), value.name, value.extent, report.doc)

    def report_name(self, report: Report, prefix: str) -> str:
        return report.name if self.alone else f"{prefix}/{report.name}"

    def accepted(self, value: Expr) -> Local:
        """The condition of a part on which the step counts; with those of the parts before it, that of the chain."""
        accept = self.define("accept" if self.alone else self.free("accept"), value)
        earlier = self.accept
        self.accept = accept if earlier is None else self.define(self.free("accept"), Call("and", (earlier, accept)))
        return accept

    def renamed(self, expr: Expr, names: Mapping[str, str]) -> Expr:
        if isinstance(expr, Scalar):
            return Scalar(names[expr.hyper], expr.index)
        return rebuilt(expr, tuple(self.renamed(arg, names) for arg in children(expr)))

    def define(self, name: str, value: Expr) -> Local:
        self.body.append(Assign(name, value))
        return local_of(name, value)

    def free(self, name: str) -> str:
        return numbered(name, self.taken)

    def output(self, target: str, value: Expr, *, last: bool) -> Expr:
        """What a part gives, for each element: the last one under the name that the author gave it."""
        value = value if last else self.whole(value)
        if target == PARAMETER:
            # Written where it stands if nothing changes it any more.
            return self.define(PARAMETER if last and self.holds is None else self.free("p"), value)
        return self.define(DELTA if last else self.free("g"), value)

    @staticmethod
    def whole(value: Expr) -> Expr:
        """A value for each element."""
        if extent_of(value) == Extent.ELEMENT:
            return value
        return Call("where", (Call("eq", (Load(PARAMETER), Load(PARAMETER))), value, value))

    def stepped(self) -> Expr:
        """The parameter as it stands after the parts so far."""
        if self.moved is None:
            self.moved = self.define(self.free("p"), _difference(self.start, self.gradient))
        return self.moved

    def pass_on(self, output: Expr, moved: bool) -> None:
        if not moved:
            self.gradient, self.moved = output, None
            return
        self.moved = output
        self.gradient = _difference(self.start, output)

    def hold(self, proceed: Expr, *, wait: bool) -> None:
        """Makes `proceed` a condition of the step. `wait`: the parts behind have a count of their own, and for the
        gradient before them what the chain has made of it so far."""
        self.holds = self._both(proceed)
        if wait:
            self.count_parts()
            self.count, self.given = None, self.gradient

    def counted(self) -> Expr:
        """The count of updates of the part at hand."""
        if self.count is None:
            assert self.holds is not None
            name = self.free("updates")
            old = Load(name, Extent.TENSOR)
            self.states.append(State(name, Const(0.0), "count of the updates that were not held back", Extent.TENSOR))
            self.count = self.define(name, Call("where", (self.holds, Call("add", (old, Const(1.0))), old)))
        return self.count

    def count_parts(self) -> None:
        """Notes what counts the updates of the parts that have none noted; None where nothing goes by their count."""
        name = self.count.name if isinstance(self.count, Local) else None if self.count is None else ""
        self.counts += [name] * self.uncounted
        self.uncounted = 0

    def _both(self, proceed: Expr) -> Expr:
        if self.holds is None:
            return proceed
        return self.define(self.free("proceed"), Call("and", (self.holds, proceed)))

    def finish(self) -> None:
        self.count_parts()
        if self.left is not None:
            self.define(GRADIENT, self.left)
        if any(a.target == PARAMETER for a in self.body):
            return
        value = self.moved if self.moved is not None else _difference(self.start, self.gradient)
        if self.holds is not None:
            value = Call("where", (self.holds, value, self.start))
        self.define(PARAMETER, value)


def _difference(a: Expr, b: Expr) -> Expr:
    return Call("sub", (a, b))
