"""Schedules: the values of optax, and values by hand; checked when made; the same after any way of saving."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import optgen
from optgen.compiler import driver
from optgen.errors import ArgumentError, HyperparameterError, OptgenError, StateError
from optgen.optimiser import classes, schedules
from optgen.optimiser.schedules import (
    Schedule,
    constant,
    cosine,
    exponential,
    from_plain,
    inverse_time,
    is_schedule,
    join,
    linear,
    one_cycle,
    piecewise,
    plain,
    polynomial,
    warmup,
)

#: At least one of each kind, with its options; and what it is called in optax, where it is there.
CASES: list[tuple[Schedule, Callable[[Any], Any] | None]] = [
    (constant(0.25), lambda o: o.constant_schedule(0.25)),
    (linear(0.1, 0.02, 7), lambda o: o.linear_schedule(0.1, 0.02, 7)),
    (linear(0.0, 3.0, 13), lambda o: o.linear_schedule(0.0, 3.0, 13)),
    (cosine(0.1, 40), lambda o: o.cosine_decay_schedule(0.1, 40)),
    (cosine(0.3, 9, end=0.05), lambda o: o.cosine_decay_schedule(0.3, 9, 0.05 / 0.3)),
    (exponential(0.1, 0.9), lambda o: o.exponential_decay(0.1, 1, 0.9)),
    (exponential(0.1, 0.5, every=7), lambda o: o.exponential_decay(0.1, 7, 0.5)),
    (exponential(0.1, 0.5, 7, True), lambda o: o.exponential_decay(0.1, 7, 0.5, staircase=True)),
    (exponential(0.1, 0.9, end=0.03), lambda o: o.exponential_decay(0.1, 1, 0.9, end_value=0.03)),
    (exponential(0.1, 1.5, 3, end=1.0), lambda o: o.exponential_decay(0.1, 3, 1.5, end_value=1.0)),
    (inverse_time(0.1, 0.5, 4), None),
    (inverse_time(0.1, 0.5, 4, staircase=True), None),
    (polynomial(0.1, 0.01, 2, 11), lambda o: o.polynomial_schedule(0.1, 0.01, 2, 11)),
    (polynomial(0.0, 1.0, 0.5, 11), lambda o: o.polynomial_schedule(0.0, 1.0, 0.5, 11)),
    (piecewise(0.1, {}), lambda o: o.piecewise_constant_schedule(0.1, {})),
    (
        piecewise(0.1, {20: 0.3, 3: 0.5, 4: 2.0}),
        lambda o: o.piecewise_constant_schedule(0.1, {20: 0.3, 3: 0.5, 4: 2.0}),
    ),
    (warmup(5, 0.2), lambda o: o.warmup_constant_schedule(0.0, 0.2, 5)),
    (warmup(5, cosine(0.2, 20, 0.01), 0.03), lambda o: o.warmup_cosine_decay_schedule(0.03, 0.2, 5, 25, 0.01)),
    (
        warmup(5, exponential(0.2, 0.5, 3, staircase=True)),
        lambda o: o.warmup_exponential_decay_schedule(0.0, 0.2, 5, 3, 0.5, staircase=True),
    ),
    (one_cycle(0.5, 40), lambda o: o.cosine_onecycle_schedule(40, 0.5)),
    (one_cycle(0.5, 33, 0.45, 0.1, 0.01), lambda o: o.cosine_onecycle_schedule(33, 0.5, 0.45, 10, 100)),
    # 0.29·100 is a little below 29, and both count 28 steps.
    (one_cycle(0.5, 100, 0.29, 0.5, 0.1), lambda o: o.cosine_onecycle_schedule(100, 0.5, 0.29, 2, 10)),
    (one_cycle(0.5, 12, warm=0.0), lambda o: o.cosine_onecycle_schedule(12, 0.5, 0.0)),
    (one_cycle(0.5, 12, warm=1.0), None),  # optax loses the peak then, one of two equal keys of a dict
    (
        join([0.05, linear(0.1, 0.2, 5), cosine(0.2, 12, 0.1)], [4, 13]),
        lambda o: o.join_schedules(
            [o.constant_schedule(0.05), o.linear_schedule(0.1, 0.2, 5), o.cosine_decay_schedule(0.2, 12, 0.5)], [4, 13]
        ),
    ),
    (
        join([warmup(3, piecewise(1.0, {2: 0.5})), join([linear(1.0, 0.5, 2), 0.125], [4])], [9]),
        lambda o: o.join_schedules(
            [
                o.join_schedules([o.linear_schedule(0, 1.0, 3), o.piecewise_constant_schedule(1.0, {2: 0.5})], [3]),
                o.join_schedules([o.linear_schedule(1.0, 0.5, 2), o.constant_schedule(0.125)], [4]),
            ],
            [9],
        ),
    ),
    (join([0.5], []), lambda o: o.join_schedules([o.constant_schedule(0.5)], [])),
]
EACH = pytest.mark.parametrize("schedule", [schedule for schedule, _ in CASES], ids=repr)


def values(schedule: Callable[[int], float], last: int) -> list[float]:
    return [schedule(t) for t in range(1, last + 1)]


# ---- Values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"), [case for case in CASES if case[1]], ids=[repr(case[0]) for case in CASES if case[1]]
)
def test_the_values_are_those_of_optax(ours: Schedule, theirs: Callable[[Any], Any]) -> None:
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else pytest.importorskip("jax.experimental").enable_x64
    with enable_x64(True):  # in this thread and block alone
        schedule = theirs(optax)
        expected = [float(schedule(count)) for count in range(120)]
    assert values(ours, 120) == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.parametrize("steps", [20, 50])
def test_one_cycle_is_that_of_torch_which_begins_to_count_a_step_earlier(steps: int) -> None:
    torch = pytest.importorskip("torch")
    opt = torch.optim.SGD([torch.zeros(1)], 1.0)
    up = steps * 3 // 10 - 1
    theirs = torch.optim.lr_scheduler.OneCycleLR(opt, 0.5, total_steps=steps, cycle_momentum=False)
    expected = []
    for _ in range(steps - 1):
        expected += theirs.get_last_lr()
        opt.step()
        theirs.step()
    expected += theirs.get_last_lr()
    assert values(one_cycle(0.5, steps - 1, (up + 0.5) / (steps - 1)), steps) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("end", [3.0, 2.9999999999999996])
def test_no_value_on_the_way_is_rounded_beyond_the_ends(end: float) -> None:
    for steps in range(1, 30):
        for schedule in (linear(3, end, steps), cosine(3, steps, end), polynomial(3, end, 2, steps)):
            assert all(end <= value <= 3 for value in values(schedule, steps + 1))


BY_HAND: list[tuple[Schedule, list[float]]] = [
    (constant(3), [3.0, 3.0, 3.0]),
    (linear(1, 0, 4), [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
    (linear(-1, 1, 2), [-1.0, 0.0, 1.0, 1.0]),
    (linear(2, 1, 1), [2.0, 1.0, 1.0]),
    (cosine(2, 4), [2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5), 0.0, 0.0]),
    (cosine(0, 3, 4), [0.0, 1.0, 3.0, 4.0, 4.0]),
    (exponential(8, 0.5), [8.0, 4.0, 2.0, 1.0, 0.5]),
    (exponential(8, 0.25, 2), [8.0, 4.0, 2.0, 1.0, 0.5]),
    (exponential(8, 0.25, 2, staircase=True), [8.0, 8.0, 2.0, 2.0, 0.5, 0.5]),
    (exponential(8, 0.5, end=3), [8.0, 4.0, 3.0, 3.0]),
    (exponential(1, 2, end=3), [1.0, 2.0, 3.0, 3.0]),
    (exponential(1, 1, end=3), [1.0, 1.0]),
    (exponential(-4, 0.5), [-4.0, -2.0, -1.0]),
    (inverse_time(6, 1), [6.0, 3.0, 2.0, 1.5, 1.2]),
    (inverse_time(6, 1, 2), [6.0, 4.0, 3.0, 2.4, 2.0]),
    (inverse_time(6, 1, 2, staircase=True), [6.0, 6.0, 3.0, 3.0, 2.0, 2.0]),
    (inverse_time(6, 0), [6.0, 6.0]),
    (polynomial(16, 0, 2, 4), [16.0, 9.0, 4.0, 1.0, 0.0, 0.0]),
    (polynomial(0, 16, 2, 4), [0.0, 7.0, 12.0, 15.0, 16.0, 16.0]),
    (polynomial(1, 0, 0.5, 4), [1.0, math.sqrt(0.75), math.sqrt(0.5), 0.5, 0.0, 0.0]),
    (piecewise(8, {2: 0.5, 3: 0.25}), [8.0, 8.0, 4.0, 1.0, 1.0]),
    (piecewise(8, {1: 0}), [8.0, 0.0, 0.0]),
    (warmup(4, 1), [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]),
    (warmup(2, linear(1, 0, 4), start=3), [3.0, 2.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
    (one_cycle(4, 4, 0.5, 0.5, 0.25), [2.0, 3.0, 4.0, 2.25, 0.5, 0.5]),
    (one_cycle(4, 3, 0.6, 0.5, 0.25), [2.0, 4.0, 2.25, 0.5, 0.5]),
    (one_cycle(4, 2, 0, 0.5, 0.25), [4.0, 2.25, 0.5, 0.5]),
    (one_cycle(4, 2, 1, 0.5, 0.25), [2.0, 3.0, 0.5, 0.5]),
    (one_cycle(0.5, 4, 0.5, initial=2, final=1), [1.0, 0.75, 0.5, 0.75, 1.0, 1.0]),
    (join([linear(1, 0, 4), 7, linear(5, 6, 2)], [3, 4]), [1.0, 0.75, 0.5, 7.0, 5.0, 5.5, 6.0, 6.0]),
    (join([constant(1), warmup(2, 4)], [1]), [1.0, 0.0, 2.0, 4.0, 4.0]),
]


@pytest.mark.parametrize(("schedule", "expected"), BY_HAND, ids=repr)
def test_the_values_are_those_written_out_by_hand(schedule: Schedule, expected: list[float]) -> None:
    got = values(schedule, len(expected))
    assert got == pytest.approx(expected, rel=1e-14, abs=1e-300)
    assert {type(value) for value in got} == {float}


@EACH
def test_every_kind_has_values_by_hand(schedule: Schedule) -> None:
    assert type(schedule) in {type(known) for known, _ in BY_HAND}


@pytest.mark.parametrize("start", [0.1, 1e-3, 0.7, 1 / 3, 1e308])
@pytest.mark.parametrize("end", [0.0, 0.03, 1e-9, 0.9, -1e308])
@pytest.mark.parametrize("steps", [1, 3, 97])
def test_the_ends_are_exact_and_nothing_comes_after_them(start: float, end: float, steps: int) -> None:
    for schedule in (linear(start, end, steps), cosine(start, steps, end), polynomial(start, end, 1.7, steps)):
        assert schedule(1) == start
        assert {schedule(t) for t in (steps + 1, steps + 2, 10 * steps, 2**53)} == {end}
        between = values(schedule, steps + 1)
        assert between == sorted(between, reverse=start > end)
    begun = warmup(steps, start, start=end)
    assert (begun(1), begun(steps + 1), begun(2**53)) == (end, start, start)


def test_half_a_cosine_is_exact_where_it_comes_near_zero() -> None:
    steps = 1_000_000  # (1 + cos)/2 has lost all its digits here
    assert cosine(1.0, steps)(steps) == pytest.approx((math.pi / steps / 2) ** 2, rel=1e-11)


def test_other_forms_of_the_same() -> None:
    for t in range(1, 30):
        assert linear(0.5, 0.1, 20)(t) == pytest.approx(polynomial(0.5, 0.1, 1, 20)(t), rel=1e-15)
        assert cosine(0.5, 20)(t) + cosine(0.0, 20, 0.5)(t) == pytest.approx(0.5, rel=1e-15)
        assert math.log(exponential(2.0, 0.3, 4)(t) / 2) == pytest.approx(math.log(0.3) * (t - 1) / 4, abs=1e-14)
        assert 3 / inverse_time(3.0, 0.7, 5)(t) == pytest.approx(1 + 0.14 * (t - 1), rel=1e-14)
        assert warmup(7, cosine(0.5, 20), 0.1)(t) == join([linear(0.1, 0.5, 7), cosine(0.5, 20)], [7])(t)
        assert one_cycle(2.0, 20, 0.5)(t) == join([cosine(0.08, 10, 2.0), cosine(2.0, 10, 0.08 * 1e-4)], [10])(t)


def test_a_growth_goes_to_infinity_or_to_its_end() -> None:
    assert exponential(1.0, 2.0)(5000) == math.inf
    assert exponential(-1.0, 2.0)(5000) == -math.inf
    assert exponential(0.0, 2.0)(5000) == 0.0
    assert exponential(1.0, 2.0, end=8)(5000) == 8.0
    assert exponential(1.0, 0.5)(5000) == 0.0
    assert inverse_time(1.0, 1e308)(5000) == 0.0


@EACH
def test_a_value_depends_on_the_step_alone(schedule: Schedule) -> None:
    forward = values(schedule, 60)
    assert [schedule(t) for t in range(60, 0, -1)] == forward[::-1]
    assert [schedule(np.int64(t)) for t in range(1, 61)] == forward


# ---- Things --------------------------------------------------------------------------------------------------------


@EACH
def test_they_compare_hash_copy_and_are_rebuilt_from_what_is_written(schedule: Schedule) -> None:
    namespace = {name: getattr(schedules, name) for name in schedules.__all__}
    again = [
        copy.copy(schedule),
        copy.deepcopy(schedule),
        pickle.loads(pickle.dumps(schedule)),
        dataclasses.replace(schedule),  # type: ignore[type-var]
        eval(repr(schedule), namespace),
        from_plain(plain(schedule)),
        from_plain(json.loads(json.dumps(plain(schedule)))),
    ]
    for each in again:
        assert each == schedule
        assert hash(each) == hash(schedule)
        assert repr(each) == repr(schedule)
        assert type(each) is type(schedule)
        assert values(each, 60) == values(schedule, 60)


def test_no_two_of_them_are_equal() -> None:
    assert len({schedule for schedule, _ in CASES}) == len(CASES)
    assert linear(1, 0, 4) == linear(1.0, 0.0, np.int64(4))
    assert linear(1, 0, 4) != linear(1, 0, 5)
    assert piecewise(1, {2: 3, 1: 2}) == piecewise(1, {1: 2, 2: 3}) == piecewise(1, [(2, 3), (1, 2)])


@EACH
def test_they_cannot_be_changed(schedule: Schedule) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.start = 1.0  # type: ignore[attr-defined]


def test_a_list_given_to_one_is_not_kept() -> None:
    parts, boundaries, factors = [linear(1, 0, 4), 2.0], [3], {3: 0.5}
    joined, stepped = join(parts, boundaries), piecewise(1, factors)
    parts.append(3.0)
    boundaries[0] = 1
    factors[1] = 9.0
    assert joined == join([linear(1, 0, 4), 2.0], [3])
    assert stepped == piecewise(1, {3: 0.5})


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (cosine(0.1, 100), "cosine(0.1, steps=100)"),
        (cosine(0.1, 100, 1e-3), "cosine(0.1, steps=100, end=0.001)"),
        (exponential(1, 0.5, staircase=True), "exponential(1.0, rate=0.5, staircase=True)"),
        (piecewise(1, {2: 3, 1: 2}), "piecewise(1.0, factors={1: 2.0, 2: 3.0})"),
        (warmup(10, cosine(0.1, 100)), "warmup(10, then=cosine(0.1, steps=100))"),
        (join([1, constant(2)], [5]), "join((1.0, constant(2.0)), boundaries=(5,))"),
    ],
)
def test_the_repr_is_the_call_that_makes_it(schedule: Schedule, text: str) -> None:
    assert repr(schedule) == text


def test_every_kind_is_a_schedule_is_public_and_says_what_it_does() -> None:
    kinds = {type(schedule) for schedule, _ in CASES}
    assert kinds == set(Schedule.__subclasses__())
    assert {kind.__name__ for kind in kinds} | {"Schedule", "from_plain", "is_schedule", "plain"} == set(
        schedules.__all__
    )
    for kind in kinds:
        assert kind.__doc__ is not None
        assert not [f.name for f in dataclasses.fields(kind) if f"`{f.name}`" not in kind.__doc__], kind  # type: ignore[arg-type]
    assert all(is_schedule(schedule) for schedule, _ in CASES)
    assert not any(map(is_schedule, [0.1, None, cosine, lambda t: 0.1, {"schedule": "constant", "value": 1.0}]))


# ---- What is refused -----------------------------------------------------------------------------------------------

NOT_NUMBERS = ["0.1", None, True, [0.1], 1j, Decimal(1), math.sin]
NO_SENSE = [math.nan, math.inf, -math.inf, 10**400, np.float32("nan")]
NOT_WHOLE = [1.0, "3", None, True, [3], np.array([1, 2]), np.float64(3)]

NUMBERS: list[Callable[[Any], Schedule]] = [
    lambda x: constant(x),
    lambda x: linear(x, 0, 3),
    lambda x: linear(0, x, 3),
    lambda x: cosine(x, 3),
    lambda x: cosine(1, 3, end=x),
    lambda x: exponential(x, 0.5),
    lambda x: exponential(1, x),
    lambda x: inverse_time(x, 0.5),
    lambda x: inverse_time(1, x),
    lambda x: polynomial(x, 0, 1, 3),
    lambda x: polynomial(1, x, 1, 3),
    lambda x: polynomial(1, 0, x, 3),
    lambda x: piecewise(x, {}),
    lambda x: piecewise(1, {3: x}),
    lambda x: warmup(3, x),
    lambda x: warmup(3, 1, start=x),
    lambda x: one_cycle(x, 3),
    lambda x: one_cycle(1, 3, warm=x),
    lambda x: one_cycle(1, 3, initial=x),
    lambda x: one_cycle(1, 3, final=x),
    lambda x: join([1, x], [3]),
]
STEPS: list[Callable[[Any], object]] = [
    lambda n: linear(1, 0, n),
    lambda n: cosine(1, n),
    lambda n: exponential(1, 0.5, n),
    lambda n: inverse_time(1, 0.5, n),
    lambda n: polynomial(1, 0, 1, n),
    lambda n: piecewise(1, [(n, 0.5)]),
    lambda n: warmup(n, 1),
    lambda n: one_cycle(1, n),
    lambda n: join([1, 2], [n]),
    lambda n: constant(1)(n),
    lambda n: join([1, 2], [4])(n),
]


@pytest.mark.parametrize("make", NUMBERS)
def test_a_number_is_a_finite_real_number(make: Callable[[Any], Schedule]) -> None:
    for good in (1, 1.0, np.float32(1), np.int64(1), Fraction(1)):
        assert make(good) == make(1.0)
    for bad in NOT_NUMBERS:
        with pytest.raises(ArgumentError, match=r"expected .*number.*, got "):
            make(bad)
    for bad in NO_SENSE:
        with pytest.raises(HyperparameterError, match=r"expected .*number.*, got "):
            make(bad)


@pytest.mark.parametrize("make", STEPS)
def test_steps_are_whole_numbers_from_1_on(make: Callable[[Any], object]) -> None:
    assert make(np.int32(3)) == make(3)
    for bad in NOT_WHOLE:
        with pytest.raises(ArgumentError, match=r"expected a whole number of at least 1, got [^!]*hint: steps are"):
            make(bad)
    for bad in (0, -1, -(10**30)):
        with pytest.raises(HyperparameterError, match=r"expected a whole number of at least 1, got [^!]*hint: the"):
            make(bad)


REFUSED: list[tuple[Callable[[], object], type[OptgenError], str]] = [
    (lambda: cosine("a", 3), ArgumentError, "cosine: start: expected a finite number, got 'a'"),
    (lambda: cosine(1, 0), HyperparameterError, "cosine: steps: expected a whole number of at least 1, got 0"),
    (lambda: cosine(1, 3)(0), HyperparameterError, "cosine: t: expected a whole number of at least 1, got 0"),
    (lambda: cosine(1, 3)(1.5), ArgumentError, "cosine: t: expected a whole number of at least 1, got 1.5"),
    (lambda: exponential(1, 0), HyperparameterError, "exponential: rate: expected a finite number above 0, got 0"),
    (lambda: exponential(1, -1), HyperparameterError, "exponential: rate: expected a finite number above 0"),
    (lambda: exponential(1, 1, 1, 1), ArgumentError, "exponential: staircase: expected True or False, got 1"),
    (lambda: exponential(1, 1, end="a"), ArgumentError, "exponential: end: expected a finite number or None"),
    (
        lambda: exponential(1, 1, end=math.nan),
        HyperparameterError,
        "exponential: end: expected a finite number or None",
    ),
    (
        lambda: exponential(0.1, 0.5, end=0.2),
        HyperparameterError,
        "exponential: end: expected a number of at most the start, 0.1, for a rate of 0.5, got 0.2",
    ),
    (
        lambda: exponential(0.1, 1, end=0.05),
        HyperparameterError,
        "exponential: end: expected a number of at least the start, 0.1, for a rate of 1.0, got 0.05",
    ),
    (lambda: inverse_time(1, -0.1), HyperparameterError, "inverse_time: rate: expected a finite number of at least 0"),
    (lambda: inverse_time(1, 1, 1, None), ArgumentError, "inverse_time: staircase: expected True or False"),
    (lambda: polynomial(1, 0, 0, 3), HyperparameterError, "polynomial: power: expected a finite number above 0"),
    (lambda: one_cycle(1, 3, 1.5), HyperparameterError, "one_cycle: warm: expected a number from 0 to 1, got 1.5"),
    (lambda: one_cycle(1, 3, -0.1), HyperparameterError, "one_cycle: warm: expected a number from 0 to 1"),
    (
        lambda: one_cycle(1, 3, initial=-1),
        HyperparameterError,
        "one_cycle: initial: expected a finite number of at least 0",
    ),
    (
        lambda: one_cycle(1, 3, final=-1),
        HyperparameterError,
        "one_cycle: final: expected a finite number of at least 0",
    ),
    (
        lambda: piecewise(1, {3: -1}),
        HyperparameterError,
        "piecewise: factors[3]: expected a finite number of at least 0",
    ),
    (lambda: piecewise(1, {0: 1}), HyperparameterError, "piecewise: factors: expected a whole number of at least 1"),
    (lambda: piecewise(1, {"3": 1}), ArgumentError, "piecewise: factors: expected a whole number of at least 1"),
    (lambda: piecewise(1, 3), ArgumentError, "piecewise: factors: expected factors by step, such as {100: 0.1}"),
    (lambda: piecewise(1, [3, 4]), ArgumentError, "piecewise: factors: expected factors by step, such as {100: 0.1}"),
    (
        lambda: piecewise(1, [(3, 1), (3, 2)]),
        HyperparameterError,
        "piecewise: factors: expected steps in rising order, each",
    ),
    (lambda: warmup(3, "a"), ArgumentError, "warmup: then: expected a finite number or a schedule of optgen"),
    (lambda: warmup(3, cosine), ArgumentError, "warmup: then: expected a finite number or a schedule of optgen"),
    (lambda: warmup(3, lambda t: 1.0), ArgumentError, "warmup: then: expected a finite number or a schedule of optgen"),
    (
        lambda: join([1, "a"], [3]),
        ArgumentError,
        "join: schedules[1]: expected a finite number or a schedule of optgen",
    ),
    (lambda: join(1, []), ArgumentError, "join: schedules: expected a list, got 1"),
    (
        lambda: join([], []),
        ArgumentError,
        "join: expected boundaries, one fewer than schedules, got 0 for 0 schedules",
    ),
    (
        lambda: join([1, 2], []),
        ArgumentError,
        "join: expected boundaries, one fewer than schedules, got 0 for 2 schedules",
    ),
    (lambda: join([1, 2], 3), ArgumentError, "join: boundaries: expected a list, got 3"),
    (lambda: join([1, 2], [0]), HyperparameterError, "join: boundaries[0]: expected a whole number of at least 1"),
    (
        lambda: join([1, 2, 3], [4, 4]),
        HyperparameterError,
        "join: boundaries: expected steps in rising order, each once",
    ),
    (
        lambda: join([1, 2, 3], [5, 4]),
        HyperparameterError,
        "join: boundaries: expected steps in rising order, each once",
    ),
    (
        lambda: plain(0.1),
        ArgumentError,
        "expected a schedule of the kinds constant, linear, cosine, ",
    ),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_what_makes_no_sense_is_refused(make: Callable[[], object], error: type[OptgenError], message: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert type(caught.value) is error
    assert str(caught.value).startswith(message)


# ---- Written and read ----------------------------------------------------------------------------------------------


def test_a_schedule_is_written_as_plain_containers() -> None:
    assert plain(cosine(0.1, 100)) == {"schedule": "cosine", "start": 0.1, "steps": 100, "end": 0.0}
    assert plain(warmup(np.int64(5), join([np.float32(1), piecewise(1, {3: 0.5})], [4]))) == {
        "schedule": "warmup",
        "steps": 5,
        "then": {
            "schedule": "join",
            "schedules": [1.0, {"schedule": "piecewise", "start": 1.0, "factors": [[3, 0.5]]}],
            "boundaries": [4],
        },
        "start": 0.0,
    }


COSINE = {"schedule": "cosine", "start": 0.1, "steps": 100, "end": 0.0}
WARMUP = {"schedule": "warmup", "steps": 5, "then": COSINE, "start": 0.0}


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (None, "expected a dict with one of constant, linear, .* as its 'schedule', got None"),
        ("cosine", "expected a dict with one of .*, got 'cosine'"),
        ({}, "expected a dict with one of .*, got {}"),
        (COSINE | {"schedule": "sine"}, "expected a dict with one of .*, got {.*'schedule': 'sine'"),
        (COSINE | {"schedule": ["cosine"]}, "expected a dict with one of .*"),
        (COSINE | {"schedule": "Schedule"}, "expected a dict with one of .*"),
        (
            {"schedule": "cosine", "start": 0.1},
            "expected a saved schedule with schedule, start, steps, end, got \\['schedule', 'start'\\]",
        ),
        (
            COSINE | {"rate": 1.0},
            "with schedule, start, steps, end, got \\['schedule', 'start', 'steps', 'end', 'rate'\\]",
        ),
        (COSINE | {1: 1.0}, "expected a saved schedule with schedule, start, steps, end, got .*, 1\\]$"),
        (
            COSINE | {"steps": 0},
            "a saved schedule: cosine: steps: expected a whole number .*, got 0\n  hint: the first step is",
        ),
        (COSINE | {"start": "0.1"}, "a saved schedule: cosine: start: expected a finite number, got '0.1'"),
        (COSINE | {"start": math.nan}, "a saved schedule: cosine: start: expected a finite number, got nan"),
        (COSINE | {"end": COSINE}, "a saved schedule: cosine: end: expected a finite number, got cosine"),
        (WARMUP | {"then": {"schedule": "sine"}}, "expected a dict with one of .*, got {'schedule': 'sine'}"),
        (WARMUP | {"then": COSINE | {"steps": 0}}, "a saved schedule: cosine: steps: expected a whole number"),
        (WARMUP | {"then": [1.0]}, "a saved schedule: warmup: then: expected a finite number or a schedule"),
        (
            {"schedule": "join", "schedules": [1.0, 2.0], "boundaries": []},
            "a saved schedule: join: expected boundaries, one fewer",
        ),
        (
            {"schedule": "piecewise", "start": 1.0, "factors": [3]},
            "a saved schedule: piecewise: factors: expected factors by",
        ),
    ],
)
def test_what_is_no_saved_schedule_is_refused(saved: Any, message: str) -> None:
    with pytest.raises(StateError, match=message):
        from_plain(saved)


def test_a_schedule_of_another_file_is_not_ours() -> None:
    mine = type("mine", (constant,), {})(1.0)
    assert mine(1) == 1.0
    assert not is_schedule(mine)
    with pytest.raises(ArgumentError, match="of the kinds"):
        plain(mine)
    with pytest.raises(ArgumentError, match="a schedule of optgen"):
        warmup(3, mine)


# ---- Behind a part that waits ----


@pytest.mark.parametrize("backend", ["kernel", "interpreter"])
def test_a_schedule_counts_the_updates_of_its_own_part(backend: str) -> None:
    """As a loop would that gathers gradients itself and steps the rule every third time."""
    seen: list[int] = []

    def rate(t: int) -> float:
        seen.append(t)
        return 0.1 / t

    opt = optgen.chain(optgen.AccumGrad(3), optgen.ADAM(eta=rate), backend=backend)
    alone = optgen.ADAM(eta=lambda t: 0.1 / t, backend=backend)
    rng = np.random.default_rng(0)
    p, q = np.ones(4), np.ones(4)
    for _ in range(4):
        gs = [rng.normal(size=4) for _ in range(3)]
        for g in gs:
            opt.step([p], [g])
        alone.step([q], [gs[0] / 3 + gs[1] / 3 + gs[2] / 3])
        np.testing.assert_allclose(p, q, rtol=1e-14)
    assert sorted(set(seen)) == [1, 2, 3, 4]


def test_a_schedule_of_the_part_that_waits_counts_every_gradient() -> None:
    seen: list[tuple[str, int]] = []

    def noted(name: str, value: float) -> Any:
        def schedule(t: int) -> float:
            seen.append((name, t))
            return value

        return schedule

    opt, p = optgen.chain(optgen.AccumGrad(noted("n", 2)), optgen.Descent(noted("eta", 0.1))), np.ones(2)
    for _ in range(5):
        opt.step([p], [np.ones(2)])
    assert [t for name, t in seen if name == "n"] == [1, 2, 3, 4, 5]
    assert [t for name, t in seen if name == "eta"] == [1, 1, 2, 2, 3]
    np.testing.assert_allclose(p, 0.8)


def test_a_schedule_goes_on_by_its_own_count_after_a_resume() -> None:
    def made() -> Any:
        return optgen.chain(optgen.AccumGrad(2), optgen.Descent(lambda t: 0.1 * t))

    opt, p = made(), np.ones(2)
    for _ in range(5):
        opt.step([p], [np.ones(2)])
    again, q = made(), p.copy()
    again.load_state_dict(opt.state_dict(), [q])
    for which, x in ((opt, p), (again, q)):
        which.step([x], [np.ones(2)])
        which.step([x], [np.ones(2)])
    assert p.tobytes() == q.tobytes()
    np.testing.assert_allclose(p, 1 - 0.1 - 0.2 - 0.3)


def test_parameters_that_were_held_back_apart_have_no_schedule_in_common() -> None:
    text = "name = 'Large'\npart = 'gradient'\n[update]\nformulas = '''\nproceed = max(g) > 1\ndelta = g\n'''\n"
    large = classes.module_class(driver.compile_text(text, "large.toml"))
    opt = optgen.chain(large(), optgen.Descent(lambda t: 0.1))
    p, q = np.ones(2), np.ones(3)
    opt.step([p, q], [np.full(2, 2.0), np.ones(3)])
    before = p.tobytes(), q.tobytes()
    with pytest.raises(ArgumentError, match="expected parameters of one count of updates, got"):
        opt.step([p, q], [np.full(2, 2.0), np.ones(3)])
    assert (p.tobytes(), q.tobytes()) == before
    opt[1].eta = 0.1
    opt.step([p, q], [np.full(2, 2.0), np.ones(3)])
