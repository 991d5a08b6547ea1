"""The random bits of stochastic rounding: their definition, the same in C, and what statistics say of them."""

from __future__ import annotations

import numpy as np
import pytest
from storage_values import Array

from optgen.interpreter import philox
from optgen.interpreter.rounding import rounding_bits
from optgen.interpreter.storages import load, store
from optgen.ir.storages import STORAGES

Key = tuple[int, int, int, int]
COUNT = 1 << 20
ELEMENTS = np.arange(COUNT, dtype=np.uint64)
#: Seeds, updates, parameters and streams that differ from the first in one thing each.
KEYS = [(7, 10, 3, 0), (7, 11, 3, 0), (7, 10, 4, 0), (8, 10, 3, 0), (7, 10, 3, 1), (7, 10, 3, 2), (7, 10, 3, 4)]


def bits_of(seed: int, t: int, parameter: int, stream: int, element: int) -> int:
    """The definition, in whole numbers of Python."""
    counter = t % 2**32, t >> 32, parameter, 2**31 + (stream // 4 << 24) + (element >> 32)
    words = [int(word) for word in philox(counter, (seed % 2**32, seed >> 32))]
    first, second = words[2:] if stream % 4 >= 2 else words[:2]
    x = (element * 0x9E3779B9 + first) % 2**32
    x = (x ^ x >> 16) * 0x7FEB352D % 2**32
    x = ((x ^ x >> 15) + second) * 0x846CA68B % 2**32
    x ^= x >> 16
    return x % 2**16 if stream % 2 else x >> 16


def test_the_bits_are_what_their_definition_says() -> None:
    elements = [0, 1, 77, 2**32 - 1, 2**32, 2**40 + 5]
    for seed, t, parameter, stream in [*KEYS, (2**64 - 1, 2**33 + 1, 2**32 - 1, 7)]:
        expected = [bits_of(seed, t, parameter, stream, element) for element in elements]
        assert rounding_bits(seed, t, parameter, stream, np.array(elements)).tolist() == expected


# ---- Statistics ----

SAMPLES = {key: rounding_bits(*key, ELEMENTS) for key in KEYS}


@pytest.mark.parametrize("key", KEYS)
def test_every_value_of_the_bits_comes_as_often(key: Key) -> None:
    """Within 4 standard deviations: the number of ones in each place, and how evenly 4,096 cells are filled."""
    sample = SAMPLES[key]
    for place in range(16):
        assert abs(int((sample >> np.uint32(place) & np.uint32(1)).sum()) - COUNT / 2) < 4 * np.sqrt(COUNT / 4)
    for cells in (sample >> np.uint32(4), sample & np.uint32(0xFFF)):
        squares = ((np.bincount(cells, minlength=4096) - COUNT / 4096) ** 2).sum() / (COUNT / 4096)
        assert abs(squares - 4095) < 4 * np.sqrt(2 * 4095)


def correlation(a: Array, b: Array) -> float:
    """In standard deviations of what independent samples have."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()) * np.sqrt(a.size))


@pytest.mark.parametrize("key", KEYS[1:])
def test_another_step_parameter_seed_or_stream_has_bits_of_its_own(key: Key) -> None:
    one, other = (SAMPLES[each].astype(np.float64) for each in (KEYS[0], key))
    for apart in (0, 1, 256):
        assert abs(correlation(one[: COUNT - apart], other[apart:])) < 4


def test_neighbours_have_bits_of_their_own() -> None:
    for sample in SAMPLES.values():
        for apart in (1, 2, 3, 16, 64, 256, 1024, 4096):
            assert abs(correlation(sample[:-apart].astype(np.float64), sample[apart:].astype(np.float64))) < 4
            last = (sample & np.uint32(1)).astype(np.float64)
            assert abs(correlation(last[:-apart], last[apart:])) < 4


@pytest.mark.parametrize("name", ["bfloat16", "float16", "bf16+8"])
def test_stochastic_rounding_is_unbiased(name: str) -> None:
    """The mean of what is off, in standard deviations."""
    storage = STORAGES[name]
    x = np.random.default_rng(2).standard_normal(COUNT).astype(np.float32)
    down, up = (load(storage, store(storage, x, np.full(COUNT, r, np.uint32))).astype(np.float64) for r in (0, 0xFFFF))
    part = np.divide(x - down, up - down, out=np.zeros(COUNT), where=up != down)
    deviation = np.sqrt((part * (1 - part) * (up - down) ** 2).sum())
    for key in KEYS:
        off = load(storage, store(storage, x, SAMPLES[key])).astype(np.float64) - x
        assert abs(off.sum()) < 4 * deviation
