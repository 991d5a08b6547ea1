"""Tensors on other devices, stepped by operations of PyTorch: tried on tensors of the CPU, as if they were not."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
optim = pytest.importorskip("optgen.torch")

from rules import SPECS
from torch._lazy import ts_backend
from torch_pairs import NAMES, OWN

import optgen
from optgen.errors import ArgumentError, ArrayError, StateError

pytestmark = pytest.mark.no_cover
#: Rules whose step is no continuous function of the gradient.
UNSTABLE = ("FOCUS", "SOAP", "SPlus")
OF_MATRICES = sorted({name for name, spec in SPECS.items() if spec.rules[0].multiplies} - {*OWN, *UNSTABLE})


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes an optimiser take its tensors for those of another device."""
    for module in ("turns", "evaluation"):
        monkeypatch.setattr(f"optgen.torch.{module}.elsewhere", lambda tensors: True)

    def taken(optimiser: Any) -> Any:
        optimiser._turns.elsewhere = True
        return optimiser

    return taken


def parameters(dtype: Any = torch.float64, shapes: Any = ((4, 5), (7,), (2, 3, 4))) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes
    ]


def train(optimiser: Any, params: list[Any], steps: int = 5, first: int = 0) -> None:
    generator = torch.Generator().manual_seed(1)
    for t in range(first + steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
            for each in optimiser_inputs(optimiser):
                setattr(p, each, p.grad.abs())
        if t >= first:
            optimiser.step(**dict.fromkeys(numbers_of(optimiser), 0.75))


def optimiser_inputs(optimiser: Any) -> tuple[str, ...]:
    return optimiser._naming.rules[0].given_arrays[1:]


def numbers_of(optimiser: Any) -> tuple[str, ...]:
    return optimiser._naming.rules[0].given_numbers


def made(name: str, params: list[Any], **given: Any) -> Any:
    sizes = [each.hyper for each in SPECS[name].rules[0].dimensions]
    return getattr(optim, name)(params, **dict.fromkeys(sizes, 2), **given)


def assert_near(here: Any, there: Any, params: list[Any], others: list[Any], most: float) -> None:
    for p, q in zip(params, others, strict=True):
        assert here.state[p].keys() == there.state[q].keys()
        pairs = [(p.detach(), q.detach()), *((here.state[p][key], there.state[q][key]) for key in here.state[p])]
        for x, y in pairs:
            assert (x.shape, x.dtype, x.device) == (y.shape, y.dtype, y.device)
            torch.testing.assert_close(x, y, rtol=most, atol=most * max(1.0, float(y.double().abs().max())))


@pytest.mark.parametrize("name", [name for name in OWN if name not in UNSTABLE])
def test_a_rule_does_what_its_kernels_do(name: str, everywhere: Any) -> None:
    params, others = parameters(), parameters()
    here, there = everywhere(made(name, params)), made(name, others)
    train(here, params)
    train(there, others)
    assert_near(here, there, params, others, 1e-8 if name == "DoWG" else 1e-11)  # where a difference grows


@pytest.mark.parametrize("name", OF_MATRICES)
def test_a_rule_of_matrices_does_what_it_does_on_the_cpu(name: str, everywhere: Any) -> None:
    shapes = ((4, 6), (6, 4), (5, 5))
    params, others = parameters(shapes=shapes), parameters(shapes=shapes)
    here, there = everywhere(made(name, params)), made(name, others)
    train(here, params, 3)
    train(there, others, 3)
    assert_near(here, there, params, others, 1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_of_pytorch_is_stepped_by_pytorch(name: str, everywhere: Any) -> None:
    params, others = parameters(), parameters()
    here, there = everywhere(getattr(optim, name)(params)), getattr(torch.optim, name)(others)
    train(here, params)
    train_theirs(there, others)
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


def train_theirs(optimiser: Any, params: list[Any], steps: int = 5) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
        optimiser.step()


@pytest.mark.parametrize("name", ["Adan", "LAMB", "Prodigy", "SM3", "ScheduleFreeSGD"])
def test_a_run_goes_on_by_kernels_where_the_model_comes_back(name: str, everywhere: Any, monkeypatch: Any) -> None:
    params, others = parameters(), parameters()
    here, there = everywhere(made(name, params)), made(name, others)
    train(here, params, 3)
    monkeypatch.undo()
    train(here, params, 3, first=3)
    assert not here._turns.elsewhere
    train(there, others, 6)
    assert_near(here, there, params, others, 1e-11)


def test_groups_have_hyperparameters_of_their_own(everywhere: Any) -> None:
    params, others = parameters(), parameters()
    here, there = (
        optim.LAMB([{"params": xs[:1], "lr": 0.5}, {"params": xs[1:], "betas": (0.5, 0.6)}]) for xs in (params, others)
    )
    train(everywhere(here), params)
    train(there, others)
    assert_near(here, there, params, others, 1e-12)


def test_a_chain_with_a_value_of_all_parameters(everywhere: Any) -> None:
    params, others = parameters(), parameters()
    here, there = (optim.chain(xs, optgen.ClipGlobalNorm(0.5), optgen.ADAM()) for xs in (params, others))
    train(everywhere(here), params)
    train(there, others)
    assert_near(here, there, params, others, 1e-12)


def test_a_step_that_does_not_count_changes_nothing(everywhere: Any) -> None:
    params = parameters()
    before = [p.detach().clone() for p in params]
    here = everywhere(optim.chain(params, optgen.Unscale(), optgen.ADAM()))
    for p in params:
        p.grad = torch.full_like(p, torch.inf)
    here.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    assert {int(here.state[p]["step"]) for p in params} == {0}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_are_computed_in_float32(dtype: Any, everywhere: Any) -> None:
    params, others = parameters(dtype), parameters(dtype)
    here, there = everywhere(optim.Lion(params)), optim.Lion(others)
    train(here, params)
    train(there, others)
    assert_near(here, there, params, others, 2.0**-7)


def test_states_in_16_bits(everywhere: Any) -> None:
    params, others = parameters(torch.float32), parameters(torch.float32)
    here, there = (optim.LAMB(xs, storage="bfloat16", rounding="nearest") for xs in (params, others))
    everywhere(here)
    train(here, params)
    train(there, others)
    assert {x.dtype for p in params for key, x in here.state[p].items() if key != "step"} == {torch.bfloat16}
    for p, q in zip(params, others, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-2, atol=1e-3)


def test_a_schedule_free_rule_is_evaluated_there(everywhere: Any) -> None:
    params, others = parameters(), parameters()
    here, there = everywhere(optim.ScheduleFreeSGD(params)), optim.ScheduleFreeSGD(others)
    train(here, params)
    train(there, others)
    trained = [p.detach().clone() for p in params]
    here.eval()
    there.eval()
    for p, q in zip(params, others, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
    here.train()
    assert all(torch.equal(p, q) for p, q in zip(params, trained, strict=True))


# ---- A device that needs no other processor ----


@pytest.fixture(scope="session")
def lazy() -> str:
    """PyTorch's own, which shows nobody its memory; it is begun once in a process."""
    ts_backend.init()
    return "lazy"


def stepped(name: str, device: str, p: Any, steps: int, saved: Any = None) -> tuple[Any, Any]:
    """A parameter and its optimiser after so many steps there, from what was saved."""
    p = torch.nn.Parameter(p.detach().clone().to(device))
    optimiser = getattr(optim, name)([("w", p)])
    if saved is not None:
        optimiser.load_state_dict(saved)
    for t in range(steps):
        p.grad = torch.full(p.shape, t + 1.0, device=device)
        optimiser.step()
    return p, optimiser


@pytest.mark.parametrize("name", ["AdamW", "LAMB", "Lion", "SM3", "ScheduleFreeSGD"])
def test_a_run_is_stepped_where_it_is_and_goes_on_elsewhere(name: str, lazy: str) -> None:
    start = torch.linspace(-1, 1, 12).reshape(3, 4)
    (p, here), (q, there) = (stepped(name, device, start, 3) for device in ("cpu", lazy))
    assert q.device.type == lazy
    torch.testing.assert_close(q.cpu(), p)
    there_again, _ = stepped(name, lazy, p, 2, here.state_dict())
    here_again, optimiser = stepped(name, "cpu", q, 2, there.state_dict())
    torch.testing.assert_close(there_again.cpu(), here_again)
    assert {x.device.type for x in optimiser.state[here_again].values()} == {"cpu"}


def test_nothing_is_reported_there(lazy: str) -> None:
    _, optimiser = stepped("LAMB", lazy, torch.ones(3, 4), 1)
    assert optimiser.report() == {}


def test_values_to_evaluate_with_are_computed_there(lazy: str) -> None:
    start = torch.linspace(-1, 1, 12)
    (p, here), (q, there) = (stepped("ScheduleFreeSGD", device, start, 3) for device in ("cpu", lazy))
    here.eval()
    there.eval()
    torch.testing.assert_close(q.cpu(), p)


# ---- A device that has no numbers ----


@pytest.mark.parametrize("name", ["Lion", "LAMB", "SM3", "Muon", "NoisySGD"])
def test_on_meta_shapes_and_types_are_those_of_the_cpu(name: str) -> None:
    params, others = parameters(shapes=((4, 5), (3, 2))), parameters(shapes=((4, 5), (3, 2)))
    params = [torch.nn.Parameter(p.detach().to("meta")) for p in params]
    here, there = made(name, params), made(name, others)
    for optimiser, mine in ((here, params), (there, others)):
        for _ in range(2):
            for p in mine:
                p.grad = torch.ones_like(p)
            optimiser.step()
    for p, q in zip(params, others, strict=True):
        assert {k: (x.shape, x.dtype) for k, x in here.state[p].items()} == {
            k: (x.shape, x.dtype) for k, x in there.state[q].items()
        }
        assert all(x.device.type == "meta" for k, x in here.state[p].items() if k != "step")
        assert int(here.state[p].get("step", 2)) == 2


META: dict[str, tuple[Any, str]] = {
    "phases": (lambda ps: optim.chain(ps, optgen.SAM(), optgen.ADAM()), "steps of several phases, on the CPU alone"),
    "a verdict": (lambda ps: optim.chain(ps, optgen.Unscale(), optgen.ADAM()), "looks at numbers, and there are none"),
    "blocks": (lambda ps: optim.Lion(ps, storage="log8"), "states in blocks and stochastic rounding are for the CPU"),
    "complex": (lambda ps: optim.Lion([ps[0].to(torch.complex64)]), "got torch.complex64"),
}


@pytest.mark.parametrize("what", META)
def test_what_operations_do_not_step_is_refused(what: str) -> None:
    params = [p.detach().to("meta").float() for p in parameters(shapes=((4, 5),))]
    make, said = META[what]
    optimiser = make(params)
    (p,) = optimiser.param_groups[0]["params"]
    p.grad = torch.ones_like(p)
    with pytest.raises((ArrayError, ArgumentError, StateError), match=rf"parameter 0(.|\n)*{said}"):
        optimiser.step(*[lambda: None] * (what == "phases"))
    assert not optimiser.state[p]
