"""torch.optim's rules against torch itself: its for-loop implementations, in float64, every choice of flags.

The interpreter runs ours; that the kernels equal the interpreter is another test's matter. Parameters of several
shapes are stepped in one optimiser, and after every step each element of each parameter and of each state, by torch's
own name for it, must be within 1e-12 of the largest value that it has had so far.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import optgen
from optgen.compiler import catalogue, driver
from optgen.errors import ArgumentError

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.no_cover

Array = np.ndarray[Any, np.dtype[Any]]
STEPS = 120
TOLERANCE = 1e-12
SHAPES: tuple[tuple[int, ...], ...] = ((8,), (5, 7), (), (2, 3, 4))

#: Arguments of torch's constructors that are about how it computes, not what.
HOW = {"self", "params", "foreach", "capturable", "differentiable", "fused"}
#: What ours have beyond torch's: the flags that follow from numbers, and how it is computed.
OURS = {"buffered", "dampened", "backend"}
#: torch's default for Adafactor's eps[0] is None, the epsilon of the parameter's dtype: here that of float32, always.
ADAFACTOR_EPS = (float(np.finfo(np.float32).eps), 1e-3)

#: Of each rule the numbers that it is tried with, by the names that torch and we have for them. Where a weight decay
#: passes through a division, eps is no less than lr*weight_decay (but for Adagrad, whose denominators do not fall):
#: else an element that has next to no gradient jumps about zero, and an ulp grows a millionfold there. torch leaves
#: its own path by 1e-9 if its start is moved by one ulp; with these numbers, by 2e-14 at most.
NUMBERS: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {},
        {"lr": 0.1, "weight_decay": 0.05},
        {"lr": 0.1, "dampening": 0.25},
        {"lr": 0.05, "momentum": 0.9},
        {"lr": 0.02, "momentum": 0.5, "weight_decay": 0.1},
        {"lr": 0.05, "momentum": 0.9, "dampening": 0.25, "weight_decay": 0.01},
        {"lr": 0.05, "momentum": 0.8, "dampening": -0.5},
    ],
    "Adam": [
        {},
        {"lr": 0.1, "betas": (0.5, 0.75), "eps": 1e-2, "weight_decay": 0.1},
        {"lr": 0.02, "betas": (0.0, 0.9), "eps": 1e-3, "weight_decay": 0.01},
        {"lr": 0.02, "betas": (0.3, 0.0), "eps": 0.1},
    ],
    "AdamW": [
        {},
        {"lr": 0.1, "betas": (0.5, 0.75), "eps": 1e-3, "weight_decay": 0.5},
        {"lr": 0.02, "betas": (0.95, 0.9), "weight_decay": 0.0},
    ],
    "Adagrad": [
        {},
        {"lr": 0.5, "lr_decay": 0.1, "weight_decay": 0.1},
        {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3},
    ],
    "Adadelta": [
        {},
        {"lr": 0.5, "rho": 0.5, "eps": 0.1, "weight_decay": 0.1},
        {"lr": 2.0, "rho": 0.99},
    ],
    "Adamax": [
        {},
        {"lr": 0.1, "betas": (0.5, 0.75), "eps": 1e-2, "weight_decay": 0.1},
        {"betas": (0.2, 0.0), "eps": 0.25},
    ],
    "NAdam": [
        {},
        {"lr": 0.1, "betas": (0.5, 0.75), "eps": 1e-2, "weight_decay": 0.1, "momentum_decay": 0.1},
        {"betas": (0.95, 0.9), "eps": 1e-4, "momentum_decay": 0.0, "weight_decay": 0.01},
    ],
    "RAdam": [
        {},
        {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-2, "weight_decay": 0.1},  # rectified from step 6 on
        {"lr": 0.02, "betas": (0.8, 0.6), "eps": 1e-3, "weight_decay": 0.01},  # never rectified: rho_inf is 4
    ],
    "RMSprop": [
        {},
        {"lr": 0.05, "alpha": 0.9, "eps": 1e-2, "weight_decay": 0.1},
        {"lr": 0.02, "momentum": 0.9},
        {"lr": 0.02, "alpha": 0.8, "eps": 1e-3, "momentum": 0.5, "weight_decay": 0.01},
    ],
    "Rprop": [
        {},
        {"lr": 0.1, "etas": (0.3, 1.5), "step_sizes": (0.01, 0.5)},
        {"lr": 1.0, "step_sizes": (1e-3, 0.25)},
    ],
    "ASGD": [
        {},
        {"lr": 0.1, "lambd": 0.05, "alpha": 0.5, "t0": 30.0, "weight_decay": 0.1},
        {"lr": 0.5, "lambd": 0.01, "alpha": 1.0, "t0": 0.0},
    ],
    "Adafactor": [
        {"eps": ADAFACTOR_EPS},
        {"lr": 0.5, "beta2_decay": -0.5, "eps": (1e-2, 0.1), "d": 2.0, "weight_decay": 0.1},
        {"lr": 0.1, "beta2_decay": 0.0, "eps": (1e-10, 1e-3), "d": 1.5, "weight_decay": 0.01},
    ],
}  # fmt: skip
#: States that have another name here, since theirs is a function of the language.
RENAMED = {"sum": "state_sum"}


def parameters(cls: Any) -> dict[str, Any]:
    """The arguments of a constructor, theirs or ours, that say what is computed, and their defaults, in order."""
    found = inspect.signature(cls).parameters
    return {name: part.default for name, part in found.items() if name not in HOW | OURS}


def choices(name: str) -> list[dict[str, Any]]:
    """All combinations of torch's flags with the numbers above, those that torch refuses among them."""
    flags = [flag for flag, default in parameters(getattr(torch.optim, name)).items() if isinstance(default, bool)]
    return [
        numbers | dict(zip(flags, values, strict=True))
        for numbers in NUMBERS[name]
        for values in itertools.product((False, True), repeat=len(flags))
    ]


def theirs(name: str, arguments: dict[str, Any], params: list[Any]) -> Any:
    """torch's optimiser, of its plain loop. ValueError for arguments that contradict each other."""
    cls = getattr(torch.optim, name)
    plain = {"foreach": False, "fused": False}
    known = inspect.signature(cls).parameters
    return cls(params, **arguments, **{key: value for key, value in plain.items() if key in known})


def refused(name: str, arguments: dict[str, Any]) -> bool:
    try:
        theirs(name, arguments, [torch.zeros(1, requires_grad=True)])
    except ValueError:
        return True
    return False


def titled(case: tuple[str, dict[str, Any]]) -> str:
    given = (f"{key}={value}" for key, value in case[1].items() if value is not False)
    return ", ".join([case[0], *given])


ALL = [(name, arguments) for name in NUMBERS for arguments in choices(name)]
REFUSED = [case for case in ALL if refused(*case)]
ACCEPTED = [case for case in ALL if case not in REFUSED]


@pytest.fixture
def double() -> Iterator[None]:
    """torch keeps `step`, NAdam's `mu_product` and ASGD's `eta` and `mu` in its default dtype, which is float32 at
    first: it would be the rounding of these that is measured."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def gradients(seed: int, shape: tuple[int, ...]) -> Array:
    """Elements of different scales that change sign, slowly and quickly; some fall silent, and some wake up late."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    kind = np.arange(size) % 8
    scales = np.array([1.0, 1e-3, 40.0, 1.0, 1e-6, 1.0, 3.0, 1.0])
    g = rng.normal(0, 1, (STEPS, size)) * scales[kind]
    g[:, kind == 3] = np.sin(np.arange(STEPS) / 9)[:, None]
    g[:, kind == 5] += 2  # of one sign, mostly
    g[STEPS // 3 :, kind == 6] = 0
    g[: STEPS // 3, kind == 7] = 0
    g[rng.random(g.shape) < 0.05] = 0
    g[[0, 17]] *= np.arange(size) % 2  # half of the elements begin with nothing
    return g.reshape(STEPS, *shape)


def start(seed: int, shape: tuple[int, ...]) -> Array:
    values = np.array([0.5, -2.0, 10.0, 0.0, 1e-3, -0.25, 7.0, 1.0])
    return np.resize(np.roll(values, -seed), shape).astype(np.float64)


Snapshot = list[dict[str, Array]]


def their_path(name: str, arguments: dict[str, Any]) -> list[Snapshot]:
    """After each step, of each parameter: itself as "p", and torch's states, with the count of steps as "t"."""
    params = [torch.tensor(start(i, shape), requires_grad=True) for i, shape in enumerate(SHAPES)]
    grads = [gradients(i, shape) for i, shape in enumerate(SHAPES)]
    optimiser = theirs(name, arguments, params)
    path = []
    for t in range(STEPS):
        for p, g in zip(params, grads, strict=True):
            p.grad = torch.tensor(g[t])
        optimiser.step()
        path.append([
            {"p": p.detach().numpy().copy(), "t": np.array(t + 1.0)}
            | {
                {"step": "t", **RENAMED}.get(key, key): value.detach().numpy().copy()
                for key, value in optimiser.state[p].items()
            }
            for p in params
        ])  # fmt: skip
    return path


def our_path(name: str, arguments: dict[str, Any]) -> list[Snapshot]:
    """The same of the interpreter."""
    params = [start(i, shape) for i, shape in enumerate(SHAPES)]
    grads = [gradients(i, shape) for i, shape in enumerate(SHAPES)]
    optimiser = getattr(optgen, name)(**arguments, backend="interpreter")
    path = []
    for t in range(STEPS):
        optimiser.step(params, [g[t].copy() for g in grads])
        path.append([
            {"p": p.copy()} | {key: np.array(value, dtype=np.float64) for key, value in optimiser.state(p).items()}
            for p in params
        ])  # fmt: skip
    return path


@pytest.mark.parametrize("case", ACCEPTED, ids=titled)
def test_a_rule_follows_torch(case: tuple[str, dict[str, Any]], double: None) -> None:
    expected, path = their_path(*case), our_path(*case)
    for i, shape in enumerate(SHAPES):
        highest = {"p": np.abs(start(i, shape))}
        for t in range(STEPS):
            there, here = expected[t][i], path[t][i]
            assert set(here) == set(there)
            for key, value in there.items():
                assert here[key].shape == value.shape, key
                assert np.isfinite(value).all()
                scale = highest[key] = np.maximum(highest.get(key, 0.0), np.abs(value))
                apart = np.abs(here[key] - value) / np.where(scale > 0, scale, 1)
                assert apart.max() <= TOLERANCE, (
                    f"{key} of shape {shape} is {apart.max():.3g} apart after step {t + 1}, "
                    f"at {np.unravel_index(apart.argmax(), shape)}"
                )
        assert all((value > 0).all() for value in highest.values())


@pytest.mark.parametrize("case", REFUSED, ids=titled)
def test_what_torch_refuses_is_refused(case: tuple[str, dict[str, Any]]) -> None:
    name, arguments = case
    with pytest.raises(ArgumentError, match="nesterov"):
        getattr(optgen, name)(**arguments, backend="interpreter")


def test_nesterov_alone_contradicts_other_arguments() -> None:
    assert {case[0] for case in REFUSED} == {"SGD"}
    assert all(case[1]["nesterov"] for case in REFUSED)
    with pytest.raises(ArgumentError, match="nesterov"):
        optgen.SGD(momentum=0.9, nesterov=True, buffered=False, backend="interpreter")


@pytest.mark.parametrize("name", NUMBERS)
def test_every_variant_is_tried(name: str) -> None:
    made = [getattr(optgen, name)(**arguments, backend="interpreter") for rule, arguments in ACCEPTED if rule == name]
    tried = {tuple((flag.name, flag.value) for flag in optimiser.rule.flags) for optimiser in made}
    rules = driver.compile_file(catalogue.shipped_names()[name]).rules
    assert tried == {tuple((flag.name, flag.value) for flag in rule.flags) for rule in rules}


@pytest.mark.parametrize("name", NUMBERS)
def test_the_signature_is_that_of_torch(name: str) -> None:
    there, here = parameters(getattr(torch.optim, name)), parameters(getattr(optgen, name))
    for of_arrays in ("storage", "rounding", "seed"):
        here.pop(of_arrays, None)
    if name == "Adafactor":
        assert there["eps"] == (None, ADAFACTOR_EPS[1])
        there["eps"] = ADAFACTOR_EPS
    assert here == there
    flags = {key for key, default in there.items() if isinstance(default, bool)}
    assert {key for key, default in here.items() if isinstance(default, bool)} == flags
    # Of one order, but for the flags: these can only be named here.
    assert [key for key in here if key not in flags] == [key for key in there if key not in flags]


def test_every_rule_of_torch_is_here() -> None:
    """But for those that are no rule of one gradient, or of dense ones."""
    left_out = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}
    classes = {name for name, value in vars(torch.optim).items() if inspect.isclass(value)} - left_out
    assert set(NUMBERS) == classes
