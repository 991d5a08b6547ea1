"""Rules that the package pytorch-optimizer collects, in float64 and step for step, against the collection itself.

What its float32 sums and its faults would change is mended here, in `collected`; the notes of the rules name it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from rules import PART_OF, make, same_everywhere
from trajectories import SHAPES, STEPS, Array, assert_same_path, gradients, ours, starts

import optgen

torch = pytest.importorskip("torch")
collection = pytest.importorskip("pytorch_optimizer")
grokfast = pytest.importorskip("pytorch_optimizer.optimizer.grokfast")

pytestmark = pytest.mark.no_cover

TOLERANCE = 1e-10
#: Of three dimensions the collection's AGC takes norms of another kind.
FILTERED: list[tuple[int, ...]] = [(8,), (5, 7), (), (2, 3, 2, 2), (3,)]
#: How the collection steps, and what its options are about that are parts of chains here.
HOW = {"params", "foreach", "maximize", "kwargs", "weight_decay", "weight_decouple", "fixed_decay", "ams_bound"}
Read = Callable[[dict[str, Any], dict[str, Any]], Any]


class Theirs(NamedTuple):
    """A rule in the collection.

    `arguments`: by its name there, what each argument is called here. `states`: by its name here, what each state is
    called there, or how it is read from the states of the parameter and from the group. `fixed`: arguments that have
    no name here. `other`: the arguments whose default is another one. `alone`: the states that it does not keep.
    """

    arguments: dict[str, str]
    states: dict[str, str | Read]
    fixed: dict[str, Any] | None = None
    other: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()


def grouped(name: str) -> Read:
    """A value that the collection keeps for the group."""
    return lambda state, group: group[name]


def alternating(now: str, other: str) -> tuple[Read, Read]:
    """Two averages of which one is for odd steps: the one of this step, and the other."""
    return (
        lambda state, group: state[now if group["step"] % 2 else other],
        lambda state, group: state[other if group["step"] % 2 else now],
    )


def uncorrected(name: str, number: int) -> Read:
    """An average of which the collection keeps the corrected value."""
    return lambda state, group: state[name] * (1 - group["betas"][number] ** group["step"])


def kept_gradient(number: int) -> Read:
    """One of the last ten gradients, the newest first; zero while there are fewer."""

    def read(state: dict[str, Any], group: dict[str, Any]) -> Any:
        queue = state["grad_queue"]
        return queue[-number] if number <= len(queue) else 0.0 * queue[-1]

    return read


def last(name: str, sign: float = 1.0) -> Read:
    return lambda state, group: sign * state[name]


ADAM = {"lr": "eta", "betas": "beta", "eps": "eps"}
MOMENTS: dict[str, str | Read] = {"m": "exp_avg", "v": "exp_avg_sq"}
ADAPTING: dict[str, str | Read] = {"s": "s", "d": grouped("d")}
PN = alternating("pos_momentum", "neg_momentum")
ADAPN = alternating("exp_avg", "neg_exp_avg")

#: By rule, with what it is called there.
THEIRS: dict[str, Theirs] = {
    "AdaBound": Theirs(ADAM | {"final_lr": "bound", "gamma": "gamma"}, MOMENTS, alone=("base",)),
    "AdaMod": Theirs(ADAM, MOMENTS | {"s": "exp_avg_lr"}),
    "DiffGrad": Theirs(ADAM, MOMENTS | {"last": "previous_grad"}),
    "AdamP": Theirs(ADAM | {"delta": "threshold", "weight_decay": "decay", "wd_ratio": "ratio"}, MOMENTS),
    "SGDP": Theirs(
        {
            "lr": "eta", "momentum": "rho", "dampening": "dampening", "eps": "eps", "delta": "threshold",
            "weight_decay": "decay", "wd_ratio": "ratio",
        },
        {"m": "momentum"},
    ),
    "Adai": Theirs(ADAM, MOMENTS | {"kept": "beta1_prod"}),
    "AdaNorm": Theirs(ADAM | {"r": "rho"}, {"m": "exp_avg", "v": "exp_avg_var", "usual": "exp_grad_norm"}),
    "PAdam": Theirs(ADAM | {"partial": "partial"}, MOMENTS),
    "QHAdam": Theirs(
        ADAM | {"nus": "nu"}, {"m": uncorrected("exp_avg", 0), "v": uncorrected("exp_avg_sq", 1)}, other=("nus",)
    ),
    "QHM": Theirs({"lr": "eta", "momentum": "rho", "nu": "nu"}, {"m": "momentum_buffer"}, other=("momentum", "nu")),
    "AdEMAMix": Theirs(ADAM | {"alpha": "alpha", "t_alpha_beta3": "warmup"}, MOMENTS | {"slow": "exp_avg_slow"}),
    "SimplifiedAdEMAMix": Theirs(ADAM | {"alpha": "alpha"}, MOMENTS),
    "ADOPT": Theirs(ADAM, MOMENTS),
    "BCOS": Theirs({"lr": "eta", "beta": "beta", "eps": "eps"}, {"m": "m"}),
    "EXAdam": Theirs(ADAM, MOMENTS),
    "FAdam": Theirs(
        ADAM | {"eps_2": "small", "clip": "clip", "weight_decay": "decay"},
        {"m": "momentum", "fisher": "fim"},
        {"momentum_dtype": torch.float64, "fim_dtype": torch.float64},
    ),
    "FOCUS": Theirs({"lr": "eta", "betas": "beta", "gamma": "gamma"}, {"m": "exp_avg", "avg": "pbar"}),
    "FTRL": Theirs({"lr": "eta", "beta": "beta", "lambda_1": "l1", "lambda_2": "l2"}, {"z": "z", "n": "n"}),
    "Grams": Theirs(ADAM, MOMENTS),
    "Kate": Theirs({"lr": "eta", "delta": "gamma", "eps": "eps"}, {"m": "m", "b": "b"}),
    "LaProp": Theirs(ADAM, MOMENTS | {"rate": "exp_avg_lr_1"}),
    "MADGRAD": Theirs(
        {"lr": "eta", "momentum": "rho", "eps": "eps"}, {"s": "s", "n": "grad_sum_sq", "p0": "x0"}
    ),
    "MSVAG": Theirs({"lr": "eta", "beta": "beta"}, MOMENTS),
    "Nero": Theirs(
        {"lr": "eta", "beta": "beta", "eps": "eps"}, {"v": "exp_avg_sq", "v_row": "exp_avg_sq", "scale": "scale"}
    ),
    "PID": Theirs(
        {
            "lr": "eta", "momentum": "rho", "dampening": "dampening", "derivative": "derivative",
            "integral": "integral",
        },
        {"total": "i_buffer", "change": "d_buffer", "last": "grad_buffer"},
        other=("momentum",),
    ),
    "PNM": Theirs({"lr": "eta", "betas": "beta"}, {"m": PN[0], "other": PN[1]}),
    "AdaPNM": Theirs(ADAM, {"m": ADAPN[0], "other": ADAPN[1], "v": "exp_avg_sq", "vmax": "max_exp_avg_sq"}),
    "AdamWSN": Theirs(
        ADAM | {"weight_decay": "decay", "subset_size": "subset"}, MOMENTS, other=("subset_size",)
    ),
    "AdamC": Theirs(ADAM | {"weight_decay": "decay"}, MOMENTS),
    "AdamG": Theirs(ADAM | {"p": "coef", "q": "power"}, {"m": "m", "v": "v", "r": "r"}),
    "AdamS": Theirs(ADAM | {"weight_decay": "decay"}, MOMENTS),
    "Ano": Theirs(ADAM, MOMENTS),
    "Amos": Theirs(
        {"lr": "eta", "beta": "beta", "momentum": "rho", "c_coef": "c", "d_coef": "d", "eps": "eps"},
        {"m": "exp_avg", "v": "exp_avg_sq", "b": "decay"},
    ),
    "AdaSmooth": Theirs(ADAM, {"last": "prev_param", "way": "s", "long": "n", "v": "exp_avg_sq"}),
    "SRMM": Theirs(
        {"lr": "eta", "beta": "beta", "memory_length": "memory"}, {"m": "mov_avg_grad", "avg": "mov_avg_param"}
    ),
    "TAM": Theirs(
        {"lr": "eta", "momentum": "rho", "decay_rate": "gamma", "eps": "eps"}, {"m": "momentum_buffer", "s": "s"}
    ),
    "AdaTAM": Theirs(ADAM | {"decay_rate": "gamma"}, MOMENTS | {"s": "s"}),
    "Tiger": Theirs({"lr": "eta", "beta": "beta", "weight_decay": "decay"}, {"m": "exp_avg"}),
    "AdaGC": Theirs(
        ADAM | {"beta": "beta[3]", "lambda_abs": "absolute", "lambda_rel": "relative", "warmup_steps": "warmup"},
        MOMENTS | {"usual": "gamma"},
    ),
    "A2Grad": Theirs(
        {"beta": "beta", "lips": "lips", "rho": "rho"},
        {"mean_g": "avg_grad", "x": "x_k", "noise": "v_k", "average": "v_kk"},
    ),
    "ROSE": Theirs({"lr": "eta"}, {}),
    "AccSGD": Theirs({"lr": "eta", "kappa": "kappa", "xi": "xi", "constant": "small"}, {"w": "momentum_buffer"}),
    "SGDSaI": Theirs(
        {"lr": "eta", "momentum": "rho", "weight_decay": "decay", "eps": "eps"},
        {"m": "momentum_buffer", "ratio": "gsnr"},
    ),
    "VSGD": Theirs(
        {"lr": "eta", "ghattg": "ratio", "ps": "prior", "tau1": "tau[1]", "tau2": "tau[2]", "eps": "eps"},
        {"mu": "mug", "of_g": "bg", "noise": "bhg"},
    ),
    "Aida": Theirs(ADAM | {"xi": "xi"}, {"m": "exp_avg", "s": "exp_avg_var"}),
    "Adalite": Theirs(
        {
            "lr": "eta", "betas": "beta", "weight_decay": "decay", "g_norm_min": "least", "ratio_min": "lowest",
            "tau": "tau", "eps1": "eps", "eps2": "small",
        },
        {
            "m": "m_avg", "v": "v_avg", "m_row": "m_avg_c", "m_column": "m_avg_r", "m_matrix": "m_avg_u",
            "v_row": "v_avg_0", "v_column": "v_avg_1",
        },
    ),
    "CAME": Theirs(
        {
            "lr": "eta", "betas": "beta", "clip_threshold": "clip", "eps1": "small", "eps2": "doubt",
        },
        {
            "m": "exp_avg", "v": "exp_avg_sq", "v_row": "exp_avg_sq_row", "v_column": "exp_avg_sq_col",
            "r_row": "exp_avg_res_row", "r_column": "exp_avg_res_col",
        },
    ),
    "RACS": Theirs(
        {"lr": "eta", "beta": "beta", "alpha": "alpha", "gamma": "gamma", "eps": "eps"},
        {"s": "s", "s_row": "s", "s_column": "q", "q": "q", "length": "theta"},
    ),
    "StableAdamW": Theirs(ADAM | {"weight_decay": "decay"}, MOMENTS),
    "ScheduleFreeRAdam": Theirs(
        ADAM | {"r": "r", "weight_lr_power": "power"},
        {"z": "z", "v": "exp_avg_sq", "max_lr": grouped("lr_max"), "weight_sum": grouped("weight_sum")},
    ),
    "DAdaptAdaGrad": Theirs(
        {"lr": "eta", "momentum": "rho", "eps": "eps", "d0": "d0"},
        {"s": "sk", "n": "alpha_k", "p0": "x0", "total": grouped("gsq_weighted"), "d": grouped("d")},
    ),
    "DAdaptSGD": Theirs(
        {"lr": "eta", "momentum": "rho", "d0": "d0"},
        ADAPTING | {"p0": "x0", "first": grouped("g0_norm"), "num": grouped("numerator_weighted")},
    ),
    "DAdaptAdan": Theirs(
        ADAM | {"d0": "d0", "weight_decay": "decay"},
        ADAPTING
        | {
            "m": "exp_avg", "v": "exp_avg_diff", "n": "exp_avg_sq", "last": last("previous_grad", -1.0),
            "total": grouped("gsq_weighted"),
        },
    ),
    "StableSPAM": Theirs(
        ADAM | {"gamma1": "gamma[1]", "gamma2": "gamma[2]", "theta": "theta", "update_proj_gap": "every"},
        MOMENTS | {"largest": "m_max_t", "n1": "m_norm_t", "n2": "v_norm_t"},
    ),
    "DualAdam": Theirs(ADAM | {"switch_rate": "rate"}, MOMENTS),
    "ApolloDQN": Theirs(
        {"lr": "eta", "beta": "beta", "eps": "eps"},
        {"m": "exp_avg_grad", "h": "approx_hessian", "last": "update"},
        {"warmup_steps": 0},
    ),
    "AdaShift": Theirs(
        ADAM,
        {"m": "exp_avg", "v": lambda state, group: state["exp_avg_sq"].ravel()[0]}
        | {f"past{k}": kept_gradient(k) for k in range(1, 11)}
    ),
    "SPAM": Theirs(
        ADAM
        | {
            "weight_decay": "decay", "warmup_epoch": "warmup", "threshold": "threshold", "grad_accu_steps": "calm",
            "update_proj_gap": "every",
        },
        MOMENTS,
    ),
    "DAdaptLion": Theirs(
        {"lr": "eta", "betas": "beta", "d0": "d0"}, ADAPTING | {"m": "exp_avg", "num": grouped("numerator_weighted")}
    ),
}  # fmt: skip

#: Numbers that show each hyperparameter at work. The defaults are stepped in the second tier.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("AdaBound", {"eta": 0.1, "bound": 0.5, "beta": (0.5, 0.75), "gamma": 0.05, "eps": 1e-3}),
    ("AdaMod", {"eta": 0.1, "beta": (0.5, 0.75, 0.9), "eps": 1e-3}),
    ("DiffGrad", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3}),
    ("AdamP", {"eta": 0.01, "beta": (0.5, 0.75), "threshold": 1.0, "decay": 0.1, "ratio": 0.5}),
    ("AdamP", {"eta": 0.01, "eps": 1e-3, "threshold": 4.0, "decay": 0.1}),
    ("SGDP", {"eta": 0.01, "rho": 0.5, "threshold": 1.0, "decay": 0.1, "ratio": 0.5}),
    ("SGDP", {"rho": 0.5, "dampening": 0.25, "threshold": 4.0, "decay": 0.1}),
    ("Adai", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-2}),
    ("AdaNorm", {"eta": 0.1, "beta": (0.5, 0.75), "rho": 0.5, "eps": 1e-3}),
    ("PAdam", {"eta": 0.01, "beta": (0.5, 0.75), "partial": 0.5, "eps": 1e-3}),
    ("QHAdam", {"eta": 0.1, "beta": (0.5, 0.75), "nu": (0.25, 0.5), "eps": 1e-3}),
    ("QHM", {"eta": 0.1, "rho": 0.5, "nu": 0.25}),
    ("AdEMAMix", {"eta": 0.1, "beta": (0.5, 0.75, 0.99), "alpha": 2.0, "eps": 1e-3, "warmup": 60}),
    ("SimplifiedAdEMAMix", {"eta": 0.1, "beta": (0.5, 0.75), "alpha": 2.0, "eps": 1e-3}),
    ("ADOPT", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-2}),
    ("BCOS", {"eta": 0.1, "beta": 0.5, "eps": 1e-2}),
    ("EXAdam", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3}),
    ("FAdam", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 0.1, "small": 0.5, "clip": 0.25, "decay": 0.25}),
    ("FOCUS", {"eta": 0.1, "beta": (0.5, 0.75), "gamma": 0.5}),
    ("FTRL", {"eta": 0.1, "beta": 0.5, "l1": 2.0, "l2": 0.25}),
    ("Grams", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3}),
    ("Kate", {"eta": 0.1, "gamma": 0.5, "eps": 1e-3}),
    ("LaProp", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3}),
    ("MADGRAD", {"eta": 0.1, "rho": 0.5, "eps": 1e-3}),
    ("MSVAG", {"eta": 0.1, "beta": 0.5}),
    ("Nero", {"eta": 0.1, "beta": 0.5, "eps": 1e-3}),
    ("PID", {"eta": 0.01, "rho": 0.5, "dampening": 0.25, "derivative": 2.0, "integral": 1.0}),
    ("PNM", {"eta": 0.1, "beta": (0.5, 0.25)}),
    ("AdaPNM", {"eta": 0.1, "beta": (0.5, 0.75, 0.25), "eps": 1e-3}),
    ("AdamC", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3, "decay": 0.5, "peak": 0.1}),
    ("AdamWSN", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3, "decay": 0.5}),
    ("AdamWSN", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3, "subset": 1}),
    ("AdamG", {"eta": 0.25, "beta": (0.5, 0.75, 0.9), "coef": 0.5, "power": 0.5, "eps": 1e-3}),
    ("AdamS", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3, "decay": 0.25}),
    ("Ano", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3}),
    ("Amos", {"eta": 0.1, "beta": 0.75, "rho": 0.5, "c": 0.5, "d": 0.125, "eps": 1e-3}),
    ("AdaSmooth", {"eta": 0.1, "beta": (0.25, 0.75), "eps": 1e-3}),
    ("SRMM", {"eta": 0.1, "beta": 0.75, "memory": 7}),
    ("TAM", {"eta": 0.1, "rho": 0.5, "gamma": 0.25, "eps": 1e-3}),
    ("AdaTAM", {"eta": 0.1, "beta": (0.5, 0.75), "gamma": 0.25, "eps": 1e-3}),
    ("Tiger", {"eta": 0.1, "beta": 0.5, "decay": 0.125}),
    ("AdaGC", {"eta": 0.1, "beta": (0.5, 0.75, 0.5), "absolute": 4.0, "relative": 1.5, "warmup": 20, "eps": 1e-3}),
    ("A2Grad", {"beta": 1.0, "lips": 2.0, "incremental": True}),
    ("A2Grad", {"beta": 1.0, "lips": 2.0, "rho": 0.75, "decaying": True}),
    ("ROSE", {"eta": 0.1}),
    (
        "SPAM",
        {
            "eta": 0.1,
            "beta": (0.5, 0.75),
            "decay": 0.1,
            "threshold": 2.0,
            "calm": 5,
            "every": 30,
            "warmup": 10,
            "eps": 1e-3,
        },
    ),
    ("StableSPAM", {"eta": 0.1, "beta": (0.5, 0.75), "gamma": (0.25, 0.5), "theta": 0.9, "every": 30, "eps": 1e-3}),
    ("DualAdam", {"eta": 0.01, "beta": (0.5, 0.75), "rate": 0.02, "eps": 1e-3}),
    ("ApolloDQN", {"eta": 0.003, "beta": 0.75, "eps": 1e-3}),
    ("AdaShift", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3}),
    ("AccSGD", {"eta": 0.01, "kappa": 10.0, "xi": 2.0, "small": 0.5}),
    ("SGDSaI", {"eta": 0.001, "rho": 0.5, "decay": 0.25, "eps": 1e-3}),
    ("VSGD", {"eta": 0.5, "ratio": 3.0, "prior": 1e-3, "tau": (0.5, 0.75), "eps": 1e-3}),
    ("Aida", {"eta": 0.1, "beta": (0.5, 0.75), "xi": 1e-3, "eps": 1e-3}),
    (
        "Adalite",
        {
            "eta": 0.01,
            "beta": (0.5, 0.75),
            "decay": 0.1,
            "least": 0.5,
            "lowest": 0.25,
            "tau": 0.5,
            "eps": 1e-3,
            "small": 1e-6,
        },
    ),
    ("CAME", {"eta": 0.01, "beta": (0.5, 0.75, 0.9), "clip": 0.5, "small": 1e-4, "doubt": 1e-3}),
    ("RACS", {"eta": 0.5, "beta": 0.5, "alpha": 0.25, "gamma": 1.5, "eps": 1e-3}),
    ("StableAdamW", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3, "decay": 0.25}),
    ("ScheduleFreeRAdam", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3, "r": 1.0, "power": 1.0}),
    ("DAdaptAdaGrad", {"eta": 0.5, "rho": 0.5, "eps": 1e-3, "d0": 1e-3}),
    ("DAdaptSGD", {"eta": 0.5, "rho": 0.5, "d0": 1e-3}),
    ("DAdaptAdan", {"eta": 0.5, "beta": (0.75, 0.5, 0.9), "eps": 1e-3, "d0": 1e-3, "decay": 0.01}),
    ("DAdaptLion", {"eta": 0.5, "beta": (0.5, 0.75), "d0": 1e-3}),
]

#: By part: what it does in the collection to the gradients of some parameters. It may keep something from step to step.
FILTERS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "Grokfast": lambda params, kept: kept.update(
        averages=grokfast.gradfilter_ema(torch.nn.ParameterList(params), kept.get("averages"), 0.98, 2.0)
    ),
    "OrthoGrad": lambda params, kept: collection.base.optimizer.BaseOptimizer.apply_orthogonal_gradients(params),
    "AGC": lambda params, kept: [setattr(p, "grad", collection.optimizer.agc(p, p.grad)) for p in params],
}


def titled(case: tuple[str, dict[str, Any]]) -> str:
    return ", ".join([case[0], *(f"{name}={value}" for name, value in case[1].items())])


@pytest.fixture(autouse=True)
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The collection in float64 throughout, without its own addend in roots, and with BCOS's momentum as it was."""
    base = collection.base.optimizer.BaseOptimizer
    monkeypatch.setattr(base.apply_ams_bound, "__defaults__", (0.0,))
    second = collection.BCOS.compute_v

    def from_before(self: Any, grad: Any, m: Any, beta: float, beta2: float | None) -> Any:
        return second(self, grad, (m - (1 - beta) * grad) / beta, beta, beta2)

    monkeypatch.setattr(collection.BCOS, "compute_v", from_before)

    def squared_norm(groups: Any) -> Any:
        return sum(p.grad.square().sum() for group in groups for p in group["params"]).reshape(1)

    for module in ("adagc", "dadapt"):
        monkeypatch.setattr(f"pytorch_optimizer.optimizer.{module}.get_global_gradient_norm", squared_norm)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(default)


def values(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """All hyperparameters and flags of a rule."""
    signature = inspect.signature(getattr(optgen, name).__init__).parameters
    known = {key: p.default for key, p in signature.items() if key not in ("self", "backend")}
    assert set(given) <= set(known)
    return known | given


def of(h: dict[str, Any], called: str) -> Any:
    """The value of `eta` or `beta[1]`."""
    name, _, index = called.rstrip("]").partition("[")
    return h[name][int(index) - 1] if index else h[name]


def arguments(name: str, h: dict[str, Any]) -> dict[str, Any]:
    """What the collection's rule is made with."""
    rule = THEIRS[name]
    parameters = inspect.signature(getattr(collection, name)).parameters
    found = {there: of(h, here) for there, here in rule.arguments.items()} | (rule.fixed or {})
    for there in ("betas", "nus"):  # a tuple of those values that it has there
        if there in found:
            default = parameters[there].default
            found[there] = tuple(found[there][: len(default)])
    if name == "AdEMAMix":
        found["t_alpha_beta3"] = h["warmup"] or None
    if name == "AdamWSN":
        found["subset_size"] = h["subset"] or -1  # by the root of their number
    if name == "A2Grad":
        found["variant"] = "inc" if h["incremental"] else "exp" if h["decaying"] else "uni"
    if "weight_decay" in parameters:
        found.setdefault("weight_decay", 0.0)
    return found | {"foreach": False} if "foreach" in parameters else found


def theirs(
    name: str, h: dict[str, Any], p: list[Array], g: list[Array], rates: list[float]
) -> tuple[list[Array], list[dict[str, Array]]]:
    """For each parameter: its values after each step, and those of its states."""
    params = [torch.nn.Parameter(torch.tensor(x)) for x in p]
    opt = getattr(collection, name)([{"params": params, "normalized": True, "sn": True}], **arguments(name, h))
    (group,) = opt.param_groups
    path: list[list[Array]] = [[] for _ in p]
    states: list[list[dict[str, Array]]] = [[] for _ in p]
    for k in range(STEPS):
        if rates:
            group["lr"] = rates[k]
        for x, rows in zip(params, g, strict=True):
            x.grad = torch.tensor(rows[k])
        if k == 0 and name == "QHAdam":  # whose weights are float32
            opt.init_group(group)
            for x in params:
                opt.state[x] |= {key: value.double() for key, value in opt.state[x].items()}
        opt.step()
        for i, x in enumerate(params):
            path[i].append(x.detach().numpy().copy())
            states[i].append({})
            for here, there in THEIRS[name].states.items():
                if callable(there) or there in opt.state[x]:
                    value = there(opt.state[x], group) if callable(there) else opt.state[x][there]
                    states[i][-1][here] = torch.as_tensor(value).detach().numpy().copy()
    return (
        [np.array(steps) for steps in path],
        [{name: np.array([step[name].ravel() for step in steps]) for name in steps[-1]} for steps in states],
    )


@pytest.mark.parametrize(
    "case", [*CASES, *(pytest.param((name, {}), marks=pytest.mark.slow) for name in THEIRS)], ids=titled
)
def test_the_interpreter_follows_the_collection(case: tuple[str, dict[str, Any]]) -> None:
    name, given = case
    h = values(name, given)
    p, g = starts(SHAPES), gradients(SHAPES)
    rates = [h["eta"] / (1 + k // 40) for k in range(STEPS)] if "lr" in THEIRS[name].arguments else []
    path, states = ours(getattr(optgen, name)(**given, backend="interpreter"), p, g, rates)
    expected, known = theirs(name, h, p, g, rates)
    for i, shape in enumerate(SHAPES):
        assert_same_path(path[i], expected[i], p[i], f"p of {shape}", TOLERANCE)
        assert set(known[i]) | set(THEIRS[name].alone) >= set(states[i])
        for state in set(states[i]) - set(THEIRS[name].alone):
            there = states[i][state]
            start = p[i] if state in ("p0", "x", "w", "z") or name == "AdaSmooth" else 0.0
            assert_same_path(there, known[i][state].reshape(there.shape), start, f"{state} of {shape}", TOLERANCE)


@pytest.mark.parametrize("name", FILTERS)
def test_a_part_follows_the_collection(name: str) -> None:
    p, g = starts(FILTERED), gradients(FILTERED)
    opt = optgen.chain(getattr(optgen, name)(), optgen.Descent(0.01), backend="interpreter")
    path, _ = ours(opt, p, g)
    params, kept = [torch.nn.Parameter(torch.tensor(x)) for x in p], {}
    for k in range(STEPS):
        with torch.no_grad():
            for x, rows in zip(params, g, strict=True):
                x.grad = torch.tensor(rows[k])
            FILTERS[name](params, kept)
            for x in params:
                x -= 0.01 * x.grad
        for i, x in enumerate(params):
            scale = max(1.0, np.abs(p[i]).max())
            np.testing.assert_allclose(path[i][k], x.detach().numpy(), rtol=TOLERANCE, atol=TOLERANCE * scale)


def test_mars_before_descent_by_signs_is_the_collections_mars_lion() -> None:
    p, g = starts(SHAPES), gradients(SHAPES)
    part = optgen.MARS(gamma=0.25, beta=0.75)
    path, states = ours(optgen.chain(part, optgen.SignSGD(0.01, 0.75), backend="interpreter"), p, g)
    params = [torch.nn.Parameter(torch.tensor(x)) for x in p]
    opt = collection.MARS(params, 0.01, (0.75, 0.99), 0.25, "lion", optimize_1d=True, foreach=False)
    for k in range(STEPS):
        for x, rows in zip(params, g, strict=True):
            x.grad = torch.tensor(rows[k])
        opt.step()
        for i, x in enumerate(params):
            there = opt.state[x]
            for ours_now, theirs_now in (
                (path[i][k], x.detach()),
                (states[i]["m"][k], there["exp_avg"]),
                (states[i]["last"][k], there["last_grad"]),
            ):
                np.testing.assert_allclose(ours_now, theirs_now.numpy(), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*THEIRS, *FILTERS, "MARS"])
def test_the_kernel_steps_as_the_interpreter_does(name: str, dtype: str) -> None:
    subject = next((chain for chain, part in PART_OF.items() if part == name), name)
    opts = [make(subject, backend) for backend in ("kernel", "interpreter")]
    worlds = [[np.array(x, dtype) for x in starts(SHAPES)] for _ in opts]
    for rows in list(zip(*gradients(SHAPES), strict=True))[:25]:
        for opt, params in zip(opts, worlds, strict=True):
            opt.step(params, [np.array(row, dtype) for row in rows])
    same_everywhere(opts, worlds)


def avagrad(gradients: Array, p: Array, eta: float, beta: tuple[float, float], eps: float) -> Iterator[Array]:
    """Savarese et al., Algorithm 1, with both moments corrected: a list of all gradients, and sums over it."""
    for t in range(len(gradients)):
        m, v = (
            sum((1 - b) * b ** (k - i) * gradients[i] ** power for i in range(k + 1)) / (1 - b ** (k + 1))
            if k >= 0
            else 0
            for b, power, k in ((beta[0], 1, t), (beta[1], 2, t - 1))
        )
        if t:
            rates = 1 / (np.sqrt(v) + eps)
            p = p - eta * rates * m / (np.linalg.norm(rates) / np.sqrt(rates.size))
        yield p


#: Rules of which the collection has another opinion than their papers: these, written out over all parameters as one.
PAPERS = {"AvaGrad": avagrad}


@pytest.mark.parametrize("given", [(0.1, (0.9, 0.999), 0.1), (0.5, (0.5, 0.75), 1e-3)], ids=str)
@pytest.mark.parametrize("name", PAPERS)
def test_the_interpreter_follows_the_paper(name: str, given: tuple[Any, ...]) -> None:
    p, g = starts(SHAPES), gradients(SHAPES)
    path, _ = ours(getattr(optgen, name)(*given, backend="interpreter"), p, g)
    every = np.concatenate([rows.reshape(STEPS, -1) for rows in g], axis=1)
    expected = np.array(list(PAPERS[name](every, np.concatenate([np.ravel(x) for x in p]), *given)))
    found = np.concatenate([steps.reshape(STEPS, -1) for steps in path], axis=1)
    assert_same_path(found, expected, np.concatenate([np.ravel(x) for x in p]), "p", TOLERANCE)


def test_every_rule_has_a_case() -> None:
    assert {name for name, _ in CASES} == set(THEIRS)


@pytest.mark.parametrize("name", THEIRS)
def test_the_defaults_are_those_of_the_collection(name: str) -> None:
    rule, here = THEIRS[name], values(name, {})
    parameters = inspect.signature(getattr(collection, name)).parameters
    assert set(rule.arguments) <= set(parameters)
    for there, called in rule.arguments.items():
        default, value = parameters[there].default, of(here, called)
        if isinstance(default, tuple):
            value = tuple(value[: len(default)])
        same = value == (0 if default is None else default)
        assert same or there in rule.other, f"{there}: {default} there, {value} here"
