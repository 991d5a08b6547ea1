"""Values of indices in specs: what may be said of them, and what is refused."""

from __future__ import annotations

import pytest

from optgen.errors import SpecError
from optgen.ir.expr import Extent, Matrices, extent_of, reduces
from optgen.ir.rule import Rule
from optgen.language.check import check
from optgen.language.parse import parse
from optgen.lowering.pipeline import lower
from optgen.notation import facts, latex, text

STATE = 'acc = { init = "0", extent = "index" }'
LARGEST, STEP = "acc = max(g**2, index)", "delta = eta*g*min(acc, element)"


def spec(formulas: str, states: str = STATE, update: str = "") -> str:
    """A spec with states from line 5, `update` on line 7 and formulas from line 9 on, where there is one state."""
    return f"""name = "R"
[hyperparameters]
eta = {{ default = 0.1, range = "[0, inf)" }}
[state]
{states}
[update]
{update}
formulas = '''
{formulas}
'''
"""


def rules(source: str) -> tuple[Rule, ...]:
    return check(parse(source, "r.toml"))


INDEX = "one value for each index of each dimension (index)"
SEVERAL = "min(x, element)"
SIDES = "indices, and rows, columns or matrices, do not fit into one variant"
FAULTS = [
    ("beside an element", f"{LARGEST}\ndelta = eta*g*acc", 10, 9, f"{INDEX} does not fit one value for each element",
     SEVERAL),
    ("in the place of a step", f"{LARGEST}\ndelta = acc", 10, 9, f"'delta': expected one value for each element "
     f"(element), got {INDEX}", SEVERAL),
    ("an element for an index", f"acc = g**2\n{STEP}", 9, 7, f"'acc': expected {INDEX}, got one value for each element",
     "max(x, index)"),
    ("a row for an index", f"acc = max(g**2, row)\n{STEP}", 9, 7, f"'acc': expected {INDEX}, got one value for each "
     "row (row)", "max(x, index)"),
    ("a sum", f"acc = sum(g**2, index)\n{STEP}", 9, 7, "sum() over an index: expected min(x, index) or max(x, index)",
     ""),
    ("a mean for an element", f"{LARGEST}\ndelta = eta*g*mean(acc, element)", 10, 15,
     "mean() over the indices of an element: expected min(x, element) or max(x, element)", ""),
    ("two values for an element", f"{LARGEST}\ndelta = eta*min(acc, g, element)", 10, 13, "expected min(x, element)",
     ""),
    ("an element of an element", f"{LARGEST}\n{STEP}*max(g, element)", 10, 37, f"expected {INDEX}, got one value for "
     "each element (element)", 'extent = "index"'),
    ("a condition", f"{LARGEST}\n{STEP}*max(acc > 0, element)", 10, 37, f"expected {INDEX}, got a condition", ""),
    ("rows of indices", f"{LARGEST}\ndelta = eta*g*min(acc, row)", 10, 15, f"min() over a row was given {INDEX}",
     SEVERAL),
    ("indices of indices", f"acc = max(acc, index)\n{STEP}", 9, 7, "max() over an index: expected one value for each "
     "element", "leave the reduction out"),
    ("a product", f"{LARGEST}\ndelta = eta*(acc @ g)", 10, 14, f"expected matrices, got {INDEX}", SEVERAL),
    ("beside a product", f"{LARGEST}\n{STEP}*(g @ g.T @ g)", 10, 38, SIDES, "two rules"),
    ("beside columns", f"{LARGEST}\n{STEP}*mean(g, column)", 10, 41, SIDES, ""),
    ("beside a count of rows", f"{LARGEST}\n{STEP}*rows", 10, 33, SIDES, ""),
    ("beside what is tall", f"{LARGEST}\n{STEP}*(1 if tall else 2)", 8, 1, SIDES, ""),
    ("for no matrix", f"{LARGEST}\n{STEP} if matrix else eta*g", 5, 30, f"'acc' has {INDEX}, and there is none where "
     "the parameter is no matrix", 'when = "matrix"'),
    ("an extent alone", f"{LARGEST}\n{STEP}*element", 10, 33, "'element' is an extent, which is written last",
     "min(acc, element)"),
    ("a name that is taken", f"{LARGEST}\nindex = 2\n{STEP}*index", 10, 1, "'index' is an extent, which a rule does "
     "not assign", "another name"),
]  # fmt: skip
OF_STATES = [
    ("a start of elements", spec(f"{LARGEST}\n{STEP}", 'acc = { init = "p", extent = "index" }'), 5, 17,
     f"'acc': expected {INDEX}, got one value for each element", "only a state like the parameter"),
    ("a side of a matrix", spec("delta = eta*g", 'acc = { init = "0", extent = "row, index" }'), 5, 30,
     "expected two of row, column, short, long; got 'index'", ""),
    ("matrices without rows", spec(f"{LARGEST}\n{STEP}", update='matrices = "first by rest"'), 7, 12,
     "nothing here has rows or columns", "remove it"),
    ("the view of indices", spec(f"{LARGEST}\n{STEP}", update='matrices = "fewest rows and columns"'), 7, 12,
     "expected one of last two, first by rest, all but last by last", ""),
    ("blocks too", spec(f"{LARGEST}\n{STEP}*mean(g, block)", update="block = 4"), 10, 41,
     "blocks, and indices, do not fit into one variant", ""),
]  # fmt: skip

#: The same, each with the whole spec.
SPECS = [*((name, spec(formulas), *rest) for name, formulas, *rest in FAULTS), *OF_STATES]


@pytest.mark.parametrize(
    ("source", "line", "column", "message", "hint"), [f[1:] for f in SPECS], ids=[f[0] for f in SPECS]
)
def test_a_fault_has_its_place_and_a_hint(source: str, line: int, column: int, message: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        rules(source)
    fault = next(each for each in caught.value.diagnostics if message in each.message)
    assert (fault.span.line, fault.span.column) == (line, column), fault
    assert hint in (fault.hint or "")


def test_a_rule_of_indices_sees_one_matrix_of_few_rows_and_columns() -> None:
    (rule,) = rules(spec(f"{LARGEST}\n{STEP}"))
    assert (rule.matrix, rule.matrices, rule.tiled) == (True, Matrices.FEWEST, True)
    extents = {assign.target: extent_of(assign.value) for assign in rule.body}
    assert extents["acc"] == Extent.INDEX
    assert extents["p"] == Extent.ELEMENT
    over = {each.over for each in reduces(assign.value for assign in lower(rule).body)}
    assert over == {Extent.ROW, Extent.COLUMN}
    assert facts.matrices([rule]) == ""
    assert facts.kept(rule.states[0]) == "one for each index of each dimension"


def test_indices_are_written_as_they_are_said() -> None:
    (rule,) = rules(spec(f"{LARGEST}\n{STEP}"))
    assert text.formula(rule.body[0]) == "acc ← max(g², index)"
    assert "min(acc, element)" in text.formula(rule.body[1])
    assert r"\min_{\text{element}}\left(\mathrm{acc}\right)" in latex.formula(rule.body[1])


def test_there_may_be_several_states_of_indices() -> None:
    looped = "for k in range(1, 3):\n    acc[k] = max(k*g**2, index) + acc[k]/2\n"
    looped += "delta = eta*g*min(max(acc[1], acc[2]), element)"
    (rule,) = rules(spec(looped, 'acc = { init = "0", extent = "index", each = 2 }'))
    assert [(state.name, state.extent) for state in rule.states] == [("acc1", Extent.INDEX), ("acc2", Extent.INDEX)]
