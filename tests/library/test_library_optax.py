"""The rules of optax, in float64 and step for step, against optax itself: parameters and states.

Of a few things optax has no counterpart, or the paper another opinion; they are tested against NumPy, at the end.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from trajectories import SHAPES, STEPS, TOLERANCE, Array, assert_same_path, gradients, ours, starts

import optgen

optax = pytest.importorskip("optax")
jax = pytest.importorskip("jax")
contrib = optax.contrib

pytestmark = pytest.mark.no_cover

STARTS_AT_P = ("z", "p0")  # states
DEEP: list[tuple[int, ...]] = [(8,), (5, 7), (6, 1), (3, 1, 4), (2, 3, 2, 3), (2, 1, 3, 2, 2)]  # for SM3: no scalars


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    """jax in float64, and only here: other tests may want its float32."""
    with jax.enable_x64(True):
        yield


# ---- What is called how there ----


def yogi(h: Any) -> Any:
    if h.eps_root == 0 and h.initial == 1e-6:
        return optax.yogi(h.eta, *h.beta, h.eps)
    return optax.chain(optax.scale_by_yogi(*h.beta, h.eps, h.eps_root, h.initial), optax.scale_by_learning_rate(h.eta))


def lion(h: Any) -> Any:
    if not h.refined:
        return optax.lion(h.eta, *h.beta, weight_decay=h.decay)
    return optax.chain(
        optax.scale_by_lion(*h.beta, mode="refined"),
        optax.add_decayed_weights(h.decay),
        optax.scale_by_learning_rate(h.eta),
    )


def sm3(h: Any) -> Any:
    if h.beta == 1 and h.eps == 1e-8:
        return optax.sm3(h.eta, h.rho)
    return optax.chain(optax.scale_by_sm3(h.rho, h.beta, h.eps), optax.scale(-h.eta))


def sm3_states(s: Any) -> dict[str, list[Any]]:
    accumulators = s[0].mu
    return {
        "m": s[0].nu,
        "acc": [a[0] if len(a) == 1 else None for a in accumulators],
        "acc_index": [jax.numpy.concatenate([x.ravel() for x in a]) if len(a) > 1 else None for a in accumulators],
    }


#: By rule: optax's optimiser of our hyperparameters, and our states in what it keeps: a list with one for each
#: parameter (None for a state that the parameter does not have), or a single value that is the same for all of them.
THEIRS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], dict[str, Any]]]] = {
    "Yogi": (yogi, lambda s: {"m": s[0].mu, "v": s[0].nu}),
    "LAMB": (
        lambda h: optax.lamb(h.eta, *h.beta, h.eps, h.eps_root, h.decay),
        lambda s: {"m": s[0].mu, "v": s[0].nu},
    ),
    "LARS": (
        lambda h: optax.lars(h.eta, h.decay, trust_coefficient=h.trust, eps=h.eps, momentum=h.rho, nesterov=h.nesterov),
        lambda s: {"v": [-trace for trace in s[-1].trace]},
    ),
    "NovoGrad": (
        lambda h: optax.novograd(h.eta, *h.beta, h.eps, h.eps_root, h.decay),
        lambda s: {"m": s[0].mu, "v": s[0].nu},
    ),
    "Fromage": (lambda h: optax.fromage(h.eta, h.min_norm), lambda s: {}),
    "Adan": (
        lambda h: optax.adan(h.eta, *h.beta, h.eps, h.eps_root, h.decay),
        lambda s: {"m": s[0].m, "v": s[0].v, "n": s[0].n, "last": s[0].g},
    ),
    "SM3": (sm3, sm3_states),
    "SignSGD": (
        lambda h: optax.signum(h.eta, h.rho) if h.momentum else optax.sign_sgd(h.eta),
        lambda s: {"m": s[0].ema} if hasattr(s[0], "ema") else {},
    ),
    "OptimisticGradient": (
        lambda h: optax.optimistic_gradient_descent(h.eta, h.alpha, h.beta),
        lambda s: {"last": s[0].previous_gradient},
    ),
    "ScheduleFreeSGD": (
        lambda h: contrib.schedule_free_sgd(h.eta, int(h.warmup) or None, h.beta, h.decay or None, h.power),
        lambda s: {"z": s.z, "max_lr": s.max_lr, "weight_sum": s.weight_sum},
    ),
    "ScheduleFreeAdamW": (
        lambda h: contrib.schedule_free_adamw(h.eta, int(h.warmup) or None, *h.beta, h.eps, h.decay, h.power),
        lambda s: {"z": s.z, "v": s.base_optimizer_state[0].nu, "max_lr": s.max_lr, "weight_sum": s.weight_sum},
    ),
    "Prodigy": (
        lambda h: contrib.prodigy(h.eta, h.beta, h.rho or None, h.eps, h.d0, h.coef, h.decay, h.safeguard),
        lambda s: {
            "m": s.exp_avg,
            "v": s.exp_avg_sq,
            "s": s.grad_sum,
            "p0": s.params0,
            "num": s.numerator_weighted,
            "d": s.estim_lr,
        },
    ),
    "DAdaptAdamW": (
        lambda h: contrib.dadapt_adamw(h.eta, h.beta, h.eps, h.d0, h.decay),
        lambda s: {
            "m": s.exp_avg,
            "v": s.exp_avg_sq,
            "s": s.grad_sum,
            "num": s.numerator_weighted,
            "d": s.estim_lr,
        },
    ),
    "AdaBelief": (
        lambda h: optax.adabelief(h.eta, *h.beta, h.eps, h.eps_root, nesterov=h.nesterov),
        lambda s: {"m": s[0].mu, "s": s[0].nu},
    ),
    "Lion": (lion, lambda s: {"m": s[0].mu}),
    "COCOB": (
        lambda h: contrib.cocob(h.eta, h.alpha, h.eps),
        lambda s: {
            "p0": s[2].init_particles,
            "total": s[2].cumulative_gradients,
            "largest": s[2].scale,
            "lengths": s[2].subgradients,
            "reward": s[2].reward,
        },
    ),
    "ACProp": (
        lambda h: contrib.acprop(h.eta, *h.beta, h.eps, h.eps_root),
        lambda s: {"m": s[0].mu, "s": s[0].nu},
    ),
    "DoG": (
        lambda h: contrib.dog(h.eta, ("heuristic", h.first), h.eps),
        lambda s: {"p0": s[1].init_params, "distance": s[1].max_dist, "squares": s[1].sum_sq_norm_grads},
    ),
    "DoWG": (
        lambda h: contrib.dowg(h.eta, h.first, h.eps),
        lambda s: {"p0": s[1].init_params, "distance": s[1].estim_sq_dist, "squares": s[1].weighted_sq_norm_grads},
    ),
}

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in THEIRS),
    ("Yogi", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-2}),
    ("Yogi", {"beta": (0.99, 0.9), "eps": 1e-8, "eps_root": 1e-4, "initial": 0.25}),
    ("LAMB", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3, "decay": 0.125}),
    ("LAMB", {"eta": 0.01, "eps_root": 1e-2, "decay": 0.01}),
    ("LARS", {"nesterov": True}),
    ("LARS", {"eta": 1.5, "decay": 0.01, "trust": 0.02, "eps": 1e-2, "rho": 0.5}),
    ("LARS", {"eta": 1.5, "decay": 0.01, "trust": 0.02, "eps": 1e-2, "rho": 0.5, "nesterov": True}),
    ("LARS", {"eta": 0.5, "decay": 0.1, "rho": 0.0, "nesterov": True}),
    ("NovoGrad", {"eta": 0.1, "beta": (0.5, 0.98), "eps": 1e-2, "decay": 0.01}),
    ("NovoGrad", {"beta": (0.95, 0.5), "eps": 0.5, "eps_root": 0.25}),
    ("Fromage", {"eta": 0.5}),
    ("Fromage", {"eta": 0.1, "min_norm": 0.0}),
    ("Fromage", {"eta": 0.1, "min_norm": 2.0}),
    ("Adan", {"eta": 0.1, "beta": (0.5, 0.75, 0.875), "eps": 1e-3, "decay": 0.02}),
    ("Adan", {"beta": (0.9, 0.5, 0.999), "eps_root": 0.0, "decay": 0.5}),
    ("Adan", {"eps": 0.0, "eps_root": 0.25}),
    ("SM3", {"eta": 0.5, "rho": 0.5}),
    ("SM3", {"rho": 0.0}),
    ("SM3", {"beta": 0.75, "eps": 1e-3}),
    ("SM3", {"rho": 0.0, "beta": 0.95, "eps": 0.5}),
    ("SM3", {"eps": 0.0}),
    ("SignSGD", {"eta": 0.25}),
    ("SignSGD", {"rho": 0.9}),
    ("SignSGD", {"eta": 0.1, "rho": 0.5}),
    ("SignSGD", {"rho": 0.0, "momentum": True}),
    ("OptimisticGradient", {"eta": 0.01, "alpha": 0.5, "beta": 2.0}),
    ("OptimisticGradient", {"alpha": 2.0, "beta": 0.25}),
    ("OptimisticGradient", {"alpha": 0.0, "beta": 0.5}),
    # optax computes the warm-up in float32 (its count is int32, and jax makes that a float32 when it is divided), so
    # here eta and warmup are powers of two: every learning rate is exact in it.
    ("ScheduleFreeSGD", {"eta": 0.25, "warmup": 16}),
    ("ScheduleFreeSGD", {"eta": 0.125, "beta": 0.75, "decay": 0.01, "warmup": 32, "power": 1.0}),
    ("ScheduleFreeSGD", {"eta": 0.1, "beta": 1.0, "decay": 0.125, "power": 0.0}),
    ("ScheduleFreeSGD", {"eta": 0.5, "warmup": 1}),
    ("ScheduleFreeSGD", {"eta": 0.0}),
    ("ScheduleFreeAdamW", {"eta": 0.25, "warmup": 16}),
    ("ScheduleFreeAdamW", {"eta": 0.0625, "warmup": 1}),
    ("ScheduleFreeAdamW", {"eta": 0.0}),
    (
        "ScheduleFreeAdamW",
        {"eta": 0.125, "beta": (0.75, 0.5), "eps": 1e-3, "decay": 0.01, "warmup": 32, "power": 1.0},
    ),
    ("ScheduleFreeAdamW", {"eta": 0.1, "beta": (0.98, 0.9), "decay": 0.125, "power": 0.0}),
    ("Prodigy", {"safeguard": True}),
    ("Prodigy", {"eta": 0.5, "beta": (0.5, 0.75), "eps": 1e-3, "d0": 1e-2, "decay": 0.01}),
    ("Prodigy", {"eta": 2.0, "rho": 0.9, "d0": 1e-4, "coef": 0.5}),
    (
        "Prodigy",
        {"eta": 0.5, "rho": 0.5, "eps": 1e-3, "d0": 1e-2, "coef": 2.0, "decay": 0.125, "safeguard": True},
    ),
    ("DAdaptAdamW", {"eta": 0.5, "beta": (0.5, 0.75), "eps": 1e-3, "d0": 1e-3, "decay": 0.01}),
    ("DAdaptAdamW", {"eta": 2.0, "d0": 1e-4, "decay": 1e-4}),
    ("AdaBelief", {"nesterov": True}),
    ("AdaBelief", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3, "eps_root": 1e-2}),
    ("AdaBelief", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3, "eps_root": 1e-2, "nesterov": True}),
    ("AdaBelief", {"eps": 1e-8, "eps_root": 0.0}),
    ("COCOB", {"eta": 0.5, "alpha": 2.0, "eps": 1e-3}),
    ("ACProp", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3, "eps_root": 1e-2}),
    ("DoG", {"eta": 0.5, "first": 1e-3, "eps": 1e-2}),
    ("DoG", {"first": 1e-4}),
    ("DoWG", {"eta": 0.5, "first": 1e-2, "eps": 1e-3}),
    ("Lion", {"refined": True}),
    ("Lion", {"eta": 0.1, "beta": (0.5, 0.75), "decay": 0.125}),
    ("Lion", {"eta": 0.1, "beta": (0.95, 0.25), "decay": 0.0, "refined": True}),
]


def titled(case: tuple[str, dict[str, Any]]) -> str:
    return ", ".join([case[0], *(f"{name}={value}" for name, value in case[1].items())])


# ---- Trajectories ----


def theirs(
    transformation: Any, exposed: Callable[[Any], dict[str, Any]], p: Sequence[Array], g: Sequence[Array]
) -> tuple[list[Array], list[dict[str, Array]]]:
    """The same of optax."""

    def step(carry: Any, g: Any) -> Any:
        p, state = carry
        updates, state = transformation.update(g, state, p)
        p = optax.apply_updates(p, updates)
        return (p, state), (p, exposed(state))

    p = [jax.numpy.array(x) for x in p]
    run = jax.jit(lambda p, g: jax.lax.scan(step, (p, transformation.init(p)), g)[1])
    path, states = jax.device_get(run(p, [jax.numpy.array(x) for x in g]))
    assert all(steps.dtype == np.float64 for steps in path)
    return path, [
        {
            name: value[i] if isinstance(value, list) else value
            for name, value in states.items()
            if not isinstance(value, list) or value[i] is not None
        }
        for i in range(len(path))
    ]


def values(name: str, given: dict[str, Any]) -> Any:
    """All hyperparameters and flags of a rule, for the functions above."""
    signature = inspect.signature(getattr(optgen, name).__init__).parameters
    known = {key: p.default for key, p in signature.items() if key not in ("self", "backend")}
    assert set(given) <= set(known)
    found = SimpleNamespace(**known | given)
    if name in ("SignSGD", "SM3") and "momentum" not in given:
        found.momentum = found.rho != 0
    return found


@pytest.mark.parametrize("case", CASES, ids=titled)
def test_the_interpreter_follows_optax(case: tuple[str, dict[str, Any]]) -> None:
    name, given = case
    make, exposed = THEIRS[name]
    shapes = DEEP if name == "SM3" else SHAPES
    p, g = starts(shapes), gradients(shapes)
    path, states = ours(getattr(optgen, name)(**given, backend="interpreter"), p, g)
    h = values(name, given)
    expected, expected_states = theirs(make(h), exposed, p, g)
    for i, shape in enumerate(shapes):
        assert_same_path(path[i], expected[i], p[i], f"p of {shape}")
        known = expected_states[i]
        if name == "SM3" and not h.momentum:
            del known["m"]  # optax keeps the steps; here nothing needs them
        assert set(known) == set(states[i])
        for state, there in known.items():
            assert_same_path(states[i][state], there, p[i] if state in STARTS_AT_P else 0.0, f"{state} of {shape}")
        if hasattr(h, "d0"):  # or else this would say nothing of the estimate, which never falls
            assert states[i]["d"][-1] > 1.1 * h.d0
        if h.eta != 0:
            assert np.any(np.diff(expected[i], axis=0) != 0, axis=0).all(), f"an element of {shape} stands still"


@pytest.mark.parametrize("name", ["ScheduleFreeSGD", "ScheduleFreeAdamW"])
def test_the_mean_weighs_by_the_largest_learning_rate(name: str) -> None:
    """Which shows only where the learning rate falls. A schedule of optax counts from 0, but from 1 for the weights."""
    p, g = starts(SHAPES), gradients(SHAPES)

    def schedule(count: Any) -> Any:
        return jax.numpy.where(count < 60, 0.5, 0.125)

    h = values(name, {})
    make, exposed = THEIRS[name]
    h.eta = schedule
    rates = [0.5] * 60 + [0.125] * (STEPS - 60)
    path, states = ours(getattr(optgen, name)(backend="interpreter"), p, g, rates)
    expected, expected_states = theirs(make(h), exposed, p, g)
    for i, shape in enumerate(SHAPES):
        assert_same_path(path[i], expected[i], p[i], f"p of {shape}")
        for state, there in expected_states[i].items():
            assert_same_path(states[i][state], there, p[i] if state in STARTS_AT_P else 0.0, f"{state} of {shape}")


# ---- Defaults ----

#: By rule: optax's function, and by each of its arguments what it is called here: a hyperparameter or a flag, `beta[1]`
#: for a value of beta, and "" for what there is no such thing of here.
ARGUMENTS: dict[str, tuple[Callable[..., Any], dict[str, str]]] = {
    "Yogi": (optax.yogi, {"learning_rate": "eta", "b1": "beta[1]", "b2": "beta[2]", "eps": "eps"}),
    "LAMB": (
        optax.lamb,
        {
            "learning_rate": "eta", "b1": "beta[1]", "b2": "beta[2]", "eps": "eps", "eps_root": "eps_root",
            "weight_decay": "decay", "mask": "",
        },
    ),
    "LARS": (
        optax.lars,
        {
            "learning_rate": "eta", "weight_decay": "decay", "weight_decay_mask": "", "trust_coefficient": "trust",
            "eps": "eps", "trust_ratio_mask": "", "momentum": "rho", "nesterov": "nesterov",
        },
    ),
    "NovoGrad": (
        optax.novograd,
        {
            "learning_rate": "eta", "b1": "beta[1]", "b2": "beta[2]", "eps": "eps", "eps_root": "eps_root",
            "weight_decay": "decay",
        },
    ),
    "Fromage": (optax.fromage, {"learning_rate": "eta", "min_norm": "min_norm"}),
    "Adan": (
        optax.adan,
        {
            "learning_rate": "eta", "b1": "beta[1]", "b2": "beta[2]", "b3": "beta[3]", "eps": "eps",
            "eps_root": "eps_root", "weight_decay": "decay", "mask": "",
        },
    ),
    "SM3": (optax.sm3, {"learning_rate": "eta", "momentum": "rho"}),
    "SignSGD": (optax.sign_sgd, {"learning_rate": "eta"}),
    "OptimisticGradient": (
        optax.optimistic_gradient_descent,
        {"learning_rate": "eta", "alpha": "alpha", "beta": "beta"},
    ),
    "ScheduleFreeSGD": (
        contrib.schedule_free_sgd,
        {
            "learning_rate": "eta", "warmup_steps": "warmup", "b1": "beta", "weight_decay": "decay",
            "weight_lr_power": "power", "state_dtype": "",
        },
    ),
    "ScheduleFreeAdamW": (
        contrib.schedule_free_adamw,
        {
            "learning_rate": "eta", "warmup_steps": "warmup", "b1": "beta[1]", "b2": "beta[2]", "eps": "eps",
            "weight_decay": "decay", "weight_lr_power": "power", "state_dtype": "",
        },
    ),
    "Prodigy": (
        contrib.prodigy,
        {
            "learning_rate": "eta", "betas": "beta", "beta3": "rho", "eps": "eps", "estim_lr0": "d0",
            "estim_lr_coef": "coef", "weight_decay": "decay", "safeguard_warmup": "safeguard",
        },
    ),
    "DAdaptAdamW": (
        contrib.dadapt_adamw,
        {"learning_rate": "eta", "betas": "beta", "eps": "eps", "estim_lr0": "d0", "weight_decay": "decay"},
    ),
    "AdaBelief": (
        optax.adabelief,
        {
            "learning_rate": "eta", "b1": "beta[1]", "b2": "beta[2]", "eps": "eps", "eps_root": "eps_root",
            "nesterov": "nesterov",
        },
    ),
    "COCOB": (
        contrib.cocob, {"learning_rate": "eta", "alpha": "alpha", "eps": "eps", "weight_decay": "", "mask": ""}
    ),
    "ACProp": (
        contrib.acprop,
        {
            "learning_rate": "eta", "b1": "beta[1]", "b2": "beta[2]", "eps": "eps", "eps_root": "eps_root",
            "weight_decay": "", "mask": "",
        },
    ),
    "DoG": (contrib.dog, {"learning_rate": "eta", "init_step": "", "eps": "eps", "weight_decay": "", "mask": ""}),
    "DoWG": (
        contrib.dowg,
        {"learning_rate": "eta", "init_estim_sq_dist": "", "eps": "eps", "weight_decay": "", "mask": ""},
    ),
    "Lion": (
        optax.lion,
        {
            "learning_rate": "eta", "b1": "beta[1]", "b2": "beta[2]", "mu_dtype": "", "weight_decay": "decay",
            "mask": "",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_defaults_are_those_of_optax(name: str) -> None:
    function, arguments = ARGUMENTS[name]
    parameters = inspect.signature(function).parameters
    assert set(parameters) == set(arguments)
    here = values(name, {})
    for there, called in arguments.items():
        default = parameters[there].default
        if not called or default is inspect.Parameter.empty:
            continue
        known, _, index = called.rstrip("]").partition("[")
        value = getattr(here, known)
        # None: no warm-up, no decay, and the root of beta[2].
        assert (value[int(index) - 1] if index else value) == (0 if default is None else default), called


def test_what_the_aliases_of_optax_hide_has_the_defaults_that_they_give_it() -> None:
    scale_by_yogi = inspect.signature(optax.scale_by_yogi).parameters
    assert values("Yogi", {}).eps_root == scale_by_yogi["eps_root"].default
    assert values("Yogi", {}).initial == scale_by_yogi["initial_accumulator_value"].default
    scale_by_sm3 = inspect.signature(optax.scale_by_sm3).parameters
    assert values("SM3", {}).beta == scale_by_sm3["b2"].default
    assert values("SM3", {}).eps == scale_by_sm3["eps"].default


def test_every_rule_is_tested() -> None:
    assert set(ARGUMENTS) == set(THEIRS)
    assert len(THEIRS) == 19


@pytest.mark.parametrize(
    "given", [{}, {"eta": 0.5, "bound": 0.01}, {"target": 0.5, "eps": 0.25}, {"target": 0.5, "plus": True}], ids=str
)
def test_polyaks_step_is_that_of_optax(given: dict[str, Any]) -> None:
    h = values("PolyakSGD", given)
    variant = "sps+" if h.plus else "sps"
    # Its alias scales gradients before it takes their norm, so that the factor divides the step.
    transformation = optax.chain(optax.scale_by_polyak(h.target, h.bound, h.eps, variant), optax.scale(-h.eta))
    p, g = starts(SHAPES), gradients(SHAPES)
    theta, state = list(map(jax.numpy.array, p)), transformation.init(list(map(jax.numpy.array, p)))
    opt, ps = optgen.PolyakSGD(**given, backend="interpreter"), [np.array(x) for x in p]
    path: list[list[Array]] = [[] for _ in p]
    expected: list[list[Array]] = [[] for _ in p]
    for t in range(STEPS):
        rows, loss = [np.array(each[t]) for each in g], float(4 * np.exp(-t / 30))
        opt.step(ps, rows, loss=loss)
        updates, state = transformation.update(list(map(jax.numpy.array, rows)), state, theta, value=loss)
        theta = optax.apply_updates(theta, updates)
        for i in range(len(p)):
            path[i].append(ps[i].copy())
            expected[i].append(np.array(theta[i]))
    for i, shape in enumerate(SHAPES):
        assert_same_path(np.array(path[i]), np.array(expected[i]), p[i], f"p of {shape}")


def test_the_defaults_of_polyaks_step_are_those_of_optax() -> None:
    theirs, here = inspect.signature(optax.polyak_sgd).parameters, values("PolyakSGD", {})
    names = {"max_learning_rate": "bound", "scaling": "eta", "f_min": "target", "eps": "eps"}
    assert {name: getattr(here, own) for name, own in names.items()} == {n: theirs[n].default for n in names}
    assert (theirs["variant"].default, here.plus) == ("sps", False)


# ---- What optax does not have, or not so ----


def test_adan_can_follow_the_paper() -> None:
    """Algorithm 1, with the authors' correction of bias; the betas are one minus ours, as the paper has them."""
    eta, beta, eps, decay = 0.01, (0.98, 0.92, 0.99), 1e-8, 0.02
    (p,), (g,) = starts([(5, 7)]), gradients([(5, 7)])
    b1, b2, b3 = (1 - b for b in beta)
    m, v, n = np.zeros((3, 5, 7))
    theta, expected = p.copy(), []
    for k in range(STEPS):
        change = g[k] - g[k - 1] if k else np.zeros((5, 7))
        m = (1 - b1) * m + b1 * g[k]
        v = (1 - b2) * v + b2 * change
        n = (1 - b3) * n + b3 * (g[k] + (1 - b2) * change) ** 2
        corrected = [x / (1 - (1 - b) ** (k + 1)) for x, b in ((m, b1), (v, b2), (n, b3))]
        rate = eta / (np.sqrt(corrected[2]) + eps)
        theta = (theta - rate * (corrected[0] + (1 - b2) * corrected[1])) / (1 + decay * eta)
        expected.append(theta)
    opt = optgen.Adan(eta=eta, beta=beta, eps=eps, eps_root=0.0, decay=decay, paper=True, backend="interpreter")
    assert_same_path(ours(opt, [p], [g])[0][0], np.array(expected), p, "p")


def test_sm3_takes_a_scalar_as_a_vector() -> None:
    p, g = starts([()]), gradients([()])
    path, _ = ours(optgen.SM3(backend="interpreter"), p, g)
    expected, _ = theirs(optax.sm3(0.1), lambda s: {}, [p[0].reshape(1)], [g[0].reshape(STEPS, 1)])
    assert_same_path(path[0], expected[0], p[0], "the scalar")


def test_schedule_free_descent_keeps_the_mean_that_its_notes_compute() -> None:
    """The paper's three sequences, each kept; with one learning rate all steps weigh the same."""
    eta, beta = 0.1, 0.75
    (p,), (g,) = starts([(5, 7)]), gradients([(5, 7)])
    x, z, y = p.copy(), p.copy(), []
    for k in range(STEPS):
        z = z - eta * g[k]
        x = x + (z - x) / (k + 1)
        y.append((1 - beta) * z + beta * x)
    opt = optgen.ScheduleFreeSGD(eta=eta, beta=beta, backend="interpreter")
    (path,), (states,) = ours(opt, [p], [g])
    assert_same_path(path, np.array(y), p, "y")
    mean = (path[-1] - (1 - beta) * states["z"][-1]) / beta
    np.testing.assert_allclose(mean, x, rtol=0, atol=TOLERANCE * np.abs(np.array(y)).max())


@pytest.mark.parametrize("name", ["Prodigy", "DAdaptAdamW"])
def test_gradients_that_begin_as_zeros_leave_the_estimate(name: str) -> None:
    """optax divides zero by zero here, and all is NaN for good."""
    (p,), (g,) = starts([(5, 7)]), gradients([(5, 7)])
    g[:3] = 0
    (path,), (states,) = ours(getattr(optgen, name)(backend="interpreter"), [p], [g])
    assert (path[:3] == p).all()
    assert (states["d"][:3] == 1e-6).all()
    assert np.isfinite(path).all()
    assert states["d"][-1] > 1e-6
