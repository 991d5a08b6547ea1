"""Blocks in PyTorch: the bits of NumPy, states, groups of their own, and what is refused."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest

import optgen
from optgen.errors import ArrayError, HyperparameterError, StateError

torch = pytest.importorskip("torch")
optim = pytest.importorskip("optgen.torch")

SHAPES = [(3, 4), (10,), (), (2, 3, 5)]


def made(seed: int = 0) -> tuple[list[Any], list[Any]]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=s) for s in SHAPES], [rng.normal(size=s) for s in SHAPES]


def parameters(arrays: list[Any], grads: list[Any]) -> list[Any]:
    params = [torch.nn.Parameter(torch.tensor(x)) for x in arrays]
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.tensor(g)
    return params


@pytest.mark.parametrize("name", ["AdamWSN", "AdamMini"])
def test_a_step_is_that_of_numpy(name: str) -> None:
    arrays, grads = made()
    params = parameters(arrays, grads)
    key = {"AdamWSN": "subset", "AdamMini": "width"}[name]
    ours, theirs = getattr(optgen, name)(**{key: 7}), getattr(optim, name)(params, **{key: 7})
    for _ in range(3):
        ours.step(arrays, grads)
        theirs.step()
    for p, q in zip(arrays, params, strict=True):
        assert p.tobytes() == q.detach().numpy().tobytes()
        v = theirs.state[q]["v"]
        assert v.dtype is torch.float64
        assert ours.state(p)["v"].tobytes() == v.numpy().tobytes()


def test_each_group_may_have_blocks_of_its_own() -> None:
    arrays, grads = made()
    params = parameters(arrays, grads)
    opt = optim.AdamMini([{"params": params[:1], "width": 3}, {"params": params[1:]}], lr=0.1)
    opt.step()
    assert [tuple(opt.state[p]["v"].shape) for p in params] == [(4,), (1,), (1,), (2,)]
    for i, (p, width) in enumerate(zip(params, (3, 0, 0, 0), strict=True)):
        own = optgen.AdamMini(eta=0.1, width=width)
        x = made()[0][i]
        own.step([x], [grads[i]])
        assert x.tobytes() == p.detach().numpy().tobytes()


def test_another_size_in_the_midst_of_training_is_refused_and_nothing_has_changed() -> None:
    params = parameters(*made())
    opt = optim.AdamMini(params, width=3)
    opt.step()
    before = copy.deepcopy([p.detach() for p in params])
    opt.param_groups[0]["width"] = 4
    with pytest.raises(StateError, match=r"its state v: expected shape \(3,\), got shape \(4,\)"):
        opt.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    opt.param_groups[0]["width"] = 3
    opt.step()
    opt.param_groups[0]["width"] = 2.5
    with pytest.raises(HyperparameterError, match="width"):
        opt.step()


def test_a_saved_state_goes_on_and_one_of_other_blocks_is_refused() -> None:
    worlds = [parameters(*made()) for _ in range(2)]
    first, twin = optim.AdamMini(worlds[0], width=3), optim.AdamMini(worlds[1])
    first.step()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    for p, q in zip(*worlds, strict=True):
        q.data.copy_(p.data)
    for opt in (first, twin):
        opt.step()
    for p, q in zip(*worlds, strict=True):
        assert torch.equal(p, q)
        assert torch.equal(first.state[p]["v"], twin.state[q]["v"])
    saved = first.state_dict()
    saved["param_groups"][0]["width"] = 4
    with pytest.raises(StateError, match=r"parameter 0: v: expected shape \(3,\), got shape \(4,\)"):
        twin.load_state_dict(saved)
    with pytest.raises(StateError, match=r"the state v: expected shape \(4,\), got shape \(3,\)"):
        twin.set_state(worlds[1][0], v=torch.ones(3, dtype=torch.float64))
    twin.set_state(worlds[1][0], v=torch.ones(4, dtype=torch.float64))


def test_complex_parameters_are_refused() -> None:
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.complex64))
    p.grad = torch.ones_like(p)
    with pytest.raises(ArrayError, match="complex"):
        optim.AdamMini([p]).step()


def test_sixteen_bits_have_the_blocks_of_the_parameter() -> None:
    p = torch.nn.Parameter(torch.ones(10, dtype=torch.bfloat16))
    p.grad = torch.arange(10.0).bfloat16()
    opt = optim.AdamMini([p], width=4)
    opt.step()
    assert tuple(opt.state[p]["v"].shape) == (3,)


def test_a_group_keeps_what_says_how_large_blocks_are() -> None:
    arrays, grads = made()
    params = parameters(arrays, grads)
    opt = optim.AdamMini(params, lr=0.1, width=3)
    opt.step()
    before = [p.detach().clone() for p in params]
    opt.param_groups[0]["width"] = 4
    with pytest.raises(StateError, match=r"its state v: expected shape .*\n.*leave width as it was"):
        opt.step()
    assert all(map(torch.equal, params, before))
    opt.param_groups[0]["width"] = 3
    opt.step()
