"""A step that is interrupted has moved parameters and counted, or neither."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from interrupted import Interrupted, each_point, interrupted

import optgen
from optgen.runtime.interrupts import to_its_end

BACKENDS = ("kernel", "interpreter")

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
