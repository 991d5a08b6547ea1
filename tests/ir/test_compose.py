"""Composition: parts one behind the other are one rule, which does what they would do one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from searching import search

from optgen import interpreter as interp
from optgen.compiler import catalogue, driver
from optgen.frozen import replace
from optgen.ir.compose import Composed, close, compose
from optgen.ir.expr import Count, Extent, Load, Scalar, walk
from optgen.ir.rule import Rule, State, loads
from optgen.ir.verify import verify
from optgen.language.check import check_open
from optgen.language.parse import parse
from optgen.lowering.pipeline import lower

Array = NDArray[np.float64]


def part(
    formulas: str, name: str = "Part", *, kind: str = "", states: str = "", hypers: str = "", top: str = ""
) -> Rule:
    """An open rule; `states` are lines of [state], `hypers` names of hyperparameters, each 0.5."""
    lines = [f'name = "{name}"', f'part = "{kind}"', top, "[hyperparameters]"]
    lines += [f"{hyper} = {{ default = 0.5, range = '[-9, 9]' }}" for hyper in hypers.split()]
    lines += ["[state]", states, "[update]", "formulas = '''", formulas, "'''"]
    return check_open(parse("\n".join(lines), f"{name}.toml"))[0]


def chain(*parts: Rule) -> Rule:
    return verify(compose(parts, "Chain").rule)


def values_of(rule: Rule) -> dict[str, tuple[float, ...]]:
    return {hyper.name: hyper.default for hyper in rule.hypers}


def begin(rule: Rule, p: Array) -> dict[str, Array]:
    """The states of a rule before its first step, with room for the parameter and its gradient."""
    initial = interp.initial_state(rule, values_of(rule), p)
    shapes = {state.name: interp.shape_of(state.extent, p.shape) for state in rule.states}
    return {name: np.broadcast_to(value, shapes[name]).copy() for name, value in initial.items()}


def run(rule: Rule, steps: Sequence[Array], p: Array) -> tuple[Array, dict[str, Array]]:
    """The parameter and the states after steps with these gradients."""
    p = p.copy()
    states = begin(rule, p)
    for t, g in enumerate(steps, 1):
        interp.step(rule, values_of(rule), t, {"p": p, "g": g.copy(), **states})
    return p, states


def targets(rule: Rule) -> list[str]:
    return [assign.target for assign in rule.body]


P, G = np.array([1.0, -2.0, 4.0]), np.array([8.0, 16.0, -32.0])
SCALE = part("delta = g*scale", "Scale", kind="gradient", hypers="scale")
DECAY = part("delta = g + lam*p", "Decay", kind="gradient", hypers="lam")
DESCENT = part("delta = eta*g", "Descent", hypers="eta")
MOMENTUM = part("m = rho*m + g\ndelta = m*eta", "Momentum", states="m = { init = 0 }", hypers="eta rho")
COUNTED = part("delta = g*t", "Counted", kind="gradient")
DIRECT = part("p = p*(1 - eta) - g\nold = p + old/2", "Direct", states="old = { init = 'p' }", hypers="eta")
AVERAGE = part("avg = avg + rho*(new - avg)\np = new", "Average", kind="parameter", states="avg = { init = 'p' }",
               hypers="rho")  # fmt: skip
BACK = part("due = t == 3\nslow = where(due, (slow + new)/2, slow)\np = where(due, slow, new)", "Back",
            kind="parameter", states="slow = { init = 'p' }")  # fmt: skip
EVERY = part("proceed = t == 2*floor(t/2)\nacc = where(t == 2*floor(t/2), g, acc + g)\ndelta = acc", "Every",
             kind="gradient", states="acc = { init = 0 }")  # fmt: skip
LATER = part("proceed = t > 1\ndelta = g", "Later", kind="gradient")
CLIP = part("delta = where(max(abs(g)) > 16, g/4, g)", "Clip", kind="gradient")
KEPT = part("k = k + sum(g)\ndelta = where(k > 0, g, 2*g)", "Kept", kind="gradient",
            states="k = { init = 'eta', extent = 'tensor' }", hypers="eta")  # fmt: skip


# ---- A chain of one ----


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (DESCENT, P - G / 2),
        (DECAY, P - (G + P / 2)),
        (DIRECT, P / 2 - G),
        (AVERAGE, P - G),
        (part("p = 2*new - grad", kind="parameter"), 2 * (P - G) - G),
        (part("delta = g + grad", kind="gradient"), P - 2 * G),
        (LATER, P),
        (part("proceed = t == 1\np = p + g", kind="parameter"), P + G),
        (part("p = 7*t"), np.full(3, 7.0)),
    ],
)
def test_one_part_alone_is_subtracted_or_takes_the_parameters_place(rule: Rule, expected: Array) -> None:
    closed = verify(close(rule))
    assert run(closed, [G], P)[0].tolist() == expected.tolist()
    assert replace(closed, body=rule.body) == rule
    assert not {"grad", "new"} & loads(closed)


def test_one_part_alone_keeps_the_names_of_its_author() -> None:
    assert targets(close(MOMENTUM)) == ["m", "delta", "p"]
    assert targets(close(DIRECT)) == ["p", "old"]
    assert targets(close(LATER)) == ["proceed", "delta", "p"]


def test_a_state_may_have_the_name_of_what_parts_are_given() -> None:
    rule = part("grad = grad + g\nnew = 2*grad\ndelta = new + grad", states="grad = { init = 1 }\nnew = { init = 'p' }")
    for made in (close(rule), chain(DECAY, rule)):
        verify(made)
        assert {"grad", "new"} <= {state.name for state in made.states}
    p, states = run(close(rule), [G], P)
    assert (states["grad"].tolist(), p.tolist()) == ((1 + G).tolist(), (P - 3 * (1 + G)).tolist())


# ---- Several, one behind the other ----


@dataclass
class Apart:
    """A part by itself, stepped with the parameter and the gradient that those before it leave it, and a count of its
    own. `goes_on`: whether those behind it follow, after so many updates."""

    rule: Rule
    goes_on: Callable[[int], bool]
    states: dict[str, Array]
    t: int = 0

    def step(self, p: Array, g: Array) -> Array:
        """What it gives: how far it moves the parameter."""
        self.t += 1
        after = p.copy()
        interp.step(self.rule, values_of(self.rule), self.t, {"p": after, "g": g.copy(), **self.states})
        return p - after


KINDS: Mapping[str, tuple[Rule, Callable[[int], bool]]] = {
    rule.name: (rule, goes_on)
    for rule, goes_on in (
        *((rule, lambda t: True) for rule in (SCALE, DECAY, DESCENT, MOMENTUM, COUNTED)),
        *((rule, lambda t: True) for rule in (DIRECT, AVERAGE, BACK, CLIP, KEPT)),
        (EVERY, lambda t: t % 2 == 0),
        (LATER, lambda t: t > 1),
    )
}


@search(30, 150)
@given(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4), st.integers(1, 5))
def test_a_chain_does_what_its_parts_do_one_after_another(names: list[str], count: int) -> None:
    """Numbers here are such that nothing is rounded, so that p - (p - x) is x."""
    gradients = [np.array([8.0, 16.0, -32.0]) * (-1) ** k + 4.0 * k for k in range(count)]
    made = compose([KINDS[name][0] for name in names], "Chain")
    p, states = run(verify(made.rule), gradients, P)
    closed = [close(KINDS[name][0]) for name in names]
    apart = [Apart(rule, KINDS[name][1], begin(rule, P)) for name, rule in zip(names, closed, strict=True)]
    expected = P.copy()
    for g in gradients:
        moved = g
        for each in apart:
            moved = each.step(expected, moved)
            if not each.goes_on(each.t):
                break
        else:
            expected = expected - moved
    assert p.tolist() == expected.tolist()
    for each, named in zip(apart, made.states, strict=True):
        for own, name in named.items():
            assert states[name].tolist() == each.states[own].tolist(), (own, name)


def test_the_order_of_the_parts_is_the_order_in_which_they_run() -> None:
    assert run(chain(SCALE, DECAY), [G], P)[0].tolist() == (P - (G / 2 + P / 2)).tolist()
    assert run(chain(DECAY, SCALE), [G], P)[0].tolist() == (P - (G + P / 2) / 2).tolist()


def test_every_part_may_read_the_gradient_before_the_chain_and_the_parameter_behind_the_parts_before() -> None:
    reading = part("delta = g + 4*grad", "Reading", kind="gradient")
    assert run(chain(SCALE, SCALE, reading), [G], P)[0].tolist() == (P - (G / 4 + 4 * G)).tolist()
    mixed = part("p = new + 4*p + 16*grad", "Mixed", kind="parameter")
    assert run(chain(DESCENT, mixed), [G], P)[0].tolist() == ((P - G / 2) + 4 * P + 16 * G).tolist()
    assert run(chain(DIRECT, mixed), [G], P)[0].tolist() == ((P / 2 - G) + 4 * P + 16 * G).tolist()
    both = chain(DIRECT, mixed, mixed)
    once = (P / 2 - G) + 4 * P + 16 * G
    assert run(both, [G], P)[0].tolist() == (once + 4 * P + 16 * G).tolist()
    assert run(chain(DIRECT, SCALE), [G], P)[0].tolist() == (P - (P - (P / 2 - G)) / 2).tolist()


def test_the_parameter_behind_the_parts_before_is_computed_once() -> None:
    peek = part("a = new*2\np = new + a", "Peek", kind="parameter")
    body = chain(DESCENT, peek).body
    assert [a.target for a in body] == ["g1", "p1", "a", "p"]
    assert targets(chain(DIRECT, peek)) == ["p1", "old", "a", "p"]


def test_what_only_one_part_is_written_to_is_written_where_it_stands() -> None:
    """The last part keeps the names of its author; of the ones before only the outputs have others."""
    assert targets(chain(SCALE, MOMENTUM)) == ["g1", "m", "delta", "p"]
    assert targets(chain(SCALE, DIRECT)) == ["g1", "p", "old"]
    assert targets(chain(MOMENTUM, AVERAGE)) == ["m", "g1", "p1", "avg", "p"]
    assert targets(chain(LATER, DIRECT)) == ["proceed1", "g1", "p1", "old", "updates1", "p"]


# ---- Parts that others wait for ----


def small(rule: Rule) -> dict[str, Extent]:
    return {state.name: state.extent for state in rule.small_states}


def test_there_is_a_count_of_its_own_behind_a_part_that_waits_where_formulas_or_schedules_go_by_it() -> None:
    assert small(chain(EVERY, CLIP)) == {}
    assert small(chain(EVERY, MOMENTUM)) == {"updates1": Extent.TENSOR}
    assert small(chain(COUNTED, EVERY, CLIP)) == {}
    assert small(chain(EVERY, COUNTED, COUNTED)) == {"updates1": Extent.TENSOR}
    assert small(chain(EVERY, COUNTED, EVERY, COUNTED)) == {"updates1": Extent.TENSOR, "updates2": Extent.TENSOR}
    before = chain(COUNTED, EVERY)
    assert Count() in {e for a in before.body for e in walk(a.value)}


def test_what_waits_is_held_in_every_state_and_in_its_count() -> None:
    rule = chain(EVERY, COUNTED, MOMENTUM, AVERAGE)
    p, states = run(rule, [G], P)
    assert p.tolist() == P.tolist()
    assert states["m"].tolist() == [0.0] * 3
    assert states["avg"].tolist() == P.tolist()
    assert states["acc"].tolist() == G.tolist()
    assert states["updates1"] == 0
    p, states = run(rule, [G, G], P)
    assert states["m"].tolist() == (1 * G).tolist()
    assert p.tolist() == (P - G / 2).tolist()
    assert states["updates1"] == 1
    assert run(rule, [G, G, G, G], P)[1]["m"].tolist() == (G / 2 + 2 * G).tolist()


def test_of_two_parts_that_are_waited_for_both_must_go_on() -> None:
    """The second of them counts the steps in which the first one goes on."""
    rule = chain(EVERY, LATER, MOMENTUM)
    held = [np.array_equal(run(rule, [G] * steps, P)[0], P) for steps in range(1, 7)]
    assert held == [True, True, True, False, False, False]
    assert [float(run(rule, [G] * steps, P)[1]["m"][0] / G[0]) for steps in range(2, 7)] == [0, 0, 1, 1, 1.5]


def test_behind_a_part_that_waits_the_gradient_before_the_chain_is_what_it_gives() -> None:
    formulas = "acc = acc + g\nproceed = t == 2\ndelta = acc"
    gathered = part(formulas, "Gathered", kind="gradient", states="acc = { init = 0 }")
    reading = part("delta = 0*g + grad", "Reading", kind="gradient")
    assert run(chain(gathered, SCALE, reading), [G, 2 * G], P)[0].tolist() == (P - 3 * G).tolist()


def test_a_state_that_starts_as_the_parameter_does_so_in_the_first_step_held_or_not() -> None:
    rule = chain(EVERY, SCALE, BACK)
    assert run(rule, [G], P)[1]["slow"].tolist() == P.tolist()


# ---- Names ----


def named(*parts: Rule) -> tuple[list[str], list[str]]:
    rule = verify(compose(parts, "Chain").rule)
    return [hyper.name for hyper in rule.hypers], [state.name for state in rule.states]


def test_a_name_that_one_part_has_stays_and_others_get_the_parts_name_in_front() -> None:
    other = part("m = m + g\ndelta = m*eta", "Other", states="m = { init = 'eta' }", hypers="eta")
    assert named(DECAY, MOMENTUM) == (["lam", "eta", "rho"], ["m"])
    assert named(MOMENTUM, other) == (["momentum_eta", "rho", "other_eta"], ["momentum_m", "other_m"])
    assert named(SCALE, SCALE) == (["scale1_scale", "scale2_scale"], [])
    assert named(SCALE, DECAY, SCALE) == (["scale1_scale", "lam", "scale2_scale"], [])
    assert named(KEPT, MOMENTUM, KEPT, MOMENTUM) == (
        ["kept1_eta", "momentum1_eta", "momentum1_rho", "kept2_eta", "momentum2_eta", "momentum2_rho"],
        ["kept1_k", "momentum1_m", "kept2_k", "momentum2_m"],
    )


def test_an_initial_value_goes_by_the_new_names() -> None:
    other = part("m = m + g\ndelta = m*eta", "Other", states="m = { init = '2*eta' }", hypers="eta")
    (_, m) = chain(MOMENTUM, other).states
    assert Scalar("other_eta", 0) in set(walk(m.init))


def test_it_is_told_what_each_part_has_its_names_as() -> None:
    made: Composed = compose([MOMENTUM, DECAY, MOMENTUM], "Chain")
    assert made.hypers == (
        {"eta": "momentum1_eta", "rho": "momentum1_rho"},
        {"lam": "lam"},
        {"eta": "momentum2_eta", "rho": "momentum2_rho"},
    )
    assert made.states == ({"m": "momentum1_m"}, {}, {"m": "momentum2_m"})


def test_what_only_formulas_call_so_takes_no_name_from_a_hyperparameter_or_state() -> None:
    local = part("eta = g*2\nm = eta + g\ndelta = m", "Local", kind="gradient")
    assert named(local, MOMENTUM) == (["eta", "rho"], ["m"])
    assert named(MOMENTUM, local) == (["eta", "rho"], ["m"])
    assert run(chain(local, MOMENTUM), [G], P)[0].tolist() == (P - 3 * G / 2).tolist()
    assert run(chain(MOMENTUM, local), [G], P)[0].tolist() == (P - 3 * G / 2).tolist()


@pytest.mark.parametrize("names", ["g1 p1", "updates1 proceed1", "every_acc every1_acc", "new grad"])
def test_no_name_that_is_made_is_one_that_is_there(names: str) -> None:
    a, b = names.split()
    states = f"{a} = {{ init = 'p' }}\n{b} = {{ init = 0, extent = 'tensor' }}"
    odd = part(f"{a} = {a} + g\n{b} = {b} + t\ndelta = {a}*{b}", "Odd", states=states)
    acc = part("acc = g*2\ndelta = acc", "Every", kind="gradient")
    for parts in ([EVERY, odd], [EVERY, EVERY, odd], [EVERY, acc, odd, AVERAGE], [odd, EVERY, odd]):
        rule = chain(*parts)
        assert len({*targets(rule)}) == len(rule.body)


def test_a_value_of_a_vector_has_its_own_name_still() -> None:
    vector = check_open(parse("name = 'Vector'\n[hyperparameters]\nbeta = { default = [0.5, 0.25], range = '[0, 1]' }\n"
                              "[update]\nformulas = 'delta = beta[1]*beta[2]*g'", "v.toml"))[0]  # fmt: skip
    other = part("delta = beta1*g", "Other", hypers="beta1")
    hypers, _ = named(vector, other)
    assert hypers == ["beta", "other_beta1"]


def test_rules_that_differ_in_capitals_only_have_names_of_their_own() -> None:
    upper = part("delta = eta*g", "DESCENT", hypers="eta")
    hypers, _ = named(DESCENT, upper)
    assert len(set(hypers)) == 2


# ---- Extents and shapes ----


def test_what_is_the_same_for_all_elements_goes_on_as_a_gradient() -> None:
    for formula, expected in (("delta = 3", 3.0), ("delta = max(g)", 16.0), ("delta = t", 1.0), ("p = sum(p)", None)):
        given = part(formula, "Given")
        for rule in (CLIP, DECAY, MOMENTUM, part("delta = g + sum(g)", "Sum")):
            verify(chain(given, rule))
        after = P - expected if expected is not None else np.full(3, 3.0)
        assert run(chain(given, part("p = new", kind="parameter")), [G], P)[0].tolist() == after.tolist()
        centred = part("delta = mean(g, row)*(size/3)", kind="gradient")
        moved, _ = run(chain(given, centred), [G.reshape(1, 3)], P.reshape(1, 3))
        assert moved.tolist() == [[float(x) for x in P - np.mean(P - after)]]


def test_the_chain_is_of_matrices_or_of_rows_where_a_part_is() -> None:
    rows = part("delta = g - mean(g, row)", "Rows", kind="gradient")
    for parts, matrix in (([SCALE, DESCENT], None), ([rows, DESCENT], True), ([DESCENT, rows], True)):
        assert chain(*parts).matrix is matrix
    text = (
        "name = 'First'\npart = 'gradient'\n[update]\nmatrices = 'first by rest'\nformulas = 'delta = g - mean(g, row)'"
    )
    first = check_open(parse(text, "first.toml"))[0]
    assert chain(DESCENT, first).matrices == chain(first, DESCENT).matrices == "first by rest"
    assert chain(DESCENT, rows).matrices == "last two"


def test_the_variants_of_one_optimiser_have_the_same_names() -> None:
    text = (driver.SPECS / "sm3.toml").read_text("utf-8")
    matrix, other = (rule for rule in check_open(parse(text, "sm3.toml")) if rule.flags[0].value)
    m = part("m = m + g\nacc_index = 2*m\ndelta = acc_index", "Own", kind="gradient", states="m = { init = 0 }")
    among = [[m, m], [matrix, other]]
    made = [compose([m, variant], "Chain", among) for variant in (matrix, other)]
    assert made[0].hypers == made[1].hypers
    assert [each.states[1]["m"] for each in made] == ["sm3_m", "sm3_m"]
    assert "own_acc_index" in targets(made[1].rule)


# ---- The shipped rules ----

SPECS = [driver.compile_file(path) for path in catalogue.shipped()]


@pytest.mark.slow
def test_every_pair_of_shipped_rules_is_a_rule_in_every_variant() -> None:
    """But for parts that hold parameters back one by one, before a state of all of them together."""
    apart = set()
    for first in SPECS:
        for second in SPECS:
            for a in first.open:
                for b in second.open:
                    if {a.matrix, b.matrix} == {True, False} or (a.phases and b.phases):
                        continue
                    if "proceed" in targets(a) and any(state.extent == Extent.GROUP for state in b.states):
                        apart.add((first.name, second.name))
                        continue
                    made = compose([a, b], "Pair")
                    rule = verify(made.rule)
                    assert {*made.hypers[0].values(), *made.hypers[1].values()} == {h.name for h in rule.hypers}
                    assert [h.default for h in rule.hypers] == [h.default for h in (*a.hypers, *b.hypers)]
                    assert rule.stores >= {"p"}
    grouped = {each.name for each in SPECS if any(s.extent == Extent.GROUP for s in each.rules[0].states)}
    assert apart == {("AccumGrad", name) for name in grouped}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_shipped_rule_may_stand_before_and_behind_others_and_is_lowered_there(spec: driver.Compilation) -> None:
    waits = next(each for each in SPECS if each.name == "AccumGrad").open[0]
    mean = next(each for each in SPECS if each.name == "EMA").open[0]
    for rule in spec.open:
        grouped = any(state.extent == Extent.GROUP for state in rule.states)
        for parts in ([SCALE, rule, mean], *([] if grouped else [[waits, rule, mean], [waits, rule, rule]])):
            made = verify(compose(parts, "Chain").rule)
            if not made.multiplies:  # which nothing compiles
                assert verify(lower(made)).stores == made.stores


def test_a_state_without_a_formula_is_kept() -> None:
    start = part("delta = g + (p - first)", "Start", kind="gradient", states="first = { init = 'p' }")
    rule = chain(start, start, DESCENT)
    assert rule.states == (State("start1_first", Load("p"), ""), State("start2_first", Load("p"), ""))
    p, states = run(rule, [G, G], P)
    assert states["start1_first"].tolist() == P.tolist()
    assert p.tolist() == (P - G / 2 - (G + 2 * (-G / 2)) / 2).tolist()
