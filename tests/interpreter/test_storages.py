"""Storages of one element: every code, every rounding, the same bits in C."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from storage_values import bits, hard_points

from optgen.interpreter.storages import load, store
from optgen.ir.storages import STORAGES

ELEMENTWISE = ("bfloat16", "float16", "bf16+8", "bf16+16")
ROUNDING = tuple(name for name in ELEMENTWISE if STORAGES[name].rounds)
EVERY_CODE = np.arange(2**16, dtype=np.uint16)
#: Of each form: the bits of its significand, and the exponents of its least normal and its largest number.
FORMS = {"bfloat16": (8, -126, 127), "float16": (11, -14, 15), "bf16+8": (16, -126, 127)}


HARD = hard_points()
RANDOM = np.random.default_rng(1).integers(0, 2**16, HARD.size, np.uint32)


def nearest(x: float, form: tuple[int, int, int], *, up: bool) -> float:
    """`x` in so many bits, by exact arithmetic. A tie is rounded to the even number; or `up`, away from 0."""
    digits, least, largest = form
    size = Fraction(abs(x))
    exponent = max(math.frexp(x)[1] - 1, least)
    unit = Fraction(2) ** (exponent - digits + 1)
    whole = math.floor(size / unit + Fraction(1, 2)) if up else round(size / unit)
    rounded = whole * unit
    return math.copysign(math.inf if rounded >= 2 ** (largest + 1) else float(rounded), x)


# ---- Every code ----


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_every_code_means_what_the_dtype_says(name: str) -> None:
    dtype: Any = np.float16 if name == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    with np.errstate(invalid="ignore"):
        expected = EVERY_CODE.view(dtype).astype(np.float32)
    found = load(STORAGES[name], [EVERY_CODE])
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), ~number)
    np.testing.assert_array_equal(bits(found)[number], bits(expected)[number])


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_every_number_keeps_its_code_and_every_nan_gets_one(name: str) -> None:
    values = load(STORAGES[name], [EVERY_CODE])
    (codes,) = store(STORAGES[name], values)
    nan = {"bfloat16": 0x7FC0, "float16": 0x7E00}[name]
    np.testing.assert_array_equal(codes, np.where(np.isnan(values), nan, EVERY_CODE))
    (stochastic,) = store(STORAGES[name], values, np.full(values.shape, 0xFFFF, np.uint32))
    np.testing.assert_array_equal(stochastic, codes)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_numbers_are_rounded_as_the_dtype_rounds_them(name: str) -> None:
    dtype: Any = np.float16 if name == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    numbers = HARD[~np.isnan(HARD)]
    with np.errstate(over="ignore"):
        expected = numbers.astype(dtype).view(np.uint16)
    np.testing.assert_array_equal(store(STORAGES[name], numbers)[0], expected)


def test_the_24_bits_of_every_number_come_back() -> None:
    storage = STORAGES["bf16+8"]
    low = np.arange(0, 256, 5, dtype=np.uint8)
    high = np.repeat(EVERY_CODE[::7], low.size)
    low = np.resize(low, high.size)
    values = load(storage, [high, low])
    number = np.isfinite(values)
    for random in (None, np.full(values.shape, 0xFFFF, np.uint32)):
        found = store(storage, values, random)
        np.testing.assert_array_equal(found[0][number], high[number])
        np.testing.assert_array_equal(found[1][number], low[number])


def test_all_bits_of_float32_come_back_but_those_of_nan() -> None:
    storage = STORAGES["bf16+16"]
    found = load(storage, store(storage, HARD))
    np.testing.assert_array_equal(bits(found), np.where(np.isnan(HARD), np.uint32(0x7FC00000), bits(HARD)))


@pytest.mark.parametrize("name", ["bf16+8", "bf16+16"])
def test_the_high_half_is_a_bfloat16_at_least_as_near_as_any(name: str) -> None:
    finite = HARD[np.abs(HARD) < 3e38].astype(np.float64)
    high, _ = store(STORAGES[name], finite.astype(np.float32))
    whole = load(STORAGES[name], store(STORAGES[name], finite.astype(np.float32))).astype(np.float64)
    own = load(STORAGES["bfloat16"], [high]).astype(np.float64)
    best = load(STORAGES["bfloat16"], store(STORAGES["bfloat16"], whole.astype(np.float32))).astype(np.float64)
    np.testing.assert_array_equal(np.abs(own - whole), np.abs(best - whole))


# ---- Rounding ----


@pytest.mark.parametrize("name", FORMS)
def test_nearest_is_nearest_in_exact_arithmetic(name: str) -> None:
    found = load(STORAGES[name], store(STORAGES[name], HARD))
    for x, value in zip(HARD.tolist(), found.tolist(), strict=True):
        if math.isfinite(x):
            expected = nearest(x, FORMS[name], up=name == "bf16+8")
            assert (value, math.copysign(1, value)) == (expected, math.copysign(1, expected)), x


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_special_values_stay(name: str) -> None:
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -2.0], np.float32)
    for random in (None, np.zeros(7, np.uint32), np.full(7, 0xFFFF, np.uint32)):
        np.testing.assert_array_equal(bits(load(STORAGES[name], store(STORAGES[name], special, random))), bits(special))


@pytest.mark.parametrize("name", ROUNDING)
def test_stochastic_rounding_gives_one_of_two_neighbours_as_often_as_it_is_near(name: str) -> None:
    """Over all random bits, so that the mean is the number itself."""
    every = np.arange(2**16, dtype=np.uint32)
    spots = [1.0, 1.7, -3.1, 1e-3, -123.456]
    if name == "float16":
        spots += [0.75 * 2.0**-15, -1.3e-6, 2.0**-25, 2.0**-14 - 2.0**-26]
    else:
        spots += [3e-39, -1e30, 1e-45]
    for x in np.array(spots, np.float32):
        found = load(STORAGES[name], store(STORAGES[name], np.full(every.shape, x), every)).astype(np.float64)
        assert np.unique(found).size <= 2
        # Of a subnormal float16, what is below 2**-16 of its last bit is cut off.
        assert abs(found.mean() - x) < (2.0**-40 if abs(x) < 2.0**-14 and name == "float16" else 5e-324), x


# ---- Arrays ----


def test_arrays_keep_their_shape() -> None:
    x = HARD[:24].reshape(2, 3, 4)
    for name, random in itertools.product(ELEMENTWISE, (None, RANDOM[:24].reshape(2, 3, 4))):
        arrays = store(STORAGES[name], x, random)
        assert [(array.shape, array.dtype) for array in arrays] == [(x.shape, dtype) for dtype in STORAGES[name].dtypes]
        assert load(STORAGES[name], arrays).shape == x.shape


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_what_needs_no_rounding_is_kept_as_it_is(name: str) -> None:
    x = np.array([0.1, -0.0, np.inf, 1e-300], name)
    (kept,) = store(STORAGES[name], x)
    assert kept.dtype == name
    np.testing.assert_array_equal(load(STORAGES[name], [kept]), x)
