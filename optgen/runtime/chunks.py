"""Chunks: parameters of one shape that go through a program together, bound to kernels and to a matrix library.

In: a batch, the addresses of its arrays, and memory for the values between its steps. Out: the steps,
each of which runs when it is called.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from .. import interpreter as interp
from ..ir.evaluate import HyperValues, Value, ValuesByCount
from ..ir.evaluate import Program as Scalars
from ..ir.expr import GRADIENT, PARAMETER, Const, Extent, Local
from ..ir.extents import Dims
from ..ir.rule import Rule
from ..lowering.orientation import PARAMETER_DIMS
from ..lowering.program import MatrixProgram, Multiplication, Operand, Place, Segment
from .addresses import address_of
from .arrays import Array
from .binding import Binding, Team, rows_of
from .matrix_library import MatrixLibrary
from .program_binding import Batch
from .scratch import Scratch

__all__ = ["Chunk", "Step"]


class Chunk:
    """So many parameters, bound. `addresses`: those of their arrays, a row for each parameter."""

    def __init__(self, batch: Batch, addresses: Array, values: HyperValues) -> None:
        kernel, layout = batch.kernel, batch.layouts[0]
        self.program, self.kernel, self.layouts = batch.program, kernel, batch.layouts
        self.addresses = addresses
        self.count, self.dtype, self.shape = len(batch.layouts), np.dtype(kernel.dtype), layout.shape
        self.sides = interp.side_lengths(kernel.rule, values, self.shape)
        #: How many matrices a parameter is.
        self.matrices = interp.as_matrices(self.shape, kernel.rule.matrices)[0]
        self.places: dict[str, Array] = {}
        self.steps: list[Step] = []

    def shape_of(self, dims: Dims) -> tuple[int, int, int]:
        """That of all matrices of these dimensions, those of one parameter behind those of another."""
        return self.count * self.matrices, self.sides[dims.rows], self.sides[dims.columns]

    def reserve(self, scratch: Scratch) -> bool:
        """Make room for the values between steps; whether that takes more memory than there was."""
        return any([scratch.reserve(place.slot, self._size(place)) for place in self.program.places.values()])

    def _size(self, place: Place) -> int:
        return math.prod(self.shape_of(place.dims)) * self._type(place.extent, half=place.half).itemsize

    def bind(self, scratch: Scratch, library: MatrixLibrary, threads: int, team: Team | None) -> None:
        """Bind the parameters to kernels and to the library."""
        for name, place in self.program.places.items():
            dtype = self._type(place.extent, half=place.half)
            self.places[name] = scratch.array(place.slot, self.shape_of(place.dims), dtype)
        for step in self.program.steps:
            if isinstance(step, Segment):
                self.steps.append(_Sweeps(self, step, threads, team))
            else:
                self.steps.append(_Call(self, step, library))

    def _type(self, extent: Extent, *, half: bool) -> np.dtype[Any]:
        return np.dtype(np.uint16) if half else self.dtype if extent == Extent.ELEMENT else np.dtype(np.float64)

    def begin(self, addresses: Array, values: ValuesByCount, t: int) -> None:
        """Compute what is known before update number `t` of these parameters, and take what memory it needs."""
        moved = not np.array_equal(addresses, self.addresses)
        self.addresses = addresses
        self.numbers = _numbers(self.program, values[t], t)
        for step in self.steps:
            if isinstance(step, _Sweeps):
                step.begin(values, t, moved=moved)

    def array(self, name: str, member: int) -> Array:
        """An array of one parameter."""
        address = int(self.addresses[member, self.kernel.names.index(name)])
        return self.layouts[member].over(name, address)

    def matrices_of(self, operand: Operand, member: int) -> Array:
        """An array of one parameter, three dimensions of it."""
        if operand.array in self.places:
            array = self.places[operand.array][member * self.matrices : (member + 1) * self.matrices]
        else:
            array = self.array(operand.array, member)
        if operand.extent <= Extent.TENSOR:
            return array
        return array.reshape(self.matrices, self.sides[operand.dims.rows], self.sides[operand.dims.columns])


@lru_cache(256)
def _numbers_of(program: MatrixProgram) -> tuple[tuple[str, ...], Scalars]:
    """The names of the numbers that products need, and what computes them."""
    steps = (step for step in program.steps if isinstance(step, Multiplication))
    names = tuple(dict.fromkeys(arg.name for step in steps for arg in step.args if isinstance(arg, Local)))
    return names, Scalars(program.scalars, names)


def _numbers(program: MatrixProgram, values: HyperValues, t: int) -> dict[str, Value]:
    """The numbers that products need."""
    names, scalars = _numbers_of(program)
    return dict(zip(names, scalars.run(values, t), strict=True)) if names else {}


class _Sweeps:
    """A segment, bound."""

    def __init__(self, chunk: Chunk, segment: Segment, threads: int, team: Team | None) -> None:
        self._chunk, self._segment, self._threads = chunk, segment, threads
        kernel = chunk.kernel.segments.kernel(segment.rule)
        rule = kernel.rule
        arrays = [self._arrays(chunk, rule, i) for i in range(chunk.count)]
        self._binding = Binding(kernel, rows_of(kernel, arrays), team)
        names = [PARAMETER, GRADIENT, *rule.element_states, *(state.name for state in rule.small_states)]
        filled = {name: operand.array for name, operand in segment.arrays.items() if operand.array not in chunk.places}
        if segment.frame == PARAMETER_DIMS:
            filled |= {PARAMETER: PARAMETER, GRADIENT: GRADIENT}
        #: The columns of the kernel's table that arrays of the parameters fill, and which of these they are.
        self._columns = [names.index(name) for name in filled]
        self._sources = [chunk.kernel.names.index(array) for array in filled.values()]
        self._offsets = self._binding.table["arrays"][:, self._columns] - chunk.addresses[:, self._sources]

    def _arrays(self, chunk: Chunk, rule: Rule, i: int) -> list[Array]:
        segment, sides = self._segment, chunk.sides
        arrays = {name: self._array(chunk, operand, i) for name, operand in segment.arrays.items()}
        elements = [arrays[name] for name in rule.element_states]
        if segment.frame == PARAMETER_DIMS:
            lead = [chunk.array(name, i) for name in (PARAMETER, GRADIENT)]
        else:  # a kernel has a parameter and a gradient, whether it reads them or not
            shape = chunk.matrices, sides[segment.frame.rows], sides[segment.frame.columns]
            lead = [elements[0] if elements else np.broadcast_to(np.zeros((), chunk.dtype), shape)] * 2
        return [*lead, *elements, *(arrays[state.name] for state in rule.small_states)]

    def _array(self, chunk: Chunk, operand: Operand, i: int) -> Array:
        """An array of parameter i, as a segment goes over it."""
        if operand.extent == Extent.ELEMENT and self._segment.frame == PARAMETER_DIMS and not operand.turned:
            if operand.array not in chunk.places:
                return chunk.array(operand.array, i)
            return chunk.matrices_of(operand, i).reshape(chunk.shape)
        found = chunk.matrices_of(operand, i)
        found = found.mT if operand.turned and operand.extent == Extent.ELEMENT else found
        own = operand.extent == Extent.ELEMENT and self._segment.frame == PARAMETER_DIMS
        return found.reshape(chunk.shape) if own else found  # a view: dimensions are parted, and none are joined

    def begin(self, values: ValuesByCount, t: int, *, moved: bool) -> None:
        """Take what memory update number `t` needs. `moved`: whether arrays are others than in the one before."""
        binding = self._binding
        if moved and self._columns:
            binding.table["arrays"][:, self._columns] = self._chunk.addresses[:, self._sources] + self._offsets
        binding.begin([values], t)
        if binding.kernel.entry.reduced:
            binding.reserve()

    def __call__(self, progress: Array) -> None:
        """Runs the segment, and counts it in the same call of C."""
        counter = self._binding.kernel.runtime.ffi.cast("int64_t *", address_of(progress))
        self._binding.work(0, self._threads, progress=counter)


class _Call:
    """A product or a function, bound."""

    def __init__(self, chunk: Chunk, step: Multiplication, library: MatrixLibrary) -> None:
        self._chunk, self._step, self._library = chunk, step, library
        self._together = all(operand.array in chunk.places for operand in step.operands)

    def __call__(self, progress: Array) -> None:
        """Computes it, which may be done again, and counts it."""
        chunk, step = self._chunk, self._step
        every = self._all(step.target)
        if self._together:
            self._compute(
                [self._all(arg) if isinstance(arg, Operand) else self._number(arg) for arg in step.args], every
            )
        else:
            for i in range(chunk.count):
                args = [chunk.matrices_of(x, i) if isinstance(x, Operand) else self._number(x) for x in step.args]
                self._compute(args, every[i * chunk.matrices : (i + 1) * chunk.matrices])
        progress += 1

    def _all(self, operand: Operand) -> Array:
        return self._chunk.places[operand.array].reshape(self._chunk.shape_of(operand.dims))

    def _number(self, arg: Any) -> Value:
        return float(arg.value) if isinstance(arg, Const) else self._chunk.numbers[arg.name]

    def _compute(self, args: Sequence[Any], out: Array) -> None:
        step, dtype = self._step, self._chunk.dtype
        given = [self._given(arg, x) if isinstance(arg, Operand) else x for arg, x in zip(step.args, args, strict=True)]
        if step.target.extent == Extent.ELEMENT:
            self._library.compute(step, given, out)
        else:  # a value for each row or column is of float64, and made of numbers of the compute type
            made = np.empty(out.shape, dtype)
            self._library.compute(step, given, made)
            out[...] = made

    def _given(self, operand: Operand, x: Array) -> Array:
        x = x if operand.extent == Extent.ELEMENT else x.astype(self._chunk.dtype)
        return x.mT if operand.turned else x


Step: TypeAlias = _Sweeps | _Call
