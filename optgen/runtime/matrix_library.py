"""Products and functions of whole matrices: the protocol of who computes them, and NumPy's row.

In: arrays of three dimensions, a matrix in each `[i]`, of one compute type. Out: the same, in an array that is given.

A function of a matrix that has other values than finite ones gives NaN, as the interpreter's does. Which call of a
library is taken depends on type, shape and processor only, so that a run can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ..interpreter.products import MATRICES
from ..lowering.program import Multiplication
from .arrays import Array

__all__ = ["PANELS", "MatrixLibrary", "NumPyMatrices", "by_panels"]

#: Into how many panels of rows a symmetric product is cut, and the least rows that it has then.
PANELS, LEAST_ROWS = 4, 256


class MatrixLibrary(Protocol):
    """Who computes products and functions of whole matrices.

    Attributes
    ----------
    fuses
        Whether it computes `b*C + a*(A @ B)` in one call, and products of bfloat16, whose arrays are uint16 here.
    """

    @property
    def fuses(self) -> bool: ...

    def compute(self, step: Multiplication, args: Sequence[Any], out: Array) -> None:
        """Write the result of a step to `out`, which shares no memory with these matrices; the others are numbers."""


class NumPyMatrices:
    """NumPy's own products and decompositions."""

    fuses = False

    def compute(self, step: Multiplication, args: Sequence[Any], out: Array) -> None:
        with np.errstate(all="ignore"):
            if step.op == "identity":
                out[...] = np.eye(out.shape[-1], dtype=out.dtype)
            elif step.op != "matmul":
                out[...] = MATRICES[step.op](*args)
            elif step.symmetric and out.shape[-1] >= LEAST_ROWS and not _is_square_of(*args):
                by_panels(out, lambda rows, columns, into: np.matmul(args[0][:, rows], args[1][:, :, columns], out=into))
            else:
                np.matmul(*args, out=out)


def _is_square_of(a: Array, b: Array) -> bool:
    """Whether a product is that of a matrix and its own transpose, half of which NumPy computes by itself."""
    return a.ctypes.data == b.ctypes.data and a.strides == b.mT.strides and a.shape == b.mT.shape


def by_panels(out: Any, multiply: Any) -> None:
    """Write a symmetric product to `out`: the lower triangle in panels of rows, by `multiply` of a range of rows and
    of columns into a part of `out`; the rest is its mirror image."""
    n = out.shape[-1]
    ends = [n * k // PANELS for k in range(PANELS + 1)]
    for begin, end in zip(ends, ends[1:], strict=False):
        multiply(slice(begin, end), slice(0, end), out[:, begin:end, :end])
        if begin:
            out[:, :begin, begin:end] = out[:, begin:end, :begin].swapaxes(-1, -2)
