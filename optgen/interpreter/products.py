"""Products and functions of whole matrices, by NumPy.

In: arrays of three dimensions, a matrix in each `[i]`, of one dtype. Out: such an array.

IEEE 754 says nothing of how the sums of a product are ordered, so no two libraries have the same bits here. A function
that needs finite values gives NaN for a matrix that has others, and where it does not converge.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

__all__ = ["MATRICES"]

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"


def _of_finite(function: Callable[..., Array]) -> Callable[..., Array]:
    """The function of the matrices that are finite, where it converges; what it gives for the others is NaN."""

    def of(a: Array, *more: Any) -> Array:
        finite = np.all(np.isfinite(a), axis=(1, 2), keepdims=True)
        try:
            found: Array = np.where(finite, function(np.where(finite, a, 0), *more), np.nan).astype(a.dtype)
        except np.linalg.LinAlgError:  # one of them did not converge: which, is not said
            if len(a) > 1:
                return np.concatenate([of(each[None], *more) for each in a])
            return of(np.full_like(a, np.nan), *more)
        return found

    return of


def _transpose(a: Array) -> Array:
    return a.swapaxes(1, 2)


def _eigenvalues(a: Array) -> Array:
    return np.linalg.eigvalsh(a)[:, ::-1, None]


def _eigenvectors(a: Array) -> Array:
    return np.linalg.eigh(a)[1][:, :, ::-1]


def _power(a: Array, exponent: float) -> Array:
    values, vectors = np.linalg.eigh(a)
    result: Array = vectors * (values**exponent)[:, None, :] @ _transpose(vectors)
    return result


def _orthonormal(a: Array) -> Array:
    q, r = np.linalg.qr(a)
    diagonal = np.diagonal(r, axis1=1, axis2=2)[:, None, :]
    result: Array = q * np.where(diagonal < 0, -1, 1).astype(a.dtype)
    return result


def _leading(a: Array, count: float) -> Array:
    return np.linalg.svd(a, full_matrices=False)[0][:, :, : int(count)]


def _inverse(a: Array) -> Array:
    inverse = np.full_like(a, np.nan)
    for i, each in enumerate(a):
        with suppress(np.linalg.LinAlgError):  # a singular one has none
            inverse[i] = np.linalg.inv(each)
    return inverse


def _sorting(v: Array) -> Array:
    values = v.reshape(len(v), -1)
    order = np.argsort(-values, axis=1, kind="stable")
    result: Array = (np.arange(values.shape[1])[None, :, None] == order[:, None, :]).astype(v.dtype)
    return result


def _diag(v: Array) -> Array:
    values = v.reshape(len(v), 1, -1)
    return np.where(np.eye(values.shape[2], dtype=bool), values, v.dtype.type(0))


MATRICES: dict[str, Callable[..., Array]] = {
    "matmul": np.matmul,
    "transpose": _transpose,
    "power": _of_finite(_power),
    "eigenvectors": _of_finite(_eigenvectors),
    "eigenvalues": _of_finite(_eigenvalues),
    "orthonormal": _of_finite(_orthonormal),
    "leading": _of_finite(_leading),
    "sorting": _sorting,
    "upper": np.triu,
    "inverse": _of_finite(_inverse),
    "diagonal": lambda a: np.diagonal(a, axis1=1, axis2=2)[:, :, None],
    "diag": _diag,
    "trace": lambda a: np.trace(a, axis1=1, axis2=2)[:, None, None],
}
