"""Arrays in storages of fewer bytes, for users: `optgen.quantise` and `optgen.dequantise`.

In: an array and the name of a storage. Out: codes, and what goes with them; or float32 again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from .. import errors
from ..errors import ArgumentError, ArrayError, CompilerNotFound, StateError
from ..frozen import frozen
from ..interpreter.rounding import rounding_bits
from ..interpreter.storages import load, store
from ..ir.storages import STORAGES, Storage
from ..names import close_matches
from .arrays import Array
from .compiled_storages import Rounding, load_compiled, store_compiled

__all__ = ["Quantised", "dequantise", "quantise"]

_MODES = ("nearest", "stochastic")
#: What floats of these bits hold without a loss.
_EXACT = {"float32": ("float32", "float16", "bfloat16"), "float64": ("float64", "float32", "float16", "bfloat16")}


@frozen
class Quantised:
    """An array in a storage.

    Attributes
    ----------
    storage
        The name of the storage.
    codes
        One number for each element, in the array's shape; of a storage with scales in one dimension, in C order.
    more
        The low bits of a split storage, in the array's shape; the scales, one for each block; None of any other.
    shape
        The shape of the array.
    signed
        Whether codes have a sign. It matters to storages with scales only.
    version
        The version of the storage.
    """

    storage: str
    codes: Array
    more: Array | None
    shape: tuple[int, ...]
    signed: bool = True
    version: int = 1

    __eq__ = object.__eq__  # arrays are no truth values
    __hash__ = object.__hash__

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays)

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The codes, and what goes with them."""
        return (self.codes,) if self.more is None else (self.codes, self.more)


def quantise(
    array: Array,
    storage: str,
    *,
    signed: bool = True,
    rounding: Literal["nearest", "stochastic"] = "nearest",
    seed: int = 0,
) -> Quantised:
    """An array in a storage: `quantise(x, "log8")` takes a quarter of the bytes of float32.

    Parameters
    ----------
    array
        Of float32, float16 or bfloat16; or of float64, for the storage float64.
    storage
        The name of the storage; `docs/storage.md` has a table of them.
    signed
        False: no number is negative, so codes of storages with scales do without a sign. Negative ones become 0.
    rounding
        To the nearest value; or `"stochastic"`, to one of the two neighbours, with probabilities that make the mean
        right.
    seed
        What the random bits of stochastic rounding depend on, besides the place of the element.

    Raises
    ------
    ArgumentError
        An unknown storage or rounding, a seed out of range.
    ArrayError
        An array of another dtype.
    """
    row = _row(storage)
    if rounding not in _MODES:
        raise ArgumentError(f"rounding: expected {' or '.join(map(repr, _MODES))}, got {errors.shown(rounding)}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ArgumentError(f"seed: expected a whole number from 0 to 2**64 - 1, got {errors.shown(seed)}")
    x = _values(array, row)
    flat = np.ascontiguousarray(x).reshape(-1)
    found = _stored(row, flat, Rounding(int(seed)) if rounding == "stochastic" else None, bool(signed))
    arrays = found if row.block else tuple(each.reshape(x.shape) for each in found)
    for each in arrays:
        each.flags.writeable = False
    return Quantised(row.name, arrays[0], arrays[1] if len(arrays) > 1 else None, x.shape, bool(signed), row.version)


def dequantise(quantised: Quantised) -> Array:
    """The array that was quantised, as far as its codes tell: float32, or float64 of the storage float64.

    Raises
    ------
    ArgumentError
        What is not `Quantised`, or names an unknown storage.
    ArrayError
        Codes, low bits or scales of another length or dtype than the storage has.
    StateError
        Codes of another version of the storage.
    """
    if not isinstance(quantised, Quantised):
        kind = type(quantised).__name__
        raise ArgumentError(f"expected what optgen.quantise gave, got {kind}", hint="optgen.quantise(array, storage)")
    row = _row(quantised.storage)
    if quantised.version != row.version:
        message = f"{row.name}: expected codes of version {row.version}, got version {errors.shown(quantised.version)}"
        raise StateError(message, hint="dequantise them with the version of optgen that wrote them")
    count = int(np.prod(quantised.shape))
    _check(row, quantised.arrays, count)
    flat = [np.ascontiguousarray(each).reshape(-1) for each in quantised.arrays]
    return _loaded(row, flat, count, quantised.signed).reshape(quantised.shape)


def _row(name: str) -> Storage:
    if isinstance(name, str) and name in STORAGES:
        return STORAGES[name]
    close = close_matches(name, STORAGES) if isinstance(name, str) else []
    hint = f"did you mean {close[0]!r}?" if close else None
    raise ArgumentError(f"storage: expected one of {', '.join(STORAGES)}; got {errors.shown(name)}", hint=hint)


def _values(array: Array, row: Storage) -> Array:
    """The array in the dtype that the storage is made of."""
    x = np.asarray(array)
    wanted = "float64" if row.name == "float64" else "float32"
    if x.dtype.name not in _EXACT[wanted]:
        hint = f"array.astype(np.{wanted}) makes one" + (" and rounds" if x.dtype == np.float64 else "")
        raise ArrayError(f"array: expected {wanted}, got {x.dtype}", hint=hint)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return x.astype(wanted, copy=False)


def _check(row: Storage, arrays: Sequence[Array], count: int) -> None:
    """ArrayError unless these are the arrays that keep so many elements."""
    names = ("codes", "scales" if row.block else "low bits")
    expected = list(zip(row.lengths(count), row.dtypes, strict=True))
    found = [(each.size, each.dtype.name) for each in arrays]
    if found != expected:
        wanted, got = (
            ", ".join(f"{name}: {size} {dtype}" for name, (size, dtype) in zip(names, each, strict=False))
            for each in (expected, found)
        )
        raise ArrayError(f"{row.name} of {count} elements: expected {wanted}; got {got}")


def _stored(row: Storage, x: Array, rounding: Rounding | None, signed: bool) -> tuple[Array, ...]:
    if row.name not in ("float32", "float64"):
        try:
            return store_compiled(row, x, rounding, signed=signed)
        except CompilerNotFound:
            pass  # the interpreter gives the same bits
    elements = np.arange(x.size, dtype=np.uint64)
    random = None if rounding is None or not row.rounds else rounding_bits(rounding.seed, 0, 0, 0, elements)
    return tuple(np.array(each) for each in store(row, x, random, signed=signed))


def _loaded(row: Storage, arrays: Sequence[Array], count: int, signed: bool) -> Array:
    if row.name not in ("float32", "float64"):
        try:
            return load_compiled(row, arrays, count, signed=signed)
        except CompilerNotFound:
            pass
    return np.array(load(row, arrays, count, signed=signed))
