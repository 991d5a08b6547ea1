"""Rules in JAX, under its transformations and on any of its devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .library import Array, LibraryTable

__all__ = ["LIBRARY"]


def _powi(x: Array, n: float) -> Array:
    return jax.lax.integer_pow(x, int(n))


def _bfloat16(x: Array) -> Array:
    return jax.lax.reduce_precision(x.astype(jnp.float32), exponent_bits=8, mantissa_bits=7).astype(x.dtype)


def _compute_type(p: Array) -> Any:
    return np.dtype(np.float64 if p.dtype == np.float64 else np.float32)


def _wide_type(p: Array) -> Any:
    return np.dtype(np.float64 if jax.config.jax_enable_x64 else np.float32)


def _number(value: float | bool, dtype: Any, like: Array) -> Array:
    return jnp.asarray(value, dtype)


def _word(value: Any, like: Array) -> Array:
    return value.astype(jnp.uint32) if isinstance(value, jax.Array) else jnp.uint32(int(value))


def _flatten(tree: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    leaves, structure = jax.tree.flatten(tree)
    return leaves, structure.unflatten


# ---- Whole matrices, a stack of them ----


def _power(a: Array, exponent: Any) -> Array:
    values, vectors = jnp.linalg.eigh(a)
    return (vectors * (values**exponent)[:, None, :]) @ vectors.mT


def _orthonormal(a: Array) -> Array:
    q, r = jnp.linalg.qr(a)
    return jnp.where(jnp.diagonal(r, axis1=1, axis2=2)[:, None, :] < 0, -q, q)


def _sorting(v: Array) -> Array:
    values = v.reshape(len(v), -1)
    order = jnp.argsort(-values, axis=1, stable=True)
    return (jnp.arange(values.shape[1])[None, :, None] == order[:, None, :]).astype(v.dtype)


def _diag(v: Array) -> Array:
    values = v.reshape(len(v), 1, -1)
    return jnp.eye(values.shape[2], dtype=v.dtype) * values


LIBRARY = LibraryTable(
    name="jax",
    primitives={
        "neg": jnp.negative,
        "add": jnp.add,
        "sub": jnp.subtract,
        "mul": jnp.multiply,
        "div": jnp.divide,
        "powi": _powi,
        "pow": jnp.power,
        "sqrt": jnp.sqrt,
        "exp": jnp.exp,
        "log": jnp.log,
        "tanh": jnp.tanh,
        "sigmoid": jax.nn.sigmoid,
        "erf": jax.scipy.special.erf,
        "cbrt": jnp.cbrt,
        "sin": jnp.sin,
        "cos": jnp.cos,
        "atan2": jnp.arctan2,
        "abs": jnp.abs,
        "sign": jnp.sign,
        "floor": jnp.floor,
        "bfloat16": _bfloat16,
        "mod": jnp.mod,
        "floordiv": jnp.floor_divide,
        "min": jnp.minimum,
        "max": jnp.maximum,
        "lt": jnp.less,
        "le": jnp.less_equal,
        "gt": jnp.greater,
        "ge": jnp.greater_equal,
        "eq": jnp.equal,
        "ne": jnp.not_equal,
        "and": jnp.logical_and,
        "or": jnp.logical_or,
        "not": jnp.logical_not,
        "where": jnp.where,
    },
    reductions={
        "sum": lambda x, axes: jnp.sum(x, axes, keepdims=True),
        "max": lambda x, axes: jnp.max(x, axes, keepdims=True, initial=-jnp.inf),
        "min": lambda x, axes: jnp.min(x, axes, keepdims=True, initial=jnp.inf),
    },
    products={
        "matmul": lambda a, b: jnp.matmul(a, b, precision="highest"),
        "transpose": lambda a: a.mT,
        "power": _power,
        "eigenvectors": lambda a: jnp.linalg.eigh(a)[1][:, :, ::-1],
        "eigenvalues": lambda a: jnp.linalg.eigvalsh(a)[:, ::-1, None],
        "orthonormal": _orthonormal,
        "leading": lambda a, count: jnp.linalg.svd(a, full_matrices=False)[0][:, :, : int(count)],
        "sorting": _sorting,
        "upper": jnp.triu,
        "inverse": jnp.linalg.inv,
        "diagonal": lambda a: jnp.diagonal(a, axis1=1, axis2=2)[:, :, None],
        "diag": _diag,
        "trace": lambda a: jnp.trace(a, axis1=1, axis2=2)[:, None, None],
    },
    weak=True,
    owns=lambda x: isinstance(x, jax.Array),
    compute_type=_compute_type,
    wide_type=_wide_type,
    cast=lambda x, dtype: x.astype(dtype),
    number=_number,
    beside=lambda x, like: x,
    broadcast=jnp.broadcast_to,
    apart=lambda x: x,
    join=jnp.concatenate,
    identity=lambda n, dtype, like: jnp.eye(n, dtype=dtype),
    indices=lambda n, like: jnp.arange(n, dtype=jnp.uint32),
    word=_word,
    select=jax.lax.cond,
    quietly=nullcontext,
    flatten=_flatten,
)
