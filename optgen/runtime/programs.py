"""Programs at run time: steps of parameters whose rule has products of whole matrices.

In: parameters after every check, and the sets of hyperparameters. Out: their step, all of it bound and nothing changed;
it may be broken off between any two calls, and goes on from there.

Parameters go one after another through the same memory; small ones of one shape go together, so that a library has more
to do in a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..ir.evaluate import HyperValues, ValuesByCount
from ..ir.evaluate import Program as Scalars
from ..ir.rule import Rule
from ..lowering.program import MatrixProgram
from ..lowering.programs import Programs, programs_of
from .arrays import Array
from .binding import Team
from .chunks import Chunk, Matrix
from .matrix_library import MatrixLibrary
from .scratch import Scratch

__all__ = ["ProgramSteps"]

#: How many bytes the matrices of several parameters have together, at most.
STACK = 1 << 18
#: How many lists of parameters are remembered, each in one course.
MOST_KNOWN = 4


class ProgramSteps:
    """The programs of an optimiser, bound to its parameters and kept from step to step.

    Parameters
    ----------
    library
        Who computes products.
    """

    def __init__(self, library: MatrixLibrary) -> None:
        self._library = library
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
        parts = _together(programs, members)
        key = (threads, team, *((program, tuple(part)) for program, part in parts))
        chunks = self._known.pop(key, None)
        if chunks is None or not all(
            chunk.takes([members[i] for i in part]) for chunk, (_, part) in zip(chunks, parts, strict=True)
        ):
            chunks = self._bound(parts, members, sets, threads, team)
        for chunk, (_, part) in zip(chunks, parts, strict=True):
            chunk.begin([members[i] for i in part], sets)
        while len(self._known) >= MOST_KNOWN:
            self._known.pop(next(iter(self._known)))
        self._known[key] = chunks
        return _Step(chunks)

    def _program(self, rule: Rule, values: HyperValues, t: int) -> MatrixProgram:
        programs = self._of(rule)
        assert programs is not None
        return programs.of(_outcome(programs, values, t))

    def _bound(
        self,
        parts: Sequence[tuple[MatrixProgram, Sequence[int]]],
        members: Sequence[Matrix],
        sets: Sequence[ValuesByCount],
        threads: int,
        team: Team | None,
    ) -> list[Chunk]:
        scratch, chunks = Scratch(), []
        for program, part in parts:
            own = [members[i] for i in part]
            chunks.append(Chunk(program, own, sets[own[0].hypers][own[0].t]))
        for chunk in chunks:
            chunk.reserve(scratch)
        for chunk in chunks:
            chunk.bind(scratch, self._library, threads, team)
        return chunks


class _Step:
    """One step of chunks, as far as it is done."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks
        self._steps = [step for chunk in chunks for step in chunk.steps]
        self._progress: Array = np.zeros(1, np.int64)

    def __call__(self) -> None:
        progress = self._progress
        while (done := int(progress[0])) < len(self._steps):
            self._steps[done](progress)
        for chunk in self._chunks:
            chunk.let_go()


def _outcome(programs: Programs, values: HyperValues, t: int) -> tuple[bool, ...]:
    """Which of the conditions hold that part a step."""
    if not programs.tests:
        return ()
    found = Scalars(programs.scalars, [test.name for test in programs.tests]).run(values, t)
    return tuple(map(bool, found))


def _together(programs: Sequence[MatrixProgram], members: Sequence[Matrix]) -> list[tuple[MatrixProgram, list[int]]]:
    """The parameters by their numbers, those in one list that go through a program together."""
    parts: list[tuple[MatrixProgram, list[int]]] = []
    open_: dict[object, list[int]] = {}
    for i, (program, member) in enumerate(zip(programs, members, strict=True)):
        kind = program, member.dtype, member.shape, member.hypers, member.t
        size = member.arrays["p"].nbytes
        own = open_.get(kind)
        if own is not None and program.stacks and (len(own) + 1) * size <= STACK:
            own.append(i)
        else:
            open_[kind] = [i]
            parts.append((program, open_[kind]))
    return parts
