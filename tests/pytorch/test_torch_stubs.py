"""The stub of `optgen.torch` has the bases of its classes, and what torch.optim has besides. For signatures, see
`tests/codegen/test_stubs.py`."""

from __future__ import annotations

import ast

import pytest

torch = pytest.importorskip("torch")

import optgen.torch as optim
from optgen.codegen.description import describe
from optgen.codegen.stub_source import torch_stub
from optgen.compiler import build, catalogue
from optgen.ir.torch_names import PARENTS

COMPILATIONS = [job.compilation for job in build.jobs(list(catalogue.shipped())) if job.compilation]
STUB = ast.parse(torch_stub([describe(each.rules, each.open) for each in COMPILATIONS]))
#: What older versions of PyTorch lack.
NEWER = {"Muon", "swap_in_optimizer_params_and_state"}
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize("name", catalogue.shipped_rules())
def test_the_bases_in_the_stub_are_those_of_the_class(name: str) -> None:
    bases = [ast.unparse(base) for base in CLASSES[name].bases]
    own = getattr(optim, name).__bases__
    if name in PARENTS and not issubclass(getattr(torch.optim, name), getattr(torch.optim, PARENTS[name])):
        pytest.skip(f"{name} derives from nothing in this version of PyTorch")
    assert bases == [
        f"_theirs.{each.__name__}" if each.__module__.startswith("torch.") else each.__name__ for each in own
    ]


def test_the_stub_has_every_name_of_torch_optim() -> None:
    imported = {alias.asname for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    named = CLASSES.keys() | imported - {None}
    assert set(optim.__all__) <= named
    assert named <= set(dir(optim)) | NEWER
