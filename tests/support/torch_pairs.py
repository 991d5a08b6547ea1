"""PyTorch's optimiser beside ours: the same parameters and gradients, step by step."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from optgen.compiler import catalogue, driver
from optgen.ir.rule import Aspect

torch = pytest.importorskip("torch")
optim = pytest.importorskip("optgen.torch")

from optgen.torch.optimizer import naming_of  # noqa: E402

torch.set_num_threads(1)  # the tensors are tiny, and tests run in parallel

#: The rules that PyTorch has too.
NAMES = [
    "SGD", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "ASGD", "Adafactor"
]  # fmt: skip
#: Every shipped rule whose step takes one gradient, of parameters of any shape; and those that PyTorch lacks.
RULES = {
    name: compiled.rules[0]
    for name, path in catalogue.shipped_names().items()
    for compiled in [driver.compile_file(path)]
    if not (compiled.rules[0].part or compiled.rules[0].phases)
    and any(rule.takes(Aspect.VECTOR) for rule in compiled.rules)
}
OWN = [name for name in RULES if name not in NAMES]
#: How far float32 may be apart, of the largest value that an element has had: some digits cancel out where weight decay
#: meets the gradient.
ULPS = 32 * 2.0**-24
SHAPES: tuple[tuple[int, ...], ...] = ((8,), (5, 7), (), (2, 3, 4), (1,), (1, 3), (0, 2))
REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


@pytest.fixture
def double() -> Iterator[None]:
    """Set PyTorch's default dtype to float64. It keeps `step`, NAdam's `mu_product` and ASGD's `eta` and `mu` in that
    dtype, and a test should not measure their rounding."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def their_class(name: str) -> Any:
    return getattr(torch.optim, name)


def theirs(name: str, params: Any, **arguments: Any) -> Any:
    """PyTorch's optimiser with its plain loop."""
    cls = their_class(name)
    known = inspect.signature(cls).parameters
    return cls(params, **{key: False for key in ("foreach", "fused") if key in known} | arguments)


def ours(name: str, params: Any, **arguments: Any) -> Any:
    return getattr(optim, name)(params, **arguments)


def parameters(dtype: Any = torch.float32, shapes: Sequence[tuple[int, ...]] = SHAPES, seed: int = 0) -> list[Any]:
    make = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=make, dtype=dtype)) for shape in shapes]


def twins(params: Sequence[Any]) -> list[Any]:
    return [torch.nn.Parameter(p.detach().clone()) for p in params]


def gradients(params: Sequence[Any], seed: int) -> list[Any]:
    """Gradients of different scales and both signs, with some zeros."""
    make = torch.Generator().manual_seed(1000 + seed)
    made = []
    for i, p in enumerate(params):
        g = torch.randn(p.shape, generator=make, dtype=p.dtype) * 4.0 ** (i - 3)
        quiet = torch.rand(p.shape, generator=make, dtype=REAL.get(p.dtype, p.dtype)) < 0.05
        made.append(torch.where(quiet, torch.zeros_like(g), g))
    return made


def give(pairs: Sequence[Sequence[Any]], seed: int) -> None:
    """Give every list of parameters the same gradients."""
    for i, g in enumerate(gradients(pairs[0], seed)):
        for params in pairs:
            params[i].grad, params[i].hessian = g.clone(), g.abs() + 0.5


def tensors_of(optimiser: Any, params: Sequence[Any]) -> list[dict[str, Any]]:
    """For each parameter, its states, and the parameter itself as "p"."""

    def of(p: Any) -> dict[str, Any]:
        kept = optimiser.state.get(p, {})
        return {key: torch.as_tensor(value).clone() for key, value in kept.items() if value is not None}

    return [{"p": p.detach().clone()} | of(p) for p in params]


class Scales:
    """A comparison over many steps, relative to the largest magnitude that each element has had so far."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._highest: dict[tuple[int, str], Any] = {}
        self.apart = 0.0

    def compare(self, here: list[dict[str, Any]], there: list[dict[str, Any]]) -> None:
        for i, (own, other) in enumerate(zip(here, there, strict=True)):
            assert set(own) == set(other), i
            for key, value in other.items():
                assert own[key].shape == value.shape, key
                apart = np.abs(_number(own[key]) - _number(value))
                scale = np.maximum(self._highest.get((i, key), 0.0), np.abs(_number(value)))
                self._highest[i, key] = scale
                relative = float(np.max(apart / np.where(scale > 0, scale, 1), initial=0.0))
                self.apart = max(self.apart, relative)
                assert relative <= self._most, f"{key} of parameter {i} is {relative:.3g} apart"


def _number(x: Any) -> Any:
    """A tensor as a float64 array, in which a complex number is two."""
    x = torch.view_as_real(x) if x.is_complex() else x
    return x.double().numpy()


def same_bits(here: list[dict[str, Any]], there: list[dict[str, Any]]) -> bool:
    return all(
        set(own) == set(other) and all(torch.equal(_whole(own[key]), _whole(other[key])) for key in own)
        for own, other in zip(here, there, strict=True)
    )


def _whole(x: Any) -> Any:
    x = torch.view_as_real(x) if x.is_complex() else x
    return torch.nan_to_num(x.double(), nan=123.0)


def numbers(optimiser: Any) -> dict[str, float]:
    """The numbers that a step of any rule is given beside gradients and the Hessians of `give`."""
    return dict.fromkeys(naming_of(optimiser).rules[0].given_numbers, 0.75)
