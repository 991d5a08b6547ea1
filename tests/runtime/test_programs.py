"""Programs: rules with products of matrices, replayed by the interpreter."""

from __future__ import annotations

import gc
import weakref
from functools import cache
from typing import Any

import numpy as np
import pytest
from replays import Replay

import optgen
from optgen.compiler.catalogue import shipped_names
from optgen.compiler.driver import compile_file
from optgen.errors import CompilerNotFound
from optgen.interpreter.products import MATRICES
from optgen.ir.evaluate import Program
from optgen.ir.expr import Matrices
from optgen.lowering.programs import programs_of
from optgen.runtime import programs
from optgen.runtime.binding import Binding
from optgen.runtime.matrix_library import NumPyMatrices

#: Few of these, so that a short test meets every course.
HYPERS = {"rank": 2.0, "every": 2.0}


@cache
def rules_of(name: str) -> Any:
    return compile_file(shipped_names()[name]).rules


@cache
def rules_with_products() -> tuple[str, ...]:
    texts = {name: path.read_text("utf-8") for name, path in shipped_names().items()}
    return tuple(name for name, text in texts.items() if "@" in text and rules_of(name)[0].multiplies)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", rules_with_products())
def test_a_program_is_the_interpreter_but_for_what_a_library_computes(name: str, dtype: str) -> None:
    for shape in ((4, 6), (6, 4), (5, 5), (2, 3, 70)):
        replay = Replay(rules_of(name), NumPyMatrices(), shape, dtype, hypers=HYPERS)
        for threads in (1, 2, 1, 2):
            replay.step(threads)


@pytest.mark.parametrize("name", ["Muon", "SOAP"])
@pytest.mark.parametrize("matrices", [Matrices.FIRST_BY_REST, Matrices.ALL_BUT_LAST])
def test_filters_are_matrices(name: str, matrices: Matrices) -> None:
    for shape in ((8, 3, 2, 2), (3, 2, 2, 5)):
        replay = Replay(rules_of(name), NumPyMatrices(), shape, "float32", hypers=HYPERS, matrices=matrices)
        for _ in range(2):
            replay.step()


def test_symmetric_products_are_computed_by_halves() -> None:
    replay = Replay(rules_of("Muon"), NumPyMatrices(), (300, 270), "float32")
    replay.step(threads=2)
    squares = [record.out for record in replay.library.records if record.step.symmetric]
    assert squares
    assert all((x[:, :67, 67:] == x[:, 67:, :67].mT).all() for x in squares)


def test_small_parameters_go_together() -> None:
    rng = np.random.default_rng(0)
    params = [rng.standard_normal((8, 12)) for _ in range(9)]
    alone = [p.copy() for p in params]
    together, apart = optgen.Muon(), [optgen.Muon() for _ in params]
    for _ in range(3):
        gradients = [rng.standard_normal(p.shape) for p in params]
        together.step(params, gradients)
        for one, p, g in zip(apart, alone, gradients, strict=True):
            one.step([p], [g])
    for p, other in zip(params, alone, strict=True):
        np.testing.assert_allclose(p, other, rtol=1e-9)


def test_what_is_not_finite_gives_nan() -> None:
    replay = Replay(rules_of("Shampoo"), NumPyMatrices(), (4, 6), "float64", hypers=HYPERS)
    g = replay.gradient()
    g[1, 2] = np.inf
    replay.step(g=g)
    assert np.isnan(replay.arrays["p"]).all()


@pytest.mark.parametrize("op", ["eigenvectors", "eigenvalues", "leading", "orthonormal", "power"])
def test_what_does_not_converge_gives_nan(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, more = np.random.default_rng(0), {"leading": [2.0], "power": [0.5]}.get(op, [])
    matrices = rng.standard_normal((3, 4, 4))
    matrices = matrices @ matrices.mT
    alone = MATRICES[op](matrices, *more)

    def failing(real: Any) -> Any:
        def of(a: Any, *args: Any, **keywords: Any) -> Any:
            if (a == matrices[1]).all(axis=(1, 2)).any():
                raise np.linalg.LinAlgError("did not converge")
            return real(a, *args, **keywords)

        return of

    for name in ("eigh", "eigvalsh", "svd", "qr"):
        monkeypatch.setattr(np.linalg, name, failing(getattr(np.linalg, name)))
    found = MATRICES[op](matrices, *more)
    assert np.isnan(found[1]).all()
    assert (found[[0, 2]] == alone[[0, 2]]).all()


def test_the_interpreter_steps_where_it_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    p = rng.standard_normal((6, 4))
    q, g = p.copy(), rng.standard_normal((6, 4))
    optgen.SOAP().step([p], [g])
    optgen.SOAP(backend="interpreter").step([q], [g])
    assert (p == q).all()


def test_equal_formulas_share_a_kernel() -> None:
    programs = programs_of(rules_of("Muon")[0])
    assert programs is not None
    segments = programs.of(()).segments
    assert len({segment.rule for segment in segments}) < len(segments)


@pytest.mark.parametrize("after", [0, 1, 2, 5, 7])
def test_an_interrupted_step_goes_on(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal((6, 4)), [rng.standard_normal((6, 4)) for _ in range(3)]
    p, q = start.copy(), start.copy()
    interrupted, plain = optgen.SOAP(every=1), optgen.SOAP(every=1)
    real, calls = NumPyMatrices.compute, 0

    def compute(self: NumPyMatrices, step: Any, args: Any, out: Any) -> None:
        nonlocal calls
        real(self, step, args, out)
        calls += 1
        if calls == after + 1:
            raise KeyboardInterrupt

    for t, g in enumerate(gradients):
        plain.step([q], [g])
        if t == 2:
            monkeypatch.setattr(NumPyMatrices, "compute", compute)
            with pytest.raises(KeyboardInterrupt):
                interrupted.step([p], [g])
        else:
            interrupted.step([p], [g])
    assert calls > after
    assert (p == q).all()
    monkeypatch.undo()
    interrupted.step([p], [gradients[0]])
    plain.step([q], [gradients[0]])
    assert (p == q).all()


def counted(monkeypatch: pytest.MonkeyPatch, cls: type) -> list[None]:
    """As many entries as objects of a class are made from now on."""
    made: list[None] = []
    real = cls.__init__

    def init(self: Any, *args: Any, **more: Any) -> None:
        made.append(None)
        real(self, *args, **more)

    monkeypatch.setattr(cls, "__init__", init)
    return made


def test_a_step_like_those_before_makes_no_program_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    p, opt = rng.standard_normal((6, 4)), optgen.SOAP(every=2)
    for _ in range(4):
        opt.step([p], [rng.standard_normal(p.shape)])
    bound, scalars = counted(monkeypatch, programs.Chunk), counted(monkeypatch, Program)
    for _ in range(4):
        opt.step([p], [rng.standard_normal(p.shape)])
    assert (bound, scalars) == ([], [])


def test_parameters_one_by_one_are_bound_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    params, opt = [rng.standard_normal((4, 5 + i)) for i in range(8)], optgen.Muon()
    bound = counted(monkeypatch, programs.Chunk)
    for _ in range(3):
        for p in reversed(params):  # the largest first: memory grows once
            opt.step([p], [rng.standard_normal(p.shape)])
    assert len(bound) == len(params)


def test_all_courses_go_through_the_same_memory() -> None:
    replay = Replay(rules_of("SOAP"), NumPyMatrices(), (6, 4), "float64", hypers=HYPERS)
    for _ in range(6):
        replay.step()
    known = [chunk for (chunk,), _ in replay.steps._known.values()]
    assert len(known) > 1
    first = list(known[0].places.values())
    assert all(any(np.shares_memory(x, y) for y in first) for chunk in known for x in chunk.places.values())


def test_memory_for_reductions_is_taken_before_anything_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Binding) -> None:
        raise MemoryError

    rng = np.random.default_rng(0)
    p, g, opt = rng.standard_normal((6, 4)), rng.standard_normal((6, 4)), optgen.NorMuon()
    opt.step([p], [g])
    before, states = p.copy(), str(opt.state_dict())
    monkeypatch.setattr(Binding, "reserve", refused)
    with pytest.raises(MemoryError):
        opt.step([p], [g])
    assert (p == before).all()
    assert str(opt.state_dict()) == states


def test_a_step_that_failed_keeps_no_array_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def compute(self: NumPyMatrices, step: Any, args: Any, out: Any) -> None:
        raise MemoryError

    p, opt = np.ones((6, 4)), optgen.Muon()
    opt.step([p], [np.ones((6, 4))])
    monkeypatch.setattr(NumPyMatrices, "compute", compute)
    try:
        opt.step([p], [np.ones((6, 4))])
    except MemoryError as error:
        del error
    else:
        raise AssertionError("expected an error")
    alive = weakref.ref(p)
    del p
    gc.collect()
    assert alive() is None


def test_without_a_compiler_the_interpreter_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise CompilerNotFound("no compiler")

    monkeypatch.setattr(programs, "segments_for", missing)
    rng = np.random.default_rng(0)
    p, g = rng.standard_normal((6, 4)), rng.standard_normal((6, 4))
    q = p.copy()
    optgen.Muon().step([p], [g])
    optgen.Muon(backend="interpreter").step([q], [g])
    assert (p == q).all()
