"""Bindings of programs: the parameters of one variant of a rule, as its programs go over them.

In: a `ProgramKernel`, and the rows of parameters. Out: a `ProgramBinding`, which says of a step which parameters go
through which program together.

It keeps no array alive: its holder must, for as long as it is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import interpreter as interp
from ..frozen import frozen
from ..ir.evaluate import HyperValues, ValuesByCount
from ..ir.expr import Extent
from ..lowering.program import MatrixProgram
from .arrays import Array
from .binding import Team
from .program_kernel import MatrixLayout, MatrixRow, ProgramKernel
from .scratch import LINE

__all__ = ["Batch", "ProgramBinding"]

#: How many bytes a matrix has at most that goes through a program together with others; and these all together.
SMALL, STACK = 1 << 17, 1 << 21
#: How many courses of a step are remembered.
MOST_COURSES = 16


@frozen
class Batch:
    """Parameters that go through a program together: their places in a binding, and what all have in common."""

    kernel: ProgramKernel
    program: MatrixProgram
    places: Array
    layouts: Sequence[MatrixLayout]
    lengths: Sequence[float]
    number: int
    before: int

    @property
    def key(self) -> tuple[object, ...]:
        """What a chunk depends on, beside the addresses of arrays."""
        return self.kernel, self.program, *self.lengths, *self.layouts


class ProgramBinding:
    """Parameters of one variant of a rule, in one compute type.

    Attributes
    ----------
    table
        The addresses of the arrays of each, a row for each parameter.
    """

    def __init__(
        self, kernel: ProgramKernel, rows: Sequence[MatrixRow], threads: int = 1, team: Team | None = None
    ) -> None:
        self.kernel, self.threads, self.team = kernel, threads, team
        self.table = np.array([row.addresses for row in rows], np.int64)
        self._layouts = [row.layout for row in rows]
        self.count_from([0] * len(rows))

    def given_cells(self, number: int) -> Array:
        """Where programs find an array that a step is given for each parameter, the gradient as number 0: the addresses
        of these addresses."""
        cells: Array = self.table.ctypes.data + 8 * (1 + number) + np.arange(len(self.table)) * self.table.strides[0]
        return cells

    def count_from(self, before: Sequence[int], sets: Sequence[int] | None = None) -> None:
        """Count the steps of parameter i from `before[i]`, the updates that it has had. `sets[i]`: which of several
        sets of hyperparameters it goes by."""
        self._clocks = list(zip(sets or [0] * len(before), before, strict=True))
        self._distinct = list(dict.fromkeys(self._clocks))
        self._courses: dict[tuple[MatrixProgram, ...], list[Batch]] = {}

    def batches(self, values: Sequence[ValuesByCount], step: int) -> list[Batch]:
        """Who goes through which program in step number `step` since `count_from`."""
        program = self.kernel.program
        course = tuple([program(values[number][t + step], t + step) for number, t in self._distinct])
        found = self._courses.get(course)
        if found is None:
            if len(self._courses) == MOST_COURSES:
                self._courses.clear()
            found = self._courses[course] = self._divided(course, values, step)
        return found

    def _divided(self, course: Sequence[MatrixProgram], values: Sequence[ValuesByCount], step: int) -> list[Batch]:
        programs = dict(zip(self._distinct, course, strict=True))
        together: list[tuple[tuple[int, int], list[int]]] = []
        open_: dict[object, list[int]] = {}
        for i, (clock, layout) in enumerate(zip(self._clocks, self._layouts, strict=True)):
            kind = clock, layout.shape
            own, size = open_.get(kind), math.prod(layout.shape) * np.dtype(self.kernel.dtype).itemsize
            fits = own is not None and size <= SMALL and (len(own) + 1) * size <= STACK
            if own is not None and fits and self._stack(programs[clock], layout, values[clock[0]][clock[1] + step]):
                own.append(i)
            else:
                open_[kind] = [i]
                together.append((clock, open_[kind]))
        return [self._batch(clock, programs[clock], own, values, step) for clock, own in together]

    def _stack(self, program: MatrixProgram, layout: MatrixLayout, values: HyperValues) -> bool:
        """Whether several matrices like this one, each behind the other, all begin where one alone would: at a cache
        line. A library may give other bits elsewhere, and a step should not depend on which parameters go together."""
        if not program.stacks:
            return False
        sides, own = interp.side_lengths(self.kernel.rule, values, layout.shape), np.dtype(self.kernel.dtype).itemsize
        matrices = [place for place in program.places.values() if place.extent == Extent.ELEMENT]
        sizes = [sides[x.dims.rows] * sides[x.dims.columns] * (2 if x.half else own) for x in matrices]
        return all([size % LINE == 0 for size in sizes])

    def _batch(
        self, clock: Any, program: MatrixProgram, own: Sequence[int], values: Sequence[ValuesByCount], step: int
    ) -> Batch:
        number, before = clock
        lengths = self.kernel.lengths(values[number][before + step])
        layouts = [self._layouts[i] for i in own]
        return Batch(self.kernel, program, np.array(own), layouts, lengths, number, before)
