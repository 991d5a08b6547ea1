"""Courses: what only one side of a choice needs is left out of the other's sweeps, and nothing else changes."""

from __future__ import annotations

import pytest
from equivalence import COURSES, REFRESHED

from optgen.compiler import driver
from optgen.lowering.pipeline import lower
from optgen.lowering.sweeps import sweeps_of
from optgen.lowering.traversals import Traversals
from optgen.lowering.work import Sweeps


def planned(formulas: str, states: str = "") -> Sweeps:
    head = "name = 'Rule'\n[hyperparameters]\neta = { default = 0.1 }\n[state]"
    text = f"{head}\n{states}\n[update]\nformulas = '''\n{formulas}\n'''"
    return sweeps_of(lower(driver.compile_text(text, "rule.toml").rules[0]))


def courses(plan: Sweeps) -> list[tuple[int, str, str, str, str]]:
    """Of each sweep its number, its course, and what it reads, writes and reduces."""
    return [
        (
            each.number,
            " ".join(f"{'' if c.holds else 'not '}{c.test.name}" for c in each.course),
            " ".join(each.loads),
            " ".join(each.stores),
            " ".join(a.target for a in each.reductions),
        )
        for each in plan.sweeps
    ]


M, H, R = "m = { init = 0 }", "h = { init = 0 }", "r = { init = 1, extent = 'tensor' }"


def test_a_statistic_that_is_refreshed_costs_a_sweep_only_then():
    plan = planned("due = t % 10 == 0\nr = norm(g) if due else r\ndelta = eta*g/r", R)
    assert courses(plan) == [(0, "due", "g", "", "r1"), (1, "", "p g", "p", "")]
    assert {name: [c.holds for c in course] for name, course in plan.courses.items()} == {"r1": [True]}


def test_what_waits_for_nothing_in_between_joins_the_last_sweep():
    plan = planned("due = t % 10 == 0\nm = 0.9*m + g\nr = norm(m) if due else r\ndelta = eta*m/r", f"{M}\n{R}")
    assert courses(plan) == [
        (0, "due", "g m", "m", "r1"),
        (1, "due", "p m", "p", ""),
        (1, "not due", "p g m", "p m", ""),
    ]
    assert (plan.count, plan.traffic) == (2, 6)


@pytest.mark.parametrize(
    "choice",
    ["due = t % 10 == 0\nh = g*g if due else h", "due = t % 10 != 0\nh = h if due else g*g",
     "due = not t % 10 == 0\nh = where(due, h, g*g)"],
)  # fmt: skip
def test_a_state_that_stays_is_not_written(choice):
    plan = planned(f"{choice}\ndelta = eta*g*(h if t % 10 == 0 else 1)", H)
    stores = {len(sweep.stores): [*sweep.loads] for sweep in plan.sweeps}
    assert stores == {2: ["p", "g"], 1: ["p", "g"]}


def test_what_takes_long_is_worth_a_course():
    plan = planned("delta = eta*(exp(g) + log(1 + g*g) if t % 10 == 0 else g)")
    assert [course for _, course, *_ in courses(plan)] == ["k1", "not k1"]
    assert courses(planned("delta = eta*(sqrt(g) + g/3 if t % 10 == 0 else g)")) == [(0, "", "p g", "p", "")]


@pytest.mark.parametrize(("function", "count"), [("h**eta", 2), ("exp(h)", 1)])
def test_a_power_is_worth_a_course_where_a_function_that_takes_less_is_not(function, count):
    plan = planned(f"m = 0.9*m + g\nh = 0.9*h + g*g\ndelta = m*({function} if eta > 1 else sqrt(h))", f"{M}\n{H}")
    assert len(plan.sweeps) == count


@pytest.mark.parametrize("test", ["t == 1", "t < 10", "1 >= t", "not t > 3", "t <= 3 and eta > 0"])
def test_first_steps_that_cost_less_are_not_worth_a_course(test):
    assert len(planned(f"m = g if {test} else m + g\ndelta = eta*m", M).sweeps) == 1


@pytest.mark.parametrize("test", ["t == 1", "1 >= t", "not t > 3"])
def test_first_steps_that_cost_more_have_one(test):
    plan = planned(f"r = norm(g) if {test} else r\ndelta = eta*g/r", R)
    assert [bool(course) for _, course, *_ in courses(plan)] == [True, False]


def test_a_condition_of_the_tensor_decides_after_the_sweep_that_it_comes_from():
    plan = planned("far = norm(p) > 1\nh = g*g if far else h\nm = m + g*h if far else m\ndelta = eta*g", f"{H}\n{M}")
    assert courses(plan) == [
        (0, "", "p g", "p", "r1"),
        (1, "far", "g m", "h m", ""),
    ]


def test_every_parameter_takes_part_in_a_reduction_over_the_group():
    plan = planned("d = norm(g, group) if t % 10 == 0 else d\ndelta = eta*g/d", "d = { init = 1, extent = 'group' }")
    assert courses(plan) == [(0, "", "g", "", "r1"), (1, "", "p g", "p", "")]
    assert not plan.courses


def test_what_both_sides_need_is_in_every_course():
    plan = planned("x = norm(g)\nr = x if t % 10 == 0 else r + x\ndelta = eta*g/r", R)
    assert [course for _, course, *_ in courses(plan)] == ["", ""]


def test_a_chain_that_waits_touches_nothing_behind_the_part_that_waits():
    import optgen
    from optgen.optimiser.base import compilation_of

    chain = optgen.chain(optgen.AccumGrad(4), optgen.ADAM(), optgen.EMA())
    plan = sweeps_of(compilation_of(chain).lowered[0])
    waits = [each for each in plan.sweeps if ("ready", False) in {(c.test.name, c.holds) for c in each.course}]
    assert {each.stores for each in waits} == {("acc",)}
    assert all({*each.loads} <= {"g", "acc"} for each in waits)


def test_a_condition_of_elements_makes_no_course():
    assert all(not each.course for each in planned("h = g*g if g > 0 else h\ndelta = eta*h", H).sweeps)


@pytest.mark.parametrize("text", [COURSES, REFRESHED])
def test_exactly_one_course_of_a_sweep_is_taken(text):
    """Of two courses of a sweep, one has the opposite of a condition of the other."""
    for rule in driver.compile_text(text, "rule.toml").rules:
        plan = sweeps_of(lower(rule))
        for i, one in enumerate(plan.sweeps):
            for other in plan.sweeps[i + 1 :]:
                if one.number == other.number:
                    assert {c.opposite for c in one.course} & {*other.course}
        assert any(each.course for each in plan.sweeps)


def test_of_very_many_conditions_only_a_few_are_tried(monkeypatch):
    tried = 0
    on = Traversals.on

    def counted(*arguments):
        nonlocal tried
        tried += 1
        return on(*arguments)

    monkeypatch.setattr(Traversals, "on", counted)
    lines = [f"b{i} = (b{i - 1} + {i} if t % {i + 2} == 0 else b{i - 1}*p)" for i in range(1, 200)]
    plan = planned("\n".join(["r = norm(p) if t % 201 == 7 else r", "b0 = g", *lines, "delta = eta*b199/r"]), R)
    assert tried < 100
    assert courses(plan)[0] == (0, "k1", "p", "", "r1")  # what a reduction waits for is tried first
