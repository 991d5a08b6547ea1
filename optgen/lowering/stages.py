"""The stages of a step: what a kernel does in order, and where a tensor must wait for all of itself.

In: a `Sweeps`. Out: its stretches, each up to where the host computes for the group, and the `Stage`s of each.

In a stage, work local to a matrix (sweeps, and the values of matrices, rows and columns) comes before work on whole
tensors. So a matrix goes through the local work by itself, and waits for the others once a stage. Every value is
computed as early as it can be. Sweeps keep their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from ..frozen import frozen
from ..ir.expr import Extent, Load, Local, extent_of, reduces_elements, type_of, walk
from ..ir.rule import Assign
from .sweeps import MOST_KNOWN
from .work import Exchange, Group, SmallLoop, Sweep, Sweeps

__all__ = ["Stage", "crossing", "in_place", "stages"]


StageWork: TypeAlias = Sweep | SmallLoop


@frozen
class Stage:
    """What a matrix goes through by itself, in order; then what is computed of whole tensors."""

    local: tuple[StageWork, ...]
    whole: tuple[SmallLoop, ...]

    @property
    def work(self) -> tuple[StageWork, ...]:
        return (*self.local, *self.whole)


@lru_cache(maxsize=MOST_KNOWN)
def stages(plan: Sweeps) -> tuple[tuple[Stage, ...], ...]:
    """Of each stretch the stages, in order."""
    stretches = _stretches(plan)
    here = in_place(plan)
    stretches[-1] += [small for small in _kept(plan) if small.code[0].target not in here]
    return tuple(tuple(_staged(stretch)) for stretch in stretches)


@lru_cache(maxsize=MOST_KNOWN)
def in_place(plan: Sweeps) -> frozenset[str]:
    """The states of matrices, rows and columns whose new values replace the old ones as soon as they are computed.

    Nothing that follows reads the old values, and by then it is known that the step counts.
    """
    works = [[work for stage in _staged(stretch) for work in stage.work] for stretch in _stretches(plan)]
    code = [assign for stretch in works for work in stretch for assign in _code(work)]
    early = {assign.target for stretch in works[: _verdict(plan)] for work in stretch for assign in _code(work)}
    read = {e.array: i for i, assign in enumerate(code) for e in walk(assign.value) if isinstance(e, Load)}
    made = {assign.target: i for i, assign in enumerate(code)}
    extents = {assign.target: extent_of(assign.value) for assign in code}
    return frozenset(
        state.name
        for state in plan.rule.states
        if Extent.TENSOR < state.extent < Extent.ELEMENT
        and state.name not in early
        and extents.get(state.name) == state.extent
        and read.get(state.name, -1) <= made[state.name]
    )


def _verdict(plan: Sweeps) -> int:
    """How many stretches come before it is known whether the step counts."""
    hosted = [work for work in plan.work if isinstance(work, Group | Exchange)]
    known = ({assign.target for assign in work.code} for work in hosted)
    return max((i for i, names in enumerate(known, 1) if names & plan.rule.verdict), default=0)


def _stretches(plan: Sweeps) -> list[list[StageWork]]:
    found: list[list[StageWork]] = [[]]
    for work in plan.work:
        match work:
            case Group() | Exchange():
                found.append([])
            case _:
                found[-1].append(work)
    return found


def _kept(plan: Sweeps) -> Iterator[SmallLoop]:
    """The states of lesser extent with their new values, when nothing needs the old ones any more."""
    values = {a.target: a.value for a in plan.rule.body}
    for state in plan.rule.states:
        if Extent.GROUP < state.extent < Extent.ELEMENT and state.name in values:
            value = values[state.name]
            if extent_of(value) > Extent.STEP:
                value = Local(state.name, extent_of(value), type_of(value))
            yield SmallLoop(state.extent, (Assign(state.name, value),), keep=True)


class _Position(NamedTuple):
    """Where work stands: its stage, and whether it is of whole tensors, which comes behind what is local."""

    stage: int
    whole: bool

    def next(self, *, whole: bool) -> _Position:
        """The first position for such work that has all of this one before it or beside it."""
        return _Position(self.stage, True) if whole else _Position(self.stage + self.whole, False)


#: What waits for nothing comes next.
_START = _Position(-1, True)


def _staged(stretch: Sequence[StageWork]) -> list[Stage]:
    """The work of a stretch, each piece in the first stage in which all that it reads is known."""
    known: dict[str, _Position] = {}
    placed: list[tuple[_Position, StageWork]] = []
    last = looked = _Position(0, False)  # the sweep before; who looked at a state of rows or columns as it was
    for work in stretch:
        whole = isinstance(work, SmallLoop) and work.over == Extent.TENSOR
        at = max((known[name] for name in _read(work) if name in known), default=_START)
        if isinstance(work, Sweep):
            at = max(at, last)
        elif work.keep:
            at = max([at, looked, *(place for place, _ in placed if whole or not place.whole)])
        at = at.next(whole=whole)
        if isinstance(work, Sweep):
            last = at
            known |= {assign.target: at for assign in work.reductions}
        elif not work.keep:
            known[work.code[0].target] = at
            if whole and any(isinstance(e, Load) and e.extent > Extent.TENSOR for e in walk(work.code[0].value)):
                looked = max(looked, at)
        placed.append((at, work))
    numbers = [at.stage for at, _ in placed] or [0]
    return [_stage([(at, work) for at, work in placed if at.stage == n]) for n in range(min(numbers), 1 + max(numbers))]


def _stage(placed: Sequence[tuple[_Position, StageWork]]) -> Stage:
    local = _joined([work for at, work in placed if not at.whole])
    whole = _joined([work for at, work in placed if at.whole])
    return Stage(tuple(local), tuple(work for work in whole if isinstance(work, SmallLoop)))


def _read(work: StageWork) -> set[str]:
    """The names of the values that a piece of work reads; for a reduction over elements its own name, since a sweep has
    left its value there."""
    if isinstance(work, Sweep):
        return _names(*_code(work)) | {condition.test.name for condition in work.course}
    return set().union(*({a.target} if reduces_elements(a.value) else _names(a) for a in work.code))


def _joined(works: Sequence[StageWork]) -> list[StageWork]:
    """The same work, with neighbouring small loops over the same extent as one."""
    joined: list[StageWork] = []
    for work in works:
        match work, joined[-1:]:
            case SmallLoop(over, code, keep), [SmallLoop(same, before, kept)] if (over, keep) == (same, kept):
                joined[-1] = SmallLoop(over, before + code, keep)
            case _:
                joined.append(work)
    return joined


def crossing(all_stages: Sequence[Stage]) -> list[set[str]]:
    """The values of matrices, rows and columns that the local work of each stage shares with that of another stage, or
    with work on whole tensors."""
    small = [[w for w in stage.local if isinstance(w, SmallLoop) and not w.keep] for stage in all_stages]
    made = [{assign.target for work in works for assign in work.code} for works in small]
    used = [set().union(*map(_read, stage.local)) for stage in all_stages]
    whole = set().union(*(_read(work) for stage in all_stages for work in stage.whole))
    return [
        own & whole.union(*used[:i], *used[i + 1 :]) | used[i] & set().union(*made[:i], *made[i + 1 :])
        for i, own in enumerate(made)
    ]


def _code(work: StageWork) -> tuple[Assign, ...]:
    return (*work.body, *work.reductions) if isinstance(work, Sweep) else work.code


def _names(*code: Assign) -> set[str]:
    return {e.name for assign in code for e in walk(assign.value) if isinstance(e, Local)}
