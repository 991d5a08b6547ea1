"""Binding: from arrays to one call of a compiled kernel. In: a kernel library and arrays that `arrays` has accepted.

A `Binding` is a table of pointers that stays valid while the arrays live; who holds it must see to that.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import SLAB, Array, Layout, layout_of
from .course import Course, Exchange, Group, course, group_names
from .errors import ArgumentError, CompilerError
from .host import Program, Steps, Value, evaluate
from .ir import Extent, Rule
from .ops import BLOCK, PANEL
from .stages import stages

__all__ = [
    "ABI", "ISAS", "Binding", "Kernel", "Runtime", "Team", "counts_of", "open_library", "processors", "threads",
    "write_declarations",
]  # fmt: skip

ABI = 4
#: Instruction sets, the best first; the last one is that of all other processors than x86-64.
ISAS = ("x86_64_v4", "x86_64_v3", "x86_64_v2", "baseline")
#: The least number of elements that a thread takes at a time.
GRAIN = 32 * 1024
#: A step of fewer elements runs in the calling thread: waking another costs more than it saves.
SERIAL = 192 * 1024

_HEAD = 5  # cells of a table row before the pointers: first, layout, scalars, space, slab


def write_declarations(text: str, path: Path) -> None:
    """Writes what cffi makes of the C declarations `text`, as a Python module that loads without a parser."""
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(text)
    ffi.set_source(path.stem, None, compiler_verbose=0)
    ffi.emit_python_code(str(path))


def read_declarations(text: str, path: Path | None) -> Any:
    """The FFI for the declarations `text`: from the module at `path` if there is one, else parsed now."""
    if path is not None:
        spec = spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.ffi
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(text)
    return ffi


def open_library(ffi: Any, path: Path, abi: str) -> Any:
    """The shared library at `path`, if the number that its function `abi` gives is ours; else CompilerError."""
    try:
        # Never unloaded: at the end of the process its threads may still be in there, at work or asleep.
        library = ffi.dlopen(str(path), os.RTLD_NOW | os.RTLD_NODELETE)
        found = getattr(library, abi)()
    except (OSError, AttributeError, getattr(ffi, "error", OSError)) as error:  # the last of an FFI made by a module
        raise CompilerError(f"{path} cannot be loaded: {error}", hint="delete it and build again") from None
    if found != ABI:
        message = f"{path}: kernels of interface {ABI} were expected, got {found}"
        raise CompilerError(message, hint="build it again with this version of optgen: optgen build")
    return library


class Runtime:
    """The one runtime of this process: the pool of threads, and what the processor has."""

    def __init__(self, ffi: Any, path: Path) -> None:
        self.ffi = ffi
        self.path = path
        self.library = open_library(ffi, path, "optgen_runtime_abi")
        self.isa: str = ffi.string(self.library.optgen_isa()).decode()

    @property
    def usable(self) -> tuple[str, ...]:
        """The instruction sets of this processor, the best first."""
        return ISAS[ISAS.index(self.isa) :] if self.isa == ISAS[-1] else ISAS[ISAS.index(self.isa) : -1]


def choose_isa(usable: Sequence[str]) -> str:
    """The best instruction set, or the one that OPTGEN_ISA names."""
    wanted = os.environ.get("OPTGEN_ISA", "")
    if not wanted:
        return usable[0]
    if wanted not in usable:
        message = f"OPTGEN_ISA: one of {', '.join(usable)} was expected on this processor, got {wanted!r}"
        raise ArgumentError(message, hint="unset it for the best one")
    return wanted


def threads() -> int:
    """How many threads a step may use: OPTGEN_NUM_THREADS, or the processors that this process may run on."""
    wanted = os.environ.get("OPTGEN_NUM_THREADS", "")
    return _available() if not wanted else _thread_count(wanted)


@cache
def _thread_count(wanted: str) -> int:
    if not wanted.isdecimal() or not 1 <= int(wanted) <= 256:
        message = f"OPTGEN_NUM_THREADS: a whole number from 1 to 256 was expected, got {wanted!r}"
        raise ArgumentError(message, hint="unset it for one thread a processor")
    return int(wanted)


def processors() -> int:
    """The processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _available() -> int:
    """Processors by affinity, and by the quota of the control group, rounded up."""
    affinity = processors()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        limit = math.ceil(int(quota) / int(period)) if quota != "max" else affinity
    except (OSError, ValueError):
        limit = affinity
    return max(1, min(affinity, limit))


class Kernel:
    """One variant of a rule, compiled, for one compute type ("float32" or "float64") and one instruction set."""

    def __init__(self, runtime: Runtime, library: Any, rule: Rule, dtype: str, isa: str | None = None) -> None:
        self.runtime = runtime
        self.dtype = dtype
        self.isa = isa or choose_isa(runtime.usable)
        self.rule = rule
        self.course = course(rule)
        self.program = Program(rule.scalars, [a.target for a in self.course.scalars])
        self.group = GroupProgram(self.course)
        self._library = library  # keeps `entry` alive
        self.entry = self._find(library)
        self.stretches = _stretches(self.course)

    def _find(self, library: Any) -> Any:
        string = self.runtime.ffi.string
        kernels = library.optgen_kernels()
        i = 0
        while kernels[i].work:
            entry = kernels[i]
            found = tuple(string(text).decode() for text in (entry.variant, entry.dtype, entry.isa))
            if found == (self.rule.variant, self.dtype, self.isa):
                return kernels + i
            i += 1
        wanted = " ".join(filter(None, (self.rule.name, self.rule.variant, self.dtype, self.isa)))
        raise CompilerError(f"the library has no kernel for {wanted}", hint="build it again: optgen build")


def _stretches(plan: Course) -> list[tuple[int, int]]:
    """The kernel's own work, cut where the host computes something."""
    ends = list(accumulate(sum(len(stage.work) for stage in stretch) for stretch in stages(plan)))
    return list(pairwise([0, *ends]))


class GroupProgram:
    """The work of the host in one step, of which the tensors' own part is done by the kernel. `places`: where a kernel
    reads which value; that of a state before the step is called by `load_name`."""

    def __init__(self, plan: Course) -> None:
        self.places = group_names(plan)
        self.scalars = [a.target for a in plan.scalars]
        self.states = [state.name for state in plan.rule.states if state.extent == Extent.GROUP]
        self.works = [work for work in plan.work if isinstance(work, Group | Exchange)]
        self.cells = {name: i for i, name in enumerate(plan.small(Extent.TENSOR))}
        self.values = {a.target: a.value for a in plan.rule.body}

    def new_states(self, names: Mapping[str, Value]) -> dict[str, Value]:
        """The states of the group after the step; `names` has all values that were computed."""
        return {name: evaluate(self.values[name], {}, 0, names) if name not in names else names[name]
                for name in self.states if name in self.values}  # fmt: skip


class Team:
    """Threads of another library, to do steps in the place of the runtime's own: so that those which are awake from its
    own work take up a step at once, and do not look for work on the processors where others step. `parallel`, `number`:
    the addresses of what OpenMP calls GOMP_parallel and omp_get_thread_num.

    After a fork there are none in the child, whose steps go to the runtime's own threads.
    """

    def __init__(self, parallel: int, number: int) -> None:
        self.parallel, self.number = parallel, number
        self.gone = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave)

    def _leave(self) -> None:
        self.gone = True


class Binding:
    """Tensors of one kernel as the runtime's table. Row i: the parameter, its gradient, its states, those that have a
    value for each element first. `team`: whose threads step them, if not the runtime's own."""

    def __init__(self, kernel: Kernel, tensors: Sequence[Sequence[Array]], team: Team | None = None) -> None:
        self.kernel = kernel
        self._lender, self._team = team, _team(kernel.runtime.ffi, team)
        ffi, rule = kernel.runtime.ffi, kernel.rule
        self.arrays = len(rule.arrays)
        units = kernel.entry.units
        slices = rule.rows == "first"
        self.elements = sum(tensor[0].size for tensor in tensors)
        layouts: dict[Layout, Array] = {}
        self.gradient_offsets = []
        self.table = np.zeros((len(tensors), _HEAD + self.arrays + kernel.entry.states), np.int64)
        sizes, slabs = [], []
        self.counts: list[dict[Extent, int]] = []
        for row, tensor in zip(self.table, tensors, strict=True):
            layout = layout_of(
                tensor[: self.arrays], ordered=units != 1, tiled=units == 0, slices=slices and units == 0
            )
            cells = layouts.setdefault(layout, np.array(layout.cells(), np.int64))
            row[1] = cells.ctypes.data
            offsets = [*layout.offsets, *(0,) * kernel.entry.states]
            row[_HEAD:] = [x.ctypes.data + offset for x, offset in zip(tensor, offsets, strict=True)]
            self.gradient_offsets.append(layout.offsets[1])
            counts = counts_of(tensor[0].shape, rule if units == 0 else None)
            self.counts.append(counts)
            slabs.append(_slabs(counts) if layout.slabs else 0)
            sizes.append(0 if layout.slabs else -(-tensor[0].size // units) if units else _tiles(counts))
        self.total, self.slabs = sum(sizes), sum(slabs)
        self.table[:, 0] = [0, *accumulate(sizes[:-1])] if sizes else []
        self.table[:, 4] = [0, *accumulate(slabs[:-1])] if slabs else []
        self._layouts = list(layouts.values())  # keeps their memory alive
        self.count_from([0] * len(tensors))
        self._table = ffi.cast("void *", self.table.ctypes.data)
        # What is computed once for all tensors, as the kernel reads it.
        self.group_values = np.zeros(max(1, len(kernel.group.places)))
        self._group = ffi.cast("void *", self.group_values.ctypes.data)
        self.cells = np.zeros((len(tensors), 1))
        if kernel.entry.count > len(kernel.course.passes):
            self._make_space()

    def _make_space(self) -> None:
        """The memory in which tensors keep values between the passes of a step."""
        entry, small = self.kernel.entry, self.kernel.course.small
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
        # The addresses, for each tensor: its cells, then the five above.
        spaces = np.zeros((len(sizes), 6), np.int64)
        spaces[:, 0] = self.cells.ctypes.data + np.arange(len(sizes)) * self.cells.strides[0]
        begins = [0, *accumulate(size for each in sizes for size in each)][:-1]
        spaces[:, 1:] = self._memory.ctypes.data + 8 * np.array(begins, np.int64).reshape(-1, 5)
        self._spaces = spaces
        self.table[:, 3] = spaces.ctypes.data + np.arange(len(sizes)) * spaces.strides[0]

    def gradient_cell(self, row: int) -> tuple[int, int]:
        """The address where the kernel finds the gradient of a row: that of its first element, and so many bytes on."""
        return self.table.ctypes.data + row * self.table.strides[0] + 8 * (_HEAD + 1), self.gradient_offsets[row]

    def count_from(self, before: Sequence[int], sets: Sequence[int] | None = None) -> None:
        """`before[i]` is the count of updates that tensor i has had: steps are counted from there. `sets[i]`: which of
        several sets of hyperparameters it goes by."""
        ffi = self.kernel.runtime.ffi
        clocks = list(zip(sets or [0] * len(before), before, strict=True))
        self._scalars = {clock: ffi.new("double[]", max(1, len(self.kernel.program))) for clock in set(clocks)}
        addresses = {clock: int(ffi.cast("intptr_t", cells)) for clock, cells in self._scalars.items()}
        self.table[:, 2] = [addresses[clock] for clock in clocks]

    def run(self, values: Sequence[Steps], step: int, threads: int, grain: int | None = None) -> None:
        """One step, of a rule that computes nothing for the group: number `step` since `count_from`. `values` are the
        sets of hyperparameters, each for each count.

        `grain` (units of work) forces how finely it is cut; by itself, a small step goes to one thread.
        """
        self.begin(values, step)
        self.work(0, threads, grain)

    def begin(self, values: Sequence[Steps], step: int) -> None:
        """What a step needs before its first stretch of work: the scalars of each count of updates."""
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
        kernel.runtime.library.optgen_step(
            kernel.entry, self._table, len(self.table), self.total, self.slabs, self._group, begin, end, threads, grain,
            kernel.runtime.ffi.NULL if self._lender is None or self._lender.gone else self._team,
        )  # fmt: skip


def _team(ffi: Any, team: Team | None) -> Any:
    """What the runtime calls a team."""
    if team is None:
        return ffi.NULL
    of = ffi.typeof("optgen_team")
    calls = {name: ffi.cast(field.type, getattr(team, name)) for name, field in of.fields}
    return ffi.new("optgen_team *", calls)


def _tiles(counts: Mapping[Extent, int]) -> int:
    """How many tiles there are in a parameter of matrices."""
    matrices = counts[Extent.MATRIX]
    if not matrices:
        return 0
    rows, columns = counts[Extent.ROW] // matrices, counts[Extent.COLUMN] // matrices
    return matrices * -(-rows // PANEL) * -(-columns // BLOCK)


def _slabs(counts: Mapping[Extent, int]) -> int:
    """How many slabs there are in a parameter of small matrices."""
    matrices = counts[Extent.MATRIX]
    return -(-matrices // (SLAB // (counts[Extent.ELEMENT] // matrices)))


def counts_of(shape: tuple[int, ...], tiled: Rule | None) -> dict[Extent, int]:
    """How many values of each extent a parameter has; `tiled`: the rule, if it knows of rows and columns."""
    size = math.prod(shape)
    of = {Extent.TENSOR: 1, Extent.MATRIX: 1, Extent.ROW: 1, Extent.COLUMN: size, Extent.ELEMENT: size}
    if tiled is not None:
        first = tiled.rows == "first"
        matrices = 1 if first else math.prod(shape[:-2])
        rows, columns = (shape[0], math.prod(shape[1:])) if first else shape[-2:]
        of |= {Extent.MATRIX: matrices, Extent.ROW: matrices * rows, Extent.COLUMN: matrices * columns}
    return of
