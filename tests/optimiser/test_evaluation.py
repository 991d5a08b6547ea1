"""Evaluation mode in NumPy: parameters have other values between two steps, and training goes on with the same bits."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import optgen
from optgen.compiler import driver
from optgen.errors import ArgumentError, OptgenError, StateError
from optgen.optimiser import classes

MADE: dict[str, Callable[[], Any]] = {
    "ScheduleFreeSGD": lambda: optgen.ScheduleFreeSGD(eta=0.1, beta=0.75, warmup=2),
    "ScheduleFreeAdamW": lambda: optgen.ScheduleFreeAdamW(eta=0.1),
    "ScheduleFreeRAdam": lambda: optgen.ScheduleFreeRAdam(eta=0.1),
    "EMA": lambda: optgen.chain(optgen.ADAM(eta=0.1), optgen.EMA(0.5)),
    "Lookahead": lambda: optgen.chain(optgen.ADAM(eta=0.1), optgen.Lookahead(k=3)),
    "ScheduleFreeSGD, EMA": lambda: optgen.chain(optgen.ScheduleFreeSGD(eta=0.1), optgen.EMA(0.5)),
    "a schedule": lambda: optgen.ScheduleFreeSGD(eta=optgen.linear(0.1, 0.01, 9), beta=lambda t: 0.9 - t / 100),
}
#: What each evaluates with, of a parameter and its state.
GIVES: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "ScheduleFreeSGD": lambda p, s: (p - (1 - 0.75) * s["z"]) / 0.75,
    "ScheduleFreeAdamW": lambda p, s: (p - (1 - 0.9) * s["z"]) / 0.9,
    "ScheduleFreeRAdam": lambda p, s: (p - (1 - 0.9) * s["z"]) / 0.9,
    "EMA": lambda p, s: s["avg"],
    "Lookahead": lambda p, s: s["slow"],
    "ScheduleFreeSGD, EMA": lambda p, s: s["avg"],  # of the last part that says anything
    "a schedule": lambda p, s: (p - (1 - (0.9 - s["t"] / 100)) * s["z"]) / (0.9 - s["t"] / 100),
}


def parameters() -> list[Any]:
    """Of both dtypes, strided, of no dimension and of no element, and with a NaN of its own bits."""
    rng = np.random.default_rng(0)
    odd = np.full(3, 1.5)
    odd.view(np.uint64)[1] = 0x7FF8000000000ABC
    strided = rng.normal(size=(6, 8))[::-2, 1::3]
    return [rng.normal(size=(3, 4)).astype(np.float32), strided, np.array(0.5), np.zeros((0, 3)), odd]


def step(opt: Any, ps: list[Any], t: int) -> None:
    opt.step(ps, [np.full_like(p, 0.25 + t) for p in ps])


def bits(ps: list[Any]) -> list[bytes]:
    return [p.tobytes() for p in ps]


@pytest.mark.parametrize("name", MADE)
def test_training_goes_on_with_the_same_bits(name: str) -> None:
    opt, plain, ps, qs = MADE[name](), MADE[name](), parameters(), parameters()
    moved = 0
    for t in range(7):
        step(opt, ps, t)
        step(plain, qs, t)
        before = bits(ps)
        expected = [GIVES[name](p.astype(np.float64), opt.state(p)) for p in ps]
        opt.eval()
        for p, there in zip(ps, expected, strict=True):
            np.testing.assert_allclose(p, there, rtol=1e-5 if p.dtype == np.float32 else 1e-14)
        moved += bits(ps[:2]) != before[:2]
        opt.train()
        assert bits(ps) == before == bits(qs)
        assert [opt.state(p)["t"] for p in ps] == [t + 1] * len(ps)
    assert moved >= 2


@pytest.mark.parametrize("name", ["ScheduleFreeSGD", "EMA"])
def test_what_becomes_of_parameters_in_between_is_forgotten(name: str) -> None:
    opt, ps = MADE[name](), parameters()
    step(opt, ps, 0)
    before = bits(ps)
    opt.eval()
    seen = bits(ps)
    opt.eval()  # no more than once
    assert bits(ps) == seen
    ps[0][...] = 7
    opt.train()
    assert bits(ps) == before
    opt.train()
    assert bits(ps) == before


def test_a_rule_that_says_nothing_of_evaluation_is_evaluated_as_it_is() -> None:
    opt, p = optgen.ADAM(), np.ones(3)
    opt.step([p], [np.ones(3)])
    before = p.tobytes()
    opt.eval()
    assert p.tobytes() == before
    opt.step([p], [np.ones(3)])
    assert opt.state(p)["t"] == 2


def test_parameters_that_go_away_in_between_take_what_was_set_aside_with_them() -> None:
    opt, p, q = MADE["ScheduleFreeSGD"](), np.ones(3), np.ones(4)
    opt.step([p, q], [np.ones(3), np.ones(4)])
    before = q.tobytes()
    opt.eval()
    del p
    opt.train()
    assert q.tobytes() == before


def test_parameters_that_were_never_stepped_stay_as_they_are() -> None:
    opt, p = MADE["ScheduleFreeSGD"](), np.ones(3)
    opt.eval()
    with pytest.raises(ArgumentError, match="expected to step in training mode, got evaluation mode"):
        opt.step([p], [np.ones(3)])
    opt.train()
    opt.step([p], [np.ones(3)])


#: By what it is called in messages, what evaluation mode refuses.
REFUSED: dict[str, Callable[[Any, Any, Path], object]] = {
    "step": lambda opt, p, _: opt.step([p], [np.ones(3)]),
    "load a state": lambda opt, p, _: opt.load_state_dict(opt.state_dict(), [p]),
    "save parameters": lambda opt, p, path: opt.save(path, [p]),
    "load a checkpoint": lambda opt, p, path: opt.load(path, [p]),
    "copy an optimiser": lambda opt, p, _: copy.copy(opt),
}


@pytest.mark.parametrize("what", REFUSED)
def test_evaluation_mode_refuses(what: str, tmp_path: Path) -> None:
    opt, p = MADE["ScheduleFreeSGD"](), np.ones(3)
    opt.step([p], [np.ones(3)])
    before = p.tobytes()
    opt.eval()
    seen = p.tobytes()
    with pytest.raises(ArgumentError, match=f"expected to {what} in training mode, got evaluation mode") as caught:
        REFUSED[what](opt, p, tmp_path / "run.safetensors")
    assert "opt.train() first" in str(caught.value)
    assert p.tobytes() == seen
    opt.train()
    assert p.tobytes() == before
    assert opt.state(p)["t"] == 1


def test_a_state_dict_of_evaluation_mode_is_that_of_training() -> None:
    opt, p = MADE["EMA"](), np.ones(3)
    opt.step([p], [np.ones(3)])
    before = pickle.dumps(opt.state_dict())
    opt.eval()
    assert pickle.dumps(opt.state_dict()) == before


def test_a_loaded_state_that_waits_is_refused() -> None:
    opt, p = MADE["ScheduleFreeSGD"](), np.ones(3)
    opt.step([p], [np.ones(3)])
    again = MADE["ScheduleFreeSGD"]()
    again.load_state_dict(opt.state_dict())
    with pytest.raises(StateError, match="1 loaded states wait for their parameters"):
        again.eval()


def test_a_schedule_cannot_change_the_mode() -> None:
    faults: list[OptgenError] = []

    def rate(t: int) -> float:
        for change in (opt.eval, opt.train):
            try:
                change()
            except OptgenError as fault:
                faults.append(fault)
        return 0.1

    opt, p = optgen.ScheduleFreeSGD(eta=rate), np.ones(3)
    opt.step([p], [np.ones(3)])
    assert ["between two steps" in str(fault) for fault in faults] == [True, True]


def test_a_part_of_a_chain_has_no_mode_of_its_own() -> None:
    opt = MADE["EMA"]()
    for change in (opt[1].eval, opt[1].train):
        with pytest.raises(ArgumentError, match="part 1 of a chain"):
            change()


def test_formulas_of_evaluation_may_have_steps_and_choose() -> None:
    text = """
name = "Mean"
[hyperparameters]
eta = { default = 0.5, range = "[0, inf)" }
[flags]
late = { default = false }
[state]
total = { init = "0" }
n = { init = 0, extent = "tensor" }
[update]
formulas = '''
total = total + p
n     = n + 1
delta = eta*g
'''
[evaluation]
formulas = '''
half = (total + p)/(n + 1)
p    = (half if t > 1 else p) if late else half
'''
"""
    made = classes.module_class(driver.compile_text(text, "mean.toml"))
    for late in (False, True):
        opt, p = made(late=late), np.array([4.0])
        for expected in (3.75 if not late else 3.5, 3.5):
            opt.step([p], [np.ones(1)])
            opt.eval()
            assert p.tolist() == [expected]
            opt.train()
        assert p.tolist() == [3.0]


@pytest.mark.parametrize("held", [False, True])
def test_the_count_of_a_part_is_its_own(held: bool) -> None:
    text = "name = 'Late'\npart = 'parameter'\n[update]\nformulas = 'p = new*min(t, 1)'\n"
    text += "[evaluation]\nformulas = 'p = 0*p + t'\n"
    late = classes.module_class(driver.compile_text(text, "late.toml"))()
    first = [optgen.AccumGrad(2)] if held else []
    opt, p = optgen.chain(*first, optgen.Descent(0.1), late), np.ones(2)
    for t in range(1, 6):
        opt.step([p], [np.ones(2)])
        opt.eval()
        assert p.tolist() == [t // 2 if held else t] * 2
        opt.train()
