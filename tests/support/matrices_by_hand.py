"""Rules with products of matrices by hand, in NumPy and float64, each in another form than its spec.

What a Newton-Schulz iteration does, it does to the singular values: here these are found, and a polynomial is applied
to them. Powers of matrices are taken by singular values too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
#: A path of the parameter: gradients, in order, and where it starts.
Paper = Callable[[Sequence[Array], Array], Iterator[Array]]
JORDAN = (3.4445, -4.7750, 2.0315)


def orthogonalised(a: Array, steps: int = 5, *, added: float = 0.0, least: float = 0.0) -> Array:
    """A matrix with its singular values s, as shares of their norm, replaced by those of the iterated polynomial."""
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    s = s / max(np.sqrt((s * s).sum()) + added, least)
    for _ in range(steps):
        s = s * np.polynomial.Polynomial(JORDAN)(s * s)
    product: Array = (u * s) @ vt
    return product


def power(a: Array, exponent: float) -> Array:
    u, s, _ = np.linalg.svd(a)
    product: Array = (u * s**exponent) @ u.T
    return product


def as_matrix(g: Array) -> Array:
    return g.reshape(len(g), -1)


def adamuon(
    eta: float = 0.02,
    momentum: float = 0.95,
    decay: float = 0.0,
    eps: float = 1e-8,
    steps: int = 5,
    *,
    nesterov: bool = True,
) -> Paper:
    """The authors' code since August 2025, with the momentum as a sum over all steps."""

    def walk(gs: Sequence[Array], p: Array) -> Iterator[Array]:
        v = np.zeros_like(as_matrix(p))
        for t in range(len(gs)):
            m = sum(momentum ** (t - i) * gs[i] for i in range(t + 1))
            ahead = gs[t] + momentum * m if nesterov else m
            o = orthogonalised(as_matrix(np.sign(ahead)), steps, added=1e-7)
            v = momentum * v + (1 - momentum) * o * o
            o = o / (np.sqrt(v) + eps)
            o = o * (0.2 * np.sqrt(o.size) / (np.linalg.norm(o) + eps))
            p = (1 - eta * decay) * p - eta * o.reshape(p.shape)
            yield p

    return walk


def adago(
    eta: float = 0.05,
    momentum: float = 0.95,
    gamma: float = 10.0,
    start: float = 1e-6,
    eps: float = 5e-4,
    decay: float = 0.0,
    steps: int = 5,
    *,
    nesterov: bool = False,
    match_rms: bool = False,
) -> Paper:
    """Algorithm 1, with the decay and the shapes of the collection."""

    def walk(gs: Sequence[Array], p: Array) -> Iterator[Array]:
        m, total = np.zeros_like(p), start
        rows, columns = as_matrix(p).shape
        for g in gs:
            m = momentum * m + (1 - momentum) * g
            clipped = min(float(np.sqrt((g * g).sum())), gamma)
            total += clipped**2
            o = orthogonalised(as_matrix(momentum * m + (1 - momentum) * g if nesterov else m), steps, least=1e-7)
            length = 0.2 * max(rows, columns) ** 0.5 if match_rms else max(1.0, rows / columns) ** 0.5
            p = (1 - eta * decay) * p - max(eps, eta * length * clipped / total**0.5) * o.reshape(p.shape)
            yield p

    return walk


def shampoo(eta: float = 0.1, eps: float = 1e-6, every: int = 1) -> Paper:
    """Algorithm 1, the sums over all steps anew, and the first roots at once."""

    def walk(gs: Sequence[Array], p: Array) -> Iterator[Array]:
        rows, columns = as_matrix(p).shape
        for t, g in enumerate(map(as_matrix, gs), 1):
            if t == 1 or t % every == 0:
                seen = list(map(as_matrix, gs[:t]))
                left = power(eps * np.eye(rows) + sum(x @ x.T for x in seen), -0.25)
                right = power(eps * np.eye(columns) + sum(x.T @ x for x in seen), -0.25)
            p = p - eta * (left @ g @ right).reshape(p.shape)
            yield p

    return walk


def apollo(
    draws: Iterator[Array],
    eta: float = 0.01,
    beta: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    scale: float = 1.0,
    every: int = 200,
    decay: float = 0.0,
    growth: float = 1.01,
    *,
    rank: int,
    corrected: bool = True,
    by_matrix: bool = False,
) -> Paper:
    """Algorithm 1 with the limiter of norms, in the authors' orientation: `draws` are the projections' numbers."""

    def walk(gs: Sequence[Array], p: Array) -> Iterator[Array]:
        right = p.shape[0] >= p.shape[1]
        last = None
        for t, g in enumerate(gs):
            if t % every == 0:
                projection = next(draws) / np.sqrt(rank)
            low = g @ projection if right else projection.T @ g
            if t == 0:
                m, v = np.zeros_like(low), np.zeros_like(low)
            m, v = beta[0] * m + (1 - beta[0]) * low, beta[1] * v + (1 - beta[1]) * low * low
            rate = eta * np.sqrt(1 - beta[1] ** (t + 1)) / (1 - beta[0] ** (t + 1)) if corrected else eta
            d = m / (np.sqrt(v) + eps)
            over = None if by_matrix else 1 if right else 0
            scaled = g * (
                np.linalg.norm(d, axis=over, keepdims=True) / (np.linalg.norm(low, axis=over, keepdims=True) + 1e-8)
            )
            norm = np.linalg.norm(scaled)
            if last is not None and norm / (last + 1e-8) > growth:
                scaled = scaled * (growth * (last + 1e-8) / norm)
            last = np.linalg.norm(scaled)
            p = p - rate * np.sqrt(scale) * scaled
            p = p - eta * decay * p
            yield p

    return walk


def dion(
    draws: Iterator[Array],
    eta: float = 0.01,
    mu: float = 0.95,
    decay: float = 0.01,
    eps: float = 1e-8,
    *,
    rank: int,
) -> Paper:
    """Algorithm 1, with a basis by Gram and Schmidt, twice; `draws`: the first right factor."""

    def walk(gs: Sequence[Array], p: Array) -> Iterator[Array]:
        m, q = np.zeros_like(p), next(draws)
        for g in gs:
            b = m + g
            basis = np.zeros((len(p), 0))
            for column in (b @ q).T:
                for _ in range(2):
                    column = column - basis @ (basis.T @ column)
                basis = np.column_stack([basis, column / np.linalg.norm(column)])
            r = b.T @ basis
            m = b - (1 - mu) * basis @ r.T
            q = r / (np.linalg.norm(r, axis=0) + eps)
            p = (1 - eta * decay) * p - eta * np.sqrt(p.shape[0] / p.shape[1]) * basis @ q.T
            yield p

    return walk
