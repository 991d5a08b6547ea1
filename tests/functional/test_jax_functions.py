"""Rules as functions of JAX's arrays: traced once, with counts and hyperparameters as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from function_cases import NAMES, UNSTABLE, Case

jax = pytest.importorskip("jax")

import jax.numpy as jnp

import optgen

pytestmark = pytest.mark.no_cover
FEW = ("ADAM", "Adafactor", "ClipGlobalNorm", "GaLore", "NoisySGD", "SAM")


def furthest(name: str, dtype: str) -> float:
    """How far a compiled function is from the optimiser that it is of; it is traced once for each phase."""
    case = Case(name, dtype)
    function, traces = case.opt.function("jax"), [0]

    def step(params: Any, grads: Any, state: Any, t: Any, given: Any, inputs: Any, phase: str | None) -> Any:
        traces[0] += 1
        found = function.step(params, grads, state, t, given, phase=phase, **inputs)
        return found.params, found.state, jnp.asarray(found.counts)

    compiled = jax.jit(step, static_argnames="phase")
    params = list(map(jnp.asarray, case.params))
    now = [params, function.init(params)]
    given = {
        key: [*map(jnp.asarray, v)] if isinstance(v, list) else jnp.asarray(v)
        for key, v in case.hyperparameters.items()
    }

    def followed(k: int, t: int, phase: str | None) -> tuple[list[Any], bool]:
        inputs = {key: [*map(jnp.asarray, v)] if isinstance(v, list) else v for key, v in case.inputs[k].items()}
        *now[:], counts = compiled(
            now[0], [*map(jnp.asarray, case.grads[k])], now[1], jnp.asarray(t), given, inputs, phase=phase
        )
        return [np.asarray(p) for p in now[0]], bool(counts)

    worst = case.follow(followed)
    assert traces[0] == max(1, len(case.opt.rule.phases))
    return worst


@pytest.fixture
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", FEW)
def test_a_rule_is_what_its_optimiser_does(name: str, double_precision: None) -> None:
    assert furthest(name, "float64") < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*NAMES} - {*FEW, *UNSTABLE})[::4])
def test_every_fourth_rule_is_what_its_optimiser_does(name: str, double_precision: None) -> None:
    assert furthest(name, "float64") < 1e-12


@pytest.mark.parametrize("name", ["ADAM", "Adafactor", "NoisySGD"])
def test_without_types_of_64_bits_a_rule_is_computed_in_float32(name: str) -> None:
    assert furthest(name, "float32") < 1e-5


def test_gradients_flow_through_steps(double_precision: None) -> None:
    adam, p = optgen.ADAM.function("jax"), jnp.asarray([0.3, -2.0])

    def after(eta: Any) -> Any:
        params, state = p, adam.init(p)
        for t in range(1, 5):
            params, state = adam(params, jnp.sin(params), state, t, {"eta": eta})
        return params.sum()

    numerical = (after(0.1 + 1e-6) - after(0.1 - 1e-6)) / 2e-6
    assert abs(jax.grad(after)(0.1) - numerical) < 1e-7


def test_a_step_goes_under_vmap_and_scan(double_precision: None) -> None:
    lamb, params = optgen.LAMB.function("jax"), jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))

    def run(p: Any) -> Any:
        def step(now: Any, t: Any) -> Any:
            params, state = lamb(now[0], jnp.sin(now[0]), now[1], t)
            return (params, state), None

        return jax.lax.scan(step, (p, lamb.init(p)), jnp.arange(1, 6))[0][0]

    together = jax.vmap(run)(params)
    assert np.allclose(together, jnp.stack([run(p) for p in params]), rtol=1e-13, atol=0)


def test_a_refresh_that_is_not_due_is_not_computed() -> None:
    """Under a traced count a choice between decompositions is a conditional, and not a choice of results."""
    opt = optgen.SOAP(every=10)
    function, p = opt.function("jax"), jnp.ones((4, 6))
    made = jax.make_jaxpr(lambda t: function(p, p, function.init(p), t))(jnp.asarray(3))
    outside = {equation.primitive.name for equation in made.jaxpr.eqns}
    assert "cond" in outside
    assert not outside & {"eigh", "qr", "householder_product"}
