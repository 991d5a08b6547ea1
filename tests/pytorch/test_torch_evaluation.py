"""Evaluation mode in PyTorch: `eval` and `train`, as trainers call them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import optgen
import optgen.torch as ot
from optgen.errors import ArgumentError

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def parameters(dtype: Any = torch.float32) -> list[Any]:
    torch.manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in ((3, 4), (5,))]


def step(opt: Any, ps: list[Any], t: int) -> None:
    torch.manual_seed(t)
    for p in ps:
        p.grad = torch.randn_like(p)
    opt.step()


def made(ps: list[Any], name: str = "ScheduleFreeSGD") -> Any:
    if name == "EMA":
        return ot.chain(ps, optgen.ADAM(0.1), optgen.EMA(0.5))
    return getattr(ot, name)([{"params": ps[:1]}, {"params": ps[1:], "lr": 0.2}], lr=0.1)


def values(ps: list[Any]) -> list[Any]:
    return [p.detach().clone() for p in ps]


def same(ps: list[Any], qs: list[Any]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(ps, qs, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["ScheduleFreeSGD", "ScheduleFreeAdamW", "EMA"])
def test_training_goes_on_with_the_same_bits(name: str, dtype: Any) -> None:
    ps, qs = parameters(dtype), parameters(dtype)
    opt, plain = made(ps, name), made(qs, name)
    moved = 0
    for t in range(5):
        step(opt, ps, t)
        step(plain, qs, t)
        before = values(ps)
        opt.eval()
        opt.eval()
        state = opt.state[ps[0]]
        beta = {"ScheduleFreeSGD": 0.9, "ScheduleFreeAdamW": 0.9, "EMA": 0}[name]
        mean = state["avg"] if name == "EMA" else (before[0].double() - (1 - beta) * state["z"].double()) / beta
        assert torch.allclose(ps[0].double(), mean.double(), rtol=1e-2 if dtype is torch.bfloat16 else 1e-5, atol=1e-6)
        moved += not same(ps, before)
        opt.train()
        assert same(ps, before)
        assert same(ps, qs)
    assert moved >= 3
    assert "in_training" not in opt.state[ps[0]]


def test_a_step_in_evaluation_mode_is_refused_before_the_closure_runs() -> None:
    ps = parameters()
    opt = made(ps)
    step(opt, ps, 0)
    opt.eval()
    ran: list[int] = []
    with pytest.raises(ArgumentError, match="expected to step in training mode, got evaluation mode"):
        opt.step(lambda: ran.append(1))
    assert not ran
    opt.train()
    step(opt, ps, 1)


def test_a_checkpoint_of_evaluation_mode_resumes_with_the_same_bits() -> None:
    """As a trainer makes it that evaluates before it saves: the weights are those of evaluation."""
    ps, qs = parameters(), parameters()
    opt, plain = made(ps), made(qs)
    for t in range(3):
        step(opt, ps, t)
        step(plain, qs, t)
    opt.eval()
    saved, weights = copy.deepcopy(opt.state_dict()), values(ps)
    again = [torch.nn.Parameter(w) for w in weights]
    resumed = made(again)
    resumed.load_state_dict(saved)
    with pytest.raises(ArgumentError, match="evaluation mode"):
        resumed.step()
    resumed.train()
    assert same(again, qs)
    for t in range(3, 6):
        step(resumed, again, t)
        step(plain, qs, t)
        assert same(again, qs)


def test_a_copy_in_evaluation_mode_is_in_it_too() -> None:
    ps = parameters()
    opt = made(ps)
    step(opt, ps, 0)
    before = values(ps)
    opt.eval()
    twin = copy.deepcopy(opt)
    own = [p for group in twin.param_groups for p in group["params"]]
    twin.train()
    assert same(own, before)
    assert not same(ps, before)


def test_rules_without_evaluation_take_both_calls() -> None:
    for name in ("AdamW", "Lion"):
        ps = parameters()
        opt = getattr(ot, name)(ps)
        opt.train()
        step(opt, ps, 0)
        before = values(ps)
        opt.eval()
        assert same(ps, before)
        step(opt, ps, 1)


def test_autograd_sees_that_parameters_have_changed() -> None:
    ps = parameters()
    opt = made(ps)
    step(opt, ps, 0)
    loss = (ps[0] ** 2).sum()
    opt.eval()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
