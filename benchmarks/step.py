"""One step of every shipped rule against hand-written NumPy, and against an in-place stream of the same bytes.

    python benchmarks/step.py [--json FILE] [--rules ADAM,RMSProp]

For each rule and shape of model, measured in turn in one process: optgen's kernel, the rule written by hand in NumPy
(`numpy_rules.py`), and a loop in C that does nothing but read and write the same number of bytes in place, on as many
threads. GB/s is the least traffic of the rule (what must be read and written) over the time; the stream's is the limit.
Medians; ratios of two columns hold on other machines, times do not.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy_rules import INIT
from numpy_rules import RULES as NUMPY_RULES
from rich.console import Console
from rich.table import Table
from stream import Stream

import optgen
from optgen import driver
from optgen.ir import loads
from optgen.kernel import threads

REPEATS = 9


def resnet50() -> list[tuple[int, ...]]:
    """The shapes of the 161 parameters of ResNet-50, 25.6 million elements."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    inputs = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            outputs = 4 * width
            for out, into, size in ((width, inputs, 1), (width, width, 3), (outputs, width, 1)):
                shapes += [(out, into, size, size), (out,), (out,)]
            if block == 0:
                shapes += [(outputs, inputs, 1, 1), (outputs,), (outputs,)]
            inputs = outputs
    return [*shapes, (1000, 2048), (1000,)]


SHAPES = {"1 × 25 M": [(25_000_000,)], "ResNet-50": resnet50()}


def measure(rule: str, shapes: list[tuple[int, ...]]) -> dict[str, float]:
    """Seconds of one step: of the kernel, of NumPy by hand, and of the stream; and the least traffic in bytes."""
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    grads = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    by_hand = [p.copy() for p in params]
    states = [INIT[rule](p) for p in by_hand]
    opt = getattr(optgen, rule)()
    lowered = driver.compile_file(next(p for p in driver.shipped() if p.stem == rule.lower())).lowered[0]
    elements = sum(p.size for p in params)
    passes = len(loads(lowered)) + len(lowered.stores)
    stream = Stream(passes * elements * 4 // 8)  # a float32 read and written: 8 bytes an element
    count = 0

    def kernel() -> None:
        opt.step(params, grads)

    def numpy() -> None:
        nonlocal count
        count += 1
        for p, g, state in zip(by_hand, grads, states, strict=True):
            NUMPY_RULES[rule](p, g, state, count)

    contestants: dict[str, Callable[[], None]] = {"optgen": kernel, "numpy": numpy, "stream": stream.run}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(3):  # the first passes touch the memory and wake the threads
        for run in contestants.values():
            run()
    for _ in range(REPEATS):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()} | {"bytes": passes * elements * 4}


def main() -> None:
    parser = argparse.ArgumentParser(description="One step of every rule against NumPy and an in-place stream.")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--rules", default=",".join(NUMPY_RULES), help="only these, separated by commas")
    arguments = parser.parse_args()
    console = Console()
    console.print(
        f"{platform.machine()}, {driver.runtime().isa}, {threads()} threads, float32, median of {REPEATS}; "
        f"NumPy {np.__version__}, Python {platform.python_version()}"
    )
    figures: list[dict[str, Any]] = []
    for shape, shapes in SHAPES.items():
        table = Table(title=f"One step, {shape} ({len(shapes)} arrays)")
        for column in ("rule", "optgen", "NumPy by hand", "NumPy / optgen", "GB/s", "stream GB/s", "of the stream"):
            table.add_column(column, justify="left" if column == "rule" else "right")
        for rule in arguments.rules.split(","):
            m = measure(rule, shapes)
            figures.append({"shape": shape, "rule": rule, **m})
            ours, limit = m["bytes"] / m["optgen"] / 1e9, m["bytes"] / m["stream"] / 1e9
            table.add_row(
                rule,
                f"{m['optgen'] * 1e3:.1f} ms",
                f"{m['numpy'] * 1e3:.1f} ms",
                f"{m['numpy'] / m['optgen']:.1f}",
                f"{ours:.0f}",
                f"{limit:.0f}",
                f"{ours / limit:.2f}",
            )
        console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
