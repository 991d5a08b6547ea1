"""Program kernels: what steps one variant of a rule with products of matrices, in one compute type.

In: a compilation, a compute type, and whether a matrix library fuses products. Out: the `ProgramKernel`: the programs
of the variant, and the kernels of their segments, from the built library or the per-user cache; and the rows of
parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..codegen.abi import ABI
from ..compiler.driver import Compilation
from ..compiler.manifest import built_library
from ..frozen import frozen, replace
from ..ir.evaluate import HyperValues
from ..ir.evaluate import Program as Scalars
from ..ir.expr import PARAMETER, Extent
from ..ir.rule import Rule
from ..lowering.program import MatrixProgram
from ..lowering.programs import Programs, programs_of, segments_of
from .addresses import address_of, array_over
from .arrays import Array
from .kernel import Kernel
from .library import open_library, runtime
from .machine import choose_isa

if TYPE_CHECKING:
    from .programs import ProgramSteps

__all__ = ["MatrixLayout", "MatrixRow", "ProgramKernel", "Segments", "segments_for"]


@frozen
class MatrixLayout:
    """How the arrays of a parameter lie, wherever that is: of each its shape, strides and type, and whether it is
    aligned. Layouts of equal arrays are the same object."""

    arrays: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], Any, bool]]

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the parameter."""
        return self.arrays[PARAMETER][0]

    def over(self, name: str, address: int) -> Array:
        """The array of this name at an address; it must be alive as long as that is used."""
        shape, strides, dtype, _ = self.arrays[name]
        return array_over(address, shape, strides, dtype)


@lru_cache(4096)
def _layout(arrays: tuple[tuple[str, Any], ...]) -> MatrixLayout:
    return MatrixLayout(dict(arrays))


@frozen
class MatrixRow:
    """A parameter for programs: how its arrays lie, and the address of each."""

    layout: MatrixLayout
    addresses: tuple[int, ...]

    @property
    def offsets(self) -> tuple[int, ...]:
        """Bytes from the first element of each array to the first one visited."""
        return (0,) * len(self.addresses)


class Segments:
    """The segments of a rule and their kernels in one compute type. `opened`: what makes the kernel of one, which goes
    by its name."""

    def __init__(self, segments: Sequence[Rule], lowered: Sequence[Rule], opened: Callable[[Rule], Kernel]) -> None:
        self._lowered = {replace(rule, flags=()): low for rule, low in zip(segments, lowered, strict=True)}
        self._opened = opened
        self._kernels: dict[Rule, Kernel] = {}

    def has(self, segments: Sequence[Rule]) -> bool:
        """Whether all of these are among them."""
        return self._lowered.keys() >= {replace(rule, flags=()) for rule in segments}

    def kernel(self, rule: Rule) -> Kernel:
        """The kernel of a segment."""
        if rule not in self._kernels:
            self._kernels[rule] = self._opened(self._lowered[rule])
        return self._kernels[rule]


@lru_cache(256)
def segments_for(compilation: Compilation, variant: int, dtype: str, module: str | None, *, fuses: bool) -> Segments:
    """The segments of one variant. `module`: the file of its optimiser class, if that was built: its library has the
    kernels. Else those of this variant are compiled now."""
    run, own = runtime(), segments_of([compilation.rules[variant]], [fuses])
    isa = choose_isa(run.usable)
    path = None
    if module is not None:
        path = built_library(Path(module).with_suffix(".json"), compilation.fingerprint)

    def made(path: Path, segments: Sequence[Rule], lowered: Sequence[Rule]) -> Segments:
        library = open_library(run.ffi, path, "optgen_abi")
        return Segments(segments, lowered, lambda low: Kernel(run, library, low, dtype, isa))

    if path is not None:
        found = made(path, compilation.segments, compilation.lowered_segments)
        if found.has(own):
            return found
    from ..compiler.cache import open_cached

    apart = Compilation.of_rules(f"{compilation.stem}_segments", own)
    return open_cached(
        apart.c_source_in(dtype, isa), apart.stem, ABI, lambda path: made(path, apart.rules, apart.lowered)
    )


class ProgramKernel:
    """What steps one variant of a rule in one compute type.

    Parameters
    ----------
    steps
        What runs its programs.
    segments
        The kernels of its segments.

    Attributes
    ----------
    names
        The arrays of a parameter: itself, what a step is given for it, and its states.
    """

    def __init__(self, steps: ProgramSteps, rule: Rule, dtype: str, segments: Segments, *, fuses: bool) -> None:
        programs = programs_of(rule, fuses=fuses)
        assert programs is not None
        self.steps, self.rule, self.dtype, self.segments = steps, rule, dtype, segments
        self.names = (PARAMETER, *rule.given_arrays, *(s.name for s in rule.states if s.extent > Extent.GROUP))
        self._programs: Programs = programs
        self._tests = Scalars(programs.scalars, [test.name for test in programs.tests])

    @property
    def states(self) -> tuple[str, ...]:
        """The names of the states."""
        return self.names[1 + len(self.rule.given_arrays) :]

    def program(self, values: HyperValues, t: int) -> MatrixProgram:
        """The program of update number `t`."""
        return self._programs.of(tuple(map(bool, self._tests.run(values, t))) if self._programs.tests else ())

    def lengths(self, values: HyperValues) -> tuple[float, ...]:
        """How long the dimensions are that hyperparameters decide."""
        return tuple(values[each.hyper][0] for each in self.rule.dimensions)

    def row(self, arrays: Sequence[Array]) -> MatrixRow:
        """A parameter, by its arrays in the order of `names`."""
        forms = [(x.shape, x.strides, x.dtype, x.flags.aligned) for x in arrays]
        layout = _layout(tuple(zip(self.names, forms, strict=True)))
        return MatrixRow(layout, tuple(map(address_of, arrays)))
