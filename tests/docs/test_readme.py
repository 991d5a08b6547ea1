"""Everything that the README shows is run: its Python in order, its specs, its commands, its error message."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from optgen.compiler import catalogue

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [block for name, block in fences if name == language]


@pytest.fixture
def folder(tmp_path):
    """A folder of a new user, with the rule that the README has them write."""
    (lion,) = [block for block in blocks("toml") if 'name      = "Lion"' in block]
    (tmp_path / "lion.toml").write_text(lion, "utf-8")
    return tmp_path


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_its_python_runs_from_top_to_bottom(folder):
    plain = [block for block in blocks("python") if "optgen.torch" not in block]
    (folder / "readme.py").write_text("\n".join(plain), "utf-8")
    done = run(folder, sys.executable, "-W", "error", "readme.py")
    assert done.returncode == 0, done.stderr


def test_its_python_for_pytorch_runs(folder):
    pytest.importorskip("torch")
    (block,) = [block for block in blocks("python") if "optgen.torch" in block]
    (folder / "readme.py").write_text(f"import optgen\n{block}\nassert loss < 1\nboth.step(), mine.step()\n", "utf-8")
    done = run(folder, sys.executable, "-W", "error", "readme.py")
    assert done.returncode == 0, done.stderr


def test_its_excerpt_of_adam_is_what_ships():
    excerpt = blocks("toml")[0].split("\n", 1)[1]
    assert excerpt in (ROOT / "specs" / "adam.toml").read_text("utf-8")


LINES = [line for block in blocks("") for line in block.splitlines()]
#: What makes a command small that would take minutes.
SMALL = {"bench": ["--shape", "100x64", "--threads", "1", "--peers", "numpy", "--rounds", "1"]}
COMMANDS = [line.split("#")[0].split() for line in LINES if line.startswith("optgen ")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_its_commands_run(folder, command):
    done = run(folder, sys.executable, "-m", *command, *SMALL.get(command[1], []))
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout


def test_its_message_is_the_one_that_comes(folder):
    spec = folder / "lion.toml"
    right, wrong = "m     = beta[2]*m + (1 - beta[2])*g\n", "m     = beta[2]*m + (1 - beta[2])*g^2\n"
    assert right in spec.read_text("utf-8")
    spec.write_text(spec.read_text("utf-8").replace(right, wrong), "utf-8")
    (shown,) = [block for block in blocks("") if "lion.toml:" in block]
    done = run(folder, sys.executable, "-m", "optgen", "check", "lion.toml")
    assert done.returncode == 1
    assert shown.strip() in done.stdout + done.stderr


def test_it_lists_every_rule_and_every_variable():
    from optgen.compiler import driver

    for path in catalogue.shipped():
        assert driver.compile_file(path).name in README
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "optgen").rglob("*.py"))
    variables = set(re.findall(r"""environ\S*?["'](OPTGEN_\w+)["']""", sources))
    assert variables == {"OPTGEN_NUM_THREADS", "OPTGEN_ISA", "OPTGEN_CACHE_DIR"}
    for variable in variables:
        assert f"`{variable}`" in README, variable


def test_the_tests_that_it_names_are_there():
    for name in re.findall(r"`(tests/\w+\.py)`", README):
        assert (ROOT / name).is_file(), name


def test_its_table_of_the_benchmark_is_what_there_is():
    from optgen.cli import commands as cli
    from optgen.paths import benchmarks

    options = {name for parameter in cli.bench.params for name in parameter.opts if name.startswith("--")}
    table = README.split("| `optgen bench [RULE]...` |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(--\w+)", table, re.MULTILINE)) == options - {"--rounds"}
    (names,) = re.findall(r"^\| `--shape NAME` \| (.*) \|$", table, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", names)) - {"all"} == set(benchmarks("shapes").SHAPES)


def test_its_rule_with_norms_takes_two_passes(folder):
    (scaled,) = [block for block in blocks("toml") if 'name = "Scaled"' in block]
    (folder / "scaled.toml").write_text(scaled, "utf-8")
    done = run(folder, sys.executable, "-m", "optgen", "show", "scaled.toml", "--as", "passes")
    assert done.returncode == 0, done.stderr
    assert "a step in 2 passes over memory" in done.stdout


def test_its_table_of_rules_is_what_ships():
    from optgen.compiler import driver

    origins = r"Flux|torch\.optim|Optimisers\.jl|optax|parts of chains"
    rows = re.findall(rf"^\| ({origins})\b[^|]*\| (.*) \|$", README, re.MULTILINE)
    table = {origin: set(re.findall(r"[A-Z]\w+", names.split("`")[1])) for origin, names in rows}
    found = {}
    for path in catalogue.shipped():
        rule = driver.compile_file(path).rules[0]
        found.setdefault("parts of chains" if rule.part else rule.origin, set()).add(rule.name)
    assert table == found


def test_its_rule_with_a_flag_has_a_state_in_one_variant_only(folder):
    from optgen.compiler import driver

    (heavy,) = [block for block in blocks("toml") if 'name = "Heavy"' in block]
    rules = driver.compile_text(heavy, "heavy.toml").rules
    states = {rule.variant: [state.name for state in rule.states] for rule in rules}
    assert states == {"momentum": ["v"], "": []}
