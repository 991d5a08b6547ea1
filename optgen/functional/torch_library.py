"""Rules in PyTorch, on any of its devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

import torch

from .library import LibraryTable, Shape
from .trees import flatten

__all__ = ["LIBRARY"]

Tensor: TypeAlias = torch.Tensor


def _powi(x: Tensor, n: float) -> Tensor:
    return torch.pow(x, int(n))


def _bfloat16(x: Tensor) -> Tensor:
    return x.to(torch.float32).to(torch.bfloat16).to(x.dtype)


def _cbrt(x: Tensor) -> Tensor:
    near = torch.copysign(torch.pow(torch.abs(x), 1 / 3), x)
    better = near - (near - x / (near * near)) / 3
    return torch.where(torch.isfinite(better), better, near)


def _sign(x: Tensor) -> Tensor:
    return torch.where(torch.isnan(x), x, torch.sign(x))


def _compute_type(p: Tensor) -> Any:
    return torch.float64 if p.dtype == torch.float64 else torch.float32


def _wide_type(p: Tensor) -> Any:
    return torch.float32 if p.device.type == "mps" else torch.float64


def _number(value: float | bool, dtype: Any, like: Tensor) -> Tensor:
    return torch.full((), value, dtype=torch.bool if dtype is bool else dtype, device=like.device)


def _word(value: Any, like: Tensor) -> Tensor:
    if isinstance(value, torch.Tensor):
        return value.to(torch.int64)
    return torch.full((), int(value), dtype=torch.int64, device=like.device)


def _max(x: Tensor, axes: Sequence[int]) -> Tensor:
    return torch.amax(x, axes, keepdim=True) if x.numel() else _empty(x, axes, -torch.inf)


def _min(x: Tensor, axes: Sequence[int]) -> Tensor:
    return torch.amin(x, axes, keepdim=True) if x.numel() else _empty(x, axes, torch.inf)


def _empty(x: Tensor, axes: Sequence[int], value: float) -> Tensor:
    return x.new_full([1 if d in axes else n for d, n in enumerate(x.shape)], value)


def _select(test: Tensor, then: Callable[[], Tensor], other: Callable[[], Tensor]) -> Tensor:
    return torch.where(test, then(), other())


# ---- Whole matrices, a stack of them ----


def _power(a: Tensor, exponent: Any) -> Tensor:
    values, vectors = torch.linalg.eigh(a)
    found: Tensor = (vectors * (values**exponent)[:, None, :]) @ vectors.mT
    return found


def _orthonormal(a: Tensor) -> Tensor:
    q, r = torch.linalg.qr(a)
    return torch.where(r.diagonal(dim1=1, dim2=2)[:, None, :] < 0, -q, q)


def _sorting(v: Tensor) -> Tensor:
    values = v.reshape(len(v), -1)
    order = torch.argsort(values, dim=1, descending=True, stable=True)
    rows = torch.arange(values.shape[1], device=v.device)
    return (rows[None, :, None] == order[:, None, :]).to(v.dtype)


def _broadcast(x: Tensor, shape: Shape) -> Tensor:
    return x.expand(shape)


LIBRARY = LibraryTable(
    name="torch",
    primitives={
        "neg": torch.neg,
        "add": torch.add,
        "sub": torch.sub,
        "mul": torch.mul,
        "div": torch.div,
        "powi": _powi,
        "pow": torch.pow,
        "sqrt": torch.sqrt,
        "exp": torch.exp,
        "log": torch.log,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "erf": torch.erf,
        "cbrt": _cbrt,
        "sin": torch.sin,
        "cos": torch.cos,
        "atan2": torch.atan2,
        "abs": torch.abs,
        "sign": _sign,
        "floor": torch.floor,
        "bfloat16": _bfloat16,
        "mod": torch.remainder,
        "floordiv": lambda a, b: torch.div(a, b, rounding_mode="floor"),
        "min": torch.minimum,
        "max": torch.maximum,
        "lt": lambda a, b: a < b,
        "le": lambda a, b: a <= b,
        "gt": lambda a, b: a > b,
        "ge": lambda a, b: a >= b,
        "eq": lambda a, b: a == b,
        "ne": lambda a, b: a != b,
        "and": torch.logical_and,
        "or": torch.logical_or,
        "not": torch.logical_not,
        "where": torch.where,
    },
    reductions={"sum": lambda x, axes: torch.sum(x, axes, keepdim=True), "max": _max, "min": _min},
    products={
        "matmul": torch.matmul,
        "transpose": lambda a: a.mT,
        "power": _power,
        "eigenvectors": lambda a: torch.linalg.eigh(a).eigenvectors.flip(-1),
        "eigenvalues": lambda a: torch.linalg.eigvalsh(a).flip(-1)[:, :, None],
        "orthonormal": _orthonormal,
        "leading": lambda a, count: torch.linalg.svd(a, full_matrices=False).U[:, :, : int(count)],
        "sorting": _sorting,
        "upper": torch.triu,
        "inverse": lambda a: torch.linalg.inv_ex(a).inverse,
        "diagonal": lambda a: a.diagonal(dim1=1, dim2=2)[:, :, None],
        "diag": lambda v: torch.diag_embed(v.reshape(len(v), -1)),
        "trace": lambda a: a.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None],
    },
    weak=True,
    owns=lambda x: isinstance(x, torch.Tensor),
    compute_type=_compute_type,
    wide_type=_wide_type,
    cast=lambda x, dtype: x.to(dtype),
    number=_number,
    beside=lambda x, like: x.to(like.device),
    broadcast=_broadcast,
    apart=lambda x: x.clone(memory_format=torch.contiguous_format),
    join=torch.cat,
    identity=lambda n, dtype, like: torch.eye(n, dtype=dtype, device=like.device),
    indices=lambda n, like: torch.arange(n, dtype=torch.int64, device=like.device),
    word=_word,
    select=_select,
    quietly=nullcontext,
    flatten=flatten,
)
