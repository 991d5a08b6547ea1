"""The parts of chains, each in a chain, against trajectories by hand: what a part does, over `flux_by_hand.py`'s rules.

A hand holds one parameter, as a flat list of numbers: `hand(p, g)` gives the parameter after one more step.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import flux_by_hand
import numpy as np
import pytest
from papers_by_hand import Array, assert_same_path, gradients, start

import optgen
from optgen import errors

SHAPES = ((8,), (3, 4), (), (2, 3, 2), (1, 5))
STEPS = 120
SEED_RULES = tuple(flux_by_hand.RULES)
Vector = list[float]
Hand = Callable[[Vector, Vector], Vector]


def chain(*parts: Any) -> Any:
    return optgen.chain(*parts, backend="interpreter")


def start_of(shapes: tuple[tuple[int, ...], ...] = SHAPES) -> list[Array]:
    return [np.array(start(shape) + 0.01 * i) for i, shape in enumerate(shapes)]


def gradients_of(steps: int = STEPS, shapes: tuple[tuple[int, ...], ...] = SHAPES) -> list[list[Array]]:
    """For each step the gradient of every parameter."""
    columns = [gradients(steps, shape, seed) for seed, shape in enumerate(shapes, 20)]
    return [[np.array(column[t]) for column in columns] for t in range(steps)]


def walk(opt: Any, ps: list[Array], grads: list[list[Array]]) -> list[list[Array]]:
    """The parameters after each step; `ps` are moved."""
    path = []
    for gs in grads:
        opt.step(ps, [g.copy() for g in gs])
        path.append([p.copy() for p in ps])
    return path


def walk_by_hand(hands: list[Hand], ps: list[Array], grads: list[list[Array]]) -> list[list[Array]]:
    path, flat = [], [p.ravel().tolist() for p in ps]
    for gs in grads:
        flat = [hand(p, g.ravel().tolist()) for hand, p, g in zip(hands, flat, gs, strict=True)]
        path.append([np.reshape(p, q.shape) for p, q in zip(flat, ps, strict=True)])
    return path


def assert_follows(
    opt: Any,
    hand: Callable[[tuple[int, ...]], Hand],
    *,
    steps: int = STEPS,
    shapes: tuple[tuple[int, ...], ...] = SHAPES,
    grads: list[list[Array]] | None = None,
) -> None:
    """The chain walks as the hands do, of which `hand(shape)` makes one for each parameter."""
    grads = grads or gradients_of(steps, shapes)
    expected = walk_by_hand([hand(shape) for shape in shapes], start_of(shapes), grads)
    path = walk(opt, start_of(shapes), grads)
    for i, p in enumerate(start_of(shapes)):
        assert_same_path([ps[i] for ps in path], [ps[i] for ps in expected], p)
        assert not np.array_equal(path[-1][i], p), "nothing moved: this shows nothing"


def same(a: Any, b: Any) -> bool:
    """Whether two values, state dicts for example, are the same down to the bits of their arrays."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def rule(name: str, **hyper: Any) -> Hand:
    """A rule of the seed by hand, alone."""
    return flux_by_hand.RULES[name](**hyper).step


def before(transform: Hand, hand: Hand) -> Hand:
    """A part before a rule changes its gradient."""
    return lambda p, g: hand(p, transform(p, g))


def steps_of(hand: Hand) -> Hand:
    """What a rule subtracts. Only for rules that do not look at the parameter."""
    return lambda p, g: [-x for x in hand([0.0] * len(p), g)]


def behind(hand: Hand, transform: Hand) -> Hand:
    """A part behind a rule changes its step."""
    steps = steps_of(hand)
    return lambda p, g: [w - d for w, d in zip(p, transform(p, steps(p, g)), strict=True)]


# ---- What each part does to a gradient, by hand ----


def decay(lam: float) -> Hand:
    return lambda p, g: [x + lam * w for w, x in zip(p, g, strict=True)]


def sign_decay(lam: float) -> Hand:
    return lambda p, g: [x + math.copysign(lam, w) * (w != 0) for w, x in zip(p, g, strict=True)]


def clip(bound: float) -> Hand:
    return lambda p, g: [sorted((-bound, x, bound))[1] for x in g]


def clip_norm(omega: float) -> Hand:
    def transform(p: Vector, g: Vector) -> Vector:
        norm = math.hypot(*g)
        return [omega * (x / norm) for x in g] if norm > omega else g

    return transform


def inverse_decay(gamma: float) -> Hand:
    divisor = 1.0

    def transform(p: Vector, g: Vector) -> Vector:
        nonlocal divisor
        divisor += gamma
        return [x / divisor for x in g]

    return transform


def exponential_decay(eta: float, factor: float, every: int, least: float) -> Hand:
    """Step by step, as one would turn a knob."""
    rate, t = eta, 0

    def transform(p: Vector, g: Vector) -> Vector:
        nonlocal rate, t
        t += 1
        if t % every == 0:
            rate = max(rate * factor, least)
        return [rate * x for x in g]

    return transform


def centralise(shape: tuple[int, ...]) -> Hand:
    if len(shape) < 2:
        return lambda p, g: g
    width = math.prod(shape[1:])

    def transform(p: Vector, g: Vector) -> Vector:
        rows = [g[i : i + width] for i in range(0, len(g), width)]
        return [x - math.fsum(row) / width for row in rows for x in row]

    return transform


def accumulate(n: int, hand: Hand) -> Hand:
    waiting: list[Vector] = []

    def step(p: Vector, g: Vector) -> Vector:
        waiting.append(g)
        if len(waiting) < n:
            return p
        mean = [math.fsum(values) / n for values in zip(*waiting, strict=True)]
        waiting.clear()
        return hand(p, mean)

    return step


def cautious(hand: Hand) -> Hand:
    def step(p: Vector, g: Vector) -> Vector:
        steps = steps_of(hand)(p, g)
        agreed = [(d > 0 and x > 0) or (d < 0 and x < 0) for d, x in zip(steps, g, strict=True)]
        scale = len(p) / (1.0 + agreed.count(True))
        return [w - scale * d if keep else w for w, d, keep in zip(p, steps, agreed, strict=True)]

    return step


def look_ahead(k: int, alpha: float, hand: Hand) -> Hand:
    slow: Vector = []
    t = 0

    def step(p: Vector, g: Vector) -> Vector:
        nonlocal slow, t
        slow, t = slow or p, t + 1
        p = hand(p, g)
        if t % k == 0:
            p = slow = [(1.0 - alpha) * s + alpha * w for s, w in zip(slow, p, strict=True)]
        return p

    return step


# ---- Each part in a chain ----

CASES: dict[str, tuple[Callable[[], Any], Callable[[tuple[int, ...]], Hand]]] = {
    "WeightDecay, ADAM": (
        lambda: chain(optgen.WeightDecay(1e-2), optgen.ADAM()),
        lambda shape: before(decay(1e-2), rule("ADAM")),
    ),
    "ADAM, WeightDecay": (
        lambda: chain(optgen.ADAM(), optgen.WeightDecay(1e-2)),
        lambda shape: behind(rule("ADAM"), decay(1e-2)),
    ),
    "WeightDecay by default": (
        lambda: chain(optgen.WeightDecay(), optgen.Descent()),
        lambda shape: before(decay(5e-4), rule("Descent")),
    ),
    "WeightDecay, ADAMW, which looks at the parameter itself": (
        lambda: chain(optgen.WeightDecay(0.1), optgen.ADAMW(0.01, decay=0.02)),
        lambda shape: before(decay(0.1), rule("ADAMW", eta=0.01, decay=0.02)),
    ),
    "SignDecay, Momentum": (
        lambda: chain(optgen.SignDecay(0.05), optgen.Momentum()),
        lambda shape: before(sign_decay(0.05), rule("Momentum")),
    ),
    "SignDecay by default, WeightDecay, RMSProp": (
        lambda: chain(optgen.SignDecay(), optgen.WeightDecay(0.034), optgen.RMSProp()),
        lambda shape: before(sign_decay(1e-3), before(decay(0.034), rule("RMSProp"))),
    ),
    "ADADelta, SignDecay": (
        lambda: chain(optgen.ADADelta(), optgen.SignDecay(1e-4)),
        lambda shape: behind(rule("ADADelta"), sign_decay(1e-4)),
    ),
    "ClipGrad, Nesterov": (
        lambda: chain(optgen.ClipGrad(0.5), optgen.Nesterov()),
        lambda shape: before(clip(0.5), rule("Nesterov")),
    ),
    "ClipGrad by default, Descent": (
        lambda: chain(optgen.ClipGrad(), optgen.Descent()),
        lambda shape: before(clip(10.0), rule("Descent")),
    ),
    "Momentum, ClipGrad": (
        lambda: chain(optgen.Momentum(), optgen.ClipGrad(0.02)),
        lambda shape: behind(rule("Momentum"), clip(0.02)),
    ),
    "ClipNorm, ADAM": (
        lambda: chain(optgen.ClipNorm(1.0), optgen.ADAM()),
        lambda shape: before(clip_norm(1.0), rule("ADAM")),
    ),
    "ClipNorm by default, Descent": (
        lambda: chain(optgen.ClipNorm(), optgen.Descent()),
        lambda shape: before(clip_norm(10.0), rule("Descent")),
    ),
    "ADAM, ClipNorm": (
        lambda: chain(optgen.ADAM(0.1), optgen.ClipNorm(0.15)),
        lambda shape: behind(rule("ADAM", eta=0.1), clip_norm(0.15)),
    ),
    "InvDecay, Descent": (
        lambda: chain(optgen.InvDecay(0.25), optgen.Descent()),
        lambda shape: before(inverse_decay(0.25), rule("Descent")),
    ),
    "ADAM, InvDecay by default": (
        lambda: chain(optgen.ADAM(), optgen.InvDecay()),
        lambda shape: behind(rule("ADAM"), inverse_decay(0.001)),
    ),
    "ExpDecay, Momentum": (
        lambda: chain(optgen.ExpDecay(0.5, 0.3, 7, 1e-3), optgen.Momentum(1.0)),
        lambda shape: before(exponential_decay(0.5, 0.3, 7, 1e-3), rule("Momentum", eta=1.0)),
    ),
    "ADAM, ExpDecay that is below its clip at first": (
        lambda: chain(optgen.ADAM(1.0), optgen.ExpDecay(0.01, every=50, clip=0.02)),
        lambda shape: behind(rule("ADAM", eta=1.0), exponential_decay(0.01, 0.1, 50, 0.02)),
    ),
    "ExpDecay by default, Descent": (
        lambda: chain(optgen.ExpDecay(), optgen.Descent()),
        lambda shape: before(exponential_decay(0.001, 0.1, 1000, 1e-4), rule("Descent")),
    ),
    "AccumGrad, ADAM": (
        lambda: chain(optgen.AccumGrad(5), optgen.ADAM()),
        lambda shape: accumulate(5, rule("ADAM")),
    ),
    "AccumGrad by default, ADAMW": (
        lambda: chain(optgen.AccumGrad(), optgen.ADAMW(decay=0.01)),
        lambda shape: accumulate(2, rule("ADAMW", decay=0.01)),
    ),
    "AccumGrad of one, RMSProp": (
        lambda: chain(optgen.AccumGrad(1), optgen.RMSProp()),
        lambda shape: accumulate(1, rule("RMSProp")),
    ),
    "AccumGrad, WeightDecay, InvDecay, NADAM": (
        lambda: chain(optgen.AccumGrad(3), optgen.WeightDecay(0.01), optgen.InvDecay(0.1), optgen.NADAM()),
        lambda shape: accumulate(3, before(decay(0.01), before(inverse_decay(0.1), rule("NADAM")))),
    ),
    "ClipGrad, InvDecay, AccumGrad, Momentum": (
        lambda: chain(optgen.ClipGrad(2.0), optgen.InvDecay(0.1), optgen.AccumGrad(4), optgen.Momentum()),
        lambda shape: before(clip(2.0), before(inverse_decay(0.1), accumulate(4, rule("Momentum")))),
    ),
    "AccumGrad in AccumGrad": (
        lambda: chain(optgen.AccumGrad(2), optgen.AccumGrad(3), optgen.ADAM()),
        lambda shape: accumulate(2, accumulate(3, rule("ADAM"))),
    ),
    "AccumGrad, Momentum, Lookahead": (
        lambda: chain(optgen.AccumGrad(3), optgen.Momentum(), optgen.Lookahead(4, 0.25)),
        lambda shape: accumulate(3, look_ahead(4, 0.25, rule("Momentum"))),
    ),
    "GradientCentralisation, ADAM": (
        lambda: chain(optgen.GradientCentralisation(), optgen.ADAM()),
        lambda shape: before(centralise(shape), rule("ADAM")),
    ),
    "GradientCentralisation, ClipNorm, Descent": (
        lambda: chain(optgen.GradientCentralisation(), optgen.ClipNorm(1.0), optgen.Descent()),
        lambda shape: before(centralise(shape), before(clip_norm(1.0), rule("Descent"))),
    ),
    "ADAM, Cautious": (
        lambda: chain(optgen.ADAM(), optgen.Cautious()),
        lambda shape: cautious(rule("ADAM")),
    ),
    "Momentum, Cautious": (
        lambda: chain(optgen.Momentum(), optgen.Cautious()),
        lambda shape: cautious(rule("Momentum")),
    ),
    "ADAM, Lookahead": (
        lambda: chain(optgen.ADAM(), optgen.Lookahead(7, 0.3)),
        lambda shape: look_ahead(7, 0.3, rule("ADAM")),
    ),
    "ADAMW, Lookahead by default": (
        lambda: chain(optgen.ADAMW(decay=0.1), optgen.Lookahead()),
        lambda shape: look_ahead(5, 0.5, rule("ADAMW", decay=0.1)),
    ),
    "Lookahead in Lookahead": (
        lambda: chain(optgen.Momentum(), optgen.Lookahead(3, 0.5), optgen.Lookahead(4, 0.75)),
        lambda shape: look_ahead(4, 0.75, look_ahead(3, 0.5, rule("Momentum"))),
    ),
    "RMSProp, WeightDecay, Lookahead": (
        lambda: chain(optgen.RMSProp(), optgen.WeightDecay(0.01), optgen.Lookahead(6, 0.8)),
        lambda shape: look_ahead(6, 0.8, behind(rule("RMSProp"), decay(0.01))),
    ),
    "Descent, ADAM": (
        lambda: chain(optgen.Descent(0.1), optgen.ADAM()),
        lambda shape: before(steps_of(rule("Descent")), rule("ADAM")),
    ),
    "Momentum, AMSGrad": (
        lambda: chain(optgen.Momentum(1.0, 0.5), optgen.AMSGrad()),
        lambda shape: before(steps_of(rule("Momentum", eta=1.0, rho=0.5)), rule("AMSGrad")),
    ),
}


@pytest.mark.parametrize("title", CASES)
def test_a_chain_follows_the_hand(title: str) -> None:
    make, hand = CASES[title]
    assert_follows(make(), hand)


@pytest.mark.parametrize("name", SEED_RULES)
def test_parts_go_with_every_rule(name: str) -> None:
    shapes = ((8,), (3, 4))
    opt = chain(optgen.ClipNorm(2.0), optgen.WeightDecay(0.01), getattr(optgen, name)(), optgen.Lookahead(4))
    hand = lambda shape: look_ahead(4, 0.5, before(clip_norm(2.0), before(decay(0.01), rule(name))))  # noqa: E731
    assert_follows(opt, hand, shapes=shapes)


@pytest.mark.parametrize("name", SEED_RULES)
def test_accumulated_gradients_go_to_every_rule(name: str) -> None:
    opt = chain(optgen.AccumGrad(3), getattr(optgen, name)())
    assert_follows(opt, lambda shape: accumulate(3, rule(name)), shapes=((8,),))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SEED_RULES)
def test_a_chain_of_one_is_the_rule(name: str, dtype: Any) -> None:
    alone = getattr(optgen, name)(backend="interpreter")
    chained = chain(getattr(optgen, name)())
    grads = [[g.astype(dtype) for g in gs] for gs in gradients_of(40)]
    ps, qs = ([p.astype(dtype) for p in start_of()] for _ in range(2))
    assert same(walk(alone, ps, grads), walk(chained, qs, grads))
    for p, q in zip(ps, qs, strict=True):
        assert same(alone.state(p), chained.state(q))


def test_the_order_of_parts_matters() -> None:
    grads = gradients_of(20)
    first = walk(chain(optgen.WeightDecay(0.1), optgen.ADAM()), start_of(), grads)
    last = walk(chain(optgen.ADAM(), optgen.WeightDecay(0.1)), start_of(), grads)
    assert not same(first, last)


def test_weight_decay_behind_adam_is_adamw() -> None:
    """As the seed's own library makes it."""
    grads = gradients_of()
    path = walk(chain(optgen.ADAM(), optgen.WeightDecay(0.01)), start_of(), grads)
    expected = walk(optgen.ADAMW(decay=0.01, backend="interpreter"), start_of(), grads)
    for i, p in enumerate(start_of()):
        assert_same_path([ps[i] for ps in path], [ps[i] for ps in expected], p)


@pytest.mark.parametrize("decay_rate", [0.01, 0.5])
def test_weight_decay_before_a_rule_is_that_of_torch(decay_rate: float) -> None:
    torch = pytest.importorskip("torch")
    for make, theirs, arguments in (
        (lambda: optgen.ADAM(), "Adam", {}),
        (lambda: optgen.Momentum(0.1, 0.9), "SGD", {"lr": 0.1, "momentum": 0.9}),
        (lambda: optgen.RMSProp(centred=True), "RMSprop", {"lr": 0.001, "alpha": 0.9, "centered": True}),
    ):
        parameter = torch.tensor(start(), dtype=torch.float64, requires_grad=True)
        optimiser = getattr(torch.optim, theirs)([parameter], weight_decay=decay_rate, **arguments)
        expected, grads = [], gradients_of(STEPS, ((8,),))
        for (g,) in grads:
            parameter.grad = torch.tensor(g.copy(), dtype=torch.float64)
            optimiser.step()
            expected.append(parameter.detach().numpy().copy())
        path = walk(chain(optgen.WeightDecay(decay_rate), make()), [start()], grads)
        assert_same_path([ps[0] for ps in path], expected, start())


# ---- Single parts ----


def one_step(part: Any, g: Any, p: Any = None) -> Array:
    """What a part makes of a gradient: the step of a chain whose rule is to subtract it."""
    g = np.array(g, float)
    moved = np.zeros_like(g) if p is None else np.array(p, float)
    first = moved.copy()
    chain(part, optgen.Descent(1.0)).step([moved], [g])
    return first - moved


def test_clipping_lets_nan_through_and_stops_infinities() -> None:
    got = one_step(optgen.ClipGrad(2.0), [np.nan, np.inf, -np.inf, 2.0, -0.0, -3.0])
    np.testing.assert_array_equal(got, [np.nan, 2.0, -2.0, 2.0, 0.0, -2.0])


def test_a_norm_below_its_bound_changes_nothing() -> None:
    g = [0.6, -0.8]
    np.testing.assert_array_equal(one_step(optgen.ClipNorm(1.0), g), g)
    np.testing.assert_array_equal(one_step(optgen.ClipNorm(5.0), [0.0, 0.0]), [0.0, 0.0])
    np.testing.assert_allclose(one_step(optgen.ClipNorm(0.5), g), [0.3, -0.4], rtol=1e-15)


def test_a_nan_in_a_norm_goes_everywhere() -> None:
    assert np.isnan(one_step(optgen.ClipNorm(1.0), [1.0, np.nan, 3.0])).all()
    assert np.isnan(one_step(optgen.ClipGlobalNorm(1.0), [1.0, np.nan, 3.0])).all()


def test_a_norm_is_taken_of_numbers_whose_squares_are_no_float32() -> None:
    p = np.zeros(2, np.float32)
    chain(optgen.ClipNorm(1.0), optgen.Descent(1.0)).step([p], [np.array([3e30, 4e30], np.float32)])
    np.testing.assert_allclose(p, [-0.6, -0.8], rtol=1e-6)


def test_sign_decay_leaves_zeros_alone() -> None:
    got = one_step(optgen.SignDecay(0.5), [1.0, 1.0, 1.0], p=[0.0, -8.0, 8.0])
    np.testing.assert_array_equal(got, [1.0, 0.5, 1.5])


def test_centralised_rows_are_the_slices_of_the_first_dimension() -> None:
    g = np.arange(24.0).reshape(2, 3, 4) ** 2
    np.testing.assert_allclose(one_step(optgen.GradientCentralisation(), g), g - g.mean((1, 2), keepdims=True))
    g = np.arange(6.0).reshape(2, 3) ** 2
    np.testing.assert_allclose(one_step(optgen.GradientCentralisation(), g), g - g.mean(1, keepdims=True))
    for vector in (np.arange(5.0), np.array(3.0)):
        np.testing.assert_array_equal(one_step(optgen.GradientCentralisation(), vector), vector)


def test_caution_looks_at_the_gradient_that_the_step_was_given() -> None:
    """Not at what the parts before it made of the gradient."""
    opt = chain(optgen.WeightDecay(1.0), optgen.Descent(1.0), optgen.Cautious())
    p = np.array([10.0, 10.0, -10.0, 10.0])
    opt.step([p], [np.array([1.0, -1.0, 1.0, 0.0])])
    np.testing.assert_array_equal(p, [10.0 - 11 * 4 / 2, 10.0, -10.0, 10.0])  # one of four agrees, and one is added


def test_caution_that_finds_nothing_to_agree_with_stands_still() -> None:
    p = np.ones(3)
    chain(optgen.Descent(1.0), optgen.Cautious()).step([p], [np.zeros(3)])
    np.testing.assert_array_equal(p, 1.0)


def test_between_its_steps_accumulation_leaves_everything_behind_it_alone() -> None:
    opt = chain(optgen.AccumGrad(3), optgen.ADAM(), optgen.EMA(0.5))
    p = start((4,))
    for i, gs in enumerate(gradients_of(12, ((4,),)), 1):
        held = p.copy(), {name: opt.state(p)[name].copy() for name in ("m", "v", "avg")}
        opt.step([p], gs)
        now = p, {name: opt.state(p)[name] for name in ("m", "v", "avg")}
        assert same(held, now) == (i % 3 != 0)
        assert opt.state(p)["count"] == i % 3


def test_a_nan_that_is_accumulated_shows_only_in_the_step() -> None:
    opt, p = chain(optgen.AccumGrad(2), optgen.ADAM()), np.ones(2)
    opt.step([p], [np.array([np.nan, 1.0])])
    np.testing.assert_array_equal(p, 1.0)
    np.testing.assert_array_equal(opt.state(p)["m"], 0.0)
    opt.step([p], [np.array([1.0, 1.0])])
    assert np.isnan(p[0])
    assert p[1] < 1
    q = np.ones(1)  # what a step has used is not in the next
    opt = chain(optgen.AccumGrad(2), optgen.Descent())
    for g in (np.nan, 1.0):
        opt.step([q], [np.array([g])])
    q[...] = 1
    for g in (1.0, 3.0):
        opt.step([q], [np.array([g])])
    np.testing.assert_allclose(q, 0.8)


def test_parameters_that_are_stepped_at_other_times_accumulate_by_themselves() -> None:
    opt = chain(optgen.AccumGrad(2), optgen.Descent(1.0))
    p, q = np.zeros(1), np.zeros(2)
    opt.step([p, q], [np.ones(1), np.ones(2)])
    opt.step([q], [np.ones(2)])
    opt.step([q], [np.ones(2)])
    np.testing.assert_array_equal(p, 0.0)
    np.testing.assert_array_equal(q, -1.0)
    opt.step([p, q], [np.ones(1), np.ones(2)])
    np.testing.assert_array_equal(p, -1.0)
    np.testing.assert_array_equal(q, -2.0)


def test_accumulation_as_the_last_part_steps_as_seldom() -> None:
    """The mean of the steps then, and the rule before it goes on in between."""
    opt, p, q = chain(optgen.Momentum(), optgen.AccumGrad(3)), start(), start()
    hand, steps = flux_by_hand.Momentum(), []
    for i, (g,) in enumerate(gradients_of(30, ((8,),)), 1):
        opt.step([p], [g])
        steps.append(-np.array(hand.step([0.0] * 8, g.tolist())))
        if i % 3 == 0:
            q -= sum(steps) / 3
            steps.clear()
        np.testing.assert_allclose(p, q, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)], ids=str)
def test_parameters_without_elements_are_stepped_and_nothing_happens(shape: tuple[int, ...]) -> None:
    opt = chain(
        *(optgen.AccumGrad(1), optgen.WeightDecay(), optgen.GradientCentralisation(), optgen.ClipNorm()),
        *(optgen.ADAM(), optgen.Cautious(), optgen.Lookahead(2), optgen.EMA()),
    )
    p = np.zeros(shape)
    for t in range(1, 4):
        opt.step([p], [np.zeros(shape)])
        assert opt.state(p)["t"] == t
    together = chain(optgen.ClipGlobalNorm(1.0), optgen.Descent(1.0))
    q = np.zeros(2)
    together.step([p, q], [np.zeros(shape), np.array([3.0, 4.0])])
    np.testing.assert_allclose(q, [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in CASES if "Cautious" not in name])
def test_float32_follows_float64_as_far_as_it_can(name: str) -> None:
    grads, shapes = gradients_of(20), SHAPES
    path = walk(CASES[name][0](), start_of(shapes), grads)
    rough = [[g.astype(np.float32) for g in gs] for gs in grads]
    ps = [p.astype(np.float32) for p in start_of(shapes)]
    for i, p in enumerate(walk(CASES[name][0](), ps, rough)[-1]):
        assert p.dtype == np.float32
        scale = np.maximum(1e-2, np.max([np.abs(row[i]) for row in path], axis=0))
        assert (np.abs(p - path[-1][i]) <= 1e-4 * scale).all()


EMA_RULES = ("Descent", "Momentum", "ADAM", "ADAMW")


@pytest.mark.parametrize("name", EMA_RULES)
def test_an_average_of_the_parameter_is_kept_and_changes_nothing(name: str) -> None:
    grads, rho = gradients_of(), 0.9
    ps = start_of()
    opt = chain(getattr(optgen, name)(), optgen.EMA(rho))
    plain = walk(getattr(optgen, name)(backend="interpreter"), start_of(), grads)
    path = walk(opt, ps, grads)
    assert same(path, plain)
    weights = rho ** np.arange(len(grads), -1, -1)
    weights[1:] *= 1 - rho
    for i, (p, first) in enumerate(zip(ps, start_of(), strict=True)):
        values = np.array([first, *(row[i] for row in path)])
        expected = np.tensordot(weights, values, 1)
        scale = np.abs(values).max(0)
        assert (np.abs(opt.state(p)["avg"] - expected) <= 1e-12 * scale).all()


def test_an_average_behind_lookahead_is_of_where_lookahead_leads() -> None:
    grads, p = gradients_of(60, ((8,),)), start()
    opt = chain(optgen.Momentum(), optgen.Lookahead(5), optgen.EMA(0.8))
    hand, q = look_ahead(5, 0.5, rule("Momentum")), start().tolist()
    average = q
    for (g,) in grads:
        opt.step([p], [g])
        q = hand(q, g.tolist())
        average = [flux_by_hand.average(a, b, 0.8) for a, b in zip(average, q, strict=True)]
        np.testing.assert_allclose(p, q, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(opt.state(p)["avg"], average, rtol=1e-12, atol=1e-14)


def test_an_average_before_lookahead_is_of_where_the_rule_leads() -> None:
    grads, p = gradients_of(60, ((8,),)), start()
    opt = chain(optgen.Momentum(), optgen.EMA(0.8), optgen.Lookahead(5))
    fast, q, slow = flux_by_hand.Momentum(), start().tolist(), start().tolist()
    average = q
    for t, (g,) in enumerate(grads, 1):
        opt.step([p], [g])
        q = fast.step(q, g.tolist())
        average = [flux_by_hand.average(a, b, 0.8) for a, b in zip(average, q, strict=True)]
        if t % 5 == 0:
            q = slow = [(a + b) / 2 for a, b in zip(slow, q, strict=True)]
        np.testing.assert_allclose(p, q, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(opt.state(p)["avg"], average, rtol=1e-12, atol=1e-14)


def test_the_slow_parameter_is_where_lookahead_was_last() -> None:
    opt, p = chain(optgen.ADAM(0.1), optgen.Lookahead(4, 0.25)), start()
    slow = p.copy()
    for t, (g,) in enumerate(gradients_of(40, ((8,),)), 1):
        before_step = p.copy()
        opt.step([p], [g])
        if t % 4 == 0:
            slow = p.copy()
        else:
            assert not np.array_equal(p, before_step)
        np.testing.assert_array_equal(opt.state(p)["slow"], slow)


# ---- A norm over the group ----


def clip_together(omega: float, eps: float, grads: list[list[Array]]) -> list[list[Array]]:
    clipped = []
    for gs in grads:
        norm = math.sqrt(math.fsum(x * x for g in gs for x in g.ravel().tolist()))
        factor = min(1.0, omega / (norm + eps))
        clipped.append([g * factor for g in gs])
    return clipped


GLOBAL = [{}, {"omega": 30.0}, {"omega": 5.0, "eps": 0.5}, {"omega": 0.1, "eps": 0.0}]


@pytest.mark.parametrize("given", GLOBAL, ids=str)
@pytest.mark.parametrize("name", ["Descent", "ADAM", "ADAMW"])
def test_a_global_norm_is_of_all_parameters(name: str, given: dict[str, float]) -> None:
    grads = gradients_of()
    clipped = clip_together(given.get("omega", 1.0), given.get("eps", 1e-6), grads)
    hands = [rule(name) for _ in SHAPES]
    expected = walk_by_hand(hands, start_of(), clipped)
    path = walk(chain(optgen.ClipGlobalNorm(**given), getattr(optgen, name)()), start_of(), grads)
    for i, p in enumerate(start_of()):
        assert_same_path([ps[i] for ps in path], [ps[i] for ps in expected], p)


def test_a_global_norm_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    grads, ps = gradients_of(30), start_of()
    theirs = [torch.tensor(p.copy(), dtype=torch.float64, requires_grad=True) for p in start_of()]
    optimiser = torch.optim.SGD(theirs, lr=0.1, momentum=0.9)
    opt = chain(optgen.ClipGlobalNorm(20.0), optgen.Momentum(0.1, 0.9))
    path, expected = [], []
    for gs in grads:
        for p, g in zip(theirs, gs, strict=True):
            p.grad = torch.tensor(g.copy(), dtype=torch.float64)
        torch.nn.utils.clip_grad_norm_(theirs, 20.0)
        optimiser.step()
        opt.step(ps, gs)
        path.append([p.copy() for p in ps])
        expected.append([p.detach().numpy().copy() for p in theirs])
    for i, p in enumerate(start_of()):
        assert_same_path([row[i] for row in path], [row[i] for row in expected], p)


def test_a_global_norm_may_stand_behind_a_rule() -> None:
    """Of the steps then; and behind parts with states of their own."""
    grads, shapes = gradients_of(60), SHAPES
    hands = [flux_by_hand.ADAM(eta=0.1) for _ in shapes]
    qs = [p.ravel().tolist() for p in start_of()]
    expected = []
    for gs in grads:
        steps = [[-x for x in h.step([0.0] * g.size, g.ravel().tolist())] for h, g in zip(hands, gs, strict=True)]
        factor = min(1.0, 0.25 / (math.hypot(*(x for row in steps for x in row)) + 1e-6))
        qs = [[w - factor * d for w, d in zip(q, row, strict=True)] for q, row in zip(qs, steps, strict=True)]
        expected.append([np.reshape(q, shape) for q, shape in zip(qs, shapes, strict=True)])
    path = walk(chain(optgen.ADAM(0.1), optgen.ClipGlobalNorm(0.25)), start_of(), grads)
    for i, p in enumerate(start_of()):
        assert_same_path([row[i] for row in path], [row[i] for row in expected], p)


def test_a_global_norm_of_accumulated_gradients() -> None:
    """The norm is that of the means, in the steps that happen."""
    grads, n = gradients_of(60), 4
    means = [[sum(gs) / n for gs in zip(*grads[i : i + n], strict=True)] for i in range(0, len(grads), n)]
    expected = walk_by_hand([rule("ADAM") for _ in SHAPES], start_of(), clip_together(2.0, 1e-6, means))
    path = walk(chain(optgen.AccumGrad(n), optgen.ClipGlobalNorm(2.0), optgen.ADAM()), start_of(), grads)
    for i, p in enumerate(start_of()):
        assert_same_path([ps[i] for ps in path[n - 1 :: n]], [ps[i] for ps in expected], p)
        assert same([ps[i] for ps in path[: n - 1]], [p] * (n - 1))


def test_a_global_norm_joins_dtypes() -> None:
    opt = chain(optgen.ClipGlobalNorm(1.0, eps=0.0), optgen.Descent(1.0))
    p, q = np.zeros(1, np.float32), np.zeros(1)
    opt.step([p, q], [np.array([3.0], np.float32), np.array([4.0])])
    np.testing.assert_allclose(p, -0.6, rtol=1e-7)
    np.testing.assert_allclose(q, -0.8, rtol=1e-15)


# ---- The optimiser that a chain is ----


def test_chain_and_optimiser_are_the_same() -> None:
    grads = gradients_of(10)
    parts = lambda: (optgen.ClipNorm(1.0), optgen.WeightDecay(1e-4), optgen.ADAM())  # noqa: E731
    ours = walk(optgen.chain(*parts(), backend="interpreter"), start_of(), grads)
    theirs = walk(optgen.Optimiser(*parts(), backend="interpreter"), start_of(), grads)
    assert same(ours, theirs)


def test_a_chain_has_parts() -> None:
    opt = chain(optgen.ClipNorm(1.0), optgen.WeightDecay(1e-4), optgen.ADAM(0.01))
    assert isinstance(opt, optgen.Optimiser)
    assert len(opt) == 3
    assert isinstance(opt.parts, tuple)
    assert [type(part) for part in opt.parts] == [optgen.ClipNorm, optgen.WeightDecay, optgen.ADAM]
    assert [type(opt[i]) for i in range(3)] == [type(part) for part in opt.parts]
    assert type(opt[-1]) is optgen.ADAM
    assert [type(part) for part in opt] == [type(part) for part in opt.parts]
    assert opt[2].eta == 0.01
    with pytest.raises(IndexError):
        opt[3]


def test_its_repr_is_how_it_is_made() -> None:
    opt = chain(optgen.ClipNorm(1.0), optgen.ADAM(0.01))
    text = repr(opt)
    assert text.startswith("chain(ClipNorm(omega=1.0), ADAM(eta=0.01, ")
    assert text.endswith(", backend='interpreter')")
    names = {name: getattr(optgen, name) for name in ("chain", "ClipNorm", "ADAM")}
    assert repr(eval(text, names)) == text


def test_a_chain_in_a_chain_is_flattened() -> None:
    inner = optgen.chain(optgen.ClipNorm(1.0), optgen.chain(optgen.WeightDecay(0.1), optgen.Momentum()))
    nested = chain(inner, optgen.Lookahead(3))
    flat = chain(optgen.ClipNorm(1.0), optgen.WeightDecay(0.1), optgen.Momentum(), optgen.Lookahead(3))
    assert len(nested) == 4
    assert [type(part) for part in nested.parts] == [type(part) for part in flat.parts]
    grads = gradients_of(12)
    assert same(walk(nested, start_of(), grads), walk(flat, start_of(), grads))


def test_flags_of_parts_are_kept() -> None:
    grads = gradients_of(12)
    opt = chain(optgen.ADAMW(decay=0.1, coupled=True), optgen.EMA())
    alone = optgen.ADAMW(decay=0.1, coupled=True, backend="interpreter")
    assert same(walk(opt, start_of(), grads), walk(alone, start_of(), grads))
    opt = chain(optgen.RMSProp(centred=True), optgen.EMA(0.5))
    alone = optgen.RMSProp(centred=True, backend="interpreter")
    assert same(walk(opt, start_of(), grads), walk(alone, start_of(), grads))


def test_hyperparameters_change_while_it_runs() -> None:
    """By part, and by name where only one part has it; from the next step on."""
    opt = chain(optgen.WeightDecay(0.01), optgen.Momentum(0.01))
    lam, momentum = 0.01, flux_by_hand.Momentum()
    p, q = start(), start().tolist()
    for t, (g,) in enumerate(gradients_of(40, ((8,),))):
        if t == 10:
            opt[0].lam = lam = 0.1
        if t == 20:
            opt.lam = lam = 0.5
        if t == 25:
            opt.eta = momentum.eta = 0.001
        if t == 30:
            opt[1].rho = momentum.rho = 0.5
        assert (opt.lam, opt[0].lam, opt.eta, opt[1].eta) == (lam, lam, momentum.eta, momentum.eta)
        opt.step([p], [g])
        q = momentum.step(q, decay(lam)(q, g.tolist()))
        np.testing.assert_allclose(p, q, rtol=1e-12, atol=1e-14)


def test_a_name_that_two_parts_have_is_that_of_no_one() -> None:
    opt = chain(optgen.WeightDecay(0.1), optgen.SignDecay(0.2), optgen.Momentum(), optgen.Momentum(0.5))
    assert (opt[0].lam, opt[1].lam, opt[2].eta, opt[3].eta) == (0.1, 0.2, 0.01, 0.5)
    with pytest.raises(AttributeError, match="lam"):
        opt.lam  # noqa: B018
    with pytest.raises(errors.ArgumentError, match="lam"):
        opt.lam = 0.3
    assert (opt[0].lam, opt[1].lam) == (0.1, 0.2)
    opt[1].lam = 0.3
    assert (opt[0].lam, opt[1].lam) == (0.1, 0.3)


def test_greek_and_numbered_names_are_known_too() -> None:
    opt = chain(optgen.WeightDecay(0.1), optgen.ADAM(0.01))
    opt.beta1 = 0.5
    assert opt.beta == opt[1].beta == (0.5, 0.999)
    opt.λ = 0.3
    assert opt.lam == opt[0].λ == 0.3
    opt.η = 0.25
    assert opt[1].eta == 0.25


def test_values_out_of_range_are_refused() -> None:
    opt = chain(optgen.WeightDecay(0.1), optgen.ADAM())
    for setting in (lambda: setattr(opt, "lam", -1.0), lambda: setattr(opt[0], "lam", -1.0)):
        with pytest.raises(errors.HyperparameterError, match="lam"):
            setting()
    with pytest.raises(errors.ArgumentError, match="number"):
        opt[0].lam = "much"
    assert opt.lam == opt[0].lam == 0.1


def test_states_are_known_by_their_names_where_only_one_part_has_them() -> None:
    opt = chain(optgen.ClipNorm(1.0), optgen.ADAM(), optgen.Lookahead(2), optgen.EMA())
    p = start()
    walk(opt, [p], gradients_of(3, ((8,),)))
    states = opt.state(p)
    assert set(states) == {"m", "v", "slow", "avg", "t"}
    assert states["t"] == 3
    assert all(states[name].shape == p.shape for name in ("m", "v", "slow", "avg"))
    twice = chain(optgen.Momentum(), optgen.Momentum(), optgen.EMA())
    walk(twice, [p], gradients_of(3, ((8,),)))
    states = twice.state(p)
    assert len(states) == 4
    assert {"avg", "t"} < set(states)
    assert "v" not in states


def test_states_of_a_parameter_that_was_never_stepped() -> None:
    states = chain(optgen.ADAM(), optgen.Lookahead(), optgen.EMA()).state(start())
    assert states["t"] == 0
    for name, first in (("m", 0 * start()), ("slow", start()), ("avg", start())):
        np.testing.assert_array_equal(states[name], first)


# ---- Resuming ----

RESUMED: dict[str, Callable[[], Any]] = {
    "held": lambda: chain(optgen.ClipNorm(1.0), optgen.AccumGrad(3), optgen.ADAM(), optgen.Lookahead(2), optgen.EMA()),
    "group": lambda: chain(optgen.WeightDecay(0.1), optgen.ClipGlobalNorm(1.0), optgen.ADAMW(decay=0.1)),
    "counted": lambda: chain(optgen.Nesterov(), optgen.ExpDecay(0.5, 0.5, 3), optgen.InvDecay(), optgen.Cautious()),
    "rows": lambda: chain(optgen.GradientCentralisation(), optgen.RMSProp(centred=True), optgen.RMSProp()),
}


def resumed(opt: Any, way: str, fresh: Any, ps: list[Array]) -> Any:
    if way == "state dict":
        fresh.load_state_dict(opt.state_dict())
    elif way == "state dict of parameters":
        fresh.load_state_dict(opt.state_dict(), ps)
    elif way == "state dict from a file":
        fresh.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())), ps)
    elif way == "pickle":
        return pickle.loads(pickle.dumps(opt))
    elif way == "deep copy":
        return copy.deepcopy(opt)
    return fresh


@pytest.mark.parametrize("title", RESUMED)
@pytest.mark.parametrize("done", [1, 5])
@pytest.mark.parametrize(
    "way", ["state dict", "state dict of parameters", "state dict from a file", "pickle", "deep copy"]
)
def test_a_resumed_chain_goes_on_as_if_nothing_had_been(title: str, done: int, way: str) -> None:
    grads = gradients_of(14)
    whole = walk(RESUMED[title](), start_of(), grads)
    opt, ps = RESUMED[title](), start_of()
    walk(opt, ps, grads[:done])
    # What is stepped from here on are other arrays; those of before keep the states alive.
    qs = ps if way == "state dict of parameters" else [p.copy() for p in ps]
    again = resumed(opt, way, RESUMED[title](), qs)
    assert same(walk(again, qs, grads[done:]), whole[done:])


@pytest.mark.parametrize("title", RESUMED)
def test_a_copy_has_the_same_parameters_and_a_state_of_its_own(title: str) -> None:
    grads = gradients_of(10)
    opt, ps = RESUMED[title](), start_of()
    walk(opt, ps, grads[:4])
    first = [p.copy() for p in ps]
    twin = copy.copy(opt)
    path = walk(twin, ps, grads[4:])
    for p, q in zip(ps, first, strict=True):
        p[...] = q
    assert same(walk(opt, ps, grads[4:]), path)


def test_changed_hyperparameters_are_resumed_too() -> None:
    opt = chain(optgen.WeightDecay(0.1), optgen.SignDecay(0.1), optgen.ADAM())
    opt[0].lam, opt[1].lam, opt.eta = 0.2, 0.3, 0.5
    for way in ("state dict", "pickle", "deep copy"):
        again = resumed(opt, way, chain(optgen.WeightDecay(), optgen.SignDecay(), optgen.ADAM()), [])
        assert (again[0].lam, again[1].lam, again.eta) == (0.2, 0.3, 0.5)
        again[0].lam = 0.9
        assert opt[0].lam == 0.2


def test_a_state_of_another_chain_is_refused() -> None:
    opt, p = chain(optgen.ClipNorm(), optgen.ADAM()), start()
    walk(opt, [p], gradients_of(2, ((8,),)))
    saved = opt.state_dict()
    others = (
        chain(optgen.ADAM(), optgen.ClipNorm()),
        chain(optgen.ADAM()),
        chain(optgen.ClipNorm(), optgen.ADAM(), optgen.EMA()),
        chain(optgen.ClipGrad(), optgen.ADAM()),
        optgen.ADAM(backend="interpreter"),
    )
    for other in others:
        first = other.state_dict()
        with pytest.raises(errors.StateError):
            other.load_state_dict(saved)
        assert same(other.state_dict(), first)


def test_a_state_of_other_flags_is_refused() -> None:
    with pytest.raises(errors.StateError):
        chain(optgen.ADAMW()).load_state_dict(chain(optgen.ADAMW(coupled=True)).state_dict())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("title", RESUMED)
def test_the_kernel_of_a_chain_is_the_interpreter_bit_for_bit(title: str, dtype: Any) -> None:
    oracle = RESUMED[title]()
    kernel = optgen.chain(oracle)  # copies of its parts
    assert (oracle.backend, kernel.backend) == ("interpreter", "kernel")
    grads = [[g.astype(dtype) for g in gs] for gs in gradients_of(10)]
    ps, qs = ([p.astype(dtype) for p in start_of()] for _ in range(2))
    assert same(walk(kernel, ps, grads), walk(oracle, qs, grads))
    for p, q in zip(ps, qs, strict=True):
        assert same(kernel.state(p), oracle.state(q))


# ---- What is refused ----


def test_an_empty_chain_is_refused() -> None:
    for make in (optgen.chain, optgen.Optimiser):
        with pytest.raises(errors.ArgumentError):
            make()
        with pytest.raises(errors.ArgumentError):
            make(backend="interpreter")


@pytest.mark.parametrize("given", [3, "ADAM", None, np.ones(3), [1], lambda p, g: g], ids=lambda x: type(x).__name__)
def test_what_is_no_optimiser_is_refused(given: Any) -> None:
    with pytest.raises(errors.ArgumentError):
        chain(optgen.ClipNorm(), given)
    with pytest.raises(errors.ArgumentError):
        optgen.Optimiser(given, optgen.ADAM())


def test_a_class_in_place_of_an_instance_is_refused() -> None:
    for cls in (optgen.ADAM, optgen.ClipNorm):
        with pytest.raises(errors.ArgumentError, match=rf"{cls.__name__}\(\)"):
            chain(optgen.WeightDecay(), cls)


@pytest.mark.parametrize("name", ["EMA", "Lookahead"])
def test_a_part_for_the_parameter_before_any_rule_is_refused(name: str) -> None:
    part, clip_first = getattr(optgen, name), optgen.ClipNorm
    for parts in ([part()], [part(), optgen.ADAM()], [clip_first(), part()], [clip_first(), part(), optgen.ADAM()]):
        with pytest.raises(errors.ArgumentError, match=name):
            chain(*parts)


def test_an_optimiser_that_has_stepped_is_refused() -> None:
    opt, p = optgen.ADAM(backend="interpreter"), start()
    opt.step([p], [np.ones(8)])
    held = p.copy(), opt.state_dict()
    with pytest.raises(errors.StateError):
        chain(optgen.ClipNorm(), opt)
    inner, q = chain(optgen.ADAM()), np.ones(2)
    inner.step([q], [np.ones(2)])
    with pytest.raises(errors.StateError):
        chain(inner, optgen.EMA())
    assert same((p, opt.state_dict()), held)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(errors.ArgumentError, match="backend"):
        optgen.chain(optgen.ADAM(), backend="gpu")


def test_more_reductions_than_a_kernel_keeps_are_refused() -> None:
    optgen.chain(*(optgen.ClipNorm(1.0) for _ in range(32)), optgen.ADAM())
    with pytest.raises(errors.ArgumentError, match="expected at most 32 reductions in a chain, got 33"):
        optgen.chain(*(optgen.ClipNorm(1.0) for _ in range(33)), optgen.ADAM())


def test_an_unknown_keyword_is_refused() -> None:
    with pytest.raises(TypeError, match="eta"):  # which an ArgumentError is, too
        optgen.chain(optgen.ADAM(), eta=0.1)


def test_an_unknown_attribute_is_refused_with_a_suggestion() -> None:
    opt = chain(optgen.WeightDecay(), optgen.ADAM())
    with pytest.raises(errors.ArgumentError, match="'lam'"):
        opt.lan = 0.1
    with pytest.raises(errors.ArgumentError, match="'eta'"):
        opt.learning_rate = 0.1
    with pytest.raises(errors.ArgumentError, match="'lam'"):
        opt[0].lan = 0.1
    with pytest.raises(AttributeError, match="'lam'"):
        opt.lan  # noqa: B018
    with pytest.raises(AttributeError):
        opt._lan  # noqa: B018


def test_parts_cannot_be_exchanged() -> None:
    opt = chain(optgen.WeightDecay(), optgen.ADAM())
    with pytest.raises(TypeError):
        opt[0] = optgen.ClipNorm()
    with pytest.raises(errors.ArgumentError):
        opt.parts = ()


def group() -> tuple[Any, list[Array], list[Array]]:
    opt, ps = chain(optgen.ClipGlobalNorm(1.0), optgen.ADAM()), start_of()
    walk(opt, ps, gradients_of(3))
    return opt, ps, gradients_of(1)[0]


def assert_refuses(
    opt: Any, ps: list[Any], given: list[Any], grads: list[Any], match: str | None = None
) -> errors.ArrayError:
    """ArrayError, and nothing has changed."""
    held = copy.deepcopy(ps), opt.state_dict()
    with pytest.raises(errors.ArrayError, match=match) as caught:
        opt.step(given, grads)
    assert same((ps, opt.state_dict()), held)
    return caught.value


def test_a_norm_over_no_parameters_is_refused() -> None:
    opt, ps, _ = group()
    assert_refuses(opt, ps, [], [])
    fresh = chain(optgen.ClipGlobalNorm(1.0), optgen.ADAM())
    assert_refuses(fresh, [], [], [])
    fresh.step([np.ones(2)], [np.ones(2)])
    chain(optgen.ClipNorm(), optgen.ADAM()).step([], [])  # each by itself: nothing to do


def test_a_missing_gradient_in_a_group_cannot_be_left_out() -> None:
    opt, ps, gs = group()
    error = assert_refuses(opt, ps, ps, [gs[0], None, *gs[2:]], "gradient 1: expected an array, got None")
    assert error.hint is not None
    assert "leave" not in error.hint
    assert "zeros" in error.hint
    alone = chain(optgen.ClipNorm(), optgen.ADAM())
    error = assert_refuses(alone, ps, ps, [gs[0], None, *gs[2:]], "gradient 1: expected an array, got None")
    assert error.hint is not None
    assert "leave" in error.hint


def test_a_group_is_stepped_as_a_whole() -> None:
    opt, ps, gs = group()
    assert_refuses(opt, ps, ps[1:], gs[1:])
    assert_refuses(opt, ps, ps[:1], gs[:1])
    opt.step(ps, gs)


def test_the_order_of_a_group_is_free() -> None:
    opt, ps, gs = group()
    twin, qs, _ = group()
    opt.step(ps, gs)
    twin.step(qs[::-1], gs[::-1])
    for p, q in zip(ps, qs, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-12, atol=1e-15)


def test_a_faulty_gradient_leaves_the_whole_group_as_it_was() -> None:
    opt, ps, gs = group()
    assert_refuses(opt, ps, ps, [*gs[:-1], np.ones((7, 7))], "shape")
    assert_refuses(opt, ps, ps, [*gs[:-1], gs[-1].astype(np.float32)], "float64")
    assert_refuses(opt, ps, ps, gs[:-1])
    opt.step(ps, gs)


def test_what_is_refused_of_a_held_chain_leaves_its_counts() -> None:
    opt, p = chain(optgen.AccumGrad(3), optgen.ADAM()), start()
    walk(opt, [p], gradients_of(4, ((8,),)))
    assert_refuses(opt, [p], [p], [np.ones(3)], "shape")
    assert_refuses(opt, [p], [p], [None], "None")
    assert opt.state(p)["count"] == 1


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("WeightDecay", {"lam": -1e-9}),
        ("SignDecay", {"lam": math.nan}),
        ("ClipGrad", {"bound": -1}),
        ("ClipNorm", {"omega": 0}),
        ("ClipGlobalNorm", {"omega": math.inf}),
        ("ClipGlobalNorm", {"eps": -1e-9}),
        ("InvDecay", {"gamma": -0.1}),
        ("ExpDecay", {"decay": 1.5}),
        ("ExpDecay", {"every": 0}),
        ("AccumGrad", {"n": 0}),
        ("EMA", {"rho": 1.1}),
        ("Lookahead", {"k": 0}),
        ("Lookahead", {"alpha": 2}),
    ],
    ids=str,
)
def test_hyperparameters_of_parts_have_ranges(name: str, given: dict[str, float]) -> None:
    with pytest.raises(errors.HyperparameterError, match=next(iter(given))):
        getattr(optgen, name)(**given)


def test_the_parts_take_their_arguments_in_the_order_of_flux() -> None:
    assert optgen.ExpDecay(0.5, 0.25, 8, 0.125).every == 8
    assert optgen.ExpDecay().clip == 1e-4
    assert optgen.ClipGlobalNorm(2.0, 0.5).eps == 0.5
    assert optgen.Lookahead(3, 0.25).alpha == 0.25
    assert (optgen.WeightDecay().lam, optgen.SignDecay().lam) == (5e-4, 1e-3)
    assert (optgen.ClipGrad().bound, optgen.ClipNorm().omega, optgen.InvDecay().gamma) == (10.0, 10.0, 0.001)


def test_every_length_of_wait_divides_the_path() -> None:
    """Accumulating n equal gradients is one step with them, whatever n is."""
    ends = []
    for n in (1, 2, 3, 8):
        opt, p = chain(optgen.AccumGrad(n), optgen.Momentum()), start()
        for (g,) in gradients_of(10, ((8,),)):
            for _ in range(n):
                opt.step([p], [g])
        ends.append(p)
    for a, b in pairwise(ends):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


def test_n_may_change_while_gradients_wait() -> None:
    """They are stepped as soon as there are as many as are asked for now."""
    opt, p = chain(optgen.AccumGrad(4), optgen.Descent(1.0)), np.zeros(1)
    for _ in range(3):
        opt.step([p], [np.array([4.0])])
    opt.n = 2
    opt.step([p], [np.array([4.0])])
    np.testing.assert_array_equal(p, [-5.0])  # 4/4 three times, and 4/2
    for _ in range(2):
        opt.step([p], [np.array([4.0])])
    np.testing.assert_array_equal(p, [-9.0])


@pytest.mark.parametrize("backend", ["kernel", "interpreter"])
def test_a_part_shows_its_own_states_and_count(backend):
    opt = optgen.chain(
        optgen.ClipNorm(), optgen.AccumGrad(2), optgen.WeightDecay(), optgen.ADAM(), optgen.AccumGrad(3),
        optgen.Adafactor(), optgen.EMA(0.9), optgen.EMA(0.5), backend=backend,
    )  # fmt: skip
    W, b = np.ones((4, 3)), np.ones(5)
    assert [opt[i].state(W)["t"] for i in range(8)] == [0] * 8
    for _ in range(13):
        opt.step([W, b], [np.ones((4, 3)), np.ones(5)])
    for p in (W, b):
        assert [opt[i].state(p)["t"] for i in range(8)] == [13, 13, 6, 6, 6, 2, 2, 2]
        assert opt.state(p)["t"] == 13
    assert set(opt[3].state(W)) == {"m", "v", "t"}
    assert set(opt[1].state(W)) == set(opt[4].state(W)) == {"acc", "count", "t"}
    assert opt[4].state(W)["count"] == 0 != opt[1].state(W)["count"]
    assert {"row_var", "col_var"} < set(opt[5].state(W))
    assert {"row_var", "col_var"}.isdisjoint(opt[5].state(b))
    assert (opt[6].state(W)["avg"] != opt[7].state(W)["avg"]).all()
    with pytest.raises(ValueError, match="read-only"):
        opt[3].state(W)["m"][...] = 0


def test_a_part_that_nothing_counts_shows_no_count():
    opt, W = optgen.chain(optgen.AccumGrad(2), optgen.GradientCentralisation()), np.ones((4, 3))
    assert "t" not in opt[1].state(W)
    assert opt[0].state(W)["t"] == 0
