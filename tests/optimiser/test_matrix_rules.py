"""Rules for matrices only, in what tests of all rules ask: resuming, state, hyperparameters, copies, chains."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rules import OF_MATRICES, SPECS

import optgen
from optgen.errors import ArgumentError, ArrayError, HyperparameterError
from optgen.ir.expr import Load, walk
from optgen.optimiser.base import engine_of
from optgen.runtime.shapes import chosen_once

SHAPES = [(6, 4), (4, 6), (5, 5), (2, 3, 4)]


def made(name: str, **given: Any) -> Any:
    sizes = [each.hyper for each in SPECS[name].rules[0].dimensions]
    return getattr(optgen, name)(**dict.fromkeys(sizes, 2), **given)


def matrices(seed: int, dtype: Any = np.float64) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for shape in SHAPES]


def bits(opt: Any, ps: list[Any]) -> list[dict[str, bytes]]:
    return [{"p": p.tobytes()} | {name: np.asarray(x).tobytes() for name, x in opt.state(p).items()} for p in ps]


@pytest.mark.parametrize("way", ["state_dict", "pickle", "copy", "file"])
@pytest.mark.parametrize("name", OF_MATRICES)
def test_a_resumed_step_has_the_bits_of_one_that_was_not_left(name: str, way: str, tmp_path: Any) -> None:
    opt, ps = made(name), matrices(0)
    for t in range(3):
        opt.step(ps, matrices(t + 1))
    if way == "pickle":
        other, qs = pickle.loads(pickle.dumps((opt, ps)))
    elif way == "copy":
        other, qs = copy.deepcopy((opt, ps))
    else:
        other, qs = made(name), [p.copy() for p in ps]
        if way == "file":
            opt.save(tmp_path / "o.npz", ps)
            other.load(tmp_path / "o.npz", qs)
        else:
            other.load_state_dict(opt.state_dict())
    for each, own in ((opt, ps), (other, qs)):
        each.step(own, matrices(9))
        each.step(own, matrices(10))
    assert bits(opt, ps) == bits(other, qs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OF_MATRICES)
def test_a_rule_descends_and_keeps_dtypes(name: str, dtype: Any) -> None:
    """The loss of fitting a matrix falls, and each state has the dtype that goes with its extent."""
    goal, radius = matrices(20, dtype), {"radius": 1.0} if name.startswith("Scion") else {}
    opt, ps = made(name, **({"eta": 0.05} if name != "Muon" else {"lr": 0.05}), **radius), matrices(21, dtype)
    before = sum(float(((p - q) ** 2).sum()) for p, q in zip(ps, goal, strict=True))
    for _ in range(20):
        opt.step(ps, [p - q for p, q in zip(ps, goal, strict=True)])
    after = sum(float(((p - q) ** 2).sum()) for p, q in zip(ps, goal, strict=True))
    assert after < before
    for p in ps:
        assert p.dtype == dtype
        for state in SPECS[name].rules[0].states:
            whole = state.extent.name == "ELEMENT"
            assert opt.state(p)[state.name].dtype == (dtype if whole else np.float64)


@pytest.mark.parametrize("name", OF_MATRICES)
def test_state_dies_with_its_parameter(name: str) -> None:
    opt, keep, other = made(name), np.ones((4, 3)), np.ones((3, 4))
    opt.step([keep, other], [np.ones((4, 3)), np.ones((3, 4))])
    slots, dying = [weakref.ref(slot) for slot in engine_of(opt).states.slots()], weakref.ref(other)
    del other
    gc.collect()
    assert dying() is None
    assert [slot() is None for slot in slots] == [False, True]


@pytest.mark.parametrize("name", OF_MATRICES)
def test_what_is_chosen_when_it_is_made_stays(name: str) -> None:
    opt = made(name)
    for hyper in SPECS[name].rules[0].hypers:
        if hyper.name in chosen_once(SPECS[name].rules):
            with pytest.raises(HyperparameterError, match="which is chosen when it is made"):
                setattr(opt, hyper.name, 3)
        elif hyper.name != "seed":
            setattr(opt, hyper.name, getattr(opt, hyper.name))
            assert hyper.name in inspect.signature(type(opt)).parameters


@pytest.mark.parametrize("name", [name for name in OF_MATRICES if not SPECS[name].rules[0].draws])
def test_a_rule_steps_in_a_chain(name: str) -> None:
    """Behind a part that changes nothing, it does what it does alone, but for how a library rounds: a chain with a
    value of all parameters goes to the interpreter, a rule alone to a program."""
    alone, ps = made(name), matrices(0)
    chained, qs = optgen.chain(optgen.ClipGlobalNorm(1e9), made(name)), matrices(0)
    for t in range(3):
        alone.step(ps, matrices(t + 1))
        chained.step(qs, matrices(t + 1))
    for p, q in zip(ps, qs, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-9, atol=1e-12)


# ---- Together with phases, storages and shapes that do not fit ----


@pytest.mark.parametrize("rule", ["Muon", "Shampoo", "SOAP"])
@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (4, 4)])
def test_products_in_the_last_phase_only_step_as_the_interpreter_does(rule: str, shape: tuple[int, int]) -> None:
    ends = []
    for backend in ("kernel", "interpreter"):
        p, rng = np.ones(shape, np.float32), np.random.default_rng(0)
        opt = optgen.chain(optgen.SAM(0.05), getattr(optgen, rule)(), backend=backend)
        for _ in range(3):
            for phase in ("ascend", "descend"):
                assert opt.phase == phase
                opt.step([p], [rng.standard_normal(shape).astype(np.float32)])
        ends.append(p)
    assert np.allclose(*ends, rtol=1e-4, atol=1e-5)


SIZED = """name = "Sized"
[hyperparameters]
eta = {{ default = 0.1, range = "[0, inf)" }}
[sizes]
k = {{ default = 4 {most} }}
[update]
formulas = '''
P = {first}
delta = eta*(P @ (P.T @ g))
'''
"""


@pytest.mark.parametrize(("first", "most"), [
    ("leading(g, k)", ""), ("leading(g, k)", ', most = "long"'), ("orthonormal(normal(row, k))", ""),
])  # fmt: skip
def test_more_columns_than_rows_are_refused_by_name(first: str, most: str, tmp_path: Path) -> None:
    (tmp_path / "sized.toml").write_text(SIZED.format(first=first, most=most), "utf-8")
    opt, p, q = optgen.load(tmp_path / "sized.toml")(), np.ones((8, 8)), np.ones((3, 8))
    with pytest.raises(
        ArrayError, match=r"Sized: \w+\(\) gives no more .* asked for 3 by 4 .* of parameter 1, a matrix"
    ):
        opt.step([p, q], [2 * p, 2 * q])
    assert (p == 1).all()
    assert (q == 1).all()


def test_a_size_that_is_too_large_names_the_parameter() -> None:
    p, q = np.ones((8, 8)), np.ones((3, 8))
    with pytest.raises(
        HyperparameterError, match="expected rank to be at most 3, the rows of parameter 1, a matrix of 3"
    ):
        optgen.GaLore(rank=4).step([p, q], [2 * p, 2 * q])


def test_one_storage_is_not_for_what_starts_as_a_parameter() -> None:
    opt, p = optgen.ScheduleFreeAdamW(storage="bfloat16"), np.ones(4, np.float32)
    opt.step([p], [2 * p])
    kept = opt.state_dict()["parameters"][0]["storages"]
    starts = {state.name for state in opt.rule.states if Load("p") in set(walk(state.init))}
    assert starts
    assert not starts & kept.keys()
    with pytest.raises(ArgumentError, match="storage: EMA has only states that start as the parameter"):
        optgen.EMA(storage="bfloat16")


def test_the_storage_of_a_matrix_is_refused() -> None:
    with pytest.raises(ArgumentError, match="the storage of L: expected a state like the parameter, got a matrix"):
        optgen.SOAP(storage={"L": "bfloat16"})
