"""What tests of trajectories step: difficult parameters and gradients of several shapes, and when two paths are one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
STEPS = 120
TOLERANCE = 1e-12
SHAPES: list[tuple[int, ...]] = [(8,), (5, 7), (), (2, 3, 4), (3,)]


def starts(shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Elements of different scales, zeros among them; a vector of 3 is nothing but zeros, so that its norm is."""
    rng = np.random.default_rng(3)
    pattern = np.array([0.5, -2.0, 10.0, 0.0, 1e-3, -0.25, 7.0, 1.0])
    return [np.zeros(s) if s == (3,) else np.resize(rng.permutation(pattern), s) + 0.0 for s in shapes]


def gradients(shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """For each shape: elements of different scales that change sign, slowly and quickly; some fall silent, and some
    wake up late. For a while a whole tensor is silent. The first gradient of the second tensor begins with 0.5, whose
    square is where Yogi's second moment starts in one case: sign(v - g**2) is 0.
    """
    rng = np.random.default_rng(11)
    scales = np.array([1.0, 1e-3, 40.0, 1.0, 1e-6, 1.0, 3.0, 1.0])
    made = []
    for number, shape in enumerate(shapes):
        size = int(np.prod(shape))
        kind = (np.arange(size) + number) % scales.size
        g = rng.normal(0, 1, (STEPS, size)) * scales[kind]
        g[:, kind == 3] = np.sin(np.arange(STEPS) / 9)[:, None]
        g[:, kind == 5] += 2  # of one sign, mostly
        g[STEPS // 3 :, kind == 6] = 0
        g[: STEPS // 3, kind == 7] = 0
        silent = 10 * number
        g[silent : silent + 5] = 0
        made.append(g.reshape(STEPS, *shape))
    made[-1 if len(made) < 2 else 1][0].flat[0] = 0.5
    return made


def ours(
    opt: Any, p: Sequence[Array], g: Sequence[Array], rates: Sequence[float] = ()
) -> tuple[list[Array], list[dict[str, Array]]]:
    """For each parameter: its values after each step, and those of its states. `rates`: eta in each step."""
    p = [np.array(x) for x in p]
    path: list[list[Array]] = [[] for _ in p]
    states: list[list[dict[str, Any]]] = [[] for _ in p]
    for k, rows in enumerate(zip(*g, strict=True)):
        if rates:
            opt.eta = rates[k]
        opt.step(p, [np.array(row) for row in rows])
        for i, x in enumerate(p):
            path[i].append(x.copy())
            states[i].append({name: np.array(value) for name, value in opt.state(x).items() if name != "t"})
    return (
        [np.array(steps) for steps in path],
        [{name: np.array([step[name] for step in steps]) for name in steps[0]} for steps in states],
    )


def assert_same_path(
    path: Array, expected: Array, start: Array | float, what: str, tolerance: float = TOLERANCE
) -> None:
    """Within 1e-12 of the largest value that each element has had so far, or within another tolerance."""
    path, expected = (x.reshape(STEPS, -1) for x in (path, expected))
    assert path.shape == expected.shape, what
    assert np.isfinite(expected).all(), what
    first = np.broadcast_to(np.ravel(start), (1, expected.shape[1]))
    scale = np.maximum.accumulate(np.abs(np.vstack([first, expected])), axis=0)[1:]
    apart = np.abs(path - expected)
    with np.errstate(invalid="ignore"):
        worst = np.unravel_index(np.argmax(apart - tolerance * scale), apart.shape)
        assert (apart <= tolerance * scale).all(), f"{what}: {apart[worst]:.3g} of {scale[worst]:.3g} at {worst}"
