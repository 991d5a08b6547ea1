"""Steps over arrays in storages, beside the same steps in float32.

    python -m benchmarks.stored_steps [MILLIONS_OF_ELEMENTS]

ADAM on one tensor. All take turns in one run, so that the state of the memory is that of all; a loop that reads and
writes in place says how fast it is.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from rich.console import Console
from rich.table import Table

import optgen
from optgen.runtime import library, machine

from .measure import interleaved, ratio

__all__ = ["CASES", "steps"]

#: The dtypes of parameter and gradient, the storage of both states, and the bytes that a step moves for each element.
CASES: dict[str, tuple[Any, Any, str | None, int]] = {
    "all float32": (np.float32, np.float32, None, 28),
    "bfloat16 gradients": (np.float32, ml_dtypes.bfloat16, None, 26),
    "bfloat16 states": (np.float32, np.float32, "bfloat16", 20),
    "float16 states": (np.float32, np.float32, "float16", 20),
    "bfloat16 parameters and gradients": (ml_dtypes.bfloat16, ml_dtypes.bfloat16, None, 22),
    "all bfloat16": (ml_dtypes.bfloat16, ml_dtypes.bfloat16, "bfloat16", 14),
}


def steps(size: int) -> dict[str, Callable[[], object]]:
    """One step of each case, of so many elements."""
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal(size, np.float32)

    def step(kept: Any, given: Any, storage: str | None) -> Callable[[], object]:
        opt, p, g = optgen.ADAM(1e-3, storage=storage), numbers.astype(kept), (numbers / 8).astype(given)
        return lambda: opt.step([p], [g])

    return {name: step(*case[:3]) for name, case in CASES.items()}


def main() -> None:
    size = int(float(sys.argv[1]) * 1e6) if len(sys.argv) > 1 else 25_000_000
    x = np.zeros(size, np.float32)
    contestants = steps(size) | {"x += 1": lambda: np.add(x, 1, out=x)}
    times = interleaved(contestants)
    table = Table(title=f"ADAM, {size:,} elements, {machine.threads()} threads, {library.runtime().isa}")
    for heading in ("arrays", "bytes an element", "ns an element", "share of float32's time"):
        table.add_column(heading, justify="left" if heading == "arrays" else "right")
    for name, (*_, moved) in CASES.items():
        nanoseconds = statistics.median(times[name]) / size * 1e9
        share = ratio(times[name], times["all float32"])
        table.add_row(name, str(moved), f"{nanoseconds:.3f}", f"{share:.2f}")
    Console(width=120).print(table)
    print(f"x += 1 moves {8 * size / statistics.median(times['x += 1']) / 1e9:.0f} GB/s")


if __name__ == "__main__":
    main()
