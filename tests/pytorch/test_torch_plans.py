"""Step plans of tensors: what is remembered of lists that change."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import optgen.torch


def test_gradients_of_changing_parameters_take_memory_as_the_parameters_do() -> None:
    rng, params = np.random.default_rng(0), [torch.nn.Parameter(torch.ones(4)) for _ in range(40)]
    opt = optgen.torch.Adam(params)

    def kept(steps: int) -> int:
        """What is allocated in the end."""
        for _ in range(steps):
            chosen = set(rng.permutation(40)[:20].tolist())
            for i, p in enumerate(params):
                p.grad = torch.ones(4) if i in chosen else None
            opt.step()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    for p in params:
        p.grad = torch.ones(4)
    opt.step()
    tracemalloc.start()
    try:
        few = kept(10)
        assert kept(40) < 2 * few
    finally:
        tracemalloc.stop()
