"""The C files that are written by hand: each compiles by itself, without a warning, and is formatted."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import cffi
import pytest

from optgen.codegen.abi import ABI
from optgen.codegen.runtime_source import headers, random_numbers, runtime_source, storages
from optgen.compiler import manifest, toolchain
from optgen.ir.primitives import BLOCK, LANES, PANEL
from optgen.paths import C_FILES, declarations
from optgen.runtime.layout import SLAB, LayoutKind

FILES = sorted(C_FILES.iterdir())
STRICT = ("-std=gnu11", "-Wall", "-Wextra", "-Wconversion", "-Werror")
COMPILERS = ("gcc", "clang")


def run(call: Sequence[str], source: str | None = None) -> subprocess.CompletedProcess[str]:
    """A call of a tool; the test is skipped where the tool is not installed."""
    try:
        return subprocess.run(call, input=source, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"there is no {call[0]} here")


def by_name(path: Path) -> str:
    return path.name


def check(compiler: str, source: str, *flags: str) -> subprocess.CompletedProcess[str]:
    # Optimised, since some warnings need what the optimiser finds out.
    return run([compiler, *STRICT, "-O2", *flags, "-I", str(C_FILES), "-c", "-x", "c", "-", "-o", "/dev/null"], source)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_a_file_compiles_by_itself_without_a_warning(path: Path, compiler: str) -> None:
    done = check(compiler, f'#include "{path.name}"\n')
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_joined_runtime_compiles_without_a_warning(compiler: str) -> None:
    done = check(compiler, runtime_source(), "-Wshadow", "-Wunused")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("draws", [False, True])
@pytest.mark.parametrize("blocks", [False, True])
def test_a_library_with_storages_compiles_with_and_without_draws(blocks: bool, draws: bool, compiler: str) -> None:
    includes = "#include <stdint.h>\n#include <string.h>"
    parts = [includes, *headers("kernel.h").values(), random_numbers() if draws else ""]
    done = check(compiler, "\n".join([*parts, storages(blocks=blocks, draws=draws)]), "-Wshadow")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("flag", ["-ffast-math", "-Ofast"])
@pytest.mark.parametrize("name", ["abi.h", "kernel library", "runtime"])
def test_fast_math_is_refused(name: str, flag: str, compiler: str) -> None:
    sources = {"abi.h": '#include "abi.h"\n', "kernel library": headers("kernel.h")["abi"], "runtime": runtime_source()}
    done = check(compiler, sources[name], flag)
    assert done.returncode != 0
    assert "-ffast-math breaks the numerical contract" in done.stderr


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_a_file_is_formatted(path: Path) -> None:
    version = re.search(r"version (\d+)", run(["clang-format", "--version"]).stdout)
    assert version
    if int(version[1]) < 14:
        pytest.skip(f"clang-format {version[1]} here is older than 14")
    done = run(["clang-format", "--dry-run", "-Werror", "--style=file", str(path)])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_a_file_opens_with_its_purpose(path: Path) -> None:
    opening = path.read_text("utf-8").split("*/")[0]
    assert opening.startswith("/* ")
    if path.suffix == ".c":
        assert " * States" in opening or "\n * States" in opening
        assert " * Invariants:" in opening


def test_joining_puts_every_file_in_once() -> None:
    source = runtime_source()
    assert not re.search(r'(?m)^#(include "|pragma once)', source)
    assert source.count("#define OPTGEN_ABI ") == source.count("#define _GNU_SOURCE") == 1
    assert source.index("#define _GNU_SOURCE") < source.index("#include <")


def test_python_and_c_have_the_same_constants() -> None:
    ffi = cffi.FFI()
    ffi.cdef(declarations())
    c = ffi.dlopen(None)
    assert (c.OPTGEN_ABI, c.OPTGEN_SLAB) == (ABI, SLAB)
    assert (c.OPTGEN_BLOCK, c.OPTGEN_LANES, c.OPTGEN_PANEL) == (BLOCK, LANES, PANEL)
    for kind in LayoutKind:
        assert getattr(c, f"OPTGEN_LAYOUT_{kind.name}") == kind


def test_a_constant_is_stated_once() -> None:
    """In `abi.h`, and in no other file of C."""
    text = "".join(path.read_text("utf-8") for path in FILES)
    for name in ("ABI", "BLOCK", "LANES", "PANEL", "SLAB"):
        assert len(re.findall(rf"#define OPTGEN_{name}\b", text)) == 1


def test_a_file_that_changes_changes_the_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "templates"
    (folder / "c").mkdir(parents=True)
    monkeypatch.setattr(manifest, "TEMPLATES", folder)
    digests = set()
    for words in ("int one;", "int two;"):
        (folder / "c" / "pool.c").write_text(words)
        digests.add(manifest.hash_sources())
    assert len(digests) == 2


def test_the_toolchain_compiles_the_joined_runtime(tmp_path: Path) -> None:
    toolchain.compile_library(runtime_source(), tmp_path / "runtime.so")
    assert (tmp_path / "runtime.so").stat().st_size > 0
