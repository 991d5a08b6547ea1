"""Rules of blocks against the paper, written out, and the collection's class for the parameters that it names."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from trajectories import SHAPES, STEPS, Array, assert_same_path, gradients, ours, starts

import optgen

TOLERANCE = 1e-12
GIVEN: dict[str, Any] = {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3, "decay": 0.25}


def by_hand(
    gradients: Array, p: Array, width: int, eta: float, beta: tuple[float, float], eps: float, decay: float
) -> Iterator[tuple[list[float], list[float]]]:
    """Zhang et al., Algorithm 1, element by element: after each step the parameter, and the second moments."""
    x, size = [float(value) for value in np.ravel(p)], p.size
    m, v = [0.0] * size, [0.0] * math.ceil(size / width)
    for t, g in enumerate((np.ravel(row).tolist() for row in gradients), 1):
        blocks = [range(i, min(i + width, size)) for i in range(0, size, width)]
        for b, block in enumerate(blocks):
            v[b] += (1 - beta[1]) * (math.fsum(g[i] * g[i] for i in block) / len(block) - v[b])
            for i in block:
                m[i] += (1 - beta[0]) * (g[i] - m[i])
                x[i] -= eta * decay * x[i]
                x[i] -= eta / (1 - beta[0] ** t) * m[i] / (math.sqrt(v[b]) / math.sqrt(1 - beta[1] ** t) + eps)
        yield x.copy(), v.copy()


def of_one_output(shape: tuple[int, ...]) -> int:
    return math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape)


@pytest.mark.parametrize("width", [0, 1, 3, 4, 10**9])
def test_adam_mini_follows_the_paper(width: float) -> None:
    p, g = starts(SHAPES), gradients(SHAPES)
    path, states = ours(optgen.AdamMini(**GIVEN, width=width, backend="interpreter"), p, g)
    for i, shape in enumerate(SHAPES):
        own = of_one_output(shape) if width == 0 else int(min(width, p[i].size))
        expected = list(by_hand(g[i], p[i], own, **GIVEN))
        assert_same_path(path[i], np.array([x for x, _ in expected]), p[i], f"p of {shape}", TOLERANCE)
        assert_same_path(states[i]["v"], np.array([v for _, v in expected]), 0.0, f"v of {shape}", TOLERANCE)


@pytest.mark.no_cover
@pytest.mark.parametrize(("name", "width"), [("q_proj.weight", 12.0), ("mlp.weight", 1e9), ("embed", 1.0)])
def test_adam_mini_follows_the_collection_with_the_blocks_that_this_takes_by_name(name: str, width: float) -> None:
    torch, collection = pytest.importorskip("torch"), pytest.importorskip("pytorch_optimizer")
    (p,), (g,) = starts([(6, 6)]), gradients([(6, 6)])
    (path,), _ = ours(optgen.AdamMini(**GIVEN, width=width, backend="interpreter"), [p], [g])
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        model = torch.nn.Module()
        inner = model
        for part in name.split(".")[:-1]:
            inner.add_module(part, torch.nn.Module())
            inner = getattr(inner, part)
        x = torch.nn.Parameter(torch.tensor(p))
        inner.register_parameter(name.split(".")[-1], x)
        opt = collection.AdamMini(
            model, GIVEN["eta"], GIVEN["beta"], GIVEN["decay"], num_embeds=6, num_heads=3, eps=GIVEN["eps"]
        )
        expected = []
        for row in g:
            x.grad = torch.tensor(row)
            opt.step()
            expected.append(x.detach().numpy().copy())
    finally:
        torch.set_default_dtype(default)
    # It computes in float32, whatever the parameter is.
    assert len(expected) == STEPS
    np.testing.assert_allclose(path, np.array(expected), rtol=2e-4, atol=2e-4)


def test_subsets_that_do_not_divide_a_parameter_end_in_a_short_one() -> None:
    (p,), (g,) = starts([(5, 7)]), gradients([(5, 7)])
    opt = optgen.AdamWSN(eta=0.1, subset=8, beta=(0.0, 0.0), backend="interpreter")
    opt.step([p], [g[0]])
    squares = g[0].ravel() ** 2
    np.testing.assert_allclose(opt.state(p)["v"], [squares[i : i + 8].sum() for i in range(0, 35, 8)], rtol=1e-15)
