"""Training with rules of four families: a linear regression under each, then a classifier of handwritten digits.

Prints a table of losses and accuracies, and writes a picture of the losses beside this file: a panel for each family.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import optgen
from optgen import Params, chain, cosine, gradient, linear, param, train, update, warmup

PICTURE = Path(__file__).with_name("loss-curves.png")

REGRESSION_STEPS = 200
EPOCHS, BATCH, IMAGES = 30, 64, 1437
STEPS = EPOCHS * math.ceil(IMAGES / BATCH)


def lamb() -> Any:
    """LAMB as its paper uses it: a rate that rises, and then falls to zero along a line. A step is as long as the
    weights, whatever the gradient, so with a constant rate the loss rises again after a while."""
    return optgen.LAMB(warmup(50, linear(0.015, 0, steps=STEPS - 50)))


def chained() -> Any:
    """Gradients clipped together, decay, and a learning rate that warms up and then follows a cosine."""
    eta = warmup(50, cosine(0.01, steps=STEPS - 50))
    return chain(optgen.ClipGlobalNorm(1.0), optgen.WeightDecay(1e-4), optgen.ADAM(eta))


#: By family, what the digits are trained with. On the regression each rule has its defaults.
FAMILIES: dict[str, dict[str, Callable[[], Any]]] = {
    "Gradient descent and momentum": {
        "Descent": lambda: optgen.Descent(0.1),
        "Momentum": lambda: optgen.Momentum(0.01),
        "Nesterov": lambda: optgen.Nesterov(0.01),
        "SGD": lambda: optgen.SGD(0.05, momentum=0.9, nesterov=True),
    },
    "A rate for each weight": {
        "ADAGrad": lambda: optgen.ADAGrad(0.05),
        "ADADelta": lambda: optgen.ADADelta(),
        "RMSProp": lambda: optgen.RMSProp(0.002),
        "Adafactor": lambda: optgen.Adafactor(0.02),
    },
    "ADAM and its kin": {
        "ADAM": lambda: optgen.ADAM(0.005),
        "AdaMax": lambda: optgen.AdaMax(0.005),
        "AMSGrad": lambda: optgen.AMSGrad(0.005),
        "NADAM": lambda: optgen.NADAM(0.005),
        "ADAMW": lambda: optgen.ADAMW(0.005, decay=1e-5),
    },
    "Later rules, and a chain": {
        "LAMB": lamb,
        "Lion": lambda: optgen.Lion(0.001),
        "ScheduleFreeAdamW": lambda: optgen.ScheduleFreeAdamW(0.01),
        "chain": chained,
    },
}
RULES = {name: make for family in FAMILIES.values() for name, make in family.items()}

#: How the lines of a panel differ, in black and white too: a colour, and dashes.
STYLES = [("black", "-"), ("#b2182b", (0, (6, 2))), ("#2166ac", (0, (1, 1.2))), ("#1b7837", (0, (6, 1.5, 1, 1.5))),
          ("#762a83", (0, (2.5, 1.5)))]  # fmt: skip


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
    """One hidden layer on 8 × 8 images, in float32.

    Returns the loss on all training images before and after each epoch, the accuracy on unseen ones, and the seconds.
    """
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

    batches = [(x_train[i : i + BATCH], y_train[i : i + BATCH]) for i in range(0, len(x_train), BATCH)]
    theta, opt = Params([W1, b1, W2, b2]), RULES[name]()
    start = time.perf_counter()
    curve = [float(loss(x_train, y_train))]
    for _ in range(EPOCHS):
        train(loss, theta, batches, opt)
        curve.append(float(loss(x_train, y_train)))
    seconds = time.perf_counter() - start
    accuracy = float(np.mean(np.argmax(logits(x_test), axis=1) == labels_test))
    return curve, accuracy, seconds


def digits_data() -> tuple[np.ndarray, ...]:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(2).permutation(len(images))
    images, labels = (images[order] / 16).astype(np.float32), labels[order]
    one_hot = np.eye(10, dtype=np.float32)[labels]
    return images[:IMAGES], one_hot[:IMAGES], images[IMAGES:], labels[IMAGES:]


def draw(curves: Mapping[str, list[float]]) -> Figure:
    """A panel for each family, all on one scale, with the best rule of the other families in grey."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    panels = [*figure.subplots(2, 2, sharex=True, sharey=True).flat]
    for ax, (family, rules) in zip(panels, FAMILIES.items(), strict=True):
        best = min((name for name in curves if name not in rules), key=lambda name: curves[name][-1])
        ax.plot(curves[best], color="0.72", linewidth=4, zorder=1)
        colours = {best: "0.5"}
        for name, (colour, dashes) in zip(rules, STYLES, strict=False):
            ax.plot(curves[name], color=colour, linestyle=dashes, linewidth=1.6, zorder=2)
            colours[name] = colour
        ax.set(yscale="log", xlim=(0, EPOCHS))
        ax.set_title(family, loc="left", fontsize=11, fontweight="bold")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", alpha=0.25)
        label(ax, {name: curves[name][-1] for name in colours}, colours)
    for ax in panels[::2]:
        ax.set_ylabel("loss on the training images")
    for ax in panels[2:]:
        ax.set_xlabel("epoch")
    title = "Digits under four families of rules. Grey: the best of the other three. LAMB and the chain have schedules."
    figure.suptitle(title, fontsize=11)
    return figure


def label(ax: Any, ends: Mapping[str, float], colours: Mapping[str, str]) -> None:
    """Write names to the right of where the lines end, moved apart where they would stand over each other."""
    apart = 1.7  # a factor, since the axis is logarithmic
    names = sorted(ends, key=lambda name: ends[name])
    heights = [ends[name] for name in names]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] * apart)
    shift = math.exp(np.mean([math.log(ends[n] / h) for n, h in zip(names, heights, strict=True)]))
    for name, height in zip(names, heights, strict=True):
        ax.annotate(
            name, (EPOCHS, ends[name]), (EPOCHS * 1.05, height * shift), annotation_clip=False, va="center", fontsize=9,
            color=colours[name], arrowprops={"arrowstyle": "-", "color": colours[name], "linewidth": 0.6},
        )  # fmt: skip


def say_what_to_try(console: Console) -> None:
    command = "optgen" if shutil.which("optgen") else os.path.relpath(Path(sys.executable).with_name("optgen"))
    console.print("\nTry next:", style="bold")
    for arguments, what in (
        ("show Lion", "a rule as mathematics; with --as c, the code that it becomes"),
        ("new MyRule", "a commented spec to start your own rule from"),
        ("bench", "how fast a step is on this machine"),
    ):
        console.print(f"  {command} {arguments:12} {what}", soft_wrap=True, highlight=False)
    console.print("  docs/training.md and docs/torch.md: training in NumPy and in PyTorch", highlight=False)


def main() -> None:
    console = Console()
    table = Table(title=f"A regression, {REGRESSION_STEPS} steps with default rates; digits, {EPOCHS} epochs")
    table.add_column("rule", no_wrap=True)
    for column in ("loss before", "after", "digits: loss", "accuracy", "seconds"):
        table.add_column(column, justify="right")
    data = digits_data()
    curves: dict[str, list[float]] = {}
    for family in FAMILIES.values():
        for name in family:
            before, after = regression(name)
            curve, accuracy, seconds = digits(name, data)
            curves[name] = curve
            numbers = (f"{before:.3f}", f"{after:.2g}", f"{curve[-1]:.3f}", f"{accuracy:.1%}", f"{seconds:.1f}")
            table.add_row(name, *numbers)
            if not (after < before and curve[-1] < 0.5 * curve[0] and curve[-1] < 2 * min(curve)):
                raise SystemExit(f"{name}: the loss did not fall, or rose again")
        table.add_section()
    draw(curves).savefig(PICTURE, dpi=120)
    console.print(table)
    console.print(f"The losses are drawn in {PICTURE}", soft_wrap=True)
    say_what_to_try(console)


if __name__ == "__main__":
    main()
