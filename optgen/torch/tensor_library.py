"""PyTorch as an array library of the step engine.

In: parameters and their gradients, which may be complex, of 16 bits, in shards, or still to be conjugated.
Out: what `ArrayLibrary` asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..errors import ArrayError
from ..ir.expr import GRADIENT
from ..ir.rule import Rule
from ..runtime.array_library import Looked, Owned, Piece
from ..runtime.arrays import Array, as_gradient, as_parameter
from ..runtime.binding import Team
from ..runtime.group_step import Shards
from ..runtime.kernel import Kernel
from ..runtime.matrix_library import MatrixLibrary
from ..runtime.shapes import BlockOf
from .matrix_library import TorchMatrices
from .owners import owners_of
from .sharding import aligned, cut, expect_whole, shards_of
from .tensors import TENSORS, increment_version, local, memory, storage_of, unresolved, wide
from .threads import threads

__all__ = ["TensorLibrary"]


class TensorLibrary:
    """Tensors of PyTorch: those without a gradient are left out of a step."""

    reader = TENSORS
    matrices: MatrixLibrary = TorchMatrices()
    setting = staticmethod(torch.get_num_threads)  # whose threads may be those of the steps
    mark_changed = staticmethod(increment_version)

    def chosen(self, params: list[Any], given: list[Any], arrays: int) -> list[int]:
        return [i for i, g in enumerate(given[: len(params)]) if g is not None]

    def parameter(self, given: torch.Tensor, number: int, count: int, *, coded: bool = True) -> Looked:
        looked = _looked(given, coded=coded)
        as_parameter(_known(looked), number, count)
        return looked

    def given(
        self, array: Any, of: torch.Tensor, p: Looked, number: int, count: int, *, rule: Rule, name: str
    ) -> Looked:
        called, written = ("gradient", rule.overwrites) if name == GRADIENT else (name, False)
        here = local(aligned(of, array, number, written))
        looked = _looked(here, coded=bool(p.storage) or not storage_of(of))
        as_gradient(_known(looked), _known(p), number, count, written=written, name=called)
        if written and looked.seen is not here:
            message = f"gradient {number} is a conjugated or negated view, and the step overwrites it"
            raise ArrayError(message, hint="p.grad = p.grad.resolve_conj().resolve_neg() before it")
        return looked

    def memory(self, given: torch.Tensor) -> Array:
        return memory(given)

    def state(self, given: torch.Tensor, *, small: bool, storage: str) -> Looked:
        if storage and not storage_of(given):  # codes, and scales
            return Looked(given, memory(given), tuple(given.shape), storage=storage)
        return _looked(given, coded=bool(storage), small=small)

    def parameter_seen(self, given: Any) -> Any:
        return local(given)

    def gradient_seen(self, given: Any) -> Any:
        return local(given)

    def is_alone(self, seen: torch.Tensor) -> bool:
        return True

    def is_deferred(self, seen: torch.Tensor | None) -> bool:
        """Whether a gradient is a view that is still to be conjugated or negated."""
        return seen is not None and (seen.is_conj() or seen.is_neg())

    def may_be_deferred(self, seen: torch.Tensor) -> bool:
        return unresolved(seen)

    def mark(self, p: torch.Tensor, g: torch.Tensor | None) -> object:
        return None if g is None else (id(p), p.dtype, p.shape, p.device, type(g), g.dtype, g.layout, g.device)

    def expect_whole(self, rule: Rule, p: torch.Tensor, place: int, block: BlockOf, *, by_kernel: bool) -> None:
        expect_whole(rule, p, place, block, by_kernel)

    def in_shards(self, params: Sequence[torch.Tensor]) -> bool:
        return any(map(cut, params))

    def shards(self, params: Sequence[torch.Tensor], kernel: Kernel, blocks: Sequence[int]) -> Shards:
        return shards_of(params, kernel, blocks)

    def owned(self, parts: Sequence[Piece]) -> Owned | None:
        return owners_of(parts)

    def threads(self) -> tuple[int, Team | None]:
        return threads()

    def fill(self, given: torch.Tensor, number: float) -> None:
        with torch.no_grad():
            given.fill_(number)


def _looked(given: torch.Tensor, *, coded: bool, small: bool = False) -> Looked:
    """A tensor as a step takes it. Complex numbers are pairs of real ones. Unless it is `coded`, what has 16 bits is
    computed in float32, and small states are in float64; each is rounded once."""
    own, shape = local(given), tuple(given.shape)
    seen = own.resolve_conj().resolve_neg()
    storage = storage_of(own) if coded else ""
    computed = own.detach().double() if small else seen.detach() if storage else wide(seen)
    if seen is own and computed.dtype is own.dtype:
        return Looked(own, memory(own), shape, storage=storage)

    def restore() -> None:
        with torch.no_grad():
            own.copy_(computed)

    return Looked(seen, memory(computed), shape, restore, storage)


def _known(looked: Looked) -> Array:
    """The memory of a tensor as checks of arrays know it: NumPy has no bfloat16, so it passes for float16."""
    return looked.memory.view(np.float16) if looked.storage else looked.memory
