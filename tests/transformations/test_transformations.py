"""Rules as transformations of optax: beside optax's own, within its wrappers, under JAX's transformations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import jax.numpy as jnp

import optgen
import optgen.jax as rules
from optgen.errors import ArgumentError

pytestmark = pytest.mark.no_cover
STEPS = 120


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def start() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "w": jnp.asarray(rng.normal(size=(4, 5))),
        "b": [jnp.asarray(rng.normal(size=3)), None],
        "s": jnp.asarray(np.float64(1.5)),
    }


def loss(params: Any, k: Any) -> Any:
    return sum(jnp.sum(jnp.sin(x * (1 + k % 7)) ** 2 + x**4 / 50) for x in jax.tree.leaves(params))


def path(transformation: Any, steps: int = STEPS, **extra: Any) -> list[Any]:
    """The parameters after these steps, compiled once."""
    params = start()
    state = transformation.init(params)

    @jax.jit
    def step(params: Any, state: Any, k: Any) -> Any:
        updates, state = transformation.update(jax.grad(loss)(params, k), state, params, **extra)
        return optax.apply_updates(params, updates), state

    for k in range(steps):
        params, state = step(params, state, jnp.asarray(k))
    assert step._cache_size() == 1
    return [np.asarray(x) for x in jax.tree.leaves(params)]


def assert_same(a: list[Any], b: list[Any]) -> None:
    for x, y in zip(a, b, strict=True):
        assert np.abs(x - y).max() <= 1e-12


SCHEDULE = optax.cosine_decay_schedule(1e-2, 100)
PAIRS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "adam": (lambda: rules.adam(1e-2), lambda: optax.adam(1e-2)),
    "torch_adamw": (lambda: rules.torch_adamw(lr=1e-2), lambda: optax.adamw(1e-2, weight_decay=1e-2)),
    "lamb": (lambda: rules.lamb(eta=1e-2, eps=1e-6, decay=0.1), lambda: optax.lamb(1e-2, weight_decay=0.1)),
    "yogi": (lambda: rules.yogi(1e-2), lambda: optax.yogi(1e-2)),
    "clip": (
        lambda: optax.chain(rules.clipglobalnorm(0.5, eps=0), optax.sgd(1e-2)),
        lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(1e-2)),
    ),
    "schedule": (lambda: rules.adam(eta=SCHEDULE), lambda: optax.adam(SCHEDULE)),
    "injected": (lambda: optax.inject_hyperparams(rules.adam)(eta=SCHEDULE), lambda: optax.adam(SCHEDULE)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_rule_of_optax_is_the_same_here(name: str) -> None:
    mine, theirs = PAIRS[name]
    assert_same(path(mine()), path(theirs()))


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "masked": lambda t: optax.chain(optax.scale(1e-3), optax.masked(t, {"w": True, "b": False, "s": True})),
    "multi_transform": lambda t: optax.multi_transform(
        {"a": t, "z": optax.set_to_zero()}, {"w": "a", "b": "z", "s": "a"}
    ),
    "MultiSteps": lambda t: optax.MultiSteps(t, 3),
    "apply_if_finite": lambda t: optax.apply_if_finite(t, 3),
    "chain": lambda t: optax.chain(optax.clip(0.5), t, optax.add_decayed_weights(-1e-4)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_rule_works_within_the_wrappers_of_optax(name: str) -> None:
    wrapped = WRAPPERS[name]
    assert_same(path(wrapped(rules.adam(1e-2)), 30), path(wrapped(optax.adam(1e-2)), 30))


def test_a_chain_is_one_transformation() -> None:
    opt = optgen.chain(optgen.ClipNorm(0.5), optgen.WeightDecay(1e-2), optgen.ADAM(1e-2))
    params = [np.array(x) for x in jax.tree.leaves(start())]
    for k in range(10):
        grads = jax.grad(loss)([*map(jnp.asarray, params)], k)
        opt.step(params, [np.asarray(g) for g in grads])
    again = optgen.chain(optgen.ClipNorm(0.5), optgen.WeightDecay(1e-2), optgen.ADAM(1e-2))
    assert_same(path(rules.transform(again), 10), params)


def test_an_input_is_taken_by_name_and_others_are_left_alone() -> None:
    assert_same(path(rules.polyaksgd(), 5, loss=jnp.asarray(0.5), grad=1), path(rules.polyaksgd(), 5, loss=0.5))


def test_states_are_named_and_typed_by_the_spec() -> None:
    state = rules.adam(1e-2).init(start())
    assert state.count.dtype == jnp.int32
    assert set(state.states) == {"m", "v"}
    assert state.states["m"]["b"][1] is None
    mixed = rules.adam(1e-2).init({"w": jnp.ones(3, jnp.bfloat16)})
    assert mixed.states["m"]["w"].dtype == jnp.float32


def test_a_step_that_does_not_count_leaves_the_count() -> None:
    transformation = rules.transform(optgen.chain(optgen.Unscale(), optgen.ADAM()))
    p = jnp.ones(3)
    updates, state = transformation.update(p.at[1].set(jnp.nan), transformation.init(p), p)
    assert int(state.count) == 0
    assert not np.any(updates)


def test_a_spec_of_ones_own_is_loaded(tmp_path: Any) -> None:
    spec = tmp_path / "mine.toml"
    spec.write_text('name = "Mine"\n[hyperparameters]\neta = { default = 0.5 }\n[update]\nformulas = "p = p - eta*g"\n')
    assert_same(path(rules.load(spec)(), 5), path(optax.sgd(0.5), 5))


def test_the_functions_say_what_they_take() -> None:
    signature = inspect.signature(rules.adam)
    assert list(signature.parameters) == ["eta", "beta", "eps"]
    assert "adam" in dir(rules)
    assert rules.adam.__name__ == "adam"


def without_loss() -> Any:
    p, rule = jnp.ones(2), rules.polyaksgd()
    return rule.update(p, rule.init(p), p)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: rules.adem, AttributeError, "did you mean 'adam'"),
        (lambda: rules.ADAM, AttributeError, "did you mean 'adam'"),
        (lambda: rules.transform(optgen.SAM()), ArgumentError, "one gradient a step, got one with the phases"),
        (lambda: rules.transform(optgen.ADAM(eta=optgen.cosine(0.1, 10))), ArgumentError, "a schedule of eta"),
        (lambda: rules.adam().update(jnp.ones(2), rules.adam().init(jnp.ones(2))), ArgumentError, "the parameters"),
        (lambda: rules.adam(lr=1.0), TypeError, "lr"),
        (without_loss, ArgumentError, "the input 'loss'"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_name(call: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call()
