"""Every configuration of PyTorch's own database of optimisers, against its plain loop; its error inputs too."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # which the database imports

from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db
from torch_pairs import NAMES, SHAPES, ULPS, Scales, double, give, ours, parameters, tensors_of, theirs, twins  # noqa: F401

STEPS = 25
INFOS = {info.optim_cls.__name__: info for info in optim_db}
CASES = [(name, i) for name in NAMES for i in range(len(INFOS[name].optim_inputs_func(device="cpu")))]


def arguments(name: str, i: int) -> dict[str, Any]:
    return dict(INFOS[name].optim_inputs_func(device="cpu")[i].kwargs)


def titled(case: tuple[str, int]) -> str:
    return f"{case[0]}, {INFOS[case[0]].optim_inputs_func(device='cpu')[case[1]].desc}"


def follow(name: str, given: dict[str, Any], dtype: Any, most: float, **more: Any) -> None:
    params = parameters(dtype, [s for s in SHAPES if name != "Adafactor" or 0 not in s])  # by which PyTorch divides
    copies = twins(params)
    there, here = theirs(name, params, **given), ours(name, copies, **given, **more)
    scales = Scales(most)
    for t in range(STEPS):
        give([params, copies], t)
        there.step()
        here.step()
        scales.compare(tensors_of(here, copies), tensors_of(there, params))
    assert [set(group) for group in here.param_groups] == [set(group) for group in there.param_groups]


@pytest.mark.parametrize("case", CASES, ids=titled)
def test_a_configuration_follows_in_float64(case: tuple[str, int], double: None) -> None:  # noqa: F811
    follow(case[0], arguments(*case), torch.float64, 1e-12)


@pytest.mark.parametrize("case", CASES, ids=titled)
def test_a_configuration_follows_in_float32(case: tuple[str, int]) -> None:
    follow(case[0], arguments(*case), torch.float32, ULPS)


@pytest.mark.parametrize("case", [c for c in CASES if INFOS[c[0]].supports_complex], ids=titled)
def test_a_configuration_follows_with_complex_parameters(case: tuple[str, int], double: None) -> None:  # noqa: F811
    follow(case[0], arguments(*case), torch.complex128, 1e-12)


@pytest.mark.parametrize("how", ["foreach", "fused"])
@pytest.mark.parametrize("name", NAMES)
def test_how_it_is_computed_is_accepted(name: str, how: str) -> None:
    if how not in INFOS[name].supported_impls:
        pytest.skip("PyTorch has no such way here")
    follow(name, {}, torch.float32, ULPS, **{how: True})


ERRORS = [
    (name, i)
    for name in NAMES
    for i in range(len(INFOS[name].optim_error_inputs_func(device="cpu", dtype=torch.float32)))
]


def titled_error(case: tuple[str, int]) -> str:
    found = INFOS[case[0]].optim_error_inputs_func(device="cpu", dtype=torch.float32)[case[1]]
    return f"{case[0]}, {found.optimizer_error_input.desc}"


@pytest.mark.parametrize("case", ERRORS, ids=titled_error)
def test_what_pytorch_refuses_is_refused(case: tuple[str, int]) -> None:
    name, i = case
    error = INFOS[name].optim_error_inputs_func(device="cpu", dtype=torch.float32)[i]
    given = error.optimizer_error_input
    params = given.params if given.params is not None else [torch.nn.Parameter(torch.randn(3, 4))]
    if error.error_on == OptimizerErrorEnum.STEP_ERROR:
        optimiser = ours(name, params, **given.kwargs)
        with pytest.raises(error.error_type, match=error.error_regex):
            optimiser.step()
        return
    if issubclass(error.error_type, Warning):
        with pytest.warns(error.error_type, match=error.error_regex):
            ours(name, params, **given.kwargs)
        return
    with pytest.raises(error.error_type, match=error.error_regex), warnings.catch_warnings():
        ours(name, params, **given.kwargs)


def test_every_rule_of_the_database_is_here() -> None:
    assert set(INFOS) - {"LBFGS", "SparseAdam", "Muon"} == set(NAMES)
    assert len(CASES) >= 70
    assert len(set(itertools.chain(CASES))) == len(CASES)
