"""How near functions are to the true values, and what they cost.

    python -m benchmarks.functions [NAME]... [--points 10000000]

float32: all 2**32 arguments of a function of one argument, beside the C library's float64; of one with two arguments
as many pairs as points. float64: random points and hard ones, beside mpmath. It takes about two minutes of one
processor for each function of float32, and some minutes more for each million points of float64.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mpmath import mp, mpf
from rich.console import Console
from rich.table import Table

from optgen import interpreter
from optgen.codegen.c_language import SINGLE
from optgen.codegen.functions import c_functions
from optgen.compiler import driver
from optgen.compiler.toolchain import compile_library
from optgen.ir.evaluate import Always
from optgen.ir.expr import Call, Extent, Local
from optgen.ir.primitives import DEFINED, OPS, Type
from optgen.runtime.binding import Binding, rows_of
from optgen.runtime.kernel import kernel_of

from .measure import interleaved, ratio

__all__ = ["compiled", "costs", "distance", "hard", "points", "worst_double", "worst_single"]

CHUNK = 1 << 22
#: What C's library calls a function, where it has another name or none.
REFERENCE = {"sigmoid": "1/(1 + exp(-x))"}
#: The functions of mpmath.
TRUE: dict[str, Callable[..., Any]] = {"exp": mp.exp, "log": mp.log, "pow": mp.power}
#: Between which arguments the results of a function are neither zero nor infinite.
SPAN = {"exp": (-745.2, 709.8), "log": (0.0, math.inf)}
PROGRAM = """
#include <math.h>
#include <stdint.h>
#include <string.h>
#define OPTGEN_INLINE static inline __attribute__((always_inline))
{functions}
/* The most ulps that {name} of numbers is off, and a number x where it is. */
__attribute__((target_clones("avx512f", "avx2", "default")))
static void all({ctype}*restrict y, const float *restrict x, const float *restrict x2, int64_t n)
{{
    for (int64_t i = 0; i < n; ++i)
        y[i] = optgen_{name}f({ours});
}}
static double off(float got, double x, double x2)
{{
    (void)x2;
    const double truth = {theirs};
    if (truth != truth || got != got)
        return truth != truth && got != got ? 0 : INFINITY;
    if ((float)truth == got)  /* zeros and infinities too */
        return !signbit(truth) != !signbit(got) ? INFINITY : isinf(got) ? 0 : fabs(got - truth) / ulp(truth);
    return isinf(got) ? INFINITY : fabs(got - truth) / ulp(truth);
}}
__attribute__((visibility("default")))
double worst(const float *x, const float *x2, float *y, int64_t n, int64_t *at)
{{
    double most = 0;
    *at = 0;
    all(y, x, x2, n);
    for (int64_t i = 0; i < n; ++i) {{
        const double error = off(y[i], (double)x[i], x2 ? (double)x2[i] : 0);
        if (error > most)
            most = error, *at = i;
    }}
    return most;
}}
"""
ULP = """
static double ulp(double x)
{
    int k;
    frexp(x, &k);
    return ldexp(1, (k < -125 ? -125 : k) - 24);
}
"""


def compiled(name: str, folder: Path) -> Callable[..., float]:
    """The C function that finds the worst of many arguments of float32."""
    count = len(OPS[name].takes)
    call = Call(name, (Local("x", Extent.ELEMENT, Type.REAL),) * count)
    functions = "\n".join((*c_functions([call], SINGLE), ULP))
    ours, theirs = ("x[i], x2[i]", f"{name}(x, x2)") if count == 2 else ("x[i]", REFERENCE.get(name, f"{name}(x)"))
    source = PROGRAM.format(functions=functions, name=name, ctype="float ", ours=ours, theirs=theirs)
    compile_library(source, folder / f"{name}.so")
    worst = ctypes.CDLL(str(folder / f"{name}.so")).worst
    worst.restype = ctypes.c_double
    worst.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64, ctypes.c_void_p]
    return worst


def worst_single(name: str, pairs: int = 0, stride: int = 1, threads: int | None = None) -> tuple[float, tuple[float, ...]]:
    """The most ulps that a function of float32 is off, and the arguments where it is: of every `stride`-th argument, or
    of so many random pairs."""
    two = len(OPS[name].takes) == 2
    total = pairs if two else -(-(1 << 32) // stride)

    def chunk(worst: Callable[..., float], begin: int) -> tuple[float, tuple[float, ...]]:
        n = min(CHUNK, total - begin)
        if two:
            rng = np.random.default_rng(begin)
            x = rng.integers(0, 1 << 32, n, np.uint32).view(np.float32)
            x2 = rng.integers(0, 1 << 32, n, np.uint32).view(np.float32)
            with np.errstate(all="ignore"):  # every other time, where a power is no extreme number
                near = (rng.uniform(-100, 88, n) / np.log(np.abs(x))).astype(np.float32)
                x2 = np.where(rng.random(n) < 0.5, near, x2)
                x, x2 = np.where(rng.random(n) < 0.9, np.abs(x), x), np.where(rng.random(n) < 0.9, x2, np.round(x2))
        else:
            x = (np.arange(begin, begin + n, dtype=np.uint64) * np.uint64(stride)).astype(np.uint32).view(np.float32)
            x2 = None
        y, at = np.empty(n, np.float32), ctypes.c_int64()
        error = worst(x.ctypes.data, None if x2 is None else x2.ctypes.data, y.ctypes.data, n, ctypes.byref(at))
        return error, tuple(float(each[at.value]) for each in (x, x2) if each is not None)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        found = pool.map(partial(chunk, compiled(name, Path(folder))), range(0, total, CHUNK))
        return max(found)


# ---- float64 ----


def points(name: str, count: int, seed: int) -> tuple[np.ndarray, ...]:
    """Random arguments of float64 for which a function is neither zero nor infinite, of all magnitudes."""
    rng = np.random.default_rng([seed, *name.encode()])
    with np.errstate(all="ignore"):
        if name == "pow":
            wide = rng.integers(1, 0x7FF0 << 48, count, np.uint64).view(np.float64)
            x = np.where(rng.random(count) < 0.5, wide, np.exp(rng.normal(0, 0.5, count)))
            return x, np.clip(rng.uniform(-745, 709, count) / np.log(x), -1e300, 1e300)
        bits = rng.integers(0, 1 << 64, count, np.uint64).view(np.float64)
        low, high = SPAN.get(name, (-math.inf, math.inf))
        usual = rng.uniform(low, high, count) if math.isfinite(high - low) else np.exp(rng.normal(0, 3, count))
        if low < 0 and not math.isfinite(high - low):
            usual *= rng.choice([-1, 1], count)
        return (np.where((low < bits) & (bits < high) & (rng.random(count) < 0.3), bits, usual),)


def hard(name: str, count: int, seed: int) -> tuple[np.ndarray, ...]:
    """Arguments where a function loses most: beside 1, beside limits of what can be held, beside multiples of ln 2."""
    rng = np.random.default_rng([seed, *name.encode()])
    if name == "pow":
        x = 1 + rng.choice([-1, 1], count) * 2.0 ** rng.uniform(-52, -1, count)
        edge = np.where(rng.random(count) < 0.5, rng.uniform(-745, -707, count), rng.uniform(690, 709.7, count))
        return x, edge / np.log(x)
    if name == "log":
        return (np.where(rng.random(count) < 0.8, 1 + rng.choice([-1, 1], count) * 2.0 ** rng.uniform(-52, -1, count),
                         2.0 ** rng.uniform(-1074, -1020, count)),)  # fmt: skip
    half = (rng.integers(-2149, 2048, count) / 2 * math.log(2)) * (1 + rng.normal(0, 1e-15, count))
    return (half,)


def distance(name: str, args: Sequence[np.ndarray]) -> tuple[float, tuple[float, ...]]:
    """The most ulps that a function of float64 is off at these arguments, and where."""
    with np.errstate(all="ignore"):
        values = interpreter.NUMPY[name](*args)
    worst: tuple[float, tuple[float, ...]] = 0.0, ()
    with mp.workprec(200):
        for value, *row in zip(values.tolist(), *(arg.tolist() for arg in args), strict=True):
            truth = TRUE[name](*map(mpf, row))
            if not math.isfinite(value):
                # Right where the true value is nearer to infinity than to the largest number.
                off = 0.0 if abs(truth) > mpf(2) ** 1024 - mpf(2) ** 970 else math.inf
            else:
                exponent = max(int(mp.frexp(truth)[1]), -1021) if truth else -1021
                off = float(abs(mpf(value) - truth) * mpf(2) ** (53 - exponent))
            worst = max(worst, (off, tuple(row)))
    return worst


def worst_double(name: str, count: int) -> tuple[float, tuple[float, ...]]:
    """The most ulps that a function of float64 is off at random and at hard points, half of each."""
    jobs = [(make(name, min(10_000, count // 2), i)) for i in range(max(1, count // 20_000)) for make in (points, hard)]
    with ProcessPoolExecutor() as pool:
        return max(pool.map(partial(distance, name), jobs))


# ---- Costs ----


def costs(dtype: str = "float32", size: int = 1 << 14) -> Iterator[tuple[str, float]]:
    """How much longer a step takes with each function of every gradient than with its root, on one thread."""
    expressions = {"sqrt": "sqrt(g)"} | {n: f"{n}(g{', p' if len(OPS[n].takes) == 2 else ''})" for n in DEFINED}
    expressions["pow"] = "g**p"
    steps = {}
    for i, (name, text) in enumerate(expressions.items()):
        compilation = driver.compile_text(f'name = "Cost{i}"\n[update]\nformulas = "delta = {text}"\n', "cost.toml")
        kernel = kernel_of(compilation, 0, dtype, None)
        rng = np.random.default_rng(0)
        arrays = [rng.random(size).astype(dtype) for _ in compilation.rules[0].arrays]
        steps[name] = partial(Binding(kernel, rows_of(kernel, [arrays])).run, [Always({})], 1, 1)
    times = interleaved(steps)
    for name in DEFINED:
        yield name, ratio(times[name], times["sqrt"])


def main() -> None:
    parser = argparse.ArgumentParser(description="How near functions are to the true values, and what they cost.")
    parser.add_argument("names", nargs="*", default=DEFINED, help="only these functions")
    parser.add_argument("--points", type=int, default=10_000_000, help="how many points of float64, and pairs")
    given = parser.parse_args()
    table = Table("function", "float32: ulps", "at", "float64: ulps", "at", "float32: time ÷ sqrt", "float64")
    times = {dtype: dict(costs(dtype)) for dtype in ("float32", "float64")}
    for name in given.names:
        single, double = worst_single(name, given.points), worst_double(name, given.points)
        table.add_row(
            name, f"{single[0]:.4f}", str(single[1]), f"{double[0]:.3f}", str(double[1]),
            f"{times['float32'][name]:.1f}", f"{times['float64'][name]:.1f}",
        )  # fmt: skip
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
