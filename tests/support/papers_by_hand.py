"""More rules by hand, as in `flux_by_hand.py`: pure Python, each in another form than its spec.

Besides, what all tests of trajectories share: difficult gradients, and a tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flux_by_hand
import numpy as np
from flux_by_hand import ADAM, Rule, average

Array = np.ndarray[Any, np.dtype[Any]]
TOLERANCE = 1e-12


@dataclass(kw_only=True)
class RADAM(ADAM):
    """Liu et al., Algorithm 2: the rectification as a product of three quotients, ρ∞ as a quotient of sums.

    While t is small, ρ is a small difference of large numbers, and 1 − β₂ᵗ has lost digits. Any other way to compute
    it changes ρ in the eleventh digit, so this one value is the power that the paper writes.
    """

    def tick(self) -> None:
        super().tick()
        b2 = self.beta[1]
        longest = (1.0 + b2) / (1.0 - b2)
        gone = math.pow(b2, self.t)
        self.length = longest - gone / (1.0 - gone) * (2.0 * self.t)
        self.rectified = self.length > 4.0
        if self.rectified:
            quotients = (self.length - 4.0) / (longest - 4.0), (self.length - 2.0) / (longest - 2.0)
            self.share = math.sqrt(quotients[0] * quotients[1] / (self.length / longest))

    def move(self, i: int, p: float, g: float) -> float:
        m, v = self.moments(i, g)
        rate = self.eta / self.weight1
        if self.rectified:
            root = math.sqrt(self.weight2)
            rate *= self.share * root / (math.sqrt(v) + self.eps * root)
        return p - rate * m


@dataclass(kw_only=True)
class OAdam(ADAM):
    """Daskalakis et al.: a body moves as in ADAM, and the parameter is ahead of it by its last step.

    With the body x' = x − s and p = x − s, the last step: p' = x' − s' = p + s − 2s', which is how the paper has it.
    """

    beta: tuple[float, float] = (0.5, 0.9)

    def begin(self, n: int) -> None:
        super().begin(n)
        self.term = [0.0] * n

    def move(self, i: int, p: float, g: float) -> float:
        body = p + self.term[i]
        self.term[i] = -super().move(i, 0.0, g)
        return (body - self.term[i]) - self.term[i]


@dataclass(kw_only=True)
class RMSProp(flux_by_hand.RMSProp):
    """Graves' centred form, with the variance by a recurrence that never subtracts squares of means."""

    centred: bool = False

    def begin(self, n: int) -> None:
        super().begin(n)
        self.avg, self.variance = [0.0] * n, [0.0] * n

    def move(self, i: int, p: float, g: float) -> float:
        if not self.centred:
            return super().move(i, p, g)
        apart = g - self.avg[i]
        self.variance[i] = self.rho * (self.variance[i] + (1.0 - self.rho) * apart * apart)
        self.avg[i] = average(self.avg[i], g, self.rho)
        self.acc[i] = average(self.acc[i], g * g, self.rho)
        return p - self.eta / (math.sqrt(self.variance[i]) + self.eps) * g


@dataclass(kw_only=True)
class AggMo(Rule):
    """Lucas et al., equation 4, without its recurrence: a velocity is the sum of all gradients so far, each with the
    power of its age."""

    eta: float = 0.1
    beta: tuple[float, float, float] = (0.0, 0.9, 0.99)

    def begin(self, n: int) -> None:
        self.past: list[list[float]] = [[] for _ in range(n)]
        self.v1, self.v2, self.v3 = ([0.0] * n for _ in self.beta)

    def move(self, i: int, p: float, g: float) -> float:
        self.past[i].append(g)
        for v, b in zip((self.v1, self.v2, self.v3), self.beta, strict=True):
            v[i] = math.fsum(b ** (self.t - s) * old for s, old in enumerate(self.past[i], 1))
        return p - (self.v1[i] + self.v2[i] + self.v3[i]) * self.eta / 3.0


MORE: dict[str, type[Rule]] = {rule.__name__: rule for rule in (RADAM, OAdam, RMSProp, AggMo)}


def gradients(steps: int, shape: tuple[int, ...] = (8,), seed: int = 11) -> Array:
    """Gradients of different scales, whose signs change slowly and quickly; one stops, and one starts late."""
    rng = np.random.default_rng(seed)
    g = rng.normal(0, 1, (steps, math.prod(shape)))
    g *= np.resize([1.0, 1e-3, 40.0, 1.0, 1e-4, 1.0, 3.0, 1.0], g.shape[1])
    kind = np.arange(g.shape[1]) % 8
    g[:, kind == 3] = np.sin(np.arange(steps) / 9)[:, None]
    g[:, kind == 5] += 2  # of one sign, mostly
    g[steps // 3 :, kind == 6] = 0
    g[: steps // 3, kind == 7] = 0
    return g.reshape(steps, *shape)


def start(shape: tuple[int, ...] = (8,)) -> Array:
    return np.resize([0.5, -2.0, 10.0, 0.0, 1e-3, -0.25, 7.0, 1.0], math.prod(shape)).reshape(shape)


def assert_same_path(path: Sequence[Array] | Array, expected: Sequence[Array] | Array, first: Array) -> None:
    """Assert agreement within 1e-12 of the largest value that each element has had so far, the initial one included."""
    got, there = np.array(path), np.array(expected)
    assert got.shape == there.shape
    assert np.isfinite(there).all()
    scale = np.maximum.accumulate(np.abs(np.concatenate([[first], there])), axis=0)[1:]
    apart = np.abs(got - there) / np.where(scale > 0, scale, 1)
    worst = np.unravel_index(apart.argmax(), apart.shape)
    assert apart.max() <= TOLERANCE, f"{apart.max():.3g} at step and element {tuple(map(int, worst))}"
