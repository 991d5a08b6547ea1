"""Rules that take more than gradients, in float64 against the papers, each written out here in another form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from papers_by_hand import Array, assert_same_path, gradients, start

import optgen

STEPS = 100
SHAPES: list[tuple[int, ...]] = [(8,), (5, 7), (), (2, 3, 4)]

#: A path of the parameters by a paper: gradients, Hessians and losses of all steps, then where the parameters start.
Paper = Callable[[list[Array], list[Array], Array, list[Array]], list[list[Array]]]


def hessians() -> list[Array]:
    """Of mixed signs, as Hutchinson's estimates are; some stay near zero."""
    made = [gradients(STEPS, shape, seed=23 + i) for i, shape in enumerate(SHAPES)]
    for h in made:
        h[3::7] = 0.0
    return made


def losses() -> Array:
    """A loss that falls, with noise, and comes below one half."""
    return 4 * np.exp(-np.arange(STEPS) / 30) + 0.1 * np.sin(np.arange(STEPS)) + 0.2


def norm_squared(gs: list[Array], t: int) -> float:
    return float(sum(np.vdot(g[t], g[t]) for g in gs))


def sophia(
    eta: float = 1e-4,
    beta: tuple[float, float] = (0.96, 0.99),
    gamma: float = 0.01,
    eps: float = 1e-12,
    decay: float = 0.0,
    k: int = 10,
) -> Paper:
    """Algorithm 3, the decay first, and the moments as sums over all steps before."""

    def walk(gs: list[Array], hs: list[Array], losses: Array, ps: list[Array]) -> list[list[Array]]:
        paths = []
        for g, h, theta in zip(gs, hs, ps, strict=True):
            path = []
            for t in range(STEPS):
                m = sum((1 - beta[0]) * beta[0] ** (t - i) * g[i] for i in range(t + 1))
                seen = range(0, t + 1, k)
                curvature = sum((1 - beta[1]) * beta[1] ** (len(seen) - 1 - n) * h[i] for n, i in enumerate(seen))
                theta = theta - eta * decay * theta
                theta = theta - eta * np.minimum(np.maximum(m / np.maximum(gamma * curvature, eps), -1), 1)
                path.append(theta)
            paths.append(path)
        return paths

    return walk


def adahessian(
    eta: float = 0.15,
    beta: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-4,
    decay: float = 0.0,
    power: float = 1.0,
) -> Paper:
    """Algorithm 1 without averages over blocks, in the form of the paper's equation 9: weighted means of all steps."""

    def walk(gs: list[Array], hs: list[Array], losses: Array, ps: list[Array]) -> list[list[Array]]:
        paths = []
        for g, h, theta in zip(gs, hs, ps, strict=True):
            path = []
            for t in range(STEPS):
                weights = [[(1 - b) * b ** (t - i) / (1 - b ** (t + 1)) for i in range(t + 1)] for b in beta]
                m = np.tensordot(weights[0], g[: t + 1], 1)
                v = np.sqrt(np.tensordot(weights[1], h[: t + 1] * h[: t + 1], 1))
                theta = theta - eta * (m / (v**power + eps)) - eta * decay * theta
                path.append(theta)
            paths.append(path)
        return paths

    return walk


def alig(eta: float = 0.1, rho: float = 0.0, eps: float = 1e-5) -> Paper:
    """Algorithm 2: the velocity moves first, and the parameter by it and by the gradient once more."""

    def walk(gs: list[Array], hs: list[Array], losses: Array, ps: list[Array]) -> list[list[Array]]:
        w, v = list(ps), [np.zeros_like(p) for p in ps]
        paths: list[list[Array]] = [[] for _ in ps]
        for t in range(STEPS):
            gamma = min(losses[t] / (norm_squared(gs, t) + eps), eta)
            for i, g in enumerate(gs):
                v[i] = rho * v[i] - gamma * g[t]
                w[i] = w[i] + rho * v[i] - gamma * g[t]
                paths[i].append(w[i])
        return paths

    return walk


def polyak(eta: float = 1.0, bound: float = 1.0, target: float = 0.0, eps: float = 0.0, *, plus: bool = False) -> Paper:
    """Equation 3, the bounded step."""

    def walk(gs: list[Array], hs: list[Array], losses: Array, ps: list[Array]) -> list[list[Array]]:
        x: list[Array] = list(ps)
        paths: list[list[Array]] = [[] for _ in ps]
        for t in range(STEPS):
            gap = losses[t] - target
            if plus and gap < 0:
                gap = 0.0
            gamma = eta * min(gap / (norm_squared(gs, t) + eps), bound)
            for i, g in enumerate(gs):
                x[i] = x[i] - gamma * g[t]
                paths[i].append(x[i])
        return paths

    return walk


PAPERS: dict[str, Callable[..., Paper]] = {
    "Sophia": sophia,
    "AdaHessian": adahessian,
    "ALIG": alig,
    "PolyakSGD": polyak,
}
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in PAPERS),
    ("Sophia", {"eta": 0.1, "beta": (0.5, 0.75), "gamma": 2.0, "eps": 1e-3, "decay": 0.25, "k": 1}),
    ("Sophia", {"eta": 0.01, "gamma": 5.0, "eps": 0.5, "k": 3}),
    ("AdaHessian", {"eta": 0.01, "beta": (0.5, 0.75), "eps": 0.1, "decay": 0.125, "power": 0.5}),
    ("AdaHessian", {"power": 0.0}),
    ("ALIG", {"eta": 0.002, "rho": 0.9}),
    ("ALIG", {"eta": 1.0, "rho": 0.5, "eps": 10.0}),
    ("PolyakSGD", {"eta": 0.5, "bound": 0.002, "eps": 1.0}),
    ("PolyakSGD", {"target": 0.5}),
    ("PolyakSGD", {"target": 0.5, "plus": True}),
]


def titled(case: tuple[str, dict[str, Any]]) -> str:
    return ", ".join([case[0], *(f"{name}={value}" for name, value in case[1].items())])


@pytest.mark.parametrize("case", CASES, ids=titled)
def test_the_interpreter_follows_the_paper(case: tuple[str, dict[str, Any]]) -> None:
    name, given = case
    paper = PAPERS[name](**given)
    opt = getattr(optgen, name)(**given, backend="interpreter")
    gs, hs, ls = [gradients(STEPS, shape, seed=5) for shape in SHAPES], hessians(), losses()
    ps = [start(shape) for shape in SHAPES]
    first = [p.copy() for p in ps]
    paths: list[list[Array]] = [[] for _ in ps]
    known = {"hessian": hs, "loss": ls}
    for t in range(STEPS):
        inputs = {
            each.name: [np.array(h[t]) for h in hs] if each.name == "hessian" else known[each.name][t]
            for each in opt.rule.inputs
        }
        opt.step(ps, [np.array(g[t]) for g in gs], **inputs)
        for path, p in zip(paths, ps, strict=True):
            path.append(p.copy())
    for path, expected, p in zip(paths, paper(gs, hs, ls, first), first, strict=True):
        assert_same_path(path, expected, p)
        assert (np.abs(np.diff(expected, axis=0)).max(axis=0) > 0).all()


def test_a_step_up_is_left_out_only_where_asked_for() -> None:
    """Below its target the loss would rise by the plain rule, which the paper's assumption excludes."""
    p, q = np.ones(2), np.ones(2)
    optgen.PolyakSGD(target=1, backend="interpreter").step([p], [np.ones(2)], loss=0.5)
    optgen.PolyakSGD(target=1, plus=True, backend="interpreter").step([q], [np.ones(2)], loss=0.5)
    assert (p == 1.25).all()
    assert (q == 1).all()


@pytest.mark.parametrize("name", ["PolyakSGD", "ALIG"])
def test_gradients_of_zeros_are_no_step(name: str) -> None:
    p = np.ones(3)
    getattr(optgen, name)(backend="interpreter").step([p], [np.zeros(3)], loss=2.0)
    assert (p == 1).all()
