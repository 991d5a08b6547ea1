"""`quantise` and `dequantise`: what they take, give and refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from storage_values import bits, block_sample

import optgen
from optgen import Quantised, dequantise, quantise
from optgen.errors import ArgumentError, ArrayError, CompilerNotFound, StateError
from optgen.frozen import replace
from optgen.interpreter.storages import load, store
from optgen.ir.storages import STORAGES
from optgen.runtime import quantised

X = np.random.default_rng(0).standard_normal((7, 300)).astype(np.float32)
every_storage = pytest.mark.parametrize("name", STORAGES)


def refuse_to_compile(*args: Any, **keywords: Any) -> None:
    raise CompilerNotFound("no C compiler")


@every_storage
def test_an_array_comes_back_in_its_shape(name: str) -> None:
    x = X.astype(np.float64) if name == "float64" else X
    kept = quantise(x, name)
    back = dequantise(kept)
    assert (back.shape, back.dtype) == (x.shape, x.dtype)
    assert (kept.storage, kept.shape, kept.version) == (name, x.shape, STORAGES[name].version)
    bound = {"bfloat16": 2.0**-8, "float16": 2.0**-10, "bf16+8": 2.0**-16, "log8": 1 / 16, "log4": 1 / 2}
    size = np.abs(x).max(axis=None) if name == "linear8" else np.abs(x)
    if name in ("linear8", "log4"):  # of the scale; of what is not too small
        assert (np.abs(back - x) <= np.maximum(size / 2, np.abs(x).max() / 64)).all()
    else:
        assert (np.abs(back - x) <= size * bound.get(name, 0)).all()


@every_storage
def test_bytes_are_what_the_table_says(name: str) -> None:
    x = np.ones(10 * 256, np.float64 if name == "float64" else np.float32)
    row = STORAGES[name]
    scales = x.size // row.block * 4 if row.block else 0
    assert quantise(x, name).nbytes == x.size * row.bits // 8 + scales


@every_storage
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_without_a_compiler_the_bits_are_the_same(name: str, rounding: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = block_sample(3000)
    kept = quantise(x, name, rounding=rounding, seed=2**63, signed=False)
    back = dequantise(kept)
    monkeypatch.setattr(quantised, "store_compiled", refuse_to_compile)
    monkeypatch.setattr(quantised, "load_compiled", refuse_to_compile)
    again = quantise(x, name, rounding=rounding, seed=2**63, signed=False)
    for one, other in zip(kept.arrays, again.arrays, strict=True):
        np.testing.assert_array_equal(one.view(np.uint8), other.view(np.uint8))
    np.testing.assert_array_equal(back.view(np.uint8), dequantise(again).view(np.uint8))


@pytest.mark.parametrize("name", ["bfloat16", "bf16+8", "log8", "log4"])
def test_strided_arrays_are_kept_in_c_order(name: str) -> None:
    x = np.asfortranarray(X)[::-2, 3:]
    np.testing.assert_array_equal(dequantise(quantise(x, name)), dequantise(quantise(x.copy("C"), name)))


@pytest.mark.parametrize("name", ["bfloat16", "bf16+16", "log8", "log4"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1)])
def test_arrays_of_any_shape(name: str, shape: tuple[int, ...]) -> None:
    x = np.full(shape, 0.5, np.float32)
    np.testing.assert_array_equal(dequantise(quantise(x, name)), x)


def test_the_seed_decides_stochastic_rounding() -> None:
    one, same, other = (quantise(X, "log8", rounding="stochastic", seed=seed).codes for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_half_precision_arrays_are_taken_as_they_are() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype in (np.float16, ml_dtypes.bfloat16):
        x = X.astype(dtype)
        np.testing.assert_array_equal(dequantise(quantise(x, dtype.__name__)), x.astype(np.float32))
        np.testing.assert_array_equal(quantise(x, dtype.__name__).codes.view(dtype), x)


def test_codes_are_frozen_and_objects_compare_by_identity() -> None:
    kept = quantise(X, "log8")
    with pytest.raises(ValueError, match="read-only"):
        kept.codes[0] = 1
    assert kept == kept
    assert kept != quantise(X, "log8")
    assert {kept: 1}[kept] == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"storage": "log9"}, r"expected one of float32, .*, log4; got 'log9'\n  hint: did you mean 'log"),
        ({"storage": "bf16"}, "got 'bf16'\n  hint: did you mean 'bf16"),
        ({"storage": 8}, "storage: expected one of .*; got 8$"),
        ({"rounding": "up"}, "rounding: expected 'nearest' or 'stochastic', got 'up'"),
        ({"seed": -1}, r"seed: expected a whole number from 0 to 2\*\*64 - 1, got -1"),
        ({"seed": 0.5}, "seed: expected a whole number"),
        ({"seed": True}, "seed: expected a whole number"),
    ],
)
def test_arguments_are_checked(given: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        quantise(X, **({"storage": "log8"} | given))


@pytest.mark.parametrize(
    ("array", "storage", "words"),
    [
        (X.astype(np.float64), "log8", r"expected float32, got float64\n  hint: array.astype\(np.float32\).* rounds"),
        (np.arange(3), "bfloat16", "array: expected float32, got int64"),
        (X.astype(complex), "log4", "array: expected float32, got complex128"),
        (np.array(["a"]), "log8", "array: expected float32, got <U1"),
        (np.arange(3), "float64", "array: expected float64, got int64\n  hint: array.astype"),
    ],
)
def test_other_dtypes_are_refused(array: Any, storage: str, words: str) -> None:
    with pytest.raises(ArrayError, match=words):
        quantise(array, storage)


def test_what_does_not_fit_together_is_refused() -> None:
    kept = quantise(X, "log8")
    assert kept.more is not None
    with pytest.raises(
        ArgumentError, match=r"expected what optgen.quantise gave, got ndarray\n  hint: optgen.quantise"
    ):
        dequantise(X)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="log8: expected codes of version 1, got version 2\n  hint: dequantise them"):
        dequantise(replace(kept, version=2))
    with pytest.raises(ArgumentError, match="got 'log16'"):
        dequantise(replace(kept, storage="log16"))
    words = r"log8 of 2100 elements: expected codes: 2100 uint8, scales: 9 float32; got codes: 2099 uint8, scales: 9"
    with pytest.raises(ArrayError, match=words):
        dequantise(replace(kept, codes=kept.codes[1:]))
    with pytest.raises(ArrayError, match=r"got codes: 2100 uint8$"):
        dequantise(replace(kept, more=None))
    with pytest.raises(ArrayError, match="expected codes: 2100 uint16, low bits: 2100 uint8; got"):
        dequantise(replace(kept, storage="bf16+8"))


def test_the_names_are_public() -> None:
    assert {"Quantised", "dequantise", "quantise"} <= set(optgen.__all__)
    assert optgen.Quantised is Quantised


def test_the_interpreter_and_quantise_agree() -> None:
    kept = quantise(X, "linear8", signed=True)
    codes, scales = store(STORAGES["linear8"], X.ravel())
    np.testing.assert_array_equal(kept.codes, codes)
    np.testing.assert_array_equal(bits(dequantise(kept)).ravel(), bits(load(STORAGES["linear8"], [codes, scales])))
