"""Binding: from arrays to one call of a compiled kernel. In: a kernel library and arrays that `arrays` has accepted.

A `Binding` is a table of pointers that stays valid while the arrays live; who holds it must see to that.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import Array, Layout, layout_of
from .errors import ArgumentError, CompilerError
from .host import Program, Values
from .ir import Rule, kernel_scalars

__all__ = ["ABI", "ISAS", "Binding", "Kernel", "Runtime", "open_library", "processors", "threads", "write_declarations"]

ABI = 1
#: Instruction sets, the best first.
ISAS = ("x86_64_v4", "x86_64_v3", "baseline")
#: The least number of elements that a thread takes at a time.
GRAIN = 32 * 1024
#: A step of fewer elements runs in the calling thread: waking another costs more than it saves.
SERIAL = 192 * 1024

_HEAD = 3  # cells of a table row before the pointers: first, layout, scalars


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
        return ISAS[ISAS.index(self.isa) :]


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
        self.program = Program(rule.scalars, [a.target for a in kernel_scalars(rule)])
        self.scalar_type = {"float32": "float[]", "float64": "double[]"}[dtype]
        self._library = library  # keeps `row` alive
        self.row = self._find(library)

    def _find(self, library: Any) -> Any:
        string = self.runtime.ffi.string
        kernels = library.optgen_kernels()
        i = 0
        while (entry := kernels[i]).row:
            found = tuple(string(text).decode() for text in (entry.variant, entry.dtype, entry.isa))
            if found == (self.rule.variant, self.dtype, self.isa):
                return entry.row
            i += 1
        wanted = " ".join(filter(None, (self.rule.name, self.rule.variant, self.dtype, self.isa)))
        raise CompilerError(f"the library has no kernel for {wanted}", hint="build it again: optgen build")


class Binding:
    """Tensors of one kernel as the runtime's table. Row i: the parameter, its gradient, its states."""

    def __init__(self, kernel: Kernel, tensors: Sequence[Sequence[Array]]) -> None:
        self.kernel = kernel
        ffi = kernel.runtime.ffi
        self.arrays = len(kernel.rule.arrays)
        sizes = [tensor[0].size for tensor in tensors]
        self.total = sum(sizes)
        layouts: dict[Layout, Array] = {}
        self.gradient_offsets = []
        self.table = np.zeros((len(tensors), _HEAD + self.arrays), np.int64)
        self.table[:, 0] = [0, *accumulate(sizes[:-1])]
        for row, tensor in zip(self.table, tensors, strict=True):
            layout = layout_of(tensor)
            cells = layouts.setdefault(layout, np.array(layout.cells(), np.int64))
            row[1] = cells.ctypes.data
            row[_HEAD:] = [x.ctypes.data + offset for x, offset in zip(tensor, layout.offsets, strict=True)]
            self.gradient_offsets.append(layout.offsets[1])
        self.gradients = self.table[:, _HEAD + 1].tolist()  # written back to the table in one go
        self._stale = False
        self._layouts = tuple(layouts.values())
        self.width = len(kernel.program)
        # A row of scalars for every count of updates among the tensors; nearly always one.
        self.scalars = ffi.new(kernel.scalar_type, max(1, self.width))
        self.table[:, 2] = int(ffi.cast("intptr_t", self.scalars))
        self.uniform = True
        self._table = ffi.cast("void *", self.table.ctypes.data)

    def set_gradient(self, row: int, address: int) -> None:
        """Another gradient, of the same shape, strides and alignment as the one before."""
        self.gradients[row] = address + self.gradient_offsets[row]
        self._stale = True

    def run(self, values: Values, counts: Sequence[int], threads: int, grain: int | None = None) -> None:
        """One step; `counts[i]` is the count of updates of tensor i, this one included.

        `grain` (elements) forces how finely the work is cut; by itself, a small step goes to one thread.
        """
        kernel = self.kernel
        if self.total == 0:
            return
        if grain is None:
            threads, grain = (threads if self.total >= SERIAL else 1), GRAIN
        if counts.count(counts[0]) == len(counts):
            if not self.uniform:
                self.table[:, 2] = int(kernel.runtime.ffi.cast("intptr_t", self.scalars))
                self.uniform = True
            self.scalars[0 : self.width] = kernel.program.run(values, counts[0])
            self._step(threads, grain)
        else:
            self._run_mixed(values, counts, threads, grain)

    def _run_mixed(self, values: Values, counts: Sequence[int], threads: int, grain: int) -> None:
        ffi = self.kernel.runtime.ffi
        rows = {t: ffi.new(self.kernel.scalar_type, max(1, self.width)) for t in set(counts)}
        for t, row in rows.items():
            row[0 : self.width] = self.kernel.program.run(values, t)
        self.table[:, 2] = [int(ffi.cast("intptr_t", rows[t])) for t in counts]
        self.uniform = False
        self._step(threads, grain)

    def _step(self, threads: int, grain: int) -> None:
        if self._stale:
            self.table[:, _HEAD + 1] = self.gradients
            self._stale = False
        step = self.kernel.runtime.library.optgen_step
        step(self.kernel.row, self._table, len(self.table), self.arrays, self.total, threads, grain)
