"""Rules in NumPy, as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..interpreter import NUMPY
from ..interpreter.products import MATRICES
from ..ir.primitives import OPS
from .library import Array, LibraryTable
from .trees import flatten

__all__ = ["LIBRARY"]


def _compute_type(p: Array) -> Any:
    return np.dtype(np.float64 if p.dtype == np.float64 else np.float32)


def _select(test: Array, then: Callable[[], Array], other: Callable[[], Array]) -> Array:
    return then() if test else other()


LIBRARY = LibraryTable(
    name="numpy",
    primitives={name: NUMPY[name] for name in OPS},
    reductions={
        "sum": lambda x, axes: np.sum(x, axes, keepdims=True),
        "max": lambda x, axes: np.max(x, axes, keepdims=True, initial=-np.inf),
        "min": lambda x, axes: np.min(x, axes, keepdims=True, initial=np.inf),
    },
    products=MATRICES,
    weak=False,
    owns=lambda x: isinstance(x, np.ndarray | np.generic),
    compute_type=_compute_type,
    wide_type=lambda p: np.dtype(np.float64),
    cast=lambda x, dtype: x.astype(dtype, copy=False),
    number=lambda value, dtype, like: np.asarray(value, dtype),
    beside=lambda x, like: x,
    broadcast=np.broadcast_to,
    apart=np.array,
    join=np.concatenate,
    identity=lambda n, dtype, like: np.eye(n, dtype=dtype),
    indices=lambda n, like: np.arange(n, dtype=np.uint64),
    word=lambda value, like: np.asarray(value).astype(np.uint64),
    select=_select,
    quietly=lambda: np.errstate(all="ignore"),
    flatten=flatten,
)
