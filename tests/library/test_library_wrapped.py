"""What the collection pytorch-optimizer has as optimisers around others, inside the backward pass or as one class, and
what are parts, chains and plain rules here: in float64, step for step, against the collection itself.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from trajectories import SHAPES, STEPS, Array, assert_same_path, gradients, ours, starts

import optgen

torch = pytest.importorskip("torch")
collection = pytest.importorskip("pytorch_optimizer")
lomo = pytest.importorskip("pytorch_optimizer.optimizer.lomo")

pytestmark = pytest.mark.no_cover

TOLERANCE = 1e-10
#: Of more than two dimensions the collection's AdaLOMO steps nothing.
FLAT = [shape for shape in SHAPES if 0 < len(shape) < 3]


def chained(*parts: Any) -> Any:
    return optgen.chain(*parts, backend="interpreter")


def theirs(make: Callable[[list[Any]], Any], p: list[Array], g: list[Array]) -> list[Array]:
    """For each parameter: its values after each step."""
    params = [torch.nn.Parameter(torch.tensor(x)) for x in p]
    opt, path = make(params), [[] for _ in p]
    for k in range(STEPS):
        for x, rows in zip(params, g, strict=True):
            x.grad = torch.tensor(rows[k])
        opt.step()
        for x, steps in zip(params, path, strict=True):
            steps.append(x.detach().numpy().copy())
    return [np.array(steps) for steps in path]


def assert_followed(opt: Any, expected: list[Array], p: list[Array], g: list[Array]) -> None:
    path, _ = ours(opt, p, g)
    for found, there, start in zip(path, expected, p, strict=True):
        assert_same_path(found, there, start, f"p of {start.shape}", TOLERANCE)


@pytest.mark.parametrize("beta", [0.9, 0.5])
def test_gravity_without_noise_is_that_of_the_collection(beta: float) -> None:
    p, g = starts(SHAPES), gradients(SHAPES)
    expected = theirs(lambda params: collection.Gravity(params, 0.1, 0.0, beta), p, g)
    assert_followed(optgen.Gravity(0.1, 0.0, beta, backend="interpreter"), expected, p, g)


def test_gravity_starts_with_noise_of_the_length_of_a_step() -> None:
    p = np.zeros(4000)
    optgen.Gravity(0.5, 0.25, 1.0, backend="interpreter").step([p], [np.zeros(4000)])
    assert np.std(p) == pytest.approx(0.25 * 2 / 3, rel=0.05)  # which is kept by (beta + 1)/(1 + 2)


def schedule_free(base: type, **given: Any) -> Callable[[list[Any]], Any]:
    def make(params: list[Any]) -> Any:
        opt = collection.ScheduleFreeWrapper(base(params, **given), momentum=0.75, r=1.0)
        opt.train()
        return opt

    return make


#: Ours, and what makes theirs for some parameters.
CHAINED: dict[str, tuple[Callable[[], Any], Callable[[list[Any]], Any]]] = {
    "SGDW": (
        lambda: chained(optgen.SGD(0.01, momentum=0.9), optgen.WeightDecay(0.01 * 0.1)),
        lambda params: collection.SGDW(params, 0.01, momentum=0.9, weight_decay=0.1),
    ),
    "GrokFastAdamW": (
        lambda: chained(optgen.Grokfast(0.75, 2.0), optgen.ADAMW(0.01 / 3, (0.9, 0.99), 0.1 * 0.01 / 3, 1e-30)),
        lambda params: collection.GrokFastAdamW(params, 0.01, grokfast_alpha=0.75, weight_decay=0.1, eps=1e-30),
    ),
    "Ranger": (
        lambda: chained(
            optgen.GradientCentralisation(), optgen.RAdam(0.01, (0.95, 0.999), 1e-5), optgen.Lookahead(6, 0.5)
        ),
        lambda params: collection.Ranger(params, 0.01, degenerated_to_sgd=True, foreach=False),
    ),
    "ScheduleFreeWrapper, SGD": (
        lambda: chained(optgen.Descent(0.01), optgen.ScheduleFree(0.75, 1.0)),
        schedule_free(torch.optim.SGD, lr=0.01),
    ),
    "ScheduleFreeWrapper, RMSprop": (
        lambda: chained(optgen.RMSprop(0.01), optgen.ScheduleFree(0.75, 1.0)),
        schedule_free(torch.optim.RMSprop, lr=0.01),
    ),
}


@pytest.mark.parametrize("name", CHAINED)
def test_a_chain_is_an_optimiser_of_the_collection(name: str) -> None:
    make, there = CHAINED[name]
    p, g = starts(SHAPES), gradients(SHAPES)
    assert_followed(make(), theirs(there, p, g), p, g)


def test_a_schedule_free_rule_is_evaluated_at_the_mean_of_where_its_steps_led() -> None:
    opt, p, z = chained(optgen.Descent(0.1), optgen.ScheduleFree(0.75)), np.array([1.0, -2.0]), []
    for k in range(9):
        opt.step([p], [np.cos([k, k + 1.0])])
        z.append(opt[1].state(p)["z"].copy())
    opt.eval()
    np.testing.assert_allclose(p, np.mean(z, axis=0), rtol=1e-14)
    opt.train()


class InDouble(ModuleType):
    """torch, whose float32 is float64."""

    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name == "float32" else getattr(torch, name)


@pytest.fixture
def in_backward(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Array]]:
    """Theirs of optimisers that step while gradients are computed, which are those of a loss that is linear."""
    monkeypatch.setattr(lomo, "torch", InDouble("torch"))

    def walk(rule: type, p: list[Array], g: list[Array], eta: float, **given: Any) -> list[Array]:
        model = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(x)) for x in p])
        opt, path = rule(model, eta, **given), [[] for _ in p]
        for k in range(STEPS):
            loss = sum((x * torch.tensor(rows[k])).sum() for x, rows in zip(model, g, strict=True))
            opt.fused_backward(loss, eta)
            for x, steps in zip(model, path, strict=True):
                steps.append(x.detach().numpy().copy())
        return [np.array(steps) for steps in path]

    return walk


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ({"eta": 0.1}, {}),
        (
            {"eta": 0.05, "power": -0.5, "clip": 0.5, "decay": 0.25, "small": 1e-3, "least": 0.1},
            {"decay_rate": -0.5, "clip_threshold": 0.5, "weight_decay": 0.25, "eps1": 1e-3, "eps2": 0.1},
        ),
    ],
    ids=str,
)
def test_adalomo_is_that_of_the_collection(
    in_backward: Callable[..., list[Array]], here: dict[str, float], there: dict[str, float]
) -> None:
    p, g = starts(FLAT), gradients(FLAT)
    expected = in_backward(collection.AdaLOMO, p, g, here["eta"], loss_scale=0.0, **there)
    assert_followed(optgen.AdaLOMO(**here, backend="interpreter"), expected, p, g)


def test_lomo_is_descent(in_backward: Callable[..., list[Array]]) -> None:
    p, g = starts(SHAPES), gradients(SHAPES)
    expected = in_backward(collection.LOMO, p, g, 0.01, clip_grad_value=0.5)
    assert_followed(chained(optgen.ClipGrad(0.5), optgen.Descent(0.01)), expected, p, g)


@pytest.mark.parametrize(("eps", "beta"), [(1e-2, (0.9, 0.99)), (0.05, (0.5, 0.75))])
def test_swats_is_that_of_the_collection_with_one_parameter(
    eps: float, beta: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several parameters here are one long one there; its own addend in roots is left out."""
    base = collection.base.optimizer.BaseOptimizer
    monkeypatch.setattr(base.apply_ams_bound, "__defaults__", (0.0,))
    p, g = starts(SHAPES), gradients(SHAPES)
    joined = [np.concatenate([x.ravel() for x in p])]
    rows = [np.concatenate([x.reshape(STEPS, -1) for x in g], axis=1)]
    (expected,) = theirs(lambda params: collection.SWATS(params, 0.01, beta, eps=eps, foreach=False), joined, rows)
    path, states = ours(optgen.SWATS(0.01, beta, eps, backend="interpreter"), p, g)
    found = np.concatenate([x.reshape(STEPS, -1) for x in path], axis=1)
    assert_same_path(found, expected, joined[0], "p", TOLERANCE)
    switched = np.count_nonzero(states[0]["ratio"] == 0)
    assert 2 < switched < STEPS - 20


# ---- Papers ----


CURVED = np.array([0.1, 0.5, 1.0, 3.0, 10.0])


def slope(x: Array) -> Array:
    return CURVED * x + np.sin(x)


def adgd(x: Array, eta: float) -> list[Array]:
    """Malitsky and Mishchenko, Algorithm 1, with all points, gradients and rates kept."""
    points, grads, rates = [x, x - eta * slope(x)], [slope(x)], [eta]
    for k in range(1, STEPS):
        grads.append(slope(points[k]))
        theta = np.inf if k == 1 else rates[-1] / rates[-2]
        bound = np.linalg.norm(points[k] - points[k - 1]) / (2 * np.linalg.norm(grads[k] - grads[k - 1]))
        rates.append(min(np.sqrt(1 + theta) * rates[-1], bound))
        points.append(points[k] - rates[-1] * grads[k])
    return points[1:]


def test_adgd_is_that_of_the_paper() -> None:
    """Of two parameters as one, along a path that bends: rates grow and fall."""
    opt, x = optgen.AdGD(first=1e-3, backend="interpreter"), np.array([3.0, -2.0, 1.0, -1.0, 0.5])
    p = [x[:2].copy(), x[2:].copy()]
    for there in adgd(x, 1e-3):
        g = slope(np.concatenate(p))
        opt.step(p, [g[:2], g[2:]])
        np.testing.assert_allclose(np.concatenate(p), there, rtol=1e-9, atol=1e-9)
    assert np.abs(there).max() < 1e-3


def test_adgd_keeps_its_rate_where_the_gradient_stays_as_it_is() -> None:
    opt, p = optgen.AdGD(first=0.5, backend="interpreter"), np.zeros(2)
    opt.step([p], [np.ones(2)])
    opt.step([p], [np.ones(2)])
    np.testing.assert_array_equal(p, -1.0)
