"""Splits of named arrays: the bits of an optimiser for each line, all lines or none, states, files, copies."""

from __future__ import annotations

import copy
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import optgen
from optgen import ADAM, ClipGlobalNorm, Descent, Lion, Momentum, PolyakSGD, Prodigy, ScheduleFreeSGD, chain, split
from optgen.errors import ArgumentError, ArrayError, HyperparameterError, OverlapError, StateError

SHAPES = {"W": (3, 4), "V": (2, 3), "b": (3,), "c": (2,)}


#: A rule that takes a number and arrays, with names that may be written in Greek.
TOLD = """
name = "Told"
[inputs]
rho = { extent = "step" }
kappa = { extent = "element" }
[update]
formulas = "delta = rho*g + kappa"
"""


def arrays(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def lines() -> dict[str, Any]:
    """Two rules, one with a state of all parameters together; and one parameter apart, by its name."""
    return {"matrices": Lion(0.01), "rest": Prodigy(), "last": Momentum(0.1), "last_names": "c"}


def begun(steps: int = 3) -> tuple[Any, dict[str, Any]]:
    params = arrays()
    opt = split(params, **lines())
    follow(opt, params, 0, steps)
    return opt, params


def follow(opt: Any, params: dict[str, Any], first: int, last: int) -> None:
    for t in range(first, last):
        assert opt.step(params, arrays(1 + t))


def expected(steps: int) -> dict[str, Any]:
    """The parameters after as many steps of an optimiser for each line."""
    params, made = arrays(), lines()
    for t in range(steps):
        gs = arrays(1 + t)
        for line, names in (("matrices", "WV"), ("rest", "b"), ("last", "c")):
            made[line].step([params[name] for name in names], [gs[name] for name in names])
    return params


def same(params: dict[str, Any], others: dict[str, Any]) -> bool:
    return all(np.array_equal(params[name], others[name]) for name in SHAPES)


def test_a_split_steps_as_an_optimiser_for_each_line() -> None:
    opt, params = begun(5)
    assert same(params, expected(5))
    assert opt.lines == {"matrices": ("W", "V"), "rest": ("b",), "last": ("c",)}
    assert opt.state(params["c"])["t"] == 5
    assert opt["matrices"].state(params["W"])["t"] == 5


def test_a_step_takes_mappings_and_sequences_in_any_order() -> None:
    opt, params = begun(0)
    names = ["c", "W", "b", "V"]
    for t in range(3):
        gs = arrays(1 + t)
        if t == 1:
            opt.step([params[name] for name in names], (gs[name] for name in names))
        else:
            opt.step(params, {name: gs[name] for name in reversed(gs)})
    assert same(params, expected(3))
    before = params["W"].copy()
    opt.step([params["b"], params["c"]], [gs["b"], gs["c"]])  # and some of them
    assert np.array_equal(params["W"], before)


def test_training_steps_a_split() -> None:
    W, b = optgen.param(np.ones((2, 3))), optgen.param(np.zeros(2))
    opt = split({"W": W, "b": b}, matrices=Descent(0.1), rest=ADAM(0.1))
    optgen.train(lambda x: np.sum((W @ x + b) ** 2), optgen.Params([b, W]), [np.ones(3)] * 20, opt)
    assert np.all(np.abs(W.data) < 1)
    assert opt.state(b)["t"] == 20


@pytest.mark.parametrize(
    "fault",
    [{"b": np.zeros(4, np.float32)}, {"c": np.zeros(2)}, {"V": None}],
    ids=["a line in the middle", "the last one", "the first one"],
)
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("backend", ["kernel", "interpreter"])
def test_a_step_that_one_line_refuses_has_touched_nothing(fault: dict[str, Any], steps: int, backend: str) -> None:
    params = arrays()
    made = {"matrices": Lion(0.01, backend=backend), "rest": Prodigy(backend=backend), "last": Momentum(0.1)}
    opt = split(params, **made, last_names="c")
    follow(opt, params, 0, steps)
    before, states = {name: p.copy() for name, p in params.items()}, pickle.dumps(opt.state_dict())
    with pytest.raises(ArrayError, match=r"^the line "):
        opt.step(params, arrays(1) | fault)
    assert same(params, before)
    assert pickle.dumps(opt.state_dict()) == states
    follow(opt, params, steps, 3)
    assert same(params, expected(3))


def test_a_schedule_is_called_once_a_step_and_refuses_all_lines() -> None:
    calls: list[int] = []

    def rate(t: int) -> float:
        calls.append(t)
        return 0.1 if t < 3 else -1.0

    params = arrays()
    opt = split(params, matrices=ADAM(0.1), rest=ADAM(rate))
    follow(opt, params, 0, 2)
    assert calls == [1, 2]
    before = {name: p.copy() for name, p in params.items()}
    with pytest.raises(HyperparameterError, match=r"the line rest: eta .*from its schedule in step 3"):
        opt.step(params, arrays())
    assert same(params, before)
    opt["rest"].eta = 0.1
    assert opt.step(params, arrays())


def test_an_interrupt_is_raised_when_all_lines_have_stepped() -> None:
    def rate(t: int) -> float:
        signal.raise_signal(signal.SIGINT)
        return 0.01

    params = arrays()
    opt = split(params, **(lines() | {"matrices": Lion(rate)}))
    for t in range(3):
        with pytest.raises(KeyboardInterrupt):
            opt.step(params, arrays(1 + t))
    assert same(params, expected(3))


def test_a_schedule_may_not_step_its_own_split() -> None:
    params = arrays()
    opt = split(params, matrices=Lion(lambda t: opt.step(params, params)), rest=ADAM())
    with pytest.raises(ArgumentError, match="between two steps, got a call from within one"):
        opt.step(params, arrays())


def test_each_line_is_given_the_inputs_that_it_takes() -> None:
    params, twins = arrays(), arrays()
    opt = split(params, matrices=PolyakSGD(), rest=optgen.Sophia(0.1))
    alone, other = PolyakSGD(), optgen.Sophia(0.1)
    gs, hessian = arrays(1), arrays(2)
    opt.step(params, gs, loss=2.0, hessian=hessian)
    alone.step([twins["W"], twins["V"]], [gs["W"], gs["V"]], loss=2.0)
    other.step([twins["b"], twins["c"]], [gs["b"], gs["c"]], hessian=[hessian["b"], hessian["c"]])
    assert same(params, twins)
    with pytest.raises(ArgumentError, match=r"the line matrices: .*loss"):
        opt.step(params, gs, hessian=hessian)
    with pytest.raises(ArgumentError, match="got 'lss', which none does"):
        opt.step(params, gs, loss=1.0, hessian=hessian, lss=1.0)
    assert opt.step(params, gs, loss=1.0, hessian=None)  # in its second step Sophia does not read it
    with pytest.raises(ArgumentError, match=r"expected the input 'loss'"):
        opt.step(params, gs, loss=None, hessian=hessian)
    with pytest.raises(ArgumentError, match="got 'lss', which none does"):
        opt.step(params, gs, loss=1.0, lss=None)
    with pytest.raises(ArrayError, match=r"expected a sequence or mapping of hessian, got an array of shape \(3,\)"):
        opt.step(params, gs, loss=1.0, hessian=np.ones(3))


def test_inputs_are_taken_in_any_spelling(tmp_path: Path) -> None:
    (tmp_path / "told.toml").write_text(TOLD)
    params, twins = arrays(), arrays()
    opt, other = (split(own, rest=optgen.load(tmp_path / "told.toml")()) for own in (params, twins))
    opt.step(params, arrays(1), ρ=0.5, κ=arrays(2))
    other.step(twins, arrays(1), rho=0.5, kappa=arrays(2))
    assert same(params, twins)
    assert not same(params, arrays())


def test_a_line_may_be_a_chain_whose_norm_is_of_the_line() -> None:
    params, twins = arrays(), arrays()
    opt = split(params, matrices=chain(ClipGlobalNorm(0.1), Descent(1.0)), rest=Descent(0.1))
    opt.step(params, arrays(1))
    chain(ClipGlobalNorm(0.1), Descent(1.0)).step([twins["W"], twins["V"]], [arrays(1)["W"], arrays(1)["V"]])
    assert np.array_equal(params["W"], twins["W"])


def test_states_of_all_parameters_go_by_their_line() -> None:
    params = arrays()
    opt = split(params, matrices=ADAM(), rest=chain(optgen.LossScale(), Descent(1.0)))
    assert opt.state() == {"rest/scale": 65536, "rest/good": 0}
    opt.step(params, arrays(1))
    assert opt.state() == {"rest/scale": 65536, "rest/good": 1}


def test_reports_go_by_their_line() -> None:
    params, gs = arrays(), arrays(1)
    opt = split(params, matrices=optgen.LAMB(), rest=chain(ClipGlobalNorm(0.1), Descent(1.0)))
    opt.step(params, gs)
    norm = np.sqrt(np.sum(gs["b"] ** 2) + np.sum(gs["c"] ** 2))
    assert opt.report() == {"rest/clipglobalnorm/norm": pytest.approx(norm)}
    assert opt.report(params["W"]).keys() == {"trust_ratio"}


# ---- States ----


def resumed_by_state_dict(opt: Any, params: dict[str, Any], folder: Path) -> tuple[Any, dict[str, Any]]:
    theirs = {name: p.copy() for name, p in params.items()}
    made = split(theirs, **lines())
    made.load_state_dict(opt.state_dict())
    return made, theirs


def resumed_by_file(opt: Any, params: dict[str, Any], folder: Path) -> tuple[Any, dict[str, Any]]:
    pytest.importorskip("safetensors")
    opt.save(folder / "run.safetensors")
    theirs = arrays(9)
    made = split(theirs, **lines())
    made.load(folder / "run.safetensors")
    return made, theirs


RESUMES: dict[str, Any] = {
    "state dict": resumed_by_state_dict,
    "file": resumed_by_file,
    "pickle": lambda opt, params, folder: pickle.loads(pickle.dumps((opt, params))),
    "deepcopy": lambda opt, params, folder: copy.deepcopy((opt, params)),
}


@pytest.mark.parametrize("way", RESUMES)
@pytest.mark.parametrize("steps", [0, 3])
def test_a_resumed_run_has_the_same_bits(way: str, steps: int, tmp_path: Path) -> None:
    opt, params = begun(steps)
    made, theirs = RESUMES[way](opt, params, tmp_path)
    assert repr(made) == repr(opt)
    follow(made, theirs, steps, 6)
    follow(opt, params, steps, 6)
    assert same(theirs, expected(6))
    assert same(params, expected(6))


def test_a_copy_steps_the_same_parameters_with_states_of_its_own() -> None:
    opt, params = begun()
    twin = copy.copy(opt)
    twin["last"].eta = 0.5
    twin.step(params, arrays(9))
    assert (opt["last"].eta, opt.state(params["W"])["t"], twin.state(params["W"])["t"]) == (0.1, 3, 4)


def test_states_are_set_by_hand() -> None:
    opt, params = begun()
    opt.set_state(params["c"], t=7)
    assert opt.state(params["c"])["t"] == 7
    with pytest.raises(ArrayError, match="parameter 0: expected one of this split, got another array"):
        opt.set_state(np.zeros(2), t=7)


def renamed(saved: dict[str, Any]) -> dict[str, Any]:
    return saved | {"parameters": {"X" if name == "W" else name: x for name, x in saved["parameters"].items()}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: 3, r"expected what state_dict\(\) of a split gives, .* got int"),
        (lambda saved: ADAM().state_dict(), "expected the rule of the lines matrices, rest, last, got 'ADAM'"),
        (
            lambda saved: saved | {"rule": saved["rule"] | {"rest": "ADAM"}},
            "the line rest: expected a state of Prodigy",
        ),
        (lambda saved: saved | {"flags": {}}, "expected the flags of the lines .* got none"),
        (renamed, r"expected parameters among W, V, b, c, got .*X"),
        (lambda saved: saved | {"parameters": [1]}, "expected parameters among"),
        (lambda saved: saved | {"group": {3: 1}}, "expected states of the lines as LINE/STATE"),
        (lambda saved: saved | {"group": {}}, "the line rest: expected the states .* of the group, got none"),
        (
            lambda saved: saved | {"parameters": saved["parameters"] | {"c": saved["parameters"]["b"]}},
            "the line last: saved parameter 0: expected the states",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change: Any, message: str) -> None:
    opt, _ = begun()
    before = pickle.dumps(opt.state_dict())
    with pytest.raises(StateError, match=message):
        opt.load_state_dict(change(begun(2)[0].state_dict()))
    assert pickle.dumps(opt.state_dict()) == before


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    opt, params = begun()
    alone = ADAM()
    alone.save(tmp_path / "alone", params)
    with pytest.raises(StateError, match=r"alone: expected the rule of the lines"):
        opt.load(tmp_path / "alone")
    opt.save(tmp_path / "split")
    with pytest.raises(StateError, match=r"expected a state of ADAM, got"):
        alone.load(tmp_path / "split", params)


def test_evaluation_is_of_all_lines() -> None:
    params = arrays()
    opt = split(params, matrices=ScheduleFreeSGD(0.1), rest=ADAM())
    follow(opt, params, 0, 3)
    trained = {name: p.copy() for name, p in params.items()}
    opt.eval()
    assert not np.array_equal(params["W"], trained["W"])
    assert np.array_equal(params["b"], trained["b"])
    with pytest.raises(ArgumentError, match="in training mode, got evaluation mode"):
        opt.step(params, arrays())
    with pytest.raises(ArgumentError, match="in training mode, got evaluation mode"):
        opt.save("nowhere")
    opt.train()
    assert same(params, trained)


def test_a_file_is_not_to_blame_for_evaluation(tmp_path: Path) -> None:
    params = arrays()
    opt = split(params, matrices=ScheduleFreeSGD(0.1), rest=ADAM())
    follow(opt, params, 0, 2)
    opt.save(tmp_path / "kept")
    opt.eval()
    for path in (tmp_path / "kept", tmp_path / "absent"):
        with pytest.raises(ArgumentError, match=r"^expected to load a state in training mode, got evaluation mode"):
            opt.load(path)


def test_evaluation_that_fails_half_way_gives_parameters_back(monkeypatch: pytest.MonkeyPatch) -> None:
    params = arrays()
    opt = split(params, matrices=ScheduleFreeSGD(0.1), rest=ADAM())
    follow(opt, params, 0, 3)
    trained = {name: p.copy() for name, p in params.items()}

    def fail(self: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(ADAM, "eval", fail)
    with pytest.raises(MemoryError):
        opt.eval()
    assert same(params, trained)
    follow(opt, params, 3, 4)


# ---- What is shown, and what is refused ----


def test_it_shows_who_steps_what() -> None:
    opt, _ = begun(0)
    first, *told, last = repr(opt).splitlines()
    assert (first, last) == ("ArraySplit(", ")")
    assert told[0].endswith("), 2 parameters of 18 values: W, V")
    assert told[1].startswith("  rest: Prodigy(eta=1.0, ")
    assert (list(opt), len(opt)) == (["matrices", "rest", "last"], 3)


def test_hyperparameters_are_those_of_lines() -> None:
    opt, _ = begun(0)
    with pytest.raises(AttributeError, match=r"no 'eta'; hyperparameters are of its lines: opt\['matrices'\]"):
        _ = opt.eta
    with pytest.raises(AttributeError):
        opt.eta = 0.1
    with pytest.raises(ArgumentError, match="expected a line among matrices, rest, last, got 'rets'"):
        opt["rets"]


def test_a_line_has_a_copy_of_its_optimiser() -> None:
    mine = Descent(0.1)
    opt = split(arrays(), matrices=mine, rest=mine)
    opt["matrices"].eta = 0.5
    assert (mine.eta, opt["rest"].eta) == (0.1, 0.1)


W = np.zeros((2, 2))


@pytest.mark.parametrize(
    ("params", "made", "message"),
    [
        ({}, {"rest": ADAM()}, "expected named parameters, got none"),
        (W, {"rest": ADAM()}, "expected parameters by name, got ndarray"),
        ([W], {"rest": ADAM()}, "expected named parameters, got ndarray in place 0"),
        ([("a", W), ("a", W.copy())], {"rest": ADAM()}, "expected one parameter of each name, got 'a' twice"),
        ({"a": W}, {"rest": ADAM}, "rest: expected an optimiser, got the class"),
        ({"a": W}, {"rest": 0.1}, "rest: expected an optimiser, got 0.1"),
        ({"a": W}, {"rest": chain(ClipGlobalNorm(1.0), ADAM())[1]}, "rest: expected an optimiser, got ADAM"),
    ],
)
def test_bad_input_is_refused(params: Any, made: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        split(params, **made)


def test_parameters_and_optimisers_that_cannot_be_are_refused() -> None:
    with pytest.raises(ArrayError, match="expected arrays apart in memory, got an overlap of 'a' and 'b'"):
        split({"a": W, "b": W}, rest=ADAM())
    with pytest.raises(ArrayError, match="overlap of 'a' and 'b'"):
        split({"a": W[:1], "b": W[0]}, matrices=ADAM(), rest=ADAM())
    with pytest.raises(ArrayError, match="parameter a: expected float32, float64, bfloat16 or float16"):
        split({"a": np.zeros(3, int), "b": W}, rest=ADAM())
    stepped = ADAM()
    p = np.zeros(3)
    stepped.step([p], [p + 1])
    with pytest.raises(StateError, match="has not stepped, got ADAM, which has"):
        split({"a": W}, rest=stepped)


def test_a_shape_that_a_rule_does_not_step_is_refused_at_once(tmp_path: Path) -> None:
    spec = tmp_path / "rows.toml"
    spec.write_text(
        'name = "Rows"\n[hyperparameters]\neta = { default = 0.1 }\n'
        "[update]\nformulas = '''\ndelta = eta*g/(1 + mean(abs(g), row))\n'''\n"
    )
    Rows = optgen.load(spec)
    with pytest.raises(ArrayError, match=r"the line rest, b: Rows: expected a matrix"):
        split(arrays(), rest=Rows())
    assert split(arrays(), matrices=Rows(), rest=ADAM()).lines["matrices"] == ("W", "V")


@pytest.mark.parametrize(
    ("params", "grads", "kind", "message"),
    [
        (lambda own: own | {"W": own["V"], "V": own["W"]}, None, ArgumentError, "the parameter 'W' under its name"),
        (lambda own: [np.zeros(3)], lambda own: [np.zeros(3)], ArrayError, "expected one of this split"),
        (lambda own: own["W"], None, ArrayError, "expected a sequence or mapping of parameters, got an array of shape"),
        (None, lambda own: {"W": own["W"]}, ArgumentError, "expected gradients of W, V, b, c, got those of W"),
        (None, lambda own: [own["W"]], ArrayError, "expected gradients of 4 parameters, got 1"),
    ],
)
def test_a_bad_step_is_refused(params: Any, grads: Any, kind: Any, message: str) -> None:
    opt, own = begun(0)
    with pytest.raises(kind, match=message):
        opt.step(params(own) if params else own, grads(own) if grads else arrays(1))


@pytest.mark.parametrize("first", ["b", "W"])
def test_a_gradient_in_a_parameter_of_another_line_is_refused(first: str) -> None:
    params = {"W": np.ones((2, 2)), "b": np.ones(2)}
    opt = split(params, first=Descent(0.1), first_names=first, rest=Descent(0.5))
    before = {name: p.copy() for name, p in params.items()}
    with pytest.raises(OverlapError, match="an overlap of parameter 0 and gradient 1"):
        opt.step(params, {"W": np.ones((2, 2)), "b": params["W"].reshape(-1)[:2]})
    for name, p in params.items():
        assert np.array_equal(p, before[name])
    arena = np.ones(6)  # views that are apart are stepped
    assert opt.step(params, {"W": arena[:4].reshape(2, 2), "b": arena[4:]})
