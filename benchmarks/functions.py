"""How near functions are to the true values, and what they cost.

    python -m benchmarks.functions [NAME]... [--points 10000000]

float32: all 2**32 arguments of a function of one argument, beside the C library's float64; of one with two arguments
as many pairs as points. float64: half random points, half hard ones, beside the float128 of GCC, which it needs. It
takes some minutes for each function.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from optgen.codegen.c_language import DTYPES
from optgen.codegen.functions import c_functions
from optgen.compiler import driver
from optgen.compiler.toolchain import compile_library
from optgen.ir.evaluate import Always
from optgen.ir.expr import Call, Extent, Local
from optgen.ir.primitives import DEFINED, OPS, Type
from optgen.runtime.binding import Binding, rows_of
from optgen.runtime.kernel import kernel_of

from .measure import interleaved, ratio

__all__ = ["costs", "hard", "points", "worst"]

Generator = np.random.Generator
Arguments = tuple[Any, ...]

CHUNK = 1 << 22
#: What no C library has, in others; `{q}` is the suffix of its functions.
REFERENCE = {"sigmoid": "1/(1 + exp{q}(-x))"}
#: Between which arguments the results of a function are neither zero nor infinite, and how large they usually are.
SPAN = {"exp": (-745.2, 709.8), "log": (0.0, math.inf), "sigmoid": (-745.2, 40.0), "erf": (-6.0, 6.0)}
#: Where a function changes its ways, or its results are hard to hold.
EDGES: dict[str, tuple[float, ...]] = {
    "exp": (0.0, -708.4, -745.0, 709.7), "log": (1.0, 1.2247, 0.8660), "tanh": (0.0, 0.25, 1.0),
    "sin": tuple(i * math.pi / 4 for i in (0, 1, 2, 3, 4, 100, 12345, 2**30, 2**52)),
    "sigmoid": (0.0, -708.4, -745.0, 37.0), "erf": (0.0, 0.5, 1.0, 2.0, 5.9), "cbrt": (0.0, 1.0, 8.0),
}  # fmt: skip
EDGES["cos"] = EDGES["sin"]
PROGRAM = """
#include <math.h>
#include <stdint.h>
#include <string.h>
{include}
#define OPTGEN_INLINE static inline __attribute__((always_inline))
{functions}
typedef {type} number;
typedef {wide} truth;
static void all(number *restrict y, const number *restrict x, const number *restrict x2, int64_t n)
{{
    for (int64_t i = 0; i < n; ++i)
        y[i] = optgen_{name}{f}({ours});
}}
/* The distance from a number to the next one. */
static double ulp(number x)
{{
    {bits} bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= {exponent};
    memcpy(&x, &bits, sizeof bits);
    return (double)(x < {least} ? {least} : x) * {step};
}}
static double off(number got, truth x, truth x2)
{{
    (void)x2;
    const truth value = {theirs};
    const number near = (number)value;
    if (near != near || got != got)
        return near != near && got != got ? 0 : INFINITY;
    if (near == got && (isinf(got) || got == 0))
        return !signbit(near) != !signbit(got) ? INFINITY : 0;
    if (isinf(got) || isinf(near))
        return INFINITY;
    const truth error = (truth)got - value;
    return (double)((error < 0 ? -error : error) / (truth)ulp(near));
}}
__attribute__((visibility("default")))
double worst(const number *x, const number *x2, number *y, int64_t n, int64_t *at)
{{
    double most = 0;
    *at = 0;
    all(y, x, x2, n);
    for (int64_t i = 0; i < n; ++i) {{
        const double error = off(y[i], x[i], x2 ? x2[i] : 0);
        if (error > most)
            most = error, *at = i;
    }}
    return most;
}}
"""


def comparison(name: str, dtype: str, folder: Path) -> Callable[..., float]:
    """The C function that finds the worst of many arguments."""
    (ctype,) = (each for each in DTYPES if each.dtype == dtype)
    single, two = dtype == "float32", len(OPS[name].takes) == 2
    call = Call(name, (Local("x", Extent.ELEMENT, Type.REAL),) * len(OPS[name].takes))
    theirs = REFERENCE.get(name, f"{name}{{q}}(x, x2)" if two else f"{name}{{q}}(x)")
    source = PROGRAM.format(
        include="" if single else "#include <quadmath.h>",
        functions="\n".join(c_functions([call], ctype)),
        type=ctype.name, wide="double" if single else "__float128", name=name, f=ctype.suffix,
        ours="x[i], x2[i]" if two else "x[i]", theirs=theirs.format(q="" if single else "q"),
        bits="uint32_t" if single else "uint64_t", exponent="0x7f800000" if single else "0x7ff0000000000000",
        least="0x1p-126f" if single else "0x1p-1022", step="0x1p-23" if single else "0x1p-52",
    )  # fmt: skip
    compile_library(source, folder / f"{name}.so", extra_flags=() if single else ("-Wl,--no-as-needed", "-lquadmath"))
    found = ctypes.CDLL(str(folder / f"{name}.so")).worst
    found.restype = ctypes.c_double
    found.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64, ctypes.c_void_p]
    return found


def worst(name: str, dtype: str, count: int = 1 << 32) -> tuple[float, tuple[float, ...]]:
    """The most ulps that a function is off at `count` arguments, and where.

    Those of float32 are evenly spread over all numbers, with `count` = 2**32 all of them.
    """
    single = dtype == "float32" and len(OPS[name].takes) == 1

    def chunk(compare: Callable[..., float], begin: int) -> tuple[float, tuple[float, ...]]:
        n = min(CHUNK, count - begin)
        rng = np.random.default_rng([begin, *name.encode()])
        if single:
            whole = np.arange(begin, begin + n, dtype=np.uint64) * np.uint64((1 << 32) // count)
            args: Arguments = (whole.astype(np.uint32).view(np.float32),)
        else:
            halves = points(name, rng, n - n // 2), hard(name, rng, n // 2)
            with np.errstate(all="ignore"):
                args = tuple(np.concatenate(pair).astype(dtype) for pair in zip(*halves, strict=True))
        y, at = np.empty(n, dtype), ctypes.c_int64()
        addresses = [arg.ctypes.data for arg in args] + [None] * (2 - len(args))
        error = compare(*addresses, y.ctypes.data, n, ctypes.byref(at))
        return error, tuple(float(arg[at.value]) for arg in args)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        compare = comparison(name, dtype, Path(folder))
        return max(pool.map(partial(chunk, compare), range(0, count, CHUNK)))


# ---- Points ----


def points(name: str, rng: Generator, count: int) -> Arguments:
    """Random arguments of float64, of all magnitudes, most of which give results that are neither zero nor infinite."""
    bits = rng.integers(0, 1 << 64, count, np.uint64).view(np.float64)
    with np.errstate(all="ignore"):
        if name == "pow":
            x = np.where(rng.random(count) < 0.5, bits, np.exp(rng.normal(0, 0.5, count)))
            y = np.clip(rng.uniform(-745, 709, count) / np.log(np.abs(x)), -1e300, 1e300)
            return x, np.where((x < 0) | (rng.random(count) < 0.1), np.round(y), y)
        if name == "atan2":
            return bits, np.where(
                rng.random(count) < 0.5, rng.permutation(bits), bits * np.exp(rng.normal(0, 1, count))
            )
        low, high = SPAN.get(name, (-math.inf, math.inf))
        usual = np.exp(rng.normal(0, 3, count))
        if math.isfinite(high - low):
            usual = rng.uniform(low, high, count)
        elif low < 0:
            usual *= rng.choice([-1, 1], count)
        return (np.where((low < bits) & (bits < high) & (rng.random(count) < 0.3), bits, usual),)


def hard(name: str, rng: Generator, count: int) -> Arguments:
    """Arguments of float64 where a function loses most: at all distances from those where it changes its ways."""
    if name == "pow":
        x = 1 + rng.choice([-1, 1], count) * 2.0 ** rng.uniform(-52, -1, count)
        edge = np.where(rng.random(count) < 0.5, rng.uniform(-745, -707, count), rng.uniform(690, 709.7, count))
        return x, edge / np.log(x)
    if name == "atan2":
        x, y = (rng.choice([-1, 1], count) * np.exp(rng.normal(0, 9, count)) for _ in range(2))
        slope = rng.choice([0.0, 0.4142, 1.0, 2.4142], count) + 2.0 ** rng.uniform(-52, -2, count)
        return np.where(rng.random(count) < 0.9, x * slope, y), x
    edges = rng.choice(np.array(EDGES[name]), count)
    return (edges + rng.choice([-1, 1], count) * np.maximum(np.abs(edges), 1) * 2.0 ** rng.uniform(-60, -2, count),)


# ---- Costs ----


def costs(dtype: str = "float32", size: int = 1 << 14) -> Iterator[tuple[str, float]]:
    """How much longer a step takes with each function of every gradient than with its root, on one thread."""
    texts = {name: f"{name}(g, p)" if len(OPS[name].takes) == 2 else f"{name}(g)" for name in ("sqrt", *DEFINED)}
    texts["pow"] = "g**p"
    steps, kept = {}, []
    for i, (name, text) in enumerate(texts.items()):
        compilation = driver.compile_text(f'name = "Cost{i}"\n[update]\nformulas = "delta = {text}"\n', "cost.toml")
        kernel = kernel_of(compilation, 0, dtype, None)
        rng = np.random.default_rng(0)
        arrays = [rng.random(size).astype(dtype) for _ in compilation.rules[0].arrays]
        kept.append(arrays)  # a binding knows addresses only
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
        single = worst(name, "float32", *([given.points] if len(OPS[name].takes) == 2 else []))
        double = worst(name, "float64", given.points)
        table.add_row(
            name, f"{single[0]:.4f}", str(single[1]), f"{double[0]:.3f}", str(double[1]),
            f"{times['float32'][name]:.1f}", f"{times['float64'][name]:.1f}",
        )  # fmt: skip
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
