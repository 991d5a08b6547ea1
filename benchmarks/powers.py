"""Rules made of powers and exponentials, beside the same rules in eager PyTorch.

    python -m benchmarks.powers

Eight matrices of 512 × 512, float32, one thread. Both take the same steps, or nothing is timed. The rules are those of
their papers, as collections for PyTorch have them.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import optgen

from .measure import ROUNDS, interleaved, ratio

__all__ = ["EAGER", "SPECS", "agree", "optimiser", "ratios"]

SHAPES = [(512, 512)] * 8

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
z     = z + g - (new_n**-power - n**-power)/eta*p
n     = new_n
p     = 0 if abs(z) <= lam[1] else (sign(z)*lam[1] - z)/(n**-power/eta + 2*lam[2])
'''
""",
    "PAdam": """
[hyperparameters]
eta     = { default = 0.1, range = "[0, inf)" }
beta    = { default = [0.9, 0.999], range = "[0, 1)" }
partial = { default = 0.125, range = "(0, 0.5]" }
eps     = { default = 1e-8, range = "[0, inf)" }
[state]
m = { init = "0" }
v = { init = "0" }
[update]
formulas = '''
m     = beta[1]*m + (1 - beta[1])*g
v     = beta[2]*v + (1 - beta[2])*g**2
delta = eta/(1 - beta[1]**t)*m/(sqrt(v/(1 - beta[2]**t)) + eps)**(2*partial)
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
    "FAdam": """
[hyperparameters]
eta  = { default = 1e-3, range = "[0, inf)" }
beta = { default = [0.9, 0.999], range = "[0, 1)" }
most = { default = 1, range = "(0, inf)" }
decay = { default = 0.1, range = "[0, inf)" }
eps  = { default = 1e-8, range = "(0, inf)" }
[state]
m = { init = "0" }
f = { init = "1" }
[update]
formulas = '''
now   = beta[2]*(1 - beta[2]**(t - 1))/(1 - beta[2]**t)
f     = now*f + (1 - now)*g**2
base  = sqrt(f) + eps
n     = g/base
m     = beta[1]*m + (1 - beta[1])*n/(max(1, sqrt(mean(n**2)))/most)
w     = p/base
delta = eta*(m + decay*w/(max(1, sqrt(mean(w**2)))/most))
'''
""",
    "DiffGrad": """
[hyperparameters]
eta  = { default = 1e-3, range = "[0, inf)" }
beta = { default = [0.9, 0.999], range = "[0, 1)" }
eps  = { default = 1e-8, range = "(0, inf)" }
[state]
m = { init = "0" }
v = { init = "0" }
before = { init = "0" }
[update]
formulas = '''
m      = beta[1]*m + (1 - beta[1])*g
v      = beta[2]*v + (1 - beta[2])*g**2
near   = 1/(1 + exp(-abs(before - g)))
before = g
delta  = eta/(1 - beta[1]**t)*m*near/(sqrt(v/(1 - beta[2]**t)) + eps)
'''
""",
    "AdamG": """
[hyperparameters]
eta  = { default = 1, range = "[0, inf)" }
beta = { default = [0.95, 0.999, 0.95], range = "[0, 1)" }
a    = { default = 0.2, range = "(0, inf)" }
q    = { default = 0.24, range = "(0, 1)" }
eps  = { default = 1e-8, range = "(0, inf)" }
[state]
m = { init = "0" }
v = { init = "0" }
r = { init = "0" }
[update]
formulas = '''
v     = beta[2]*v + (1 - beta[2])*g**2
r     = beta[3]*r + (1 - beta[3])*a*v**q
m     = beta[1]*m + (1 - beta[1])*r*g
delta = min(eta, 1/sqrt(t))*m/(1 - beta[1]**t)/(sqrt(v/(1 - beta[2]**t)) + eps)
'''
""",
    "MADGRAD": """
[hyperparameters]
eta = { default = 1e-3, range = "[0, inf)" }
rho = { default = 0.9, range = "[0, 1)" }
eps = { default = 1e-6, range = "(0, inf)" }
[state]
s = { init = "0" }
v = { init = "0" }
x = { init = "p" }
[update]
formulas = '''
rate = (eta + eps)*sqrt(t)
v    = v + rate*g**2
s    = s + rate*g
p    = rho*p + (1 - rho)*(x - s/(cbrt(v) + eps))
'''
""",
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
    root = s["v"].div(1 - 0.999**t).sqrt_().add_(1e-8)
    p.addcdiv_(s["m"], root.pow_(0.25), value=-0.1 / (1 - 0.9**t))


def fadam(p: torch.Tensor, g: torch.Tensor, s: State, t: int) -> None:
    now = 0.999 * (1 - 0.999 ** (t - 1)) / (1 - 0.999**t)
    s["f"].mul_(now).addcmul_(g, g, value=1 - now)
    base = s["f"].pow(0.5).add_(1e-8)
    n = g / base
    n.div_(max(1.0, n.pow(2).mean().sqrt().item()))
    s["m"].mul_(0.9).add_(n, alpha=0.1)
    w = p / base
    w.div_(max(1.0, w.pow(2).mean().sqrt().item()))
    p.sub_(s["m"].add(w, alpha=0.1), alpha=1e-3)


def diffgrad(p: torch.Tensor, g: torch.Tensor, s: State, t: int) -> None:
    s["m"].mul_(0.9).add_(g, alpha=0.1)
    s["v"].mul_(0.999).addcmul_(g, g, value=0.001)
    near = (s["before"] - g).abs_().neg_().exp_().add_(1).reciprocal_()
    s["before"].copy_(g)
    root = s["v"].div(1 - 0.999**t).sqrt_().add_(1e-8)
    p.addcdiv_(s["m"] * near, root, value=-1e-3 / (1 - 0.9**t))


def adamg(p: torch.Tensor, g: torch.Tensor, s: State, t: int) -> None:
    s["v"].mul_(0.999).addcmul_(g, g, value=0.001)
    s["r"].mul_(0.95).add_(s["v"].pow(0.24), alpha=0.05 * 0.2)
    s["m"].mul_(0.95).addcmul_(s["r"], g, value=0.05)
    root = s["v"].div(1 - 0.999**t).sqrt_().add_(1e-8)
    p.addcdiv_(s["m"], root, value=-min(1, 1 / math.sqrt(t)) / (1 - 0.95**t))


def madgrad(p: torch.Tensor, g: torch.Tensor, s: State, t: int) -> None:
    rate = (1e-3 + 1e-6) * math.sqrt(t)
    s["v"].addcmul_(g, g, value=rate)
    s["s"].add_(g, alpha=rate)
    p.mul_(0.9).add_(s["x"].addcdiv(s["s"], s["v"].pow(1 / 3).add_(1e-6), value=-1), alpha=0.1)


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
START = {"b": 1.0, "f": 1.0}


def optimiser(rule: str) -> Any:
    """Our optimiser class of a rule."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{rule.lower()}.toml")
        path.write_text(f'name = "{rule}"\n{SPECS[rule]}', "utf-8")
        return optgen.load(path)


class Contest:
    """One rule, ours and eager, on the same numbers."""

    def __init__(self, rule: str, shapes: list[tuple[int, ...]]) -> None:
        rng = np.random.default_rng(0)
        self.rule, self.t = rule, 0
        self.ours = [rng.standard_normal(shape, np.float32) for shape in shapes]
        self.grads = [rng.standard_normal(shape, np.float32) for shape in shapes]
        self.theirs = [torch.from_numpy(p.copy()) for p in self.ours]
        self.their_grads = [torch.from_numpy(g.copy()) for g in self.grads]
        names = [
            line.split()[0] for line in SPECS[rule].partition("[state]\n")[2].partition("\n[update]")[0].split("\n")
        ]
        self.states = [
            {name: p.clone() if name == "x" else torch.full_like(p, START.get(name, 0.0)) for name in names}
            for p in self.theirs
        ]
        self.optimiser = optimiser(rule)()

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
    for rule in SPECS:
        apart = agree(rule, SHAPES[:1])
        assert apart < 1e-3, f"{rule}: {apart}"
        contest = Contest(rule, SHAPES)
        times = interleaved({"ours": contest.step, "eager": contest.eager}, rounds)
        found[rule] = ratio(times["eager"], times["ours"])
    return found


def main() -> None:
    os.environ["OPTGEN_NUM_THREADS"] = "1"  # read when the first step starts
    table = Table("rule", "speed ÷ eager PyTorch")
    for rule, faster in ratios().items():
        table.add_row(rule, f"{faster:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
