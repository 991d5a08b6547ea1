"""Inputs of a step in NumPy: arrays like the gradient, and numbers, by name."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import optgen
from optgen.compiler import driver
from optgen.errors import ArgumentError, ArrayError, OverlapError
from optgen.optimiser import classes

#: Two arrays and a number, with reductions, so that each kind of value is made of each kind of input.
BOTH = """
name = "Both"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
[inputs]
hessian = { doc = "curvature" }
loss    = { extent = "step", doc = "what falls" }
other   = {}
[state]
m = { init = 0 }
n = { init = 0, extent = "tensor" }
[update]
formulas = '''
n     = n + loss*sum(hessian)
m     = m/2 + (g - other)
delta = eta*loss*m/(1 + abs(hessian)) + 1e-3*n
'''
"""
#: A value of all parameters, made of inputs.
GROUP = """
name = "Group"
[inputs]
hessian = {}
loss = { extent = "step" }
[state]
d = { init = 0, extent = "group" }
[update]
formulas = '''
d     = d + loss*norm(hessian, group)
delta = g/(1 + d)
'''
"""
BACKENDS = ["kernel", "interpreter"]


def made(text: str, **given: Any) -> Any:
    return classes.module_class(driver.compile_text(text, "test.toml"))(**given)


def arrays(seed: int, dtype: Any = np.float32) -> list[Any]:
    rng = np.random.default_rng(seed)
    some = [rng.normal(size=shape).astype(dtype) for shape in ((3, 5), (7,), (40, 33))]
    return [*some, rng.normal(size=6)]


def bits(opt: Any, ps: list[Any]) -> list[dict[str, bytes]]:
    return [{n: np.asarray(x).tobytes() for n, x in ({"p": p} | opt.state(p)).items()} for p in ps]


@pytest.mark.parametrize("text", [BOTH, GROUP], ids=["Both", "Group"])
def test_the_kernel_equals_the_interpreter(text: str) -> None:
    opts = [made(text, backend=backend) for backend in BACKENDS]
    worlds = [arrays(0), arrays(0)]
    for t in range(5):
        for opt, ps in zip(opts, worlds, strict=True):
            known = {"hessian": arrays(10 + t), "loss": 0.3 + t, "other": arrays(20 + t)}
            opt.step(ps, arrays(30 + t), **{each.name: known[each.name] for each in opt.rule.inputs})
        assert bits(opts[0], worlds[0]) == bits(opts[1], worlds[1])


def test_a_step_is_what_the_formulas_say() -> None:
    p = np.array([1.0, 2.0])
    opt = made(BOTH)
    opt.step([p], [np.array([3.0, 1.0])], hessian=[np.array([1.0, -3.0])], loss=2, other=[np.array([1.0, 1.0])])
    n = 2 * (1.0 - 3.0)
    np.testing.assert_allclose(p, [1 - 0.2 * 2 / 2 - 1e-3 * n, 2 - 0.0 - 1e-3 * n])


@pytest.mark.parametrize("loss", [2, 2.0, np.float32(2), np.array(2.0), np.int64(2)], ids=lambda x: type(x).__name__)
def test_a_number_may_be_of_any_kind(loss: Any) -> None:
    p, q = np.ones(3), np.ones(3)
    optgen.PolyakSGD().step([p], [np.ones(3)], loss=loss)
    optgen.PolyakSGD().step([q], [np.ones(3)], loss=2.0)
    assert p.tobytes() == q.tobytes()
    assert (p < 1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_may_be_other_arrays_in_each_step_and_lie_in_any_way(backend: str) -> None:
    opt, plain = optgen.Sophia(k=1, backend=backend), optgen.Sophia(k=1, backend=backend)
    p, q = np.ones((4, 6)), np.ones((4, 6))
    rng = np.random.default_rng(0)
    for t in range(6):
        g, h = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
        plain.step([q], [g], hessian=[h.copy()])
        there = np.asfortranarray(h) if t % 2 else h
        opt.step([p], [g.copy()], hessian=(x for x in [there]))
        assert p.tobytes() == q.tobytes()


def test_a_step_keeps_no_input_alive() -> None:
    opt, p = optgen.Sophia(), np.ones(100)
    for _ in range(3):
        h, g = np.ones(100), np.ones(100)
        opt.step([p], [g], hessian=[h])
        gone = weakref.ref(h), weakref.ref(g)
        del h, g
        gc.collect()
        assert [ref() for ref in gone] == [None, None]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_input_may_be_the_gradient(backend: str) -> None:
    p, q, g = np.ones(5), np.ones(5), np.arange(5.0)
    optgen.AdaHessian(backend=backend).step([p], [g], hessian=[g])
    optgen.AdaHessian(backend=backend).step([q], [g], hessian=[g.copy()])
    assert p.tobytes() == q.tobytes()


# ---- Chains ----


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_of_a_chain_share_an_input(backend: str) -> None:
    """A gradient that the first part leaves as it is: the second step is the first one's, and so on."""
    opt = optgen.chain(optgen.ClipGlobalNorm(1e6), optgen.Sophia(), optgen.EMA(), backend=backend)
    alone, p, q = optgen.Sophia(backend=backend), np.ones((3, 4)), np.ones((3, 4))
    for t in range(4):
        g, h = arrays(t, np.float64)[0][:, :4], arrays(9 + t, np.float64)[0][:, :4]
        opt.step([p], [g], hessian=[h])
        alone.step([q], [g], hessian=[h])
    np.testing.assert_allclose(p, q, rtol=1e-15)


def test_inputs_of_one_name_are_one_input() -> None:
    opt = optgen.chain(optgen.PolyakSGD(), optgen.ALIG())
    assert [each.name for each in opt.rule.inputs] == ["loss"]
    p = np.ones(3)
    opt.step([p], [np.ones(3)], loss=1.0)
    first = 1 / 3  # the step of the first, which is the gradient of the second
    np.testing.assert_allclose(p, 1 - min(1 / (3 * first**2 + 1e-5), 0.1) * first)


def test_an_input_keeps_its_name_in_a_chain() -> None:
    """Where another part has a state or hyperparameter of that name, that one gets the name of its part."""
    other = 'name = "Other"\n[hyperparameters]\nloss = { default = 0.5 }\n[state]\nhessian = { init = 0 }\n'
    other += "[update]\nformulas = '''\nhessian = hessian + g\ndelta = loss*hessian\n'''"
    opt = optgen.chain(made(other), made(GROUP))
    assert [each.name for each in opt.rule.inputs] == ["hessian", "loss"]
    p = np.ones(3)
    opt.step([p], [np.ones(3)], hessian=[np.zeros(3)], loss=1.0)
    assert set(opt.state(p)) == {"other_hessian", "d", "t"}
    assert (p == 0.5).all()
    assert opt[0].loss == 0.5


def test_a_chain_refuses_one_name_for_two_kinds_of_input() -> None:
    other = GROUP.replace('loss = { extent = "step" }', "loss = {}").replace("d + loss*", "d + norm(loss, group)*")
    with pytest.raises(ArgumentError, match="takes loss for one value") as caught:
        optgen.chain(made(other.replace('"Group"', '"Odd"')), optgen.PolyakSGD())
    assert "rename" in str(caught.value)


# ---- States ----


def test_a_checkpoint_holds_no_inputs() -> None:
    opt, p = optgen.Sophia(), np.ones(3)
    opt.step([p], [np.ones(3)], hessian=[np.ones(3)])
    saved = opt.state_dict()
    assert set(saved["parameters"][0]["state"]) == {"m", "h"}
    assert "inputs" not in saved
    again, q = optgen.Sophia(), p.copy()
    again.load_state_dict(saved)
    for which, x in ((opt, p), (again, q)):
        which.step([x], [np.full(3, 2.0)], hessian=[np.full(3, 0.5)])
    assert p.tobytes() == q.tobytes()


# ---- Bad input ----

G, H = [np.ones(3), np.ones(2)], [np.ones(3), np.ones(2)]
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "nothing": ({}, ArgumentError, r"Both: expected the input 'hessian' \(curvature\) in this step, got none"),
    "no number": ({"hessian": H, "other": H}, ArgumentError, r"expected the input 'loss' \(what falls\)"),
    "an unknown name": (
        {"hessian": H, "loss": 1.0, "other": H, "hesian": H}, ArgumentError,
        "Both: unknown input 'hesian'; did you mean 'hessian'",
    ),
    "too few arrays": (
        {"hessian": H[:1], "loss": 1.0, "other": H}, ArrayError,
        "Both: hessian: expected an array for each of 2 parameters, got 1",
    ),
    "an array for a list": (
        {"hessian": H[0], "loss": 1.0, "other": H}, ArrayError,
        r"hessian: expected a list of 2 arrays, got an array of shape \(3,\)\n  hint: hessian=\[hessian\]",
    ),
    "None for a list": ({"hessian": None, "loss": 1.0, "other": H}, ArgumentError, "expected the input 'hessian'"),
    "None for a number": ({"hessian": H, "loss": None, "other": H}, ArgumentError, "expected the input 'loss'"),
    "None for what is unknown": ({"hessian": H, "loss": 1.0, "other": H, "x": None}, ArgumentError, "unknown input"),
    "a number for a list": ({"hessian": 3, "loss": 1.0, "other": H}, ArrayError, "an array for each of 2 .* got 3"),
    "another shape": (
        {"hessian": [np.ones(3), np.ones(3)], "loss": 1.0, "other": H}, ArrayError,
        r"hessian 1: expected shape \(2,\), that of its parameter, got \(3,\)",
    ),
    "another dtype": (
        {"hessian": H, "loss": 1.0, "other": [np.ones(3), np.ones(2, np.float32)]}, ArrayError,
        "other 1: expected float64, the dtype of its parameter, got float32",
    ),
    "a list for an array": (
        {"hessian": [[1, 2, 3], np.ones(2)], "loss": 1.0, "other": H}, ArrayError, "hessian 0: expected a NumPy array",
    ),
    "None for an array": (
        {"hessian": [None, np.ones(2)], "loss": 1.0, "other": H}, ArrayError,
        "hessian 0: expected an array, got None\n.*leave out the",
    ),
    "a number that is text": ({"hessian": H, "loss": "1", "other": H}, ArgumentError, "loss: expected a number, g"),
    "a truth": ({"hessian": H, "loss": True, "other": H}, ArgumentError, "loss: expected a number, got True"),
    "several numbers": ({"hessian": H, "loss": np.ones(2), "other": H}, ArgumentError, "loss: expected a number"),
    "a complex number": ({"hessian": H, "loss": 1j, "other": H}, ArgumentError, "loss: expected a number, got 1j"),
    "NaN": ({"hessian": H, "loss": np.nan, "other": H}, ArgumentError, "Both: loss: expected a finite number, got nan"),
    "infinity": ({"hessian": H, "loss": -np.inf, "other": H}, ArgumentError, "expected a finite number, got -inf"),
    "a number beyond float64": ({"hessian": H, "loss": 10**400, "other": H}, ArgumentError, "expected a finite number"),
}  # fmt: skip


@pytest.mark.parametrize("begun", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", BAD)
def test_a_faulty_input_touches_nothing(what: str, backend: str, begun: bool) -> None:
    inputs, error, message = BAD[what]
    opt, ps = made(BOTH, backend=backend), [np.ones(3), np.ones(2)]
    if begun:
        opt.step(ps, G, hessian=H, loss=1.0, other=H)
    before = bits(opt, ps)
    with pytest.raises(error, match=message):
        opt.step(ps, G, **inputs)
    assert bits(opt, ps) == before
    opt.step(ps, G, hessian=H, loss=1.0, other=H)
    assert [opt.state(p)["t"] for p in ps] == [1 + begun] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_too_many_gradients_are_counted_beside_inputs(backend: str) -> None:
    opt = made(BOTH, backend=backend)
    with pytest.raises(ArrayError, match="expected a gradient for each of 2 parameters, got 3"):
        opt.step([np.ones(3), np.ones(2)], [*G, np.ones(1)], hessian=H, loss=1.0, other=H)


def test_an_input_in_the_memory_of_a_parameter_is_refused() -> None:
    opt, p = optgen.Sophia(), np.ones(6)
    with pytest.raises(OverlapError, match="an overlap of the parameter and an input of the step"):
        opt.step([p[:4]], [np.ones(4)], hessian=[p[2:]])
    opt.step([p], [np.ones(6)], hessian=[np.ones(6)])
    with pytest.raises(OverlapError, match="an overlap of the parameter and an input of the step"):
        opt.step([p], [np.ones(6)], hessian=[p])
    assert opt.state(p)["t"] == 1


def test_a_rule_without_inputs_takes_none() -> None:
    p = np.ones(3)
    with pytest.raises(ArgumentError, match="ADAM: unknown input 'loss'; its steps take none"):
        optgen.ADAM().step([p], [np.ones(3)], loss=1.0)
    assert (p == 1).all()


def test_a_part_of_a_chain_has_no_steps_with_inputs_either() -> None:
    opt = optgen.chain(optgen.PolyakSGD())
    with pytest.raises(ArgumentError, match="part 0 of a chain"):
        opt[0].step([np.ones(3)], [np.ones(3)], loss=1.0)


# ---- Inputs that not every step reads ----

#: An array and a number that are read in every third step; an array that is read where a state of the tensor says so.
SELDOM = """
name = "Seldom"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
k   = { default = 3, range = "[1, inf), whole" }
[inputs]
hessian = {}
loss    = { extent = "step" }
other   = {}
[state]
h = { init = 1 }
n = { init = 0, extent = "tensor" }
s = { init = 0, extent = "group" }
[update]
formulas = '''
due   = t % k == 1
often = max(hessian) > 0
h     = loss*hessian if due and often else h
s     = norm(hessian*h, group) if due else s/2
wild  = n >= 2
n     = 0 if wild else n + 1
delta = eta*g/(1 + abs(h)) + eta*(other if not (not wild) else g) + 1e-3*s
'''
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_goes_without_an_input_that_its_course_does_not_read(backend: str) -> None:
    ends = []
    for always in (True, False):
        opt, ps = made(SELDOM, backend=backend), [np.ones((3, 40)), np.ones(5)]
        for t in range(1, 9):
            own = [np.full_like(p, t) for p in ps]
            inputs = {"hessian": own, "loss": 0.5 * t} if always or t % 3 == 1 else {}
            inputs |= {"other": [-p for p in ps]} if always or t % 3 == 0 else {}
            assert opt.step(ps, [p / 2 for p in ps], **inputs)
        ends.append(bits(opt, ps))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["hessian", "loss", "other"])
def test_a_step_that_reads_an_input_that_it_lacks_touches_nothing(name: str, backend: str) -> None:
    opt, ps = made(SELDOM, backend=backend), [np.ones(3), np.ones(5)]
    whole = {"hessian": ps, "loss": 1.0, "other": [-p for p in ps]}
    for t in range(1, 8):
        whole |= {"hessian": [p + 1 for p in ps], "other": [-p for p in ps]}
        less, gs = {key: value for key, value in whole.items() if key != name}, [p / 2 for p in ps]
        if t % 3 == (0 if name == "other" else 1):
            before = bits(opt, ps)
            with pytest.raises(ArgumentError, match=f"Seldom: expected the input '{name}' in this step, got none"):
                opt.step(ps, gs, **less)
            assert bits(opt, ps) == before
            opt.step(ps, gs, **whole)
        else:
            opt.step(ps, gs, **less)
    assert opt.state(ps[0])["t"] == 7


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_behind_one_that_waits_need_no_input_while_they_wait(backend: str) -> None:
    opt, W = optgen.chain(optgen.AccumGrad(2), optgen.Sophia(k=2), backend=backend), np.ones((2, 3))
    for t in range(1, 10):
        if t % 4 == 2:
            with pytest.raises(ArgumentError, match="expected the input 'hessian'"):
                opt.step([W], [W / 2])
            opt.step([W], [W / 2], hessian=[W + 1])
        else:
            opt.step([W], [W / 2])
    assert opt[1].state(W)["t"] == 4


def test_a_schedule_is_called_once_in_a_step_that_lacks_an_input() -> None:
    calls: list[int] = []
    opt, W = optgen.Sophia(eta=lambda t: calls.append(t) or 0.1, k=2), np.ones(3)
    for t in range(1, 6):
        opt.step([W], [W / 2], **{"hessian": [W + 1]} if t % 2 else {})
    assert calls == [1, 2, 3, 4, 5]


def test_parameters_of_other_counts_need_it_apart() -> None:
    opt, V, W = optgen.Sophia(k=3), np.ones(3), np.ones(3)
    opt.step([V], [V / 2], hessian=[V + 1])
    with pytest.raises(ArgumentError, match="expected the input 'hessian'"):
        opt.step([V, W], [V / 2, W / 2])  # the first step of W
    assert opt.state(V)["t"] == 1


def test_the_gradient_in_the_place_of_an_input_may_be_overwritten() -> None:
    for backend in BACKENDS:
        opt, W = optgen.chain(optgen.Sophia(k=2), optgen.ZeroGrad(), backend=backend), np.ones(3)
        for t in range(4):
            g = W / 2
            opt.step([W], [g], **{} if t % 2 else {"hessian": [W + 1]})
            assert not g.any()
