"""The order of the wings: which may import which, and what of the outside world.

A package that is called like a wing stands as `package:torch`."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from optgen.paths import PACKAGE

#: Each wing, in order, with the wings and the packages that it may import; then what it may import inside a function,
#: where it is optional or costs much and is not always needed. A wing imports nothing from further down this table.
WINGS: dict[str, tuple[str, str]] = {
    "frozen": ("", ""),
    "errors": ("frozen", ""),
    "names": ("", ""),
    "paths": ("", ""),
    "once": ("", ""),
    "python_syntax": ("", ""),
    "former": ("", ""),  # the names of 0.1.0
    "ir": ("frozen names paths python_syntax former", ""),
    "language": ("frozen errors names python_syntax ir", ""),
    "interpreter": ("frozen ir numpy", ""),
    "lowering": ("frozen names ir", ""),
    "functional": ("frozen errors names ir interpreter numpy package:torch package:jax", ""),
    "notation": ("frozen names ir lowering", ""),
    "codegen": ("frozen names paths python_syntax ir lowering notation optgen jinja2", ""),
    "compiler": (
        "frozen errors paths ir codegen",
        "language lowering notation cffi filelock platformdirs rich",
    ),
    "runtime": ("frozen errors names paths ir interpreter lowering notation codegen compiler once numpy", "codegen"),
    "optimiser": (
        "frozen errors names paths python_syntax former ir language interpreter notation compiler runtime once optgen "
        "numpy",
        "functional safetensors",
    ),
    "training": ("errors former numpy autograd", "rich"),
    "torch": (
        "frozen errors ir interpreter functional notation compiler runtime optimiser once numpy package:torch",
        "",
    ),
    "jax": ("errors names compiler ir optimiser once package:jax optax", ""),
    # The command starts with nothing but click, and takes what its subcommand needs.
    "cli": (
        "frozen errors names paths ir lowering notation codegen compiler runtime optgen click",
        "codegen compiler runtime optimiser torch rich numpy threadpoolctl",
    ),
    "__main__": ("cli", ""),
    "__init__": ("", ""),  # each name loads its wing when it is first used
}
FILES = sorted(PACKAGE.rglob("*.py"))


def wing_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> tuple[set[str], set[str]]:
    """The wings and packages that a file imports when it is loaded, and inside functions; not for type checkers."""
    tree = ast.parse(path.read_text("utf-8"))
    checked = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    for node in checked:
        node.body = []
    found: tuple[set[str], set[str]] = (set(), set())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found[node not in tree.body].update(targets(path, node))
    return found


def targets(path: Path, node: ast.Import | ast.ImportFrom) -> set[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        package = ("optgen", *path.relative_to(PACKAGE).parts[:-1])
        base = (
            [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            if node.level
            else [node.module]
        )
        names = [".".join(filter(None, (*map(str, base), alias.name))) for alias in node.names]
    wings = set()
    for name in names:
        top, _, rest = name.partition(".")
        wing = rest.split(".")[0]
        if top == "optgen":
            wings.add(wing if wing in WINGS else "optgen")
        elif top not in sys.stdlib_module_names:
            wings.add(f"package:{top}" if top in WINGS else top)
    return wings


def test_the_table_names_every_wing_and_no_other() -> None:
    assert set(WINGS) == {wing_of(path) for path in FILES if "build" not in path.relative_to(PACKAGE).parts}


def test_the_table_goes_one_way() -> None:
    order = list(WINGS)
    for wing, allowed in WINGS.items():
        later = order[order.index(wing) + 1 :]
        assert not set(" ".join(allowed).split()) & set(later), wing


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_wing_imports_only_what_the_table_allows(path: Path) -> None:
    loaded, later = imported(path)
    allowed, inside = (set(part.split()) for part in WINGS[wing_of(path)])
    allowed.add(wing_of(path))
    assert loaded <= allowed
    assert later <= allowed | inside


def test_the_imports_are_found_wherever_they_stand() -> None:
    path = PACKAGE / "codegen" / "example.py"
    text = "from ..ir.rule import Rule\nfrom . import abi\nimport numpy.linalg\nif True:\n    from optgen import ir"
    found = [targets(path, node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert found == [{"ir"}, {"codegen"}, {"numpy"}, {"ir"}]


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh Python has loaded after `code`."""
    program = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


HEAVY = {"numpy", "cffi", "_cffi_backend", "jinja2", "autograd", "click", "rich", "platformdirs", "filelock"}


@pytest.mark.parametrize(
    ("code", "may"),
    [
        ("import optgen", set()),
        ("import optgen.errors", set()),
        (
            "import optgen.language.check, optgen.lowering.pipeline, optgen.codegen.element, optgen.notation.latex",
            set(),
        ),
        ("import optgen.interpreter", {"numpy"}),
        ("from optgen import SpecError", set()),
        ("import optgen.cli", {"click"}),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str, may: set[str]) -> None:
    assert loaded_by(code) & HEAVY == may


#: Modules that ask the package itself for a wing.
ASKING = [path for path in FILES if re.search(r"^from \.\. import \w", path.read_text("utf-8"), re.MULTILINE)]


@pytest.mark.parametrize("path", ASKING, ids=lambda path: path.stem)
def test_a_module_may_be_the_first_that_is_imported(path: Path) -> None:
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    if wing_of(path) == "torch":
        pytest.importorskip("torch")
    assert loaded_by(f"import {name}") >= {"optgen"}  # and raises nothing


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names(tree: ast.Module) -> set[str]:
    """The private names that a module gives to something: functions, classes, fields, attributes of `self`."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                found.add(name)
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=value):
                found |= {c.value for c in ast.walk(value) if isinstance(c, ast.Constant)}
    return set(filter(private, found))


def uses_of_others(tree: ast.Module, others: set[str]) -> list[str]:
    """Where a module uses private names of others: as attributes of what is not `self`, or imported."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in others and ast.unparse(node.value) not in ("self", "cls"):
            found.append(f"{node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("optgen")):
            found += [f"{node.lineno}: {alias.name}" for alias in node.names if private(alias.name)]
    return found


def test_no_module_uses_the_private_names_of_another() -> None:
    trees = {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8"))
        for path in FILES
        if "build" not in path.relative_to(PACKAGE).parts
    }
    own = {path: own_names(tree) for path, tree in trees.items()}
    every = set().union(*own.values())
    # Of autograd's boxes and of NumPy's compiled enumerations, which have fields of these names too.
    foreign = {"_value", "_node", "_value_"}
    used = {path: uses_of_others(tree, every - own[path] - foreign) for path, tree in trees.items()}
    assert not {path: found for path, found in used.items() if found}


def listed(tree: ast.Module) -> set[str] | None:
    """What a module says in `__all__` that it is for others; None if it says nothing, or makes it up when it runs."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value)) if isinstance(node.value, ast.List) else None
    return None


def test_what_modules_take_of_each_other_is_listed() -> None:
    """But for `errors`, which lists what users catch."""
    trees = {path: ast.parse(path.read_text("utf-8")) for path in FILES if path != PACKAGE / "errors.py"}
    lists = {path.with_suffix(""): names for path, tree in trees.items() if (names := listed(tree)) is not None}
    assert len(lists) > 120
    unlisted = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {alias.name} of {source.relative_to(PACKAGE)}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level and node.module
        for source in [path.parents[node.level - 1].joinpath(*node.module.split("."))]
        for alias in node.names
        if alias.name not in lists.get(source, {alias.name})
    ]
    assert not unlisted


def test_private_names_are_found_however_they_are_used() -> None:
    tree = ast.parse("from optgen.names import _NAME\nother._held = 1\nself._held = 2\nprint(other._kept)")
    assert own_names(ast.parse("class A:\n  _kept: int\n  def f(self):\n    self._held = 1")) == {"_kept", "_held"}
    assert uses_of_others(tree, {"_held", "_kept"}) == ["1: _NAME", "2: other._held", "4: other._kept"]


def test_no_module_is_longer_than_400_lines() -> None:
    """A file is one subject."""
    lengths = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in FILES
        if "build" not in path.relative_to(PACKAGE).parts
    }
    assert len(lengths) > 120
    assert not {path: length for path, length in lengths.items() if length > 400}
