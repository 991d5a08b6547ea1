"""Rules of Optimisers.jl against trajectories that owe them nothing: `papers_by_hand.py`, and torch if there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flux_by_hand import trajectory
from papers_by_hand import MORE, TOLERANCE, assert_same_path, gradients, start

import optgen

STEPS = 250

CASES: list[tuple[str, dict[str, Any]]] = [
    ("RADAM", {}),
    ("RADAM", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3}),
    ("RADAM", {"beta": (0.9, 0.99)}),
    ("RADAM", {"beta": (0.9, 0.5)}),  # so short a memory is never rectified
    ("RADAM", {"beta": (0.0, 0.0)}),
    ("RADAM", {"eps": 0.1}),
    ("OAdam", {}),
    ("OAdam", {"eta": 0.1, "beta": (0.9, 0.999), "eps": 1e-3}),
    ("OAdam", {"beta": (0.0, 0.0)}),
    ("OAdam", {"beta": (0.5, 0.25), "eps": 0.1}),
    ("RMSProp", {"centred": True}),
    ("RMSProp", {"centred": True, "eta": 0.05, "rho": 0.5, "eps": 1e-3}),
    ("RMSProp", {"centred": True, "rho": 0.99}),
    ("RMSProp", {"centred": False, "rho": 0.5}),
    ("AggMo", {}),
    ("AggMo", {"eta": 0.01}),
    ("AggMo", {"beta": (0.5, 0.9, 0.999)}),
    ("AggMo", {"eta": 0.02, "beta": (0.25, 0.0, 0.5)}),
]


def titled(case: tuple[str, dict[str, Any]]) -> str:
    return ", ".join([case[0], *(f"{name}={value}" for name, value in case[1].items())])


def make(name: str, given: dict[str, Any]) -> Any:
    return getattr(optgen, name)(**given, backend="interpreter")


def walk(name: str, given: dict[str, Any], g: Any, p: Any) -> list[Any]:
    opt, p, path = make(name, given), p.copy(), []
    for row in g:
        opt.step([p], [row.copy()])
        path.append(p.copy())
    return path


@pytest.mark.parametrize("case", CASES, ids=titled)
def test_the_interpreter_follows_the_reference(case: tuple[str, dict[str, Any]]) -> None:
    name, given = case
    g, p = gradients(STEPS), start()
    expected = np.array(trajectory(MORE[name], g.tolist(), p.tolist(), **given))
    assert_same_path(walk(name, given, g, p), expected, p)
    assert (np.abs(np.diff(expected, axis=0)).max(axis=0) > 0).all()


@pytest.mark.parametrize("case", [case for case in CASES if len(case[1]) < 2], ids=titled)
def test_the_states_are_those_of_the_reference(case: tuple[str, dict[str, Any]]) -> None:
    name, given = case
    opt, reference, p = make(name, given), MORE[name](**given), start()
    expected = p.tolist()
    highest: dict[str, Any] = {}
    for t, row in enumerate(gradients(STEPS), 1):
        opt.step([p], [row.copy()])
        expected = reference.step(expected, row.tolist())
        states = opt.state(p)
        assert states.pop("t") == t
        assert states
        for state, values in states.items():
            there = np.array(getattr(reference, state))
            highest[state] = np.maximum(highest.get(state, 0), np.abs(there))
            assert (np.abs(values - there) <= TOLERANCE * highest[state]).all(), f"{state} at step {t}"


@pytest.mark.parametrize("name", MORE)
def test_the_defaults_are_those_of_the_reference(name: str) -> None:
    opt, reference = make(name, {}), MORE[name]()
    for hyper in opt.rule.hypers:
        assert getattr(opt, hyper.name) == getattr(reference, hyper.name)
    for flag in opt.rule.flags:
        assert getattr(opt, flag.name) is getattr(reference, flag.name)


def test_radam_rectifies_from_a_length_of_four() -> None:
    """With β₂ = 0.999 that is the fifth step; torch, whose bound is five, begins with the sixth."""
    reference = MORE["RADAM"]()
    first = next(t for t in range(1, 20) if reference.step([1.0], [1.0]) and reference.rectified)
    assert first == 5
    opt, p, moved = make("RADAM", {}), np.array([1.0]), []
    for _ in range(8):
        before = p.copy()
        opt.step([p], [np.array([7.0])])
        moved.append(float(before[0] - p[0]))
    np.testing.assert_allclose(moved[:4], 0.001 * 7, rtol=1e-12)  # a gradient of 7 shows in the step
    assert all(0 < step < 0.001 for step in moved[4:])  # and here it does not


def test_oadam_takes_back_the_step_before() -> None:
    opt, p = make("OAdam", {"eta": 0.5}), np.array([0.0])
    opt.step([p], [np.array([2.0])])
    np.testing.assert_allclose(p, [-1.0], rtol=1e-7)  # twice the first step of ADAM, which is eta
    opt.eta = 0.0
    opt.step([p], [np.array([2.0])])
    np.testing.assert_allclose(p, [-0.5], rtol=1e-7)  # what is taken back was made with the learning rate of then


def test_centred_rmsprop_stays_finite_where_the_gradient_does_not_change() -> None:
    """The variance is 0 then, and its two terms cancel to something on either side of it."""
    for g in (0.1, 0.3, 1 / 3, -7e-5, 1e8):
        opt, p = make("RMSProp", {"centred": True}), np.array([1.0, 1.0])
        for _ in range(600):
            opt.step([p], [np.array([g, -g])])
            assert np.isfinite(p).all()


def test_only_centred_rmsprop_keeps_an_average_of_the_gradient() -> None:
    p = np.ones(3)
    assert set(make("RMSProp", {}).state(p)) == {"acc", "t"}
    assert set(make("RMSProp", {"centred": True}).state(p)) == {"acc", "avg", "t"}


TORCH: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("RMSProp", {"centred": True}, "RMSprop", {"lr": 0.001, "alpha": 0.9, "centered": True}),
    (
        "RMSProp",
        {"centred": True, "eta": 0.05, "rho": 0.5, "eps": 1e-3},
        "RMSprop",
        {"lr": 0.05, "alpha": 0.5, "eps": 1e-3, "centered": True},
    ),
]


@pytest.mark.parametrize(
    ("name", "given", "theirs", "arguments"), TORCH, ids=[titled((row[0], row[1])) for row in TORCH]
)
def test_the_interpreter_follows_torch(
    name: str, given: dict[str, Any], theirs: str, arguments: dict[str, Any]
) -> None:
    torch = pytest.importorskip("torch")
    g, p = gradients(STEPS), start()
    parameter = torch.tensor(p.copy(), dtype=torch.float64, requires_grad=True)
    optimiser = getattr(torch.optim, theirs)([parameter], **arguments)
    expected = []
    for row in g:
        parameter.grad = torch.tensor(row.copy(), dtype=torch.float64)
        optimiser.step()
        expected.append(parameter.detach().numpy().copy())
    assert_same_path(walk(name, given, g, p), expected, p)
