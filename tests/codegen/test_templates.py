"""Templates hold loops and the ABI: no rule's name, no formula, and nothing that is not defined."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import jinja2
import pytest

from optgen.codegen import c_language as c
from optgen.codegen import jinja
from optgen.codegen import kernel_source as render
from optgen.codegen.element import ArrayPointer, Element, Fold, Line, ScalarField
from optgen.codegen.runtime_source import FILES
from optgen.codegen.small_loops import SmallLoopBody
from optgen.codegen.storage import Base, Kept, KeptArray, Memory, StorageSlot
from optgen.compiler import catalogue, driver
from optgen.ir.expr import Extent
from optgen.paths import C_FILES, TEMPLATES

ALL = sorted(path for path in TEMPLATES.rglob("*") if path.is_file())
RULES = {compiled.name: compiled for compiled in map(driver.compile_file, catalogue.shipped())}

#: Words of C before a star that declares a pointer.
TYPES = {
    "char", "const", "void", "float", "double", "int64_t", "optgen_kernel", "optgen_row", "optgen_tensor",
    "optgen_fold", "optgen_between", "optgen_values", "optgen_space", "optgen_work", "optgen_lanes",
    "TYPE", "sizeof", "optgen_take", "optgen_rows", "optgen_columns", "optgen_reducers",
}  # fmt: skip


def by_name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", ALL, ids=by_name)
@pytest.mark.parametrize("name", RULES)
def test_no_template_names_a_rule(path: Path, name: str) -> None:
    assert re.search(rf"(?<![a-z]){name}(?![a-z])", path.read_text("utf-8"), re.IGNORECASE) is None


@pytest.mark.parametrize("path", ALL, ids=by_name)
def test_no_template_chooses_by_what_a_rule_is_called(path: Path) -> None:
    """A name may be written out; it may not be compared with anything."""
    for statement in re.findall(r"\{%-?\s*(?:if|elif|set|for)\b(.*?)%\}", path.read_text("utf-8"), re.DOTALL):
        assert not re.search(r"""==|!=|["'][A-Za-z]{2,}["']\s*in|\bin\s*[("'\[]""", statement), statement


def code(text: str) -> str:
    """C without comments, strings and preprocessor lines."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    return re.sub(r"(?m)^\s*#(?:.*\\\n)*.*$", " ", re.sub(r'"(?:[^"\\]|\\.)*"', '""', text))


def arithmetic(text: str) -> set[str]:
    """Every operator that computes a number, with what stands on either side; stars that declare a pointer are none."""
    tokens = re.findall(r"\w+|\+\+|--|->|[-+*/%]=?|<<=?|>>=?|[^\s\w]", code(text))
    found = set()
    for before, operator, behind in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if operator in {"*"} and (before in TYPES or before in {"(", ",", ";", "{", "}", "*", "="}):
            continue  # declares, or reads through, a pointer
        if operator[0] in "+-*/%" and operator not in {"++", "--", "->"}:
            found.add(f"{before} {operator} {behind}")
    return found


def stub(reduced: bool = False) -> str:
    """The kernel template around an element that has nothing in it but names; and around what one sweep leaves for the
    next, if something is reduced."""
    step = ScalarField("scalar", StorageSlot(Memory.STEP, 0, Extent.STEP), "meaning")
    row = ScalarField("of_row", StorageSlot(Memory.TENSOR, 0, Extent.ROW), "meaning")
    column = ScalarField("column", StorageSlot(Memory.TENSOR, 0, Extent.COLUMN), "meaning")
    partial, panel = KeptArray(Kept.PARTIAL, 0), KeptArray(Kept.PANEL, 0)
    element = Element(
        ctype=c.DTYPES[0],
        scalars=(step, row) if reduced else (step,),
        columns=(column,) if reduced else (),
        arrays=(ArrayPointer("pointer", 0, True), ArrayPointer("pointer_too", 1, False)),
        reduced=("reduced", "reduced_too") if reduced else (),
        folds=(Fold("sum", False, partial), Fold("max", True, panel)) if reduced else (),
        loads=("load",),
        lines=(Line("line;", "formula"),),
        stores=("store;",),
        definitions=("definition;",),
    )
    sweep = render.SweepText("kernel", element)
    bodies = [
        SmallLoopBody(over, (step,), (Line("line;", "formula"),), frozenset({Base.STEP, partial, panel}), ())
        for over in Extent
        if Extent.TENSOR <= over < Extent.ELEMENT
    ]
    small = [render.SmallLoopText("small", body, True, "slab") for body in bodies] if reduced else []
    slabs = [render.SlabText("slab", [sweep, *small[1:]], {partial}, ["place"] * 2)] if reduced else []
    kernel = render.KernelText(
        name="kernel", title="title", variant="variant", ctype=c.DTYPES[0], sweeps=[sweep], slabs=slabs,
        work=[sweep, *small], arrays=2, states=0, units="1", partials=1, panels=1, reduced=1,
    )  # fmt: skip
    context = {
        "title": "title",
        "version": "version",
        "file": "file",
        "reference": "reference",
        "formulas": ["formula"],
    }
    context |= {"definitions": ["definition;"], "kernels": [kernel], "small_loops": small, "targets": render.TARGETS}
    context |= {"abi": "abi;", "library": "library;", "reduce": "reduce;" if reduced else ""}
    rendered = jinja.environment().get_template("kernel.c.jinja").render(context)
    # What a macro computes is looked at too.
    return re.sub(r"(?m)^#define \w+(\([^()]*\))?", "", rendered.replace("\\\n", "\n"))


def test_the_loops_around_an_element_compute_nothing_but_places() -> None:
    assert arithmetic(stub()) == {"pointer + i", "pointer_too + i", "] + i", "i * by"}
    assert "line;" in stub()
    for function in ("sqrt", "fabs", "pow", "exp", "log", "fma", "min", "max"):
        assert re.search(rf"\b{function}f?\b", code(stub())) is None


def test_the_work_between_passes_computes_nothing_but_places() -> None:
    """Which row, column or matrix, and which share of them; where the values of a reduction and of a panel begin; and
    where a slab stands in its tensor."""
    places = {
        "column + i", "reduced + i", "of_reduced + 0", "x + 0", "x + 1", "0 * OPTGEN_BLOCK", "1 * OPTGEN_BLOCK",
        "partials + 0", "0 * apart", "down + 0", "0 * wide", "wide + i", "n - i", "i += OPTGEN_TILE",
    }  # fmt: skip
    places |= {"of_many * part", "of_many * (", ") / parts", "part / parts", "part + 1"}
    places |= {"matrices * of", "rows * of", "of_height * of_blocks", "of_high * of_width"}
    places |= {"of_reduced + 1", "0 * values", "partials + begin", "rows + 0", "columns + 0", "count * of"}
    places |= {"reduced_too + i"}
    assert arithmetic(stub(reduced=True)) - arithmetic(stub()) <= places


@pytest.mark.parametrize("path", [p for p in ALL if p.name not in ("kernel.c.jinja", "reduce.h")], ids=by_name)
def test_no_other_template_knows_a_floating_point_number(path: Path) -> None:
    """The runtime counts and points; a number of a rule never has a type there, so nothing can be done to it. In
    `reduce.h` numbers are added up, and nothing else is done to them."""
    text = path.read_text("utf-8")
    if path.suffix in (".c", ".h") or path.name.endswith(".c.jinja"):
        assert re.search(r"\b(float|double|_Float\w*|math\.h|tgmath\.h)\b|\d\.\d|\b\d+e[-+]?\d", code(text)) is None
        assert "#include <math.h>" not in text


@pytest.mark.parametrize("name", RULES)
def test_the_python_module_of_a_rule_computes_nothing(name: str) -> None:
    tree = ast.parse(RULES[name].python_source)
    kinds = (ast.BinOp, ast.Compare, ast.AugAssign, ast.Lambda, ast.If, ast.For, ast.While)
    found = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, kinds)}
    assert found <= {"bool | None"}  # the type of a flag that hyperparameters decide


def test_reductions_only_add_and_compare() -> None:
    """Sums of numbers; all else is places, and how many there are of what."""
    found = arithmetic((C_FILES / "reduce.h").read_text("utf-8").replace("\\\n", "\n"))
    sums = {"total + x", "total += *", "+= * (", "] += x"}
    starts = {", - ("}
    places = {
        "x + i", "x + run", "i * stride", "i + lane", "lane + width", "run * blocks", "layout + 2",
        "d + 2", "rank - 1", "rank - 2", "i + OPTGEN_LANES", "i += OPTGEN_LANES", "8 * OPTGEN_LANES",
        "OPTGEN_LANES / 2", "width /= 2",
    }  # fmt: skip
    # Of a slab: rows and columns side by side, and values beside their elements.
    places |= {
        "x + lane", "lanes + lane", "lane % OPTGEN_LANES", "OPTGEN_LANES * rows", "lanes + width", "width * rows",
        "own - width", "own * rows", ") * rows", "i * n", "rows - top", "top + OPTGEN_PANEL", "top += OPTGEN_PANEL",
        "matrices * n", "i * 3", "m * 3", "m * 9", "3 + j", "9 + j", "m * n", "m * rows", "rows * n", "n + j",
        "rows + i", ") * n", "i * times", "times + j",
    }  # fmt: skip
    counts = {"count + size", "size - 1", ") / size", "of / over", "elements / of"}
    counts |= {"elements *= shape", "matrices *= shape", "count * n", "count * sizeof", "rows * sizeof", ") * sizeof"}
    assert found == sums | starts | places | counts


@pytest.mark.parametrize("change", ["p - p*g", "pointer[i] * scalar", "scalar + 1", "at[0] / 2", "1 - scalar"])
def test_the_search_finds_a_formula_in_a_loop(change: str) -> None:
    planted = stub().replace("line;", f"const float x = {change};")
    assert not arithmetic(planted) <= arithmetic(stub())


@pytest.mark.parametrize("path", [p for p in ALL if p.suffix == ".jinja"], ids=by_name)
def test_a_template_that_lacks_a_value_is_an_error(path: Path) -> None:
    assert jinja.environment().undefined is jinja2.StrictUndefined
    with pytest.raises(jinja2.UndefinedError):
        jinja.environment().get_template(path.name).render()


def test_every_file_of_the_templates_is_one_that_is_used() -> None:
    rendered = {"kernel.c.jinja", "module.py.jinja", "spec.toml.jinja"}
    joined = {*FILES, "internal.h", "runtime.h", "abi.h", "kernel.h", "reduce.h"}
    assert {path.relative_to(TEMPLATES).as_posix() for path in ALL} == rendered | {f"c/{name}" for name in joined}
