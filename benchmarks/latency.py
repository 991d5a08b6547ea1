"""What waits for a person: builds, imports, small steps, each beside the time that it must not pass.

    python -m benchmarks.latency

Builds and imports are whole processes, timed from outside; steps are medians inside one.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from optgen import ADAM, update
from optgen.paths import BUILD


def process(*arguments: str, repeats: int = 1, **environment: str) -> float:
    """Median seconds of a process."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        command = [sys.executable, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       env=os.environ | environment)  # fmt: skip
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def call(f: Callable[[], object], repeats: int = 2000) -> float:
    """Median seconds of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def slowest_rule() -> float:
    """Seconds that the slowest of all rules takes to load once the modules of optgen are there; each in its own process
    once, since a rule is loaded once."""
    program = """if True:
        import time
        import optgen
        optgen.Descent
        from optgen.compiler.catalogue import shipped_names
        slowest = 0.0
        for name in shipped_names():
            start = time.perf_counter()
            getattr(optgen, name)
            slowest = max(slowest, time.perf_counter() - start)
        print(slowest)
    """
    done = [subprocess.run([sys.executable, "-c", program], check=True, capture_output=True) for _ in range(5)]
    return statistics.median(float(each.stdout) for each in done)


def small_steps() -> dict[str, tuple[float, float]]:
    rng = np.random.default_rng(0)

    def arrays() -> list[np.ndarray]:
        return [rng.standard_normal(64, dtype=np.float32) for _ in range(100)]

    params, grads, others = arrays(), arrays(), arrays()
    one, many, fresh = ADAM(), ADAM(), ADAM()
    turns = [grads, others]

    def alternating() -> None:
        turns.reverse()
        fresh.step(params, turns[0])

    return {
        "update(opt, p, g), 64 elements": (call(lambda: update(one, params[0], grads[0])), 10e-6),
        "opt.step, 100 × 64, the arrays of the step before": (call(lambda: many.step(params, grads)), 150e-6),
        "opt.step, 100 × 64, other gradient arrays each step": (call(alternating), 150e-6),
    }


def main() -> None:
    figures: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        build = ("-m", "optgen", "build", "--out", folder)
        figures["optgen build, the whole library, from nothing"] = (process(*build), 120)
        figures["optgen build, again"] = (process(*build, repeats=5), 1)
    process("-m", "optgen", "build", "--out", str(BUILD))  # as it is after an installation
    numpy = process("-c", "import numpy", repeats=9)
    both = process("-c", "import numpy, optgen", repeats=9)
    rule = process("-c", "import numpy, optgen; optgen.ADAM()", repeats=9)
    figures["import optgen, over import numpy"] = (max(0.0, both - numpy), 0.150)
    figures["the first ADAM() of a process, over import numpy and optgen"] = (rule - both, 0.150)
    figures["the slowest rule to load after that"] = (slowest_rule(), 0.020)
    figures |= small_steps()
    table = Table("what", "measured", "at most")
    for what, (seconds, most) in figures.items():
        table.add_row(what, text(seconds), text(most), style="" if seconds <= most else "red")
    Console().print(table)
    raise SystemExit(any(seconds > most for seconds, most in figures.values()))


def text(seconds: float) -> str:
    for unit, size in (("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


if __name__ == "__main__":
    main()
