"""Bindings: tensors as the table of pointers that one kernel of the runtime reads.

In: a kernel, and arrays that `arrays` has accepted. Out: a `Binding`, each call of which is one stretch of a step.

A binding keeps no array alive: its holder must, for as long as it is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ..frozen import replace
from ..ir.evaluate import ValuesByCount
from ..ir.expr import Extent, Rows
from ..ir.primitives import BLOCK, PANEL
from .arrays import Array
from .kernel import Kernel
from .layout import SLAB, Layout, counts_of, layout_of

__all__ = ["GRAIN", "SERIAL", "Binding", "Team"]


#: The least number of elements that a thread takes at a time.
GRAIN = 32 * 1024
#: A step of fewer elements runs in the calling thread: waking another costs more than it saves.
SERIAL = 192 * 1024


def _row(arrays: int) -> np.dtype[np.void]:
    """A tensor as C reads it, the head of `optgen_tensor` and then its pointers: `first` unit of work and `slab` among
    those of all tensors, and the addresses of its `layout`, `scalars`, `space` and `arrays`."""
    cells = ("first", "layout", "scalars", "space", "slab")
    return np.dtype([*((cell, np.int64) for cell in cells), ("arrays", np.int64, (arrays,))])


#: The memory in which one tensor keeps values between the sweeps of a step: addresses, as C reads them.
_SPACE = np.dtype([("cells", np.int64), ("small", np.int64, (5,))])


class Team:
    """The threads of another library, which do steps in the place of the runtime's own.

    Threads that are still awake from that library's work take up a step at once, and do not compete for processors.
    After a fork the child has none of them: its steps go to the runtime's own threads.

    `parallel`, `number`: the addresses of what OpenMP calls GOMP_parallel and omp_get_thread_num.
    """

    def __init__(self, parallel: int, number: int) -> None:
        self.parallel, self.number = parallel, number
        self.gone = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave)

    def _leave(self) -> None:
        self.gone = True


class Binding:
    """Tensors of one kernel as the runtime's table.

    `tensors[i]`: the parameter, its gradient and its states, those with a value for each element first. `team`: whose
    threads step them, if not the runtime's own.
    """

    def __init__(self, kernel: Kernel, tensors: Sequence[Sequence[Array]], team: Team | None = None) -> None:
        self.kernel = kernel
        self._lender, self._team = team, _team(kernel.runtime.ffi, team)
        ffi, rule = kernel.runtime.ffi, kernel.rule
        self.arrays = len(rule.arrays)
        units = kernel.entry.units
        slices = rule.rows == Rows.FIRST
        self.elements = sum(tensor[0].size for tensor in tensors)
        layouts: dict[Layout, Array] = {}
        self.gradient_offsets = []
        self.table = np.zeros(len(tensors), _row(self.arrays + kernel.entry.states))
        sizes, slabs = [], []
        self.counts: list[dict[Extent, int]] = []
        for row, tensor in zip(self.table, tensors, strict=True):
            layout = layout_of(
                tensor[: self.arrays], ordered=units != 1, tiled=units == 0, slices=slices and units == 0
            )
            if layout.slabs and not kernel.takes_slabs:
                layout = replace(layout, slabs=False)
            row["layout"] = layouts.setdefault(layout, np.array(layout.cells(), np.int64)).ctypes.data
            offsets = [*layout.offsets, *(0,) * kernel.entry.states]
            row["arrays"] = [x.ctypes.data + offset for x, offset in zip(tensor, offsets, strict=True)]
            self.gradient_offsets.append(layout.offsets[1])
            counts = counts_of(tensor[0].shape, rule if units == 0 else None)
            self.counts.append(counts)
            slabs.append(_slabs(counts) if layout.slabs else 0)
            sizes.append(0 if layout.slabs else -(-tensor[0].size // units) if units else _tiles(counts))
        self.total, self.slabs = sum(sizes), sum(slabs)
        self.table["first"] = [0, *accumulate(sizes[:-1])] if sizes else []
        self.table["slab"] = [0, *accumulate(slabs[:-1])] if slabs else []
        self._layouts = list(layouts.values())  # keeps their memory alive
        self.count_from([0] * len(tensors))
        self._table = ffi.cast("void *", self.table.ctypes.data)
        # What is computed once for all tensors, as the kernel reads it.
        self.group_values = np.zeros(max(1, len(kernel.group.places)))
        self._group = ffi.cast("void *", self.group_values.ctypes.data)
        self.cells = np.zeros((len(tensors), 1))
        if kernel.entry.count > len(kernel.sweeps.sweeps):
            self._make_space()

    def _make_space(self) -> None:
        """The memory in which tensors keep values between the sweeps of a step."""
        entry, small = self.kernel.entry, self.kernel.sweeps.small
        many = {extent: len(small(extent)) for extent in Extent}
        self.cells = np.zeros((len(self.counts), max(1, many[Extent.TENSOR])))
        sizes = []
        for n in self.counts:
            matrices, rows, columns = n[Extent.MATRIX], n[Extent.ROW], n[Extent.COLUMN]
            if entry.units == 0:
                high = -(-rows // max(1, matrices) // PANEL) if matrices else 0
                wide = columns // max(1, matrices)
                partials, panels = rows * -(-wide // BLOCK) * entry.partials, columns * high * entry.panels
            else:
                partials, panels = -(-n[Extent.ELEMENT] // BLOCK) * entry.partials, 0
            sizes.append((partials, panels, matrices * many[Extent.MATRIX], rows * many[Extent.ROW],
                          columns * many[Extent.COLUMN]))  # fmt: skip
        self._memory = np.empty(sum(map(sum, sizes)))
        spaces = np.zeros(len(sizes), _SPACE)
        spaces["cells"] = self.cells.ctypes.data + np.arange(len(sizes)) * self.cells.strides[0]
        begins = [0, *accumulate(size for each in sizes for size in each)][:-1]
        spaces["small"] = self._memory.ctypes.data + 8 * np.array(begins, np.int64).reshape(-1, 5)
        self._spaces = spaces
        self.table["space"] = spaces.ctypes.data + np.arange(len(sizes)) * spaces.strides[0]

    def gradient_cell(self, row: int) -> tuple[int, int]:
        """Where the kernel finds the gradient of a row: the address of that pointer, and its offset in bytes from the
        first element of the gradient."""
        gradients = self.table["arrays"][:, 1:]
        return gradients.ctypes.data + row * gradients.strides[0], self.gradient_offsets[row]

    def count_from(self, before: Sequence[int], sets: Sequence[int] | None = None) -> None:
        """Counts the steps of tensor i from `before[i]`, the updates that it has had.

        `sets[i]`: which of several sets of hyperparameters it goes by.
        """
        ffi = self.kernel.runtime.ffi
        clocks = list(zip(sets or [0] * len(before), before, strict=True))
        self._scalars = {clock: ffi.new("double[]", max(1, len(self.kernel.program))) for clock in set(clocks)}
        addresses = {clock: int(ffi.cast("intptr_t", cells)) for clock, cells in self._scalars.items()}
        self.table["scalars"] = [addresses[clock] for clock in clocks]

    def run(self, values: Sequence[ValuesByCount], step: int, threads: int, grain: int | None = None) -> None:
        """One step of a rule that computes nothing for the group, number `step` since `count_from`.

        `values`: the sets of hyperparameters, each by count. `grain`: into shares of how many units of work the step is
        cut; without it, a small step goes to one thread.
        """
        self.begin(values, step)
        self.work(0, threads, grain)

    def begin(self, values: Sequence[ValuesByCount], step: int) -> None:
        """Computes the scalars of a step, for each count of updates, before its first stretch of work."""
        program = self.kernel.program
        for (own, before), cells in self._scalars.items():
            t = before + step
            cells[0 : len(program)] = program.run(values[own][t], t)

    def work(self, stretch: int, threads: int, grain: int | None = None) -> None:
        """One stretch of the kernel's work, over all tensors."""
        kernel = self.kernel
        if grain is None:
            threads, grain = (threads if self.elements >= SERIAL else 1), GRAIN if kernel.entry.units == 1 else 1
        begin, end = kernel.stretches[stretch]
        done = kernel.runtime.library.optgen_step(
            kernel.entry, self._table, len(self.table), self.total, self.slabs, self._group, begin, end, threads, grain,
            kernel.runtime.ffi.NULL if self._lender is None or self._lender.gone else self._team,
        )  # fmt: skip
        if not done:
            raise self._out_of_memory()

    def reserve(self) -> None:
        """Takes the memory that a step of this thread reduces in: no later step can then fail for want of it."""
        kernel = self.kernel
        if not kernel.runtime.library.optgen_reserve(kernel.entry):
            raise self._out_of_memory()

    def _out_of_memory(self) -> MemoryError:
        return MemoryError(f"{self.kernel.rule.name}: there is no memory for what a step reduces")


def _team(ffi: Any, team: Team | None) -> Any:
    """A team as the runtime takes it."""
    if team is None:
        return ffi.NULL
    of = ffi.typeof("optgen_team")
    calls = {name: ffi.cast(field.type, getattr(team, name)) for name, field in of.fields}
    return ffi.new("optgen_team *", calls)


def _tiles(counts: Mapping[Extent, int]) -> int:
    """The number of tiles in a parameter of matrices."""
    matrices = counts[Extent.MATRIX]
    if not matrices:
        return 0
    rows, columns = counts[Extent.ROW] // matrices, counts[Extent.COLUMN] // matrices
    return matrices * -(-rows // PANEL) * -(-columns // BLOCK)


def _slabs(counts: Mapping[Extent, int]) -> int:
    """The number of slabs in a parameter of small matrices."""
    matrices = counts[Extent.MATRIX]
    return -(-matrices // (SLAB // (counts[Extent.ELEMENT] // matrices)))
