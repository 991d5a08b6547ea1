"""The stages of a step: what a kernel does one after the other, and where a tensor must wait for all of itself.

In: a `Sweeps`. Out: for each stretch of it, up to where the host computes for the group, its `Stage`s. In a stage, what
is local to a matrix - passes, and the values of matrices, rows and columns - comes before what is of whole tensors, so
that a matrix may go through all of it by itself, and waits for the others once a stage. Every value is computed as
early as it can be; passes stay in their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from ..ir.expr import Extent, Load, Local, extent_of, join, reduces_elements, type_of, walk
from ..ir.rule import Assign
from .sweeps import MOST_KNOWN, Between, Exchange, Group, Sweep, Sweeps

__all__ = ["Small", "Stage", "crossing", "in_place", "stages"]


@dataclass(frozen=True)
class Small:
    """Values of one extent, each from others of its own matrix; or `keep`: the states of it get their new values."""

    over: Extent
    code: tuple[Assign, ...]
    keep: bool = False


Work: TypeAlias = Sweep | Small


@dataclass(frozen=True)
class Stage:
    """What a matrix goes through by itself, in order; then what is computed of whole tensors."""

    local: tuple[Work, ...]
    whole: tuple[Small, ...]

    @property
    def work(self) -> tuple[Work, ...]:
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
    """The states of matrices, rows and columns whose new values take the place of the old ones as soon as they are
    computed, since nothing that comes behind reads the old ones, and it is known by then that the step counts."""
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
    known = (any(assign.target == plan.rule.accept for assign in work.code) for work in hosted)
    return next((i for i, found in enumerate(known, 1) if found), 0)


def _stretches(plan: Sweeps) -> list[list[Work]]:
    found: list[list[Work]] = [[]]
    for work in plan.work:
        match work:
            case Group() | Exchange():
                found.append([])
            case Between():
                found[-1] += [Small(_over(assign), (assign,)) for assign in work.code]
            case _:
                found[-1].append(work)
    return found


def _over(assign: Assign) -> Extent:
    """For each of what a value is computed; what a tensor gives to the group, for each tensor."""
    return join(extent_of(assign.value), Extent.TENSOR)


def _kept(plan: Sweeps) -> Iterator[Small]:
    """The states of lesser extent with their new values, when nothing needs the old ones any more."""
    values = {a.target: a.value for a in plan.rule.body}
    for state in plan.rule.states:
        if Extent.GROUP < state.extent < Extent.ELEMENT and state.name in values:
            value = values[state.name]
            if extent_of(value) > Extent.STEP:
                value = Local(state.name, extent_of(value), type_of(value))
            yield Small(state.extent, (Assign(state.name, value),), keep=True)


def _staged(stretch: Sequence[Work]) -> list[Stage]:
    """Places are counted in halves of stages: what is local to a matrix has even ones, what is of whole tensors odd
    ones, and -1 if it waits for nothing."""
    known: dict[str, int] = {}
    placed: list[tuple[int, Work]] = []
    last = looked = 0
    for work in stretch:
        odd = isinstance(work, Small) and work.over == Extent.TENSOR
        at = max((known[name] for name in _read(work) if name in known), default=-1)
        if isinstance(work, Sweep):
            at = max(at, last)
        elif work.keep:
            at = max([at, looked, *(place for place, _ in placed if odd or place % 2 == 0)])
        at += (at % 2 == 0) if odd else at % 2
        if isinstance(work, Sweep):
            last = at
            known |= {assign.target: at for assign in work.reductions}
        elif not work.keep:
            known[work.code[0].target] = at
            if odd and any(isinstance(e, Load) and e.extent > Extent.TENSOR for e in walk(work.code[0].value)):
                looked = max(looked, at)  # at a state of rows or columns, as it was
        placed.append((at, work))
    ends = range(min((at for at, _ in placed), default=0) // 2, 1 + max((at for at, _ in placed), default=0) // 2)
    halves = [[_joined([work for at, work in placed if at == half]) for half in (2 * s, 2 * s + 1)] for s in ends]
    return [Stage(tuple(local), tuple(work for work in whole if isinstance(work, Small))) for local, whole in halves]


def _read(work: Work) -> set[str]:
    """The names of the values that a piece of work is made of; of what is reduced over elements, its own: a pass has
    left it."""
    if isinstance(work, Sweep):
        return _names(*_code(work))
    return set().union(*({a.target} if reduces_elements(a.value) else _names(a) for a in work.code))


def _joined(works: Sequence[Work]) -> list[Work]:
    """What follows each other and is computed for each of the same extent, as one."""
    joined: list[Work] = []
    for work in works:
        match work, joined[-1:]:
            case Small(over, code, keep), [Small(same, before, kept)] if (over, keep) == (same, kept):
                joined[-1] = Small(over, before + code, keep)
            case _:
                joined.append(work)
    return joined


def crossing(all_stages: Sequence[Stage]) -> list[set[str]]:
    """Of each stage the values of matrices, rows and columns that its local work has in common with another's, or with
    what is computed of whole tensors."""
    small = [[w for w in stage.local if isinstance(w, Small) and not w.keep] for stage in all_stages]
    made = [{assign.target for work in works for assign in work.code} for works in small]
    used = [set().union(*map(_read, stage.local)) for stage in all_stages]
    whole = set().union(*(_read(work) for stage in all_stages for work in stage.whole))
    return [
        own & whole.union(*used[:i], *used[i + 1 :]) | used[i] & set().union(*made[:i], *made[i + 1 :])
        for i, own in enumerate(made)
    ]


def _code(work: Work) -> tuple[Assign, ...]:
    return (*work.body, *work.reductions) if isinstance(work, Sweep) else work.code


def _names(*code: Assign) -> set[str]:
    return {e.name for assign in code for e in walk(assign.value) if isinstance(e, Local)}
