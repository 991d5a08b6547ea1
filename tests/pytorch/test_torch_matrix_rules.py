"""Rules for matrices only on tensors: the steps of NumPy, states that load, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rules import OF_MATRICES, SPECS

import optgen
from optgen.errors import ArgumentError, ArrayError, HyperparameterError

torch = pytest.importorskip("torch")
optim = pytest.importorskip("optgen.torch")

#: The rules that PyTorch has not.
NAMES = [name for name in OF_MATRICES if not hasattr(torch.optim, name)]
SHAPES = [(6, 4), (4, 6), (5, 5), (2, 3, 4)]
#: Whose steps hang on signs, or on bases of null spaces, that are the library's choice.
CHOOSING = ("GaLore", "Fira", "SOAP")


def arguments(name: str) -> dict[str, Any]:
    """Sizes that fit, and no bfloat16, in which two libraries round sums of another order."""
    spec = SPECS[name].rules[0]
    halved = {"half": False} if any(flag.name == "half" for flag in spec.flags) else {}
    return dict.fromkeys((each.hyper for each in spec.dimensions), 2) | halved


def tensors(seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [torch.tensor(rng.normal(size=shape)) for shape in SHAPES]


def parameters() -> list[Any]:
    return [torch.nn.Parameter(x) for x in tensors(0)]


def step(opt: Any, ps: list[Any], seed: int) -> None:
    for p, g in zip(ps, tensors(seed), strict=True):
        p.grad = g
    opt.step()


@pytest.mark.parametrize("name", NAMES)
def test_tensors_take_the_steps_of_arrays(name: str) -> None:
    given = arguments(name)
    ps = parameters()
    own = getattr(optim, name)(ps, **given)
    plain, arrays = getattr(optgen, name)(**given), [p.detach().numpy().copy() for p in ps]
    for t in range(3):
        step(own, ps, t + 1)
        plain.step(arrays, [g.numpy() for g in tensors(t + 1)])
    for p, x in zip(ps, arrays, strict=True):
        if name in CHOOSING:
            assert torch.isfinite(p).all()
        else:
            np.testing.assert_allclose(p.detach().numpy(), x, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_state_goes_on_with_the_same_bits(name: str) -> None:
    ps, qs = parameters(), parameters()
    opt = getattr(optim, name)(ps, **arguments(name))
    for t in range(2):
        step(opt, ps, t + 1)
    other = getattr(optim, name)(qs, **arguments(name))
    other.load_state_dict(opt.state_dict())
    with torch.no_grad():
        for p, q in zip(ps, qs, strict=True):
            q.copy_(p)
    for each, own in ((opt, ps), (other, qs)):
        step(each, own, 9)
    assert all(torch.equal(p, q) for p, q in zip(ps, qs, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_is_refused_by_name(name: str) -> None:
    ps = [torch.nn.Parameter(torch.ones(4, 3)), torch.nn.Parameter(torch.ones(4))]
    for p in ps:
        p.grad = torch.ones_like(p)
    with pytest.raises(ArrayError) as caught:
        getattr(optim, name)(ps, **arguments(name)).step()
    assert f"{name}: expected a matrix, of two or more dimensions" in str(caught.value)
    assert "parameter 1" in str(caught.value)
    assert "optim.split(...)" in str(caught.value)
    assert (ps[0] == 1).all()


@pytest.mark.parametrize("given", [{}, {"nesterov": False, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3}])
def test_muon_takes_the_steps_and_the_states_of_pytorch(given: dict[str, Any]) -> None:
    muon = getattr(torch.optim, "Muon", None)
    if muon is None:
        pytest.skip("PyTorch has it since 2.9")
    ps, qs = ([torch.nn.Parameter(x.float()) for x in tensors(0)[:3]] for _ in range(2))
    pair = optim.Muon(ps, **given), muon(qs, **given)
    for t in range(5):
        for opt, own in zip(pair, (ps, qs), strict=True):
            for p, g in zip(own, tensors(t + 1), strict=False):
                p.grad = g.float()
            opt.step()
    for p, q in zip(ps, qs, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=5 * 2e-3 * 2**-7)
        states = [opt.state[x]["momentum_buffer"] for opt, x in zip(pair, (p, q), strict=True)]
        torch.testing.assert_close(*states, rtol=1e-6, atol=1e-6)


def test_products_in_the_last_phase_only_step() -> None:
    p = torch.nn.Parameter(torch.ones(3, 4))
    opt = optim.chain([p], optgen.SAM(0.05), optgen.Muon(0.1))
    weights, calls = torch.arange(12.0).reshape(3, 4), 0

    def closure() -> Any:
        nonlocal calls
        calls += 1
        opt.zero_grad()
        loss = (p * weights).square().sum()
        loss.backward()
        return loss

    first = float(opt.step(closure).detach())
    assert calls == 2
    assert float(closure().detach()) < first


def test_turns_of_loops_are_checked_and_one_for_all_groups() -> None:
    p, q = (torch.nn.Parameter(torch.ones(3, 4)) for _ in range(2))
    p.grad = q.grad = torch.ones(3, 4)
    with pytest.raises(
        HyperparameterError, match=r"Muon, group 0, ns_steps: expected a whole number in \[1, 40\], got 50"
    ):
        optim.Muon([p], ns_steps=50).step()
    with pytest.raises(ArgumentError, match="Muon, group 1: expected ns_steps=5, as this was made, got 3"):
        optim.Muon([{"params": [p]}, {"params": [q], "ns_steps": 3}]).step()
    assert (p == 1).all()
