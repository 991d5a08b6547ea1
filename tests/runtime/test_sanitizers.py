"""The generated C and the runtime under sanitizers: no access outside an array, nothing undefined, no race.

A program of its own (`harness.c`) steps the kernels; it is the program that is watched, not Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from equivalence import REDUCED

from optgen.codegen import runtime_source
from optgen.compiler import catalogue, driver
from optgen.compiler.toolchain import FLAGS, find_compiler
from optgen.ir.expr import Extent
from optgen.lowering.sweeps import sweeps_of
from optgen.paths import C_FILES
from optgen.runtime import library

pytestmark = pytest.mark.slow

HARNESS = Path(__file__).with_name("harness.c")
MEMORY = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
RACES = ("-fsanitize=thread",)
#: The first race ends the program: to find the places of thousands takes minutes.
ENVIRONMENT = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
LIMIT = 300.0  # seconds, on a busy machine


@dataclass(frozen=True)
class Program:
    path: Path
    kernels: int  # for each instruction set

    def run(self, callers: int, fault: str = "") -> subprocess.CompletedProcess[str]:
        call = [str(self.path), str(callers), *([fault] if fault else [])]
        how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": LIMIT, "env": ENVIRONMENT}
        done = subprocess.run(call, **how)
        if "unexpected memory mapping" in done.stderr and shutil.which("setarch"):
            # The system scatters memory more than an older sanitizer can follow.
            done = subprocess.run(["setarch", "-R", *call], **how)
        return done


def build(folder: Path, name: str, sanitizer: Sequence[str], specs: Sequence[driver.Compilation]) -> Program:
    """The harness with kernels and runtime; the test is skipped where this sanitizer is not installed."""
    flags = [flag for flag in FLAGS if flag != "-shared"]
    call = [*find_compiler().command, *flags, "-O1", "-g", *sanitizer, "-I", str(C_FILES), "-I", str(folder)]
    (folder / "nothing.c").write_text("int main(void) { return 0; }\n")
    linked = subprocess.run([*call, "-o", str(folder / "nothing"), str(folder / "nothing.c")], capture_output=True)
    if linked.returncode:
        pytest.skip(f"the compiler has no {sanitizer[0]}: {linked.stderr.decode().strip().splitlines()[-1]}")

    names = [
        (spec.stem, rule, sweeps_of(low))
        for spec in specs
        for rule, low in zip(spec.rules, spec.lowered, strict=True)
        if not rule.multiplies
    ]
    lines = [f"const optgen_kernel *{spec.stem}_kernels(void);" for spec in specs]
    # Blocks are rows to a kernel.
    kept = (Extent.TENSOR,), (Extent.MATRIX,), (Extent.ROW, Extent.BLOCK), (Extent.COLUMN,), (Extent.INDEX,)
    rows = [
        f'{{ {stem}_kernels, "{rule.variant}", {", ".join(str(sum(len(plan.small(e)) for e in es)) for es in kept)}, '
        f"{int(any(state.extent == Extent.INDEX for state in rule.states))} }},"
        for stem, rule, plan in names
    ]
    (folder / "rules.h").write_text("\n".join([*lines, "static const rule rules[] = {", *rows, "};", ""]))
    sources = {"runtime": runtime_source.runtime_source()} | {spec.stem: spec.c_source for spec in specs}

    def compile_one(stem: str) -> str:
        source, target = folder / f"{stem}.c", folder / f"{stem}.o"
        source.write_text(sources.get(stem) or HARNESS.read_text())
        # In one program the functions that every kernel library has need names of their own.
        names = [f"-Doptgen_{f}={stem}_{f}" for f in ("kernels", "abi")] if stem in sources else []
        extra = ['-DRULES="rules.h"', "-Wall", "-Wextra", "-Werror"] if stem == "harness" else names
        done = subprocess.run([*call, *extra, "-c", "-o", str(target), str(source)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return str(target)

    with ThreadPoolExecutor() as pool:
        objects = list(pool.map(compile_one, [*sources, "harness"]))
    done = subprocess.run([*call, "-o", str(folder / name), *objects, "-lm"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Program(folder / name, 2 * len(names))


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Those of one collection are more than all others together, and what surrounds their formulas is the same."""
    every = [*map(driver.compile_file, catalogue.shipped()), driver.compile_text(REDUCED, "reduced.toml")]
    specs = [spec for spec in every if spec.rules[0].origin != "pytorch-optimizer"]
    return build(tmp_path_factory.mktemp("memory"), "memory", MEMORY, specs)


@pytest.fixture(scope="module")
def races(tmp_path_factory: pytest.TempPathFactory) -> Program:
    stems = ("adam", "descent", "lamb", "sm3", "torch_adafactor")
    specs = [driver.compile_file(path) for path in catalogue.shipped() if path.stem in stems]
    return build(tmp_path_factory.mktemp("races"), "races", RACES, specs)


def expect_clean(done: subprocess.CompletedProcess[str], steps: int) -> None:
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{steps} steps, 3 workers\n"


STEPS = 4 * 8 * 2  # of the harness, with one kernel: lists of sizes, layouts, numbers of threads


def test_no_kernel_reads_or_writes_outside_its_arrays(memory: Program) -> None:
    expect_clean(memory.run(1), memory.kernels * len(library.runtime().usable) * STEPS)


def test_callers_at_once_do_not_race(races: Program) -> None:
    expect_clean(races.run(4), 4 * races.kernels * len(library.runtime().usable) * STEPS)


@pytest.mark.parametrize(
    ("fault", "report"),
    [
        ("behind", "AddressSanitizer: heap-buffer-overflow"),
        ("too long", "AddressSanitizer: heap-buffer-overflow"),
        ("unaligned", "misaligned address"),
    ],
)
def test_a_fault_of_memory_is_found(memory: Program, fault: str, report: str) -> None:
    done = memory.run(1, fault)
    assert done.returncode != 0
    assert report in done.stderr
    assert "WRITE of size 1" in done.stderr or fault != "behind"


def test_a_race_is_found(races: Program) -> None:
    done = races.run(2, "shared")
    assert done.returncode != 0
    assert "ThreadSanitizer: data race" in done.stderr
