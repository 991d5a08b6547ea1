"""Bindings: tensors as the table of pointers that one kernel of the runtime reads.

In: a kernel, and arrays that `arrays` has accepted.
Out: a `TensorRow` for each tensor; of some rows a `Binding`, each call of which is one stretch of a step.

Neither keeps an array alive: its holder must, for as long as it is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property, partial
from itertools import accumulate, repeat
from struct import Struct
from typing import Any

import numpy as np

from ..frozen import frozen, replace
from ..ir.evaluate import ValuesByCount
from ..ir.extents import Extent, outer_dimensions
from ..ir.primitives import BLOCK, LANES, PANEL
from ..ir.storages import in_blocks
from .addresses import address_of
from .arrays import Array
from .kernel import Kernel
from .layout import SLAB, counts_of, layout_of

__all__ = ["GRAIN", "SERIAL", "Binding", "Team", "TensorRow", "rows_of"]


#: The least number of elements that a thread takes at a time.
GRAIN = 32 * 1024
#: A step of fewer elements runs in the calling thread: waking another costs more than it saves.
SERIAL = 192 * 1024


@cache
def _cells(arrays: int) -> np.dtype[np.void]:
    """A tensor as C reads it, the head of `optgen_tensor` and then its pointers: `first` unit of work and `slab` among
    those of all tensors, and the addresses of its `layout`, `scalars`, `space` and `arrays`."""
    cells = ("first", "layout", "scalars", "space", "slab")
    return np.dtype([*((cell, np.int64) for cell in cells), ("arrays", np.int64, (arrays,))])


#: How many lists of values a tensor keeps between the sweeps of a step.
_LISTS = 6
#: The memory in which it keeps these, and its single values: addresses, as C reads them.
_SPACE = np.dtype([("cells", np.int64), ("small", np.int64, (_LISTS,))])


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


@frozen
class TensorForm:
    """How a kernel goes over a tensor, wherever its arrays lie.

    Attributes
    ----------
    cells
        The layout, as C reads it; before it, backwards, how many dimensions the parameter has, their lengths, and how
        many elements a block has.
    dimensions
        How many dimensions the parameter has.
    offsets
        Bytes from the first element of each array to the first one visited.
    counts
        How many values of each extent the tensor has.
    units, slabs
        The work that it is.
    numbers
        How many numbers of each kind it keeps between sweeps.
    """

    cells: Array
    dimensions: int
    offsets: tuple[int, ...]
    counts: Mapping[Extent, int]
    units: int
    slabs: int
    numbers: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the dimensions of the parameter."""
        return tuple(map(int, self.cells[2 : 2 + self.dimensions][::-1]))

    @property
    def block(self) -> int:
        """How many elements a block has; 0 if there are none."""
        return int(self.cells[1])

    @property
    def layout(self) -> int:
        """The address of the layout."""
        return address_of(self.cells) + 8 * (3 + self.dimensions)


@frozen
class TensorRow:
    """One tensor for a kernel, wherever it stands among others.

    Attributes
    ----------
    form
        How the kernel goes over it.
    cells
        How many units, slabs and elements it has, and the addresses of the layout and of its arrays, as C reads them.
    space, places
        The memory in which it keeps numbers between sweeps, and the addresses of these, as C reads them.
    """

    form: TensorForm
    cells: bytes
    space: Array
    places: bytes

    @property
    def offsets(self) -> tuple[int, ...]:
        """Bytes from the first element of each array to the first one visited."""
        return self.form.offsets


def _form(kernel: Kernel, tensor: Sequence[Array], block: int) -> TensorForm:
    rule, entry = kernel.rule, kernel.entry
    units = entry.units
    tiled = units == 0
    alike = _in_shape(kernel, tensor)
    block = block if tiled else 0
    layout = layout_of(alike, ordered=units != 1, matrices=rule.matrices if tiled and not block else None)
    if block:  # in a slab, blocks are folded side by side: that pays while they are no longer than the lanes
        layout = replace(layout, slabs=layout.dense and block <= LANES and tensor[0].size > 0)
    assert layout.dense or not in_blocks(rule.storages), "kernels have blocks of codes for dense arrays only"
    if layout.slabs and not kernel.takes_slabs:
        layout = replace(layout, slabs=False)
    shape = tensor[0].shape
    counts = counts_of(shape, rule if tiled else None, block)
    outer = outer_dimensions(shape, rule.matrices) if tiled and not block else 0
    work = 0 if layout.slabs else _tiles(counts) if tiled else -(-tensor[0].size // units)
    keeps = _keeps(kernel)
    return TensorForm(
        np.array((outer, block, *reversed(shape), len(shape), *layout.cells()), np.int64), len(shape),
        (*layout.offsets, *(0,) * entry.states), counts, work,
        _slabs(counts, block) if layout.slabs else 0, _numbers(kernel, counts) if keeps else (),
    )  # fmt: skip


def _in_shape(kernel: Kernel, tensor: Sequence[Array]) -> list[Array]:
    """The arrays with a value for each element; the parameter stands for one whose codes are in another shape."""
    blocks = in_blocks(kernel.rule.storages)
    return [tensor[0] if name in blocks else x for name, x in zip(kernel.rule.arrays, tensor, strict=False)]


def _keeps(kernel: Kernel) -> bool:
    """Whether a tensor has memory between the sweeps of a step: for small loops, and where sweeps go over tiles."""
    return bool(kernel.entry.count > len(kernel.sweeps.sweeps) or kernel.entry.units == 0)


def _numbers(kernel: Kernel, counts: Mapping[Extent, int]) -> tuple[int, ...]:
    """How many numbers a tensor keeps between the sweeps of a step, in the order in which C finds them."""
    entry, small = kernel.entry, kernel.sweeps.small
    matrices, rows, columns = counts[Extent.MATRIX], counts[Extent.ROW], counts[Extent.COLUMN]
    if entry.units == 0:
        high = -(-rows // max(1, matrices) // PANEL) if matrices else 0
        wide = columns // max(1, matrices)
        partials, panels = rows * -(-wide // BLOCK) * entry.partials, columns * high * entry.panels
    else:
        partials, panels = -(-counts[Extent.ELEMENT] // BLOCK) * entry.partials, 0
    of_rows = Extent.ROW if kernel.rule.block is None else Extent.BLOCK
    sizes = (
        (matrices, Extent.MATRIX), (rows, of_rows), (columns, Extent.COLUMN), (counts[Extent.INDEX], Extent.INDEX)
    )  # fmt: skip
    return partials, panels, *(number * len(small(extent)) for number, extent in sizes)


_NO_SPACE: Array = np.empty(0)
#: How many cells of a row come before the addresses of arrays.
_HEAD = 4


def rows_of(kernel: Kernel, tensors: Iterable[Sequence[Array]], blocks: Iterable[int] = repeat(0)) -> list[TensorRow]:
    """The rows of tensors: of each the parameter, its gradient, inputs and states, those of elements first. `blocks`:
    how many elements a block of each has."""
    forms: dict[object, TensorForm] = {}
    alike = len(kernel.rule.arrays)
    pack, places = Struct(f"{_HEAD + alike + kernel.entry.states}q").pack, Struct(f"{_LISTS}q").pack

    def row(tensor: Sequence[Array], block: int) -> TensorRow:
        whole = _in_shape(kernel, tensor)
        geometry = (block, tensor[0].shape, *((x.strides, x.itemsize, x.flags.aligned) for x in whole))
        form = forms.get(geometry)
        if form is None:
            form = forms[geometry] = _form(kernel, tensor, block)
        arrays = [address_of(x) + offset for x, offset in zip(tensor, form.offsets, strict=True)]
        cells = pack(form.units, form.slabs, form.counts[Extent.ELEMENT], form.layout, *arrays)
        if not form.numbers:
            return TensorRow(form, cells, _NO_SPACE, b"")
        space = np.empty(sum(form.numbers))
        at = address_of(space)
        return TensorRow(form, cells, space, places(*[at + 8 * n for n in accumulate(form.numbers[:-1], initial=0)]))

    return list(map(row, tensors, blocks))


class Binding:
    """Tensors of one kernel as the runtime's table.

    `rows`: of each its row. `team`: whose threads step them, if not the runtime's own.
    """

    def __init__(self, kernel: Kernel, rows: Sequence[TensorRow], team: Team | None = None) -> None:
        self.kernel, self.rows = kernel, rows
        self._call: Any = None
        self._lender, self._team = team, _team(kernel.runtime.ffi, team)
        ffi = kernel.runtime.ffi
        self.arrays = len(kernel.rule.arrays)
        self.table = np.zeros(len(rows), _cells(self.arrays + kernel.entry.states))
        cells = np.frombuffer(b"".join([row.cells for row in rows]), np.int64)
        cells = cells.reshape(-1, _HEAD + self.arrays + kernel.entry.states)
        self.table["layout"], self.table["arrays"] = cells[:, _HEAD - 1], cells[:, _HEAD:]
        ends = np.cumsum(cells[:, :2], axis=0)
        self.table["first"][1:], self.table["slab"][1:] = ends[:-1].T
        self.total, self.slabs, self.elements = map(int, cells[:, :3].sum(axis=0))
        self.count_from([0] * len(rows))
        self._table = ffi.cast("void *", self.table.ctypes.data)
        # What is computed once for all tensors, as the kernel reads it.
        self.group_values = np.zeros(max(1, len(kernel.group.places)))
        self._group = ffi.cast("void *", self.group_values.ctypes.data)
        self.cells = np.zeros((len(rows), max(1, len(kernel.sweeps.small(Extent.TENSOR)))))
        if _keeps(kernel):
            self._give_space()

    def _give_space(self) -> None:
        """Says where tensors keep values between the sweeps of a step."""
        spaces = np.zeros(len(self.rows), _SPACE)
        spaces["cells"] = self.cells.ctypes.data + np.arange(len(spaces)) * self.cells.strides[0]
        spaces["small"] = np.frombuffer(b"".join([row.places for row in self.rows]), np.int64).reshape(-1, _LISTS)
        self._spaces = spaces
        self.table["space"] = spaces.ctypes.data + np.arange(len(spaces)) * spaces.strides[0]

    @cached_property
    def counts(self) -> list[Mapping[Extent, int]]:
        """How many values of each extent each tensor has."""
        return [row.form.counts for row in self.rows]

    def given_cells(self, number: int) -> Array:
        """Where the kernel finds an array that a step is given for each row, the gradient as number 0: the addresses of
        these pointers."""
        given = self.table["arrays"][:, 1 + number :]
        cells: Array = given.ctypes.data + np.arange(len(given)) * given.strides[0]
        return cells

    def count_from(self, before: Sequence[int], sets: Sequence[int] | None = None) -> None:
        """Counts the steps of tensor i from `before[i]`, the updates that it has had.

        `sets[i]`: which of several sets of hyperparameters it goes by.
        """
        ffi = self.kernel.runtime.ffi
        clocks = list(zip(sets or [0] * len(before), before, strict=True))
        self._clocks, width = clocks, max(1, len(self.kernel.program))
        self._begins = {clock: i * width for i, clock in enumerate(dict.fromkeys(clocks))}
        self._scalars = ffi.new("double[]", len(self._begins) * width)
        self._put = partial(Struct(f"{len(self.kernel.program)}d").pack_into, ffi.buffer(self._scalars))
        first = int(ffi.cast("intptr_t", self._scalars))
        self.table["scalars"] = [first + 8 * self._begins[clock] for clock in clocks]

    def scalar(self, row: int, number: int) -> float:
        """A scalar of the last step, by its number, as a tensor had it."""
        return float(self._scalars[self._begins[self._clocks[row]] + number])

    def run(self, values: Sequence[ValuesByCount], step: int, threads: int, grain: int | None = None) -> None:
        """One step of a rule that computes nothing for the group, number `step` since `count_from`.

        `values`: the sets of hyperparameters, each by count. `grain`: into shares of how many units of work the step is
        cut; without it, a small step goes to one thread.
        """
        self.begin(values, step)
        self.work(0, threads, grain)

    def begin(self, values: Sequence[ValuesByCount], step: int) -> None:
        """Computes the scalars of a step, for each count of updates, before its first stretch of work."""
        run = self.kernel.program.run
        for (own, before), begin in self._begins.items():
            t = before + step
            self._put(8 * begin, *run(values[own][t], t))

    def work(self, stretch: int, threads: int, grain: int | None = None, progress: Any = None) -> None:
        """One stretch of the kernel's work, over all tensors. `progress`: where C counts it, in the same call."""
        runtime = self.kernel.runtime
        if self._call is None:
            self._call = runtime.ffi.new("optgen_call *")
        self.fill(self._call, stretch, threads, grain)
        if not runtime.library.optgen_run(self._call, 1, progress or runtime.ffi.NULL, runtime.ffi.NULL):
            raise self.out_of_memory()

    def fill(self, call: Any, stretch: int, threads: int, grain: int | None = None) -> None:
        """Say in `call` what the runtime is to do for one stretch of the kernel's work, over all tensors."""
        kernel = self.kernel
        if grain is None:
            threads, grain = (threads if self.elements >= SERIAL else 1), GRAIN if kernel.entry.units == 1 else 1
        call.kernel, call.tensors, call.group = kernel.entry, self._table, self._group
        call.count, call.total, call.slabs = len(self.table), self.total, self.slabs
        call.begin, call.end = kernel.stretches[stretch]
        call.threads, call.grain = threads, grain
        call.team = kernel.runtime.ffi.NULL if self._lender is None or self._lender.gone else self._team

    def reserve(self) -> None:
        """Takes the memory that a step of this thread reduces in: no later step can then fail for want of it."""
        kernel = self.kernel
        if not kernel.runtime.library.optgen_reserve(kernel.entry):
            raise self.out_of_memory()

    def out_of_memory(self) -> MemoryError:
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


def _slabs(counts: Mapping[Extent, int], block: int) -> int:
    """The number of slabs in a parameter of small matrices, or of small blocks."""
    if block:
        return -(-counts[Extent.BLOCK] // (SLAB // block))
    matrices = counts[Extent.MATRIX]
    return -(-matrices // (SLAB // (counts[Extent.ELEMENT] // matrices)))
