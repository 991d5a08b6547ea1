"""Turns: how parameters step that share memory with each other, one after the other as in PyTorch's loop.

In: parameters and gradients, some of which overlap. Out: which of them step together, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..runtime.arrays import Array
from ..runtime.overlaps import first_overlap
from .tensors import has_memory, local

__all__ = ["Turn", "turns"]


@dataclass(frozen=True)
class Turn:
    """Parameters that step together.

    Attributes
    ----------
    places
        Where they stand in the list.
    inside
        Those of them that have their gradient in their own memory.
    """

    places: Sequence[int]
    inside: Sequence[int]


def turns(params: Sequence[torch.Tensor], grads: Sequence[torch.Tensor | None]) -> list[Turn]:
    """Those of a list that have a gradient, in turns. In a turn no parameter shares memory with another one, or with
    the gradient of another one; a turn ends before the first that does."""
    given = [(i, p, g) for i, (p, g) in enumerate(zip(params, grads, strict=True)) if g is not None]
    places = [i for i, _, _ in given]
    ps, gs = [_memory(p) for _, p, _ in given], [_memory(g) for _, _, g in given]
    inside = [first_overlap([p, g], 1) is not None for p, g in zip(ps, gs, strict=True)]
    gs = [_NOTHING if own else g for own, g in zip(inside, gs, strict=True)]
    found, begin = [], 0
    while begin < len(places):
        end = len(places)
        while (pair := first_overlap([*ps[begin:end], *gs[begin:end]], end - begin)) is not None:
            end = begin + max(number % (end - begin) for number in pair)
        found.append(Turn(places[begin:end], [places[i] for i in range(begin, end) if inside[i]]))
        begin = end
    return found


_NOTHING: Array = np.empty(0, np.uint8)


def _memory(x: torch.Tensor) -> Array:
    """An array over the memory of a tensor of any dtype; empty where there is none to see."""
    x = local(x)
    if x.layout is not torch.strided or x.device.type != "cpu" or not has_memory(x):
        return _NOTHING
    size = x.element_size()
    strides = [stride * size for stride in x.stride()]
    seen = torch.empty(0, dtype=torch.uint8, device="cpu")
    seen.set_(x.untyped_storage(), x.storage_offset() * size, (*x.shape, size), (*strides, 1))
    array: Array = seen.numpy().view(f"V{size}")[..., 0]
    return array
