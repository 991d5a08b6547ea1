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

#: Numbers of 16 bits, and what is rounded how.
BF16, NEAREST, P = ml_dtypes.bfloat16, {"rounding": "nearest"}, {"rounding": {"p": "stochastic"}}
#: The dtypes of parameter and gradient, how arrays are stored, and the bytes that a step moves for each element.
CASES: dict[str, tuple[Any, Any, dict[str, Any], int]] = {
    "all float32": (np.float32, np.float32, {}, 28),
    "bfloat16 gradients": (np.float32, BF16, {}, 26),
    "bfloat16 states, nearest": (np.float32, np.float32, {"storage": "bfloat16"} | NEAREST, 20),
    "bfloat16 states, v stochastic": (np.float32, np.float32, {"storage": "bfloat16"}, 20),
    "float16 states, nearest": (np.float32, np.float32, {"storage": "float16"} | NEAREST, 20),
    "bfloat16 p and g": (BF16, BF16, {}, 22),
    "all bfloat16, nearest": (BF16, BF16, {"storage": "bfloat16"} | NEAREST, 14),
    "all bfloat16, p and v stochastic": (BF16, BF16, {"storage": "bfloat16"} | P, 14),
    "log8 states, nearest": (np.float32, np.float32, {"storage": "log8"} | NEAREST, 16),
    "log8 states, v stochastic": (np.float32, np.float32, {"storage": "log8"}, 16),
    "linear8 states, v stochastic": (np.float32, np.float32, {"storage": "linear8"}, 16),
    "log4 states, v stochastic": (np.float32, np.float32, {"storage": "log4"}, 14),
    "bfloat16 p and g, log8 states, p and v stochastic": (BF16, BF16, {"storage": "log8"} | P, 10),
}


def steps(size: int) -> dict[str, Callable[[], object]]:
    """One step of each case, of so many elements."""
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal(size, np.float32)

    def step(kept: Any, given: Any, how: dict[str, Any]) -> Callable[[], object]:
        opt, p, g = optgen.ADAM(1e-3, **how), numbers.astype(kept), (numbers / 8).astype(given)
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
