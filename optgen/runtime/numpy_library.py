"""NumPy as an array library of the step engine.

In: arrays, and parameters of somebody's whose `data` is an array. Out: what `ArrayLibrary` asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ArrayError
from ..ir.expr import GRADIENT
from ..ir.rule import Rule
from . import machine
from .array_library import Looked, Piece
from .arrays import LEAVE_OUT, Array, as_gradient, as_parameter, storage_of
from .binding import Team
from .group_step import Shards
from .guard import NUMPY
from .kernel import Kernel
from .matrix_library import MatrixLibrary, NumPyMatrices
from .shapes import BlockOf
from .slots import owner_of

__all__ = ["ArrayWays", "NumPyLibrary"]

OF_EACH = "give one for every parameter; in a step whose formulas do not read it, leave out the whole input"
ALL_OF_THEM = "give zeros: what depends on all parameters would be another number without this one"


class NumPyLibrary:
    """Arrays of NumPy: every parameter has a gradient, and nothing is deferred or in shards."""

    reader = NUMPY
    matrices: MatrixLibrary = NumPyMatrices()
    setting: Callable[[], object] | None = None
    mark_changed: Callable[[Sequence[Any]], None] | None = None

    def chosen(self, params: list[Any], given: list[Any], arrays: int) -> list[int]:
        if len(given) != arrays * len(params):
            got = len(given) - (arrays - 1) * len(params)
            raise ArrayError(f"expected a gradient for each of {len(params)} parameters, got {got}")
        return list(range(len(params)))

    def parameter(self, given: Any, number: int, count: int, *, coded: bool = True) -> Looked:
        seen = self.parameter_seen(given)  # once: `data` may be anybody's code
        p = as_parameter(seen if isinstance(seen, np.ndarray) else given, number, count)
        return Looked(seen, p, p.shape, storage=storage_of(p.dtype))

    def given(self, array: Any, of: Any, p: Looked, number: int, count: int, *, rule: Rule, name: str) -> Looked:
        if name == GRADIENT:
            absent = ALL_OF_THEM if rule.grouped else LEAVE_OUT
            x = as_gradient(array, p.memory, number, count, absent, written=rule.overwrites)
        else:
            x = as_gradient(array, p.memory, number, count, OF_EACH, name=name)
        return Looked(array if isinstance(array, np.ndarray) else x, x, x.shape, storage=storage_of(x.dtype))

    def memory(self, given: Array) -> Array:
        return given

    def state(self, given: Array, *, small: bool, storage: str) -> Looked:
        return Looked(given, given, given.shape, storage=storage)

    def parameter_seen(self, given: Any) -> Any:
        return given if isinstance(given, np.ndarray) else getattr(given, "data", None)

    def gradient_seen(self, given: Any) -> Any:
        return given

    def is_alone(self, seen: Array) -> bool:
        return owner_of(seen) is seen

    def is_deferred(self, seen: Any) -> bool:
        return False

    def may_be_deferred(self, seen: Any) -> bool:
        return False

    def mark(self, p: Any, g: Any) -> object:
        return None  # whatever the interpreter steps is checked anew in every step

    def expect_whole(self, rule: Rule, p: Any, place: int, block: BlockOf, *, by_kernel: bool) -> None:
        """Every array is whole."""

    def in_shards(self, params: Sequence[Any]) -> bool:
        return False

    def shards(self, params: Sequence[Any], kernel: Kernel, blocks: Sequence[int]) -> Shards:
        raise AssertionError("arrays of NumPy are not in shards")

    def owned(self, parts: Sequence[Piece]) -> None:
        """Every array is whole."""

    def threads(self) -> tuple[int, Team | None]:
        return machine.threads(), None

    def fill(self, given: Array, number: float) -> None:
        np.asarray(given).fill(number)


class ArrayWays:
    """All parameters by kernels and programs, or all by the interpreter.

    `multiplies`: whether some need programs. `rule_of`: gives the rule for a shape, where states are in storages whose
    neighbours share a scale. Kernels have these for dense arrays, and for rules without rows and columns; the
    interpreter steps the others.
    """

    interprets = True

    def __init__(
        self, *, by_kernels: bool, multiplies: bool, by_programs: bool,
        rule_of: Callable[[tuple[int, ...]], Rule] | None = None,
    ) -> None:  # fmt: skip
        self._by_kernels, self._multiplies, self._rule_of = by_kernels, multiplies, rule_of
        self.by_programs = by_programs

    def divided(self, places: Sequence[int], params: list[Any], inputs: list[Any]) -> tuple[list[int], list[int]]:
        every = list(places)
        by_kernels = self._by_kernels and (self.by_programs or not self._multiplies)
        if self._rule_of is None or not by_kernels:
            return (every, []) if by_kernels else ([], every)
        given = [x if isinstance(x, np.ndarray) else getattr(x, "data", None) for x in params]
        seen = [[x, *inputs[i :: len(params)]] for i, x in enumerate(given)]
        kernels = [i for i, own in enumerate(seen) if self._takes(self._rule_of, own)]
        grouped = any([self._rule_of(own[0].shape).grouped for own in seen if isinstance(own[0], np.ndarray)])
        if len(kernels) < len(every) and grouped:  # the interpreter computes at once what depends on all parameters
            return [], every
        return kernels, sorted({*every} - {*kernels})

    @staticmethod
    def _takes(rule_of: Callable[[tuple[int, ...]], Rule], arrays: Sequence[Any]) -> bool:
        """Whether kernels step a parameter with these inputs; what is no array is refused later."""
        if not all([isinstance(x, np.ndarray) for x in arrays]):
            return True
        dense = all([x.flags.c_contiguous and x.flags.aligned for x in arrays])
        return dense and not rule_of(arrays[0].shape).tiled

    def step_foreign(self, params: Sequence[Any]) -> None:
        raise AssertionError("NumPy steps no parameter by itself")
