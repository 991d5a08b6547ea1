"""Products and functions of whole matrices: the protocol of who computes them, and NumPy's row.

In: arrays of three dimensions, a matrix in each `[i]`, of one compute type. Out: the same, in an array that is given.

A function of a matrix that has other values than finite ones gives NaN, as the interpreter's does. Which call of a
library is taken depends on type, shape and processor only, so that a run can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from ..interpreter.products import MATRICES
from ..lowering.program import Multiplication
from .addresses import address_of
from .arrays import Array

__all__ = ["LEAST_ROWS", "MatrixLibrary", "Multiplication", "NumPyMatrices", "by_panels"]

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
            if step.op == "matmul":
                a, b = args
                _multiply(a, b, out, symmetric=step.symmetric)
            elif step.op == "identity":
                out[...] = np.eye(out.shape[-1], dtype=out.dtype)
            else:
                out[...] = MATRICES[step.op](*args)


def _multiply(a: Array, b: Array, out: Array, *, symmetric: bool) -> None:
    if not symmetric or out.shape[-1] < LEAST_ROWS or _is_square_of(a, b):
        np.matmul(a, b, out=out)
        return

    def panel(rows: slice, columns: slice, into: Array) -> None:
        np.matmul(a[:, rows], b[:, :, columns], out=into)

    by_panels(out, panel)


def _is_square_of(a: Array, b: Array) -> bool:
    """Whether a product is that of a matrix and its own transpose, half of which NumPy computes by itself."""
    return address_of(a) == address_of(b) and a.strides == b.mT.strides and a.shape == b.mT.shape


def by_panels(out: Any, multiply: Callable[[slice, slice, Any], None]) -> None:
    """Write a symmetric product to `out`: the lower triangle in panels of rows, by `multiply` of a range of rows and
    of columns into a part of `out`; the rest is its mirror image."""
    n = out.shape[-1]
    ends = [n * k // PANELS for k in range(PANELS + 1)]
    for begin, end in pairwise(ends):
        multiply(slice(begin, end), slice(0, end), out[:, begin:end, :end])
        if begin:
            out[:, :begin, begin:end] = out[:, begin:end, :begin].swapaxes(-1, -2)
