"""The tables of array libraries: the same keys, and the same meaning as in the interpreter."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from optgen.errors import OptgenError
from optgen.functional.draws import drawn
from optgen.functional.library import LIBRARIES, array_library
from optgen.interpreter import NUMPY
from optgen.interpreter.draws import drawn as drawn_by_interpreter
from optgen.ir.primitives import OPS, PRODUCTS, Type

#: Zeros, halves between whole numbers, infinities, NaN, and what is near the ends of functions.
NUMBERS = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -2.5, 3.0, 7.25, 1e-3, -40.0, 1e300, np.inf, -np.inf, np.nan]
WHOLE = [2.0, 3.0, 5.0, 64.0]
UNITS = {"pow": 4, "cbrt": 4, "tanh": 4, "sigmoid": 4, "erf": 4, "atan2": 4, "powi": 40}


@pytest.fixture(params=sorted(LIBRARIES))
def library(request: pytest.FixtureRequest) -> Iterator[Any]:
    pytest.importorskip(request.param)
    context: Any = nullcontext()
    if request.param == "jax":
        import jax

        context = jax.enable_x64(True)
    with context:
        yield array_library(request.param)


def array_of(library: Any, x: Any) -> Any:
    if library.name == "torch":
        import torch

        return torch.from_numpy(np.array(x))
    if library.name == "jax":
        import jax.numpy as jnp

        return jnp.asarray(x)
    return np.array(x)


def test_all_tables_have_the_same_keys(library: Any) -> None:
    assert library.primitives.keys() == OPS.keys()
    assert {*library.products, "identity"} == PRODUCTS.keys()
    assert library.reductions.keys() == {"sum", "max", "min"}


@pytest.mark.parametrize("op", OPS)
def test_a_primitive_means_what_it_does_in_the_interpreter(library: Any, op: str) -> None:
    truths = [True, False]
    kinds = [truths if kind is Type.BOOL else NUMBERS for kind in OPS[op].takes]
    if op == "powi":
        kinds[1] = WHOLE
    for n in kinds[1] if op == "powi" else [None]:
        columns = np.array(list(itertools.product(*(kinds if n is None else kinds[:1]))), dtype=object).T
        args = [np.array(list(c), bool if isinstance(c[0], bool) else float) for c in columns]
        with np.errstate(all="ignore"), library.quietly():
            right = NUMPY[op](*args, *[n] * (n is not None))
            found = np.asarray(library.primitives[op](*[array_of(library, x) for x in args], *[n] * (n is not None)))
        assert found.dtype == right.dtype
        if right.dtype == bool:
            assert np.array_equal(found, right)
        else:
            units = UNITS.get(op, 2) * np.spacing(np.abs(np.where(np.isfinite(right), right, 1)))
            near = np.abs(np.where(np.isfinite(right), found - np.where(np.isfinite(right), right, 0), 0)) <= units
            special = (found == right) | (np.isnan(found) & np.isnan(right))
            assert np.all(np.where(np.isfinite(right), near, special)), (op, args, found, right)


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 24), ("float64", 52)])
@pytest.mark.parametrize("op", ["uniform", "tail", "rademacher"])
def test_draws_are_those_of_the_interpreter(library: Any, op: str, dtype: str, bits: int) -> None:
    like = array_of(library, np.zeros(1, dtype))
    key = (123456789.0, 77, array_of(library, np.float64(5)))
    found = np.asarray(drawn(library, op, 3, key, 1000, like.dtype, bits, like))
    right = drawn_by_interpreter(op, 3, (123456789, 77, 5), (1000,), np.dtype(dtype))
    assert found.dtype == right.dtype
    assert np.array_equal(found, right)


def test_a_library_that_is_not_installed_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "optgen.functional.jax_library", raising=False)
    with pytest.raises(OptgenError, match=r"needs the package jax, which is not installed\n *hint: pip install jax"):
        array_library("jax")
