"""Programs in step plans: a known list of matrices is not checked anew, and whatever has changed in it is seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from checked_lists import sizes_of_checked_lists

import optgen
from optgen.errors import ArrayError
from optgen.runtime import guard
from optgen.runtime.matrix_library import NumPyMatrices

SHAPES = [(6, 4), (4, 6), (5, 5), (2, 3, 4), (6, 4), (4, 6)]


@pytest.fixture(params=[True, False], ids=["read in memory", "asked by attributes"], autouse=True)
def _reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "readable", lambda: request.param)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return sizes_of_checked_lists(monkeypatch)


def matrices(seed: int, dtype: Any = np.float64, shapes: Any = SHAPES) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def lists(count: int) -> Iterator[list[int]]:
    """All, and then some of them, in any order."""
    rng = np.random.default_rng(0)
    yield list(range(count))
    for _ in range(8):
        yield rng.permutation(count)[: rng.integers(1, count + 1)].tolist()


@pytest.mark.parametrize("name", ["Muon", "SOAP", "NorMuon"])
def test_a_known_list_is_not_checked_anew(name: str, checked: list[int]) -> None:
    opt, ps, gs = getattr(optgen, name)(), matrices(0), matrices(1)
    qs, oracle = [p.copy() for p in ps], getattr(optgen, name)(backend="interpreter")
    for step in range(4):
        opt.step(ps, gs if step < 2 else [g.copy() for g in gs])
    assert checked == [len(ps)]
    for _ in range(4):
        oracle.step(qs, gs)
    for p, q in zip(ps, qs, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-9)


def test_lists_of_known_parameters_are_not_checked_anew(checked: list[int]) -> None:
    opt, ps = optgen.Muon(), matrices(0)
    apart, qs = [optgen.Muon() for _ in ps], matrices(0)
    for step, chosen in enumerate(lists(len(ps))):
        gs = matrices(step + 1)
        opt.step([ps[i] for i in chosen], [gs[i] for i in chosen])
    assert checked == [len(ps)]
    for step, chosen in enumerate(lists(len(ps))):
        gs = matrices(step + 1)
        for i in chosen:
            apart[i].step([qs[i]], [gs[i]])
    for p, q in zip(ps, qs, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-9)


def test_what_has_changed_is_checked_anew(checked: list[int]) -> None:
    opt, ps, gs = optgen.Muon(), matrices(0), matrices(1)
    opt.step(ps, gs)
    opt.step(ps, [np.asfortranarray(g) for g in gs])  # another layout
    qs, oracle = matrices(0), optgen.Muon(backend="interpreter")
    for _ in range(2):
        oracle.step(qs, gs)
    assert checked[:2] == [len(ps), len(ps)]
    for p, q in zip(ps, qs, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-9)


def test_bad_input_touches_nothing() -> None:
    opt, ps, gs = optgen.SOAP(), matrices(0), matrices(1)
    opt.step(ps, gs)
    before, states = [p.copy() for p in ps], str(opt.state_dict())
    bad = [[*gs[:-1], gs[0]], [*gs[:-1], ps[-1]], [*gs[:-1], gs[-1].astype(np.float32)], gs[:-1]]
    for given in bad:
        with pytest.raises(ArrayError):
            opt.step(ps, given)
    assert all((p == q).all() for p, q in zip(ps, before, strict=True))
    assert str(opt.state_dict()) == states


def test_a_misaligned_list_is_not_taken_for_an_aligned_one() -> None:
    def at(offset: int, x: Any) -> Any:
        memory = np.empty(x.nbytes + 16, np.uint8)[offset : offset + x.nbytes]
        made = memory.view(x.dtype).reshape(x.shape)
        made[...] = x
        return made

    opt, results = optgen.Muon(), []
    for offset in (0, 1, 8, 3):
        (p,), (g,) = matrices(0, shapes=[(40, 40)]), matrices(1, shapes=[(40, 40)])
        p, g = at(offset, p), at(offset, g)
        opt.step([p], [g])
        results.append(p.copy())
    assert all((p == results[0]).all() for p in results)


@pytest.mark.parametrize("after", [0, 3, 9])
def test_matrices_and_vectors_step_together(after: int, monkeypatch: pytest.MonkeyPatch, checked: list[int]) -> None:
    shapes = [(6, 4), (7,), (4, 6), (3,)]
    opt, ps, gs = optgen.SPlus(), matrices(0, shapes=shapes), matrices(1, shapes=shapes)
    oracle, qs = optgen.SPlus(backend="interpreter"), matrices(0, shapes=shapes)
    real, calls = NumPyMatrices.compute, 0

    def compute(self: NumPyMatrices, step: Any, args: Any, out: Any) -> None:
        nonlocal calls
        real(self, step, args, out)
        calls += 1
        if calls == after + 1:
            raise KeyboardInterrupt

    opt.step(ps, gs)
    monkeypatch.setattr(NumPyMatrices, "compute", compute)
    with pytest.raises(KeyboardInterrupt):
        opt.step(ps, gs)
    opt.step(ps, gs)
    assert checked == [len(ps)]
    for _ in range(3):
        oracle.step(qs, gs)
    assert [opt.state(p)["t"] for p in ps] == [3] * len(ps)
    for p, q in zip(ps, qs, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-9)


def test_a_parameter_of_bfloat16_goes_to_the_interpreter_and_the_rest_to_programs() -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    opt, ps, gs = optgen.Muon(), matrices(0, np.float32), matrices(1, np.float32)
    ps[1], gs[1] = ps[1].astype(bfloat16), gs[1].astype(bfloat16)
    oracle, qs = optgen.Muon(backend="interpreter"), [p.copy() for p in ps]
    for _ in range(3):
        opt.step(ps, gs)
        oracle.step(qs, gs)
    assert (ps[1] == qs[1]).all()
    assert [opt.state(p)["t"] for p in ps] == [3] * len(ps)
    for p, q in zip(ps, qs, strict=True):
        np.testing.assert_allclose(p.astype(np.float64), q.astype(np.float64), rtol=1e-2, atol=1e-4)


def test_small_matrices_of_one_shape_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, int]] = []
    real = NumPyMatrices.compute

    def compute(self: NumPyMatrices, step: Any, args: Any, out: Any) -> None:
        shapes.append(out.shape)
        real(self, step, args, out)

    monkeypatch.setattr(NumPyMatrices, "compute", compute)
    many = [(16, 16)] * 100
    optgen.Muon(half=False).step(matrices(0, shapes=many), matrices(1, shapes=many))
    assert set(shapes) == {(100, 16, 16)}
