"""Parameters that share memory: PyTorch warns of one that is given twice, and steps them one after the other."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch_pairs import (
    NAMES,
    OWN,
    RULES,
    ULPS,
    Scales,
    give,
    optim,
    ours,
    parameters,
    same_bits,
    tensors_of,
    theirs,
    twins,
)

import optgen
from optgen.errors import ArrayError
from optgen.torch.turns import turns

#: Rules that step a parameter by itself as they do among others.
APART = [name for name in OWN if not (RULES[name].grouped or RULES[name].inputs or RULES[name].draws)]


def given_twice(start: list[Any]) -> list[Any]:
    a, b = twins(start)
    return [a, b, a]


def by_view(start: list[Any]) -> list[Any]:
    a, b = twins(start)
    return [a, b, torch.nn.Parameter(a.detach().view(4, 3))]


def in_part(start: list[Any]) -> list[Any]:
    a, b = twins(start)
    return [a, torch.nn.Parameter(a.detach().view(-1)[2:10].view(4, 2)), b]


def chained(start: list[Any]) -> list[Any]:
    """Each overlaps with the one before it."""
    a, b = twins(start)
    whole = a.detach().view(-1)
    return [b, *(torch.nn.Parameter(whole[i : i + 6].view(2, 3)) for i in (6, 3, 0))]


TIES = {f.__name__: f for f in (given_twice, by_view, in_part, chained)}


def made(make: Any, params: list[Any], **more: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(params, **more)


def give_each(params: list[Any], others: list[Any], t: int) -> None:
    for i, (p, q) in enumerate(zip(params, others, strict=True)):
        g = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * t + i), dtype=torch.float32).to(p.dtype)
        p.grad, q.grad = g.clone(), g.clone()


@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize("name", NAMES)
def test_what_shares_memory_steps_as_by_the_loop_of_pytorch(name: str, tie: str) -> None:
    start = parameters(shapes=[(3, 4), (5, 2)])
    params, copies = TIES[tie](start), TIES[tie](start)
    more = {"weight_decay": 0.1} if name != "Rprop" else {}
    there = made(lambda given, **more: theirs(name, given, **more), params, **more)
    here = made(lambda given, **more: ours(name, given, **more), copies, **more)
    scales = Scales(ULPS)
    for t in range(5):
        give_each(params, copies, t)
        there.step()
        here.step()
        scales.compare(tensors_of(here, copies), tensors_of(there, params))


@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize("name", APART)
def test_other_rules_step_them_one_after_the_other_too(name: str, tie: str) -> None:
    """As an optimiser of each would, in turn."""
    start = parameters(shapes=[(3, 4), (5, 2)])
    params, copies = TIES[tie](start), TIES[tie](start)
    here = made(getattr(optim, name), params)
    each = {q: getattr(optim, name)([q]) for q in copies}
    for t in range(3):
        give_each(params, copies, t)
        here.step()
        for q in copies:
            each[q].step()
    for p, q in zip(params, copies, strict=True):
        assert same_bits(tensors_of(here, [p]), tensors_of(each[q], [q]))


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Lion", "LAMB"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64], ids=str)
def test_of_other_dtypes_too(name: str, dtype: Any) -> None:
    a, b = torch.nn.Parameter(torch.ones(3, dtype=dtype)), torch.nn.Parameter(torch.ones(3, dtype=dtype))
    here, alone = made(getattr(optim, name), [a, a], lr=0.1), getattr(optim, name)([b], lr=0.1)
    for _ in range(3):
        a.grad, b.grad = torch.full_like(a, 0.5), torch.full_like(b, 0.5)
        here.step()
        alone.step()
        alone.step()
    assert same_bits(tensors_of(here, [a]), tensors_of(alone, [b]))


@pytest.mark.parametrize("name", ["SGD", "LAMB", "chain"])
def test_a_parameter_given_twice_is_warned_of_when_the_optimiser_is_made(name: str) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    parts = optgen.WeightDecay(0.1), optgen.ADAM()
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optimiser = optim.chain([p, p], *parts) if name == "chain" else getattr(optim, name)([p, p])
    p.grad = torch.ones(3)
    optimiser.step()
    assert name == "SGD" or int(optimiser.state[p]["step"]) == 2
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimiser.add_param_group({"params": [p]})


# ---- Gradients ----


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_in_the_memory_of_its_parameter_is_what_pytorch_makes_of_it(name: str) -> None:
    more = {"weight_decay": 0.1} if name != "Rprop" else {}
    params = parameters(shapes=[(3, 4), (5, 2)])
    copies = twins(params)
    there, here = theirs(name, params, **more), ours(name, copies, **more)
    scales = Scales(ULPS)
    for t in range(6):
        give([params, copies], t)
        if t % 3 == 1:
            params[0].grad, copies[0].grad = params[0].detach(), copies[0].detach()
        there.step()
        here.step()
        scales.compare(tensors_of(here, copies), tensors_of(there, params))
    assert not here._turns.tied


@pytest.mark.parametrize("name", APART)
def test_of_other_rules_it_is_read_before_the_parameter_is_written(name: str) -> None:
    params = parameters(shapes=[(3, 4), (5, 2)])
    copies = twins(params)
    here, there = getattr(optim, name)(params), getattr(optim, name)(copies)
    for t in range(4):
        give([params, copies], t)
        if t % 2:
            params[0].grad, copies[0].grad = params[0].detach(), copies[0].detach().clone()
        here.step()
        there.step()
    assert same_bits(tensors_of(here, params), tensors_of(there, copies))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_gradient_in_the_memory_of_another_parameter_is_read_in_order(order: tuple[int, int]) -> None:
    results = []
    for make in (theirs, ours):
        a, b = torch.nn.Parameter(torch.ones(4)), torch.nn.Parameter(torch.full((4,), 2.0))
        a.grad, b.grad = torch.full((4,), 0.5), a.detach()
        make("SGD", [(a, b)[i] for i in order], lr=0.5).step()
        results.append((a.tolist(), b.tolist()))
    assert results[0] == results[1]


# ---- What is not stepped so ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["Prodigy", "clip", "zero"])
def test_a_value_of_all_parameters_needs_them_apart(kind: str, dtype: Any) -> None:
    p, q = torch.nn.Parameter(torch.ones(4, dtype=dtype)), torch.nn.Parameter(torch.ones(3, dtype=dtype))
    parts = [optgen.ClipGlobalNorm(1.0), optgen.AdamW()] if kind == "clip" else [optgen.Descent(), optgen.ZeroGrad()]
    make = optim.Prodigy if kind == "Prodigy" else lambda given: optim.chain(given, *parts)
    optimiser = made(make, [p, q, p])
    p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    with pytest.raises(ArrayError, match=r"(?s)parameter 2, or its gradient, overlaps.*\.clone\(\)"):
        optimiser.step()
    inside = made(make, [q])
    q.grad = q.detach()
    if dtype is torch.float32:
        with pytest.raises(ArrayError, match=r"(?s)the gradient of parameter 0.*\.clone\(\)"):
            inside.step()
    assert not optimiser.state
    assert p.tolist() == [1] * 4


PHASED = {
    "SAM": lambda params: optim.chain(params, optgen.SAM(), optgen.AdamW()),
    "LookSAM": lambda params: optim.chain(params, optgen.LookSAM(), optgen.SGD()),
    "ExtraGradient": optim.ExtraGradient,
    "BSAM": optim.BSAM,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize("name", PHASED)
def test_phases_need_parameters_apart(name: str, tie: str, dtype: Any) -> None:
    start = [torch.ones(3, 4, dtype=dtype), torch.ones(5, 2, dtype=dtype)]
    params, calls = TIES[tie](start), []
    optimiser = made(PHASED[name], params)

    def closure() -> Any:
        calls.append(optimiser.phase)
        for p in params:
            p.grad = torch.ones_like(p)
        return torch.zeros(())

    with pytest.raises(ArrayError, match=r"(?s), or its gradient, overlaps.* one phase of a step.*\.clone\(\)"):
        optimiser.step(closure)
    assert len(calls) == 1
    assert not optimiser.state
    assert optimiser.phase == calls[0]
    assert all((p == 1).all() for p in params)


@pytest.mark.parametrize("name", ["SAM", "ExtraGradient", "BSAM"])
def test_what_is_tied_between_two_phases_is_refused_in_the_second(name: str) -> None:
    params, others = (parameters(shapes=[(4,), (2, 2)]) for _ in range(2))
    here, there = PHASED[name](params), PHASED[name](others)
    first, second = here._engine.phases
    give([params, others], 0)
    for optimiser in (here, there):
        optimiser.step(phase=first)
    give([params, others], 1)
    before, apart = [p.detach().clone() for p in params], params[1].data
    params[1].data = params[0].data.view(2, 2)
    with pytest.raises(ArrayError, match="parameter 1, or its gradient, overlaps"):
        here.step(phase=second)
    assert (here.phase, params[0].tolist()) == (second, before[0].tolist())
    params[1].data = apart
    for optimiser in (here, there):
        optimiser.step(phase=second)
    assert same_bits(tensors_of(here, params), tensors_of(there, others))


def test_weights_that_modules_share_are_one_parameter_in_each_phase() -> None:
    class Shared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
            self.second.weight = self.first.weight

        def forward(self, x: Any) -> Any:
            return self.second(self.first(x).tanh())

    torch.manual_seed(0)
    tied = Shared()
    plain = [p.detach().clone().requires_grad_() for p in tied.parameters()]  # one weight, two biases
    here, there = PHASED["SAM"](tied.parameters()), PHASED["SAM"](plain)
    x = torch.randn(5, 3)

    def tied_loss() -> Any:
        here.zero_grad()
        loss = tied(x).square().mean()
        loss.backward()
        return loss

    def plain_loss() -> Any:
        there.zero_grad()
        weight, first, second = plain
        hidden = torch.nn.functional.linear(x, weight, first).tanh()
        loss = torch.nn.functional.linear(hidden, weight, second).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        assert here.step(tied_loss) == there.step(plain_loss)
    assert len(plain) == 3
    assert all(map(torch.equal, tied.parameters(), plain))


@pytest.mark.parametrize("name", ["Lion", "LARS"])
def test_what_nothing_steps_is_refused_before_the_first_turn(name: str) -> None:
    a, c = torch.nn.Parameter(torch.ones(4)), torch.nn.Parameter(torch.ones(3, 2))
    b = torch.nn.Parameter(a.detach().view(2, 2))
    optimiser = getattr(optim, name)([a, b, c])
    a.grad, b.grad, c.grad = torch.ones(4), torch.ones(2, 2), torch.ones(3, 2).to_sparse()
    for _ in range(2):
        with pytest.raises(ArrayError, match=r"parameter 2.*sparse"):
            optimiser.step()
        assert a.tolist() == [1] * 4
        optimiser._turns.tied = True
    assert not optimiser.state


def test_turns_are_few() -> None:
    whole = torch.zeros(8, 6)
    columns = [torch.nn.Parameter(column) for column in whole.unbind(1)]
    grads = [torch.ones(8)] * 6
    assert [turn.places for turn in turns(columns, grads)] == [list(range(6))]
    tied = [*columns, columns[2]]
    assert [turn.places for turn in turns(tied, [*grads, grads[0]])] == [list(range(6)), [6]]
    assert [turn.places for turn in turns(tied, [*grads[:2], None, *grads[3:], grads[0]])] == [[0, 1, 3, 4, 5, 6]]


def test_what_is_no_longer_tied_steps_together_again() -> None:
    a = torch.nn.Parameter(torch.ones(4))
    b = torch.nn.Parameter(a.detach().view(2, 2))
    optimiser = optim.AdamW([a, b])
    for tied in (True, False, False):
        a.grad, b.grad = torch.ones(4), torch.ones(2, 2)
        optimiser.step()
        assert optimiser._turns.tied is tied
        b.data = b.data.clone()
    assert int(optimiser.state[b]["step"]) == int(optimiser.state[a]["step"]) == 3
