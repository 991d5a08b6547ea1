"""Templates hold loops and the ABI: no rule's name, no formula, and nothing that is not defined."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import jinja2
import pytest

from optgen.codegen import c_language as c
from optgen.codegen import jinja
from optgen.codegen import kernel_source as render
from optgen.codegen.course import CourseTest
from optgen.codegen.element import ArrayPointer, Element, Fold, Line, ScalarField
from optgen.codegen.places import Base, Kept, KeptArray, Memory, SlotPlace
from optgen.codegen.runtime_source import FILES
from optgen.codegen.small_loop_text import CourseText, SlabText, SmallLoopText
from optgen.codegen.small_loops import SmallLoopBody
from optgen.codegen.sweep_text import FoldText, SweepText
from optgen.compiler import catalogue, driver
from optgen.ir.expr import Extent
from optgen.paths import TEMPLATES

ALL = sorted(path for path in TEMPLATES.rglob("*") if path.is_file())
RULES = {compiled.name: compiled for compiled in map(driver.compile_file, catalogue.shipped())}

#: Words of C before a star that declares a pointer.
TYPES = {
    "char", "const", "void", "float", "double", "int64_t", "optgen_kernel", "optgen_row", "optgen_tensor",
    "optgen_fold", "optgen_small_loop", "optgen_values", "optgen_space", "optgen_work", "optgen_reducers",
    "TYPE", "sizeof",
}  # fmt: skip


def by_name(path: Path) -> str:
    return path.name


def test_no_template_names_a_rule() -> None:
    rule = re.compile(rf"(?<![a-z])({'|'.join(map(re.escape, RULES))})(?![a-z])", re.IGNORECASE)
    assert rule.search(f"the rule {next(iter(RULES))}")
    assert {path.name: found[0] for path in ALL if (found := rule.search(path.read_text("utf-8")))} == {}


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


def stub_context(reduced: bool = False) -> dict[str, Any]:
    """What the kernel template takes, for an element that has nothing in it but names; and for what one sweep leaves
    for the next, if something is reduced."""
    step = ScalarField("scalar", SlotPlace(Memory.STEP, 0, Extent.STEP), "meaning")
    row = ScalarField("row", SlotPlace(Memory.TENSOR, 0, Extent.ROW), "meaning")
    column = ScalarField("column", SlotPlace(Memory.TENSOR, 0, Extent.COLUMN), "meaning")
    partial, panel = KeptArray(Kept.PARTIAL, 0), KeptArray(Kept.PANEL, 0)
    element = Element(
        ctype=c.DTYPES[0],
        scalars=(step, row) if reduced else (step,),
        columns=(column,) if reduced else (),
        draws=(),
        rounding=(),
        arrays=(ArrayPointer("pointer", 0, True, "float"), ArrayPointer("pointer_too", 1, False, "float")),
        reduced=("reduced", "reduced_too") if reduced else (),
        folds=(Fold("sum", False, partial), Fold("max", True, panel)) if reduced else (),
        loads=("load",),
        lines=(Line("line;", "formula"),),
        stores=("store;",),
        definitions=("definition;",),
    )
    test = CourseTest("in_step[0] != 0", frozenset({Base.STEP}), "meaning")
    sweep = SweepText("kernel", "title", element, fold="fold" if reduced else "", course="course" if reduced else "")
    bodies = [
        SmallLoopBody(over, (step,), (Line("line;", "formula"),), frozenset({Base.STEP, partial, panel}), ())
        for over in Extent
        if Extent.TENSOR <= over < Extent.ELEMENT
    ]
    small = [SmallLoopText("small", body, True, "slab") for body in bodies] if reduced else []
    slabs = [SlabText("slab", [sweep, *small[1:]], {partial}, ["place"] * 2, blocks=True)] if reduced else []
    kernel = render.KernelText(
        name="kernel", title="title", variant="variant", ctype=c.DTYPES[0], sweeps=[sweep], slabs=slabs,
        work=[sweep, *small], arrays=2, types=["float"] * 2, states=0, units="1", partials=1, panels=1, reduced=1,
    )  # fmt: skip
    context = {
        "title": "title",
        "version": "version",
        "file": "file",
        "reference": "reference",
        "formulas": ["formula"],
    }
    context |= {"definitions": ["definition;"], "kernels": [kernel], "small_loops": small, "targets": render.TARGETS}
    context["instruction_sets"] = "#define OPTGEN_V2"
    context |= {"abi": "abi;", "library": "library;", "random": "", "reduce": "reduce;" if reduced else ""}
    context |= {"storages": "", "staged": False}
    context |= {"blocks": reduced}
    context |= {"courses": [CourseText("course", test)] if reduced else []}
    return context | {"folds": [FoldText("fold", element.folds)] if reduced else []}


def stub() -> str:
    """The C that the kernel template makes of these, where nothing is reduced."""
    rendered = jinja.environment().get_template("kernel.c.jinja").render(stub_context())
    # What a macro computes is looked at too.
    return re.sub(r"(?m)^#define \w+(\([^()]*\))?", "", rendered.replace("\\\n", "\n"))


def test_the_loops_around_an_element_compute_nothing_but_places() -> None:
    assert arithmetic(stub()) == {"pointer + i", "pointer_too + i", "] + i", "i * by"}
    assert "line;" in stub()
    for function in ("sqrt", "fabs", "pow", "exp", "log", "fma", "min", "max"):
        assert re.search(rf"\b{function}f?\b", code(stub())) is None


#: The loops around elements, the reductions, random numbers, storages, what converts small states from the dtypes of
#: PyTorch and back, and the declaration of functions.
FLOATING = {"kernel.c.jinja", "reduce.h", "random.h", "small_states.c", "functions.h"}
FLOATING |= {"storage.h", "block_storage.h", "quantise.h", "quantise.c"}


@pytest.mark.parametrize("path", [p for p in ALL if p.name not in FLOATING], ids=by_name)
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


@pytest.mark.parametrize("change", ["p - p*g", "pointer[i] * scalar", "scalar + 1", "at[0] / 2", "1 - scalar"])
def test_the_search_finds_a_formula_in_a_loop(change: str) -> None:
    planted = stub().replace("line;", f"const float x = {change};")
    assert not arithmetic(planted) <= arithmetic(stub())


@pytest.mark.parametrize("missing", sorted(stub_context()))
def test_a_value_that_the_template_lacks_is_an_error(missing: str) -> None:
    context = stub_context(reduced=True)
    del context[missing]
    with pytest.raises(jinja2.UndefinedError, match=f"'{missing}' is undefined"):
        jinja.environment().get_template("kernel.c.jinja").render(context)


def test_a_compiled_template_writes_what_the_template_writes(tmp_path: Path) -> None:
    for name, module in jinja.compiled_templates().items():
        (tmp_path / name).write_text(module, "utf-8")
    for rule in ("ADAM", "Adafactor", "Lion"):
        compiled = RULES[rule]
        again = render.kernel_source(compiled.rules, compiled.lowered, Path(compiled.file).name, compiled=tmp_path)
        assert again == compiled.c_source


def test_a_template_that_is_compiled_is_not_compiled_again(tmp_path: Path) -> None:
    """Without the compiled one, the template itself is taken."""
    (name, module), *_ = ((n, text) for n, text in jinja.compiled_templates().items() if n.startswith("kernel"))
    (tmp_path / name).write_text(module.replace("do not edit", "leave alone"), "utf-8")
    for folder, words in ((tmp_path, "leave alone"), (tmp_path / "empty", "do not edit")):
        source = render.kernel_source(RULES["ADAM"].rules, RULES["ADAM"].lowered, compiled=folder)
        assert f"from a spec: {words}." in source


def test_every_file_of_the_templates_is_one_that_is_used() -> None:
    rendered = {"kernel.c.jinja", "module.py.jinja", "spec.toml.jinja", "package.pyi.jinja", "torch.pyi.jinja"}
    rendered.add("documentation.jinja")  # which two of these import
    joined = {*FILES, "quantise.c", "internal.h", "runtime.h", "abi.h", "kernel.h", "functions.h"}
    joined |= {"reduce.h", "philox.h", "random.h", "storage.h", "block_storage.h", "quantise.h", "targets.h"}
    assert {path.relative_to(TEMPLATES).as_posix() for path in ALL} == rendered | {f"c/{name}" for name in joined}
