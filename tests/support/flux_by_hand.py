"""Flux's eleven rules, written by hand: an independent source that the specs are tested against.

This is pure Python on purpose. It works on one float at a time and calls nothing but `math`, so it cannot share a fault
with anything that the package rests on: NumPy, a C compiler, vectorised loops, broadcasting. For the same reason no
rule is copied from its spec. Wherever algebra allows, a rule stands here in another form, equal but for rounding, so
that a slip in transcribing one form is not repeated in the other.

One object holds the state of one parameter, a flat list of numbers; its `t` counts that parameter's updates, from 1.
States have the names of the spec (`m`, `v`, `acc`, ...) and exist from the first step on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


def average(old: float, new: float, keep: float) -> float:
    """One step of an exponential moving average."""
    # `new + keep * (old - new)` would cancel where the two differ much in magnitude.
    return (1.0 - keep) * new + keep * old


@dataclass(kw_only=True)
class Rule:
    """The part common to all rules: counts the update, then moves every element."""

    t: int = field(default=0, init=False)

    def begin(self, n: int) -> None:
        """Create the state for n elements."""

    def tick(self) -> None:
        """Advance the values that all elements share."""

    def move(self, i: int, p: float, g: float) -> float:
        """Update the state of element i and return its new value."""
        raise NotImplementedError

    def step(self, p: Sequence[float], g: Sequence[float]) -> list[float]:
        if self.t == 0:
            self.begin(len(p))
        self.t += 1
        self.tick()
        # `float`, since a NumPy scalar would bring its own arithmetic, and in float32 its own precision.
        return [self.move(i, float(p_i), float(g_i)) for i, (p_i, g_i) in enumerate(zip(p, g, strict=True))]


@dataclass(kw_only=True)
class Descent(Rule):
    eta: float = 0.1

    def move(self, i: int, p: float, g: float) -> float:
        return p - self.eta * g


@dataclass(kw_only=True)
class Momentum(Rule):
    """The heavy ball: a step down the gradient, then a share of the last step again."""

    eta: float = 0.01
    rho: float = 0.9

    def begin(self, n: int) -> None:
        self.v = [0.0] * n

    def move(self, i: int, p: float, g: float) -> float:
        downhill, coasting = self.eta * g, self.rho * self.v[i]
        self.v[i] = coasting + downhill
        return (p - downhill) - coasting


@dataclass(kw_only=True)
class Nesterov(Rule):
    """Nesterov's method, with the look-ahead point as the parameter.

    A body x moves with velocity v, and gradients are taken at p = x + ρv. So v' = ρv − ηg and x' = x + v' = p − ηg.
    """

    eta: float = 0.001
    rho: float = 0.9

    def begin(self, n: int) -> None:
        self.v = [0.0] * n

    def move(self, i: int, p: float, g: float) -> float:
        body = p - self.eta * g
        self.v[i] = self.rho * self.v[i] - self.eta * g
        return body + self.rho * self.v[i]


@dataclass(kw_only=True)
class RMSProp(Rule):
    eta: float = 0.001
    rho: float = 0.9
    eps: float = 1e-8

    def begin(self, n: int) -> None:
        self.acc = [0.0] * n

    def move(self, i: int, p: float, g: float) -> float:
        self.acc[i] = average(self.acc[i], g * g, self.rho)
        return p - self.eta * (g / (self.eps + math.sqrt(self.acc[i])))


@dataclass(kw_only=True)
class ADAGrad(Rule):
    """Every element's rate falls with the Euclidean norm of all its gradients so far."""

    eta: float = 0.1
    eps: float = 1e-8

    def begin(self, n: int) -> None:
        self.acc = [self.eps] * n

    def move(self, i: int, p: float, g: float) -> float:
        norm = math.hypot(math.sqrt(self.acc[i]), g)
        self.acc[i] = norm * norm
        return p - self.eta / (norm + self.eps) * g


@dataclass(kw_only=True)
class ADADelta(Rule):
    """The RMS of past steps over the RMS of gradients, as the square root of one quotient."""

    rho: float = 0.9
    eps: float = 1e-8
    eta: float = 1.0

    def begin(self, n: int) -> None:
        self.acc, self.dacc = [0.0] * n, [0.0] * n

    def move(self, i: int, p: float, g: float) -> float:
        self.acc[i] = average(self.acc[i], g * g, self.rho)
        squared_rate = (self.dacc[i] + self.eps) / (self.acc[i] + self.eps)
        self.dacc[i] = average(self.dacc[i], squared_rate * g * g, self.rho)
        return p - self.eta * math.sqrt(squared_rate) * g


@dataclass(kw_only=True)
class ADAM(Rule):
    """Kingma and Ba, as at the end of their section 2: the corrections are moved into the rate and into ε.

    The weights of an average that starts at 0 sum to 1 − βᵗ. Here that sum is never computed as a power: it is the
    same average of ones.
    """

    eta: float = 0.001
    beta: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def begin(self, n: int) -> None:
        self.m, self.v = [0.0] * n, [0.0] * n
        self.weight1 = self.weight2 = 0.0

    def tick(self) -> None:
        self.weight1 = average(self.weight1, 1.0, self.beta[0])
        self.weight2 = average(self.weight2, 1.0, self.beta[1])

    def moments(self, i: int, g: float) -> tuple[float, float]:
        self.m[i] = average(self.m[i], g, self.beta[0])
        self.v[i] = average(self.v[i], g * g, self.beta[1])
        return self.m[i], self.v[i]

    def move(self, i: int, p: float, g: float) -> float:
        m, v = self.moments(i, g)
        root = math.sqrt(self.weight2)
        return p - self.eta * root / self.weight1 * (m / (math.sqrt(v) + self.eps * root))


@dataclass(kw_only=True)
class ADAMW(ADAM):
    """Loshchilov and Hutter: the parameter shrinks by a factor, separately from ADAM's step."""

    decay: float = 0.0
    coupled: bool = False

    def move(self, i: int, p: float, g: float) -> float:
        shrinkage = self.decay * (self.eta if self.coupled else 1.0)
        # ADAM's step does not depend on the parameter, so shrinking first shrinks the old one.
        return super().move(i, (1.0 - shrinkage) * p, g)


@dataclass(kw_only=True)
class NADAM(ADAM):
    """Dozat: ADAM with the average one step ahead, and with the sum of weights that belongs to it."""

    def move(self, i: int, p: float, g: float) -> float:
        m, v = self.moments(i, g)
        b1, b2 = self.beta
        ahead = b1 / average(self.weight1, 1.0, b1) * m
        fresh = (1.0 - b1) / self.weight1 * g
        return p - self.eta * (ahead + fresh) / (math.sqrt(b2 / self.weight2) * math.sqrt(v) + self.eps)


@dataclass(kw_only=True)
class AMSGrad(ADAM):
    """Reddi, Kale and Kumar: no correction, and a denominator that never falls. All its averages start at ε."""

    def begin(self, n: int) -> None:
        super().begin(n)
        self.m, self.v, self.vhat = [self.eps] * n, [self.eps] * n, [self.eps] * n

    def move(self, i: int, p: float, g: float) -> float:
        m, v = self.moments(i, g)
        highest = max(math.sqrt(self.vhat[i]), math.sqrt(v))
        self.vhat[i] = max(self.vhat[i], v)
        return p - self.eta / (highest + self.eps) * m


@dataclass(kw_only=True)
class AdaMax(Rule):
    """ADAM in the infinity norm: u is the largest gradient so far, each discounted by its age."""

    eta: float = 0.001
    beta: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def begin(self, n: int) -> None:
        self.m, self.u = [0.0] * n, [0.0] * n
        self.weight = 0.0

    def tick(self) -> None:
        self.weight = average(self.weight, 1.0, self.beta[0])

    def move(self, i: int, p: float, g: float) -> float:
        self.m[i] = average(self.m[i], g, self.beta[0])
        faded = self.beta[1] * self.u[i]
        self.u[i] = max(faded, g, -g)
        return p - self.eta * self.m[i] / (self.weight * (self.u[i] + self.eps))


RULES: dict[str, type[Rule]] = {
    rule.__name__: rule
    for rule in (Descent, Momentum, Nesterov, RMSProp, ADAM, AdaMax, ADAGrad, ADADelta, AMSGrad, NADAM, ADAMW)
}


def trajectory(
    rule: str | type[Rule], gradients: Iterable[Sequence[float]], p0: Sequence[float], **hyper: object
) -> list[list[float]]:
    """The parameter after each of the given gradients, starting from p0, which is neither changed nor included."""
    stepper = (RULES[rule] if isinstance(rule, str) else rule)(**hyper)
    path, p = [], list(p0)
    for g in gradients:
        p = stepper.step(p, g)
        path.append(p)
    return path
