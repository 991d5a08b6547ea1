"""A step with a learning rate of zero and gradients of zeros changes no parameter, bit for bit.

PyTorch's distributed checkpoints take such a step to give an optimiser its states (pytorch#125708).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rules import RULES, SPECS, SUBJECTS, another, make, part_of

from optgen.optimiser.base import settings_of

#: Rules that move by definition, and by which of their hyperparameters.
MOVES = {
    "BSAM": ("", "BSAM leaves the parameter at a random point around its mean"),
    "ADAMW": ("decay", "Flux's ADAMW shrinks parameters by `decay` itself, which no learning rate multiplies"),
}
RATES = ("eta", "lr")


def others(opt: Any) -> dict[str, Any]:
    """All but the learning rate as it is not by default, so that decays and momenta take part."""
    found: dict[str, Any] = {}
    for hyper in settings_of(opt).rule.hypers:
        if hyper.name not in RATES:
            found[hyper.name] = another(hyper)
    return found


def parameters() -> list[np.ndarray]:
    """Vectors and matrices of ordinary, huge and tiny numbers, in both dtypes."""
    rng = np.random.default_rng(0)
    made = []
    for dtype in (np.float32, np.float64):
        for shape in ((40,), (6, 7), (3, 2, 5)):
            x = rng.standard_normal(shape).astype(dtype)
            x.ravel()[:5] = [1e10, -1e-10, 1e-20, -3e-39, 0.1]
            made.append(x)
    return made


def settle(opt: Any) -> None:
    """Gives the optimiser, and each part of a chain, a learning rate of zero."""
    for part in getattr(opt, "parts", [opt]):
        for name in RATES:
            if name in settings_of(part).spellings and type(part).__name__ not in ("ExpDecay", "InvDecay"):
                setattr(part, name, 0.0)


@pytest.mark.parametrize("backend", ["kernel", "interpreter"])
@pytest.mark.parametrize("chosen", ["defaults", "others"])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_step_of_zero_changes_nothing(subject: str, chosen: str, backend: str) -> None:
    given = others(part_of(make(subject))) if chosen == "others" else {}
    opt = make(subject, backend, **given)
    settle(opt)
    params = parameters()
    before = [p.tobytes() for p in params]
    for _ in range(7):
        opt.step(params, [np.zeros_like(p) for p in params])
    name = type(part_of(opt)).__name__
    moved = [p.tobytes() for p in params] != before
    assert moved == (name in MOVES and given.get(MOVES[name][0], not MOVES[name][0]) != 0)


@pytest.mark.parametrize("name", RULES)
def test_a_step_of_zero_changes_no_tensor(name: str) -> None:
    torch = pytest.importorskip("torch")
    import optgen.torch

    params = [torch.nn.Parameter(torch.from_numpy(p)) for p in parameters()]
    params += [torch.nn.Parameter(p.detach().bfloat16()) for p in params[:3]]
    opt = getattr(optgen.torch, name)(params)
    for group in opt.param_groups:  # as torch.distributed.checkpoint.state_dict does
        if "lr" in group:
            group["lr"] = 0.0
    before = [p.detach().clone() for p in params]
    numbers = dict.fromkeys(SPECS[name].rules[0].given_numbers, 0.5)
    for _ in range(7):
        for p in params:
            p.grad, p.hessian = torch.zeros_like(p), torch.ones_like(p)
        opt.step(**numbers)
        if SPECS[name].rules[0].phases:  # only such a step runs all phases without a closure, and the states are there
            break
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True)) == (name not in MOVES or name == "ADAMW")
