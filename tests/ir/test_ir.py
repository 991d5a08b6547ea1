"""`verify` finds each broken invariant of a rule; a variant carries no state and no work that it does not use."""

from __future__ import annotations

import copy
import itertools
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest

from optgen.compiler import catalogue, driver
from optgen.frozen import replace
from optgen.ir.expr import (
    Call,
    Const,
    Count,
    Expr,
    Extent,
    Load,
    Local,
    Reduce,
    Scalar,
    Size,
    extent_of,
    join,
    rebuilt,
    reduces,
    type_of,
    walk,
)
from optgen.ir.interval import Interval
from optgen.ir.primitives import Type
from optgen.ir.rule import Assign, Flag, Hyper, Rule, State, loads
from optgen.ir.verify import verify
from optgen.language.check import check
from optgen.language.parse import parse
from optgen.lowering.pipeline import lower
from optgen.paths import PACKAGE

RANGE = Interval(0.0, math.inf, True, False)
X = Local("x", Extent.ELEMENT, Type.REAL)
RULE = Rule(
    name="R",
    summary="",
    reference="",
    hypers=(Hyper("eta", (0.1,), False, (RANGE,), ""), Hyper("beta", (0.9, 0.999), True, (RANGE, RANGE), "")),
    flags=(Flag("f", False, "", True),),
    states=(State("m", Scalar("eta", 0), ""),),
    body=(
        Assign("x", Call("mul", (Scalar("beta", 2), Load("g")))),
        Assign("m", Call("add", (Load("m"), X))),
        Assign("p", Call("sub", (Load("p"), X))),
    ),
)


def before(*assigns: Assign) -> Rule:
    return replace(RULE, body=(*assigns, *RULE.body))


def value(expr: Expr) -> Rule:
    return before(Assign("y", expr))


def last(target: str, expr: Expr) -> Rule:
    return replace(RULE, body=(*(a for a in RULE.body if a.target != target), Assign(target, expr)))


def scalar(assign: Assign) -> Rule:
    return replace(RULE, scalars=(assign,))


ZERO = Const(0.0)
LESS = Call("lt", (Load("g"), ZERO))
NORM = Reduce("norm", (Load("g"),), Extent.TENSOR)
ROW = Reduce("mean", (Load("g"),), Extent.ROW)


def reduction(expr: Expr, over: Extent, op: str = "sum") -> Rule:
    return value(Reduce(op, (expr,), over))


def small(extent: Extent, update: Expr, init: Expr = ZERO) -> Rule:
    """With a state `k` of this extent."""
    state = State("k", init, "", extent)
    return replace(RULE, states=(*RULE.states, state), body=(*RULE.body, Assign("k", update)))


BROKEN: list[tuple[str, Callable[[], Rule], str]] = [
    ("a constant of infinity", lambda: value(Const(math.inf)), "constant inf"),
    ("a constant of NaN", lambda: value(Const(math.nan)), "constant nan"),
    ("a whole number for a constant", lambda: value(Const(1)), "constant 1"),
    ("an unknown hyperparameter", lambda: value(Scalar("rho", 0)), r"no hyperparameter rho\[0\]"),
    ("an unknown hyperparameter at -1", lambda: value(Scalar("rho", -1)), r"no hyperparameter rho\[-1\]"),
    ("an index of one number", lambda: value(Scalar("eta", 1)), r"no hyperparameter eta\[1\]"),
    ("no index of two numbers", lambda: value(Scalar("beta", 0)), r"no hyperparameter beta\[0\]"),
    ("an index above", lambda: value(Scalar("beta", 3)), r"no hyperparameter beta\[3\]"),
    ("an index below", lambda: value(Scalar("beta", -1)), r"no hyperparameter beta\[-1\]"),
    ("an unknown array", lambda: value(Load("v")), "no array v"),
    ("an array that is a hyperparameter", lambda: value(Load("eta")), "no array eta"),
    ("an unknown name", lambda: value(Local("z", Extent.ELEMENT, Type.REAL)), "z is not what it was defined as"),
    ("a name before its value", lambda: value(X), "x is not what it was defined as"),
    ("a name of another extent", lambda: last("m", replace(X, extent=Extent.STEP)), "x is not what it was defined as"),
    ("a name of another type", lambda: last("m", replace(X, type=Type.BOOL)), "x is not what it was defined as"),
    ("an unknown primitive", lambda: value(Call("tan", (Load("g"),))), "no primitive tan"),
    ("too few arguments", lambda: value(Call("add", (Load("g"),))), "add of wrong types or number"),
    ("too many arguments", lambda: value(Call("neg", (Load("g"), Load("g")))), "neg of wrong types or number"),
    ("no arguments", lambda: value(Call("neg", ())), "neg of wrong types or number"),
    ("a condition for a number", lambda: value(Call("neg", (LESS,))), "neg of wrong types"),
    ("a number for a condition", lambda: value(Call("not", (Load("g"),))), "not of wrong types"),
    ("a fault inside", lambda: value(Call("neg", (Call("neg", (Load("q"),)),))), "no array q"),
    ("an exponent of an element", lambda: value(Call("powi", (Load("g"), Load("g")))), "powi with an exponent"),
    ("an exponent of 1", lambda: value(Call("powi", (Load("g"), Const(1.0)))), "powi with an exponent"),
    ("an exponent of 2.5", lambda: value(Call("powi", (Load("g"), Const(2.5)))), "powi with an exponent"),
    ("an exponent of 65", lambda: value(Call("powi", (Load("g"), Const(65.0)))), "powi with an exponent"),
    ("an initial value of t", lambda: replace(RULE, states=(State("m", Count(), ""),)), "initial value of m is not"),
    ("an initial value of g", lambda: replace(RULE, states=(State("m", Load("g"), ""),)), "initial value of m is not"),
    ("a broken initial value", lambda: replace(RULE, states=(State("m", Scalar("z", 0), ""),)), "no hyperparameter z"),
    ("a name assigned twice", lambda: before(Assign("x", Load("g"))), "x assigned twice"),
    ("a scalar assigned again", lambda: scalar(Assign("x", Count())), "x assigned twice"),
    ("the gradient assigned", lambda: before(Assign("g", Load("p"))), "the gradient is assigned"),
    ("a state that is a condition", lambda: last("m", LESS), "m is assigned a condition"),
    ("a parameter that is a condition", lambda: last("p", LESS), "p is assigned a condition"),
    ("a scalar of elements", lambda: scalar(Assign("k", Load("g"))), "scalar k is no scalar"),
    ("a scalar in the place of a state",
     lambda: replace(RULE, body=RULE.body[::2], scalars=(Assign("m", Count()),)), "scalar m is no scalar"),
    ("a state never assigned", lambda: replace(RULE, body=RULE.body[::2]), "never assigned"),
    ("a parameter never assigned", lambda: replace(RULE, body=RULE.body[:2]), "never assigned"),
    ("a state loaded as less than it is", lambda: value(Load("m", Extent.ROW)), "m is loaded as another extent"),
    ("a small state loaded as elements", lambda: small(Extent.TENSOR, Reduce("sum", (Load("k"),), Extent.TENSOR)),
     "k is loaded as another extent than it has"),
    ("an unknown reduction", lambda: reduction(Load("g"), Extent.TENSOR, "median"), "no reduction median of 1"),
    ("a product of one", lambda: reduction(Load("g"), Extent.TENSOR, "dot"), "no reduction dot of 1"),
    ("a sum of two", lambda: value(Reduce("sum", (Load("g"), Load("p")), Extent.TENSOR)), "no reduction sum of 2"),
    ("a sum of conditions", lambda: reduction(LESS, Extent.TENSOR), "sum of conditions"),
    ("a fault in a reduction", lambda: reduction(Load("q"), Extent.TENSOR), "no array q"),
    ("a sum of a constant", lambda: reduction(Const(1.0), Extent.GROUP), "sum over GROUP of CONSTANT"),
    ("a sum of the count", lambda: reduction(Count(), Extent.TENSOR), "sum over TENSOR of STEP"),
    ("a sum of a norm", lambda: reduction(NORM, Extent.TENSOR), "sum over TENSOR of TENSOR"),
    ("a sum of rows over rows", lambda: reduction(ROW, Extent.ROW), "sum over ROW of ROW"),
    ("a sum of rows over columns", lambda: reduction(ROW, Extent.COLUMN), "sum over COLUMN of ROW"),
    ("a sum over elements", lambda: reduction(Load("g"), Extent.ELEMENT), "sum over ELEMENT of ELEMENT"),
    ("a sum over a step", lambda: reduction(Load("g"), Extent.STEP), "sum over STEP of ELEMENT"),
    ("a scalar of a tensor", lambda: scalar(Assign("k", NORM)), "scalar k is no scalar"),
    ("a state of a step", lambda: small(Extent.STEP, Count()), "k has no extent of a state"),
    ("a small state that starts as p", lambda: small(Extent.TENSOR, NORM, Load("p")), "initial value of k is not"),
    ("a state that starts as a norm", lambda: small(Extent.TENSOR, NORM, NORM), "initial value of k is not constant"),
    ("a tensor's state of elements", lambda: small(Extent.TENSOR, Load("g")), "k is assigned more values than it has"),
    ("a group's state of a tensor", lambda: small(Extent.GROUP, NORM), "k is assigned more values than it has"),
    ("a column's state of rows", lambda: small(Extent.COLUMN, ROW), "k is assigned more values than it has"),
    ("a matrix' state of rows", lambda: small(Extent.MATRIX, ROW), "k is assigned more values than it has"),
    ("a range for two values",
     lambda: replace(RULE, hypers=(RULE.hypers[0], replace(RULE.hypers[1], ranges=(RANGE,)))),
     "beta has not a range for each value"),
    ("two states of one name", lambda: replace(RULE, states=RULE.states * 2), "two parts of one name"),
    ("a state called eta", lambda: replace(RULE, states=(*RULE.states, State("eta", Const(0.0), ""))), "two parts"),
    ("a flag called p", lambda: replace(RULE, flags=(Flag("p", False, "", False),)), "two parts of one name"),
]  # fmt: skip


@pytest.mark.parametrize(("broken", "fault"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_verify_names_the_invariant_that_is_broken(broken: Callable[[], Rule], fault: str) -> None:
    with pytest.raises(AssertionError, match=f"^R: .*{fault}"):
        verify(broken())


def test_verify_gives_back_a_rule_that_is_right() -> None:
    assert verify(RULE) is RULE
    assert verify(replace(RULE, scalars=(Assign("k", Count()),))).scalars


@pytest.mark.parametrize(
    "rule",
    [
        value(NORM),
        value(ROW),
        value(Reduce("dot", (ROW, NORM), Extent.MATRIX)),
        reduction(NORM, Extent.GROUP),
        reduction(Call("mul", (ROW, Reduce("max", (Load("p"),), Extent.COLUMN))), Extent.ROW),
        value(Size(Extent.GROUP)),
        small(Extent.TENSOR, NORM),
        small(Extent.TENSOR, Count()),
        small(Extent.ROW, Call("add", (ROW, NORM))),
        small(Extent.GROUP, Call("add", (Load("k", Extent.GROUP), Count()))),
        small(Extent.GROUP, Reduce("norm", (Load("g"),), Extent.GROUP)),
        replace(RULE, states=(State("m", Call("neg", (Load("p"),)), ""),)),
        replace(RULE, states=(*RULE.states, State("start", Load("p"), ""))),
    ],
)
def test_verify_takes_what_has_the_extents_that_it_should_have(rule: Rule) -> None:
    assert verify(rule) is rule


def test_every_variant_of_every_shipped_rule_is_right() -> None:
    for path in catalogue.shipped():
        for rule in driver.compile_file(path).rules:
            assert verify(rule) is rule


# ---- Extents and types ----


@pytest.mark.parametrize(
    ("expr", "extent", "kind"),
    [
        (Const(1.0), Extent.CONSTANT, Type.REAL),
        (Scalar("eta", 0), Extent.CONSTANT, Type.REAL),
        (Count(), Extent.STEP, Type.REAL),
        (Load("g"), Extent.ELEMENT, Type.REAL),
        (Local("c", Extent.STEP, Type.BOOL), Extent.STEP, Type.BOOL),
        (Call("pow", (Scalar("beta", 1), Const(2.0))), Extent.CONSTANT, Type.REAL),
        (Call("pow", (Scalar("beta", 1), Count())), Extent.STEP, Type.REAL),
        (Call("lt", (Count(), Const(2.0))), Extent.STEP, Type.BOOL),
        (Call("mul", (Count(), Load("g"))), Extent.ELEMENT, Type.REAL),
        (Call("where", (LESS, Const(1.0), Count())), Extent.ELEMENT, Type.REAL),
        (NORM, Extent.TENSOR, Type.REAL),
        (Size(Extent.TENSOR), Extent.TENSOR, Type.REAL),
        (Size(Extent.ROW, Extent.ELEMENT), Extent.TENSOR, Type.REAL),
        (Size(Extent.GROUP), Extent.GROUP, Type.REAL),
        (Load("k", Extent.GROUP), Extent.GROUP, Type.REAL),
        (Call("mul", (NORM, Load("k", Extent.GROUP))), Extent.TENSOR, Type.REAL),
        (Call("lt", (ROW, NORM)), Extent.ROW, Type.BOOL),
        (Call("mul", (ROW, ROW)), Extent.ROW, Type.REAL),
        (Call("mul", (ROW, Reduce("mean", (Load("g"),), Extent.COLUMN))), Extent.ELEMENT, Type.REAL),
    ],
)
def test_the_extent_of_an_operation_is_the_largest_of_its_arguments(expr: Expr, extent: Extent, kind: Type) -> None:
    assert (extent_of(expr), type_of(expr)) == (extent, kind)


def test_a_rule_knows_its_arrays_and_which_it_reads_and_writes() -> None:
    assert RULE.arrays == ("p", "g", "m")
    assert RULE.stores == {"p", "m"}
    assert loads(RULE) == {"p", "g", "m"}
    assert RULE.variant == "f"
    assert (RULE.small_states, RULE.tiled, RULE.grouped) == ((), False, False)
    assert replace(RULE, matrix=True).variant == "f_matrix"
    assert replace(RULE, matrix=False).variant == "f"


@pytest.mark.parametrize("extent", [e for e in Extent if Extent.GROUP <= e < Extent.ELEMENT])
def test_a_rule_knows_what_has_not_a_value_for_each_element(extent: Extent) -> None:
    """The same of a state and of a reduction."""
    state, reduced = small(extent, Count()), value(Reduce("max", (Load("g"),), extent))
    assert state.arrays == RULE.arrays
    assert [s.name for s in state.small_states] == ["k"]
    assert state.stores == {"p", "m", "k"}
    assert reduced.small_states == ()
    for rule in (state, reduced):
        assert rule.tiled == (Extent.TENSOR < extent < Extent.ELEMENT)
        assert rule.grouped == (extent == Extent.GROUP)


def test_extents_are_ordered_by_inclusion_and_rows_columns_indices_and_blocks_are_not() -> None:
    apart = (Extent.ROW, Extent.COLUMN, Extent.INDEX, Extent.BLOCK)
    chain = [e for e in Extent if e not in apart]
    assert chain[-2:] == [Extent.MATRIX, Extent.ELEMENT]
    for between in apart:
        line = [*chain[: -2 if between == Extent.BLOCK else -1], between, chain[-1]]
        assert all((a < b, a <= b, b > a, b >= a) == (i < j, i <= j, i < j, i <= j)
                   for i, a in enumerate(line) for j, b in enumerate(line))  # fmt: skip
    for each in (Extent.MATRIX, Extent.ROW, Extent.COLUMN, Extent.INDEX):
        assert (each >= Extent.BLOCK, each <= Extent.BLOCK) == (False, False)
    for a, b in itertools.permutations((Extent.ROW, Extent.COLUMN, Extent.INDEX), 2):
        assert not any((a < b, a <= b, a > b, a >= b))


@pytest.mark.parametrize("a", Extent)
@pytest.mark.parametrize("b", Extent)
def test_two_extents_join_in_the_least_that_includes_both(a: Extent, b: Extent) -> None:
    above = [e for e in Extent if a <= e and b <= e]
    assert join(a, b) in above
    assert all(join(a, b) <= e for e in above)
    assert join(a, b) == join(b, a)
    assert (join(a, b) == b) == (a <= b)


def test_to_join_extents_is_associative_and_idempotent_and_starts_from_a_constant() -> None:
    for a, b, c in itertools.product(Extent, repeat=3):
        assert join(a, join(b, c)) == join(join(a, b), c) == join(a, b, c)
    assert all(join(a) == join(a, a) == join(a, Extent.CONSTANT) == a for a in Extent)
    assert join() == Extent.CONSTANT
    assert join(Extent.ROW, Extent.COLUMN) == Extent.ELEMENT


@pytest.mark.parametrize("extent", Extent)
def test_an_extent_has_a_name_and_one_object(extent: Extent) -> None:
    assert Extent[extent.name] is extent
    assert repr(extent) == f"Extent.{extent.name}"
    assert pickle.loads(pickle.dumps(extent)) is extent
    assert copy.deepcopy(extent) is extent


def test_extents_are_listed_from_few_values_to_many() -> None:
    names = ["constant", "step", "group", "tensor", "matrix", "row", "column", "index", "block", "element"]
    assert [extent.name.lower() for extent in Extent] == names


def test_there_are_words_for_every_extent() -> None:
    assert len({extent.words for extent in Extent}) == len(Extent)
    assert all(f"({e.name.lower()})" in e.words for e in Extent if e >= Extent.GROUP)


def test_an_expression_is_walked_from_the_inside_and_rebuilt_only_where_it_changes() -> None:
    expr = RULE.body[0].value
    assert [*walk(expr)] == [Scalar("beta", 2), Load("g"), expr]
    assert rebuilt(expr, (Scalar("beta", 2), Load("g"))) is expr
    assert rebuilt(expr, (Const(1.0), Load("g"))) == Call("mul", (Const(1.0), Load("g")))
    assert hash(Call("neg", (expr,))) == hash(Call("neg", (Call("mul", (Scalar("beta", 2), Load("g"))),)))
    assert [*walk(NORM)] == [Load("g"), NORM]
    assert rebuilt(NORM, (Load("g"),)) is NORM
    assert rebuilt(NORM, (Load("p"),)) == Reduce("norm", (Load("p"),), Extent.TENSOR)
    assert reduces([Call("add", (NORM, Reduce("sum", (NORM,), Extent.GROUP)))])[1:] == [
        NORM, Reduce("sum", (NORM,), Extent.GROUP)
    ]  # fmt: skip


def test_an_expression_from_another_process_is_the_same_expression() -> None:
    expr = Reduce("sum", (RULE.body[1].value,), Extent.ROW)
    program = f"import pickle, sys; x = pickle.loads(bytes.fromhex('{pickle.dumps(expr).hex()}')); " + (
        "from optgen.ir.expr import *; from optgen.ir.rule import *; from optgen.ir.primitives import Type; "
        "y = Call('add', (Load('m'), Local('x', Extent.ELEMENT, Type.REAL))); "
        "print(x in {Reduce('sum', (y,), Extent.ROW)} and x.args[0] in {y})"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=PACKAGE.parent, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("[0, 1]", (0.0, 0.5, 1.0), (-1e-300, 1.0000001, math.inf, math.nan)),
        ("[0, 1)", (0.0, 0.999), (1.0,)),
        ("(0, 1]", (1e-300, 1.0), (0.0, -0.0)),
        ("(0, inf)", (1e308,), (math.inf, 0.0)),
        ("[-inf, 2)", (-math.inf, 1.0), (2.0, math.nan)),
    ],
)
def test_an_interval_holds_what_its_brackets_say(
    text: str, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    low, high = text[1:-1].split(", ")
    interval = Interval(float(low), float(high), text[0] == "[", text[-1] == "]")
    assert str(interval) == text
    assert all(x in interval for x in inside)
    assert not any(x in interval for x in outside)


def test_the_ranges_of_a_hyperparameter_in_words() -> None:
    other = Interval(0.0, 1.0, False, True)
    for ranges, words in (
        ((RANGE,), "[0, inf)"),
        ((RANGE, RANGE), "[0, inf)"),
        ((RANGE, other), "[0, inf) and (0, 1]"),
        ((RANGE, RANGE, other), "[0, inf), [0, inf) and (0, 1]"),
    ):
        assert Hyper("h", (1.0,) * len(ranges), len(ranges) > 1, ranges, "").range == words


# ---- Variants ----

FLAGGED = """
name = "Flagged"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
rho = { default = 0.9, range = "[0, 1]" }
[flags]
heavy  = { default = true }
capped = { }
[state]
m = { init = 0, when = "heavy" }
u = { init = "eta", when = "heavy and capped" }
[update]
formulas = '''
kept  = rho*(m if heavy else g)
m     = kept + g
u     = max(u*rho, abs(m))
root  = sqrt(abs(g))
rise  = min(m, u) if heavy and capped else m if heavy else where(g > eta, root, g) if capped else g
delta = eta*rise
'''
"""


def variants() -> dict[str, Rule]:
    return {rule.variant: rule for rule in check(parse(FLAGGED, "flagged.toml"))}


def test_there_is_a_variant_for_each_choice_of_flags_and_the_defaults_come_first() -> None:
    assert list(variants()) == ["heavy", "heavy_capped", "", "capped"]


@pytest.mark.parametrize(
    ("variant", "states", "work", "scalars"),
    [
        ("heavy", ["m"], {"mul", "add", "sub"}, {"rho", "eta"}),
        ("heavy_capped", ["m", "u"], {"mul", "add", "max", "abs", "min", "sub"}, {"rho", "eta"}),
        ("", [], {"mul", "sub"}, {"eta"}),
        ("capped", [], {"where", "gt", "sqrt", "abs", "mul", "sub"}, {"eta"}),
    ],
)
def test_a_variant_has_no_state_and_no_work_that_it_does_not_use(
    variant: str, states: list[str], work: set[str], scalars: set[str]
) -> None:
    rule = lower(variants()[variant])
    assert [state.name for state in rule.states] == states
    assert rule.arrays == ("p", "g", *states)
    assert {e.op for a in rule.body for e in walk(a.value) if isinstance(e, Call)} == work
    assert {a.target for a in rule.scalars} == scalars


def test_a_variant_for_matrices_has_rows_and_columns_and_the_other_one_has_none() -> None:
    text = FLAGGED.replace('when = "heavy and capped"', 'extent = "row", when = "heavy and capped and matrix"')
    text = text.replace("max(u*rho, abs(m))", "max(u*rho, max(abs(m), row))")
    found = check(parse(text.replace("min(m, u)", "min(m, u if matrix else 1)"), "flagged.toml"))
    of_matrices = [(f"{name}_matrix".lstrip("_"), True) for name in variants()]
    assert [(rule.variant, rule.matrix) for rule in found] == [*of_matrices, *((name, False) for name in variants())]
    for rule in map(lower, found):
        own = [state.name for state in rule.states if state.extent == Extent.ROW]
        assert own == (["u"] if rule.variant == "heavy_capped_matrix" else [])
        assert rule.tiled == bool(own)


def test_a_variant_that_reads_a_state_that_it_lacks_is_refused_by_name() -> None:
    text = FLAGGED.replace("else m if heavy else", "else m if capped else")
    with pytest.raises(ValueError, match=r"there is no state 'm' if .*not heavy"):
        check(parse(text, "flagged.toml"))
