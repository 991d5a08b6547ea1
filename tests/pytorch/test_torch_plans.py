"""Step plans of tensors: what is remembered of lists that change."""

from __future__ import annotations

import numpy as np
import pytest
from memory import expect_bounded

torch = pytest.importorskip("torch")

import optgen.torch


def test_gradients_of_changing_parameters_take_memory_as_the_parameters_do() -> None:
    rng, params = np.random.default_rng(0), [torch.nn.Parameter(torch.ones(4)) for _ in range(40)]
    opt = optgen.torch.Adam(params)

    def step_half() -> None:
        chosen = set(rng.permutation(40)[:20].tolist())
        for i, p in enumerate(params):
            p.grad = torch.ones(4) if i in chosen else None
        opt.step()

    for p in params:
        p.grad = torch.ones(4)
    opt.step()
    expect_bounded(step_half, 10, 40)
