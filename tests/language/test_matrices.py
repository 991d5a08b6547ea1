"""Products of matrices in specs: which dimensions fit, which properties are asked for, and what is refused.

And steps of such rules where the input is bad: what they refuse, and what comes of NaN, of nothing, and of strides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import optgen
from optgen.errors import ArrayError, HyperparameterError, SpecError
from optgen.ir.expr import dims_of
from optgen.ir.rule import Rule
from optgen.language.check import check
from optgen.language.parse import parse
from optgen.notation import text

STATES = """L = { init = "eps*I", extent = "row, row" }
R = { init = "eps*I", extent = "column, column" }
"""


def spec(formulas: str, states: str = "", sizes: str = "", more: str = "g") -> str:
    """A spec with sizes on line 7, states from line 9 on, and `more` as a part of the step."""
    return f"""name = "R"
[hyperparameters]
eta = {{ default = 0.1, range = "[0, inf)" }}
eps = {{ default = 1e-6, range = "[0, inf)" }}
steps = {{ default = 3, range = "[1, 9], whole" }}
[sizes]
{sizes}
[state]
{states}
[update]
formulas = '''
{formulas}
delta = eta*g + eps*steps*({more})
'''
"""


def rules(source: str) -> tuple[Rule, ...]:
    return check(parse(source, "r.toml"))


RANK = 'rank = { default = 2, most = "short" }'
ELEMENTWISE = "expected values that fit element by element, got"
#: What is wrong, the formulas, where in them, what is said, and a part of the hint.
FAULTS: list[tuple[str, str, int, int, str, str]] = [
    ("a product that needs a transpose", "x = g @ g", 1, 5,
     "the left has row by column: expected one row for each column on the right, got row by column",
     "transpose the right: @ (...).T"),
    ("a product of sides", "x = L @ R", 1, 5,
     "the left has row by row: expected one row for each row on the right, got column by column", ""),
    ("a product with rows", "x = g @ sum(g, row)", 1, 5,
     "expected one row for each column on the right, got row by 1",
     ""),
    ("a product with a number", "x = eta @ g", 1, 5, "expected a matrix, got a number", "write `*`"),
    ("a product of a condition", "x = (g > 0) @ g.T", 1, 6, "expected a matrix, got a condition",
     "write 1 if condition else 0"),
    ("a transposed number", "x = eta.T*g", 1, 5, "expected a matrix to transpose, got a number", "leave .T out"),
    ("a product with I", "x = g @ I", 1, 5, "a product with I, or a multiple of it", "2*A"),
    ("both sides together", "x = g @ g.T + g.T @ g", 1, 5, f"{ELEMENTWISE} row by row and column by column", "A @ B"),
    ("a matrix and its transpose", "x = g + g.T", 1, 5, f"{ELEMENTWISE} row by column and column by row", "A.T"),
    ("an identity and an oblong", "x = g + I", 1, 5, f"{ELEMENTWISE} row by column and I by I", ""),
    ("a root of an oblong", "x = power(g, -1/4)", 1, 5, "power() is of square matrices, got one of row by column",
     "power(g @ g.T)"),
    ("a root of what may lean", "x = power(g @ p.T, -1/4)", 1, 5,
     "power() is of symmetric matrices, and this is not known to be one", "known are A @ A.T"),
    ("eigenvectors of what may lean", "x = eigenvectors(upper(g @ g.T))", 1, 5,
     "eigenvectors() is of symmetric matrices", ""),
    ("a root of each element's own", "x = power(g @ g.T, g)", 1, 20,
     "power(): expected an exponent of numbers and hyperparameters", "power(L, -1/4)"),
    ("a trace without a size", "x = trace(I)", 1, 5, "trace() is of square matrices, got an identity without a size",
     ""),
    ("an identity without a size", "x = 2*I\ny = x", 1, 5, "'x': an identity takes its size from what it is added to",
     "give it that of a square matrix A: x = 0*A + I"),
    ("a sum of an identity", "x = sum(I)", 1, 5, "sum() was given an identity without a size", "trace(g @ g.T)"),
    ("a basis of numbers", "x = orthonormal(norm(g, matrix))", 1, 5, "orthonormal() is of matrices, got one of 1 by 1",
     "orthonormal(g)"),
    ("an order of a matrix", "x = sorting(g)", 1, 5,
     "sorting() is of one value for each row or column, got row by column",
     "sorting(sum(g, row))"),
    ("a diagonal of a number", "x = diag(eta)", 1, 5, "diag() is of one value for each row or column, got 1 by 1", ""),
    ("as many as a number says", "x = leading(g, 3)", 1, 16, "leading(): expected the name of a size", "[sizes]"),
    ("as many as a hyperparameter", "x = leading(g, steps)", 1, 16,
     "leading(): expected the name of a size", "[sizes]"),
    ("two arguments", "x = inverse(g, g)", 1, 5, "inverse(): expected 1 argument, got 2", ""),
    ("a loop that turns", "X = g\nfor _ in range(2):\n    X = X.T", 3, 9,
     "'X' is row by column where a turn of the loop begins, and column by row where it ends", "its own name"),
    ("a loop that decides", "X = g\nfor _ in range(2):\n    X = X > 0", 3, 9,
     "'X': expected a number in every turn, got a condition", "its own name"),
    ("a state of another side", "R = g @ g.T", 1, 5, "'R': expected column by column, got row by row", "A.T"),
    ("the parameter turned", "delta2 = g.T\np = p - delta2", 2, 5,
     f"{ELEMENTWISE} row by column and column by row", ""),
    ("random numbers of three sides", "x = normal(row, row, row)", 1, 5,
     "normal(): expected no arguments, or two dimensions; got 3", "normal(row, row)"),
    ("random numbers of no side", "x = normal(row, g)", 1, 5,
     "normal(): expected no arguments, or two dimensions; got 2",
     "normal(row, row)"),
    ("a dot product with what is turned", "x = dot(g, g.T)", 1, 5,
     "dot() was given values of row by column and column by row, which do not fit", "a transposed one is A.T"),
    ("determinants", "x = det(g @ g.T)", 1, 5,
     "unknown function 'det': decompositions of this kind cannot be said in this language yet", "there are"),
    ("another library's name", "x = eigh(g @ g.T)", 1, 5, "unknown function 'eigh'", "write eigenvectors(A)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("formulas", "line", "column", "message", "hint"),
    [fault[1:] for fault in FAULTS],
    ids=[fault[0] for fault in FAULTS],
)
def test_a_fault_has_its_place_and_a_hint(formulas: str, line: int, column: int, message: str, hint: str) -> None:
    source = spec(formulas, STATES, RANK)
    first = source[: source.index("formulas = ")].count("\n") + 1
    with pytest.raises(SpecError) as caught:
        rules(source)
    (fault,) = [each for each in caught.value.diagnostics if message in each.message]
    assert (fault.span.line - first, fault.span.column) == (line, column), fault
    assert hint in (fault.hint or "")


SIZES = [
    ("no default", "rank = {}", 7, 1, "hyperparameter 'rank' has no default", "add: default"),
    ("half a size", "rank = { default = 2.5 }", 7, 20,
     "the default 2.5 of 'rank' is out of its range", "change the default"),
    ("no size at all", "rank = { default = 0 }", 7, 20,
     "the default 0 of 'rank' is out of its range", "change the default"),
    ("several sizes", "rank = { default = [2, 3] }", 7, 20,
     "expected one whole number as the default of a size, got a list", "rank = { default = 8 }"),
    ("a range", "rank = { default = 2, range = '[1, 3]' }", 7, 23,
     "unknown key 'range'", "expected one of: default, most, doc"),
    ("a limit of its own", "rank = { default = 2, most = 'side' }", 7, 30,
     "'most': expected one of row, column, short, long; got 'side'", ""),
    ("what is never used", RANK, 7, 1, "'rank' is never used", "remove it"),
    ("a name that is taken", "eta = { default = 2 }", 7, 1, "'eta'", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "line", "column", "message", "hint"), [fault[1:] for fault in SIZES], ids=[fault[0] for fault in SIZES]
)
def test_a_fault_of_a_size_has_its_place(sizes: str, line: int, column: int, message: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        rules(spec("x = g", sizes=sizes))
    faults = [
        f for f in caught.value.diagnostics if message in f.message and (f.span.line, f.span.column) == (line, column)
    ]
    assert faults, caught.value
    assert hint in (faults[0].hint or "")


STATE_FAULTS = [
    ("an unknown side", 'L = { init = "0", extent = "row, rwo" }', 9, 28,
     "expected two of row, column, short, long, rank; got 'rwo'",
     "did you mean 'row'?"),
    ("a side of nothing", 'L = { init = "0", extent = "row, width" }', 9, 28, "got 'width'", "[sizes]: width = ..."),
    ("an identity off square", 'L = { init = "I", extent = "row, rank" }', 9, 15,
     "'L' starts as an identity, and is row by rank",
     'extent = "row, row"'),
    ("an identity like the parameter", 'L = { init = "I" }', 9, 15,
     "'L' starts as an identity, and is row by column", ""),
    ("a start as the parameter", 'L = { init = "p", extent = "row, row" }', 9, 15, "'L': expected", "may start as p"),
    ("a start of random numbers", 'L = { init = "normal(row, row)", extent = "row, row" }', 9, 15,
     "there are no random numbers before the first step", "if t == 1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "line", "column", "message", "hint"),
    [fault[1:] for fault in STATE_FAULTS],
    ids=[f[0] for f in STATE_FAULTS],
)
def test_a_fault_of_a_state_has_its_place(state: str, line: int, column: int, message: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        rules(spec("L = L", state, RANK))
    faults = [fault for fault in caught.value.diagnostics if message in fault.message]
    assert [(fault.span.line, fault.span.column) for fault in faults] == [(line, column)], caught.value
    assert hint in (faults[0].hint or "")


OF_NO_MATRIX = [
    spec("x = g @ g.T @ g if matrix else g\ny = g.T @ g if ndim > 1 else g"),
    spec("L = L + g @ g.T if matrix else 1", 'L = { init = "0", extent = "row, row" }'),
    spec("x = sum(normal(row, row), row) + g if matrix else normal(row, row)"),
    spec("x = g @ g.T + I if matrix else I"),
]
#: All that has a fault here.
FAULTY = [
    *(spec(fault[1], STATES, RANK) for fault in FAULTS),
    *(spec("x = g", sizes=fault[1]) for fault in SIZES),
    *(spec("L = L", fault[1], RANK) for fault in STATE_FAULTS),
    *OF_NO_MATRIX,
]


def test_matrices_are_chosen_where_there_may_be_none() -> None:
    products, kept, drawn, unit = OF_NO_MATRIX
    with pytest.raises(SpecError, match="there are no products of matrices where the parameter is no matrix") as caught:
        rules(products)
    assert "a if matrix else b" in str(caught.value)
    with pytest.raises(SpecError, match="'L' has a matrix of row by row, and there is none") as caught:
        rules(kept)
    assert 'when = "matrix"' in str(caught.value)
    with pytest.raises(SpecError, match=r"normal\(\) of rows and columns, where the parameter is no matrix"):
        rules(drawn)
    with pytest.raises(SpecError, match="where the parameter is no matrix"):
        rules(unit)


def test_a_loop_may_begin_with_an_identity_that_has_a_size() -> None:
    (rule,) = rules(spec("A = g @ g.T\nX = 0*A + I\nfor _ in range(steps):\n    X = 2*X - X @ A @ X", more="X @ g"))
    assert {a.target: dims_of(a.value).words for a in rule.body}["X"] == "row by row"


# ---- What is known of matrices ----

SYMMETRIC = [
    "g @ g.T", "L", "L @ L", "2*L + I", "power(L, 1/2)", "inverse(L)", "g @ R @ g.T", "(g @ R) @ g.T", "g @ (R @ g.T)",
    "diag(sum(g, row))", "U @ diag(eigenvalues(L)) @ U.T", "G @ G.T", "-L/eta", "L if t > 1 else I + L",
]  # fmt: skip
LEANING = ["g @ p.T", "L @ (p @ p.T)", "upper(L)", "L*sum(g, row)", "orthonormal(L)", "U @ L", "g @ U2.T @ g.T"]
SET = "U = eigenvectors(L)\nG = g.T.T\nU2 = upper(R)\n"


@pytest.mark.parametrize("formula", SYMMETRIC)
def test_what_is_symmetric_is_known_to_be(formula: str) -> None:
    source = f"{SET}L = L + g @ g.T\nR = R + g.T @ g\nx = power({formula}, -1/2)"
    assert rules(spec(source, STATES, more="(sum(x) + sum(U) + sum(U2) + sum(G))*g"))


@pytest.mark.parametrize("formula", LEANING)
def test_what_may_lean_is_not_known_to_be_symmetric(formula: str) -> None:
    with pytest.raises(SpecError, match=r"power\(\) is of symmetric matrices"):
        rules(spec(f"{SET}L = L + g @ g.T\nR = R + g.T @ g\nx = power({formula}, -1/2)", STATES))


def test_a_state_is_symmetric_if_its_start_and_its_formula_are() -> None:
    with pytest.raises(SpecError, match=r"power\(\) is of symmetric matrices"):
        rules(spec("x = power(L, 2)\nL = L + upper(g @ g.T)", STATES.split("\n")[0]))
    with pytest.raises(SpecError, match=r"power\(\) is of symmetric matrices"):
        rules(spec("x = power(L, 2)\nR2 = L @ g\nL = R2 @ g.T", STATES.split("\n")[0]))


def test_sides_are_rows_or_columns_by_variant() -> None:
    state = 'P = { init = "0", extent = "short, rank" }'
    formulas = "G = g.T if tall else g\nP = leading(G, rank) if t == 1 else normal(short, rank)/rank\nx = P.T @ G"
    of_others, of_tall = rules(spec(formulas, state, RANK, "sum(x)*g"))
    for rule, words in ((of_others, "rank by column"), (of_tall, "rank by row")):
        (x,) = [assign for assign in rule.body if assign.target == "x"]
        assert dims_of(x.value).words == words
    assert "normal(column, rank)" in text.expression({a.target: a.value for a in of_tall.body}["P"])


def test_sides_of_random_numbers_tell_tall_matrices_apart() -> None:
    of_others, of_tall = rules(spec("S = normal(short, long)\nx = sum(S)", more="x*g"))
    assert (of_others.tall, of_tall.tall) == (False, True)
    for rule, words in ((of_others, "row by column"), (of_tall, "column by row")):
        assert {a.target: dims_of(a.value).words for a in rule.body}["S"] == words


# ---- Steps of what is odd ----

RULES = ["Muon", "NorMuon", "AdaMuon", "AdaGO", "Scion", "Shampoo", "SOAP", "SPlus", "Kron", "Conda"]
OF_RANK = ["GaLore", "Fira", "APOLLO", "Dion"]


def made(name: str) -> Any:
    return getattr(optgen, name)(**({"rank": 2} if name in OF_RANK else {}))


def stepped(name: str, p: Any, g: Any, steps: int = 3) -> Any:
    opt = made(name)
    for _ in range(steps):
        opt.step([p], [g])
    return p


@pytest.mark.parametrize("name", [name for name in RULES if name != "SPlus"] + OF_RANK)
@pytest.mark.parametrize("shape", [(4,), ()])
def test_what_is_no_matrix_is_refused_by_name(name: str, shape: tuple[int, ...]) -> None:
    opt, ps = made(name), [np.ones((3, 2)), np.ones(shape)]
    with pytest.raises(ArrayError) as caught:
        opt.step(ps, [np.ones_like(p) for p in ps])
    assert "parameter 1" in str(caught.value)
    assert f"{name}: expected a matrix" in str(caught.value)
    assert f"of shape {shape}" in str(caught.value)
    assert "optgen.split(...)" in str(caught.value)
    assert (ps[0] == 1).all()


@pytest.mark.parametrize("name", RULES + OF_RANK)
def test_strides_change_nothing(name: str) -> None:
    rng = np.random.default_rng(0)
    p, g = rng.normal(size=(2, 6, 5))
    expected = stepped(name, p.copy(), g.copy())
    turned = np.asfortranarray(p)
    assert np.array_equal(stepped(name, turned, np.asfortranarray(g)), expected)
    sliced, slices = np.zeros((12, 15))[::-2, 1::3], np.zeros((12, 15))[::-2, 1::3]
    sliced[...], slices[...] = p, g
    assert np.array_equal(stepped(name, sliced, slices), expected)


@pytest.mark.parametrize("name", ["Muon", "GaLore", "Dion", "Conda"])
def test_of_several_dimensions_the_last_two_are_matrices(name: str) -> None:
    rng = np.random.default_rng(0)
    p, g = rng.normal(size=(2, 2, 3, 6, 5))
    opt, alone, each = made(name), made(name), [matrix.copy() for matrix in p.reshape(-1, 6, 5)]
    if name != "Dion":
        alone.step(each, list(g.reshape(-1, 6, 5)))
        opt.step([p], [g])
        np.testing.assert_allclose(p.reshape(-1, 6, 5), each, rtol=1e-13)
    else:  # each matrix has random numbers of its own
        opt.step([p], [g])
        assert np.isfinite(p).all()


@pytest.mark.parametrize("name", ["NorMuon", "AdaMuon", "AdaGO", "Scion", "Shampoo", "SOAP", "SPlus", "Kron"])
def test_filters_are_matrices_of_the_first_dimension_by_the_rest(name: str) -> None:
    p, g = np.random.default_rng(0).normal(size=(2, 4, 3, 2, 2))
    wide = stepped(name, p.reshape(4, 12).copy(), g.reshape(4, 12))
    as_it_is = stepped(name, p.copy(), g).reshape(4, 12)
    if name == "Scion":  # the kernel counts
        start = p.reshape(4, 12)
        np.testing.assert_allclose(as_it_is - start * 0.999**3, (wide - start * 0.999**3) / 4 * 2, rtol=1e-9)
    else:
        np.testing.assert_array_equal(as_it_is, wide)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("name", RULES)
def test_empty_matrices_stay_so(name: str, shape: tuple[int, int]) -> None:
    assert stepped(name, np.ones(shape), np.ones(shape)).shape == shape


@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("name", RULES + OF_RANK)
def test_what_is_not_finite_gives_nan_and_no_message_of_a_library(name: str, odd: float) -> None:
    """Of that matrix alone: another parameter of the step is what it was."""
    rng = np.random.default_rng(0)
    p, g, other = rng.normal(size=(3, 5, 5))
    g[1, 2] = odd
    opt, others = made(name), [other.copy(), other.copy()]
    plain = made(name)
    for _ in range(3):
        opt.step([p, others[0]], [g, other])
        plain.step([p.copy() * 0, others[1]], [np.ones_like(p), other])
    assert np.isnan(p).any() or name in ("SPlus", "AdaMuon")
    if name not in ("Kron", "APOLLO", "Dion"):
        np.testing.assert_array_equal(others[0], others[1])
    assert np.isfinite(others[0]).all()


@pytest.mark.parametrize("name", OF_RANK)
def test_a_rank_is_no_more_than_the_shorter_side(name: str) -> None:
    for shape in ((6, 3), (3, 6)):
        opt, p = getattr(optgen, name)(rank=4), np.ones(shape)
        with pytest.raises(HyperparameterError) as caught:
            opt.step([p], [p.copy()])
        side = "row" if shape[0] == 3 else "column"
        assert f"{name}: expected rank to be at most 3, the {side}s" in str(caught.value)
        assert "another rule" in str(caught.value)
        assert (p == 1).all()


@pytest.mark.parametrize("name", ["Muon", "Shampoo", "Conda"])
def test_of_float16_the_step_is_that_of_float32(name: str) -> None:
    p, g = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float16)
    expected = stepped(name, p.astype(np.float32), g.astype(np.float32), 1).astype(np.float16)
    np.testing.assert_array_equal(stepped(name, p, g, 1), expected)


def test_as_many_turns_as_are_set() -> None:
    p, g = np.random.default_rng(0).normal(size=(2, 3, 4))
    one, five, twelve = (stepped_turns(steps, p, g) for steps in (1, 5, 12))
    assert not np.array_equal(one, five)
    assert not np.array_equal(five, twelve)
    with pytest.raises(HyperparameterError, match="steps"):
        optgen.NorMuon(steps=2.5)


def stepped_turns(steps: int, p: Any, g: Any) -> Any:
    p = p.copy()
    optgen.NorMuon(steps=steps).step([p], [g])
    return p


def test_random_matrices_are_those_of_their_seed() -> None:
    p, g = np.random.default_rng(0).normal(size=(2, 6, 4))
    paths = []
    for seed in (1, 1, 2):
        q = p.copy()
        optgen.Dion(rank=2, seed=seed).step([q], [g])
        paths.append(q)
    assert np.array_equal(paths[0], paths[1])
    assert not np.array_equal(paths[0], paths[2])
