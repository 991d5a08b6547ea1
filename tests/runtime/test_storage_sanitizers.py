"""Compiled storages under sanitizers: no access outside the arrays that the table tells of, nothing undefined."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from optgen.codegen.runtime_source import storages_source
from optgen.compiler.toolchain import FLAGS, find_compiler
from optgen.ir.storages import STORAGES
from optgen.paths import C_FILES
from optgen.runtime import library

pytestmark = pytest.mark.slow

MEMORY = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
COUNTS = (*range(8), *range(61, 1400, 61), 128, 256, 1024, 1025)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("storages")
    (folder / "library.c").write_text(storages_source())
    flags = [flag for flag in FLAGS if flag != "-shared"]
    call = [*find_compiler().command, *flags, "-O1", "-g", *MEMORY, "-I", str(C_FILES), "-o", str(folder / "storages")]
    (folder / "nothing.c").write_text("int main(void) { return 0; }\n")
    if subprocess.run([*call, str(folder / "nothing.c")], capture_output=True).returncode:
        pytest.skip("the compiler has no such sanitizer")
    files = [folder / "library.c", Path(__file__).with_name("storages.c")]
    done = subprocess.run([*call, *map(str, files), "-lm"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "storages"


def lines(missing: int = 0) -> list[str]:
    """A line for each storage and count; the last array is too short by `missing` bytes."""
    found = []
    for storage in STORAGES.values():
        for count in COUNTS if storage.name not in ("float32", "float64") else ():
            lengths = zip(storage.lengths(count), storage.dtypes, strict=True)
            sizes = [length * np.dtype(dtype).itemsize for length, dtype in lengths]
            sizes[-1] = max(0, sizes[-1] - missing)
            signs = ("_signed", "_unsigned") if storage.block else ("",)
            found += [f"{storage.stem}{sign} {count} {' '.join(map(str, [*sizes, 0][:2]))}" for sign in signs]
    return found


def run(program: Path, given: list[str]) -> subprocess.CompletedProcess[str]:
    call = [str(program), *library.runtime().usable]
    return subprocess.run(call, input="\n".join(given), capture_output=True, text=True, timeout=300)


def test_no_storage_reads_or_writes_outside_its_arrays(program: Path) -> None:
    done = run(program, lines())
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == len(lines()) * len(library.runtime().usable)


def test_an_array_that_is_too_short_is_found(program: Path) -> None:
    done = run(program, lines(missing=1))
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
