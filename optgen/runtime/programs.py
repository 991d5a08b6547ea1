"""Programs at run time: steps of parameters whose rule has products of whole matrices.

In: parameters after every check, and the sets of hyperparameters. Out: their step, all of it bound and nothing changed;
it may be broken off between any two calls, and goes on from there. What a library cannot compute however often it is
asked, for want of memory, leaves a step half done.

Parameters go one after another through the same memory; small ones of one shape go together, so that a library has more
to do in a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from .. import interpreter as interp
from ..ir.evaluate import HyperValues, ValuesByCount
from ..ir.evaluate import Program as Scalars
from ..ir.expr import Extent
from ..ir.rule import Rule
from ..lowering.program import MatrixProgram
from ..lowering.programs import Programs, programs_of
from .arrays import Array
from .binding import Team
from .chunks import Chunk, Matrix
from .matrix_library import MatrixLibrary
from .scratch import LINE, Scratch

__all__ = ["ProgramSteps", "has_programs"]

#: How many bytes the matrices of several parameters have together, at most.
STACK = 1 << 18
#: How many lists of parameters are remembered, each in one course.
MOST_KNOWN = 16


def has_programs(rule: Rule) -> bool:
    """Whether programs step a rule."""
    return programs_of(rule) is not None


class ProgramSteps:
    """The programs of an optimiser, bound to its parameters and kept from step to step.

    Parameters
    ----------
    library
        Who computes products.
    """

    def __init__(self, library: MatrixLibrary) -> None:
        self._library = library
        self._scratch = Scratch()
        self._known: dict[object, list[Chunk]] = {}
        self._programs: dict[int, tuple[Rule, Programs | None]] = {}  # by the identities of rules, which are kept

    def takes(self, rule: Rule) -> bool:
        """Whether there are programs for a rule."""
        return self._of(rule) is not None

    def _of(self, rule: Rule) -> Programs | None:
        if id(rule) not in self._programs:
            self._programs[id(rule)] = rule, programs_of(rule, fuses=self._library.fuses)
        return self._programs[id(rule)][1]

    def begun(
        self, members: Sequence[Matrix], sets: Sequence[ValuesByCount], threads: int, team: Team | None
    ) -> Callable[[], None]:
        """One step, of which nothing is done yet: what does it, or what is left of it."""
        courses = {(id(m.rule), m.hypers, m.t): m for m in members}
        chosen = {key: self._program(m.rule, sets[m.hypers][m.t], m.t) for key, m in courses.items()}
        programs = [chosen[id(m.rule), m.hypers, m.t] for m in members]
        parts = _together(programs, members, sets)
        own = [[members[i] for i in part] for _, part in parts]
        key = threads, team, *(_key(program, part, sets) for (program, _), part in zip(parts, own, strict=True))
        chunks = self._known.pop(key, None)
        if chunks is None:
            chunks = self._bound([program for program, _ in parts], own, sets, threads, team)
        for chunk, part in zip(chunks, own, strict=True):
            chunk.begin(part, sets)
        while len(self._known) >= MOST_KNOWN:
            self._known.pop(next(iter(self._known)))
        self._known[key] = chunks
        return _Step(chunks, own)

    def _program(self, rule: Rule, values: HyperValues, t: int) -> MatrixProgram:
        programs = self._of(rule)
        assert programs is not None
        return programs.of(_outcome(programs, values, t))

    def _bound(
        self,
        programs: Sequence[MatrixProgram],
        parts: Sequence[Sequence[Matrix]],
        sets: Sequence[ValuesByCount],
        threads: int,
        team: Team | None,
    ) -> list[Chunk]:
        scratch = self._scratch
        chunks = [
            Chunk(program, part, sets[part[0].hypers][part[0].t]) for program, part in zip(programs, parts, strict=True)
        ]
        if any([chunk.reserve(scratch) for chunk in chunks]):
            self._known.clear()  # those keep the smaller memory alive
        for chunk, part in zip(chunks, parts, strict=True):
            chunk.bind(part, scratch, self._library, threads, team)
        return chunks


class _Step:
    """One step of chunks, as far as it is done."""

    def __init__(self, chunks: Sequence[Chunk], parts: Sequence[Sequence[Matrix]]) -> None:
        self._chunks, self._parts = chunks, parts
        self._steps = [step for chunk in chunks for step in chunk.steps]
        self._progress: Array = np.zeros(1, np.int64)

    def __call__(self) -> None:
        progress = self._progress
        try:
            for chunk, part in zip(self._chunks, self._parts, strict=True):
                chunk.members = part
            while (done := int(progress[0])) < len(self._steps):
                self._steps[done](progress)
        finally:
            for chunk in self._chunks:
                chunk.members = ()  # no array is kept alive from step to step


def _key(program: MatrixProgram, part: Sequence[Matrix], sets: Sequence[ValuesByCount]) -> object:
    """What the binding of these parameters depends on, beside the addresses of arrays."""
    first = part[0]
    values = sets[first.hypers][first.t]
    lengths = [values[each.hyper] for each in first.rule.dimensions]
    return program, *lengths, *[member.layout for member in part]


@lru_cache(256)
def _conditions(programs: Programs) -> Scalars:
    return Scalars(programs.scalars, [test.name for test in programs.tests])


def _outcome(programs: Programs, values: HyperValues, t: int) -> tuple[bool, ...]:
    """Which of the conditions hold that part a step."""
    if not programs.tests:
        return ()
    return tuple(map(bool, _conditions(programs).run(values, t)))


def _together(
    programs: Sequence[MatrixProgram], members: Sequence[Matrix], sets: Sequence[ValuesByCount]
) -> list[tuple[MatrixProgram, list[int]]]:
    """The parameters by their numbers, those in one list that go through a program together."""
    parts: list[tuple[MatrixProgram, list[int]]] = []
    open_: dict[object, list[int]] = {}
    for i, (program, member) in enumerate(zip(programs, members, strict=True)):
        kind = program, member.dtype, member.shape, member.hypers, member.t
        size = member.arrays["p"].nbytes
        own = open_.get(kind)
        if own is not None and (len(own) + 1) * size <= STACK and _stack(program, member, sets):
            own.append(i)
        else:
            open_[kind] = [i]
            parts.append((program, open_[kind]))
    return parts


def _stack(program: MatrixProgram, member: Matrix, sets: Sequence[ValuesByCount]) -> bool:
    """Whether several matrices like this one, each behind the other, all begin where one alone would: at a cache line.
    A library may give other bits elsewhere, and a step should not depend on which parameters go together."""
    if not program.stacks:
        return False
    sides = interp.side_lengths(member.rule, sets[member.hypers][member.t], member.shape)
    matrices = [place for place in program.places.values() if place.extent == Extent.ELEMENT]
    sizes = [
        sides[x.dims.rows] * sides[x.dims.columns] * (2 if x.half else np.dtype(member.dtype).itemsize)
        for x in matrices
    ]
    return all([size % LINE == 0 for size in sizes])
