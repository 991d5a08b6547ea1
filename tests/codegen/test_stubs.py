"""The stubs say of every rule what its class says, and a type checker takes what the classes take, and nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import optgen
from optgen import paths
from optgen.cli import commands
from optgen.codegen.description import describe
from optgen.codegen.stub_source import package_stub, torch_stub
from optgen.compiler import build, catalogue
from optgen.paths import BUILD, PACKAGE
from optgen.runtime.shapes import chosen_once

JOBS = [job for job in build.jobs(list(catalogue.shipped())) if job.compilation]
RULES = {job.compilation.name: describe(job.compilation.rules, job.compilation.open) for job in JOBS}
CHOSEN_ONCE = {job.compilation.name: chosen_once(job.compilation.rules) for job in JOBS}
STUB = ast.parse(package_stub(list(RULES.values())))
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}
#: What a rule takes by name only besides its flags.
OWN = {"backend"}


def constructor(stub: ast.ClassDef) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The arguments of a constructor in a stub that have defaults, with these: by position, and by name only."""
    (init,) = (node for node in stub.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    names = [argument.arg for argument in init.args.args]
    defaults = init.args.defaults
    by_position = list(zip(names[len(names) - len(defaults) :], map(ast.unparse, defaults), strict=True))
    return by_position, [
        (argument.arg, ast.unparse(default))
        for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
    ]


def others(name: str) -> list[str]:
    """The other spellings that the stub of a rule has."""
    return [argument for argument, default in constructor(CLASSES[name])[1] if default == "..."]


def test_the_stub_has_every_name_and_no_other():
    (names,) = (node.value for node in STUB.body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__")
    imported = {alias.asname for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(ast.literal_eval(names)) == set(optgen.__all__)
    assert CLASSES.keys() | imported - {None} == set(optgen.__all__)
    assert set(optgen.__all__) | {"__version__"} == set(dir(optgen))


@pytest.mark.parametrize("name", RULES)
def test_the_stub_of_a_rule_has_the_signature_and_the_docstring_of_its_class(name):
    cls = getattr(optgen, name)
    by_position, by_name = constructor(CLASSES[name])
    parameters = list(inspect.signature(cls).parameters.values())
    own = [(p.name, repr(p.default)) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    named = [(p.name, repr(p.default)) for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert by_position == own
    assert [(argument, default) for argument, default in by_name if default != "..."] == named
    assert ast.get_docstring(CLASSES[name]) == inspect.getdoc(cls)


@pytest.mark.parametrize("name", RULES)
def test_every_spelling_in_the_stub_is_an_argument_and_an_attribute(name):
    cls = getattr(optgen, name)
    for spelling in others(name):
        value = getattr(cls(), spelling)
        opt = cls(**{spelling: value})
        setattr(opt, spelling, value)
        assert getattr(opt, spelling) == value


def test_spellings_are_those_that_a_class_takes():
    assert others("ADAM") == ["η", "β", "beta1", "beta2", "β1", "β2", "ε"]
    assert others("SGD") == []
    assert others("Rprop") == ["etas1", "etas2", "step_sizes1", "step_sizes2"]


TORCH_STUB = ast.parse(torch_stub(list(RULES.values())))


@pytest.mark.parametrize(
    "stub", [node for node in TORCH_STUB.body if isinstance(node, ast.ClassDef)], ids=lambda stub: stub.name
)
def test_the_stub_of_a_class_for_pytorch_has_its_signature_and_takes_every_spelling(stub):
    pytest.importorskip("torch")
    cls = getattr(importlib.import_module("optgen.torch"), stub.name)
    if RULES[stub.name].origin == "torch.optim":
        taken = inspect.signature(cls).parameters
        made = next(node for node in stub.body if isinstance(node, ast.FunctionDef))
        assert {arg.arg for arg in (*made.args.args, *made.args.kwonlyargs)} - {"self"} <= set(taken)
        assert {"storage", "rounding", "seed"} <= {arg.arg for arg in made.args.kwonlyargs}
        return
    by_position, by_name = constructor(stub)
    parameters = list(inspect.signature(cls).parameters.values())[1:]
    assert by_position == [(p.name, repr(p.default)) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    named = [(p.name, repr(p.default)) for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert [(argument, default) for argument, default in by_name if default != "..."] == named
    naming = importlib.import_module("optgen.torch.optimizer").naming_of(cls)
    assert {name for name, default in by_name if default == "..."} == naming.spellings.keys() | naming.absent.keys()


def test_a_stub_is_written_where_it_is_missing_or_says_something_else(tmp_path):
    (tmp_path / "torch").mkdir()
    files = [tmp_path / "__init__.pyi", tmp_path / "torch" / "__init__.pyi"]
    build.write_stubs(JOBS, tmp_path)
    texts = [file.read_text("utf-8") for file in files]
    assert texts == [package_stub(list(RULES.values())), torch_stub(list(RULES.values()))]
    files[1].write_text("old", "utf-8")
    before = files[0].stat().st_mtime_ns
    build.write_stubs(JOBS, tmp_path)
    assert [file.read_text("utf-8") for file in files] == texts
    assert files[0].stat().st_mtime_ns == before


def test_the_stubs_are_written_when_the_shipped_rules_are_built_in_their_folder(tmp_path, monkeypatch):
    written: list[int] = []
    adam = catalogue.shipped_names()["ADAM"]
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    monkeypatch.setattr(catalogue, "shipped", lambda: (adam,))
    monkeypatch.setattr(build, "build", lambda *job: True)
    monkeypatch.setattr(build, "write_stubs", lambda jobs: written.append(len(jobs)))
    for arguments in ([], [str(adam)], ["--out", str(tmp_path)], ["--out", str(tmp_path), str(adam)]):
        monkeypatch.chdir(tmp_path)
        assert CliRunner().invoke(commands.main, ["build", *arguments]).exit_code == 0
    assert written == [len(build.OWN) + 1]  # and the one rule


# ---- A type checker ----


def use_of(name: str) -> list[str]:
    """Lines that use a rule in every way that it has."""
    rule, variable = RULES[name], f"opt_{name}"
    lines = [f"{variable} = optgen.{name}()"]
    by_position, by_name = constructor(CLASSES[name])
    lines.append(f"{variable} = optgen.{name}({', '.join(default for _, default in by_position)})")
    for argument, default in (*by_position, *by_name):
        value = f"{variable}.{argument}" if default == "..." else default
        lines.append(f"{variable} = optgen.{name}({argument}={value})")
    for hyper in rule.hypers:
        for spelling in (hyper.name, *(each for each, _ in hyper.spellings)):
            lines.append(f"{variable}.{spelling} = {variable}.{spelling}")
        if not hyper.count and hyper.name not in CHOSEN_ONCE[name]:
            lines += [
                f"{variable} = optgen.{name}({hyper.name}=constant({hyper.default}))",
                f"{variable} = optgen.{name}()",
            ]
    lines += [f"bool({variable}.{flag.name})" for flag in rule.flags]
    lines.append(f"{variable}.state_dict()")
    return lines


RIGHT = """
import numpy as np
from optgen import ADAM, ClipNorm, Optimiser, chain, constant, cosine, split
import optgen

opt = ADAM(0.001, (0.9, 0.999), backend="interpreter")
stepped: bool = opt.step([np.zeros(3)], [np.ones(3)])
opt = ADAM(np.float32(0.001), np.array([0.9, 0.999]))
opt = ADAM(eta=cosine(0.1, steps=1000), beta=[0.9, 0.999])
opt = ADAM(eta=lambda t: 1 / t, β1=0.5)
opt.eta = 0.1
opt.eta /= 2
opt.beta = 0.8, 0.9
whole = chain(ClipNorm(1.0), opt)
whole[1].eta = 0.25
parts: Optimiser = Optimiser(ClipNorm(1.0), ADAM())
several = split({"W": np.zeros((2, 2))}, matrices=opt, rest=ADAM(), rest_names="W")
several["rest"].state_dict()
"""
#: What is no call, and a word that says so.
WRONG = {
    "optgen.ADAM(betas=1)": "betas",
    "optgen.ADAM(beta=1)": "beta",
    "optgen.ADAM(beta=(0.9,))": "beta",
    'optgen.ADAM(eta="0.1")': "eta",
    'optgen.ADAM(backend="kernal")': "kernal",
    "optgen.ADAM(0.1, (0.9, 0.99), 1e-8, 1)": "Too many",
    "optgen.Adam(amsgrad=0.5)": "amsgrad",
    "optgen.ADAN()": "ADAN",
    'optgen.ADAM().eta = "0.1"': "str",
    "optgen.Adam().amsgrad = True": "read-only",
    "optgen.torch.LAMB([], lrr=1)": "lrr",
    "optgen.torch.LAMB()": "params",
    "optgen.torch.EMA([])": "EMA",
    "optgen.torch.LAMB.options(lrr=1)": "lrr",
    "optgen.torch.split()": "split",
}


@pytest.fixture
def project(tmp_path):
    """The package with its stubs, a file with every use of every rule, and one in which every line is wrong."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        return {"__pycache__", *[BUILD.name] * (Path(folder) == BUILD.parent)}

    shutil.copytree(PACKAGE, tmp_path / "optgen", ignore=left_out)
    build.write_stubs(JOBS, tmp_path / "optgen")
    right = "\n".join([*RIGHT.splitlines(), *(line for name in RULES for line in use_of(name))])
    exec(right, {})
    (tmp_path / "right.py").write_text(right, "utf-8")
    (tmp_path / "wrong.py").write_text("\n".join(["import optgen", "import optgen.torch", *WRONG]), "utf-8")
    return tmp_path


def errors(project: Path, *command: str) -> dict[str, dict[int, str]]:
    """By file and line, all that a type checker says."""
    files = ["right.py", "wrong.py"]
    done = subprocess.run([*command, *files], cwd=project, capture_output=True, text=True)
    found: dict[str, dict[int, str]] = {file: {} for file in files}
    for file, line, message in re.findall(r"(right\.py|wrong\.py):(\d+):.*?\berror: (.*)", done.stdout):
        found[file][int(line)] = found[file].get(int(line), "") + message
    assert found["wrong.py"], done.stdout + done.stderr
    return found


@pytest.mark.slow
def test_mypy_accepts_every_rule_and_refuses_what_is_no_call(project):
    # PyTorch's own types are not looked at: they take minutes, and may be absent.
    skip = "follow_imports = skip\nignore_missing_imports = True"
    silent = "follow_imports = silent\nignore_errors = True"
    options = f"[mypy]\nstrict = True\n[mypy-torch.*]\n{skip}\n[mypy-optgen.*]\n{silent}\n"
    (project / "mypy.ini").write_text(options, "utf-8")
    found = errors(project, sys.executable, "-m", "mypy")
    assert found["right.py"] == {}
    for line, word in enumerate(WRONG.values(), 3):
        assert word in found["wrong.py"].get(line, ""), word


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pyright") is None, reason="pyright is not installed")
def test_pyright_does_so_too(project):
    found = errors(project, "pyright", "--pythonpath", sys.executable)
    assert found["right.py"] == {}
    for line, call in enumerate(WRONG, 3):
        # Where PyTorch is absent, its types are unknown.
        assert line in found["wrong.py"] or "torch" in call, call
