"""Programs at run time: a step of parameters whose rule has products of whole matrices.

In: members that kernels cannot step in one call, and the sets of hyperparameters. Out: their step, which may be broken
off between any two calls of a library, and goes on from there.

Parameters go one after another through the same memory; many small ones of one shape go together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import interpreter as interp
from ..compiler.driver import Compilation
from ..frozen import frozen
from ..ir.evaluate import HyperValues, Program as Scalars, Value, ValuesByCount
from ..ir.expr import Const, Extent, Local
from ..ir.extents import Dims
from ..ir.rule import Rule
from ..lowering.orientation import PARAMETER_DIMS
from ..lowering.program import Multiplication, Operand, Program, Segment
from ..lowering.programs import Programs, programs_of
from .addresses import address_of
from .arrays import Array
from .binding import Binding, Team, rows_of
from .kernel import Kernel, kernel_of
from .matrix_library import MatrixLibrary

__all__ = ["Matrix", "ProgramStep", "Scratch"]

#: Of how many bytes small matrices go through a program together, at most.
CHUNK = 1 << 20


@frozen
class Matrix:
    """A parameter for a program: its rule, compute type, arrays by name, count of this update and set of
    hyperparameters."""

    rule: Rule
    dtype: str
    arrays: Mapping[str, Array]
    t: int
    hypers: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.arrays["p"].shape


class Scratch:
    """Memory that parameters go through one after another, by the numbers of slots."""

    def __init__(self) -> None:
        self._arrays: dict[int, Array] = {}

    def reserve(self, slot: int, size: int) -> None:
        """Make room for so many bytes."""
        if slot not in self._arrays or self._arrays[slot].nbytes < size + 64:
            self._arrays[slot] = np.empty(size + 64, np.uint8)

    def array(self, slot: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array in this slot, aligned to a cache line."""
        memory = self._arrays[slot]
        begin = -address_of(memory) % 64
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return memory[begin : begin + size].view(dtype).reshape(shape)


def segment_kernel(rule: Rule, dtype: str) -> Kernel:
    """The kernel of a segment."""
    return kernel_of(Compilation.of_rules(f"{rule.name.lower()}_segment", [rule]), 0, dtype, None)


class Chunk:
    """Parameters of one shape, type and course that go through a program together."""

    def __init__(self, program: Program, members: Sequence[Matrix], values: HyperValues) -> None:
        self.program, self.members = program, members
        first = members[0]
        self.sides = interp.side_lengths(first.rule, values, first.shape)
        self.dtype = np.dtype(first.dtype)
        self.matrices = interp.as_matrices(first.shape, first.rule.matrices)[0]
        self._calls: list[Any] = []

    @property
    def count(self) -> int:
        return len(self.members)

    def shape_of(self, dims: Dims) -> tuple[int, int, int]:
        """All matrices of these dimensions that the parameters have, for a product."""
        return self.count * self.matrices, self.sides[dims.rows], self.sides[dims.columns]

    def reserve(self, scratch: Scratch) -> None:
        for place in self.program.places.values():
            itemsize = self.dtype.itemsize if place.extent == Extent.ELEMENT else 8
            scratch.reserve(place.slot, math.prod(self.shape_of(place.dims)) * itemsize)

    def bind(self, scratch: Scratch, library: MatrixLibrary, threads: int, team: Team | None) -> None:
        """Bind the parameters to kernels and calls of the library."""
        self.places: dict[str, Array] = {}
        for name, place in self.program.places.items():
            dtype = self.dtype if place.extent == Extent.ELEMENT else np.float64
            self.places[name] = scratch.array(place.slot, self.shape_of(place.dims), dtype)
        self.bindings: list[Binding] = []
        self.steps: list[Any] = []
        for step in self.program.steps:
            if isinstance(step, Segment):
                binding = self._binding(step, team)
                self.bindings.append(binding)
                self.steps.append(_Sweeps(binding, threads))
            else:
                self.steps.append(_Call(self, step, library))

    def _binding(self, segment: Segment, team: Team | None) -> Binding:
        kernel = segment_kernel_of(segment.rule, self.dtype.name)
        rows = rows_of(kernel, [self._tensor(segment, kernel.rule, i) for i in range(self.count)])
        binding = Binding(kernel, rows, team)
        binding.count_from([member.t for member in self.members], [member.hypers for member in self.members])
        return binding

    def _tensor(self, segment: Segment, rule: Rule, i: int) -> list[Array]:
        arrays = {name: self._seen(operand, segment.frame, i) for name, operand in segment.arrays.items()}
        own = segment.frame == PARAMETER_DIMS
        given = self.members[i].arrays
        elements = [arrays[name] for name in rule.element_states]
        shape = (self.matrices, self.sides[segment.frame.rows], self.sides[segment.frame.columns])
        lead = elements[0] if elements else np.broadcast_to(np.zeros((), self.dtype), shape)
        p, g = (given["p"], given["g"]) if own else (lead, lead)
        small = [arrays[state.name] for state in rule.small_states]
        return [p, g, *elements, *small]

    def _seen(self, operand: Operand, frame: Dims, i: int) -> Array:
        """An array of parameter i, as a segment goes over it."""
        if operand.array in self.places:
            array = self.places[operand.array][i * self.matrices : (i + 1) * self.matrices]
        else:
            array = self.members[i].arrays[operand.array]
        if operand.extent != Extent.ELEMENT:
            return array
        if frame == PARAMETER_DIMS and not operand.turned:
            return array.reshape(self.members[i].shape)
        array = array.reshape(self.matrices, self.sides[operand.dims.rows], self.sides[operand.dims.columns])
        return array.mT if operand.turned else array

    def begin(self, sets: Sequence[ValuesByCount]) -> None:
        """Computes what is known before the step."""
        for binding in self.bindings:
            binding.begin(sets, 0)


_KERNELS: dict[tuple[Rule, str], Kernel] = {}


def segment_kernel_of(rule: Rule, dtype: str) -> Kernel:
    if (rule, dtype) not in _KERNELS:
        _KERNELS[rule, dtype] = segment_kernel(rule, dtype)
    return _KERNELS[rule, dtype]


class _Sweeps:
    """A segment, bound."""

    def __init__(self, binding: Binding, threads: int) -> None:
        self._binding, self._threads = binding, threads

    def run(self, progress: Array) -> None:
        counter = self._binding.kernel.runtime.ffi.cast("int64_t *", address_of(progress))
        self._binding.work(0, self._threads, progress=counter)


class _Call:
    """A product or a function, bound."""

    def __init__(self, chunk: Chunk, step: Multiplication, library: MatrixLibrary) -> None:
        self._chunk, self._step, self._library = chunk, step, library
        operands = [arg for arg in step.args if isinstance(arg, Operand)]
        self._together = chunk.count == 1 or all(operand.array in chunk.places for operand in operands)

    def run(self, progress: Array) -> None:
        chunk = self._chunk
        if self._together:
            self._compute([slice(None)] * 1, 0)
        else:
            n = chunk.matrices
            for i in range(chunk.count):
                self._compute([slice(i * n, (i + 1) * n)], i)
        progress += 1

    def _compute(self, parts: Sequence[slice], i: int) -> None:
        chunk, step, (part,) = self._chunk, self._step, parts
        args = [self._argument(arg, part, i) for arg in step.args]
        place = chunk.places[step.target.array][part]
        sides = (len(place), chunk.sides[step.target.dims.rows], chunk.sides[step.target.dims.columns])
        if step.target.extent == Extent.ELEMENT:
            self._library.compute(step.op, args, place.reshape(sides))
        else:
            out = np.empty(sides, chunk.dtype)
            self._library.compute(step.op, args, out)
            place.reshape(sides)[...] = out

    def _argument(self, arg: Any, part: slice, i: int) -> Any:
        chunk = self._chunk
        if isinstance(arg, Const):
            return arg.value
        if isinstance(arg, Local):
            return chunk.numbers[arg.name]
        if arg.array in chunk.places:
            x = chunk.places[arg.array][part]
        else:
            x = chunk.members[i].arrays[arg.array]
        x = x.reshape(-1, chunk.sides[arg.dims.rows], chunk.sides[arg.dims.columns])
        if arg.extent != Extent.ELEMENT:
            x = x.astype(chunk.dtype)
        return x.mT if arg.turned else x


class ProgramStep:
    """One step of parameters, bound; `run` may be begun anew, and goes on from where it was.

    Parameters
    ----------
    members
        The parameters, each with its rule and arrays.
    sets
        The sets of hyperparameters.
    library, threads, team
        Who computes products, and who does the rest.
    """

    def __init__(
        self, members: Sequence[Matrix], sets: Sequence[ValuesByCount], scratch: Scratch, library: MatrixLibrary,
        threads: int, team: Team | None,
    ) -> None:  # fmt: skip
        self._progress = np.zeros(1, np.int64)
        self.chunks: list[Chunk] = []
        for member in members:
            values = sets[member.hypers][member.t]
            programs = programs_of(member.rule)
            assert programs is not None
            outcome = _outcome(programs, values, member.t)
            program = programs.of(outcome)
            chunk = Chunk(program, [member], values)
            chunk.numbers = _numbers(program, values, member.t)
            self.chunks.append(chunk)
        for chunk in self.chunks:
            chunk.reserve(scratch)
        for chunk in self.chunks:
            chunk.bind(scratch, library, threads, team)
            chunk.begin(sets)
        self._steps = [step for chunk in self.chunks for step in chunk.steps]

    def run(self) -> None:
        """The step, or what is left of it."""
        progress = self._progress
        while (done := int(progress[0])) < len(self._steps):
            self._steps[done].run(progress)


def _outcome(programs: Programs, values: HyperValues, t: int) -> tuple[bool, ...]:
    """Which of the tests hold."""
    found = Scalars(programs.scalars, [test.name for test in programs.tests]).run(values, t)
    return tuple(map(bool, found))


def _numbers(program: Program, values: HyperValues, t: int) -> dict[str, Value]:
    names = [
        arg.name
        for step in program.steps
        if isinstance(step, Multiplication)
        for arg in step.args
        if isinstance(arg, Local)
    ]
    return dict(zip(names, Scalars(program.scalars, names).run(values, t), strict=True)) if names else {}
