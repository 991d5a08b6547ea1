"""Reports: what a step computes and nobody keeps, from kernels as from the interpreter, at no further sweep."""

from __future__ import annotations

import gc
import pickle
from typing import Any

import numpy as np
import pytest

import optgen
from optgen.cli import markdown, pages
from optgen.compiler import driver
from optgen.errors import StateError
from optgen.frozen import replace
from optgen.lowering.dead_code import run as without_dead_code
from optgen.lowering.sweeps import sweeps_of
from optgen.optimiser import classes
from optgen.optimiser.base import compilation_of

BACKENDS = ("kernel", "interpreter")
#: Reports of every extent: of values that formulas have names for, of states old and new, of what nothing else needs.
EVERY = """
name = "Every"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
k   = { default = 3, range = "[1, inf), whole" }
[flags]
more = { default = true }
[state]
m = { init = 0 }
s = { init = 0, extent = "tensor" }
c = { init = 0, extent = "column", when = "matrix" }
d = { init = 1, extent = "group" }
[update]
MATRICES
formulas = '''
m      = m/2 + g
n      = norm(g)
s      = n if t % k == 1 else s
c      = c/2 + sum(g*g, column)
d      = d + norm(m, group)
accept = d < 1e6
delta  = eta*m/(1 + n) + eta*(c if matrix else 0)*1e-3 + d*1e-9
'''
[report]
rate    = { value = "eta/t", doc = "a number of the step" }
three   = { value = "1 + 2", doc = "a constant" }
moved   = { value = "norm(delta, group)", doc = "of all parameters" }
d       = { value = "d", doc = "a state of all parameters" }
norm    = { value = "n", doc = "what a formula has a name for" }
s       = { value = "s", doc = "a state of one number" }
clipped = { value = "mean(1 if abs(g) > 1 else 0)", when = "more", doc = "what nothing else needs" }
both    = { value = "n*rows/length(-1)", when = "matrix", doc = "of a shape" }
mats    = { value = "norm(m - g, matrix)", when = "matrix" }
rows    = { value = "max(m, row)", when = "matrix" }
c       = { value = "c", when = "matrix" }
column  = { value = "mean(delta, column)", when = "matrix" }
"""


def made(text: str) -> Any:
    return classes.module_class(driver.compile_text(text, "test.toml"))


def world(seed: int) -> list[np.ndarray]:
    """Dense, strided and small, of both dtypes."""
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(shape) for shape in ((3, 4), (70, 3, 5), (5,), (), (2, 3, 4, 5), (1200, 40))]
    return [*(x.astype("f4") for x in arrays), rng.standard_normal((7, 9)).T, rng.standard_normal((8, 6))[::2, ::-1]]


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


@pytest.mark.parametrize("matrices", ["", 'matrices = "first by rest"'], ids=["last two", "first by rest"])
def test_reports_of_every_extent_are_those_of_the_interpreter(matrices: str) -> None:
    cls = made(EVERY.replace("MATRICES", matrices))
    for flags in ({}, {"more": False}):
        opts, worlds = [cls(backend=backend, **flags) for backend in BACKENDS], [world(0) for _ in BACKENDS]
        for t in range(1, 5):
            for opt, ps in zip(opts, worlds, strict=True):
                assert opt.step(ps, [g if p.shape else np.float32(g) for p, g in zip(ps, world(t), strict=True)])
            assert same(opts[0].report(), opts[1].report())
            for p, q in zip(*worlds, strict=True):
                report = opts[0].report(p)
                assert same(report, opts[1].report(q))
                assert report.keys() >= {"rate", "three", "moved", "d", "norm", "s"}
                assert ("clipped" in report) is not bool(flags)
                assert ("rows" in report) is (p.ndim > 1)
            assert (opts[0].report()["three"], opts[0].report()["rate"]) == (3.0, 0.1 / t)
            assert opts[0].report()["d"] == opts[0].state()["d"]
            assert np.array_equal(opts[0].report(worlds[0][1])["c"], opts[0].state(worlds[0][1])["c"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_reports_by_hand(backend: str) -> None:
    opt = optgen.chain(
        optgen.ClipGrad(2.0, reporting=True), optgen.ClipNorm(1.5), optgen.ClipGlobalNorm(1.0), optgen.LAMB(eta=0.1),
        backend=backend,
    )  # fmt: skip
    V, W = np.array([3.0, 4.0]), np.ones((2, 2))
    opt.step([V, W], [np.array([3.0, -0.5]), np.array([[0.25, 0.0], [1.0, -1.0]])])
    first, second = np.sqrt(2**2 + 0.5**2), np.sqrt(1 + 1 + 1 / 16)
    assert opt[0].report(V) == {"clipped": 0.5}
    assert opt[0].report(W) == {"clipped": 0.0}
    assert opt[1].report(V) == {"norm": first, "clipped": 1.0}
    assert opt[1].report(W) == {"norm": second, "clipped": 0.0}
    assert opt.report() == {"clipglobalnorm/norm": pytest.approx(np.hypot(1.5, second), rel=1e-15)}
    # The first step of ADAM is the sign of the gradient, as good as that.
    assert opt[3].report(V) == {"trust_ratio": pytest.approx(5 / np.sqrt(2), rel=1e-5)}
    assert opt.report(V).keys() == {
        "clipgrad/clipped", "clipnorm/norm", "clipnorm/clipped", "clipglobalnorm/norm", "lamb/trust_ratio"
    }  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
def test_there_is_no_report_before_a_step_none_of_others_and_none_of_a_step_that_does_not_count(backend: str) -> None:
    opt, V, W = optgen.chain(optgen.Unscale(1.0), optgen.LAMB(), backend=backend), np.ones(3), np.ones((2, 3))
    with pytest.raises(StateError, match="Unscale_LAMB: expected a report of the last step, and there was none yet"):
        opt.report()
    opt.step([V, W], [V / 2, W / 2])
    assert opt[1].report(V)["trust_ratio"] > 0
    with pytest.raises(StateError, match="expected a parameter of the last step, got another one"):
        opt.report(np.ones(3))
    assert not opt.step([V, W], [V / 2, W * np.nan])
    assert opt.report() == opt.report(V) == opt[1].report(V) == {}
    alone = optgen.LAMB(backend=backend)
    alone.step([V], [V / 2])
    alone.step([W], [W / 2])
    assert alone.report(W)["trust_ratio"] > 0
    with pytest.raises(StateError, match="expected a parameter of the last step"):
        alone.report(V)


PHASES = """
name = "Phases"
[flags]
more = { default = false }
[update.first]
formulas = "p = p + g"
[update.second]
formulas = "delta = g"
[report]
norm = { value = "norm(g)", doc = "of the second gradient" }
most = { value = "max(g)", when = "more" }
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_report_of_phases_comes_with_the_last_one(backend: str) -> None:
    opt, W = classes.module_class(driver.compile_text(PHASES, "phases.toml"))(backend=backend), np.ones(4)
    for step in (1.0, 2.0):
        if step == 1.0:
            opt.step([W], [W / 2])
            with pytest.raises(StateError, match="no whole step yet: a report comes with its last phase"):
                opt.report(W)
        else:
            opt.step([W], [7 * W])
            assert opt.report(W) == {"norm": 2.0}  # still that of the step before
        opt.step([W], [np.full(4, step)])
        assert opt.report(W) == {"norm": 2 * step}


def test_the_words_about_a_report_of_phases() -> None:
    compilation = driver.compile_text(PHASES, "phases.toml")
    for variant, reports in enumerate((["norm"], ["norm", "most"])):
        blocks = [*pages.show(compilation, variant)]
        table = blocks[blocks.index("\nReports") + 1]
        assert isinstance(table, pages.Table)
        assert [row[0] for row in table.rows] == reports
    assert "| in the last phase, only with more=True |" in markdown.page(compilation, 0)
    assert markdown.page(compilation, 1).count("| in the last phase |") == 2
    doc = classes.module_class(compilation).__doc__
    assert doc is not None
    assert "norm: of the second gradient; one number, ‖g‖; in the last phase\n" in doc


def test_a_rule_without_reports_reports_nothing() -> None:
    opt, W = optgen.ADAM(), np.ones(3)
    assert opt.report() == opt.report(W) == {}
    opt.step([W], [W / 2])
    assert opt.report() == opt.report(W) == {}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_part_that_waits_reports_nan(backend: str) -> None:
    opt, W = (
        optgen.chain(optgen.AccumGrad(2), optgen.ClipNorm(99), optgen.ClipNorm(99), backend=backend),
        np.ones((4, 3)),
    )
    for t in range(4):
        opt.step([W], [np.full_like(W, t + 1)])
        norms = opt[1].report(W)["norm"], opt[2].report(W)["norm"], opt.report(W)["clipnorm1/norm"]
        assert np.isnan(norms).all() if t % 2 == 0 else norms == pytest.approx(np.sqrt(12) * np.array([t + 0.5] * 3))


def test_reports_are_no_states() -> None:
    opts, W = [optgen.LAMB(), optgen.LAMB()], np.ones(3)
    for opt in opts:
        opt.step([W.copy()], [W / 2])
    opts[0].report()
    assert pickle.dumps(opts[0].state_dict()) == pickle.dumps(opts[1].state_dict())
    again = pickle.loads(pickle.dumps(opts[0]))
    with pytest.raises(StateError, match="there was none yet"):
        again.report()


def test_a_report_keeps_no_parameter_alive() -> None:
    opt, W = optgen.LAMB(), np.ones(3)
    opt.step([W], [W / 2])
    assert opt.report(W)
    del W
    gc.collect()
    assert len(opt.state_dict()["parameters"]) == 0
    assert opt.report() == {}


def test_a_report_costs_no_sweep_where_one_is_there() -> None:
    """Nor any array that is read or written: not of what a formula has, and not of a norm of what is written."""
    shipped = [compilation_of(optgen.LAMB), compilation_of(optgen.ClipGrad)]
    for compilation in (*shipped, driver.compile_text(EVERY.replace("MATRICES", ""), "every.toml")):
        for rule, low in zip(compilation.rules, compilation.lowered, strict=True):
            assert low.reports == rule.reports
            alone = sweeps_of(without_dead_code(replace(low, reports=())))
            assert sweeps_of(low).count == alone.count
            assert compilation not in shipped or sweeps_of(low).traffic == alone.traffic


def test_what_only_a_report_needs_waits_for_its_flag() -> None:
    for rule, low in zip(compilation_of(optgen.ClipGrad).rules, compilation_of(optgen.ClipGrad).lowered, strict=True):
        assert sweeps_of(low).reduces is rule.flags[0].value


def test_a_state_that_is_older_than_a_flag_is_loaded() -> None:
    opt, W = optgen.chain(optgen.ClipGrad(), optgen.ADAM()), np.ones(3)
    opt.step([W], [W / 2])
    saved = opt.state_dict()
    assert saved["flags"] == {"reporting of part 0": False}
    other = optgen.chain(optgen.ClipGrad(), optgen.ADAM())
    other.load_state_dict(saved | {"flags": {}}, [W])
    assert other.state(W)["t"] == 1
    with pytest.raises(StateError, match="expected a state with the flags"):
        optgen.chain(optgen.ClipGrad(reporting=True), optgen.ADAM()).load_state_dict(saved, [W])
