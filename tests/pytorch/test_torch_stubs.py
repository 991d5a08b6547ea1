"""The stub of `optgen.torch` says what its classes say, and has what torch.optim has besides."""

from __future__ import annotations

import ast
import inspect

import pytest

torch = pytest.importorskip("torch")

import optgen.torch as optim
from optgen.codegen.description import describe
from optgen.codegen.stub_source import torch_stub
from optgen.compiler import build, catalogue

COMPILATIONS = [job.compilation for job in build.jobs(list(catalogue.shipped())) if job.compilation]
STUB = ast.parse(torch_stub([describe(each.rules, each.open) for each in COMPILATIONS]))
#: What older versions of PyTorch lack.
NEWER = {"Muon", "swap_in_optimizer_params_and_state"}
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize("name", catalogue.shipped_rules())
def test_the_stub_of_a_rule_has_the_bases_and_the_signature_of_its_class(name: str) -> None:
    cls = getattr(optim, name)
    bases = [ast.unparse(base).removeprefix("_theirs.") for base in CLASSES[name].bases]
    assert bases == [base.__name__ for base in cls.__bases__]
    inits = [node for node in CLASSES[name].body if isinstance(node, ast.FunctionDef)]
    assert bool(inits) == ("__init__" in vars(cls))
    for init in inits:
        arguments = ast.unparse(init.args)
        signature = eval(f"lambda {_untyped(init.args)}: 0")
        assert [(p.name, p.kind, p.default) for p in list(inspect.signature(signature).parameters.values())[1:]] == [
            (p.name, p.kind, p.default) for p in inspect.signature(cls).parameters.values()
        ], arguments


def _untyped(arguments: ast.arguments) -> str:
    for argument in (*arguments.args, *arguments.kwonlyargs):
        argument.annotation = None
    return ast.unparse(arguments)


def test_the_stub_has_every_name_of_torch_optim() -> None:
    imported = {alias.asname for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    named = CLASSES.keys() | imported - {None}
    assert set(optim.__all__) <= named
    assert named <= set(dir(optim)) | NEWER
