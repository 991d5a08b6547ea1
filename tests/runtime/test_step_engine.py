"""A step by itself: it holds what it works on, and threads that use one optimiser wait for one another."""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import optgen
from optgen.errors import ArgumentError, ArrayError
from optgen.optimiser.base import engine_of
from optgen.runtime.bound import BoundKernels

BACKENDS = ("kernel", "interpreter")


# ---- Arrays are held ----


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Any]]:
    """What must be alive whenever kernels run; noted by the test."""
    watched: list[weakref.ref[Any]] = []
    run = BoundKernels.run

    def checked(*given: Any, **more: Any) -> Any:
        assert all(ref() is not None for ref in watched), "a kernel would read memory that is freed"
        return run(*given, **more)

    monkeypatch.setattr(BoundKernels, "run", checked)
    return watched


class Watched(np.ndarray):
    """An array that can be watched as any other object."""


def watched_array(value: float) -> Any:
    return np.full(64, value).view(Watched)


@pytest.mark.parametrize("at", [1, 3])
def test_a_schedule_that_empties_the_callers_lists_frees_nothing(alive: Any, at: int) -> None:
    def eta(t: int) -> float:
        if t == at:
            alive.extend(weakref.ref(x) for x in (*params, *grads))
            params.clear()
            grads.clear()
        return 0.5

    opt, params, memory = optgen.Descent(eta=eta), [watched_array(1.0)], []
    memory.append(params[0].view(np.ndarray))
    for _ in range(at):
        grads = [watched_array(1.0)]
        opt.step(params, grads)
    assert len(alive) == 2
    assert memory[0].tolist() == [1.0 - 0.5 * at] * 64


def test_the_array_behind_a_parameter_is_held_where_it_is_made_anew(alive: Any) -> None:
    memory = np.ones(64)

    class Fresh:
        @property
        def data(self) -> Any:
            made = memory.view(Watched)
            alive[:] = [weakref.ref(made)]
            return made

    opt, p = optgen.Descent(eta=0.25), Fresh()
    for _ in range(3):
        opt.step([p], [np.ones(64)])
    assert memory.tolist() == [0.25] * 64


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("which", "at"), [("p", 1), ("g", 1), ("g", 2)])  # NumPy itself refuses what has a state
def test_an_array_that_a_schedule_gives_other_memory_is_refused(which: str, at: int, backend: str) -> None:
    arrays = {"p": np.ones(8), "g": np.ones(8)}

    def eta(t: int) -> float:
        if t == at:
            arrays[which].resize(1 << 16, refcheck=False)
        return 0.5

    opt = optgen.ADAM(eta=eta, backend=backend)
    for _ in range(at - 1):
        opt.step([arrays["p"]], [arrays["g"]])
    before = arrays["p"][:8].copy()
    with pytest.raises(ArrayError, match="changed while schedules were called"):
        opt.step([arrays["p"]], [arrays["g"]])
    assert arrays["p"][:8].tobytes() == before.tobytes()


# ---- Steps within steps, and beside steps ----


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("at", [1, 2])
def test_a_schedule_may_read_its_own_optimiser_and_not_change_it(at: int, backend: str) -> None:
    p, other, said = np.ones(3), np.ones(3), []

    def eta(t: int) -> float:
        if t == at:
            calls: list[Callable[[], Any]] = [
                lambda: opt.step([other], [np.ones(3)]),
                lambda: opt.load_state_dict(opt.state_dict()),
            ]
            for call in calls:
                with pytest.raises(ArgumentError, match="between two steps, got a call from within one"):
                    call()
                said.append(call)
            if t > 1:
                said.append(opt.state(p)["t"])
        return 0.5

    opt, usual = optgen.ADAM(eta=eta, backend=backend), optgen.ADAM(eta=0.5, backend=backend)
    q = np.ones(3)
    for _ in range(3):
        opt.step([p], [np.ones(3)])
        usual.step([q], [np.ones(3)])
    assert said[2:] == [1] * (at > 1)
    assert other.tolist() == [1.0] * 3
    assert p.tobytes() == q.tobytes()
    assert opt.state(p)["t"] == 3


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def at_once(*works: Callable[[], object]) -> None:
    """Runs each in a thread of its own; raises what one of them raised."""
    raised: list[BaseException] = []
    start = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        start.wait()
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def repeated(times: int, work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            work()

    return run


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_of_several_threads_all_count(backend: str) -> None:
    opt, p, g = optgen.Descent(eta=1.0, backend=backend), np.zeros(20_000), np.ones(20_000)
    at_once(*[repeated(60, lambda: opt.step([p], [g]))] * 4)
    assert opt.state(p)["t"] == 240
    assert (p == -240).all()


@pytest.mark.usefixtures("hasty")
def test_a_state_that_is_read_beside_steps_is_of_one_step() -> None:
    opt = optgen.chain(optgen.Momentum(eta=1.0, rho=1.0))
    ps, g = [np.zeros(5_000) for _ in range(2)], np.ones(5_000)
    opt.step(ps, [g, g])
    found: list[Any] = []
    at_once(
        repeated(100, lambda: opt.step(ps, [g, g])),
        repeated(100, lambda: found.append(opt.state_dict())),
        repeated(100, lambda: setattr(opt, "eta", 1.0)),
    )
    for saved in found:
        one, other = saved["parameters"]
        assert one["t"] == other["t"]
        (velocity,), (same,) = one["state"].values(), other["state"].values()
        assert (velocity == velocity[0]).all()
        assert (velocity == same).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.filterwarnings("ignore:os.fork.. was called")  # by JAX, where another test has loaded it
def test_the_child_of_a_fork_beside_a_step_may_step() -> None:
    opt, p = optgen.Descent(eta=1.0), np.zeros(3)
    opt.step([p], [np.ones(3)])
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with engine_of(opt).lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        opt.step([p], [np.ones(3)])
        os._exit(int(p.tolist() != [-2.0] * 3))
    done.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
