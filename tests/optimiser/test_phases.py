"""Steps of several phases in NumPy: one call each, which says what comes next."""

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
from optgen.errors import ArgumentError, ArrayError, OptgenError, StateError
from optgen.optimiser import classes
from optgen.optimiser.base import engine_of

BACKENDS = ["kernel", "interpreter"]
#: Three phases with reductions of all kinds, states of all extents, flags, matrices, a draw and an input.
THREE = """
name = "Three"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
[flags]
far = { default = true }
[inputs]
loss = { extent = "step" }
[state]
start = { init = "p" }
m = { init = 0, when = "far" }
r = { init = 1, extent = "row", when = "matrix" }
d = { init = 1, extent = "group" }
n = { init = 0, extent = "tensor" }
[update.look]
formulas = '''
start = p
d     = max(d, norm(g, group)/t)
p     = p + eta*g/d + 1e-3*normal()
'''
[update.leap]
formulas = '''
r     = r/2 + mean(abs(g), row)
n     = n + norm(g)
delta = eta*(g/r if matrix else g)*loss
'''
[update.land]
formulas = '''
m     = m/2 + g
p     = start + 1e-3*(p - start)
delta = eta*(m if far else g)/(1 + n/t)
'''
"""
#: Elementwise, and of one extent.
TWO = """
name = "Two"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
[state]
start = { init = "p" }
[update.a]
formulas = '''
start = p
delta = eta*g
'''
[update.b]
formulas = 'p = start - eta*g/t'
[evaluation]
formulas = 'p = start'
"""


def made(text: str = TWO, **given: Any) -> Any:
    return classes.module_class(driver.compile_text(text, "test.toml"))(**given)


def chained(**given: Any) -> Any:
    """A part before that keeps something, the phases, and two parts behind."""
    parts = optgen.Grokfast(), optgen.SAM(0.1), optgen.ADAM(0.1), optgen.EMA(0.5)
    return optgen.chain(*parts, **given)


MADE: dict[str, Callable[..., Any]] = {
    "Three": lambda **given: made(THREE, **given),
    "Three, near": lambda **given: made(THREE, far=False, **given),
    "a chain": chained,
    "AccumGrad behind": lambda **given: optgen.chain(optgen.SAM(0.1), optgen.AccumGrad(2), optgen.SGD(0.1), **given),
}


def arrays(seed: int, scale: float = 1.0) -> list[Any]:
    rng = np.random.default_rng(seed)
    some = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 5), (7,), (40, 33))]
    return [scale * x for x in [*some, rng.normal(size=6)]]


def go_on(opt: Any, ps: list[Any], first: int, last: int, grads: Callable[[int], list[Any]] = arrays) -> None:
    """The phases of these numbers, counted over all steps."""
    inputs = {"loss": 0.5} if opt.rule.inputs else {}
    for number in range(first, last):
        opt.step(ps, grads(100 + number), **inputs)


def bits(opt: Any, ps: list[Any]) -> list[dict[str, bytes]]:
    return [{n: np.asarray(x).tobytes() for n, x in ({"p": p} | opt.state(p)).items()} for p in ps]


# ---- Bits ----


@pytest.mark.parametrize("name", MADE)
def test_the_kernel_equals_the_interpreter_in_every_phase(name: str) -> None:
    opts = [MADE[name](backend=backend) for backend in BACKENDS]
    worlds = [arrays(0), arrays(0)]
    for number in range(9):
        for opt, ps in zip(opts, worlds, strict=True):
            go_on(opt, ps, number, number + 1)
        assert opts[0].phase == opts[1].phase
        assert bits(opts[0], worlds[0]) == bits(opts[1], worlds[1]), number


def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("OPTGEN_NUM_THREADS", threads)
        opt, ps = MADE["Three"](), [np.linspace(-1, 1, 300_000), np.ones((500, 400), np.float32)]
        go_on(opt, ps, 0, 6, lambda number, ps=ps: [np.sin(number * (1 + p)) for p in ps])
        found.append(bits(opt, ps))
    assert found[0] == found[1]


def test_a_step_is_what_the_formulas_say() -> None:
    opt, p = made(eta=0.5), np.array([1.0, 2.0])
    for t in range(1, 4):
        before = p.copy()
        assert (opt.phase, opt.state(p)["t"]) == ("a", t - 1)
        assert opt.step([p], [np.array([2.0, 4.0])]) == "b"
        assert p.tolist() == (before - [1.0, 2.0]).tolist()
        assert (opt.phase, opt.state(p)["t"]) == ("b", t - 1)
        assert opt.step([p], [np.array([1.0, 3.0])], phase="b") == "a"
        np.testing.assert_allclose(p, before - 0.5 * np.array([1.0, 3.0]) / t)
        assert opt.state(p)["t"] == t


def test_a_plan_serves_each_phase_and_counts_are_kept_together() -> None:
    opt, ps = MADE["Three"](), arrays(0)
    go_on(opt, ps, 0, 9)
    plans = [plan for _, plan in engine_of(opt).engine.plans._plans.values()]
    assert len(plans) == 3
    assert len({id(plan.states) for plan in plans}) == 1
    assert [opt.state(p)["t"] for p in ps] == [3] * 4


def test_parameters_may_be_new_views_in_every_phase() -> None:
    opt, plain, ps, qs = made(), made(), arrays(0), arrays(0)
    for number in range(6):
        opt.step([p[...] for p in ps], arrays(number))
        plain.step(qs, arrays(number))
    assert bits(opt, ps) == bits(plain, qs)


# ---- Chains ----


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_behind_run_in_the_last_phase_only(backend: str) -> None:
    opt, p = optgen.chain(optgen.SAM(0.1), optgen.ADAM(0.1), optgen.EMA(0.5), backend=backend), np.array([3.0, 4.0])
    alone, q = optgen.chain(optgen.ADAM(0.1), optgen.EMA(0.5), backend=backend), p.copy()
    for number in range(4):
        before = {name: np.array(x) for name, x in opt.state(p).items()}
        opt.step([p], [np.array([0.6, 0.8])])
        np.testing.assert_allclose(p, q + 0.1 * np.array([0.6, 0.8]), rtol=1e-12)
        after = opt.state(p)
        assert all((after[name] == before[name]).all() for name in ("m", "v", "avg") if number)
        g = np.array([1.0, -0.5]) * number
        opt.step([p], [g])
        alone.step([q], [g])
        assert p.tobytes() == q.tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_before_run_in_every_phase(backend: str) -> None:
    opt = optgen.chain(optgen.ClipGlobalNorm(1.0, eps=0.0), optgen.SAM(0.1), optgen.Descent(0.5), backend=backend)
    p = np.zeros(2)
    opt.step([p], [np.array([30.0, 40.0])])
    np.testing.assert_allclose(p, [0.06, 0.08])
    opt.step([p], [np.array([-3.0, 4.0])])
    np.testing.assert_allclose(p, [0.3, -0.4])


def test_two_parts_with_phases_are_refused() -> None:
    message = "expected one part with phases in a chain, got part 0, SAM and part 1, BSAM"
    with pytest.raises(ArgumentError, match=message):
        optgen.chain(optgen.SAM(), optgen.BSAM())


def test_a_part_that_holds_back_stands_behind_phases() -> None:
    with pytest.raises(ArgumentError, match=r"AccumGrad holds back .* SAM has a state of all .*phase"):
        optgen.chain(optgen.AccumGrad(2), optgen.SAM(), optgen.SGD())


def test_a_state_called_phase_makes_way() -> None:
    other = 'name = "Other"\n[state]\nphase = { init = 0 }\n[update]\n'
    other += "formulas = '''\nphase = phase + 1\ndelta = phase*g\n'''"
    opt, p = optgen.chain(optgen.SAM(), made(other)), np.ones(3)
    opt.step([p], [np.ones(3)])
    assert (opt.phase, opt.state(p)["phase"], opt.state(p)["other_phase"].tolist()) == ("descend", 1, [0, 0, 0])


def test_a_phase_that_is_not_accepted_comes_again() -> None:
    opt, p = optgen.chain(optgen.Unscale(), optgen.SAM(0.1), optgen.Descent(0.5)), np.ones(2)
    good, bad = np.array([3.0, 4.0]), np.array([np.inf, 1.0])
    for phase, following in (("ascend", "descend"), ("descend", "ascend")):
        before = bits(opt, [p])
        assert opt.step([p], [bad.copy()]) is False
        assert (bits(opt, [p]), opt.phase) == (before, phase)
        assert opt.step([p], [good.copy()]) == following
    assert opt.state(p)["t"] == 1


# ---- Going on ----


def by_state_dict(opt: Any, ps: list[Any], fresh: Any, path: Path) -> tuple[Any, list[Any]]:
    fresh.load_state_dict(opt.state_dict())
    return fresh, [p.copy() for p in ps]


def by_state_dict_for(opt: Any, ps: list[Any], fresh: Any, path: Path) -> tuple[Any, list[Any]]:
    qs = [p.copy() for p in ps]
    fresh.load_state_dict(opt.state_dict(), qs)
    return fresh, qs


def by_pickle(opt: Any, ps: list[Any], fresh: Any, path: Path) -> tuple[Any, list[Any]]:
    return pickle.loads(pickle.dumps((opt, ps)))


def by_copy(opt: Any, ps: list[Any], fresh: Any, path: Path) -> tuple[Any, list[Any]]:
    return copy.copy(opt), ps


def by_file(opt: Any, ps: list[Any], fresh: Any, path: Path) -> tuple[Any, list[Any]]:
    pytest.importorskip("safetensors")
    opt.save(path / "run.safetensors", ps)
    qs = [np.zeros_like(p) for p in ps]
    fresh.load(path / "run.safetensors", qs)
    return fresh, qs


@pytest.mark.parametrize("way", [by_state_dict, by_state_dict_for, by_pickle, by_copy, by_file])
@pytest.mark.parametrize("phases", [1, 2, 3])
def test_a_step_goes_on_from_between_its_phases(
    way: Callable[..., tuple[Any, list[Any]]], phases: int, tmp_path: Path
) -> None:
    whole, qs = chained(), arrays(0)
    go_on(whole, qs, 0, phases + 4)
    opt, ps = chained(), arrays(0)
    go_on(opt, ps, 0, phases)
    phase = opt.phase
    opt, ps = way(opt, ps, chained(), tmp_path)
    assert opt.phase == phase
    go_on(opt, ps, phases, phases + 4)
    assert bits(opt, ps) == bits(whole, qs)


def test_a_phase_is_given_up_by_hand() -> None:
    opt, p = made(), np.ones(3)
    opt.step([p], [np.ones(3)])
    p[...] = opt.state(p)["start"]
    opt.set_state(p, phase=0)
    assert opt.phase == "a"
    assert opt.step([p], [np.ones(3)]) == "b"


# ---- Bad input ----


def other_phase(opt: Any, ps: Sequence[Any]) -> None:
    opt.step(ps, [np.ones_like(p) for p in ps], phase="ascend")


def no_phase(opt: Any, ps: Sequence[Any]) -> None:
    opt.step(ps, [np.ones_like(p) for p in ps], phase="decend")


def fewer(opt: Any, ps: Sequence[Any]) -> None:
    opt.step(ps[:1], [np.ones_like(p) for p in ps[:1]])


def more(opt: Any, ps: Sequence[Any]) -> None:
    opt.step([*ps, np.ones(9)], [*(np.ones_like(p) for p in ps), np.ones(9)])


def another(opt: Any, ps: Sequence[Any]) -> None:
    opt.step([ps[0], np.ones(4)], [np.ones_like(ps[0]), np.ones(4)])


def evaluate(opt: Any, ps: Sequence[Any]) -> None:
    opt.eval()


def another_number(opt: Any, ps: Sequence[Any]) -> None:
    opt.set_state(ps[0], phase=2)


def damaged(opt: Any, ps: Sequence[Any]) -> None:
    saved = opt.state_dict()
    saved["group"]["phase"] = np.array(0.5)
    opt.load_state_dict(saved)


BAD: list[tuple[Callable[[Any, Sequence[Any]], None], type[OptgenError], str, str]] = [
    (other_phase, ArgumentError, "expected the phase 'descend', which comes next, got 'ascend'", "phase='descend'"),
    (no_phase, ArgumentError, "expected one of the phases ascend, descend, got 'decend'", ""),
    (fewer, ArrayError, "expected the 2 of before, got all but 1", ""),
    (more, ArrayError, "expected the parameters of the phase 'ascend' in 'descend' too, got others", "no new ones"),
    (another, ArrayError, "expected the 2 of before, got all but 1", ""),
    (evaluate, ArgumentError, "expected to evaluate between two steps, got a call before the phase 'descend'", "step"),
    (another_number, StateError, "expected the number of a phase, from 0 to 1, as phase, got 2", ""),
    (damaged, StateError, "expected the number of a phase, from 0 to 1, as phase, got 0.5", "damaged"),
]


@pytest.mark.parametrize("begun", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("fault", "error", "message", "hint"), BAD, ids=[row[0].__name__ for row in BAD])
def test_bad_input_between_phases_touches_nothing(
    fault: Callable[..., None], error: type[OptgenError], message: str, hint: str, backend: str, begun: bool
) -> None:
    opt = optgen.chain(optgen.SAM(0.1), optgen.ADAM(0.1), optgen.EMA(0.5), backend=backend)
    ps = [np.ones((2, 3)), np.ones(4)]
    for _ in range(1 + 2 * begun):
        opt.step(ps, [np.ones_like(p) for p in ps])
    before = bits(opt, ps)
    with pytest.raises(error, match=message) as caught:
        fault(opt, ps)
    assert hint in str(caught.value)
    assert (bits(opt, ps), opt.phase) == (before, "descend")
    assert opt.step(ps, [np.ones_like(p) for p in ps]) == "ascend"


def test_a_phase_of_a_rule_that_has_none_is_refused() -> None:
    opt, p = optgen.ADAM(), np.ones(3)
    assert opt.phase is None
    with pytest.raises(ArgumentError, match="ADAM: expected no phase, since its steps have but one, got 'ascend'"):
        opt.step([p], [np.ones(3)], phase="ascend")
    assert (p == 1).all()


def test_a_part_of_a_chain_has_no_phase_of_its_own() -> None:
    with pytest.raises(ArgumentError, match="part 0 of a chain"):
        _ = chained()[0].phase


def test_a_faulty_step_leaves_the_phase() -> None:
    opt, p = made(), np.ones(3)
    with pytest.raises(ArrayError, match="shape"):
        opt.step([p], [np.ones(4)])
    assert opt.phase == "a"
    opt.step([p], [np.ones(3)])
    with pytest.raises(ArrayError, match="shape"):
        opt.step([p], [np.ones(4)])
    assert opt.phase == "b"


# ---- Training ----


def test_train_takes_the_gradient_before_each_phase() -> None:
    pytest.importorskip("autograd")
    w, points = optgen.param(np.array([1.0, 2.0])), []

    def loss() -> Any:
        points.append(np.array(w.data))
        return (w * w).sum()

    steps: list[int] = []
    opt = optgen.chain(optgen.SAM(0.5), optgen.Descent(0.25))
    optgen.train(loss, w, [()] * 3, opt, cb=lambda: steps.append(len(points)))
    assert steps == [2, 4, 6]
    np.testing.assert_allclose(points[1], np.array([1.0, 2.0]) * (1 + 0.5 / np.sqrt(5)))
    np.testing.assert_allclose(points[2], np.array([1.0, 2.0]) - 0.5 * points[1])
    assert opt.phase == "ascend"


def test_train_ends_a_step_that_is_not_accepted() -> None:
    pytest.importorskip("autograd")
    w, calls = optgen.param(np.array([1.0])), []

    def loss() -> Any:
        calls.append(1)
        return (w * (np.inf if len(calls) == 2 else 1.0)).sum()

    opt = optgen.chain(optgen.Unscale(), optgen.SAM(0.5), optgen.Descent(0.25))
    optgen.train(loss, w, [()], opt)
    assert (len(calls), opt.phase) == (2, "descend")
    optgen.train(loss, w, [()], opt)
    assert (len(calls), opt.phase) == (3, "ascend")


def test_a_split_takes_rules_of_one_phase() -> None:
    message = (
        "split: rest: expected a rule whose step takes one gradient, got ExtraGradient with the phases extrapolate,"
    )
    with pytest.raises(ArgumentError, match=message):
        optgen.split({"W": np.ones((2, 2))}, rest=optgen.ExtraGradient())
