"""Rules made of powers and exponentials, beside the same rules in eager PyTorch.

    python -m benchmarks.powers

Eight matrices of 512 × 512, float32, one thread. Both take the same steps, or nothing is timed. The rules are those
that optgen ships, except FTRL and AdaI: the shipped ones have no powers, and those of their papers are specs here.
Ratios are of processor time, of both the least of rounds in turns: others on the machine disturb it little.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import optgen

from .measure import interleaved

__all__ = ["EAGER", "agree", "optimiser", "ratios"]

SHAPES = [(512, 512)] * 8
ROUNDS = 15

SPECS = {
    "FTRL": """
[hyperparameters]
eta   = { default = 0.1, range = "(0, inf)" }
power = { default = -0.5, range = "(-1, 0)" }
lam   = { default = [0.01, 0.01], range = "[0, inf)" }
[state]
z = { init = "0" }
n = { init = "0" }
[update]
formulas = '''
new_n = n + g**2
old   = sqrt(n) if power == -0.5 else n**-power
new   = sqrt(new_n) if power == -0.5 else new_n**-power
z     = z + g - (new - old)/eta*p
n     = new_n
p     = 0 if abs(z) <= lam[1] else (sign(z)*lam[1] - z)/(new/eta + 2*lam[2])
'''
""",
    "AdaI": """
[hyperparameters]
eta  = { default = 1e-3, range = "[0, inf)" }
beta = { default = [0.1, 0.99], range = "[0, 1)" }
eps  = { default = 1e-3, range = "(0, 1)" }
damp = { default = 0.9, range = "[0, 1]" }
[state]
m = { init = "0" }
v = { init = "0" }
b = { init = "1" }
[update]
formulas = '''
v     = beta[2]*v + (1 - beta[2])*g**2
near  = v/(1 - beta[2]**t)
each  = clip(1 - (near/mean(near, group))**(1/(3 - 2*damp))*beta[1], 0, 1 - eps)
b     = b*each
m     = each*m + (1 - each)**damp*g
delta = eta*beta[1]**(1 - damp)*m/(1 - b)
'''
""",
}
#: The arguments of shipped rules that are not their defaults.
ARGUMENTS = {"PAdam": {"partial": 0.125}}
#: What each state begins with; None for the parameter.
STATES: dict[str, dict[str, float | None]] = {
    "FTRL": {"z": 0, "n": 0},
    "PAdam": {"m": 0, "v": 0},
    "AdaI": {"m": 0, "v": 0, "b": 1},
    "FAdam": {"m": 0, "fisher": 0},
    "DiffGrad": {"m": 0, "v": 0, "last": 0},
    "AdamG": {"m": 0, "v": 0, "r": 0},
    "MADGRAD": {"s": 0, "n": 0, "p0": None},
}

State = dict[str, torch.Tensor]


def ftrl(p: torch.Tensor, g: torch.Tensor, s: State, t: int) -> None:
    n = s["n"].addcmul(g, g)
    s["z"].add_(g - (n.pow(0.5) - s["n"].pow(0.5)).div_(0.1).mul_(p))
    s["n"].copy_(n)
    step = (s["z"].sign() * 0.01 - s["z"]).div_(n.pow(0.5).div_(0.1).add_(0.02))
    p.copy_(step.masked_fill_(s["z"].abs() <= 0.01, 0.0))


def padam(p: torch.Tensor, g: torch.Tensor, s: State, t: int) -> None:
    s["m"].mul_(0.9).add_(g, alpha=0.1)
    s["v"].mul_(0.999).addcmul_(g, g, value=0.001)
    root = s["v"].sqrt().add_(1e-8)
    p.addcdiv_(s["m"], root.pow_(0.25), value=-0.1 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t))


def rms(x: torch.Tensor) -> float:
    return torch.linalg.vector_norm(x).item() / math.sqrt(x.numel())


def fadam(p: torch.Tensor, g: torch.Tensor, s: State, t: int) -> None:
    keep = 0.999 * (1 - 0.999 ** (t - 1)) / (1 - 0.999**t)
    s["fisher"].mul_(keep).addcmul_(g, g, value=1 - keep)
    typical = rms(g)
    base = s["fisher"].sqrt().add_(min(0.01 * typical, 1e-8) if typical > 0 else 1e-8)
    natural = g / base
    pull = torch.div(p, base, out=base)
    s["m"].mul_(0.9).add_(natural, alpha=0.1 / max(rms(natural), 1.0))
    p.add_(s["m"], alpha=-1e-3).add_(pull, alpha=-1e-3 * 0.1 / max(rms(pull), 1.0))


def diffgrad(p: torch.Tensor, g: torch.Tensor, s: State, t: int) -> None:
    s["m"].mul_(0.9).add_(g, alpha=0.1)
    s["v"].mul_(0.999).addcmul_(g, g, value=0.001)
    friction = s["last"].sub_(g).abs_().sigmoid()
    s["last"].copy_(g)
    root = s["v"].sqrt().add_(1e-8)
    p.addcdiv_(friction.mul_(s["m"]), root, value=-1e-3 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t))


def adamg(p: torch.Tensor, g: torch.Tensor, s: State, t: int) -> None:
    s["v"].mul_(0.999).addcmul_(g, g, value=0.001)
    s["r"].mul_(0.95).add_(s["v"].pow(0.24), alpha=0.05 * 0.2)
    s["m"].mul_(0.95).addcmul_(s["r"], g, value=0.05)
    root = s["v"].div(1 - 0.999**t).sqrt_().add_(1e-8)
    p.addcdiv_(s["m"], root, value=-min(1, 1 / math.sqrt(t)) / (1 - 0.95**t))


def madgrad(p: torch.Tensor, g: torch.Tensor, s: State, t: int) -> None:
    weight = (1e-3 + 1e-6) * math.sqrt(t)
    s["s"].add_(g, alpha=weight)
    s["n"].addcmul_(g, g, value=weight)
    p.lerp_(s["p0"].addcdiv(s["s"], s["n"].pow(1 / 3).add_(1e-6), value=-1), 0.1)


def each(update: Callable[..., None]) -> Callable[..., None]:
    """The step of a rule whose parameters know nothing of each other."""

    def step(params: list[torch.Tensor], grads: list[torch.Tensor], states: list[State], t: int) -> None:
        for row in zip(params, grads, states, strict=True):
            update(*row, t)

    return step


def adai(params: list[torch.Tensor], grads: list[torch.Tensor], states: list[State], t: int) -> None:
    total, count = 0.0, 0
    for g, s in zip(grads, states, strict=True):
        s["v"].mul_(0.99).addcmul_(g, g, value=0.01)
        total += s["v"].sum().item() / (1 - 0.99**t)
        count += g.numel()
    for p, g, s in zip(params, grads, states, strict=True):
        near = s["v"] / (1 - 0.99**t)
        own = near.div_(total / count).pow_(1 / (3 - 2 * 0.9)).mul_(0.1).neg_().add_(1).clamp_(0, 1 - 1e-3)
        s["b"].mul_(own)
        s["m"].mul_(own).addcmul_((1 - own).pow_(0.9), g)
        p.addcdiv_(s["m"], 1 - s["b"], value=-1e-3 * 0.1**0.1)


EAGER = {
    "FTRL": each(ftrl), "PAdam": each(padam), "AdaI": adai, "FAdam": each(fadam), "DiffGrad": each(diffgrad),
    "AdamG": each(adamg), "MADGRAD": each(madgrad),
}  # fmt: skip


def optimiser(rule: str) -> Any:
    """Our optimiser of a rule."""
    if rule not in SPECS:
        return getattr(optgen, rule)(**ARGUMENTS.get(rule, {}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{rule.lower()}.toml")
        path.write_text(f'name = "{rule}"\n{SPECS[rule]}', "utf-8")
        return optgen.load(path)()


class Contest:
    """One rule, ours and eager, on the same numbers."""

    def __init__(self, rule: str, shapes: list[tuple[int, ...]]) -> None:
        rng = np.random.default_rng(0)
        self.rule, self.t = rule, 0
        self.ours = [rng.standard_normal(shape, np.float32) for shape in shapes]
        self.grads = [rng.standard_normal(shape, np.float32) for shape in shapes]
        self.theirs = [torch.from_numpy(p.copy()) for p in self.ours]
        self.their_grads = [torch.from_numpy(g.copy()) for g in self.grads]
        self.states = [
            {name: p.clone() if start is None else torch.full_like(p, start) for name, start in STATES[rule].items()}
            for p in self.theirs
        ]
        self.optimiser = optimiser(rule)

    def step(self) -> None:
        self.optimiser.step(self.ours, self.grads)

    def eager(self) -> None:
        self.t += 1
        with torch.no_grad():
            EAGER[self.rule](self.theirs, self.their_grads, self.states, self.t)


def agree(rule: str, shapes: list[tuple[int, ...]]) -> float:
    """How far both are apart after five steps, beside how far they have moved."""
    contest = Contest(rule, shapes)
    start = [p.copy() for p in contest.ours]
    for _ in range(5):
        contest.step()
        contest.eager()
    pairs = zip(contest.ours, contest.theirs, start, strict=True)
    return max(float(np.abs(p - q.numpy()).max() / np.abs(p - s).max()) for p, q, s in pairs)


def ratios(rounds: int = ROUNDS) -> dict[str, float]:
    """How many times as fast as eager PyTorch each rule steps."""
    found = {}
    torch.set_num_threads(1)
    for rule in EAGER:
        apart = agree(rule, SHAPES[:1])
        assert apart < 1e-3, f"{rule}: {apart}"
        contest = Contest(rule, SHAPES)
        times = interleaved({"ours": contest.step, "eager": contest.eager}, rounds, clock=time.process_time)
        found[rule] = min(times["eager"]) / min(times["ours"])
    return found


def main() -> None:
    os.environ["OPTGEN_NUM_THREADS"] = "1"  # read when the first step starts
    table = Table("rule", "speed ÷ eager PyTorch")
    for rule, faster in ratios().items():
        table.add_row(rule, f"{faster:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
