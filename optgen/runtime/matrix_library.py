"""Products and functions of whole matrices: the protocol of who computes them, and NumPy's row.

In: arrays of three dimensions, a matrix in each `[i]`, of one compute type. Out: the same, in an array that is given.

A function of a matrix that has other values than finite ones gives NaN, as the interpreter's does. Which call of a
library is taken depends on type, shape and processor only, so that a run can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ..interpreter.products import MATRICES
from .arrays import Array

__all__ = ["MatrixLibrary", "NumPyMatrices"]


class MatrixLibrary(Protocol):
    """Who computes products and functions of whole matrices."""

    def compute(self, op: str, args: Sequence[Any], out: Array) -> None:
        """Write `op` of these matrices and numbers to `out`, which shares no memory with them."""


class NumPyMatrices:
    """NumPy's own products and decompositions."""

    def compute(self, op: str, args: Sequence[Any], out: Array) -> None:
        with np.errstate(all="ignore"):
            if op == "matmul":
                np.matmul(*args, out=out)
            elif op == "identity":
                out[...] = np.eye(out.shape[-1], dtype=out.dtype)
            else:
                out[...] = _FUNCTIONS[op](*args)


_FUNCTIONS: dict[str, Callable[..., Array]] = MATRICES
