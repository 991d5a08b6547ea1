"""Storages with a scale for each block: every code, every rounding, special values, the same bits in C."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from storage_values import SCALES, Array, bits, block_sample, every_code

from optgen.interpreter.rounding import rounding_bits
from optgen.interpreter.storages import load, store
from optgen.ir.storages import STORAGES, Storage

BLOCKS = [storage for storage in STORAGES.values() if storage.block]
each_storage = pytest.mark.parametrize("storage", BLOCKS, ids=[storage.name for storage in BLOCKS])
each_sign = pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
EVERY = np.arange(2**16, dtype=np.uint32)


def levels_of(storage: Storage, signed: bool) -> int:
    return storage.levels[not signed]


def size_of(x: Array) -> Array:
    """The bits without the sign, as whole numbers."""
    return bits(np.abs(x)).astype(np.int64)


# ---- Every code ----


@each_sign
@each_storage
def test_every_code_comes_back(storage: Storage, signed: bool) -> None:
    codes = every_code(storage, signed)
    for scale in SCALES:
        values = load(storage, [codes, np.array([scale], np.float32)], signed=signed)
        assert np.isfinite(values).all()
        found, scales = store(storage, values, signed=signed)
        np.testing.assert_array_equal(found, codes)
        assert scales[0] == np.float32(scale)
        if storage.dropped:
            again, _ = store(storage, values, np.full(values.shape, 0xFFFF, np.uint32), signed=signed)
            np.testing.assert_array_equal(again, codes)


@each_sign
@each_storage
def test_greater_codes_are_greater_numbers(storage: Storage, signed: bool) -> None:
    levels = levels_of(storage, signed)
    codes = np.arange(levels + 1, dtype=np.uint8)
    if storage.packed == 2:
        codes = np.resize(codes, 64)  # in the lower bits, so 64 elements of a block
    values = load(storage, [codes, np.array([3.7], np.float32)], signed=signed)[: levels + 1]
    assert values[0] == 0
    assert (np.diff(values) > 0).all()
    assert values[-1] == pytest.approx(3.7, rel=1e-6)
    if storage.name == "log8":
        np.testing.assert_array_equal(values[1:-8] * 2, values[9:])


# ---- Rounding ----


@each_sign
@each_storage
def test_nearest_is_the_nearest_of_all_codes(storage: Storage, signed: bool) -> None:
    """Logarithmic: in the bits of a float32, a tie to the smaller one. Linear: in exact arithmetic, but for what the
    product `x * (levels / scale)` rounds."""
    levels = levels_of(storage, signed)
    rng = np.random.default_rng(3)
    for scale in SCALES[:5]:
        x = (np.float32(scale) * 2.0 ** rng.uniform(-18, 0, 4 * storage.block)).astype(np.float32)
        x[:: storage.block] = scale
        values = load(storage, store(storage, x, signed=signed), x.size, signed=signed)
        if not storage.dropped:
            step = Fraction(float(np.float32(scale))) / levels
            for one, value in zip(x.tolist(), values.tolist(), strict=True):
                least = Fraction(one) < step and not signed
                off = abs(Fraction(one) - Fraction(value))
                assert off <= step * (1 if least else Fraction(1, 2)) * (1 + Fraction(levels, 2**21))
            continue
        top = int(bits(np.float32(scale)))
        known = np.array([0] + [top - (k << storage.dropped) for k in range(levels)])
        for size, value in zip(size_of(x).tolist(), size_of(values).tolist(), strict=True):
            lowest = top - ((levels - 1) << storage.dropped)
            if size > lowest:
                distance = np.abs(known - size)
                assert value == known[distance == distance.min()].min()
            else:
                assert value in ((0, lowest) if signed else (lowest,))


@pytest.mark.parametrize(("name", "half"), [("log8", 1 << 19), ("log4", 1 << 22)])
def test_half_a_step_is_rounded_down(name: str, half: int) -> None:
    storage = STORAGES[name]
    top = int(bits(np.float32(1.75)))
    x = np.array([top, top - half + 1, top - half, top - half - 1], np.uint32).view(np.float32)
    below = np.array([top - 2 * half], np.uint32).view(np.float32)[0]
    for signed in (True, False):
        found = load(storage, store(storage, x, signed=signed), 4, signed=signed)
        np.testing.assert_array_equal(found, [1.75, 1.75, below, below])


def test_linear_rounds_halves_to_even() -> None:
    x = np.array([254, 1, 3, 5, -1, -3, -5, 101], np.float32)
    codes, _ = store(STORAGES["linear8"], x)
    assert codes.view(np.int8).tolist() == [127, 0, 2, 2, 0, -2, -2, 50]


#: The largest relative error, of numbers that are no less than this part of the scale.
ERRORS = {"log8": (1 / 16, {True: 2.0**-15.75, False: 2.0**-31.75}), "log4": (1 / 2, {True: 2.0**-6, False: 2.0**-14})}


@each_sign
@pytest.mark.parametrize("name", ERRORS)
def test_the_largest_relative_error(name: str, signed: bool) -> None:
    storage, (bound, smallest) = STORAGES[name], ERRORS[name]
    worst = 0.0
    for scale in np.linspace(1, 2, 33, dtype=np.float32):
        x = np.geomspace(scale * smallest[signed], scale, storage.block * 40).astype(np.float32)
        x[:: storage.block] = scale
        values = load(storage, store(storage, x, signed=signed), x.size, signed=signed)
        worst = max(worst, float((np.abs(values - x) / x).max()))
    assert 0.95 * bound < worst <= bound


@each_sign
@each_storage
def test_the_mean_over_all_random_bits_is_the_place_between_two_codes(storage: Storage, signed: bool) -> None:
    levels = levels_of(storage, signed)
    for scale in SCALES[:5]:
        top = int(bits(np.float32(scale)))
        for x in (np.float32(scale) * np.array([0.99, 0.7501, 0.3, 0.0123], np.float32)).tolist():
            # Each block begins with the scale.
            values = np.full(EVERY.size * 2, x, np.float32)
            values[:: storage.block] = scale
            random = np.resize(EVERY, EVERY.size * 2)
            random[EVERY.size :] = np.roll(EVERY, 1)
            found = load(storage, store(storage, values, random, signed=signed), signed=signed)
            rest = np.flatnonzero(values == np.float32(x))
            if storage.dropped:
                place = (top - size_of(values[rest[:1]])[0]) / (1 << storage.dropped)
                mean = ((top - size_of(found[rest])) / (1 << storage.dropped)).mean()
                if place >= levels - 1:
                    continue
            else:
                place, mean = x / float(np.float32(scale)) * levels, (found[rest] / np.float64(scale) * levels).mean()
            # A block's first element takes the place of one in so many.
            assert abs(mean - place) < 2.0**-8


@each_sign
@each_storage
def test_stochastic_rounding_is_unbiased(storage: Storage, signed: bool) -> None:
    """Within 4 standard deviations, in steps: of the size, or of the bits where steps are logarithmic."""
    count, levels = 1 << 20, levels_of(storage, signed)
    x = np.random.default_rng(6).uniform(2.0**-4, 1, count).astype(np.float32)
    x[:: storage.block] = 1
    for t in range(3):
        random = rounding_bits(7, t, 0, 0, np.arange(count, dtype=np.uint64))
        found = load(storage, store(storage, x, random, signed=signed), count, signed=signed)
        if storage.dropped:
            steps, there = (size_of(each) / (1 << storage.dropped) for each in (x, found))
        else:
            steps, there = (each.astype(np.float64) * levels for each in (x, found))
        part = steps % 1
        assert abs((there - steps).sum()) < 4 * np.sqrt((part * (1 - part)).sum())


def test_no_random_bits_push_the_largest_over_the_last_code() -> None:
    """Where `x * (levels / scale)` is above the last level, by rounding."""
    storage, rng = STORAGES["linear8"], np.random.default_rng(4)
    scales = rng.uniform(1, 2, 20_000).astype(np.float32)
    for signed, levels in ((True, np.float32(127)), (False, np.float32(255))):
        assert (scales * (levels / scales) > levels).any()
        x = np.zeros((scales.size, storage.block), np.float32)
        x[:, 0] = scales
        codes, _ = store(storage, x.ravel(), np.full(x.size, 0xFFFF, np.uint32), signed=signed)
        assert (codes.reshape(x.shape)[:, 0] == levels).all()


@each_sign
def test_whole_levels_of_linear_codes_stay_whatever_the_random_bits_are(signed: bool) -> None:
    levels = 127 if signed else 255
    x = np.arange(levels + 1, dtype=np.float32)
    for random in (0, 1, 0x7FFF, 0x8000, 0xFFFF):
        arrays = store(STORAGES["linear8"], x, np.full(x.size, random, np.uint32), signed=signed)
        np.testing.assert_array_equal(arrays[0], x.astype(np.uint8))


@pytest.mark.parametrize(("name", "bound"), [("log8", 1 / 64), ("log4", 1 / 8)])
def test_the_mean_of_logarithmic_codes_is_never_much_above_the_number(name: str, bound: float) -> None:
    """It is the number where both codes have the same exponent, and above it where they have not."""
    storage = STORAGES[name]
    worst = 0.0
    for scale in np.linspace(1, 2, 17)[:-1]:
        for x in scale * np.linspace(0.26, 0.99, 60):
            two = np.array([scale, np.float32(x)], np.float32)
            low, high = (load(storage, store(storage, two, np.full(2, r, np.uint32)), 2)[1] for r in (0xFFFF, 0))
            if low == high:
                continue
            part = (size_of(two[1:]) - size_of(np.array([low])))[0] / (1 << storage.dropped)
            mean = low + part * (float(high) - float(low))
            assert mean >= two[1] * (1 - 1e-6)
            worst = max(worst, mean / two[1] - 1)
    assert 0.5 * bound < worst <= bound


# ---- Special values ----


@each_sign
@each_storage
def test_a_block_with_an_infinity_or_a_nan_is_nan_and_no_other(storage: Storage, signed: bool) -> None:
    for special in (np.inf, -np.inf, np.nan):
        x = np.ones(3 * storage.block, np.float32)
        x[storage.block + 5] = special
        values = load(storage, store(storage, x, signed=signed), x.size, signed=signed).reshape(3, -1)
        assert np.isnan(values[1]).all()
        assert (values[[0, 2]] == 1).all()


@each_sign
@each_storage
def test_a_block_of_tiny_numbers_is_zero(storage: Storage, signed: bool) -> None:
    x = np.full(storage.block, np.nextafter(np.float32(2.0**-94), np.float32(0)))
    codes, scales = store(storage, x, signed=signed)
    assert not codes.any()
    assert not scales.any()
    np.testing.assert_array_equal(bits(load(storage, [codes, scales], signed=signed)), np.uint32(0))


@each_storage
def test_without_a_sign_no_positive_number_is_lost_and_no_negative_one_kept(storage: Storage) -> None:
    x = np.array([1.0, 1e-30, 1e-45, 0.0, -0.0, -1e-3, -1.0], np.float32)
    for random in (None, np.zeros(7, np.uint32), np.full(7, 0xFFFF, np.uint32)):
        values = load(storage, store(storage, x, random, signed=False), 7, signed=False)
        assert (values[:3] > 0).all()
        np.testing.assert_array_equal(bits(values[3:]), np.uint32(0))


def test_logarithmic_codes_keep_the_sign_of_zero() -> None:
    x = np.array([1.0, -0.0, 0.0, -1e-30], np.float32)
    for name in ("log8", "log4"):
        values = load(STORAGES[name], store(STORAGES[name], x), 4)
        np.testing.assert_array_equal(np.signbit(values), [False, True, False, True])


# ---- Arrays ----

COUNTS = [0, 1, 2, 3, 63, 64, 127, 128, 129, 255, 256, 257, 383, 385, 2817, 7000]


@each_sign
@each_storage
@pytest.mark.parametrize("count", COUNTS)
def test_the_arrays_are_as_long_as_the_table_says(storage: Storage, signed: bool, count: int) -> None:
    arrays = store(storage, block_sample(count), signed=signed)
    assert tuple(array.size for array in arrays) == storage.lengths(count)
    assert tuple(array.dtype.name for array in arrays) == storage.dtypes
    assert load(storage, arrays, count, signed=signed).shape == (count,)


@each_sign
@each_storage
def test_a_block_does_not_depend_on_others(storage: Storage, signed: bool) -> None:
    x = block_sample(7000)
    whole = load(storage, store(storage, x, signed=signed), x.size, signed=signed)
    cut = 5 * storage.block
    for part in (slice(0, cut), slice(cut, None)):
        alone = load(storage, store(storage, x[part], signed=signed), x[part].size, signed=signed)
        np.testing.assert_array_equal(bits(alone), bits(whole[part]))
