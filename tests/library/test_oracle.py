"""The interpreter in float64 against trajectories that owe it nothing: `flux_by_hand.py`, and torch if there is one."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flux_by_hand import RULES, trajectory
from rules import PARTS, SPECS

from optgen import interpreter as interp
from optgen.ir.rule import Rule

Array = np.ndarray[Any, np.dtype[Any]]
STEPS = 250
TOLERANCE = 1e-12

SHIPPED = {name: compiled for name, compiled in SPECS.items() if compiled.rules[0].origin == "Flux"}

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in SHIPPED),
    ("Descent", {"eta": 0.0}),
    ("Descent", {"eta": 1.75}),
    ("Momentum", {"eta": 0.3, "rho": 0.99}),
    ("Momentum", {"rho": 0.0}),
    ("Momentum", {"rho": 1.0}),
    ("Nesterov", {"eta": 0.03, "rho": 0.5}),
    ("Nesterov", {"rho": 0.0}),
    ("RMSProp", {"eta": 0.05, "rho": 0.5, "eps": 1e-3}),
    ("RMSProp", {"rho": 0.0}),
    ("RMSProp", {"eps": 1.0}),
    ("ADAGrad", {"eta": 2.0, "eps": 0.5}),
    ("ADADelta", {"rho": 0.99, "eps": 1e-4}),
    ("ADADelta", {"rho": 0.2, "eta": 0.5}),
    ("ADAM", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3}),
    ("ADAM", {"beta": (0.0, 0.0)}),
    ("ADAM", {"beta": (0.99, 0.9)}),
    ("ADAM", {"eps": 0.1}),
    ("AdaMax", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3}),
    ("AdaMax", {"beta": (0.0, 0.0), "eps": 0.25}),
    ("AMSGrad", {"eta": 0.1, "beta": (0.5, 0.25), "eps": 1e-3}),
    ("AMSGrad", {"beta": (0.9, 0.0)}),
    ("NADAM", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3}),
    ("NADAM", {"beta": (0.0, 0.5)}),
    ("ADAMW", {"decay": 0.01}),
    ("ADAMW", {"decay": 0.01, "coupled": True}),
    ("ADAMW", {"eta": 0.1, "beta": (0.5, 0.75), "decay": 0.5, "coupled": True}),
    ("ADAMW", {"eta": 0.1, "decay": 0.125, "eps": 1e-3}),
]


def titled(case: tuple[str, dict[str, Any]]) -> str:
    return ", ".join([case[0], *(f"{name}={value}" for name, value in case[1].items())])


def gradients(steps: int = STEPS) -> Array:
    """Elements of different scales that change sign, slowly and quickly; one falls silent, and one wakes up late."""
    rng = np.random.default_rng(11)
    scales = np.array([1.0, 1e-3, 40.0, 1.0, 1e-6, 1.0, 3.0, 1.0])
    g = rng.normal(0, 1, (steps, scales.size)) * scales
    g[:, 3] = np.sin(np.arange(steps) / 9)
    g[:, 5] += 2  # of one sign, mostly
    g[steps // 3 :, 6] = 0
    g[: steps // 3, 7] = 0
    return g


def start() -> Array:
    return np.array([0.5, -2.0, 10.0, 0.0, 1e-3, -0.25, 7.0, 1.0])


def rule_and_values(name: str, given: dict[str, Any]) -> tuple[Rule, dict[str, tuple[float, ...]]]:
    compiled = SHIPPED[name]
    flags = {flag.name: given.get(flag.name, flag.default) for flag in compiled.rules[0].flags}
    rule = compiled.rules[compiled.variant(flags)]
    values = {hyper.name: hyper.default for hyper in rule.hypers}
    for hyper in rule.hypers:
        if hyper.name in given:
            value = given[hyper.name]
            values[hyper.name] = value if hyper.vector else (value,)
    assert set(given) <= {*values, *flags}
    return rule, values


def walk(name: str, given: dict[str, Any], g: Array, p: Array) -> Iterator[Array]:
    """The parameter after each step of the interpreter."""
    rule, values = rule_and_values(name, given)
    arrays = {state: np.full_like(p, value) for state, value in interp.initial_state(rule, values).items()}
    arrays["p"] = p.copy()
    for t, row in enumerate(g, 1):
        arrays["g"] = row.copy()
        interp.step(rule, values, t, arrays)
        yield arrays["p"].copy()


def assert_same_path(path: Array, expected: Array, p: Array) -> None:
    """Within 1e-12 of the largest value that each element has had so far."""
    assert path.shape == expected.shape
    assert np.isfinite(expected).all()
    scale = np.maximum.accumulate(np.abs(np.vstack([p, expected])), axis=0)[1:]
    apart = np.abs(path - expected) / np.where(scale > 0, scale, 1)
    assert apart.max() <= TOLERANCE, (
        f"{apart.max():.3g} at step and element {np.unravel_index(apart.argmax(), apart.shape)}"
    )


def test_every_rule_of_the_seed_has_a_reference() -> None:
    assert set(RULES) == set(SHIPPED)
    assert len(SHIPPED) == 11


#: Where else rules are compared with what somebody else wrote: the file, and the table that names them.
TABLES = (
    ("test_library_torch", "NUMBERS"),
    ("test_library_optax", "THEIRS"),
    ("papers_by_hand", "MORE"),
    ("test_library_inputs", "PAPERS"),
    ("test_library_collection", "THEIRS"),
    ("test_library_emo", "RULES"),
    ("test_library_collection", "FILTERS"),
    ("test_library_collection", "PAPERS"),
    ("test_library_matrices", "WRITTEN"),
    ("test_library_matrices", "NORMS"),
    ("test_library_matrices", "PROJECTED"),
    ("test_random", "PAPERS"),
)
#: Tables of optimisers made of parts.
CHAINS = (("test_chain", "CASES"), ("test_library_phases", "COLLECTED"), ("test_library_wrapped", "CHAINED"))
#: What is compared in a function of its own, and not in a table.
APART = {
    "AdGD": ("test_library_wrapped", "test_adgd_is_that_of_the_paper"),
    "AdaLOMO": ("test_library_wrapped", "test_adalomo_is_that_of_the_collection"),
    "AdamMini": ("test_library_blocks", "test_adam_mini_follows_the_paper"),
    "BSAM": ("test_library_phases", "test_bsam_is_that_of_the_paper"),
    "Gravity": ("test_library_wrapped", "test_gravity_without_noise_is_that_of_the_collection"),
    "ExtraGradient": ("test_library_phases", "test_extragradient_is_that_of_the_paper"),
    "MARS": ("test_library_collection", "test_mars_before_descent_by_signs_is_the_collections_mars_lion"),
    "EMA": ("test_chain", "test_an_average_of_the_parameter_is_kept_and_changes_nothing"),
    "ClipGlobalNorm": ("test_chain", "test_a_global_norm_is_of_all_parameters"),
    "Unscale": ("test_loss_scaling", "test_unscaling_by_hand"),
    "LossScale": ("test_loss_scaling", "test_a_loss_scale_by_hand"),
    "GradientDropout": ("test_random", "test_dropout_leaves_out_what_is_drawn_below_its_rate"),
    "APOLLO": ("test_library_matrices", "test_apollo_is_that_of_the_paper"),
    "Dion": ("test_library_matrices", "test_dion_is_that_of_the_paper"),
    "Kron": ("test_library_matrices", "test_kron_is_that_of_the_collection"),
    "Muon": ("test_library_matrices", "test_muon_is_that_of_torch"),
    "NorMuon": ("test_library_matrices", "test_normuon_is_that_of_the_collection"),
    "SOAP": ("test_library_matrices", "test_soap_of_a_square_matrix_is_that_of_the_collection"),
    "SWATS": ("test_library_wrapped", "test_swats_is_that_of_the_collection_with_one_parameter"),
    "SPlus": ("test_library_matrices", "test_splus_is_that_of_the_collection"),
    "ZeroGrad": ("test_loss_scaling", "test_zeros_by_hand"),
}


def parsed(module: str) -> ast.Module:
    """The source of a file of tests, which is not imported: it may need more than there is here."""
    (path,) = Path(__file__).parents[1].rglob(f"{module}.py")
    return ast.parse(path.read_text("utf-8"))


def assigned(tree: ast.Module, name: str) -> ast.expr:
    """What the file's top level gives this name."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(getattr(target, "id", "") == name for target in targets):
            value: ast.expr = node.value  # type: ignore[attr-defined]
            return value
    raise AssertionError(f"there is no {name}")


def made_in(tree: ast.AST, among: Collection[str]) -> set[str]:
    """What is written as `optgen.Name` in it, of these names."""
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in among}


def test_every_spec_is_compared_with_what_owes_it_nothing() -> None:
    known = set(RULES)
    for module, table in TABLES:
        value = assigned(parsed(module), table)
        if isinstance(value, ast.Dict):
            found = {ast.literal_eval(key) for key in value.keys if key is not None}
        else:  # {rule.__name__: rule for rule in (...)}
            found = {name.id for name in ast.walk(value) if isinstance(name, ast.Name)} & set(SPECS)
        assert found
        known |= found
    for module, table in CHAINS:
        known |= made_in(assigned(parsed(module), table), PARTS)
    for name, (module, test) in APART.items():
        functions = {node.name: node for node in parsed(module).body if isinstance(node, ast.FunctionDef)}
        assert name in made_in(functions[test], SPECS)
        known.add(name)
    assert known >= set(SPECS), f"no independent source: {set(SPECS) - known}"
    assert known <= set(SPECS), f"no specs any more: {known - set(SPECS)}"


@pytest.mark.parametrize("case", CASES, ids=titled)
def test_the_interpreter_follows_the_reference(case: tuple[str, dict[str, Any]]) -> None:
    name, given = case
    g, p = gradients(), start()
    path = np.array(list(walk(name, given, g, p)))
    expected = np.array(trajectory(name, g.tolist(), p.tolist(), **given))
    assert_same_path(path, expected, p)
    moves = given.get("eta") != 0
    assert (np.abs(np.diff(expected, axis=0)).max(axis=0) > 0).all() == moves


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_the_defaults_are_those_of_the_reference(name: str) -> None:
    reference = RULES[name]()
    for hyper in SHIPPED[name].rules[0].hypers:
        value = getattr(reference, hyper.name)
        assert hyper.default == (value if hyper.vector else (value,))


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_the_states_are_those_of_the_reference(name: str) -> None:
    """Not the parameter alone: a state that goes astray may take long to show in it."""
    g, p = gradients(), start()
    rule, values = rule_and_values(name, {})
    arrays = {state: np.full_like(p, value) for state, value in interp.initial_state(rule, values).items()}
    arrays["p"], reference, expected = p.copy(), RULES[name](), p.tolist()
    highest = dict.fromkeys((state.name for state in rule.states), np.zeros_like(p))
    for t, row in enumerate(g, 1):
        arrays["g"] = row.copy()
        interp.step(rule, values, t, arrays)
        expected = reference.step(expected, row.tolist())
        for state in highest:
            there = np.array(getattr(reference, state))
            highest[state] = np.maximum(highest[state], np.abs(there))
            assert (np.abs(arrays[state] - there) <= TOLERANCE * highest[state]).all(), f"{state} at step {t}"


# ---- torch ----

TORCH: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("Descent", {"eta": 0.1}, "SGD", {"lr": 0.1}),
    ("Momentum", {"eta": 0.01, "rho": 0.9}, "SGD", {"lr": 0.01, "momentum": 0.9}),
    ("Momentum", {"eta": 0.3, "rho": 0.5}, "SGD", {"lr": 0.3, "momentum": 0.5}),
    ("ADAM", {}, "Adam", {"lr": 0.001}),
    ("ADAM", {"eta": 0.1, "beta": (0.5, 0.75), "eps": 1e-3}, "Adam", {"lr": 0.1, "betas": (0.5, 0.75), "eps": 1e-3}),
    ("ADAMW", {"decay": 0.01, "coupled": True}, "AdamW", {"lr": 0.001, "weight_decay": 0.01}),
    ("ADAMW", {"eta": 0.1, "decay": 0.5, "coupled": True}, "AdamW", {"lr": 0.1, "weight_decay": 0.5}),
    ("RMSProp", {}, "RMSprop", {"lr": 0.001, "alpha": 0.9, "eps": 1e-8}),
    ("RMSProp", {"eta": 0.05, "rho": 0.5, "eps": 1e-3}, "RMSprop", {"lr": 0.05, "alpha": 0.5, "eps": 1e-3}),
    ("ADADelta", {}, "Adadelta", {"lr": 1.0, "rho": 0.9, "eps": 1e-8}),
    ("ADADelta", {"rho": 0.5, "eps": 1e-4, "eta": 0.3}, "Adadelta", {"lr": 0.3, "rho": 0.5, "eps": 1e-4}),
]


@pytest.mark.parametrize(
    ("name", "given", "theirs", "arguments"), TORCH, ids=[titled((row[0], row[1])) for row in TORCH]
)
def test_the_interpreter_follows_torch(
    name: str, given: dict[str, Any], theirs: str, arguments: dict[str, Any]
) -> None:
    torch = pytest.importorskip("torch")
    g, p = gradients(), start()
    parameter = torch.tensor(p.copy(), dtype=torch.float64, requires_grad=True)
    optimiser = getattr(torch.optim, theirs)([parameter], **arguments)
    expected = []
    for row in g:
        parameter.grad = torch.tensor(row.copy(), dtype=torch.float64)
        optimiser.step()
        expected.append(parameter.detach().numpy().copy())
    assert_same_path(np.array(list(walk(name, given, g, p))), np.array(expected), p)
