"""Compiled storages give the bits of the interpreter, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
from storage_values import SCALES, Array, bits, block_sample, hard_points

from optgen.interpreter.rounding import rounding_bits
from optgen.interpreter.storages import load, store
from optgen.ir.storages import STORAGES, Storage
from optgen.runtime import library
from optgen.runtime.compiled_storages import Rounding, load_compiled, store_compiled

COMPILED = [storage for storage in STORAGES.values() if storage.name not in ("float32", "float64")]
BLOCKS = [storage for storage in COMPILED if storage.block]
HARD = hard_points()
COUNTS = [0, 1, 2, 3, 63, 64, 127, 128, 129, 255, 256, 257, 383, 385, 2817, 7000]
each_storage = pytest.mark.parametrize("storage", COMPILED, ids=[storage.name for storage in COMPILED])
each_sign = pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
each_set = pytest.mark.parametrize("isa", library.runtime().usable)


def random_of(rounding: Rounding, count: int) -> Array:
    elements = np.arange(rounding.element, rounding.element + count, dtype=np.uint64)
    return rounding_bits(rounding.seed, rounding.t, rounding.parameter, rounding.stream, elements)


def compare(storage: Storage, x: Array, rounding: Rounding | None, signed: bool, isa: str) -> None:
    """What is stored, and what is loaded of it."""
    expected = store(storage, x, None if rounding is None else random_of(rounding, x.size), signed=signed)
    found = store_compiled(storage, x, rounding, signed=signed, isa=isa)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one.view(np.uint8), other.view(np.uint8))
    back = load_compiled(storage, found, x.size, signed=signed, isa=isa)
    np.testing.assert_array_equal(bits(back), bits(load(storage, expected, x.size, signed=signed)))


@each_set
@each_storage
def test_hard_points(storage: Storage, isa: str) -> None:
    for rounding in (None, Rounding(3, 2**40, 7, 1)):
        compare(storage, HARD, rounding, True, isa)


@each_set
@each_sign
@pytest.mark.parametrize("storage", BLOCKS, ids=[storage.name for storage in BLOCKS])
def test_blocks_of_all_kinds_and_short_ones(storage: Storage, signed: bool, isa: str) -> None:
    for count in COUNTS:
        for rounding in (None, Rounding(5, 100, 2, 1, 2**32 - 1024)):
            compare(storage, block_sample(count, seed=1), rounding, signed, isa)


@each_set
@each_sign
def test_whole_levels_under_all_random_bits(signed: bool, isa: str) -> None:
    """Enough of them for each of the 65,536."""
    x = np.resize(np.arange(256 if not signed else 128, dtype=np.float32), 1 << 20)
    compare(STORAGES["linear8"], x, Rounding(9), signed, isa)


@each_set
@pytest.mark.parametrize("stream", range(6))
def test_random_bits_depend_on_all_that_they_should(stream: int, isa: str) -> None:
    roundings = [Rounding(*key, stream, first) for key in [(7, 10, 3), (2**64 - 1, 2**33 + 1, 2**32 - 1)]
                 for first in (0, 2**32 - 2048, 2**40)]  # fmt: skip
    for rounding in roundings:
        compare(STORAGES["bfloat16"], HARD[-4096:], rounding, True, isa)


@each_set
@each_storage
def test_every_code_is_loaded(storage: Storage, isa: str) -> None:
    if not storage.block:
        codes = np.arange(2**16, dtype=np.uint16)
        more = [(codes * np.uint16(40503) >> 3).astype(storage.dtypes[1])] if storage.is_split else []
        found = load_compiled(storage, [codes, *more], codes.size, isa=isa)
        np.testing.assert_array_equal(bits(found), bits(load(storage, [codes, *more])))
        return
    for scale in (*SCALES, 0.0, np.nan):
        arrays = [np.arange(storage.block // storage.packed, dtype=np.uint8), np.array([scale], np.float32)]
        for signed in (True, False):
            found = load_compiled(storage, arrays, storage.block, signed=signed, isa=isa)
            np.testing.assert_array_equal(bits(found), bits(load(storage, arrays, signed=signed)))
