"""The rules of the collection pytorch-optimizer that follow the loss, in float64, step for step, against itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from rules import same_everywhere
from trajectories import SHAPES, STEPS, Array, assert_same_path, gradients, starts

import optgen

torch = pytest.importorskip("torch")
emo = pytest.importorskip("pytorch_optimizer.optimizer.emonavi")

pytestmark = pytest.mark.no_cover

TOLERANCE = 1e-10
#: By the name of a rule: what is compared of its states, by what they are called there.
RULES: dict[str, dict[str, str]] = {
    "EmoNavi": {"m": "exp_avg", "v": "exp_avg_sq"},
    "EmoLynx": {"m": "exp_avg"},
    "EmoFact": {"m": "exp_avg"},
}
CASES: list[dict[str, Any]] = [
    {},
    {"eta": 0.05, "decay": 0.25, "beta": (0.5, 0.75)},
    {"eta": 0.05, "decay": 0.25, "beta": (0.5, 0.75), "shadowing": True},
]


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs chooses one of two averages by whether a number is below itself, which only rounding makes true."""

    def trend(ema: dict[str, float]) -> float:
        return math.tanh((ema["long"] - ema["short"]) / max(ema["long"], 1e-5))

    monkeypatch.setattr(emo, "compute_scalar", trend)


def losses() -> Array:
    """A loss that falls slowly, is zero for a while, and leaps up and down, a little and far."""
    k = np.arange(STEPS)
    loss = 2.0 - k / 100
    loss[5:11] = 0
    for first, factor in ((20, 1.8), (32, 3.0), (44, 0.2), (56, 30.0), (80, 0.5), (100, 2.2)):
        loss[first : first + 6] *= factor
    return loss


def called(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Our hyperparameters, by what they are called there."""
    names = {
        "eta": "lr",
        "decay": "weight_decay",
        "beta": "betas",
        "shadowing": "use_shadow",
        "weight": "shadow_weight",
    }
    return {names[key]: value for key, value in given.items()} | {"foreach": False}


@pytest.mark.parametrize("given", CASES, ids=str)
@pytest.mark.parametrize("name", RULES)
def test_a_rule_that_follows_the_loss_is_that_of_the_collection(name: str, given: dict[str, Any]) -> None:
    mine = given | ({"beta": given["beta"][0]} if name == "EmoFact" and given else {})
    p, g = starts(SHAPES), gradients(SHAPES)
    opt, ps = getattr(optgen, name)(**mine, backend="interpreter"), [np.array(x) for x in p]
    params = [torch.nn.Parameter(torch.tensor(x)) for x in p]
    there = getattr(emo, name)(params, **called(name, given))
    states = RULES[name] | ({"shadow": "shadow"} if opt.shadowing else {})
    found: dict[tuple[int, str], list[tuple[Array, Array]]] = {}
    drives = set()
    for loss, *rows in zip(losses(), *g, strict=True):
        for x, row in zip(params, rows, strict=True):
            x.grad = torch.tensor(row)
        there.step(lambda loss=loss: float(loss))
        opt.step(ps, [np.array(row) for row in rows], loss=float(loss))
        drives.add(opt.report()["drive"])
        for i, x in enumerate(params):
            pairs = {"p": (ps[i], x)} | {
                here: (opt.state(ps[i])[here], there.state[x][key])
                for here, key in states.items()
                if here in opt.state(ps[i])
            }
            for what, (ours, theirs) in pairs.items():
                found.setdefault((i, what), []).append((np.array(ours), theirs.detach().numpy().copy()))
    assert 1 in drives
    assert max(drives) > 4
    assert min(drives) < 0.25
    for (i, what), steps in found.items():
        path, expected = (np.array(x) for x in zip(*steps, strict=True))
        start = p[i] if what in ("p", "shadow") else 0.0
        assert_same_path(path, expected, start, f"{what} of {SHAPES[i]}", TOLERANCE)


def test_the_weight_of_the_shadow_is_that_of_the_collection() -> None:
    """EmoNavi's shadow follows where the loss leaps; in that step the parameter goes half the way to it, or less."""
    opt, p = optgen.EmoNavi(0.5, shadowing=True, decay=0.0, weight=0.25, backend="interpreter"), np.zeros(1)
    x = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    there = emo.EmoNavi([x], 0.5, use_shadow=True, shadow_weight=0.25, weight_decay=0.0, foreach=False)
    for loss in (1.0, 1.0, 5.0, 0.0, 1.0):
        x.grad = torch.ones(1, dtype=torch.float64)
        there.step(lambda loss=loss: loss)
        opt.step([p], [np.ones(1)], loss=loss)
        np.testing.assert_allclose(p, x.detach().numpy(), rtol=1e-12)
        np.testing.assert_allclose(opt.state(p)["shadow"], there.state[x]["shadow"].numpy(), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shadowing", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_the_kernel_steps_as_the_interpreter_does(name: str, shadowing: bool, dtype: str) -> None:
    opts = [getattr(optgen, name)(shadowing=shadowing, backend=backend) for backend in ("kernel", "interpreter")]
    worlds = [[np.array(x, dtype) for x in starts(SHAPES)] for _ in opts]
    for loss, *rows in zip(losses(), *gradients(SHAPES), strict=True):
        for opt, ps in zip(opts, worlds, strict=True):
            opt.step(ps, [np.array(row, dtype) for row in rows], loss=float(loss))
    same_everywhere(opts, worlds)
