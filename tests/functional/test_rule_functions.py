"""Rules as pure functions: every rule, in every library, beside the optimiser that it is of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from function_cases import NAMES, UNSTABLE, Case

import optgen
from optgen.errors import ArgumentError, ArrayError, HyperparameterError, StateError
from optgen.functional.trees import flatten


def followed(case: Case, function: Any, to: Any, back: Any, **given: Any) -> float:
    """How far a function is from the optimiser that it is of. `to`, `back`: an array of NumPy as one of the library,
    and the other way."""
    now = [[to(p) for p in case.params], None]
    now[1] = function.init(now[0])

    def step(k: int, t: int, phase: str | None) -> tuple[list[Any], bool]:
        inputs = {key: [to(x) for x in v] if isinstance(v, list) else v for key, v in case.inputs[k].items()}
        before = [back(p).copy() for p in now[0]]
        params = now[0]
        found = function.step(params, [to(g) for g in case.grads[k]], now[1], t, phase=phase, **given, **inputs)
        assert all(np.array_equal(back(p), q) for p, q in zip(params, before, strict=True)), "a parameter was changed"
        now[:] = found.params, found.state
        return [back(p) for p in found.params], bool(found.counts)

    return case.follow(step)


@pytest.mark.no_cover
@pytest.mark.parametrize("name", NAMES)
def test_in_numpy_every_rule_is_what_its_optimiser_does(name: str) -> None:
    case = Case(name)
    assert followed(case, case.opt.function("numpy"), np.array, np.asarray) < 1e-12


@pytest.mark.parametrize("name", ["ADAM", "Adafactor", "Muon", "SM3"])
def test_float32_is_computed_in_float32(name: str) -> None:
    case = Case(name, "float32")
    assert followed(case, case.opt.function("numpy"), np.array, np.asarray) < 1e-5


@pytest.mark.no_cover
@pytest.mark.parametrize("name", NAMES)
def test_in_pytorch_every_rule_is_what_its_optimiser_does(name: str) -> None:
    torch = pytest.importorskip("torch")
    if name in UNSTABLE:
        pytest.skip("no continuous function of the gradient")
    case = Case(name)
    to, back = (lambda x: torch.from_numpy(x.copy())), (lambda x: x.numpy())
    assert followed(case, case.opt.function("torch"), to, back) < 1e-12


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_states_begin_in_memory_of_their_own(library: str) -> None:
    made = pytest.importorskip(library)
    lookahead, p = optgen.chain(optgen.ADAM(), optgen.Lookahead()).function(library), made.ones((3, 4))
    for name, x in lookahead.init(p).items():
        (x if library == "numpy" else x.numpy())[...] = 7
        assert p[0, 0] == 1, name
        assert library == "numpy" or x.is_contiguous()


def test_containers_keep_their_structure() -> None:
    tree = {"a": [np.zeros(2), None, (np.zeros(3),)], "b": np.zeros(())}
    adam = optgen.ADAM.function("numpy")
    state = adam.init(tree)
    assert state["m"]["a"][1] is None
    params, state = adam(tree, tree, state, 1)
    leaves, rebuilt = flatten(params)
    assert [x.shape for x in leaves] == [(2,), (3,), ()]
    assert isinstance(params["a"][2], tuple)
    assert rebuilt("xyz") == {"a": ["x", None, ("y",)], "b": "z"}


def test_a_class_has_the_defaults_and_an_optimiser_its_own() -> None:
    p, g = np.zeros(3), np.ones(3)
    for function, rate in ((optgen.Descent.function, 0.1), (optgen.Descent(0.5).function, 0.5)):
        descent = function("numpy")
        found, _ = descent(p, g, descent.init(p), 1)
        assert np.array_equal(found, -rate * g)


def test_a_step_takes_hyperparameters_in_every_spelling() -> None:
    adam, p, g = optgen.ADAM.function("numpy"), np.zeros(3), np.ones(3)
    state = adam.init(p)
    first, _ = adam(p, g, state, 1, {"eta": 0.5, "beta": (0.8, 0.9)})
    second, _ = adam(p, g, state, 1, {"η": np.float64(0.5), "β1": 0.8, "beta2": 0.9})
    assert np.array_equal(first, second)


def test_a_step_that_does_not_count_changes_nothing() -> None:
    opt = optgen.chain(optgen.Unscale(), optgen.ADAM())
    function, p = opt.function("numpy"), np.ones(3)
    state = function.init(p)
    found = function.step(p, np.array([1.0, np.nan, 0.0]), state, 1)
    assert not found.counts
    assert np.array_equal(found.params, p)
    assert all(np.array_equal(found.state[name], state[name]) for name in state)
    assert np.array_equal(function.update(p, np.full(3, np.inf), state, 1).params, np.zeros(3))


def test_what_is_reported_is_given() -> None:
    lamb = optgen.LAMB.function("numpy")
    p = np.ones(4)
    (report,) = lamb.step(p, p, lamb.init(p), 1).reports
    assert set(report) == {each.name for each in optgen.LAMB().rule.reports}


def test_schedule_free_rules_say_what_to_evaluate_with() -> None:
    opt, p = optgen.ScheduleFreeSGD(), np.ones(3)
    function = opt.function("numpy")
    params, state = p, function.init(p)
    for t in range(1, 4):
        params, state = function(params, params, state, t)
        opt.step([p], [p.copy()])
    opt.eval()
    assert np.allclose(function.evaluated(params, state, 3), p, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda f, p, s: optgen.ADAM.function("nump"), ArgumentError, "did you mean 'numpy'"),
        (lambda f, p, s: optgen.ADAM(eta=lambda t: 0.1).function("numpy"), ArgumentError, "a schedule of eta"),
        (lambda f, p, s: f(p, p, s, 1, {"eta": -1.0}), HyperparameterError, "eta"),
        (lambda f, p, s: f(p, p, s, 1, {"lr": 1.0}), ArgumentError, "did you mean 'eta'"),
        (lambda f, p, s: f(p, p, s, 1, {"beta": [0.9]}), ArgumentError, "2 numbers"),
        (lambda f, p, s: f(p, p, s, 1, phase="ascend"), ArgumentError, "its step has but one"),
        (lambda f, p, s: f(p, p, s, 1, loss=1.0), ArgumentError, "unknown input 'loss'"),
        (lambda f, p, s: f(p, [p["w"], p["w"]], s, 1), ArrayError, "gradients for 1 parameters, got 2"),
        (lambda f, p, s: f(p, {"w": np.zeros(4)}, s, 1), ArrayError, r"shape \(3,\), got one of shape \(4,\)"),
        (lambda f, p, s: f({"w": [1.0]}, p, s, 1), ArrayError, "an array of numpy, got float"),
        (lambda f, p, s: f(p, p, {"m": s["m"]}, 1), StateError, "expected the state 'v', got m"),
        (lambda f, p, s: f(p, p, {"m": {}, "v": s["v"]}, 1), StateError, "m of 1 parameters, got 0"),
    ],
)
def test_bad_input_is_refused_by_name(call: Any, error: type[Exception], said: str) -> None:
    adam, params = optgen.ADAM.function("numpy"), {"w": np.zeros(3)}
    with pytest.raises(error, match=said):
        call(adam, params, adam.init(params))


def test_a_phase_is_asked_for() -> None:
    sam = optgen.chain(optgen.SAM(), optgen.Descent()).function("numpy")
    p = np.ones(3)
    with pytest.raises(ArgumentError, match="expected a phase, ascend or descend; got none"):
        sam(p, p, sam.init(p), 1)


def test_a_size_is_chosen_when_the_optimiser_is_made() -> None:
    p = np.ones((4, 4))
    galore = optgen.GaLore(rank=2).function("numpy")
    with pytest.raises(
        ArgumentError, match=r"rank is chosen when the optimiser is made\n *hint: make one: GaLore\(rank"
    ):
        galore(p, p, galore.init(p), 1, {"rank": 3})
