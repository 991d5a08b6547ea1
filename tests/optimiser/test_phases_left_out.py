"""Phases that steps leave out, by a condition that is known before the step."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import optgen
from optgen.compiler import driver
from optgen.errors import ArrayError, SpecError, StateError
from optgen.optimiser import classes

BACKENDS = ["kernel", "interpreter"]
#: Three phases, of which the first two may be left out, by other conditions.
THREE = """
name = "Three"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
k = { default = 2, range = "[1, inf), whole" }
q = { default = 3, range = "[1, inf), whole" }
[state]
m = { init = 0 }
n = { init = 0, extent = "group" }
[update.far]
when = "t % k == 1 or k == 1"
formulas = '''
m = g
p = p + eta*g
'''
[update.near]
when = "t % q == 0"
formulas = '''
n = max(n, norm(g, group))
delta = eta*g
'''
[update.last]
formulas = '''
m = m/2 + g
p = p - eta*m/(1 + n/t)
'''
"""


def made(text: str = THREE, **given: Any) -> Any:
    return classes.module_class(driver.compile_text(text, "test.toml"))(**given)


def arrays(seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(3, 5)).astype(np.float32), rng.normal(size=7)]


def go_on(opt: Any, ps: Sequence[Any], first: int, last: int) -> list[str]:
    """The phases of these numbers, counted over all steps; their names."""
    names = []
    for number in range(first, last):
        names.append(opt.phase)
        assert opt.step(ps, arrays(100 + number)) == opt.phase
    return names


def bits(opt: Any, ps: Sequence[Any]) -> list[dict[str, bytes]]:
    return [{n: np.asarray(x).tobytes() for n, x in ({"p": p} | opt.state(p)).items()} for p in ps]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_phase_that_comes_next_is_one_that_the_step_has(backend: str) -> None:
    opt, ps = made(backend=backend), arrays(0)
    expected = ["far", "last", "last", "far", "near", "last", "last", "far", "last", "near", "last", "far"]
    assert go_on(opt, ps, 0, 12) == expected
    assert opt.state(ps[0])["t"] == 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_step_may_leave_out_its_first_phase(backend: str) -> None:
    opt, ps = made(THREE.replace("t % k == 1 or k == 1", "t > k"), backend=backend), arrays(0)
    assert opt.phase == "last"
    assert go_on(opt, ps, 0, 4) == ["last", "last", "far", "near"]


def test_kernels_have_the_bits_of_the_interpreter() -> None:
    opts, worlds = [made(k=3, backend=backend) for backend in BACKENDS], [arrays(0), arrays(0)]
    for number in range(14):
        names = [go_on(opt, ps, number, number + 1) for opt, ps in zip(opts, worlds, strict=True)]
        assert names[0] == names[1]
        assert bits(opts[0], worlds[0]) == bits(opts[1], worlds[1]), number


def test_a_step_of_one_phase_is_what_its_formulas_say() -> None:
    opt, p = made(eta=0.5, k=9, q=9), np.array([1.0, 2.0])
    opt.step([p], [np.array([2.0, 4.0])])
    assert p.tolist() == [2.0, 4.0]
    for t in (1, 2):
        opt.step([p], [np.ones(2)], phase="last")
        assert (opt.phase, opt.state(p)["t"]) == ("last", t)
    np.testing.assert_allclose(p, np.array([2.0, 4.0]) - 0.5 * np.array([2.0, 3.0]) - 0.5 * np.array([2.0, 2.5]))


def test_a_condition_is_decided_when_the_step_before_ends() -> None:
    opt, ps = made(k=2), arrays(0)
    go_on(opt, ps, 0, 3)
    assert opt.phase == "far"
    opt.k = 100
    assert opt.phase == "far"
    assert go_on(opt, ps, 3, 8) == ["far", "near", "last", "last", "last"]


def test_a_schedule_decides_by_its_value_in_the_step_that_ends() -> None:
    opt, ps = made(k=lambda t: 2 if t < 3 else 100, q=100), arrays(0)
    assert go_on(opt, ps, 0, 7) == ["far", "last", "last", "far", "last", "last", "last"]


def test_parts_of_a_chain_run_in_the_phases_that_there_are() -> None:
    opt = optgen.chain(optgen.Grokfast(), optgen.LookSAM(0.1, 3), optgen.ADAM(0.1), optgen.EMA(0.5))
    ps = arrays(0)
    assert go_on(opt, ps, 0, 6) == ["ascend", "descend", "descend", "descend", "ascend", "descend"]
    assert opt.state(ps[0])["t"] == 4


def test_a_step_of_which_no_phase_is_left_evaluates() -> None:
    opt, ps = optgen.chain(optgen.LookSAM(0.1, 3), optgen.SGD(0.1), optgen.EMA(0.5)), arrays(0)
    go_on(opt, ps, 0, 2)
    assert opt.phase == "descend"
    opt.eval()
    opt.train()
    assert go_on(opt, ps, 2, 4) == ["descend", "descend"]


def test_a_new_parameter_may_come_where_a_step_begins_with_another_phase() -> None:
    opt, ps = made(k=9, q=99), arrays(0)
    go_on(opt, ps, 0, 2)
    new = np.ones(4)
    assert opt.step([*ps, new], [*arrays(1), np.ones(4)]) == "last"
    assert opt.state(new)["t"] == 1


# ---- Going on ----


def by_state_dict(opt: Any, ps: list[Any], path: Path) -> tuple[Any, list[Any]]:
    fresh = made()
    fresh.load_state_dict(opt.state_dict())
    return fresh, [p.copy() for p in ps]


def by_pickle(opt: Any, ps: list[Any], path: Path) -> tuple[Any, list[Any]]:
    return pickle.loads(pickle.dumps((opt, ps)))


def by_copy(opt: Any, ps: list[Any], path: Path) -> tuple[Any, list[Any]]:
    return copy.copy(opt), ps


def by_file(opt: Any, ps: list[Any], path: Path) -> tuple[Any, list[Any]]:
    pytest.importorskip("safetensors")
    opt.save(path / "run.safetensors", ps)
    fresh, qs = made(), [np.zeros_like(p) for p in ps]
    fresh.load(path / "run.safetensors", qs)
    return fresh, qs


@pytest.mark.parametrize("way", [by_state_dict, by_pickle, by_copy, by_file])
@pytest.mark.parametrize("phases", [1, 2, 4])
def test_a_checkpoint_knows_which_phase_comes_next(
    way: Callable[..., tuple[Any, list[Any]]], phases: int, tmp_path: Path
) -> None:
    whole, qs = made(), arrays(0)
    names = go_on(whole, qs, 0, phases + 6)
    opt, ps = made(), arrays(0)
    go_on(opt, ps, 0, phases)
    opt, ps = way(opt, ps, tmp_path)
    assert go_on(opt, ps, phases, phases + 6) == names[phases:]
    assert bits(opt, ps) == bits(whole, qs)


def test_a_damaged_number_is_refused() -> None:
    opt, ps = made(), arrays(0)
    go_on(opt, ps, 0, 2)
    saved = opt.state_dict()
    saved["group"]["first_phase"] = np.array(3.0)
    with pytest.raises(StateError, match="from 0 to 2, as first_phase, got 3"):
        made().load_state_dict(saved)


def test_others_are_refused_within_a_step_only() -> None:
    opt, ps = made(), arrays(0)
    go_on(opt, ps, 0, 1)
    with pytest.raises(ArrayError, match="expected the parameters of the phase"):
        opt.step([*ps, np.ones(4)], [*arrays(1), np.ones(4)])
    assert opt.phase == "last"


def test_train_takes_as_many_gradients_as_a_step_has_phases() -> None:
    pytest.importorskip("autograd")
    w, calls = optgen.param(np.array([1.0, 2.0])), []

    def loss() -> Any:
        calls.append(1)
        return (w * w).sum()

    counts: list[int] = []
    opt = optgen.chain(optgen.LookSAM(0.1, 3), optgen.Descent(0.25))
    optgen.train(loss, w, [()] * 5, opt, cb=lambda: counts.append(len(calls)))
    assert counts == [2, 3, 4, 6, 7]


# ---- Faults of specs ----


BAD = [
    ('when = "t % q == 0"', 'when = "norm(g) > 1"', "'near': expected a condition of t and hyperparameters, which is"),
    ('when = "t % q == 0"', 'when = "n > 1"', "'near': expected a condition of t and hyperparameters, which is known"),
    ('when = "t % q == 0"', 'when = "t % q"', "'near': expected a condition of t and hyperparameters, which is known"),
    ('when = "t % q == 0"', 'when = "length(1) > q"', "'near': expected a condition of t and hyperparameters"),
    ('when = "t % q == 0"', "when = 3", "'when': expected text, got a number"),
    (
        "[update.last]",
        '[update.last]\nwhen = "t > q"',
        "every step ends with its last phase 'last', got a condition on",
    ),
    ("n = {", "first_phase = {", "the state 'first_phase' shadows the given name 'first_phase', which phase the next"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD)
def test_a_condition_that_cannot_be_known_before_the_step_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        driver.compile_text(THREE.replace(old, new), "test.toml")
    assert message in str(caught.value)


def test_hyperparameters_in_a_condition_alone_are_used() -> None:
    driver.compile_text(THREE, "test.toml")  # k and q
