"""Storages compiled: loads and stores of whole arrays in C.

In: a row of the table of storages, and arrays. Out: the same bits as the interpreter gives, sooner. The library is
built with optgen, or compiled when it is first needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..codegen.abi import ABI
from ..compiler.manifest import built_library, fingerprint
from ..frozen import frozen
from ..ir.storages import Storage
from ..once import once
from ..paths import BUILD
from .addresses import address_of
from .arrays import Array
from .float_state import kernel_state
from .library import open_library, runtime

__all__ = ["Rounding", "load_compiled", "store_compiled"]


@frozen
class Rounding:
    """The random bits of stochastic rounding: those of the elements from `element` on, a multiple of 1,024."""

    seed: int
    t: int = 0
    parameter: int = 0
    stream: int = 0
    element: int = 0


def load_compiled(
    storage: Storage, arrays: Sequence[Array], count: int, *, signed: bool = True, isa: str | None = None
) -> Array:
    """The `count` values that these arrays keep, in one dimension. `isa`: an instruction set other than the best.

    CompilerNotFound if the library was never built, and there is no compiler.
    """
    x = np.empty(count, np.float32)
    whole = [np.ascontiguousarray(array) for array in arrays]
    with kernel_state(runtime()):
        _library().optgen_load_array(_loops(storage, signed, isa), count, *_pointers([x, *whole]))
    return x


def store_compiled(
    storage: Storage, x: Array, rounding: Rounding | None = None, *, signed: bool = True, isa: str | None = None
) -> tuple[Array, ...]:
    """The arrays that keep `x`, in one dimension; stochastically if there is a `rounding`.

    CompilerNotFound if the library was never built, and there is no compiler.
    """
    whole = np.ascontiguousarray(x, np.float32).reshape(-1)
    lengths = zip(storage.lengths(whole.size), storage.dtypes, strict=True)
    arrays = tuple(np.empty(length, dtype) for length, dtype in lengths)
    ffi = runtime().ffi
    by = ffi.NULL if rounding is None else ffi.new("optgen_rounding *", _fields(rounding))
    with kernel_state(runtime()):
        _library().optgen_store_array(_loops(storage, signed, isa), whole.size, *_pointers([whole, *arrays]), by)
    return arrays


def _fields(rounding: Rounding) -> list[int]:
    return [getattr(rounding, name) for name in ("seed", "t", "parameter", "stream", "element")]


def _pointers(arrays: Sequence[Array]) -> list[Any]:
    """As C takes them: the values, the codes, and what goes with the codes."""
    ffi = runtime().ffi
    kinds = ("float *", "void *", "void *")
    found = [ffi.cast(kind, address_of(array)) for kind, array in zip(kinds, arrays, strict=False)]
    return [*found, *[ffi.NULL] * (len(kinds) - len(found))]


@once
def _library() -> Any:
    def opened(path: Path) -> Any:
        return open_library(runtime().ffi, path, "optgen_storages_abi")

    path = built_library(BUILD / "storages.json", fingerprint(""))
    if path is not None:
        return opened(path)
    from ..codegen.runtime_source import storages_source
    from ..compiler.cache import open_cached

    return open_cached(storages_source(), "storages", ABI, opened)


@once
def _loops(storage: Storage, signed: bool, isa: str | None) -> Any:
    """The row of the library's table."""
    sign = ("_signed" if signed else "_unsigned") if storage.block else ""
    wanted = f"{storage.stem}{sign}", isa or runtime().isa
    ffi, rows, i = runtime().ffi, _library().optgen_storages(), 0
    while (ffi.string(rows[i].name).decode(), ffi.string(rows[i].isa).decode()) != wanted:
        i += 1
    return rows + i
