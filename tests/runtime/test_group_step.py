"""Steps in which tensors take part in different variants of a rule, or at different counts, and have values in common:
kernel and interpreter agree to the bit, whatever each variant makes of what it shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import optgen
from optgen.compiler import driver
from optgen.lowering.sweeps import sweeps_of
from optgen.lowering.work import Group
from optgen.optimiser import classes
from optgen.optimiser.base import compilation_of

SHAPES = ((2, 3), (4,), (3, 2, 70), (), (1100,))


def rule(formulas: str, states: str = "") -> Any:
    text = f"""name = "R"
[hyperparameters]
eta = {{ default = 0.5, range = "[0, inf)" }}
[state]
{states}
[update]
formulas = '''
{formulas}
'''
"""
    return classes.module_class(driver.compile_text(text, "r.toml"))


MIXED = {
    "read in one variant only": "n = norm(g, group)\ndelta = eta*(g/n if matrix else g)",
    "other scalars of the group": "n = norm(g, group)\nx = (n*2 + 1 if matrix else n)\ndelta = eta*x*g",
    "one waits for the other in one variant": (
        "a = norm(g, group)\nb = norm(g/a if matrix else g, group)\ndelta = g/b*a*eta"
    ),
    "the same in one variant": "a = norm(g, group)\nb = norm(p if matrix else g, group)\ndelta = eta*g/b*a",
    "after a norm of its own in one variant": (
        "x = (g/norm(g) if matrix else g)\na = sum(x*x, group)\nb = max(p, group)\ndelta = eta*g*a/b"
    ),
    "the later one known first": "a = sum(g/norm(g) if matrix else g, group)\nb = min(p, group)\ndelta = eta*g*a + b",
    "of values of tensors": (
        "a = sum(norm(g), group)\nb = sum(norm(p)*a, group)\ndelta = eta*g*a/b*(2 if matrix else 1)"
    ),
    "rows and columns between": (
        "a = norm(g - mean(g, row) if matrix else g, group)\nx = (max(g, column)*a if matrix else a)\n"
        "delta = eta*x/mean(p, group)"
    ),
}


def path(make: Callable[[str], Any], backend: str, steps: int = 3) -> list[bytes]:
    rng = np.random.default_rng(0)
    params = [np.asarray(rng.standard_normal(shape)) for shape in SHAPES]
    params[1] = params[1].astype(np.float32)
    opt, seen = make(backend), []
    for _ in range(steps):
        grads = [np.asarray(rng.standard_normal(p.shape)).astype(p.dtype) for p in params]
        opt.step(params, grads)
        seen += [p.tobytes() for p in params]
        seen += [np.asarray(value).tobytes() for p in params for value in opt.state(p).values()]
    return seen


@pytest.mark.parametrize("formulas", MIXED.values(), ids=MIXED)
def test_matrices_and_others_reduce_together(formulas: str) -> None:
    cls = rule(formulas)
    assert {r.matrix for r in compilation_of(cls).rules} == {True, False}
    assert path(lambda b: cls(backend=b), "kernel") == path(lambda b: cls(backend=b), "interpreter")


@pytest.mark.parametrize(
    "parts",
    [
        lambda: (optgen.GradientCentralisation(), rule("a = norm(g, group)\nb = norm(p, group)\ndelta = eta*g*a/b")()),
        lambda: (optgen.GradientCentralisation(), rule("b = norm(p, group)\na = norm(g, group)\ndelta = eta*g*a/b")()),
        lambda: (optgen.Adafactor(), optgen.ClipGlobalNorm(0.1)),
        lambda: (optgen.ClipGlobalNorm(0.5), optgen.SM3(), optgen.ClipGlobalNorm(0.1), optgen.EMA()),
    ],
)
def test_so_do_the_parts_of_chains(parts: Callable[[], tuple[Any, ...]]) -> None:
    kernel = path(lambda b: optgen.chain(*parts(), backend=b), "kernel")
    assert kernel == path(lambda b: optgen.chain(*parts(), backend=b), "interpreter")


def test_reductions_over_the_group_come_in_the_order_of_their_keys() -> None:
    for formulas in MIXED.values():
        for lowered in compilation_of(rule(formulas)).lowered:
            works = [work for work in sweeps_of(lowered).work if isinstance(work, Group)]
            keys = [a.value.key for work in works for a in work.code if hasattr(a.value, "key")]
            assert keys == sorted(set(keys)) == list(range(len(keys)))
            assert keys


@pytest.mark.parametrize("backend", ["kernel", "interpreter"])
def test_what_is_computed_once_has_the_largest_count_and_one_state(backend: str) -> None:
    cls = rule("before = k\nk = k + t\ndelta = eta*g*(before + 0*k)", 'k = { init = 0, extent = "group" }')
    opt, a, b, g = cls(backend=backend), np.zeros(2), np.zeros(2), np.ones(2)
    opt.step([a], [g])
    opt.step([a], [g])
    opt.step([a, b], [g, g])  # b for the first time, a for the third
    opt.step([b, a], [g, g])
    assert opt.state(a)["k"] == opt.state(b)["k"] == 1 + 2 + 3 + 4
    assert (opt.state(a)["t"], opt.state(b)["t"]) == (4, 2)
    assert a.tolist() == [-0.5 * (0 + 1 + 3 + 6)] * 2
    assert b.tolist() == [-0.5 * (3 + 6)] * 2


@pytest.mark.parametrize("backend", ["kernel", "interpreter"])
def test_a_state_of_the_group_that_nothing_is_reduced_for_is_kept(backend: str) -> None:
    cls = rule("delta = eta*g*k\nk = t", 'k = { init = 3, extent = "group" }')
    opt, p, g = cls(backend=backend), np.zeros(2), np.ones(2)
    for steps, k in ((3, 1), (3 + 1, 2), (3 + 1 + 2, 3)):
        opt.step([p], [g])
        assert p.tolist() == [-0.5 * steps] * 2
        assert opt.state(p)["k"] == k


def test_a_hyperparameter_that_follows_a_schedule_has_one_value_for_the_group() -> None:
    cls = rule("k = k + eta\ndelta = g*k", 'k = { init = 0, extent = "group" }')
    for backend in ("kernel", "interpreter"):
        opt, a, b, g = cls(eta=lambda t: float(t), backend=backend), np.zeros(2), np.zeros(2), np.ones(2)
        opt.step([a], [g])
        opt.step([a, b], [g, g])
        assert opt.state(a)["k"] == 1 + 2
        assert (a.tolist(), b.tolist()) == ([-4.0] * 2, [-3.0] * 2)
