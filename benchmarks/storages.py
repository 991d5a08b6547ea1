"""What storages cost, and whether stochastic rounding is as random as it should be.

    python -m benchmarks.storages [--draws 100000000]

Speed: `optgen.quantise` and `optgen.dequantise` beside the interpreter, and beside the conversions of NumPy and
ml_dtypes, on one thread. Statistics: how far the mean of all rounding errors is from 0, and how much the random bits of
neighbours, steps, parameters and streams have to do with each other; all in standard deviations.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from optgen.interpreter.rounding import rounding_bits
from optgen.interpreter.storages import load, store
from optgen.ir.storages import STORAGES, Storage
from optgen.runtime.compiled_storages import Rounding, load_compiled, store_compiled
from optgen.runtime.quantised import dequantise, quantise

from .measure import interleaved, ratio

__all__ = ["bias", "correlations"]

Array = np.ndarray[Any, np.dtype[Any]]
#: Seed, step, parameter and stream.
Key = tuple[int, int, int, int]

CHUNK = 1 << 22
SIZE = 1 << 20
COMPILED = [storage for storage in STORAGES.values() if storage.name not in ("float32", "float64")]
#: What is compared with the first of all keys, and how far behind the element.
FIRST: Key = (1, 5, 0, 0)
OTHERS: dict[str, tuple[Key, int]] = {
    "the next element": (FIRST, 1), "256 elements on": (FIRST, 256), "the next step": ((1, 6, 0, 0), 0),
    "the next parameter": ((1, 5, 1, 0), 0), "the next seed": ((2, 5, 0, 0), 0),
    "the other half of the word": ((1, 5, 0, 1), 0), "the next word": ((1, 5, 0, 2), 0),
}  # fmt: skip


def chunks(draws: int) -> Iterator[tuple[int, int]]:
    """The first element and the size of each chunk."""
    return ((first, min(CHUNK, draws - first)) for first in range(0, draws, CHUNK))


def bias(storage: Storage, draws: int) -> float:
    """The sum of all errors, in standard deviations. Errors are in steps: of the bits of a number where codes are
    logarithmic, of the value elsewhere."""
    total = variance = 0.0
    rng = np.random.default_rng(0)
    for first, count in chunks(draws):
        x = rng.uniform(2.0**-5, 1, count).astype(np.float32)
        if storage.block:
            x[:: storage.block] = 1
        arrays = store_compiled(storage, x, Rounding(1, 5, 0, 0, first))
        found = load_compiled(storage, arrays, count)
        if storage.dropped:
            scale = 2.0**storage.dropped
            place, there = (each.view(np.uint32).astype(np.float64) / scale for each in (x, found))
        else:
            fraction = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "bf16+8": 2.0**-15}.get(storage.name)
            unit = 1 / storage.levels[0] if fraction is None else fraction * 2.0 ** (np.frexp(x)[1] - 1)
            place, there = (each.astype(np.float64) / unit for each in (x, found))
        part = place % 1
        total += float((there - place).sum())
        variance += float((part * (1 - part)).sum())
    return total / math.sqrt(variance)


def correlations(draws: int) -> dict[str, float]:
    """Of the random bits with others, in standard deviations of what independent ones have."""
    found = dict.fromkeys(OTHERS, 0.0)
    for first, count in chunks(draws):
        own = centred(FIRST, first, count)
        for name, (key, behind) in OTHERS.items():
            found[name] += float(own @ centred(key, first + behind, count))
    return {name: total / ((2.0**32 - 1) / 12) / math.sqrt(draws) for name, total in found.items()}


def centred(key: Key, first: int, count: int) -> Array:
    elements = np.arange(first, first + count, dtype=np.uint64)
    return rounding_bits(*key, elements) - (2.0**16 - 1) / 2


def speed() -> Table:
    table = Table("storage", "quantise", "stochastic", "dequantise", "beside", "its time ÷ quantise", "÷ dequantise",
                  title=f"{SIZE:,} elements, one thread: ns an element, and ratios of times")  # fmt: skip
    x = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    for storage in COMPILED:
        beside, to, back = other(storage, x)
        kept = quantise(x, storage.name)
        times = interleaved({
            "quantise": partial(quantise, x, storage.name), "to": to,
            "stochastic": partial(quantise, x, storage.name, rounding="stochastic"),
            "dequantise": partial(dequantise, kept), "back": back,
        })  # fmt: skip
        own = [f"{median(times[name]) / SIZE * 1e9:.2f}" for name in ("quantise", "stochastic", "dequantise")]
        pairs = ("to", "quantise"), ("back", "dequantise")
        table.add_row(storage.name, *own, beside, *(f"{ratio(times[a], times[b]):.1f}" for a, b in pairs))
    return table


def other(storage: Storage, x: Array) -> tuple[str, Callable[[], object], Callable[[], object]]:
    """Who else converts, to the storage and back."""
    dtype = peer(storage.name)
    if dtype is None:
        return "the interpreter", partial(store, storage, x), partial(load, storage, store(storage, x))
    half = x.astype(dtype)
    return "NumPy" if dtype is np.float16 else "ml_dtypes", partial(x.astype, dtype), partial(half.astype, np.float32)


def peer(name: str) -> Any:
    """The dtype of NumPy or of ml_dtypes, if it is there."""
    if name == "float16":
        return np.float16
    try:
        import ml_dtypes
    except ImportError:
        return None
    return ml_dtypes.bfloat16 if name == "bfloat16" else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100_000_000)
    draws = parser.parse_args().draws
    console = Console()
    console.print(speed())
    table = Table("stochastic rounding", "standard deviations", title=f"{draws:,} draws")
    for storage in COMPILED:
        if storage.rounds:
            table.add_row(f"the mean error of {storage.name}", f"{bias(storage, draws):+.2f}")
    for name, off in correlations(draws).items():
        table.add_row(f"correlation with {name}", f"{off:+.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
