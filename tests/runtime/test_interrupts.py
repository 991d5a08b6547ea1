"""A step that is interrupted has moved parameters and counted, or neither."""

from __future__ import annotations

import ast
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interrupted import Interrupted, each_point, interrupted

import optgen
from optgen.optimiser.base import engine_of
from optgen.paths import PACKAGE
from optgen.runtime.binding import Binding
from optgen.runtime.group_step import Shards
from optgen.runtime.interrupts import to_its_end, undisturbed
from optgen.runtime.layout import counts_of
from optgen.runtime.numpy_library import NumPyLibrary

BACKENDS = ("kernel", "interpreter")
#: The modules of PyTorch's wing that every step goes through.
STEPPED = ("tensors", "states", "optimizer", "param_groups", "turns", "strategies", "ways", "sharding")


@pytest.mark.parametrize("name", STEPPED)
def test_no_generator_is_given_up_half_way(name: str) -> None:
    """Where `any` has found what it looks for, it closes the generator that it was given; an interrupt then is lost."""
    tree = ast.parse((PACKAGE / "torch" / f"{name}.py").read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    given_up = [
        f"{ast.unparse(call)} (line {call.lineno})"
        for call in calls
        if getattr(call.func, "id", "") in ("any", "all") and isinstance(call.args[0], ast.GeneratorExp)
    ]
    assert not given_up, "give it a list"


MAKES: dict[str, Callable[[str], Any]] = {
    "elementwise": lambda backend: optgen.ADAM(eta=0.1, backend=backend),
    "scheduled": lambda backend: optgen.ADAM(eta=optgen.cosine(0.1, steps=9), backend=backend),
    "norms of tensors": lambda backend: optgen.LAMB(eta=0.1, backend=backend),
    "a norm of all": lambda backend: optgen.chain(
        optgen.Momentum(eta=1.0), optgen.ClipGlobalNorm(0.5), optgen.ADAM(eta=0.1), backend=backend
    ),
    "states of all": lambda backend: optgen.Prodigy(backend=backend),
}


def arrays() -> list[Any]:
    rng = np.random.default_rng(0)
    shapes = [((5,), "f"), ((3, 2), "d"), ((4,), "d")]
    return [rng.standard_normal(shape).astype(dtype) for shape, dtype in shapes]


def gradients(t: int) -> list[Any]:
    return [(0.1 * (t + 1) * (1 + np.arange(p.size))).reshape(p.shape).astype(p.dtype) for p in arrays()]


def seen(opt: Any, ps: list[Any]) -> list[bytes]:
    """All that a step changes, but for counts."""
    states = [value for p in ps for name, value in sorted(opt.state(p).items()) if name != "t"]
    return [x.tobytes() for x in (*ps, *states)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("before", [0, 1], ids=["the first step", "a later step"])
@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("every", [pytest.param(7, marks=pytest.mark.slow), 37])
def test_a_step_is_done_and_counted_or_neither(every: int, name: str, before: int, backend: str) -> None:
    def begun(steps: int) -> tuple[Any, list[Any]]:
        opt, ps = MAKES[name](backend), arrays()
        for t in range(steps):
            opt.step(ps, gradients(t))
        return opt, ps

    expected = [seen(*begun(steps)) for steps in range(before + 3)]
    counts: list[int] = []
    for opt, ps in each_point(lambda: begun(before), lambda made: made[0].step(made[1], gradients(before)), every):
        (t,) = {opt.state(p)["t"] for p in ps}
        assert seen(opt, ps) == expected[t], f"point {len(counts)}: counted {t} steps"
        counts.append(t)
        for later in range(t, before + 2):
            opt.step(ps, gradients(later))
        assert seen(opt, ps) == expected[-1], f"point {len(counts)}: another step than this"
    assert counts == sorted(counts)
    assert counts
    if every == 1:
        assert set(counts) == {before, before + 1}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_that_does_not_count_changes_what_always_does_or_nothing(backend: str) -> None:
    def begun() -> tuple[Any, list[Any]]:
        opt, ps = optgen.chain(optgen.LossScale(8.0), optgen.ADAM(), backend=backend), arrays()
        opt.step(ps, gradients(0))
        return opt, ps

    opt, ps = begun()
    expected = seen(opt, ps)
    found: list[tuple[float, float]] = []
    for opt, ps in each_point(begun, lambda made: made[0].step(made[1], [np.nan * g for g in gradients(1)]), 23):
        found.append((float(opt.state()["scale"]), float(opt.state()["good"])))
        opt.set_state(ps[0], scale=8.0, good=1.0)
        assert seen(opt, ps) == expected
        assert {opt.state(p)["t"] for p in ps} == {1}
    assert found == sorted(found, reverse=True)
    assert {(8.0, 1.0)} <= set(found) <= {(8.0, 1.0), (4.0, 0.0)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("before", [0, 1, 2], ids=["the first phase", "the second phase", "a later step"])
@pytest.mark.parametrize("every", [pytest.param(7, marks=pytest.mark.slow), 37])
def test_a_phase_is_done_or_not(every: int, before: int, backend: str) -> None:
    def begun(phases: int) -> tuple[Any, list[Any]]:
        opt, ps = optgen.chain(optgen.SAM(0.5), optgen.ADAM(eta=0.1), backend=backend), arrays()
        for number in range(phases):
            opt.step(ps, gradients(number))
        return opt, ps

    expected = [seen(*begun(phases)) for phases in range(before + 3)]
    done: list[int] = []
    for opt, ps in each_point(lambda: begun(before), lambda made: made[0].step(made[1], gradients(before)), every):
        (t,) = {opt.state(p)["t"] for p in ps}
        done.append(2 * t + opt.rule.phases.index(opt.phase))
        assert seen(opt, ps) == expected[done[-1]], f"point {len(done)}: at phase {done[-1]}"
        for later in range(done[-1], before + 2):
            opt.step(ps, gradients(later))
        assert seen(opt, ps) == expected[-1], f"point {len(done)}: another phase than this"
    assert done == sorted(done)
    assert {*done} <= {before, before + 1}
    assert done


def test_what_the_runtime_is_called_with_is_kept_when_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a step that is begun anew would run calls that were never filled."""
    opt, ps = optgen.ADAM(), arrays()
    opt.step(ps, gradients(0))
    plan = engine_of(opt).engine.plans.last
    plan._bound._calls = None

    def broken_off(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(Binding, "fill", broken_off)
        with pytest.raises(Interrupted):
            plan._bound._filled()
    assert plan._bound._calls is None
    opt.step(ps, gradients(1))
    assert opt.state(ps[0])["t"] == 2


def test_work_goes_on_where_it_was_broken_off() -> None:
    done: list[int] = []

    def work() -> bool:
        for i in range(len(done), 5):
            done.append(i)
        return True

    at = 0
    while interrupted(lambda: to_its_end(work), at):
        assert done in ([], [0, 1, 2, 3, 4])
        done.clear()
        at += 1
    assert at > 1


def test_an_error_of_the_work_itself_is_raised() -> None:
    tries: list[int] = []

    def work() -> bool:
        tries.append(1)
        raise Interrupted

    with pytest.raises(Interrupted):
        to_its_end(work)
    assert 1 < len(tries) < 20


# ---- Loads ----

CHECKPOINT = "checkpoint.safetensors"
LOADS: dict[str, Callable[[Any, Any, Any], object]] = {
    "a state, for the parameters there are": lambda opt, ps, saved: opt.load_state_dict(saved["state"]),
    "a state, for these parameters": lambda opt, ps, saved: opt.load_state_dict(saved["state"], ps),
    "a file": lambda opt, ps, saved: opt.load(saved["path"], ps),
}


@pytest.mark.parametrize("name", ["elementwise", "scheduled", "states of all", "a norm of all"])
@pytest.mark.parametrize("load", LOADS)
def test_a_load_is_whole_or_not_at_all(load: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")

    def begun(steps: int) -> tuple[Any, list[Any]]:
        opt, ps = MAKES[name]("kernel"), arrays()
        for t in range(steps):
            opt.step(ps, gradients(t))
        return opt, ps

    other, theirs = begun(3)
    first = next(iter(other.state_dict()["hyperparameters"]))
    setattr(other, first, 0.5)
    saved = {"state": other.state_dict(), "path": tmp_path / CHECKPOINT}
    other.save(saved["path"], theirs)

    def everything(opt: Any, ps: list[Any]) -> tuple[Any, ...]:
        return seen(opt, ps), {opt.state(p)["t"] for p in ps}, repr(getattr(opt, first))

    before = everything(*begun(1))
    whole = begun(1)
    LOADS[load](*whole, saved)
    after, found = everything(*whole), []
    for opt, ps in each_point(lambda: begun(1), lambda made: LOADS[load](*made, saved), 5):
        found.append(everything(opt, ps))
        assert found[-1] in (before, after), f"point {len(found)}"
        opt.step(ps, gradients(1))
    assert before in found
    assert after in found


# ---- Signals ----


@contextmanager
def handled() -> Iterator[Callable[[int, object], None]]:
    """A signal whose handler raises `Interrupted`, whatever the process does with others."""

    def handler(number: int, frame: object) -> None:
        raise Interrupted

    usual = signal.signal(signal.SIGUSR1, handler)
    try:
        yield handler
    finally:
        signal.signal(signal.SIGUSR1, usual)


class ManyProcesses(NumPyLibrary):
    """Arrays that lie in shards, of which this process has all; `exchange` is called where processes exchange."""

    def __init__(self, exchange: Callable[[], None]) -> None:
        self.exchange = exchange

    def in_shards(self, params: Any) -> bool:
        return True

    def shards(self, params: Any, kernel: Any, blocks: Any) -> Shards:
        def joined(folds: Any, parts: Any) -> Any:
            self.exchange()
            return parts

        return Shards([p.shape for p in params], [counts_of(p.shape, None) for p in params], joined)


@pytest.mark.parametrize("at", range(3))
def test_what_processes_do_together_is_not_broken_off(at: int) -> None:
    """A second exchange would wait for processes that have done theirs."""
    exchanges = 0

    def exchange() -> None:
        nonlocal exchanges
        exchanges += 1
        if exchanges == at:
            signal.raise_signal(signal.SIGUSR1)

    opt, ps = optgen.LAMB(eta=0.1), arrays()
    engine_of(opt).engine.library = ManyProcesses(exchange)
    with handled() as handler:
        if at:
            with pytest.raises(Interrupted):
                opt.step(ps, gradients(0))
        else:
            opt.step(ps, gradients(0))
        assert signal.getsignal(signal.SIGUSR1) is handler
    assert exchanges == 2  # one for the arrays of either dtype
    expected, qs = optgen.LAMB(eta=0.1), arrays()
    expected.step(qs, gradients(0))
    assert seen(opt, ps) == seen(expected, qs)
    assert {opt.state(p)["t"] for p in ps} == {1}


def test_signals_wait_until_work_is_through_also_if_it_fails() -> None:
    done = []

    def work() -> bool:
        signal.raise_signal(signal.SIGUSR1)
        done.append(True)
        raise ValueError

    with handled(), pytest.raises(Interrupted) as caught:
        undisturbed(work)
    assert done == [True]
    assert isinstance(caught.value.__context__, ValueError)
