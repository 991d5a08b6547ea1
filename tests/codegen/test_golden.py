"""The generated C: what it is to the letter (of a few rules), that it is right, and what compilers say of it (of all).

After an intended change: `pytest tests/codegen/test_golden.py --update-goldens`, and read the difference.
"""

from __future__ import annotations

import platform
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from difflib import unified_diff
from pathlib import Path

import pytest
from equivalence import check_kernel, compilations, open_kernel

from optgen.codegen import runtime_source
from optgen.codegen.c_language import WIDTH
from optgen.compiler import catalogue, driver
from optgen.compiler.toolchain import FLAGS, find_compiler
from optgen.paths import SPECS
from optgen.runtime import library

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("descent", "adam", "adamw")
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wdouble-promotion", "-Wshadow", "-Wstrict-prototypes")
SHIPPED = list(catalogue.shipped())
SHIPPED_C = {spec.stem: driver.compile_file(spec).c_source for spec in SHIPPED}


@pytest.mark.parametrize("name", NAMES)
def test_the_c_is_the_golden_one(name: str, request: pytest.FixtureRequest) -> None:
    path = GOLDEN / f"{name}.c"
    generated = driver.compile_file(SPECS / f"{name}.toml").c_source
    if request.config.getoption("--update-goldens"):
        path.write_text(generated, "utf-8")
    golden = path.read_text("utf-8") if path.exists() else ""
    lines = (golden.splitlines(keepends=True), generated.splitlines(keepends=True))
    difference = "".join(unified_diff(*lines, f"tests/codegen/golden/{name}.c", "generated now"))
    if difference:
        pytest.fail(f"{difference}\nif this is what you meant: pytest {__file__} --update-goldens", pytrace=False)


def test_the_golden_c_of_adam_is_short() -> None:
    assert len((GOLDEN / "adam.c").read_text("utf-8").splitlines()) <= 222


def test_the_c_of_adafactor_is_a_third_of_what_it_was() -> None:
    in_version_0_1_0 = 7826  # lines
    assert len(SHIPPED_C["torch_adafactor"].splitlines()) <= in_version_0_1_0 // 3


@pytest.mark.parametrize("name", [spec.stem for spec in SHIPPED])
def test_lines_are_within_100_columns_and_hold_one_statement(name: str) -> None:
    source = SHIPPED_C[name]
    assert [line for line in source.splitlines() if len(line) > WIDTH] == []
    several = r"(?m)^ *(?:\*\w+ = |OPTGEN_(?:READ|WRITE)\().*; .*;"
    assert re.findall(several, source) == []


# ---- What compilers say ----


def compiler(name: str) -> str:
    try:
        said = subprocess.run([name, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"there is no {name} here")
    if (name == "clang") != ("clang" in said):
        pytest.skip(f"the {name} here is another compiler")
    return name


def say(command: str, sources: dict[str, str], *flags: str) -> dict[str, str]:
    """What a compiler says of each source, compiled with the flags of the toolchain and `flags`; all must compile."""
    call = [command, *(flag for flag in FLAGS if flag != "-shared"), *flags, "-c", "-x", "c", "-", "-o", "/dev/null"]

    def one(source: str) -> str:
        done = subprocess.run(call, input=source, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr

    with ThreadPoolExecutor() as pool:
        return dict(zip(sources, pool.map(one, sources.values()), strict=True))


def all_sources() -> dict[str, str]:
    return {spec.stem: spec.c_source for spec, _ in compilations().values()}


@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_no_compiler_warns(name: str) -> None:
    sources = all_sources() | {"runtime": runtime_source.runtime_source()}
    warnings = say(compiler(name), sources, *STRICT, "-fsyntax-only")
    assert not any(warnings.values()), "\n".join(warnings.values())


def test_a_count_of_elements_cut_to_32_bits_is_warned_of() -> None:
    source = driver.compile_file(SPECS / "descent.toml").c_source
    mutant = re.sub(r"(_(?:dense|run)\(\s*(?:char.*, )?)int64_t n", r"\1int32_t n", source)
    assert mutant != source
    assert "int32_t" in say(find_compiler().command[0], {"mutant": mutant}, *STRICT, "-fsyntax-only")["mutant"]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the widths are those of x86-64")
def test_every_dense_loop_is_made_of_vectors_as_wide_as_the_instruction_set_has() -> None:
    sources = all_sources()
    # Without icf, which makes one function of two variants that differ only in their scalars; and without memcpy, which
    # takes the place of a loop that only copies, for a sum of what an array holds.
    flags = ("-fopt-info-vec-optimized", "-fno-ipa-icf", "-fno-tree-loop-distribute-patterns")
    notes = say(compiler("gcc"), sources, *flags)
    note = r"<stdin>:(\d+):\d+: optimized: loop vectorized using (\d+) byte vectors"
    for stem, source in sources.items():
        functions = [re.match(r"OPTGEN_INLINE void (\w+)\(", line) for line in source.splitlines()]
        widths: dict[str, set[int]] = {match[1]: set() for match in functions if match}
        for line, width in re.findall(note, notes[stem]):
            around = next((match[1] for match in reversed(functions[: int(line)]) if match), None)
            widths.setdefault(str(around), set()).add(int(width))
        loops = [name for name in widths if name.endswith("_dense")]
        assert loops
        for loop in loops:
            if re.search(rf"{loop.removesuffix('_dense')}_element\([^}}]*optgen_(mod|floordiv)", source):
                continue  # which call the library of C
            assert widths[loop] >= {16, 32, 64}, loop


def test_clang_makes_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler("clang"))
    for name in ("amsgrad", "nadam"):
        spec = driver.compile_file(SPECS / f"{name}.toml")
        for isa in library.runtime().usable:
            path = tmp_path / f"{name}-{isa}.so"
            check_kernel(spec.rules[0], open_kernel(spec.c_source, path, spec.lowered[0], "float32", isa))
