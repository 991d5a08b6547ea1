"""Rules with several phases, in float64 and step for step, against independent sources: the collection
pytorch-optimizer, and papers written out.

A gradient depends on where it is taken, so that what a phase does to the parameters shows in all that follows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from trajectories import Array

import optgen

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.no_cover

STEPS = 120
TOLERANCE = 1e-11
chained = partial(optgen.chain, backend="interpreter")  # kernels have the same bits


def starts() -> list[Array]:
    rng = np.random.default_rng(5)
    return [rng.normal(size=shape) for shape in ((4, 3), (3,), ())]


def gradients(ps: Sequence[Any], t: int) -> list[Any]:
    """Those of a loss of all parameters together, which changes from step to step: of arrays or tensors."""
    W, b, c = ps
    x = np.random.default_rng(100 + t).normal(size=(6, 4))
    W, b, c = (torch.tensor(np.asarray(p), requires_grad=True) for p in (W, b, c))
    loss = (torch.tanh(torch.tensor(x) @ W + b) - 0.3 * c).square().mean() + 0.05 * c**2 + 0.01 * W.square().sum()
    return [g.numpy() for g in torch.autograd.grad(loss, [W, b, c])]


def path_of(opt: Any) -> list[list[Array]]:
    """The parameters after each step."""
    ps, path = starts(), []
    for t in range(STEPS):
        ended = False
        while not ended:
            ended = opt.phase == opt.rule.phases[-1]
            opt.step(ps, gradients(ps, t))
        path.append([p.copy() for p in ps])
    return path


def assert_same(path: Sequence[Sequence[Array]], expected: Sequence[Sequence[Array]], what: str) -> None:
    for t, (ours, theirs) in enumerate(zip(path, expected, strict=True)):
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p, q, rtol=TOLERANCE, atol=TOLERANCE, err_msg=f"{what}, step {t}")


# ---- The collection ----

COLLECTED: dict[str, tuple[str, Callable[[], Any], dict[str, Any], type, dict[str, Any]]] = {
    "SAM": (
        "SAM", lambda: chained(optgen.SAM(0.1), optgen.SGD(0.1)), {"rho": 0.1}, torch.optim.SGD, {"lr": 0.1}
    ),
    "SAM, ADAM": (
        "SAM", lambda: chained(optgen.SAM(0.2, eps=1e-3), optgen.ADAM(0.05)),
        {"rho": 0.2, "perturb_eps": 1e-3}, torch.optim.Adam, {"lr": 0.05},
    ),
    "SAM, adaptive": (
        "SAM", lambda: chained(optgen.SAM(0.1, adaptive=True), optgen.SGD(0.1)),
        {"rho": 0.1, "adaptive": True}, torch.optim.SGD, {"lr": 0.1},
    ),
    "FriendlySAM": (
        "FriendlySAM", lambda: chained(optgen.FriendlySAM(0.1, 0.75, 0.6), optgen.SGD(0.1)),
        {"rho": 0.1, "sigma": 0.75, "lmbda": 0.6}, torch.optim.SGD, {"lr": 0.1},
    ),
    "FriendlySAM, adaptive": (
        "FriendlySAM", lambda: chained(optgen.FriendlySAM(0.1, adaptive=True), optgen.ADAM(0.05)),
        {"rho": 0.1, "adaptive": True}, torch.optim.Adam, {"lr": 0.05},
    ),
    "WSAM": (
        "WSAM", lambda: chained(optgen.WSAM(0.05, 0.1, 0.8), optgen.ADAM(0.05)),
        {"rho": 0.1, "gamma": 0.8}, torch.optim.Adam, {"lr": 0.05},
    ),
    "WSAM, coupled and adaptive": (
        "WSAM", lambda: chained(optgen.WSAM(rho=0.1, gamma=0.3, adaptive=True, decoupled=False), optgen.SGD(0.1)),
        {"rho": 0.1, "gamma": 0.3, "adaptive": True, "decouple": False}, torch.optim.SGD, {"lr": 0.1},
    ),
    "GSAM": (
        "GSAM", lambda: chained(optgen.GSAM(0.1, 0.75, 1e-6), optgen.ADAM(0.05)),
        {"alpha": 0.75, "perturb_eps": 1e-6}, torch.optim.Adam, {"lr": 0.05},
    ),
    "GSAM, adaptive": (
        "GSAM", lambda: chained(optgen.GSAM(0.1, adaptive=True), optgen.SGD(0.1)),
        {"adaptive": True}, torch.optim.SGD, {"lr": 0.1},
    ),
    "LookSAM": (
        "LookSAM", lambda: chained(optgen.LookSAM(0.1, 3, 0.5), optgen.SGD(0.1)),
        {"rho": 0.1, "k": 3, "alpha": 0.5}, torch.optim.SGD, {"lr": 0.1},
    ),
    "LookSAM, adaptive": (
        "LookSAM", lambda: chained(optgen.LookSAM(0.1, adaptive=True), optgen.ADAM(0.05)),
        {"rho": 0.1, "adaptive": True}, torch.optim.Adam, {"lr": 0.05},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COLLECTED)
def test_a_rule_is_that_of_the_collection(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pytorch_optimizer")
    from pytorch_optimizer.optimizer import sam

    def squared_norm(groups: Any, *_: Any, weight_adaptive: bool = False) -> Any:  # theirs sums in float32
        found = [
            ((p.abs() if weight_adaptive and group.get("adaptive") else 1) * p.grad).square().sum()
            for group in groups for p in group["params"]
        ]  # fmt: skip
        return sum(found).reshape(1)

    monkeypatch.setattr(sam, "get_global_gradient_norm", squared_norm)
    theirs, made, options, base, arguments = COLLECTED[name]
    ps = [torch.nn.Parameter(torch.tensor(p)) for p in starts()]
    own = {"model": torch.nn.Module()} if theirs in ("WSAM", "GSAM") else {}
    if theirs == "GSAM":
        own |= {"base_optimizer": base(ps, **arguments), "rho_scheduler": SimpleNamespace(step=lambda: 0.1)}
    else:
        own |= {"base_optimizer": base, **arguments}
    opt = getattr(sam, theirs)(params=ps, **own, **options)
    expected = []
    for t in range(STEPS):

        def closure(t: int = t) -> Any:
            with torch.enable_grad():
                grads = gradients([p.detach() for p in ps], t)
            for p, g in zip(ps, grads, strict=True):
                p.grad = torch.tensor(g)
            return (None, torch.tensor(0.0)) if theirs == "GSAM" else torch.tensor(0.0)

        if theirs not in ("WSAM", "GSAM"):
            closure()
        opt.step(closure)
        expected.append([p.detach().numpy().copy() for p in ps])
    assert_same(path_of(made()), expected, name)


# ---- Papers ----


def extragradient(ps: list[Array], t: int, kept: dict[str, Any]) -> None:
    ahead = [p - 0.2 * g for p, g in zip(ps, gradients(ps, t), strict=True)]
    for p, g in zip(ps, gradients(ahead, t), strict=True):
        p -= 0.2 * g


def bsam(ps: list[Array], t: int, kept: dict[str, Any], *, noises: Sequence[Sequence[Array]]) -> None:
    """Algorithm 1 of Möllenhoff and Khan: ω is `ps`; the noises are those that optgen has drawn."""
    m, s = kept.setdefault("m", [0.0 * p for p in ps]), kept.setdefault("s", [1 + 0 * p for p in ps])
    theta = [w + e / np.sqrt(1000 * v) for w, e, v in zip(ps, noises[t], s, strict=True)]
    g = gradients(theta, t)
    there = gradients([w + 0.1 * each / v for w, each, v in zip(ps, g, s, strict=True)], t)
    for i, w in enumerate(ps):
        m[i] = 0.5 * m[i] + (1 - 0.5) * (there[i] + 0.01 * w)
        s[i] = 0.75 * s[i] + (1 - 0.75) * (np.sqrt(s[i]) * np.abs(g[i]) + 0.01 + 0.2)
        w -= 0.05 * m[i] / s[i]


def written_out(step: Callable[..., None], **given: Any) -> list[list[Array]]:
    ps, kept, path = starts(), {}, []
    for t in range(STEPS):
        step(ps, t, kept, **given)
        path.append(copy.deepcopy(ps))
    return path


def test_extragradient_is_that_of_the_paper() -> None:
    assert_same(path_of(optgen.ExtraGradient(0.2, backend="interpreter")), written_out(extragradient), "ExtraGradient")


def test_bsam_is_that_of_the_paper() -> None:
    opt = optgen.BSAM(eta=0.05, beta=(0.5, 0.75), rho=0.1, decay=0.01, gamma=0.2, count=1000, backend="interpreter")
    ps, path = starts(), []
    noises = [[0 * p for p in ps]]  # of the next step
    for t in range(STEPS):
        for _ in opt.rule.phases:
            opt.step(ps, gradients(ps, t))
        states = [opt.state(p) for p in ps]
        noises.append([(p - s["centre"]) * np.sqrt(1000 * s["s"]) for p, s in zip(ps, states, strict=True)])
        opt.eval()
        path.append([p.copy() for p in ps])
        opt.train()
    assert np.std([x for each in noises[1:] for e in each for x in e.ravel()]) == pytest.approx(1, abs=0.05)
    assert_same(path, written_out(bsam, noises=noises), "BSAM")


def test_extragradient_ends_where_descent_goes_in_circles() -> None:
    """x·y, of which x is the least and y the largest."""

    def end(opt: Any) -> float:
        x, y = np.array(1.0), np.array(1.0)
        for _ in range(2000):
            opt.step([x, y], [y.copy(), -x])
        return float(np.hypot(x, y))

    assert end(optgen.ExtraGradient(0.1, backend="interpreter")) < 1e-2
    assert end(optgen.Descent(0.1, backend="interpreter")) > 1
