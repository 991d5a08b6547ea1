"""The tail of a training step as one chain: unscale, clip, the rule, the average of weights, zeros for gradients."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from rules import same_everywhere

import optgen
from optgen.compiler import driver
from optgen.errors import ArrayError
from optgen.ir.expr import GRADIENT
from optgen.lowering.sweeps import sweeps_of
from optgen.optimiser import classes
from optgen.optimiser.base import compilation_of

BACKENDS = ("kernel", "interpreter")
PARTS: dict[str, Callable[[], Any]] = {
    "unscale": lambda: optgen.Unscale(1024.0),
    "clip": lambda: optgen.ClipGlobalNorm(0.5),
    "clip by value": lambda: optgen.ClipGrad(0.25),
    "rule": lambda: optgen.AdamW(weight_decay=0.01),
    "average": lambda: optgen.EMA(0.9),
    "zero": lambda: optgen.ZeroGrad(),
}
BAD = [np.inf, -np.inf, np.nan]


def tail(names: Any, backend: str) -> Any:
    return optgen.chain(*(PARTS[name]() for name in PARTS if name in names), backend=backend)


def world(seed: int = 0, scale: float = 1.0) -> list[np.ndarray]:
    """Arrays of several blocks, odd sizes and both dtypes."""
    rng = np.random.default_rng(seed)
    shapes = [(70, 33), (5,), (), (2, 3, 4), (3000,)]
    return [np.array(scale * rng.standard_normal(shape), "f4" if i % 2 else "f8") for i, shape in enumerate(shapes)]


def everything(opt: Any, ps: list[np.ndarray]) -> bytes:
    return pickle.dumps([[p, opt.state(p)] for p in ps])


SUBSETS = [names for n in range(len(PARTS)) for names in combinations([x for x in PARTS if x != "rule"], n)]


@pytest.mark.slow
@pytest.mark.parametrize("names", SUBSETS, ids=" ".join)
def test_any_subset_in_one_call_is_what_the_interpreter_makes_of_it(names: tuple[str, ...]) -> None:
    opts, worlds = [tail({*names, "rule"}, backend) for backend in BACKENDS], [world() for _ in BACKENDS]
    for t in range(4):
        given = world(t + 1, 512)
        left = [[g.copy() for g in given] for _ in BACKENDS]
        counts = [opt.step(ps, gs) for opt, ps, gs in zip(opts, worlds, left, strict=True)]
        assert counts == [True, True]
        for gs in left:
            assert all((g == 0).all() if "zero" in names else (g == h).all() for g, h in zip(gs, given, strict=True))
    same_everywhere(opts, worlds)


def test_it_reads_the_gradients_once_for_the_norm_and_goes_over_memory_once_more() -> None:
    opt = tail(PARTS, "kernel")
    (lowered,) = compilation_of(opt).lowered
    first, second = sweeps_of(lowered).sweeps
    assert (first.loads, first.stores) == ((GRADIENT,), ())
    assert second.stores == lowered.arrays
    alone = tail({"rule", "average", "zero"}, "kernel")
    assert len(sweeps_of(compilation_of(alone).lowered[0]).sweeps) == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    "names", [SUBSETS[-1], ("unscale",), ("unscale", "clip"), ("unscale", "average")], ids=" ".join
)
def test_a_gradient_that_is_not_finite_skips_the_step_whole(names: Any, bad: float, backend: str) -> None:
    opt, ps = tail({*names, "rule"}, backend), world()
    gs = world(1)
    assert opt.step(ps, gs) is True
    for which, place in ((0, (69, 32)), (0, (0, 0)), (2, ()), (4, 2999)):
        before = everything(opt, ps)
        gs = world(2)
        gs[which][place] = bad
        assert opt.step(ps, gs) is False
        assert everything(opt, ps) == before
        assert "zero" not in names or not any(g.any() for g in gs)
    assert opt.step(ps, world(3)) is True
    assert {opt.state(p)["t"] for p in ps} == {2}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_first_step_that_is_skipped_leaves_a_fresh_start(backend: str) -> None:
    made = []
    for skipped in (0, 3):
        opt, ps = tail(PARTS, backend), world()
        for _ in range(skipped):
            assert not opt.step(ps, [np.full_like(p, np.nan) for p in ps])
        opt.step(ps, world(1))
        made.append(everything(opt, ps))
    assert made[0] == made[1]


def test_states_of_every_extent_wait_for_the_verdict() -> None:
    """States of the group, of a parameter, of rows and of elements, all known before the gradients are."""
    text = """
name = "Early"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
[state]
k = { init = 0, extent = "group" }
s = { init = 0, extent = "tensor" }
r = { init = 0, extent = "row", when = "matrix" }
m = { init = 0 }
[update]
formulas = '''
k      = k + 1
s      = s + norm(p)
r      = r + sum(p, row)
m      = m + p
accept = norm(g, group) < 100
delta  = eta*g + k*s*m*1e-9*(r if matrix else 1)
'''
"""
    cls = classes.module_class(driver.compile_text(text, "early.toml"))
    opts, worlds = [cls(backend=backend) for backend in BACKENDS], [world() for _ in BACKENDS]
    for scale, expected in ((1.0, True), (100.0, False), (0.5, True)):
        before = [everything(opt, ps) for opt, ps in zip(opts, worlds, strict=True)]
        for opt, ps, was in zip(opts, worlds, before, strict=True):
            assert opt.step(ps, world(1, scale)) is expected
            assert (everything(opt, ps) == was) is not expected
    same_everywhere(opts, worlds)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_parts_must_accept(backend: str) -> None:
    text = """
name = "Small"
part = "gradient"
[update]
formulas = '''
accept = max(abs(g), group) < 1
delta  = g
'''
"""
    small = classes.module_class(driver.compile_text(text, "small.toml"))
    for parts in ([optgen.Unscale(2.0), small()], [small(), optgen.Unscale(2.0)]):
        opt, p = optgen.chain(*parts, optgen.Descent(1.0), backend=backend), np.zeros(3)
        big = parts[0].__class__ is not small
        for g, expected in (([0.5, 0, 0], True), ([np.nan, 0, 0], False), ([4.0, 0, 0], False), ([1.5, 0, 0], big)):
            assert opt.step([p], [np.array(g)]) is expected
        assert p[0] == -(0.25 + 0.75 * big)


def test_unscaling_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for scale in (65536.0, 3.0):
        ps, gs = [np.ones((3, 5), "f4")], [np.random.default_rng(0).standard_normal((3, 5)).astype("f4")]
        found, inverse = torch.zeros(1), torch.tensor(scale).double().reciprocal().float()
        theirs = [torch.from_numpy(g.copy()) for g in gs]
        torch._amp_foreach_non_finite_check_and_unscale_(theirs, found, inverse)
        optgen.chain(optgen.Unscale(scale), optgen.Descent(1.0)).step(ps, gs)
        assert (ps[0] == 1 - theirs[0].numpy()).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_unscaling_by_hand(backend: str) -> None:
    for scale in (65536.0, 3.0):
        opt, p = optgen.chain(optgen.Unscale(scale), optgen.Descent(0.5), backend=backend), np.array([1.0, -2.0])
        for g in ([scale, 2 * scale], [-5.0, 1e300], [0.0, 5e-324]):
            expected = [x - y * (1 / scale) * 0.5 for x, y in zip(p.tolist(), g, strict=True)]
            assert opt.step([p], [np.array(g)]) is True
            assert p.tolist() == expected


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loss_scale_by_hand(backend: str) -> None:
    opt, p = optgen.chain(optgen.LossScale(8.0, interval=2), optgen.Descent(1.0), backend=backend), np.zeros(2)
    assert opt.state() == {"scale": 8, "good": 0}
    for bad, scale, good in (
        (0, 8, 1), (0, 16, 0), (np.nan, 8, 0), (0, 8, 1), (np.inf, 4, 0), (-np.inf, 2, 0), (0, 2, 1), (0, 4, 0),
    ):  # fmt: skip
        before = opt.state()["scale"].item()
        expected = p - (0 if bad else 3.0)
        assert opt.step([p], [np.array([3 * before, 3 * before + bad])]) is (bad == 0)
        assert p.tolist() == expected.tolist()
        assert opt.state() == {"scale": scale, "good": good}
    assert opt.state(p)["t"] == 5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("first", [65536.0, 3.0, 2.0**126])
def test_a_loss_scale_goes_as_torchs_grad_scaler(first: float, backend: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    opt, p = optgen.chain(optgen.LossScale(first, interval=3), optgen.Descent(0.0), backend=backend), np.zeros(3, "f4")
    scale, tracker = torch.tensor(first), torch.tensor(0, dtype=torch.int32)
    for _ in range(300):
        bad = rng.random() < 0.15
        opt.step([p], [np.full(3, np.inf if bad else 1, "f4")])
        torch._amp_update_scale_(scale, tracker, torch.tensor(float(bad)), 2.0, 0.5, 3)
        assert (opt.state()["scale"], opt.state()["good"]) == (float(scale), int(tracker))


#: What changes in every step: by a number of the step, and by a norm that is known later than whether the step counts.
ALWAYS = """
name = "Seen"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
[state]
steps = { init = 0, extent = "group", always = true }
late  = { init = 0, extent = "group", always = true }
once  = { init = 0, extent = "group" }
s     = { init = 0, extent = "tensor" }
m     = { init = 0 }
[update]
formulas = '''
steps  = steps + 1
accept = norm(g, group) < 100
m      = m + g
s      = s + norm(m)
late   = late/2 + norm(m/s, group)
once   = once + late
delta  = eta*(g + m*1e-9) + once*1e-9
'''
"""


def test_states_that_always_change_do_so_in_a_step_that_does_not_count() -> None:
    cls = classes.module_class(driver.compile_text(ALWAYS, "seen.toml"))
    opts, worlds = [cls(backend=backend) for backend in BACKENDS], [world() for _ in BACKENDS]
    for t, (scale, counts) in enumerate(((100.0, False), (1.0, True), (100.0, False), (0.5, True)), 1):
        for opt, ps in zip(opts, worlds, strict=True):
            held, was = everything(opt, ps), {name: value.item() for name, value in opt.state().items()}
            assert opt.step(ps, world(t, scale)) is counts
            now = opt.state()
            assert now["steps"] == t
            assert now["late"] != was["late"]
            if not counts:
                opt.set_state(ps[0], **{name: was[name] for name in ("steps", "late")})
                assert everything(opt, ps) == held
                opt.set_state(ps[0], **{name: value.item() for name, value in now.items()} | {"steps": t})
        same_everywhere(opts, worlds)


def test_states_that_always_change_are_saved() -> None:
    made = []
    for resumed in (False, True):
        opt, ps = optgen.chain(optgen.LossScale(8.0, interval=2), optgen.ADAM()), world()
        for t in range(6):
            if resumed and t in (1, 3):  # after a first step that did not count, and later
                saved = opt.state_dict()
                opt = pickle.loads(pickle.dumps(opt))
                opt.load_state_dict(saved, ps)
            bad = np.nan if t in (0, 4) else 1
            opt.step(ps, [g * bad for g in world(t)])
        made.append(everything(opt, ps))
    assert made[0] == made[1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_zeros_by_hand(backend: str) -> None:
    opt, p, g = optgen.chain(optgen.Descent(0.5), optgen.ZeroGrad(), backend=backend), np.zeros(3), np.zeros(3)
    for t in range(1, 4):
        g += [2.0, -4.0, np.pi]  # as a backward adds to it
        opt.step([p], [g])
        assert (p == -t * np.array([1.0, -2.0, np.pi / 2])).all()
        assert g.tolist() == [0, 0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
class TestZeroGrad:
    def opt(self, backend: str) -> Any:
        return optgen.chain(optgen.Descent(1.0), optgen.ZeroGrad(), backend=backend)

    def test_gradients_are_overwritten_where_they_stand(self, backend: str) -> None:
        opt, memory = self.opt(backend), np.arange(24.0).reshape(4, 6)
        p, g = np.zeros((2, 3)), memory[::2, ::-2]
        for _ in range(2):
            opt.step([p], [g])
        assert p.tolist() == [[-5, -3, -1], [-17, -15, -13]]
        assert not g.any()
        assert memory[1].all()

    def test_other_gradients_than_before_are_checked(self, backend: str) -> None:
        opt, ps = self.opt(backend), [np.zeros(3), np.zeros(3)]
        for t in range(1, 4):
            gs = [np.ones(3), np.ones(3)]
            opt.step(ps, gs)
            assert not any(g.any() for g in gs)
            assert [p.tolist() for p in ps] == [[-t] * 3] * 2
        one = np.ones(6)
        with pytest.raises(
            ArrayError, match="expected arrays apart in memory, got an overlap of gradient 0 and gradient 1"
        ):
            opt.step(ps, [one[:3], one[2:5]])

    @pytest.mark.parametrize(
        ("gradients", "message"),
        [
            (lambda g: [g, g], "expected arrays apart in memory, got an overlap of gradient 0 and gradient 1"),
            (
                lambda g: [g, np.broadcast_to(np.ones(1), 3)],
                "gradient 1: expected a writable array, got a read-only one",
            ),
            (
                lambda g: [g, as_strided(np.ones(1), (3,), (0,))],
                "gradient 1: expected elements apart",
            ),
        ],
    )
    def test_gradients_that_cannot_be_overwritten_are_refused(self, gradients: Any, message: str, backend: str) -> None:
        opt, ps = self.opt(backend), [np.ones(3), np.ones(3)]
        with pytest.raises(ArrayError, match=message):
            opt.step(ps, gradients(np.ones(3)))
        assert [p.tolist() for p in ps] == [[1] * 3] * 2

    def test_without_it_gradients_may_be_shared_and_read_only(self, backend: str) -> None:
        opt, ps = optgen.Descent(1.0, backend=backend), [np.ones(3), np.ones(3)]
        opt.step(ps, [np.broadcast_to(np.ones(1), 3)] * 2)
        assert [p.tolist() for p in ps] == [[0] * 3] * 2


def test_states_of_small_matrices_wait_for_the_verdict_too() -> None:
    shapes = [(20, 30, 3, 3), (5,), (64, 64, 1, 1), (40, 50), (7, 2, 70)]

    def arrays(seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [rng.standard_normal(shape).astype("f4") for shape in shapes]

    for rule in (optgen.Adafactor, optgen.SM3):
        opts = [optgen.chain(optgen.Unscale(4.0), rule(), backend=backend) for backend in BACKENDS]
        worlds = [arrays(0)[:5] if rule is optgen.Adafactor else [p for p in arrays(0) if p.ndim > 1] for _ in BACKENDS]
        for t in range(4):
            for opt, ps in zip(opts, worlds, strict=True):
                before = everything(opt, ps)
                gs = [np.full_like(p, t + 0.5) * p for p in ps]
                gs[0][3, 2, 1, 1] = np.nan if t == 2 else 1
                assert opt.step(ps, gs) is (t != 2)
                assert (everything(opt, ps) == before) is (t == 2)
        same_everywhere(opts, worlds)
