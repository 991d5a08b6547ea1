"""One way through the house: which room may import which, and what of the outside world."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from optgen.paths import PACKAGE

#: Each room, in order, with the rooms and the packages that it may import; then what it may import inside a function,
#: where it is optional or costs much and is not always needed. A room imports nothing from further down this table.
ROOMS: dict[str, tuple[str, str]] = {
    "errors": ("", ""),
    "names": ("", ""),
    "ops": ("", ""),
    "resources": ("", ""),
    "ir": ("ops", ""),
    "locate": ("errors", ""),
    "syntax": ("errors", ""),
    "formula": ("errors names locate syntax", ""),
    "parse": ("errors names locate syntax formula", ""),
    "host": ("ops ir", ""),
    "compose": ("names ir", ""),
    "variant": ("errors names ops ir compose syntax", ""),
    "check": ("errors names ops ir host compose syntax variant", ""),
    "passes": ("names ops ir host passes", ""),
    "interp": ("ops ir host numpy", ""),
    "constants": ("ir host", ""),
    "sweeps_of": ("ir", ""),
    "stages": ("ir course", ""),
    "emit": ("names ops ir course stages emit", ""),
    "summary": ("ops ir course passes emit", ""),
    "render": ("ir course stages emit summary resources jinja2", ""),
    "toolchain": ("errors", "platformdirs filelock"),
    "product": ("toolchain resources", ""),
    "arrays": ("errors numpy", ""),
    "kernel": ("errors ops ir host course stages arrays numpy", "cffi"),
    "driver": ("errors ir parse compose check constants passes emit toolchain product kernel resources", "render"),
    "pages": ("names ir course emit summary driver", "rich"),
    "markdown": ("ir emit summary driver pages", ""),
    "hyperparameters": ("errors names ir", ""),
    "schedules": ("errors", ""),
    "state": ("errors arrays numpy", ""),
    "checkpoint": ("errors ir arrays hyperparameters schedules numpy", ""),
    "group": ("ops ir host course arrays kernel numpy", ""),
    "bound": ("ir host arrays kernel group numpy", ""),
    "roll": ("arrays numpy", ""),
    "plan": ("ir host arrays kernel bound roll state numpy", ""),
    "configured": ("errors names ir host emit driver hyperparameters", ""),
    "optimiser": (
        "errors ir host interp emit arrays kernel driver hyperparameters state constants checkpoint plan configured "
        "numpy",
        "",
    ),
    "chains": ("errors names ir compose check driver hyperparameters configured optimiser", ""),
    "torch": (
        "errors host ir interp emit arrays kernel driver hyperparameters constants group bound roll chains torch numpy",
        "",
    ),
    "derivatives": ("errors numpy autograd", ""),
    "track": ("errors derivatives numpy autograd", ""),
    "training": ("errors track numpy", "rich"),
    "builder": ("errors render toolchain product kernel driver resources", ""),
    "doctor": ("errors render toolchain product kernel driver resources optgen", ""),
    # The command starts with nothing but click, and takes what its subcommand needs. Benchmarks are no room of optgen:
    # `resources` finds them for it, and they may import any.
    "cli": (
        "errors optgen click",
        "names ir emit summary render toolchain product kernel driver pages markdown hyperparameters builder doctor "
        "resources rich",
    ),
    "__init__": ("", ""),  # each name loads its room when it is first used
    "__main__": ("cli", ""),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> tuple[set[str], set[str]]:
    """The rooms and packages that a file imports when it is loaded, and inside functions; not for type checkers."""
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
    rooms = set()
    for name in names:
        top, _, rest = name.partition(".")
        room = rest.split(".")[0]
        if top == "optgen":
            rooms.add(room if room in ROOMS else "optgen")
        elif top not in sys.stdlib_module_names:
            rooms.add(top)
    return rooms


def test_the_table_names_every_room_and_no_other() -> None:
    assert set(ROOMS) == {room_of(path) for path in FILES if "build" not in path.relative_to(PACKAGE).parts}


def test_the_table_goes_one_way() -> None:
    order = list(ROOMS)
    for room, allowed in ROOMS.items():
        later = order[order.index(room) + 1 :]
        assert not set(" ".join(allowed).split()) & set(later), room


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_room_imports_only_what_the_table_allows(path: Path) -> None:
    loaded, later = imported(path)
    allowed, inside = (set(part.split()) for part in ROOMS[room_of(path)])
    assert loaded <= allowed
    assert later <= allowed | inside


def test_the_imports_are_found_wherever_they_stand() -> None:
    path = PACKAGE / "emit" / "example.py"
    text = "from ..ir import Rule\nfrom . import c\nimport numpy.linalg\nif True:\n    from optgen.check import check"
    found = [targets(path, node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert found == [{"ir"}, {"emit"}, {"numpy"}, {"check"}]


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
        ("import optgen.parse, optgen.check, optgen.passes, optgen.emit.c, optgen.emit.latex", set()),
        ("import optgen.interp", {"numpy"}),
        ("from optgen import SpecError", set()),
        ("import optgen.cli", {"click"}),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str, may: set[str]) -> None:
    assert loaded_by(code) & HEAVY == may
