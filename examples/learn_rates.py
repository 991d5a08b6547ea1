"""Learning rates learned by gradient descent: gradients go through the steps of training, to the rate of each layer.

    pip install ".[torch]"
    python examples/learn_rates.py

A network is trained for a few steps, again and again from the same start. The loss at the end is a function of the
learning rates, one for each layer, and is differentiated with respect to them, as in Maclaurin et al., Gradient-based
Hyperparameter Optimization through Reversible Learning, 2015, arXiv:1502.03492; here all steps are kept in memory.

In: a rule, and how many times it is trained. Out: the loss at the end and the rates, each time. Nothing is downloaded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import optgen

FEATURES, HIDDEN, CLASSES, POINTS, STEPS = 20, 32, 10, 256, 20
#: How far the logarithm of a learning rate moves at most.
FURTHEST = 0.4


def points(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around ten centres, with the numbers of these."""
    centres = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(POINTS, FEATURES, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(POINTS) % CLASSES
    return centres[labels] + noise, labels


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


def trained(model: nn.Module, rule: Any, rates: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters after training; `rates`: the learning rate of each layer, by the beginning of its names."""
    x, labels = points(seed=1)
    params = dict(model.named_parameters())
    layers = {layer: [name for name in params if name.startswith(layer)] for layer in rates}
    states = {layer: rule.init([params[name] for name in names]) for layer, names in layers.items()}
    for t in range(1, STEPS + 1):
        loss = nn.functional.cross_entropy(torch.func.functional_call(model, params, x), labels)
        grads = dict(zip(params, torch.autograd.grad(loss, list(params.values()), create_graph=True), strict=True))
        for layer, names in layers.items():
            own, given = [params[name] for name in names], [grads[name] for name in names]
            stepped, states[layer] = rule(own, given, states[layer], t, {"eta": rates[layer]})
            params |= dict(zip(names, stepped, strict=True))
    return params


def learn(rule: Any, start: float, times: int) -> tuple[list[float], dict[str, float]]:
    """The loss on other points after each training, and the learning rates at the end."""
    model, (x, labels) = network(), points(seed=2)
    logarithms = {layer: torch.tensor(start).log().requires_grad_() for layer in ("0.", "2.")}
    curve = []
    for _ in range(times):
        params = trained(model, rule, {layer: each.exp() for layer, each in logarithms.items()})
        loss = nn.functional.cross_entropy(torch.func.functional_call(model, params, x), labels)
        slopes = torch.autograd.grad(loss, list(logarithms.values()))
        curve.append(float(loss.detach()))
        for each, slope in zip(logarithms.values(), slopes, strict=True):
            each.data -= (5 * slope).clamp(-FURTHEST, FURTHEST)
    return curve, {layer: float(each.detach().exp()) for layer, each in logarithms.items()}


def main() -> None:
    for rule, start in ((optgen.Descent, 0.02), (optgen.ADAM, 0.001)):
        curve, rates = learn(rule.function("torch"), start, times=12)
        print(
            f"{rule.__name__}: loss after {STEPS} steps {curve[0]:.3f} → {curve[-1]:.3f}, learning rates from {start}"
        )
        for layer, rate in rates.items():
            print(f"    layer {layer.rstrip('.')}: {rate:.4f}")


if __name__ == "__main__":
    main()
