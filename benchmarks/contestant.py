"""What is timed: parameters that take gradients and steps, in any library.

In: arrays, to a peer's `make`. Out: a `Contestant`, whose parameters can be read; so all of them can be shown to take
the same steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Array", "Contestant", "copy_all"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Contestant:
    """An optimiser with parameters of its own.

    Attributes
    ----------
    step
        Take a step.
    take
        Copy the gradients of all further steps.
    params
        The parameters as they are now.
    """

    step: Callable[[], object]
    take: Callable[[Sequence[Array]], None]
    params: Callable[[], list[Array]]


def copy_all(source: Sequence[Array], target: Sequence[Array]) -> None:
    for a, b in zip(source, target, strict=True):
        np.copyto(b, a)
