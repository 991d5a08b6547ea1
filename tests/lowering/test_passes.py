"""Every pass keeps every value to the bit, and what it says on top of its file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from searching import search

from optgen import interpreter as interp
from optgen.compiler import catalogue, driver
from optgen.frozen import replace
from optgen.ir.evaluate import Program, evaluate
from optgen.ir.expr import (
    PARAMETER,
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
    children,
    extent_of,
    join,
    rebuilt,
    type_of,
    varies_within,
    walk,
)
from optgen.ir.interval import Interval
from optgen.ir.primitives import OPS, REDUCTIONS, Type
from optgen.ir.rule import Assign, Hyper, Rule, State
from optgen.ir.verify import verify
from optgen.language.check import check
from optgen.language.parse import parse
from optgen.lowering import constant_folding as fold
from optgen.lowering import cse, hoist
from optgen.lowering import dead_code as dead
from optgen.lowering import expand_draws as draws
from optgen.lowering import expand_indices as indices
from optgen.lowering import expand_powers as powers
from optgen.lowering import expand_reductions as reductions
from optgen.lowering.pipeline import PIPELINE, lower
from optgen.notation.text import expression

Array = np.ndarray[Any, np.dtype[Any]]
Pass = Callable[[Rule], Rule]
PASSES = [draws, reductions, indices, powers, fold, hoist, cse, dead]
#: Those that are compiled: what multiplies whole matrices is not.
SHIPPED = [rule for path in catalogue.shipped() for rule in driver.compile_file(path).rules if not rule.multiplies]


def rule_of(formulas: str, *names: str) -> Rule:
    """A checked rule of eta, beta, m and v with these formulas, which leave `names` unread."""
    reads = "".join(f" + 0*{name}" for name in (*names, "m", "v", "eta", "beta[1]", "beta[2]"))
    text = f"""
name = "R"
[hyperparameters]
eta = {{ default = 0.1, range = "[0, 1]" }}
beta = {{ default = [0.9, 0.999], range = "[0, 1)" }}
[state]
m = {{ init = 0 }}
v = {{ init = 0 }}
[update]
formulas = \'\'\'
{formulas}
delta = g{reads}
\'\'\'
"""
    (rule,) = check(parse(text, "rule.toml"))
    return rule


def states(m: str = "m", v: str = "v") -> str:
    return f"m = {m}\nv = {v}"


def value_of(rule: Rule, target: str) -> Expr:
    (value,) = (a.value for a in rule.body if a.target == target)
    return value


# ---- Random rules ----

CONSTANTS = (0.0, -0.0, 1.0, -1.0, 0.1, 2.0, 3.0, 1 / 3, 1e-45, 1e39, 16777217.0)
RANGE = Interval(-math.inf, math.inf, True, True)
HYPERS = (Hyper("s", (0.1,), False, (RANGE,), ""), Hyper("r", (3.0, -7.0), True, (RANGE, RANGE), ""))
VALUES = {"s": (0.1,), "r": (3.0, -7.0)}
#: Names that passes would like to give, too.
LOCALS = ("x1", "k1", "r1", "s_1", "t1", "x2")
DRAWN = [op for op in OPS.values() if op.name != "powi"]
Draw = Any


def expressions(draw: Draw, kind: Type, known: list[Local], depth: int) -> Expr:
    """An expression of the type."""
    if depth == 0 or (kind is Type.REAL and draw(st.integers(0, 3)) == 0):
        atoms: list[Expr] = [local for local in known if local.type is kind]
        if kind is Type.REAL:
            atoms += [Load("p"), Load("g"), Load("m"), Scalar("s", 0), Scalar("r", 1), Scalar("r", 2), Count()]
            atoms += [Load("k", Extent.TENSOR), Load("d", Extent.GROUP), Size(Extent.TENSOR)]
            atoms += map(Const, CONSTANTS)
        if atoms:
            return draw(st.sampled_from(atoms))
    if kind is Type.REAL and draw(st.integers(0, 9)) == 0:
        exponent = draw(st.sampled_from([2, 3, 4, 5, 7, 64]))
        return Call("powi", (expressions(draw, Type.REAL, known, depth - 1), Const(float(exponent))))
    if kind is Type.REAL and draw(st.integers(0, 7)) == 0:
        name = draw(st.sampled_from(sorted(REDUCTIONS)))
        over = draw(st.sampled_from([Extent.TENSOR, Extent.TENSOR, Extent.GROUP]))
        args = tuple(expressions(draw, Type.REAL, known, depth - 1) for _ in range(REDUCTIONS[name]))
        of = Extent.CONSTANT
        for arg in args:
            of = join(of, extent_of(arg))
        return Reduce(name, args, over) if varies_within(of, over) else args[0]
    rows = [op for op in DRAWN if op.gives is kind and (depth > 0 or Type.BOOL not in op.takes)]
    op = draw(st.sampled_from(rows))
    return Call(op.name, tuple(expressions(draw, taken, known, max(0, depth - 1)) for taken in op.takes))


@st.composite
def rules(draw: Draw) -> Rule:
    known: list[Local] = []
    body: list[Assign] = []
    targets = [*draw(st.lists(st.sampled_from(LOCALS), max_size=4, unique=True)), "m", "k", "d", "delta"]
    for target in draw(st.permutations(targets)):
        kind = draw(st.sampled_from([Type.REAL, Type.REAL, Type.BOOL])) if target in LOCALS else Type.REAL
        value = expressions(draw, kind, known, draw(st.integers(0, 4)))
        most = {"k": Extent.TENSOR, "d": Extent.GROUP}.get(target, Extent.ELEMENT)
        if extent_of(value) > most:
            value = Reduce(draw(st.sampled_from(["sum", "max", "norm"])), (value,), most)
        body.append(Assign(target, value))
        known.append(Local(target, extent_of(value), type_of(value)))
    (delta,) = (local for local in known if local.name == "delta")
    body.append(Assign(PARAMETER, Call("sub", (Load(PARAMETER), delta))))
    small = State("k", Const(0.5), "", Extent.TENSOR), State("d", Const(2.0), "", Extent.GROUP)
    return verify(Rule("R", "", "", HYPERS, (), (State("m", Const(0.0), ""), *small), tuple(body)))


def inputs(dtype: type, special: bool) -> dict[str, Array]:
    """Special numbers in all pairs; or ordinary ones, since a sum of the special ones is never a number."""
    info = np.finfo(dtype)
    some = [0.0, 1.0, 0.1, 3.0, math.inf, float(info.max), float(info.smallest_subnormal)]
    pairs = np.array(list(itertools.product([math.nan, *some, *(-x for x in some)], repeat=2)), dtype)
    if not special:
        pairs = np.random.default_rng(5).normal(0, 2, pairs.shape).astype(dtype)
    small = {"k": np.array(0.75), "d": np.array(-3.0)}
    return {"g": pairs[:, 0].copy(), "p": pairs[:, 1].copy(), "m": np.roll(pairs[:, 0], 37)} | small


def stepped(rule: Rule, dtype: type, t: int, values: dict[str, tuple[float, ...]], special: bool) -> dict[str, Array]:
    """What one step makes of the inputs; scalars of a lowered rule are computed first, as the host does."""
    arrays = inputs(dtype, special)
    interp.step(replace(rule, scalars=(), body=(*rule.scalars, *rule.body)), values, t, arrays)
    return arrays


def assert_same_bits(rule: Rule, other: Rule) -> None:
    for dtype, t, special in itertools.product((np.float32, np.float64), (1, 3), (True, False)):
        x, y = (stepped(r, dtype, t, VALUES, special) for r in (rule, other))
        for name in ("p", "m", "k", "d"):
            unsigned = np.uint32 if x[name].dtype == np.float32 else np.uint64
            same = (x[name].view(unsigned) == y[name].view(unsigned)) | (np.isnan(x[name]) & np.isnan(y[name]))
            assert same.all(), f"{name} in {dtype.__name__}, t = {t}"


@search(60, 250)
@given(rules())
def test_every_pass_keeps_every_value_to_the_bit(rule: Rule) -> None:
    for run in PIPELINE:
        lowered = verify(run(rule))
        assert_same_bits(rule, lowered)
        rule = lowered


@search(50, 150)
@given(rules(), st.sampled_from(PASSES))
def test_every_pass_alone_keeps_every_value_to_the_bit(rule: Rule, one: Any) -> None:
    assert_same_bits(rule, verify(one.run(rule)))


@search(50, 150)
@given(rules())
def test_a_lowered_rule_keeps_the_promises_of_all_passes(rule: Rule) -> None:
    assert_lowered(lower(rule))


@search(50, 150)
@given(rules())
def test_the_program_of_the_host_gives_what_its_evaluator_gives(rule: Rule) -> None:
    scalars = lower(rule).scalars
    targets = [assign.target for assign in scalars]
    program, copy = Program(scalars, targets), Program(scalars, targets[:1])
    others = {name: tuple(-x for x in each) for name, each in VALUES.items()}
    for values, t in ((VALUES, 1), (VALUES, 3), (others, 3), (VALUES, 2)):
        names: dict[str, Any] = {}
        for assign in scalars:
            names[assign.target] = evaluate(assign.value, values, t, names)
        assert list(map(repr, program.run(values, t))) == list(map(repr, names.values()))
        assert list(map(repr, copy.run(values, t))) == list(map(repr, names.values()))[:1]


def test_a_program_tells_hyperparameters_apart_by_the_sign_of_a_zero_and_forgets_the_oldest() -> None:
    rule = rule_of(states("m + 1/eta + 0*g", "v"))
    (value,) = (a.value for a in rule.body if a.target == "m")
    (inverse,) = (e for e in walk(value) if isinstance(e, Call) and e.op == "div")
    program = Program([Assign("inverse", inverse)], ["inverse"])
    for eta in (0.0, -0.0, *map(float, range(1, 100)), -0.0, 0.0):
        (found,) = program.run({"eta": (eta,)}, 1)
        assert repr(found) == repr(math.copysign(math.inf, eta) if eta == 0 else 1 / eta)


def assert_lowered(rule: Rule) -> None:
    """What `body` may hold: operations, each once, in one formula those of one extent; `scalars`: what is read."""
    atoms = [e for a in rule.body for e in walk(a.value) if not isinstance(e, Call)]
    assert not any(isinstance(e, Scalar | Count) for e in atoms)
    calls = operations(rule)
    assert len(set(calls)) == len(calls)
    assert all(call.extent > Extent.STEP for call in calls)
    assert all(call.op != "powi" or call.extent == Extent.GROUP for call in calls)
    for assign in rule.body:
        inner = [e for e in walk(assign.value) if isinstance(e, Call | Reduce)]
        assert {extent_of(e) for e in inner[:-1]} <= {_extent(assign.value)}
        assert not any(isinstance(e, Reduce) for e in inner[:-1])
        assert all(e.op in ("sum", "dot", "max", "min") for e in inner if isinstance(e, Reduce))
    reads = {e.name for a in (*rule.scalars, *rule.body) for e in walk(a.value) if isinstance(e, Local)}
    assert {a.target for a in (*rule.scalars, *rule.body)} <= reads | rule.stores | rule.reported | {rule.accept}


def _extent(value: Expr) -> Extent:
    """That of what a formula works on: of a reduction, of what is reduced."""
    extent = Extent.CONSTANT
    for arg in children(value):
        extent = join(extent, extent_of(arg))
    return extent if isinstance(value, Reduce) else extent_of(value)


def operations(rule: Rule) -> list[Call]:
    """All operations of the body, with what it copies in the place of each name that is a mere copy."""
    copies: dict[str, Expr] = {}

    def resolved(expr: Expr) -> Expr:
        if isinstance(expr, Local):
            return copies.get(expr.name, expr)
        return rebuilt(expr, tuple(map(resolved, children(expr))))

    found: list[Call] = []
    for assign in rule.body:
        value = resolved(assign.value)
        found += (e for e in walk(value) if isinstance(e, Call))
        if not isinstance(value, Call | Reduce):
            copies[assign.target] = value
    return found


# ---- The shipped rules ----


@pytest.mark.parametrize("rule", SHIPPED, ids=lambda rule: f"{rule.name} {rule.variant}".strip())
def test_every_pass_leaves_every_variant_of_a_shipped_rule_sound(rule: Rule) -> None:
    same = replace(rule, body=(), scalars=())
    for run in PIPELINE:
        rule = verify(run(rule))
        assert replace(rule, body=(), scalars=()) == same
    assert_lowered(rule)


@pytest.mark.parametrize("rule", SHIPPED, ids=lambda rule: f"{rule.name} {rule.variant}".strip())
def test_no_operation_is_left_twice_in_a_lowered_rule_and_none_is_added(rule: Rule) -> None:
    lowered = lower(rule)
    written = powers.run(indices.run(reductions.run(draws.run(rule)))).body
    elements = {e for a in written for e in walk(a.value) if isinstance(e, Call) and e.extent == Extent.ELEMENT}
    assert len([e for e in operations(lowered) if e.extent == Extent.ELEMENT]) <= len(elements)


def test_the_pipeline_is_made_of_all_passes() -> None:
    assert set(PIPELINE) == {one.run for one in PASSES}


def test_adam_computes_its_scalars_once_a_step() -> None:
    (adam,) = (rule for rule in SHIPPED if rule.name == "ADAM")
    assert [(a.target, expression(a.value)) for a in lower(adam).scalars] == [
        ("beta1", "β₁"),
        ("k1", "1 − β₁"),
        ("beta2", "β₂"),
        ("k2", "1 − β₂"),
        ("k3", "1 − β₁ᵗ"),
        ("k4", "1 − β₂ᵗ"),
        ("eps", "ε"),
        ("eta", "η"),
    ]


# ---- powers ----


@pytest.mark.parametrize(
    ("power", "products"),
    [
        ("m**2", 1),
        ("m**3", 2),
        ("m**4", 2),
        ("m**5", 3),
        ("m**64", 6),
        ("m**63", 10),
        ("(m + v)**2", 1),
        ("(m**8)**8", 6),
    ],
)
def test_a_power_is_as_many_products_as_its_squares_and_digits(power: str, products: int) -> None:
    lowered = verify(powers.run(rule_of(states(power))))
    calls = [e for a in lowered.body if a.target not in ("delta", "p") for e in walk(a.value) if isinstance(e, Call)]
    assert [call.op for call in calls].count("mul") == products
    assert "powi" not in [call.op for call in calls]


def test_a_power_of_a_scalar_is_left_to_the_host() -> None:
    rule = rule_of(states("m*eta**3"))
    assert powers.run(rule) == rule


def test_powers_of_powers_do_not_grow_without_bounds() -> None:
    source = "g"
    for _ in range(8):
        source = f"({source})**64"
    assert len(operations(lower(rule_of(states(source))))) < 8 * 6 + 20


# ---- fold ----

M = Load("m")


@pytest.mark.parametrize(
    ("source", "folded"),
    [
        ("m*1", M),
        ("1*m", M),
        ("m/1", M),
        ("m - 0", M),
        ("-(-m)", M),
        ("-(-(-(-m)))", M),
        ("(m*1 - 0)/(3 - 2)", M),
        ("0.1 + 0.2", Const(0.1 + 0.2)),
        ("-0", Const(-0.0)),
        ("sqrt(2)", Const(math.sqrt(2))),
        ("max(-0.0, 0)", Const(-0.0)),
        ("max(0, -0.0)", Const(0.0)),
        ("3**3", Const(27.0)),
        ("where(1 < 2, m, v)", M),
        ("where(2 < 1, v, m)", M),
        ("where(2 < 1, v, where(0 == -0, m, g))", M),
    ],
)
def test_what_is_exact_for_every_number_is_folded(source: str, folded: Expr) -> None:
    assert value_of(verify(fold.run(rule_of(states(source)))), "m") == folded


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ("m + 0", "m + 0"),
        ("0 + m", "0 + m"),
        ("m - -0.0", "m − −0"),
        ("0 - m", "0 − m"),
        ("m*0", "m·0"),
        ("m - m", "m − m"),
        ("m/m", "m/m"),
        ("m*-1", "m·−1"),
        ("m + 1/(1 - 1)", "m + 1/0"),
        ("m + 0/(1 - 1)", "m + 0/0"),
        ("m + 1e308*10", "m + 1e+308·10"),
        ("m + sqrt(-1)", "m + √(−1)"),
        ("m + log(0)", "m + log(0)"),
        ("m*(1 + eta)", "m·(1 + η)"),
        ("where(1 < 2, t, m)", "(t if 1 < 2 else m)"),
        ("where(m < m, m, v)", "(m if m < m else v)"),
    ],
)
def test_what_is_not_exact_for_every_number_is_left(source: str, left: str) -> None:
    assert expression(value_of(fold.run(rule_of(states(source))), "m")) == left


def test_folding_does_not_make_a_scalar_of_an_element() -> None:
    rule = rule_of("x = where(1 < 2, t, m)\n" + states("m + x*0.1"))
    assert_same_step(rule, lower(rule))


DEFAULTS = {"eta": (0.1,), "beta": (0.9, 0.999)}


def step_of(rule: Rule, dtype: type) -> dict[str, Array]:
    arrays = {name: np.linspace(-2, 2, 41).astype(dtype) * k for k, name in enumerate(rule.arrays, 1)}
    interp.step(replace(rule, scalars=(), body=(*rule.scalars, *rule.body)), DEFAULTS, 7, arrays)
    return arrays


def assert_same_step(rule: Rule, other: Rule) -> None:
    for dtype in (np.float32, np.float64):
        one, two = step_of(rule, dtype), step_of(other, dtype)
        assert {name: x.tobytes() for name, x in one.items()} == {name: x.tobytes() for name, x in two.items()}


# ---- hoist ----


def test_the_largest_scalar_expressions_are_hoisted_once_each() -> None:
    rule = rule_of(states("m*(eta*(1 - beta[1]) + t)", "v*(eta*(1 - beta[1]) + t) + (1 - beta[1])"))
    lowered = verify(hoist.run(rule))
    texts = [expression(a.value) for a in lowered.scalars]
    assert texts.count("η·(1 − β₁) + t") == 1
    assert texts.count("1 − β₁") == 1
    assert len(set(texts)) == len(texts)


def test_a_literal_stays_where_it_stands() -> None:
    rule = hoist.run(rule_of(states("m + 3")))
    assert expression(value_of(rule, "m")) == "m + 3"
    assert Const(3.0) not in [e for a in rule.scalars for e in walk(a.value)]


def test_a_state_that_is_a_scalar_is_read_unrounded_as_before() -> None:
    rule = rule_of("first = t == 1\nx = t/3\n" + states("x*0.1", "where(first, m*0.1, m*0.3 + v)"))
    lowered = verify(lower(rule))
    assert_same_step(rule, lowered)
    assert extent_of(value_of(rule, "m")) == Extent.STEP


def test_the_names_of_scalars_avoid_those_of_the_author() -> None:
    rule = rule_of(
        "k1 = m*beta[1]\nbeta2 = k1 + beta[2]\nk2 = beta2*(1 - eta)\n" + states("k2"),
    )
    lowered = verify(lower(rule))
    targets = [a.target for a in (*lowered.scalars, *lowered.body)]
    assert len(set(targets)) == len(targets)
    assert_same_step(rule, lowered)


# ---- cse ----


def test_a_repeated_operation_is_computed_once_and_named() -> None:
    lowered = verify(cse.run(rule_of(states("m + sqrt(g*g + v)", "v - sqrt(g*g + v)"))))
    assert [(a.target, expression(a.value)) for a in lowered.body[:3]] == [
        ("x1", "√(g·g + v)"),
        ("m", "m + x1"),
        ("v", "v − x1"),
    ]


def test_what_the_author_named_is_not_named_again() -> None:
    lowered = verify(cse.run(rule_of("s = g*g\n" + states("m + g*g", "v + g*g*s"))))
    assert [expression(a.value) for a in lowered.body[:3]] == ["g·g", "m + s", "v + s·s"]


def test_a_copy_of_a_name_is_seen_through() -> None:
    lowered = verify(cse.run(rule_of("a = g\nb = a*a\n" + states("m + g*g", "v + b*b + (g*g)*b"))))
    assert len(operations(lowered)) == len(set(operations(lowered)))


def test_zeros_of_different_sign_are_not_taken_for_each_other() -> None:
    """1/max(g, 0) and 1/max(g, -0) are both infinite for g < 0, but not the same infinity; likewise on the host."""
    rule = rule_of("a = max(g, 0)\nb = max(g, -0.0)\n" + states("1/a + t*0.0*m", "1/b + t*-0.0*v"))
    assert_same_step(rule, lower(rule))
    arrays = step_of(lower(rule), np.float64)
    assert (arrays["m"][:20] == math.inf).all()
    assert (arrays["v"][:20] == -math.inf).all()
    zeros = [a for a in lower(rule).scalars if expression(a.value) in ("t·0", "t·−0")]
    assert [math.copysign(1, x) for x in Program(zeros, [a.target for a in zeros]).run(DEFAULTS, 1)] == [1, -1]


# ---- dead ----


def test_what_nobody_reads_is_removed_with_all_that_only_it_reads() -> None:
    rule = rule_of("a = m*eta\nb = a + beta[1]\n" + states(), "b")
    pruned = replace(rule, body=tuple(a if a.target != "delta" else Assign("delta", Load("g")) for a in rule.body))
    lowered = verify(dead.run(pruned))
    assert [a.target for a in lowered.body] == ["m", "v", "delta", "p"]
    assert dead.run(lowered) == lowered


def test_scalars_that_nobody_reads_are_removed() -> None:
    rule = hoist.run(rule_of(states()))
    body = (*(a for a in rule.body if a.target in ("m", "v")), Assign(PARAMETER, Load("g")))
    assert dead.run(replace(rule, body=body)).scalars == ()


def test_a_state_is_kept_even_if_it_stays_as_it_was() -> None:
    assert {"m", "v", "p"} <= {a.target for a in lower(rule_of(states())).body}
