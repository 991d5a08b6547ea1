"""Blocks in specs: how many elements they have, what may be said of them, and what is refused."""

from __future__ import annotations

import pytest

from optgen.errors import SpecError
from optgen.ir.expr import Extent, extent_of
from optgen.ir.rule import Rule
from optgen.language.check import check
from optgen.language.parse import parse
from optgen.lowering.pipeline import lower
from optgen.notation import facts, latex, text

MEAN = "delta = eta*g*mean(g, block)"


def spec(update: str, formulas: str = MEAN, states: str = "", flags: str = "") -> str:
    """A spec with `update` on line 9 and formulas from line 11 on, which has a hyperparameter for blocks."""
    return f"""name = "R"
[hyperparameters]
eta = {{ default = 0.1, range = "[0, inf)" }}
k = {{ default = 3, range = "[1, inf), whole" }}
[flags]
{flags}
[state]{chr(10) if states else ""}{states}
[update]
{update}
formulas = '''
{formulas}
'''
"""


def rules(source: str) -> tuple[Rule, ...]:
    return check(parse(source, "r.toml"))


ROW_TOO = "blocks, and rows, columns or matrices, do not fit into one variant"
WHOLE = "expected a whole number of 1 or more as how many elements a block has"
FAULTS = [
    ("no size", spec("", "delta = eta*k*g*mean(g, block)"), 11, 25, "nothing says how many elements a block has",
     "block = 64"),
    ("none", spec("block = 0", "delta = eta*k*g*mean(g, block)"), 9, 9, WHOLE, "block = 64"),
    ("half a one", spec("block = 2.5", "delta = eta*k*g*mean(g, block)"), 9, 9, WHOLE, ""),
    ("an infinity", spec("block = 1e400", "delta = eta*k*g*mean(g, block)"), 9, 9,
     "expected a finite number of elements", ""),
    ("a condition", spec('block = "k > 2"'), 9, 10, WHOLE, ""),
    ("a range of fractions", spec('block = "eta"', "delta = eta*k*g*mean(g, block)"), 9, 10, WHOLE, "[1, inf), whole"),
    ("a list", spec("block = [1]", "delta = eta*k*g*mean(g, block)"), 9, 9, "'block': expected text, got a list", ""),
    ("of the gradient", spec('block = "k + g"'), 9, 14, "'g' says nothing of how many elements a block has",
     "max(size // 8, 1)"),
    ("of the count", spec('block = "k*t"'), 9, 12, "'t' says nothing of how many elements", ""),
    ("of rows", spec('block = "k*rows"'), 9, 12, "'rows' says nothing of how many elements", ""),
    ("of what is not there", spec('block = "k*kk"'), 9, 12, "'kk' says nothing of how many elements", ""),
    ("a size of nothing", spec("block = 4", "delta = eta*k*g"), 9, 9, "nothing here has blocks", "mean(g**2, block)"),
    ("rows too", spec('block = "k"', "delta = eta*mean(g, block)*mean(g, row)"), 11, 36, ROW_TOO, "two rules"),
    ("a count of rows too", spec('block = "k"', "delta = eta*mean(g, block)*rows*g"), 11, 28, ROW_TOO, ""),
    ("a state of rows too", spec('block = "k"', "r = max(g, row)\n" + MEAN + "*r", 'r = { init = 0, extent = "row" }'),
     13, 23, ROW_TOO, ""),
    ("elements for a block", spec('block = "k"', "v = g\ndelta = v", 'v = { init = "eta", extent = "block" }'), 12, 5,
     "'v': expected one value for each block (block), got one value for each element (element)", "sum(x, block)"),
    ("a start of elements", spec('block = "k"', "v = mean(g, block)\ndelta = eta*v",
     'v = { init = "p", extent = "block" }'), 8, 15, "'v': expected one value for each block (block)", ""),
    ("a mean of blocks over blocks", spec('block = "k"', "delta = eta*g*mean(sum(g, block), block)"), 11, 15,
     "mean() over a block was given one value for each block (block), which is the same", "mean(x, tensor)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "line", "column", "message", "hint"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_a_fault_has_its_place_and_a_hint(source: str, line: int, column: int, message: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        rules(source)
    (fault,) = caught.value.diagnostics
    assert (fault.span.line, fault.span.column) == (line, column), fault
    assert message in fault.message
    assert hint in (fault.hint or "")


def test_a_value_of_a_block_meets_others_as_one_of_less_than_an_element() -> None:
    formulas = "v = max(v, norm(g, block))\nn = norm(p)\nw = v*n\ns = max(v)\nd = sum(v, group)\ndelta = eta*g*w*s/d"
    (rule,) = rules(spec('block = "k"', formulas, 'v = { init = 0, extent = "block" }'))
    extents = {a.target: extent_of(a.value) for a in rule.body}
    assert [extents[name] for name in "vnwsd"] == [
        Extent.BLOCK, Extent.TENSOR, Extent.BLOCK, Extent.TENSOR, Extent.GROUP
    ]  # fmt: skip
    assert extents["delta"] == Extent.ELEMENT
    assert rule.matrix is None


def test_rows_and_blocks_may_stand_in_variants_of_their_own() -> None:
    chosen = "r = max(g, row)\ndelta = eta*g*(r if matrix else mean(g, block))"
    of_matrices, of_others = rules(spec('block = "k"', chosen, 'r = { init = 0, extent = "row", when = "matrix" }'))
    assert of_matrices.block is None
    assert of_others.block is not None
    assert lower(of_others).block == of_others.block


def test_a_flag_may_choose_how_many() -> None:
    usual, other = rules(spec('block = "k if f else 2"', flags="f = {}"))
    assert [text.expression(rule.block) for rule in (usual, other) if rule.block] == ["2", "k"]


def test_it_is_shown_how_many() -> None:
    (rule,) = rules(spec('block = "max(size // k, length(1))"'))
    assert facts.blocks([rule]) == "max(⌊size/k⌋, length(1)) neighbouring elements each; the last one may have fewer"
    assert facts.matrices([rule]) == ""
    assert r"\operatorname{mean}_{\text{block}}" in latex.rule(rule)
