"""Rules with products of matrices, in float64 and step for step, against what somebody else wrote.

`torch.optim`, where it is made to stay in float64; the collection pytorch-optimizer, where its faults are mended, each
in a patch of its own; and `matrices_by_hand.py` for what neither has right. The steps of square matrices and of both
oblong shapes are compared, but those rules that are no functions of their inputs off square.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matrices_by_hand as by_hand
import numpy as np
import pytest
from matrices_by_hand import Array

import optgen
from optgen.interpreter.tensor_step import Step

STEPS = 60
SQUARE, WIDE, TALL, FILTERS = (16, 16), (12, 20), (20, 12), (6, 4, 3)
MATRICES = [SQUARE, WIDE, TALL]
Shape = tuple[int, ...]
#: Makes the other optimiser of one parameter.
Make = Callable[[Any], Any]


def start(shape: Shape) -> Array:
    return np.random.default_rng(5).normal(0, 1, shape)


def gradients(shape: Shape) -> list[Array]:
    """Of different scales, with a part that lasts, so that momenta grow and turn."""
    rng = np.random.default_rng(7)
    lasting, scales = rng.normal(0, 1, shape), np.resize([1.0, 0.1, 3.0, 0.5, 10.0], shape)
    return [scales * rng.normal(0, 1, shape) + np.cos(t / 7) * lasting for t in range(STEPS)]


def ours(rule: Any, given: dict[str, Any], shape: Shape, **settings: str) -> Array:
    opt, p = rule(**given, **settings), start(shape)
    path = []
    for g in gradients(shape):
        opt.step([p], [g])
        path.append(p.copy())
    return np.array(path)


def theirs(make: Make, shape: Shape) -> Array:
    torch = pytest.importorskip("torch")
    p = torch.nn.Parameter(torch.tensor(start(shape)))
    opt, path = make(p), []
    for g in gradients(shape):
        p.grad = torch.tensor(g)
        opt.step()
        path.append(p.detach().numpy().copy())
    return np.array(path)


def assert_same(path: Array, expected: Array, tolerance: float = 1e-12) -> None:
    """Within a share of the largest value of the step."""
    assert path.shape == expected.shape
    assert np.isfinite(expected).all()
    assert np.abs(np.diff(expected, axis=0)).max(axis=tuple(range(1, expected.ndim))).all(), "it stood still"
    apart = np.abs(path - expected).max(axis=tuple(range(1, path.ndim)))
    scale = np.abs(expected).max(axis=tuple(range(1, path.ndim)))
    assert (apart <= tolerance * scale).all(), f"{(apart / scale).max():.3g} at step {(apart / scale).argmax() + 1}"


def titled(value: Any) -> str | None:
    if isinstance(value, dict):
        return ", ".join(f"{name}={own}" for name, own in value.items()) or "defaults"
    return "x".join(map(str, value)) if isinstance(value, tuple) else None


# ---- Of their own, in this directory ----

WRITTEN = {"AdaMuon": by_hand.adamuon, "AdaGO": by_hand.adago, "Shampoo": by_hand.shampoo}
HALVED = ("AdaMuon", "AdaGO")
PAPERS: list[tuple[str, dict[str, Any], list[Shape]]] = [
    ("AdaMuon", {"decay": 0.1}, [*MATRICES, FILTERS]),
    ("AdaMuon", {"momentum": 0.5, "eps": 1e-3, "steps": 2, "nesterov": False}, [TALL]),
    ("AdaGO", {"decay": 0.1}, [*MATRICES, FILTERS]),
    ("AdaGO", {"gamma": 20.0, "momentum": 0.5, "nesterov": True, "eps": 0.1, "steps": 3}, [WIDE]),
    ("AdaGO", {"match_rms": True, "start": 1.0}, [TALL]),
    ("Shampoo", {"eta": 0.5}, [*MATRICES, FILTERS]),
    ("Shampoo", {"eps": 0.1, "every": 7}, [WIDE]),
]


@pytest.mark.parametrize(("name", "given", "shapes"), PAPERS, ids=titled)
def test_rules_are_those_of_the_papers(name: str, given: dict[str, Any], shapes: list[Shape]) -> None:
    exact = {"half": False} if name in HALVED else {}
    for shape in shapes:
        expected = np.array(list(WRITTEN[name](**given)(gradients(shape), start(shape))))
        assert_same(ours(getattr(optgen, name), given | exact, shape), expected)


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[Array]:
    """The normal numbers that the interpreter draws from here on, in order."""
    kept: list[Array] = []
    real = Step._draw

    def draw(self: Step, expr: Any) -> Array:
        found = real(self, expr)
        if expr.op == "normal":
            kept.append(found.reshape(found.shape[-2:]))
        return found

    monkeypatch.setattr(Step, "_draw", draw)
    return kept


@pytest.mark.parametrize("shape", MATRICES, ids=titled)
@pytest.mark.parametrize(
    "given",
    [
        {"rank": 3, "every": 7},
        {"rank": 1, "by_matrix": True, "scale": 128.0},
        {"rank": 12, "every": 20, "corrected": False, "beta": (0.5, 0.9), "decay": 0.5, "growth": 1.5, "eps": 1e-3},
    ],
    ids=titled,
)
def test_apollo_is_that_of_the_paper(given: dict[str, Any], shape: Shape, draws: list[Array]) -> None:
    path = np.array(ours(optgen.APOLLO, given, shape, backend="interpreter"))
    assert_same(path, np.array(list(by_hand.apollo(iter(draws), **given)(gradients(shape), start(shape)))))


@pytest.mark.parametrize("shape", MATRICES, ids=titled)
@pytest.mark.parametrize("given", [{"rank": 4}, {"rank": 12, "mu": 0.5, "decay": 0.0, "eta": 0.1}], ids=titled)
def test_dion_is_that_of_the_paper(given: dict[str, Any], shape: Shape, draws: list[Array]) -> None:
    path = np.array(ours(optgen.Dion, given, shape, backend="interpreter"))
    assert_same(path, np.array(list(by_hand.dion(iter(draws), **given)(gradients(shape), start(shape)))))


# ---- torch ----

MUON: list[dict[str, Any]] = [
    {},
    {"nesterov": False},
    {"match_rms": True},
    {"nesterov": False, "match_rms": True, "lr": 0.1, "momentum": 0.5, "weight_decay": 0.5, "eps": 10.0, "ns_steps": 3},
    {"ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 1},
]


def muon_of_torch(given: dict[str, Any]) -> Make:
    torch = pytest.importorskip("torch")
    given = {"adjust_lr_fn": "match_rms_adamw" if given.get("match_rms") else None, **given}
    given.pop("match_rms", None)
    return lambda p: torch.optim.Muon([p], **given)


@pytest.mark.parametrize("given", MUON, ids=titled)
def test_muon_is_that_of_torch(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """torch rounds to bfloat16, whatever the dtype; here it is made not to."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    for shape in [WIDE, TALL] if given else MATRICES:
        assert_same(ours(optgen.Muon, {**given, "half": False}, shape), theirs(muon_of_torch(given), shape))


@pytest.mark.parametrize("given", MUON, ids=titled)
@pytest.mark.parametrize("shape", MATRICES, ids=titled)
def test_muon_in_bfloat16_is_that_of_torch(given: dict[str, Any], shape: Shape) -> None:
    """One step of float32. Most elements have torch's bits; the order in which a product is summed up may take any
    other to the next number of bfloat16."""
    torch = pytest.importorskip("torch")
    opt, p = optgen.Muon(**given), np.zeros(shape, np.float32)
    g = gradients(shape)[0].astype(np.float32)
    opt.step([p], [g])
    there = torch.nn.Parameter(torch.zeros(shape))
    there.grad = torch.tensor(g)
    muon_of_torch(given)(there).step()
    apart = np.abs(p - there.detach().numpy())
    largest = np.abs(there.detach().numpy())
    assert np.mean(apart <= 1e-7 * largest.max()) >= 0.95
    assert (apart <= largest * 2.0**-7 + 1e-7 * largest.max()).all()
    assert (opt.state(p)["momentum_buffer"] != 0).all()


# ---- The collection ----


@pytest.fixture
def collection(monkeypatch: pytest.MonkeyPatch) -> Any:
    """pytorch-optimizer, which iterates, decomposes and solves in float64, and where Scion's and NorMuon's own code
    adds something to norms, does so too."""
    torch = pytest.importorskip("torch")
    found = pytest.importorskip("pytorch_optimizer")
    from pytorch_optimizer.optimizer import scion
    from pytorch_optimizer.optimizer.muon import normuon

    def polynomial(a: Any, num_steps: int = 5, **_: Any) -> Any:
        many = a.reshape(-1, *a.shape[-2:]).numpy()
        return torch.tensor(np.array([by_hand.orthogonalised(x, num_steps, added=1e-7) for x in many])).reshape(a.shape)

    def as_it_is(x: Any, *args: Any, **given: Any) -> Any:
        return x if torch.float32 in (*args, given.get("dtype")) else to(x, *args, **given)

    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", as_it_is)
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x)
    for module in (scion, normuon):
        monkeypatch.setattr(module, "zero_power_via_newton_schulz_5", polynomial)
    return found


def named(given: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names[name]: value for name, value in given.items() if name in names}


@pytest.mark.parametrize(
    "given",
    [{}, {"nesterov": False, "match_rms": True, "eps": 0.01}, {"momentum": 0.5, "beta": 0.7, "decay": 0.5, "steps": 2}],
    ids=titled,
)
def test_normuon_is_that_of_the_collection(given: dict[str, Any], collection: Any) -> None:
    names = {"eta": "lr", "momentum": "momentum", "beta": "beta2", "decay": "weight_decay", "eps": "eps",
             "steps": "ns_steps", "nesterov": "nesterov"}  # fmt: skip
    scale = {"update_scale": "match_rms" if given.get("match_rms") else "preserve_norm", "foreach": False}
    for shape in [WIDE, TALL] if given else [*MATRICES, FILTERS]:
        expected = theirs(
            lambda p: collection.NorMuon(
                [{"params": [p], "use_muon": True}], **named({"eps": 1e-10, **given}, names), **scale
            ),
            shape,
        )
        assert_same(ours(optgen.NorMuon, {**given, "half": False}, shape), expected)


#: By rule: the norm as the collection calls it, arguments here and there, and shapes.
NORMS: dict[str, list[tuple[str, dict[str, Any], dict[str, Any], list[Shape]]]] = {
    "Scion": [
        ("SPECTRAL", {"steps": 3}, {"num_steps": 3}, MATRICES),
        ("SPECTRAL", {"alpha": 1.0, "radius": 2.0, "eta": 0.1}, {}, MATRICES),
        ("SPECTRALCONV", {}, {}, [FILTERS]),
    ],
    "ScionSign": [
        ("SIGN", {"radius": 2.0}, {}, [WIDE, TALL]),
        ("SIGN", {"normalised": False}, {"normalize": False}, [WIDE]),
    ],
    "ScionRow": [("ROW", {"radius": 3.0}, {}, [WIDE, TALL])],
    "ScionColumn": [("COL", {}, {}, [WIDE, TALL])],
    "ScionRMS": [("BIAS", {}, {}, [(7,)])],
}


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize(
    ("name", "norm", "given", "kwargs", "shapes"),
    [(name, *case) for name, cases in NORMS.items() for case in cases],
    ids=titled,
)
def test_scion_is_that_of_the_collection(
    name: str,
    norm: str,
    given: dict[str, Any],
    kwargs: dict[str, Any],
    shapes: list[Shape],
    constrained: bool,
    collection: Any,
) -> None:
    from pytorch_optimizer.optimizer.scion import LMONorm

    exact = {"half": False} if name == "Scion" else {}
    radius = {"Scion": 50.0, "ScionSign": 3000.0}.get(name, 1.0)
    arguments = {"norm_type": LMONorm[norm], "norm_kwargs": kwargs, "constraint": constrained, "foreach": False}
    arguments |= named({"radius": radius, **given}, {"eta": "lr", "alpha": "momentum", "radius": "scale"})
    for shape in shapes:
        expected = theirs(lambda p: collection.SCION([p], **arguments), shape)
        assert_same(ours(getattr(optgen, name), given | exact | {"constrained": constrained}, shape), expected)


def test_shampoo_without_momentum_is_that_of_the_collection(collection: Any) -> None:
    for shape in MATRICES:
        expected = theirs(lambda p: collection.Shampoo([p], lr=0.5), shape)
        assert_same(ours(optgen.Shampoo, {"eta": 0.5}, shape), expected)


@pytest.mark.parametrize(
    "given",
    [{}, {"every": 3, "corrected": False}, {"normalised": True, "decay": 0.0, "eps": 1e-3, "shampoo": 0.8},
     {"beta": (0.5, 0.9), "eta": 0.1, "every": 1}],
    ids=titled,
)  # fmt: skip
def test_soap_of_a_square_matrix_is_that_of_the_collection(given: dict[str, Any], collection: Any) -> None:
    """Off square it is no function of its inputs. The collection has QR as the library gives it: signs of columns
    change nothing, but for rounding."""
    names = {"eta": "lr", "beta": "betas", "shampoo": "shampoo_beta", "decay": "weight_decay", "eps": "eps",
             "every": "precondition_frequency", "corrected": "correct_bias",
             "normalised": "normalize_gradient"}  # fmt: skip
    arguments = named({"shampoo": 0.95, **given}, names)
    assert_same(ours(optgen.SOAP, given, SQUARE), theirs(lambda p: collection.SOAP([p], **arguments), SQUARE))


@pytest.mark.parametrize("given", [{}, {"every": 7, "beta": (0.5, 0.9), "decay": 0.5, "rate": 0.9}], ids=titled)
@pytest.mark.parametrize("shape", [SQUARE, (7,)], ids=titled)
def test_splus_is_that_of_the_collection(given: dict[str, Any], shape: Shape, collection: Any) -> None:
    """Of matrices the square ones: off square the first bases are no function of the gradients."""
    names = {"beta": "betas", "every": "inverse_steps", "decay": "weight_decay", "rate": "ema_rate"}
    made: list[Any] = []

    def make(p: Any) -> Any:
        made.append(collection.SPlus([p], foreach=False, **named(given, names)))
        return made[-1]

    assert_same(ours(optgen.SPlus, given, shape), theirs(make, shape))
    made[0].eval()
    opt, p = optgen.SPlus(**given), start(shape)
    for g in gradients(shape):
        opt.step([p], [g])
    opt.eval()
    there = made[0].param_groups[0]["params"][0].detach().numpy()
    assert np.abs(p - there).max() <= 1e-12 * np.abs(there).max()


@pytest.mark.parametrize(
    "given", [{}, {"every": 5, "momentum": 0.5, "decay": 0.1, "fit": 0.5, "clip": 1.1}], ids=titled
)
@pytest.mark.parametrize("shape", MATRICES, ids=titled)
def test_kron_is_that_of_the_collection(
    given: dict[str, Any], shape: Shape, draws: list[Array], collection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same noise, in float64, and never balanced."""
    torch = pytest.importorskip("torch")
    path = ours(optgen.Kron, given, shape, backend="interpreter")
    noise = iter(draws)
    monkeypatch.setattr(torch, "randn_like", lambda x, **_: torch.tensor(next(noise)))
    every = given.get("every", 1)
    arguments = {
        "precondition_dtype": torch.float64,
        "balance_prob": 0.0,
        "pre_conditioner_update_probability": 1 / every,
    } | named(given, {"momentum": "momentum", "decay": "weight_decay"})

    def make(p: Any) -> Any:
        opt = collection.Kron([p], **arguments)
        opt.param_groups[0]["precondition_lr"] = given.get("fit", 0.1)
        opt.param_groups[0]["update_counter"] = every - 1  # it would begin with a step without a fit
        return opt

    assert_same(path, theirs(make, shape), 1e-10)


@pytest.fixture
def projections(collection: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The collection's projections with steps counted from 0, as the authors count them; with the signs that NumPy's
    library gives singular vectors; and with what Fira subtracts in the authors' form."""
    torch = pytest.importorskip("torch")
    from pytorch_optimizer.optimizer.utils.galore import GaLoreProjector

    project = GaLoreProjector.project

    def from_zero(self: Any, grad: Any, count: int, *args: Any, **given: Any) -> Any:
        return project(self, grad, count - 1, *args, **given)

    def svd(x: Any, **_: Any) -> tuple[Any, ...]:
        tall = x.shape[0] >= x.shape[1]
        u, s, vh = np.linalg.svd(x.numpy().T if tall else x.numpy(), full_matrices=False)
        return tuple(map(torch.tensor, (vh.T.copy(), s, u.T.copy()) if tall else (u, s, vh)))

    monkeypatch.setattr(GaLoreProjector, "project", from_zero)
    monkeypatch.setattr(torch.linalg, "svd", svd)
    return collection


ADAM = {"eta": "lr", "beta": "betas", "decay": "weight_decay", "eps": "eps"}
PROJECTED: dict[str, list[dict[str, Any]]] = {
    "GaLore": [
        {"rank": 3, "every": 7},
        {"rank": 12, "every": 20, "beta": (0.5, 0.9), "decay": 0.5, "scale": 1.0},
    ],
    "Fira": [
        {"rank": 3, "every": 7},
        {"rank": 11, "every": 20, "beta": (0.5, 0.9), "decay": 0.5, "scale": 1.0, "eta": 0.1},
    ],
    "Conda": [{"every": 7}, {"every": 20, "beta": (0.5, 0.9), "decay": 0.5, "scale": 0.25, "eta": 0.1}],
}


@pytest.mark.parametrize(
    ("name", "given"), [(name, given) for name, cases in PROJECTED.items() for given in cases], ids=titled
)
@pytest.mark.parametrize("shape", MATRICES, ids=titled)
def test_projections_are_those_of_the_collection(
    name: str, given: dict[str, Any], shape: Shape, projections: Any
) -> None:
    names = ADAM | {"scale": "scale", "every": "update_proj_gap"}
    defaults = {"scale": 1.0 if name == "Conda" else 0.25, "eta": 0.001 if name == "Conda" else 0.01}
    defaults |= {"eps": 1e-8 if name == "Conda" else 1e-6}
    group = {"projection_type": "std"} | ({"rank": given["rank"]} if "rank" in given else {})

    def make(p: Any) -> Any:
        arguments = named(defaults | given, names)
        return getattr(projections, name)([{"params": [p], **group, **arguments}], foreach=False)

    assert_same(ours(getattr(optgen, name), given, shape), theirs(make, shape))


@pytest.mark.parametrize("name", PROJECTED)
def test_bias_is_corrected_by_the_rate_alone(name: str) -> None:
    """The collection always corrects it; without, a step is that of another rate."""
    given = {"rank": 3} if name != "Conda" else {}
    rates = [0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) for t in range(1, STEPS + 1)]
    opt, p, path = getattr(optgen, name)(corrected=False, **given), start(WIDE), []
    for g, rate in zip(gradients(WIDE), rates, strict=True):
        opt.eta = rate
        opt.step([p], [g])
        path.append(p.copy())
    assert_same(np.array(path), ours(getattr(optgen, name), {"eta": 0.01, **given}, WIDE))
