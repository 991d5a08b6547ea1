"""Training with Flux's rules: a linear regression under each, then a classifier of handwritten digits; some other
rules, and a chain with a schedule.

Prints a table of loss and accuracy for each, and writes a picture of the loss curves beside this file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import optgen
from optgen import Params, chain, cosine, epochs, gradient, param, train, update, warmup

mpl.use("Agg")
from matplotlib import pyplot as plt

PICTURE = Path(__file__).with_name("loss-curves.png")

REGRESSION_STEPS = 200
DIGITS_EPOCHS = 30
BATCH = 64
STEPS = DIGITS_EPOCHS * 23


def chained() -> Any:
    """Gradients clipped together, decay, and a learning rate that warms up and then follows a cosine."""
    eta = warmup(50, cosine(0.01, steps=STEPS - 50))
    return chain(optgen.ClipGlobalNorm(1.0), optgen.WeightDecay(1e-4), optgen.ADAM(eta))


#: What the digits are trained with. On the regression each rule has its defaults.
RULES: dict[str, Callable[[], Any]] = {
    "Descent": lambda: optgen.Descent(0.1),
    "Momentum": lambda: optgen.Momentum(0.01),
    "Nesterov": lambda: optgen.Nesterov(0.01),
    "RMSProp": lambda: optgen.RMSProp(0.002),
    "ADAM": lambda: optgen.ADAM(0.005),
    "AdaMax": lambda: optgen.AdaMax(0.005),
    "ADAGrad": lambda: optgen.ADAGrad(0.05),
    "ADADelta": lambda: optgen.ADADelta(),
    "AMSGrad": lambda: optgen.AMSGrad(0.005),
    "NADAM": lambda: optgen.NADAM(0.005),
    "ADAMW": lambda: optgen.ADAMW(0.005, decay=1e-5),
    "SGD": lambda: optgen.SGD(0.05, momentum=0.9, nesterov=True),
    "Adafactor": lambda: optgen.Adafactor(0.02),
    "LAMB": lambda: optgen.LAMB(0.02),
    "Lion": lambda: optgen.Lion(0.001),
    "ScheduleFreeAdamW": lambda: optgen.ScheduleFreeAdamW(0.01),
    "chain": chained,
}


def regression(name: str) -> tuple[float, float]:
    """The linear regression of Flux's documentation. The loss before and after."""
    rng = np.random.default_rng(0)
    W = param(rng.random((2, 5)))
    b = param(rng.random(2))

    def predict(x: Any) -> Any:
        return W @ x + b

    def loss(x: Any, y: Any) -> Any:
        return np.sum((predict(x) - y) ** 2)

    x, y = rng.random(5), rng.random(2)  # dummy data
    before = float(loss(x, y))
    theta = Params([W, b])
    opt = RULES[name]() if name == "chain" else getattr(optgen, name)()
    for _ in range(REGRESSION_STEPS):
        grads = gradient(lambda: loss(x, y), theta)
        if name == "chain":  # a norm over all gradients needs all of them
            update(opt, theta, grads)
            continue
        for p in (W, b):
            update(opt, p, grads[p])
    return before, float(loss(x, y))


def digits(name: str, data: tuple[np.ndarray, ...]) -> tuple[list[float], float, float]:
    """One hidden layer on 8 × 8 images, in float32. The losses, the accuracy on unseen images, and the seconds."""
    x_train, y_train, x_test, labels_test = data
    rng = np.random.default_rng(1)

    def weights(outputs: int, inputs: int) -> Any:
        return param((rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)).astype(np.float32))

    W1, b1 = weights(32, 64), param(np.zeros(32, np.float32))
    W2, b2 = weights(10, 32), param(np.zeros(10, np.float32))

    def logits(x: Any) -> Any:
        return np.maximum(x @ W1 + b1, 0) @ W2 + b2

    def loss(x: Any, y: Any) -> Any:
        z = logits(x)
        z = z - np.max(z, axis=1, keepdims=True)
        return -np.mean(np.sum(y * (z - np.log(np.sum(np.exp(z), axis=1, keepdims=True))), axis=1))

    curve: list[float] = []
    batches = [(x_train[i : i + BATCH], y_train[i : i + BATCH]) for i in range(0, len(x_train), BATCH)]
    opt = RULES[name]()
    start = time.perf_counter()
    every: Callable[[], None] = lambda: curve.append(float(loss(x_train[:256], y_train[:256])))  # noqa: E731
    train(loss, Params([W1, b1, W2, b2]), epochs(DIGITS_EPOCHS, batches), opt, cb=every)
    seconds = time.perf_counter() - start
    accuracy = float(np.mean(np.argmax(logits(x_test), axis=1) == labels_test))
    return curve, accuracy, seconds


def digits_data() -> tuple[np.ndarray, ...]:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(2).permutation(len(images))
    images, labels = (images[order] / 16).astype(np.float32), labels[order]
    one_hot = np.eye(10, dtype=np.float32)[labels]
    return images[:1437], one_hot[:1437], images[1437:], labels[1437:]


def main() -> None:
    console = Console()
    table = Table(title=f"A regression, {REGRESSION_STEPS} steps with default rates; digits, {DIGITS_EPOCHS} epochs")
    table.add_column("rule")
    for column in ("loss before", "after", "digits: loss", "accuracy", "seconds"):
        table.add_column(column, justify="right")
    data = digits_data()
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    for i, name in enumerate(RULES):
        before, after = regression(name)
        curve, accuracy, seconds = digits(name, data)
        table.add_row(name, f"{before:.3f}", f"{after:.2g}", f"{curve[-1]:.3f}", f"{accuracy:.1%}", f"{seconds:.1f}")
        # Dashed where a rule runs into another: ADAMW without decay is ADAM.
        style = "--" if name in ("ADAMW", "Nesterov", "chain") else "-"
        axes.plot(curve, style, label=name, color=plt.get_cmap("tab20")(i), linewidth=1.4)
        if not (after < before and curve[-1] < curve[0]):
            raise SystemExit(f"{name}: the loss did not fall")
    axes.set(xlabel="step", ylabel="loss on 256 training images", yscale="log", title="Digits under every rule")
    figure.legend(loc="outside right upper")
    axes.grid(alpha=0.3)
    figure.savefig(PICTURE, dpi=120)
    console.print(table)
    console.print(f"The loss curves are in {PICTURE}", soft_wrap=True)


if __name__ == "__main__":
    main()
