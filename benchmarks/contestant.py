"""What is timed: parameters that take gradients and steps, in whatever library.

Its parameters can be read, so that the steps that are timed are known to be the same.
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
    """`take` gives the gradients of the steps from now on, which it copies; `params` is what the parameters are now."""

    step: Callable[[], object]
    take: Callable[[Sequence[Array]], None]
    params: Callable[[], list[Array]]


def copy_all(source: Sequence[Array], target: Sequence[Array]) -> None:
    for a, b in zip(source, target, strict=True):
        np.copyto(b, a)
