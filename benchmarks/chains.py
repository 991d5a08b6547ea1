"""Measure what chains and norms cost: a step in ratio to a step of ADAM, and to the memory limit.

    python -m benchmarks.chains [--json FILE]

In: nothing. Out: a table for each list of shapes, and the figures as JSON.

ADAM alone, chains of parts around it, and rules that need a norm before they move anything take turns in one process.
Times are medians. "× ADAM" is the median of the ratios to ADAM within a round; sweeps are those of
`optgen show --as sweeps`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import optgen
from optgen.optimiser.base import settings_of
from optgen.runtime import library
from optgen.runtime.machine import threads

from . import rules
from .shapes import SHAPES, TITLES
from .stream import Stream

REPEATS = 11

#: What is measured, and the most that it may cost in ratio to ADAM alone, where there is such a limit.
CONTESTANTS: dict[str, tuple[Any, float | None]] = {
    "ADAM": (lambda: optgen.ADAM(), None),
    "chain(WeightDecay, ADAM)": (lambda: optgen.chain(optgen.WeightDecay(1e-4), optgen.ADAM()), None),
    "chain(ClipNorm, WeightDecay, ADAM)": (
        lambda: optgen.chain(optgen.ClipNorm(1.0), optgen.WeightDecay(1e-4), optgen.ADAM()),
        1.25,
    ),
    "chain(ClipGlobalNorm, ADAMW)": (
        lambda: optgen.chain(optgen.ClipGlobalNorm(1.0), optgen.ADAMW(decay=0.01)),
        None,
    ),
    "chain(ADAM, EMA)": (lambda: optgen.chain(optgen.ADAM(), optgen.EMA()), None),
    "LAMB": (lambda: optgen.LAMB(), None),
    "LARS": (lambda: optgen.LARS(), None),
    "NovoGrad": (lambda: optgen.NovoGrad(), None),
    "Adafactor": (lambda: optgen.Adafactor(), None),
    "SM3": (lambda: optgen.SM3(), None),
    "Prodigy": (lambda: optgen.Prodigy(), None),
}


def measure(shapes: list[tuple[int, ...]]) -> list[dict[str, Any]]:
    """The figures of each contestant: sweeps, arrays moved, median seconds of a step, ratios to ADAM and to the memory
    limit."""
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    elements = sum(g.size for g in grads)
    runs: dict[str, tuple[Any, list[Any]]] = {}
    figures: list[dict[str, Any]] = []
    for name, (make, most) in CONTESTANTS.items():
        params = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
        opt = make()
        if any(len(shape) < 2 for shape in shapes) and opt.rule.matrix and len(settings_of(opt).variants) == 1:
            continue
        runs[name] = (opt, params)
        matrix = len(shapes[0]) >= 2
        moved = rules.arrays_moved(opt, matrix)
        figures.append({"name": name, "sweeps": rules.sweeps(opt, matrix), "arrays": moved, "most": most})
    most_traffic = max(figure["arrays"] for figure in figures)
    stream = Stream(most_traffic * elements * 4 // 8)
    times: dict[str, list[float]] = {name: [] for name in (*runs, "stream")}
    for round_ in range(REPEATS + 2):
        for name, (opt, params) in runs.items():
            start = time.perf_counter()
            opt.step(params, grads)
            if round_ >= 2:  # the first rounds touch the memory and wake the threads
                times[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        stream.run()
        if round_ >= 2:
            times["stream"].append(time.perf_counter() - start)
    limit = statistics.median(times["stream"]) / most_traffic  # seconds for one array, read or written
    for figure in figures:
        own = times[figure["name"]]
        figure["seconds"] = statistics.median(own)
        figure["to_adam"] = statistics.median(a / b for a, b in zip(own, times["ADAM"], strict=True))
        figure["of_stream"] = figure["arrays"] * limit / figure["seconds"]
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description="Chains and rules with norms in ratio to ADAM alone.")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    console = Console()
    console.print(
        f"{platform.machine()}, {library.runtime().isa}, {threads()} threads, float32, median of {REPEATS}; "
        f"NumPy {np.__version__}, Python {platform.python_version()}"
    )
    found: dict[str, Any] = {}
    late = False
    for shape in ("1x25M", "resnet50"):
        found[TITLES[shape]] = figures = measure(SHAPES[shape])
        table = Table(title=f"One step, {TITLES[shape]} ({len(SHAPES[shape])} arrays)")
        for column in ("what", "sweeps", "arrays read and written", "ms", "× ADAM", "at most", "of the memory limit"):
            table.add_column(column, justify="left" if column == "what" else "right")
        for f in figures:
            late |= f["most"] is not None and f["to_adam"] > f["most"]
            table.add_row(
                f["name"], str(f["sweeps"]), str(f["arrays"]), f"{f['seconds'] * 1e3:.1f}", f"{f['to_adam']:.2f}",
                f"{f['most']:.2f}" if f["most"] else "", f"{f['of_stream']:.2f}",
            )  # fmt: skip
        console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return int(late)


if __name__ == "__main__":
    sys.exit(main())
