"""Lists that no plan knows, of parameters that are known: nothing is checked anew but what stands together in them."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from checked_lists import sizes_of_checked_lists
from interrupted import each_point
from rules import make

import optgen
from optgen.errors import ArrayError
from optgen.optimiser.base import compilation_of, engine_of
from optgen.runtime import guard, plan

SHAPES = [(), (0,), (1,), (5,), (3, 4), (4, 3), (2, 3, 2), (70,), (0, 3), (1100,), (66, 3)]


@pytest.fixture(params=[True, False], ids=["read in memory", "asked by attributes"], autouse=True)
def _reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "readable", lambda: request.param)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return sizes_of_checked_lists(monkeypatch)


def ones(*sizes: int) -> list[Any]:
    return [np.ones(size) for size in sizes]


def lists(count: int, steps: int) -> Iterator[list[int]]:
    """All, and then some of them, in any order."""
    rng = np.random.default_rng(0)
    yield list(range(count))
    for _ in range(steps):
        yield rng.permutation(count)[: rng.integers(1, count + 1)].tolist()


def laid_out(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, step: int) -> Any:
    """A gradient; from step 6 on in another layout, which is known from then on."""
    g = np.asarray(rng.standard_normal(shape), dtype)
    return g if step < 6 else np.array(g, order="F")


@pytest.mark.parametrize("name", ["ADAM", "LAMB", "SM3", "AMSGrad", "Sophia", "WeightDecay, ADAM", "ADAM, EMA"])
def test_any_list_of_them_is_stepped_as_by_the_interpreter(name: str, checked: list[int]) -> None:
    rng, rule = np.random.default_rng(0), compilation_of(make(name)).rules[0]
    kernel, oracle = make(name), make(name, backend="interpreter")
    worlds = [
        [np.ones(shape, "f4" if i % 3 else "f8") for i, shape in enumerate(SHAPES)] for _ in range(2)
    ]  # fmt: skip
    before = 0
    for step, chosen in enumerate(lists(len(SHAPES), 12)):
        own = [SHAPES[i] for i in chosen], [worlds[0][i].dtype.str for i in chosen]
        given = {
            input_: [laid_out(rng, *each, step) for each in zip(*own, strict=True)] for input_ in rule.given_arrays
        }
        gradients = given.pop("g")
        kernel.step([worlds[0][i] for i in chosen], gradients, **given)
        before, checks = len(checked), len(checked) - before
        assert step < 1 or step >= 6 or checks == 0
        oracle.step([worlds[1][i] for i in chosen], gradients, **given)
        before = len(checked)
        for p, q in zip(*worlds, strict=True):
            assert p.tobytes() == q.tobytes()
            assert kernel.state(p)["t"] == oracle.state(q)["t"]


def test_schedules_are_called_with_the_count_of_each(checked: list[int]) -> None:
    worlds = [ones(3, 3, 3) for _ in range(2)]
    opts = [optgen.ADAM(eta=lambda t: 0.1 / t, backend=backend) for backend in ("kernel", "interpreter")]
    for chosen in ([0, 1, 2], [0], [0, 2], [2, 1], [1, 0]):
        for opt, ps in zip(opts, worlds, strict=True):
            opt.step([ps[i] for i in chosen], ones(*[3] * len(chosen)))
    assert [p.tobytes() for p in worlds[0]] == [p.tobytes() for p in worlds[1]]
    assert checked == [3, 3, 1, 2, 2, 2]  # the interpreter's all, of the kernels one


def test_those_that_share_memory_are_refused_together() -> None:
    memory, opt = np.ones(10), optgen.ADAM()
    a, b = memory[:6], memory[4:]
    opt.step([a], [np.ones(6)])
    opt.step([b], [np.ones(6)])
    before = memory.tobytes()
    with pytest.raises(ArrayError, match="an overlap of parameter 0 and parameter 1"):
        opt.step([a, b], [np.ones(6), np.ones(6)])
    assert memory.tobytes() == before
    assert opt.state(a)["t"] == opt.state(b)["t"] == 1


def test_one_in_memory_between_the_elements_of_another_is_stepped() -> None:
    worlds = [np.zeros((4, 3)) for _ in range(2)]
    for memory, backend in zip(worlds, ("kernel", "interpreter"), strict=True):
        opt, columns = optgen.Descent(1.0, backend=backend), list(memory.T)
        for chosen in ([0, 1, 2], [0, 2], [1], [2, 1]):
            opt.step([columns[i] for i in chosen], [np.arange(4.0) for _ in chosen])
    assert worlds[0].tobytes() == worlds[1].tobytes()


@pytest.mark.parametrize("size", [3, 0])
def test_one_that_is_given_twice_is_refused(size: int) -> None:
    opt, (p, q) = optgen.ADAM(), ones(size, size)
    opt.step([p, q], ones(size, size))
    with pytest.raises(ArrayError, match="expected each parameter once"):
        opt.step([p, p], ones(size, size))
    assert opt.state(p)["t"] == 1


@pytest.mark.parametrize("again", [True, False], ids=["the gradient of before", "another one"])
@pytest.mark.parametrize("name", ["g", "h"])
def test_what_a_step_is_given_in_the_memory_of_another_is_refused(name: str, again: bool) -> None:
    """It may have been the gradient of before, in a list in which the other was not."""
    opt, (p, q) = optgen.Sophia(), ones(3, 3)
    usual = {"g": ones(3), "h": ones(3)}
    opt.step([p], usual["g"], hessian=usual["h"])
    own = usual | ({name: [p]} if again else {})
    opt.step([q], own["g"], hessian=own["h"])
    both = {"g": ones(3, 3), "h": ones(3, 3)}
    both[name][1] = p
    with pytest.raises(ArrayError, match="an overlap of parameter 0 and"):
        opt.step([p, q], both["g"], hessian=both["h"])
    assert opt.state(p)["t"] == opt.state(q)["t"] == 1


def test_gradients_that_are_overwritten_are_looked_at_together() -> None:
    opt, (p, q) = optgen.chain(optgen.ADAM(), optgen.ZeroGrad()), ones(3, 3)
    g, h = ones(3, 3)
    for chosen in ([p, q], [p], [q], [q, p]):
        opt.step(chosen, [g, h][: len(chosen)])
        assert (g == 0).all()
        g[...] = h[...] = 1
    with pytest.raises(ArrayError, match="an overlap"):
        opt.step([p], [p])
    with pytest.raises(ArrayError, match="an overlap"):
        opt.step([p, q], [g, g])


CHANGES: dict[str, Callable[[Any], object]] = {
    "read-only": lambda p: p.setflags(write=False),
    "shape": lambda p: p.resize((6, 2), refcheck=False),
    "strides": lambda p: setattr(p, "strides", (8, 24)),
}


@pytest.mark.filterwarnings("ignore:Setting the strides:DeprecationWarning")
@pytest.mark.parametrize("change", sorted(CHANGES))
def test_one_that_is_another_by_now_is_checked_anew(change: str, checked: list[int]) -> None:
    opt, p, q = optgen.Descent(1.0), np.ones((3, 4)), np.ones(2)
    opt.step([p, q], [np.ones((3, 4)), np.ones(2)])
    CHANGES[change](p)
    if change == "strides":  # which is another parameter, in the memory of this one
        opt.step([q, p], [np.ones(2), np.ones((3, 4))])
        assert len(engine_of(opt).states) == 3
    else:
        with pytest.raises(ArrayError):
            opt.step([q, p], [np.ones(2), np.ones((3, 4))])
        assert q.tolist() == [0, 0]
    assert checked == [2, 2]


def test_a_list_that_is_refused_leaves_nothing_behind() -> None:
    opt, ps = optgen.ADAM(), ones(3, 3, 3)
    opt.step(ps, ones(3, 3, 3))
    plans = engine_of(opt).engine.plans
    last, number, saved = plans.last, len(plans), pickle.dumps(opt)
    for chosen, gradients in (([0, 1], ones(3, 4)), ([1, 1], ones(3, 3)), ([0, 2], [np.ones(3), ps[0]])):
        with pytest.raises(ArrayError):
            opt.step([ps[i] for i in chosen], gradients)
    assert (plans.last, len(plans), pickle.dumps(opt)) == (last, number, saved)


def test_values_of_all_parameters_are_of_all(checked: list[int]) -> None:
    opt, ps = optgen.chain(optgen.ClipGlobalNorm(), optgen.ADAM()), ones(3, 3)
    opt.step(ps, ones(3, 3))
    with pytest.raises(ArrayError, match="expected the 2 of before, got all but 1"):
        opt.step(ps[:1], ones(3))
    assert opt.state(ps[0])["t"] == 1
    opt.step(ps[::-1], ones(3, 3))
    assert opt.state(ps[0])["t"] == 2


def test_a_step_of_them_that_is_interrupted_is_done_and_counted_or_neither() -> None:
    def begun(backend: str = "kernel") -> tuple[Any, list[Any]]:
        opt, ps = optgen.ADAM(backend=backend), ones(3, 3, 3)
        opt.step(ps, ones(3, 3, 3))
        return opt, ps

    def step(opt: Any, ps: list[Any]) -> None:
        opt.step(ps[:2], ones(3, 3))

    def then(opt: Any, ps: list[Any]) -> list[bytes]:
        for chosen in (ps[:2], ps[1:], ps, ps[::2]):
            opt.step(chosen, ones(*[3] * len(chosen)))
        return [p.tobytes() for p in ps]

    expected = []
    for done in (0, 1):
        opt, ps = begun("interpreter")
        if done:
            step(opt, ps)
        expected.append(then(opt, ps))
    for opt, ps in each_point(begun, lambda made: step(*made)):
        counts = [opt.state(p)["t"] for p in ps]
        assert counts in ([1, 1, 1], [2, 2, 1])
        assert then(opt, ps) == expected[counts[0] - 1]
        plans, slots = engine_of(opt).engine.plans, engine_of(opt).states.slots()
        assert plans._size == sum(len(slot.plans) for slot in slots)
        assert plans._slots == len(slots)


def test_nothing_of_them_is_kept_when_they_are_gone() -> None:
    opt, ps = optgen.ADAM(), ones(3, 3, 3, 3)
    for chosen in (ps, ps[:2], ps[1:]):
        opt.step(chosen, [np.ones(3) for _ in chosen])
    plans, watched = engine_of(opt).engine.plans, [weakref.ref(p) for p in ps]
    assert len(plans.members(plan.key_of_list(ps))) == 4
    del ps, chosen
    assert [ref() for ref in watched] == [None] * 4
    assert (len(plans), plans._members) == (0, {})


def test_of_views_that_are_made_anew_the_last_is_known() -> None:
    opt, memory, kept = optgen.ADAM(), np.ones(12), []
    for step in range(9):
        views = [memory[:4], memory[4:8], memory[8:]]
        kept += views  # so that each is another object
        opt.step(views[step % 2 :], ones(*[4] * (3 - step % 2)))
    assert len(engine_of(opt).engine.plans._members) == 3
    assert [opt.state(view)["t"] for view in views] == [5, 9, 9]
