"""From a spec on disk to a class in use: what is taken from `build/`, what is made anew, and when."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from optgen import errors
from optgen.codegen.jinja import compiled_templates
from optgen.compiler import build as builder
from optgen.compiler import catalogue, driver
from optgen.optimiser import classes

ROOT = Path(__file__).parents[2]
WITHOUT_COMPILER = {"CC": "/nonexistent", "PATH": "/nonexistent"}


@pytest.fixture(scope="module")
def built_checkout(tmp_path_factory):
    """A checkout of its own with two rules, installed the way an editable install does it: built in `build/`."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("optgen", "templates"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "specs").mkdir()
    for name in ("descent", "momentum"):
        shutil.copy(ROOT / "specs" / f"{name}.toml", root / "specs")
    done = python(root, "from optgen import cli; cli.main(['build'], standalone_mode=False)", root / "cache")
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def checkout(built_checkout, tmp_path):
    """A copy that a test may change, with the bytecode."""
    shutil.copytree(built_checkout, tmp_path / "checkout", ignore=shutil.ignore_patterns("cache"))
    return tmp_path / "checkout"


def python(root: Path, code: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    ours = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "", "OPTGEN_CACHE_DIR": str(cache)}
    variables = os.environ | ours | environment
    return subprocess.run([sys.executable, "-c", code], cwd=root, env=variables, capture_output=True, text=True)


STEP = """
import numpy as np, optgen
p = np.ones(3)
opt = optgen.Descent()
opt.step([p], [np.ones(3)])
print(opt.eta, p[0])
"""


def test_a_built_rule_steps_without_a_compiler_or_a_cache(checkout, tmp_path):
    done = python(checkout, STEP, tmp_path / "cache", **WITHOUT_COMPILER)
    assert done.stdout.split() == ["0.1", "0.9"], done.stderr
    assert not (tmp_path / "cache").exists()


def test_an_edited_spec_is_compiled_on_the_next_use(checkout, tmp_path):
    spec = checkout / "specs" / "descent.toml"
    spec.write_text(spec.read_text("utf-8").replace("delta = eta*g", "delta = 2*eta*g").replace("0.1", "0.25"), "utf-8")
    done = python(checkout, STEP, tmp_path / "cache")
    assert done.stdout.split() == ["0.25", "0.5"], done.stderr
    assert list((tmp_path / "cache").glob("*/descent.so"))


def test_an_edited_spec_without_a_compiler_is_one_clear_error(checkout, tmp_path):
    spec = checkout / "specs" / "descent.toml"
    spec.write_text(spec.read_text("utf-8").replace("delta = eta*g", "delta = 2*eta*g"), "utf-8")
    done = python(checkout, STEP, tmp_path / "cache", **WITHOUT_COMPILER)
    assert done.returncode == 1
    assert "CompilerNotFound" in done.stderr
    assert 'backend="interpreter"' in done.stderr
    oracle = STEP.replace("Descent()", 'Descent(backend="interpreter")')
    done = python(checkout, oracle, tmp_path / "cache", **WITHOUT_COMPILER)
    assert done.stdout.split() == ["0.1", "0.8"], done.stderr


def test_an_edited_compiler_outdates_what_it_built(checkout, tmp_path):
    template = checkout / "templates" / "kernel.c.jinja"
    template.write_text("/* another compiler */\n" + template.read_text("utf-8"), "utf-8")
    done = python(checkout, STEP, tmp_path / "cache")
    assert done.stdout.split() == ["0.1", "0.9"], done.stderr
    (source,) = (tmp_path / "cache").glob("*/descent.c")
    assert source.read_text("utf-8").startswith("/* another compiler */")


TEMPLATE = next(name for name in compiled_templates() if name.startswith("kernel"))
BUILT = ["libdescent.so", "descent.py", "descent.json", "libruntime.so", "declarations.py", TEMPLATE]


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damage_in_the_build_folder_is_noticed_and_made_good(checkout, tmp_path, name, damage):
    file = checkout / "build" / name
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-10])
    else:
        file.unlink()
    done = python(checkout, STEP, tmp_path / "cache")
    assert done.stdout.split() == ["0.1", "0.9"], done.stderr
    assert (tmp_path / "cache").exists()


def test_the_build_folder_may_be_deleted_at_any_time(checkout, tmp_path):
    shutil.rmtree(checkout / "build")
    done = python(checkout, STEP, tmp_path / "cache")
    assert done.stdout.split() == ["0.1", "0.9"], done.stderr


def test_a_spec_is_called_as_its_rule():
    for path in catalogue.shipped():
        assert driver.compile_file(path).stem == path.stem


def test_the_names_of_the_rules_are_read_without_reading_the_rest():
    names = {driver.compile_file(path).name: path for path in catalogue.shipped()}
    assert catalogue.shipped_names() == names
    assert len({path.stem.lower() for path in names.values()}) == len(names)


@pytest.mark.parametrize("name", ["Nosuchrule", "adam", "AdAm", "../specs/adam", ""])
def test_an_unknown_rule_is_refused(name):
    with pytest.raises(errors.UnknownRule, match=r"optgen has no rule.*\n.*`optgen list`"):
        classes.shipped_class(name)


def test_a_file_that_is_no_spec_is_refused_by_its_path(tmp_path):
    with pytest.raises(errors.OptgenError, match=r"nothing\.toml: expected a spec, got an error: no such file"):
        driver.compile_file(tmp_path / "nothing.toml")
    (tmp_path / "latin.toml").write_bytes('name = "Café"'.encode("latin-1"))
    with pytest.raises(errors.OptgenError, match="expected a spec in UTF-8, got another byte at 11"):
        driver.compile_file(tmp_path / "latin.toml")


def test_two_rules_of_one_name_are_refused(tmp_path):
    text = (ROOT / "specs" / "descent.toml").read_text("utf-8")
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(text, "utf-8")
    with pytest.raises(errors.OptgenError, match=r"two\.toml: the files of Descent are taken by .*one\.toml"):
        list(builder.jobs([tmp_path / "one.toml", tmp_path / "two.toml"]))
    (tmp_path / "runtime.toml").write_text(text.replace('"Descent"', '"Runtime"'), "utf-8")
    with pytest.raises(errors.OptgenError, match="`runtime` is taken"):
        list(builder.jobs([tmp_path / "runtime.toml"]))


def test_the_faults_of_all_specs_of_a_build_come_together(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(f'name = "{name}"\n[update]\nformulas = "delta = nonsense*g"\n', "utf-8")
    with pytest.raises(errors.OptgenError) as caught:
        list(builder.jobs([tmp_path / "one.toml", tmp_path / "two.toml"]))
    assert "one.toml:3:21: unknown name 'nonsense'" in str(caught.value)
    assert "two.toml:3:21: unknown name 'nonsense'" in str(caught.value)


def test_the_docstring_shows_what_each_flag_changes():
    lines = [line.strip() for line in classes.shipped_class("ADAMW").__doc__.splitlines()]
    usual, coupled = lines.index("Δ ← step + decay·p"), lines.index("with coupled=True:")
    assert lines[coupled + 2 : coupled + 4] == ["Δ ← step + η·decay·p", ""]
    assert usual < coupled
    assert "with" not in " ".join(classes.shipped_class("ADAM").__doc__.split()[:40])


@pytest.mark.parametrize(
    ("name", "meant"), [("adammax", "Adamax"), ("nesterov", "Nesterov"), ("Lamb", "LAMB"), ("Adelta", "Adadelta")]
)
def test_a_rule_spelled_otherwise_is_suggested(name, meant):
    with pytest.raises(errors.UnknownRule, match=f"did you mean {meant!r}"):
        classes.shipped_class(name)


def test_the_rules_of_a_build_have_the_same_bytes_in_every_process() -> None:
    code = """
import hashlib
from optgen.compiler import catalogue, driver
rules = driver.compile_file(catalogue.shipped_names()["Adafactor"]).rules_file
print(hashlib.sha256(rules).hexdigest())
"""
    digests = set()
    for seed in "12":
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1
