"""Measure what giving up equal bits would gain: kernels with contraction and reciprocals beside the exact ones.

    python -m benchmarks.fast [--rules ADAM,NADAM]

In: names of rules. Out: a table of speed-ups, which are why optgen has no fast mode.

The same C is compiled three times: as it ships; with a*b + c rounded once; and also with sums in any order and x/y as
x*(1/y). The three take turns in one process, on one thread. Their arrays fit into the caches, where arithmetic is the
limit and not memory.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from optgen.compiler import catalogue, driver, toolchain
from optgen.ir.evaluate import Always
from optgen.runtime import library
from optgen.runtime.binding import Binding, rows_of
from optgen.runtime.kernel import Kernel, kernel_of
from optgen.runtime.library import open_library

RULES = "ADAM,NADAM,RMSProp,ADADelta,AdaBelief,Lion"
SIZES = (2_000, 20_000, 100_000)  # elements; four arrays of the largest take 1.6 MB
REPEATS = 200
FLAGS = {
    "contracted": ("-ffp-contract=fast",),
    "and reciprocals": (
        "-ffp-contract=fast", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-freciprocal-math",
    ),
}  # fmt: skip


def kernels(compilation: driver.Compilation, folder: Path) -> dict[str, Kernel]:
    """Kernels of a rule: as it ships, and compiled in each faster way."""
    run, compiler = library.runtime(), toolchain.find_compiler()
    made = {"exact": kernel_of(compilation, 0, "float32", None)}
    # Contraction needs FMA, which every processor with AVX2 has.
    source = compilation.c_source.replace('target("avx2")', 'target("avx2,fma")')
    for i, (name, flags) in enumerate(FLAGS.items()):
        text, built = folder / f"{compilation.stem}{i}.c", folder / f"{compilation.stem}{i}.so"
        text.write_text(source, "utf-8")
        common = [flag for flag in toolchain.FLAGS if flag != "-ffp-contract=off"]
        subprocess.run([*compiler.command, *common, *flags, "-o", str(built), str(text), "-lm"], check=True)
        made[name] = Kernel(run, open_library(run.ffi, built, "optgen_abi"), compilation.lowered[0], "float32")
    return made


def measure(found: dict[str, Kernel], size: int) -> tuple[dict[str, float], dict[str, float]]:
    """The median seconds of a step of each kernel, and its error after one step, in units in the last place of the
    largest parameter."""
    rule = found["exact"].rule
    values = Always({hyper.name: hyper.default for hyper in rule.hypers})
    arrays = {}
    for name in found:
        rng = np.random.default_rng(0)
        first = [rng.standard_normal(size, dtype=np.float32) for _ in range(2)]
        arrays[name] = [*first, *(np.zeros(size, np.float32) for _ in rule.arrays[2:])]
    bindings = {name: Binding(kernel, rows_of(kernel, [arrays[name]])) for name, kernel in found.items()}
    for binding in bindings.values():
        binding.run([values], 1, 1)
    exact = arrays["exact"][0]
    unit = np.spacing(np.abs(exact).max())
    apart = {name: float(np.abs(own[0] - exact).max() / unit) for name, own in arrays.items()}
    times: dict[str, list[float]] = {name: [] for name in found}
    for t in range(2, REPEATS + 2):
        for name, binding in bindings.items():
            start = time.perf_counter()
            binding.run([values], t, 1)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}, apart


def main() -> None:
    parser = argparse.ArgumentParser(description="What giving up equal bits would gain.")
    parser.add_argument("--rules", default=RULES, help="only these, separated by commas")
    rules = parser.parse_args().rules.split(",")
    table = Table("rule", "elements", "exact", *(f"{name}: speed-up, ulps apart" for name in FLAGS))
    with tempfile.TemporaryDirectory() as folder:
        for rule in rules:
            found = kernels(driver.compile_file(catalogue.shipped_names()[rule]), Path(folder))
            for size in SIZES:
                seconds, apart = measure(found, size)
                others = [f"{seconds['exact'] / seconds[name]:.2f}, {apart[name]:.2g}" for name in FLAGS]
                table.add_row(rule, f"{size:,}", f"{seconds['exact'] * 1e6:.1f} µs", *others)
    Console().print(table)


if __name__ == "__main__":
    main()
