"""Lists of another length than their default, in PyTorch."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import optgen
import optgen.torch as ot
from optgen.errors import ArgumentError, HyperparameterError, StateError

BETAS = (0.0, 0.5, 0.75, 0.9)


def params_of(dtype: Any = torch.float32) -> list[Any]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in ((3, 4), (5,))]


def step(opt: Any, params: list[Any], first: int, last: int) -> None:
    for t in range(first, last):
        for p in params:
            p.grad = (p.detach() + t) / 3
        opt.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("length", [1, 4, 16])
def test_tensors_have_the_bits_of_arrays(length: int, dtype: Any) -> None:
    betas = tuple(i / 20 for i in range(length))
    params = params_of(dtype)
    opt = ot.AggMo(params, lr=0.1, betas=betas)
    assert opt.param_groups[0]["betas"] == betas
    core, arrays = optgen.AggMo(0.1, betas), [p.detach().float().numpy().copy() for p in params]
    if dtype is torch.float64:
        arrays = [p.detach().numpy().copy() for p in params]
    step(opt, params, 0, 1)
    assert list(opt.state[params[0]]) == [*(f"v{i + 1}" for i in range(length)), "step"]
    if dtype is not torch.bfloat16:
        core.step(arrays, [(x + 0) / 3 for x in arrays])
        assert all(np.array_equal(p.detach().numpy(), x) for p, x in zip(params, arrays, strict=True))


def by_state_dict(opt: Any, params: list[Any]) -> tuple[Any, list[Any]]:
    again = copy.deepcopy(params)
    made, file = ot.AggMo(again, lr=0.7, betas=(0.1,) * 4), io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    made.load_state_dict(torch.load(file, weights_only=True))
    return made, again


def by_pickle(opt: Any, params: list[Any]) -> tuple[Any, list[Any]]:
    return pickle.loads(pickle.dumps((opt, params)))


def by_deepcopy(opt: Any, params: list[Any]) -> tuple[Any, list[Any]]:
    return copy.deepcopy((opt, params))


@pytest.mark.parametrize("way", [by_state_dict, by_pickle, by_deepcopy])
def test_a_run_of_any_length_goes_on(way: Callable[..., tuple[Any, list[Any]]]) -> None:
    params, twins = params_of(), params_of()
    opt, plain = (ot.AggMo(each, lr=0.1, betas=BETAS) for each in (params, twins))
    step(plain, twins, 0, 5)
    step(opt, params, 0, 2)
    opt, params = way(opt, params)
    step(opt, params, 2, 5)
    assert all(map(torch.equal, params, twins))
    assert tuple(opt.param_groups[0]["betas"]) == BETAS


def test_a_chain_has_the_length_of_its_part() -> None:
    params = params_of()
    opt = ot.chain(params, optgen.ClipNorm(1.0), optgen.AggMo(0.1, BETAS))
    step(opt, params, 0, 2)
    assert "v4" in opt.state[params[0]]
    again, twins = copy.deepcopy((opt, params))
    step(again, twins, 2, 3)
    step(opt, params, 2, 3)
    assert all(map(torch.equal, params, twins))


def test_a_line_of_a_split_may_have_any_length() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    opt = ot.split(model, matrices=ot.AggMo.options(betas=BETAS), rest=ot.AggMo.options())
    model(torch.ones(2, 3)).sum().backward()
    opt.step()
    assert ("v4" in opt.state[model[0].weight], "v4" in opt.state[model[0].bias]) == (True, False)


def test_one_value_is_set_by_its_name() -> None:
    opt = ot.AggMo(params_of(), lr=0.1, betas=BETAS)
    opt.param_groups[0]["beta4"] = 0.8
    step(opt, opt.param_groups[0]["params"], 0, 1)
    assert opt.param_groups[0]["betas"] == (*BETAS[:3], 0.8)


# ---- Bad input ----


def test_another_length_is_refused() -> None:
    params = params_of()
    opt = ot.AggMo(params, lr=0.1, betas=BETAS)
    step(opt, params, 0, 1)
    before = [p.detach().clone() for p in params]
    with pytest.raises(ArgumentError, match="expected 4 numbers, got"):
        opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "betas": (0.1, 0.2)})
    with pytest.raises(StateError, match="expected 3 numbers as 'betas', got"):
        ot.AggMo(params_of()).load_state_dict(opt.state_dict())
    opt.param_groups[0]["betas"] = (0.5, 0.5)
    with pytest.raises(ArgumentError, match="expected 4 numbers, got"):
        step(opt, params, 1, 2)
    assert all(map(torch.equal, params, before))


def test_a_list_that_is_none_is_refused() -> None:
    with pytest.raises(ArgumentError, match="expected 1 to 16 numbers, got 17 of them"):
        ot.AggMo(params_of(), betas=(0.5,) * 17)
    with pytest.raises(HyperparameterError, match=r"expected a value in \[0, 1\), got 2"):
        ot.AggMo(params_of(), betas=(0.5, 2.0))
