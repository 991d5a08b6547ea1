"""The oracle itself: what it leaves behind, the order in which it reads and writes, and how it reduces: in which order,
by hand, and how near to the true value. Its other numbers: test_oracle."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import optgen
from optgen import interpreter as interp
from optgen.compiler import driver
from optgen.ir import primitives as ops
from optgen.ir.evaluate import block_size
from optgen.ir.expr import Extent
from optgen.ir.rule import Rule

Array = NDArray[Any]


def test_a_step_keeps_nothing_alive_without_the_help_of_the_collector() -> None:
    opt, p, g = optgen.ADAM(backend="interpreter"), np.ones(3), np.ones(3)
    watched = [weakref.ref(p), weakref.ref(g)]
    gc.disable()
    try:
        opt.step([p], [g])
        del p, g
        assert [ref() for ref in watched] == [None, None]
    finally:
        gc.enable()


def test_an_old_value_that_was_given_a_name_stays_old() -> None:
    text = """
    name = "Swap"
    [state]
    a = { init = 1 }
    b = { init = 2 }
    [update]
    formulas = '''
    old   = a
    a     = b
    b     = old
    delta = g*0*(a + b)
    '''
    """
    rule = driver.compile_text(text, "swap.toml").rules[0]
    arrays = {"p": np.zeros(2), "g": np.zeros(2), "a": np.full(2, 1.0), "b": np.full(2, 2.0)}
    interp.step(rule, {}, 1, arrays)
    assert (arrays["a"].tolist(), arrays["b"].tolist()) == ([2.0, 2.0], [1.0, 1.0])


def test_a_number_of_the_host_is_rounded_once_where_it_meets_an_element() -> None:
    text = """
    name = "Round"
    [hyperparameters]
    eta = { default = 0.1, range = "[0, 1]" }
    [update]
    formulas = "delta = (eta*eta)*g"
    """
    rule = driver.compile_text(text, "round.toml").rules[0]
    p, g = np.zeros(1, np.float32), np.full(1, 3, np.float32)
    interp.step(rule, {"eta": (0.1,)}, 1, {"p": p, "g": g})
    assert p[0] == -(np.float32(0.1 * 0.1) * np.float32(3))
    assert p[0] != -(np.float32(0.1) * np.float32(0.1) * np.float32(3))


# ---- Reductions ----

#: A block, and the lanes in it; the rows of a panel. Written out here, as everything below is.
BLOCK, LANES, PANEL = 1024, 32, 64

Take = Callable[[float, float], float]


def plus(a: float, b: float) -> float:
    return a + b


def larger(a: float, b: float) -> float:
    return b if b > a or b != b else a


def smaller(a: float, b: float) -> float:
    return b if b < a or b != b else a


FOLDS: dict[str, tuple[Take, float]] = {
    "sum": (plus, 0.0),
    "max": (larger, -math.inf),
    "min": (smaller, math.inf),
}


def in_order(values: Iterable[float], take: Take, start: float) -> float:
    for x in values:
        start = take(start, x)
    return start


def in_blocks(run: Sequence[float], take: Take, start: float) -> float:
    """A run of elements: blocks of 1024 in order, in each of them 32 lanes, which are folded in halves."""
    blocks = []
    for begin in range(0, len(run), BLOCK):
        lanes = [start] * LANES
        for i, x in enumerate(run[begin : begin + BLOCK]):
            lanes[i % LANES] = take(lanes[i % LANES], x)
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [take(a, b) for a, b in zip(lanes[:half], lanes[half:], strict=True)]
        blocks.append(lanes[0])
    return in_order(blocks, take, start)


def in_panels(column: Sequence[float], take: Take, start: float) -> float:
    """Down a column of a matrix: panels of 64 rows in order, each from its top."""
    panels = [in_order(column[top : top + PANEL], take, start) for top in range(0, len(column), PANEL)]
    return in_order(panels, take, start)


def test_the_sizes_are_those_of_the_package() -> None:
    assert (ops.BLOCK, ops.LANES, ops.PANEL) == (BLOCK, LANES, PANEL)


def matrices_of(x: Array, rows: str) -> list[list[list[float]]]:
    """As lists: matrices of rows of numbers."""
    return x.reshape(shape_as_matrices(x, rows)).astype(np.float64).tolist()


def shape_as_matrices(x: Array, rows: str) -> tuple[int, int, int]:
    """How many matrices, of how many rows and columns: of the last dimensions, or one of slices or lines."""
    if rows == "first":
        return 1, x.shape[0], math.prod(x.shape[1:])
    rows_and_columns = math.prod(x.shape[:-2]), x.shape[-2], x.shape[-1]
    return (1, rows_and_columns[0] * x.shape[-2], x.shape[-1]) if rows == "lines" else rows_and_columns


def by_hand(fold: str, x: Array, over: str, rows: str | None) -> list[float]:
    """`x` folded for each of `over`, in the order in which these lie. `rows`: None if the rule knows of no rows."""
    take, start = FOLDS[fold]
    if rows is None:
        return [in_blocks(x.ravel().astype(np.float64).tolist(), take, start)]
    matrices = matrices_of(x, rows)
    each = [[in_blocks(row, take, start) for row in matrix] for matrix in matrices]
    match over:
        case "row":
            return list(chain(*each))
        case "column":
            count = shape_as_matrices(x, rows)[2] if matrices else 0
            return [in_panels([row[j] for row in matrix], take, start) for matrix in matrices for j in range(count)]
        case "matrix":
            return [in_order(values, take, start) for values in each]
    return [in_order(chain(*each), take, start)]


def counts_of(x: Array, over: str, rows: str | None) -> int:
    """How many elements one of `over` has."""
    high, wide = shape_as_matrices(x, rows)[1:] if rows and x.ndim > 1 else (1, 1)
    return {"row": wide, "column": high, "matrix": high * wide}.get(over, x.size)


def divided(a: float, b: float) -> float:
    return a / b if b else math.nan


def expected(op: str, x: Array, y: Array, over: str, rows: str | None) -> list[float]:
    """A reduction by hand, bit for bit."""
    if op in ("max", "min"):
        return by_hand(op, x, over, rows)
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        of = {"sum": wide, "mean": wide, "norm": wide * wide, "dot": wide * y.astype(np.float64)}[op]
    sums = by_hand("sum", of, over, rows)
    if op == "norm":
        return [math.sqrt(total) for total in sums]
    return [divided(total, counts_of(x, over, rows)) for total in sums] if op == "mean" else sums


def true_value(op: str, x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The sum that `math.fsum` gives, which is rounded once, and what an error is in proportion to."""
    of = [a * b for a, b in zip(x, y, strict=True)] if op == "dot" else [a * a for a in x] if op == "norm" else x
    total, scale = math.fsum(of), math.fsum(map(abs, of))
    if op == "norm":
        return math.sqrt(total), math.sqrt(scale)
    return (total / len(x), scale / len(x)) if op == "mean" else (total, scale)


OPS = ("sum", "mean", "norm", "dot", "max", "min")


def reducing(overs: Sequence[str], matrices: str = "", of: str = "g", block: int = 0) -> Rule:
    """A rule that keeps every reduction over each of `overs`, in a state of that extent."""
    states, formulas = [], []
    for over in overs:
        for op in OPS:
            states.append(f'{op}_{over} = {{ init = 0, extent = "{over}" }}')
            formulas.append(f"{op}_{over} = {op}({'p, ' if op == 'dot' else ''}{of}, {over})".replace(", tensor)", ")"))
    # Every state has to be read by something.
    formulas.append(f"delta = g*({' + '.join(f'{op}_{over}' for over in overs for op in OPS)})")
    text = "\n".join(['name = "Reducing"', "[state]", *states, "[update]", f'matrices = "{matrices}"' * bool(matrices)])
    text += f"\nblock = {block}" * bool(block)
    text += "\nformulas = '''\n" + "\n".join(formulas) + "\n'''\n"
    (rule,) = driver.compile_text(text, "reducing.toml").rules
    return rule


def reduced(rule: Rule, tensors: Sequence[tuple[Array, Array]]) -> tuple[list[dict[str, Array]], dict[str, Array]]:
    """After one step of pairs of p and g: the states of each, and those of the group."""
    group = {s.name: np.array(0.0) for s in rule.states if s.extent == Extent.GROUP}
    made = []
    for p, g in tensors:
        arrays = {"p": p.copy(), "g": g}
        for state in rule.states:
            if state.extent != Extent.GROUP:
                block = int(block_size(rule, {}, p.shape))
                arrays[state.name] = np.full(interp.shape_of(state.extent, p.shape, rule.matrices, block), 7.0)
        made.append((rule, {}, interp.Tensor(1, arrays)))
    interp.step_group(made, group, {}, 1)
    return [tensor.arrays for _, _, tensor in made], group  # type: ignore[misc]


def pair_of(shape: tuple[int, ...], dtype: str, seed: int = 0) -> tuple[Array, Array]:
    """Numbers of both signs and of several sizes, of which the order of a sum shows in its last bits."""
    rng = np.random.default_rng([seed, *shape])
    p, g = (rng.standard_normal(shape) * 2.0 ** rng.integers(-6, 6, shape) for _ in range(2))
    return np.asarray(p, dtype), np.asarray(g, dtype)


def bits(values: Any) -> list[str]:
    return ["nan" if math.isnan(x) else x.hex() for x in map(float, np.ravel(values))]


VECTORS = [
    (), (0,), (1,), (5,), (31,), (32,), (33,), (100,), (1023,), (1024,), (1025,), (2048,), (5000,), (3, 5), (40, 70),
]  # fmt: skip
MATRICES = [
    (1, 1), (3, 5), (0, 4), (4, 0), (0, 0), (2, 3, 4), (2, 0, 3), (0, 2, 3), (2, 3, 0), (64, 3), (65, 3), (200, 2),
    (3, 33), (3, 1030), (2, 2, 2100), (2, 3, 2, 5), (2, 130, 3),
]  # fmt: skip
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "C": lambda x: x.copy(),
    "Fortran": lambda x: np.array(x, order="F"),
    "backwards": lambda x: x[(*[slice(None, None, -1)] * x.ndim, ...)].copy()[(*[slice(None, None, -1)] * x.ndim, ...)],
    "with gaps": lambda x: np.repeat(x, 2, -1)[..., ::2] if x.ndim else x,
}

by_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
by_layout = pytest.mark.parametrize("layout", LAYOUTS)
OVER_TENSORS = reducing(["tensor"])
OVER_ROWS = reducing(["tensor", "matrix", "row", "column"])
OVER_SLICES = reducing(["tensor", "matrix", "row", "column"], matrices="first by rest")
OVER_LINES = reducing(["tensor", "matrix", "row", "column"], matrices="all but last by last")
OVER_BLOCKS = {block: reducing(["tensor", "block"], block=block) for block in (1, 3, 33, 1500)}
OF_MATRICES = {"last": OVER_ROWS, "first": OVER_SLICES, "lines": OVER_LINES}


@by_dtype
@by_layout
@pytest.mark.parametrize("shape", VECTORS, ids=str)
def test_a_tensor_is_reduced_in_blocks_and_lanes(shape: tuple[int, ...], layout: str, dtype: str) -> None:
    p, g = map(LAYOUTS[layout], pair_of(shape, dtype))
    (states,), _ = reduced(OVER_TENSORS, [(p, g)])
    for op in OPS:
        assert bits(states[f"{op}_tensor"]) == bits(expected(op, g, p, "tensor", None)), op


@by_dtype
@pytest.mark.parametrize("layout", ["C", "Fortran", "with gaps"])
@pytest.mark.parametrize("rows", OF_MATRICES)
@pytest.mark.parametrize("shape", MATRICES, ids=str)
def test_rows_columns_and_matrices_are_reduced_in_their_order(
    shape: tuple[int, ...], rows: str, layout: str, dtype: str
) -> None:
    p, g = map(LAYOUTS[layout], pair_of(shape, dtype))
    (states,), _ = reduced(OF_MATRICES[rows], [(p, g)])
    for over in ("row", "column", "matrix", "tensor"):
        for op in OPS:
            own = states[f"{op}_{over}"]
            assert bits(own) == bits(expected(op, g, p, over, rows)), f"{op} over {over}"
            assert own.dtype == np.float64
            assert np.broadcast_shapes(own.shape, shape) == shape


@by_dtype
@pytest.mark.parametrize("layout", ["C", "with gaps"])
@pytest.mark.parametrize("block", OVER_BLOCKS)
@pytest.mark.parametrize("shape", VECTORS, ids=str)
def test_blocks_are_runs_of_their_own(shape: tuple[int, ...], block: int, layout: str, dtype: str) -> None:
    """And a tensor with blocks is all of them in order."""
    p, g = map(LAYOUTS[layout], pair_of(shape, dtype))
    (states,), _ = reduced(OVER_BLOCKS[block], [(p, g)])
    cuts = range(0, g.size, block)
    for op in OPS:
        parts = [(g.ravel()[i : i + block], p.ravel()[i : i + block]) for i in cuts]
        assert states[f"{op}_block"].shape == (len(cuts),)
        assert bits(states[f"{op}_block"]) == bits([expected(op, x, y, "tensor", None)[0] for x, y in parts]), op
        take, start = FOLDS[op if op in FOLDS else "sum"]
        of = {"norm": "dot", "mean": "sum"}.get(op, op)
        pairs = [(x, x) if op == "norm" else (x, y) for x, y in parts]
        total = in_order((expected(of, x, y, "tensor", None)[0] for x, y in pairs), take, start)
        total = math.sqrt(total) if op == "norm" else divided(total, g.size) if op == "mean" else total
        assert bits(states[f"{op}_tensor"]) == bits(total), op


def blocks_of(values: Sequence[float]) -> list[float]:
    return [in_blocks(values[i : i + BLOCK], plus, 0.0) for i in range(0, len(values), BLOCK)]


OTHERWISE: dict[str, Callable[[list[float]], float]] = {
    "one by one": lambda x: in_order(x, plus, 0.0),
    "as NumPy does": lambda x: float(np.sum(x)),
    "exactly": math.fsum,
    "in one block": lambda x: in_order((in_order(x[i::LANES], plus, 0.0) for i in range(LANES)), plus, 0.0),
    "neighbours in a lane": lambda x: in_blocks([a for i in range(LANES) for a in x[i::LANES]], plus, 0.0),
    "blocks from the last": lambda x: in_order(blocks_of(x)[::-1], plus, 0.0),
    "in panels": lambda x: in_panels(x, plus, 0.0),
}


@pytest.mark.parametrize("how", OTHERWISE)
def test_another_order_would_show(how: str) -> None:
    """Else the tests above test nothing."""
    runs = [pair_of((5000,), "float64", seed)[1].tolist() for seed in range(5)]
    assert any(OTHERWISE[how](x) != in_blocks(x, plus, 0.0) for x in runs)
    columns = [pair_of((200,), "float64", seed)[1].tolist() for seed in range(5)]
    assert how == "in panels" or any(OTHERWISE[how](x) != in_panels(x, plus, 0.0) for x in columns)


@by_dtype
@pytest.mark.parametrize("same_sign", [True, False])
@pytest.mark.parametrize("shape", [(5,), (1000,), (3000,), (100_000,), (40, 70), (130, 1030), (2, 3, 500)], ids=str)
def test_reductions_are_near_to_the_true_value(shape: tuple[int, ...], same_sign: bool, dtype: str) -> None:
    """Within 1e-15 of the sum of magnitudes; for numbers of one sign that is the sum itself. In float32 too: all is
    added up in float64, and squares and products are exact there."""
    p, g = pair_of(shape, dtype)
    if same_sign:
        p, g = np.abs(p), np.abs(g)
    (states,), _ = reduced(OVER_TENSORS if len(shape) == 1 else OVER_ROWS, [(p, g)])
    views: dict[str, Callable[[Array], list[list[float]]]] = {"tensor": lambda x: [x.ravel().astype(float).tolist()]}
    if len(shape) > 1:
        views["row"] = lambda x: [row for matrix in matrices_of(x, "last") for row in matrix]
        views["column"] = lambda x: [list(c) for matrix in matrices_of(x, "last") for c in zip(*matrix, strict=True)]
        views["matrix"] = lambda x: [list(chain(*matrix)) for matrix in matrices_of(x, "last")]
    for over, view in views.items():
        for op in ("sum", "mean", "norm", "dot"):
            own = np.ravel(states[f"{op}_{over}"]).tolist()
            for got, xs, ys in zip(own, view(g), view(p), strict=True):
                value, scale = true_value(op, xs, ys)
                assert abs(got - value) <= 1e-15 * scale, f"{op} over {over}: {got} for {value}"
        for op, by in (("max", max), ("min", min)):
            assert np.ravel(states[f"{op}_{over}"]).tolist() == [by(xs) for xs in view(g)]


def test_what_is_reduced_is_an_element_before_it_is_a_float64() -> None:
    """The square of a float32 is rounded to one; that within a norm is not."""
    text = """
    name = "Squares"
    [state]
    squares = { init = 0, extent = "tensor" }
    length  = { init = 0, extent = "tensor" }
    [update]
    formulas = '''
    squares = sum(g*g)
    length  = norm(g)
    delta   = g*(squares + length)
    '''
    """
    (rule,) = driver.compile_text(text, "squares.toml").rules
    _, g = pair_of((3000,), "float32")
    (states,), _ = reduced(rule, [(g, g)])
    rounded, exact = (g * g).astype(float), g.astype(float) ** 2
    assert states["squares"] == in_blocks(rounded.tolist(), plus, 0.0) != in_blocks(exact.tolist(), plus, 0.0)
    assert states["length"] == math.sqrt(in_blocks(exact.tolist(), plus, 0.0))
    huge = np.full(3, 1e30, np.float32)
    (states,), _ = reduced(rule, [(huge, huge)])
    assert states["squares"] == math.inf
    np.testing.assert_allclose(states["length"], 3**0.5 * 1e30, rtol=1e-7)


@by_dtype
def test_a_tensor_without_elements_has_the_values_of_nothing(dtype: str) -> None:
    nothing = {"sum": 0.0, "mean": math.nan, "norm": 0.0, "dot": 0.0, "max": -math.inf, "min": math.inf}
    for shape, rule in (((0,), OVER_TENSORS), ((0, 3), OVER_ROWS), ((3, 0), OVER_ROWS), ((3, 0), OVER_SLICES)):
        (states,), _ = reduced(rule, [pair_of(shape, dtype)])
        assert {op: bits(states[f"{op}_tensor"]) for op in OPS} == {op: bits([x]) for op, x in nothing.items()}
        if len(shape) > 1:
            filled, empty = ("row", "column") if shape == (3, 0) else ("column", "row")
            assert all(bits(states[f"{op}_{filled}"]) == bits([x] * 3) for op, x in nothing.items())
            assert all(states[f"{op}_{empty}"].size == 0 for op in OPS)
            assert all(bits(states[f"{op}_matrix"]) == bits([x]) for op, x in nothing.items())


def test_the_largest_and_smallest_are_nan_if_anything_is_and_zeros_keep_the_first_sign() -> None:
    for at in (0, 1, 31, 32, 40, 1023, 1024, 2047):
        g = np.zeros(2048)
        g[at] = math.nan
        (states,), _ = reduced(OVER_TENSORS, [(g, g)])
        assert all(math.isnan(states[f"{op}_tensor"]) for op in OPS)
    for first, second in ((0.0, -0.0), (-0.0, 0.0)):
        g = np.array([first, second] * 20)  # to each lane zeros of one sign, and they are folded in halves
        (states,), _ = reduced(OVER_TENSORS, [(g, g)])
        for op in ("max", "min"):
            assert bits(states[f"{op}_tensor"]) == bits([first])
    g = np.array([[0.0], [-0.0]])
    (states,), _ = reduced(OVER_ROWS, [(g, g)])
    assert bits(states["max_column"]) == bits(states["min_tensor"]) == bits([0.0])


# Values of lesser extent


OF_ROWS = """
name = "OfRows"
[state]
r   = { init = 0, extent = "row" }
c   = { init = 0, extent = "column" }
b   = { init = 0, extent = "matrix" }
rb  = { init = 0, extent = "matrix" }
cb  = { init = 0, extent = "matrix" }
rt  = { init = 0, extent = "tensor" }
ct  = { init = 0, extent = "tensor" }
bt  = { init = 0, extent = "tensor" }
rn  = { init = 0, extent = "tensor" }
top = { init = 0, extent = "matrix" }
kg  = { init = 0, extent = "group" }
[update]
formulas = '''
r     = sum(g, row)
c     = sum(g, column)
b     = sum(g, matrix)
rb    = mean(r, matrix)
cb    = dot(c, c, matrix)
rt    = sum(r*3)
ct    = mean(c)
bt    = norm(b)
rn    = mean(r)
top   = max(r, matrix) - min(c, matrix)
kg    = mean(rt, group)
delta = g*(rb + cb + rt + ct + bt + rn + top + kg)
'''
"""


@by_dtype
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 4), (70, 2), (2, 1030, 3), (2, 3, 2, 5), (0, 2, 3), (2, 0, 3)])
def test_values_of_rows_and_columns_are_folded_in_order_each_once(shape: tuple[int, ...], dtype: str) -> None:
    (rule,) = driver.compile_text(OF_ROWS, "of_rows.toml").rules
    _, g = pair_of(shape, dtype)
    (states,), group = reduced(rule, [(g, g)])
    r, c, b = (by_hand("sum", g, over, "last") for over in ("row", "column", "matrix"))
    matrices, high, wide = math.prod(shape[:-2]), *shape[-2:]
    rows = [r[i * high : (i + 1) * high] for i in range(matrices)]
    columns = [c[i * wide : (i + 1) * wide] for i in range(matrices)]

    def total(values: Iterable[float]) -> float:
        return in_order(values, plus, 0.0)

    assert bits(states["rb"]) == bits([divided(total(row), high) for row in rows])
    assert bits(states["cb"]) == bits([total(x * x for x in column) for column in columns])
    assert bits(states["rt"]) == bits([total(x * 3 for x in r)])
    assert bits(states["ct"]) == bits([divided(total(c), len(c))])
    assert bits(states["bt"]) == bits([math.sqrt(total(x * x for x in b))])
    assert bits(states["rn"]) == bits([divided(total(r), len(r))])
    tops = [
        in_order(row, larger, -math.inf) - in_order(column, smaller, math.inf)
        for row, column in zip(rows, columns, strict=True)
    ]
    assert bits(states["top"]) == bits(tops)
    assert bits(group["kg"]) == bits([total(x * 3 for x in r)])


# Over all parameters of a step


GROUP = [
    ((5,), "float32"),
    ((1500,), "float64"),
    ((), "float64"),
    ((0,), "float32"),
    ((40, 70), "float32"),
    ((3,), "float64"),
]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [4, 0], [2], [3], [1, 3, 5]], ids=str)
def test_a_group_is_folded_tensor_by_tensor_in_the_order_of_the_step(order: list[int]) -> None:
    tensors = [pair_of(*GROUP[i], seed=i) for i in order]
    for rule, rows in ((reducing(["group"]), None), (reducing(["group", "row"]), "last")):
        if rows is not None:
            tensors = [pair_of((2, *p.shape[-1:], 3), str(p.dtype)) for p, _ in tensors]
        _, states = reduced(rule, tensors)
        for op in OPS:
            if op in ("max", "min"):
                value = in_order((by_hand(op, g, "tensor", rows)[0] for _, g in tensors), *FOLDS[op])
            else:
                kind = "dot" if op in ("dot", "norm") else "sum"
                parts = [expected(kind, g, g if op == "norm" else p, "tensor", rows)[0] for p, g in tensors]
                value = in_order(parts, plus, 0.0)
                value = math.sqrt(value) if op == "norm" else value
                value = divided(value, sum(g.size for _, g in tensors)) if op == "mean" else value
            assert bits(states[f"{op}_group"]) == bits([value]), op


def test_the_order_of_a_group_shows() -> None:
    rule = reducing(["group"])
    tensors = [pair_of((n,), "float64", seed=n) for n in (3, 50, 7, 2000, 11)]
    _, forth = reduced(rule, tensors)
    _, back = reduced(rule, tensors[::-1])
    assert forth["sum_group"] != back["sum_group"]
    assert forth["max_group"] == back["max_group"]
    np.testing.assert_allclose(forth["sum_group"], back["sum_group"], rtol=1e-12)


def test_a_group_near_to_the_true_value() -> None:
    tensors = [pair_of((n,), dtype, seed=n) for n, dtype in ((3, "float32"), (5000, "float64"), (700, "float32"))]
    _, states = reduced(reducing(["group"]), tensors)
    ps, gs = ([float(x) for pair in tensors for x in pair[i]] for i in range(2))
    for op in ("sum", "mean", "norm", "dot"):
        value, scale = true_value(op, gs, ps)
        assert abs(states[f"{op}_group"] - value) <= 1e-15 * scale
    assert (states["max_group"], states["min_group"]) == (max(gs), min(gs))


def test_values_of_tensors_are_folded_over_the_group_each_once() -> None:
    text = """
    name = "OfTensors"
    [state]
    k    = { init = 1, extent = "tensor" }
    all  = { init = 0, extent = "group" }
    avg  = { init = 0, extent = "group" }
    far  = { init = 0, extent = "group" }
    many = { init = 0, extent = "group" }
    [update]
    formulas = '''
    all   = sum(k*t, group)
    k     = k + sum(g)
    avg   = mean(k, group)
    far   = norm(k, group)
    many  = sum(size + 0*k, group)
    delta = g*(all + avg + far + many)
    '''
    """
    (rule,) = driver.compile_text(text, "of_tensors.toml").rules
    tensors = [pair_of((n,), "float64") for n in (3, 0, 1, 40)]
    _, states = reduced(rule, tensors)
    sums = [7.0 + by_hand("sum", g, "tensor", None)[0] for _, g in tensors]
    assert states["all"] == 28
    assert states["avg"] == in_order(sums, plus, 0.0) / 4
    assert states["far"] == math.sqrt(in_order((x * x for x in sums), plus, 0.0))
    assert states["many"] == 44
