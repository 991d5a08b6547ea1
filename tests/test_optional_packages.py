"""Tests run where an optional package is absent: a file that imports one skips itself first."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
FILES = sorted(TESTS.rglob("test_*.py"))
#: What files import by its bare name: what lies on pytest's `pythonpath`, and one another.
BESIDE = {path.stem: path for path in (*TESTS.rglob("*.py"), *(ROOT / "examples").glob("*.py"))}
IMPORT_NAMES = {"scikit-learn": "sklearn"}


def always_there() -> set[str]:
    """The packages of an environment that `make test` makes, by the names that they are imported by."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *extras["test"], *extras["demo"], *extras["safetensors"], *extras["bfloat16"]]
    named.append("benchmarks")
    packages = [re.split(r"[\[>]", each)[0] for each in named]
    return {IMPORT_NAMES.get(name, name) for name in packages} | set(sys.stdlib_module_names)


ALWAYS_THERE = always_there()


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported, in order."""
    yield node
    for inner in ast.iter_child_nodes(node):
        if not isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from run_at_import(inner)


@cache
def unguarded(source: str) -> tuple[set[str], set[str]]:
    """The optional packages that a source imports without `importorskip`, and those that it has asked for."""
    bare, asked = set[str](), set[str]()
    for node in run_at_import(ast.parse(source)):
        modules: list[str] = []
        match node:
            case ast.Call(func=ast.Attribute(attr="importorskip"), args=[ast.Constant(value=str(name)), *_]):
                asked.add("torch" if name == "optgen.torch" else name.partition(".")[0])
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names):
                modules = [f"{module}.{alias.name}" for alias in names]
        for module in modules:
            top, *rest = module.split(".")
            if top in BESIDE:
                inner_bare, inner_asked = unguarded(BESIDE[top].read_text("utf-8"))
                bare |= inner_bare - asked
                asked |= inner_asked
            elif top == "optgen":
                bare |= {"torch"} & set(rest[:1]) - asked
            elif top not in ALWAYS_THERE | asked:
                bare.add(top)
    return bare, asked


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_a_file_skips_itself_where_an_optional_package_is_absent(path: Path) -> None:
    assert unguarded(path.read_text("utf-8"))[0] == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch.nn", {"torch"}),
        ("if True:\n    from optax import adam", {"optax"}),
        ("import optgen.torch as optim", {"torch"}),
        ("from optgen import torch", {"torch"}),
        ("import with_lightning", {"torch", "lightning"}),
        ("import pytest\nimport torch\npytest.importorskip('torch')", {"torch"}),
        ("import pytest\ntorch = pytest.importorskip('torch')\nimport optgen.torch\nfrom torch import nn", set()),
        ("from torch_pairs import optim\nimport torch", set()),
        ("def f():\n    import torch", set()),
        ("import numpy, optgen\nfrom sklearn import datasets", set()),
    ],
)
def test_a_bare_import_is_found_wherever_it_runs_at_import(source: str, found: set[str]) -> None:
    assert unguarded(source)[0] == found
