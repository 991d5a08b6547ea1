"""Lists of another length than their default, of hyperparameters that a rule loops over."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import optgen
from optgen.compiler import driver
from optgen.errors import ArgumentError, HyperparameterError, OptgenError
from optgen.optimiser import classes
from optgen.optimiser.base import compilation_of, settings_of

BACKENDS = ["kernel", "interpreter"]
BETAS = {1: (0.5,), 2: (0.0, 0.75), 5: (0.0, 0.5, 0.75, 0.9, 0.99)}
#: Loops of all kinds, over two lists of which each may have another length.
LOOPED = """
name = "Looped"
[hyperparameters]
beta = { default = [0.5, 0.25], range = "[0, 1)" }
weight = { default = [1, 2, 3], range = "[0, inf)" }
both = { default = [0.5, 2], range = "[0, inf)" }
[state]
m = { init = 0, each = "beta" }
[update]
formulas = '''
for b in beta:
    m[b] = b*m[b] + (1 - b)*g
heavy = sum(weight[k]*k for k in range(1, len(weight) + 1))/mean(w for w in weight)
delta = sum(m[k] for k in range(1, len(beta) + 1))/len(beta) + both[1]*both[2]*heavy*g
'''
"""


def made(text: str = LOOPED, **given: Any) -> Any:
    return classes.module_class(driver.compile_text(text, "test.toml"))(**given)


def stepped(opt: Any, steps: int = 4) -> list[Any]:
    rng = np.random.default_rng(1)
    ps = [rng.normal(size=(3, 5)).astype(np.float32), rng.normal(size=7)]
    for _ in range(steps):
        opt.step(ps, [rng.normal(size=p.shape).astype(p.dtype) for p in ps])
    return ps


def aggmo(betas: tuple[float, ...], steps: int = 4) -> list[Any]:
    """As the paper has it: a velocity for each damping, and a step along their mean."""
    rng = np.random.default_rng(1)
    ps = [rng.normal(size=(3, 5)).astype(np.float32), rng.normal(size=7)]
    velocities = [[0 * p for p in ps] for _ in betas]
    for _ in range(steps):
        gs = [rng.normal(size=p.shape).astype(p.dtype) for p in ps]
        for beta, own in zip(betas, velocities, strict=True):
            for v, g in zip(own, gs, strict=True):
                v[...] = beta * v + g
        for i, p in enumerate(ps):
            p -= 0.1 / len(betas) * sum(own[i] for own in velocities)
    return ps


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", BETAS)
def test_a_rule_has_as_many_states_as_values_are_given(length: int, backend: str) -> None:
    opt = optgen.AggMo(0.1, BETAS[length], backend=backend)
    ps = stepped(opt)
    for p, q in zip(ps, aggmo(BETAS[length]), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-5 if p.dtype == np.float32 else 1e-12)
    assert list(opt.state(ps[0])) == [*(f"v{i + 1}" for i in range(length)), "t"]
    assert (opt.beta, getattr(opt, f"beta{length}")) == (BETAS[length], BETAS[length][-1])
    assert repr(BETAS[length]) in repr(opt)


@pytest.mark.parametrize(("beta", "weight"), [((0.5,), (1, 2, 3)), ((0.1, 0.2, 0.3), (2,)), ((0.5, 0.25), (1,) * 16)])
def test_kernels_have_the_bits_of_the_interpreter(beta: Any, weight: Any) -> None:
    opts = [made(beta=beta, weight=weight, backend=backend) for backend in BACKENDS]
    one, other = map(stepped, opts)
    assert [p.tobytes() for p in one] == [p.tobytes() for p in other]
    assert opts[0].rule.states[-1].name == f"m{len(beta)}"


def test_the_length_of_the_default_needs_nothing_new() -> None:
    opt = optgen.AggMo(0.1, (0.1, 0.2, 0.3))
    assert settings_of(opt).compilation is compilation_of(optgen.AggMo)


def test_a_rule_is_compiled_once_for_each_length() -> None:
    one, other = (settings_of(optgen.AggMo(0.1, beta)).compilation for beta in ((0.5,) * 4, [0.25] * 4))
    assert one is other
    assert one.stem == "aggmo_beta4"


def test_a_signature_says_which_lists_may_have_any_length() -> None:
    cls = classes.module_class(driver.compile_text(LOOPED, "test.toml"))
    found = {name: p.annotation for name, p in inspect.signature(cls.__init__).parameters.items()}
    assert (found["beta"], found["both"]) == (tuple[float, ...], tuple[float, float])


def test_a_schedule_may_be_one_of_any_number() -> None:
    opt = optgen.AggMo(0.1, (0.5, lambda t: 0.5 + 0.01 * t, 0.1, 0.2), backend="interpreter")
    fixed = optgen.AggMo(0.1, (0.5, 0.51, 0.1, 0.2), backend="interpreter")
    assert stepped(opt, 1)[0].tobytes() == stepped(fixed, 1)[0].tobytes()


def test_a_chain_has_the_length_of_its_part() -> None:
    parts = optgen.ClipNorm(1.0), optgen.AggMo(0.1, BETAS[5])
    opts = [optgen.chain(*parts, backend=backend) for backend in BACKENDS]
    one, other = map(stepped, opts)
    assert [p.tobytes() for p in one] == [p.tobytes() for p in other]
    assert opts[0][1].beta == BETAS[5]
    assert "v5" in opts[0].state(one[0])


# ---- Going on ----


def by_pickle(opt: Any, ps: list[Any], path: Path) -> tuple[Any, list[Any]]:
    return pickle.loads(pickle.dumps((opt, ps)))


def by_copy(opt: Any, ps: list[Any], path: Path) -> tuple[Any, list[Any]]:
    return copy.copy(opt), ps


def by_deepcopy(opt: Any, ps: list[Any], path: Path) -> tuple[Any, list[Any]]:
    return copy.deepcopy(opt), ps


def by_state_dict(opt: Any, ps: list[Any], path: Path) -> tuple[Any, list[Any]]:
    fresh = optgen.AggMo(0.3, (0.1,) * 5)
    fresh.load_state_dict(opt.state_dict())
    return fresh, ps


def by_file(opt: Any, ps: list[Any], path: Path) -> tuple[Any, list[Any]]:
    pytest.importorskip("safetensors")
    opt.save(path / "run.safetensors", ps)
    fresh, qs = optgen.AggMo(0.3, (0.1,) * 5), [np.zeros_like(p) for p in ps]
    fresh.load(path / "run.safetensors", qs)
    return fresh, qs


@pytest.mark.parametrize("way", [by_pickle, by_copy, by_deepcopy, by_state_dict, by_file])
def test_a_run_of_any_length_goes_on(way: Callable[..., tuple[Any, list[Any]]], tmp_path: Path) -> None:
    opt = optgen.AggMo(0.1, BETAS[5])
    ps = stepped(opt)
    again, qs = way(opt, ps, tmp_path)
    plain = optgen.AggMo(0.1, BETAS[5])
    others, grads = stepped(plain), [np.ones_like(p) for p in ps]
    plain.step(others, grads)
    again.step(qs, grads)
    assert again.beta == BETAS[5]
    assert [p.tobytes() for p in qs] == [p.tobytes() for p in others]


def test_a_loaded_rule_of_another_length_is_pickled_with_its_text() -> None:
    opt = made(beta=(0.1, 0.2, 0.3))
    again = pickle.loads(pickle.dumps(opt))
    assert again.beta == (0.1, 0.2, 0.3)
    assert stepped(again)[0].tobytes() == stepped(opt)[0].tobytes()


# ---- Bad input ----


def test_another_length_is_refused_while_training() -> None:
    opt = optgen.AggMo(0.1, BETAS[5])
    ps = stepped(opt)
    with pytest.raises(ArgumentError, match="expected 5 numbers, got") as caught:
        opt.beta = (0.1, 0.2)
    assert "make a new one for another number of values" in str(caught.value)
    with pytest.raises(ArgumentError, match="expected 3 numbers, got"):
        optgen.AggMo(0.1).load_state_dict(opt.state_dict())
    assert opt.beta == BETAS[5]
    opt.step(ps, [np.ones_like(p) for p in ps])


BAD: list[tuple[Any, type[OptgenError], str]] = [
    ((), ArgumentError, r"beta \(β\): expected 1 to 16 numbers, got \(\)"),
    ((0.5,) * 17, ArgumentError, r"beta \(β\): expected 1 to 16 numbers, got 17 of them"),
    (0.5, ArgumentError, r"beta \(β\): expected 1 to 16 numbers, got 0.5"),
    ("abcd", ArgumentError, r"beta \(β\): expected 1 to 16 numbers, got 'abcd'"),
    ((0.5,) * 3 + (1.5,), HyperparameterError, r"expected a value in \[0, 1\), got 1.5"),
    ((0.5,) * 3 + ("a",), ArgumentError, r"expected a number, got 'a'"),
]


@pytest.mark.parametrize(("beta", "error", "message"), BAD)
def test_a_list_that_is_none_is_refused(beta: Any, error: type[OptgenError], message: str) -> None:
    with pytest.raises(error, match=message):
        optgen.AggMo(0.1, beta)


def test_a_list_that_no_loop_goes_over_has_the_length_of_its_default() -> None:
    with pytest.raises(ArgumentError, match=r"expected 2 numbers, got \(0.9, 0.99, 0.999\)"):
        optgen.ADAM(0.1, (0.9, 0.99, 0.999))
    with pytest.raises(ArgumentError, match="both: expected 2 numbers"):
        made(both=(1, 2, 3))


def test_a_length_for_which_formulas_mean_nothing_is_refused() -> None:
    text = LOOPED.replace("+ both[1]", "+ beta[2]*both[1]")
    made(text, beta=(0.1, 0.2, 0.3))
    with pytest.raises(ArgumentError, match=r"formulas do not compile with 1 values of beta: expected beta\[1\] to"):
        made(text, beta=(0.5,))


def test_more_turns_than_a_rule_may_have_are_refused() -> None:
    text = """name = "Turns"
[hyperparameters]
n = { default = 5, range = "[1, 999], whole" }
[update]
formulas = '''
y = g
for _ in range(n):
    y = y/(1 + abs(y)) + 0.5*g
delta = y
'''
"""
    with pytest.raises(ArgumentError, match="do not compile with n=900: expected at most 2000 operations") as caught:
        made(text, n=900)
    assert caught.value.hint == "they do with the default, n=5"


def test_whole_numbers_are_shown_as_they_are_written() -> None:
    assert repr(optgen.NorMuon(eta=1, steps=6)) == (
        "NorMuon(eta=1.0, momentum=0.95, beta=0.95, decay=0.0, eps=1e-10, steps=6)"
    )


def test_a_name_that_a_value_would_take_is_refused() -> None:
    text = LOOPED.replace("[state]", "[state]\nm3 = { init = 0 }").replace("heavy =", "m3 = m3 + g\nheavy = m3 +")
    made(text.replace("both[1]", "mean(m3)*both[1]"))
    with pytest.raises(ArgumentError, match="formulas do not compile with 3 values of beta"):
        made(text.replace("both[1]", "mean(m3)*both[1]"), beta=(0.1, 0.2, 0.3))
