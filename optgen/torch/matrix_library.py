"""PyTorch's products and functions of whole matrices, on its own threads.

In: arrays of three dimensions, a matrix in each `[i]`. Out: the same, in an array that is given.

Which of its products is taken is a fixed rule:

- of small matrices, `bmm` and `baddbmm`, be there one or several, so that the bits of each do not depend on the others;
- of float32 on processors of AMD, oneDNN's, since MKL has no code for their wide vectors; if this PyTorch has it, and
  it gives what `mm` does;
- else `mm` and `addmm`.

Of a product that is known to be symmetric, half is computed, in panels of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from ..interpreter.products import MATRICES
from ..runtime.arrays import Array
from ..runtime.matrix_library import LEAST_ROWS, Multiplication, by_panels

__all__ = ["TorchMatrices"]

Tensor: TypeAlias = torch.Tensor
#: Matrices of fewer bytes are small.
SMALL = 1 << 17


class TorchMatrices:
    """PyTorch as a matrix library."""

    fuses = True

    def compute(self, step: Multiplication, args: Sequence[Any], out: Array) -> None:
        given = [_tensor(x) if isinstance(x, np.ndarray) else x for x in args]
        result = _tensor(out)
        with torch.no_grad():
            match step.op:
                case "matmul" | "multiply":
                    a, b, *more = given
                    _multiply(result, a, b, *(more or [1.0]), symmetric=step.symmetric)
                case "convert":
                    result.copy_(given[0])
                case "identity":
                    result.copy_(torch.eye(result.shape[-1], dtype=result.dtype))
                case op if op in _FUNCTIONS:
                    result.copy_(_of_finite(_FUNCTIONS[op], *given))
                case op:
                    out[...] = MATRICES[op](*args)


def _tensor(x: Array) -> Tensor:
    """The same memory as a tensor; 16 bits are a bfloat16."""
    found = torch.from_numpy(x)
    return found.view(torch.bfloat16) if x.dtype == np.uint16 else found


# ---- Products ----


def _multiply(
    out: Tensor, a: Tensor, b: Tensor, factor: float, c: Tensor | None = None, other: float = 0.0, *, symmetric: bool
) -> None:
    """Write `factor*(a @ b) + other*c` to `out`."""
    if max([x.shape[1] * x.shape[2] * x.element_size() for x in (out, a, b)]) < SMALL:
        if c is None and factor == 1:
            torch.bmm(a, b, out=out)
        else:
            torch.baddbmm(out if c is None else c, a, b, beta=other, alpha=factor, out=out)
        return
    for i in range(len(out)):
        one = slice(i, i + 1)
        _multiply_one(out[one], a[one], b[one], factor, None if c is None else c[one], other, symmetric=symmetric)


def _multiply_one(
    out: Tensor, a: Tensor, b: Tensor, factor: float, c: Tensor | None, other: float, *, symmetric: bool
) -> None:
    """The same of a single matrix."""
    one = _by_onednn if out.dtype is torch.float32 and _has_onednn() else _by_mm
    if not (symmetric and out.shape[-1] >= LEAST_ROWS):
        one(out[0], a[0], b[0], factor, None if c is None else c[0], other)
        return
    if one is _by_onednn:  # it is slow with slices of transposes
        same = a.data_ptr() == b.data_ptr() and a.stride() == b.mT.stride()
        a = a.contiguous()
        b = a.mT if same else b.mT.contiguous().mT

    def panel(rows: slice, columns: slice, into: Tensor) -> None:
        one(into[0], a[0, rows], b[0, :, columns], factor, None if c is None else c[0, rows, columns], other)

    by_panels(out, panel)


def _by_mm(out: Tensor, a: Tensor, b: Tensor, factor: float, c: Tensor | None, other: float) -> None:
    if c is None and factor == 1:
        torch.mm(a, b, out=out)
    else:
        torch.addmm(out if c is None else c, a, b, beta=other, alpha=factor, out=out)


def _by_onednn(out: Tensor, a: Tensor, b: Tensor, factor: float, c: Tensor | None, other: float) -> None:
    found = _onednn(a.contiguous(), b.mT)
    if c is None:
        torch.mul(found, factor, out=out)
    elif factor == 1:
        torch.add(found, c, alpha=other, out=out)
    else:
        torch.add(found.mul_(factor), c, alpha=other, out=out)


def _onednn(x: Tensor, w: Tensor) -> Tensor:
    """`x @ w.T`."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")
    return found


@cache
def _has_onednn() -> bool:
    """Whether products of float32 are oneDNN's here. It is no public interface, so it is tried first."""
    if not (_is_amd() and torch.backends.mkldnn.is_available()):
        return False
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(n, 96, generator=generator) for n in (80, 72))
    try:
        found = _onednn(x, w)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    return bool(((found - x @ w.mT).abs() <= 1e-5 * (x.abs() @ w.abs().mT)).all())


@cache
def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return False


# ---- Functions ----


def _of_finite(function: Callable[..., Tensor], a: Tensor, *more: Any) -> Tensor:
    """The function of the matrices that are finite; what it gives for the others is NaN."""
    finite = torch.isfinite(a).all(-1).all(-1)
    whole = bool(finite.all())
    try:
        found = function(a if whole else torch.where(finite[:, None, None], a, 0), *more)
    except torch.linalg.LinAlgError:  # one of them did not converge: which, is not said
        if len(a) > 1:
            return torch.cat([_of_finite(function, each[None], *more) for each in a])
        found = function(torch.zeros_like(a), *more) * torch.nan
    return found if whole else torch.where(finite[:, None, None], found, torch.nan)


def _eigenvectors(a: Tensor) -> Tensor:
    return torch.linalg.eigh(a).eigenvectors.flip(-1)


def _eigenvalues(a: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(a).flip(-1)[:, :, None]


def _power(a: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(a)
    result: Tensor = (vectors * (values**exponent)[:, None, :]) @ vectors.mT
    return result


def _orthonormal(a: Tensor) -> Tensor:
    q, r = torch.linalg.qr(a)
    diagonal = r.diagonal(dim1=1, dim2=2)[:, None, :]
    return torch.where(diagonal < 0, -q, q)


def _leading(a: Tensor, count: float) -> Tensor:
    return torch.linalg.svd(a, full_matrices=False).U[:, :, : int(count)]


def _inverse(a: Tensor) -> Tensor:
    inverse, info = torch.linalg.inv_ex(a)
    return torch.where((info != 0)[:, None, None], torch.nan, inverse)  # a singular one has none


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "eigenvectors": _eigenvectors,
    "eigenvalues": _eigenvalues,
    "power": _power,
    "orthonormal": _orthonormal,
    "leading": _leading,
    "inverse": _inverse,
}
