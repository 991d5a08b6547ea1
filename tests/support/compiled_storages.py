"""The C of the storages, compiled, as functions of arrays."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from optgen.compiler.toolchain import compile_library
from optgen.ir.storages import Storage
from optgen.paths import C_FILES
from optgen.runtime import library

__all__ = ["Array", "CompiledStorages", "Key", "compiled", "instruction_sets"]

Array = np.ndarray[Any, np.dtype[Any]]
Key = tuple[int, int, int, int]


def instruction_sets() -> tuple[str, ...]:
    """Those of this machine."""
    return library.runtime().usable


@cache
def compiled(isa: str) -> CompiledStorages:
    """The storages for one of these instruction sets."""
    return CompiledStorages(isa)


class CompiledStorages:
    """Loads and stores that are called like those of the interpreter."""

    def __init__(self, isa: str) -> None:
        source = (Path(__file__).parent / "storages.c").read_text("utf-8")
        march = ("-march=" + isa.replace("x86_64_", "x86-64-"),) if isa.startswith("x86_64_") else ()
        with TemporaryDirectory() as folder:
            path = Path(folder) / "storages.so"
            compile_library(source, path, extra_flags=("-I", str(C_FILES), *march))
            self._library = ctypes.CDLL(str(path))

    def load(
        self, storage: Storage, arrays: tuple[Array, ...], count: int | None = None, *, signed: bool = True
    ) -> Array:
        x = np.empty(arrays[0].size * storage.packed if count is None else count, np.float32)
        self._call(f"load_{_name(storage, signed)}", x.size, x, *arrays)
        return x

    def store(
        self, storage: Storage, x: Array, random: Array | None = None, *, signed: bool = True
    ) -> tuple[Array, ...]:
        arrays = _empty(storage, x.size)
        mode = () if random is None else ("_stochastic", random)
        self._call(f"store_{_name(storage, signed)}{''.join(mode[:1])}", x.size, x, *arrays, *mode[1:])
        return arrays

    def store_drawing(self, storage: Storage, x: Array, key: Key, first: int, *, signed: bool) -> tuple[Array, ...]:
        """Stochastically, by the bits of the elements from `first` on. `key`: seed, update, parameter, stream."""
        arrays = _empty(storage, x.size)
        self._call(f"store_{_name(storage, signed)}_drawing", x.size, x, *arrays, *_words(key), ctypes.c_uint64(first))
        return arrays

    def rounding_bits(self, key: Key, first: int, count: int) -> Array:
        found = np.empty(count, np.uint32)
        self._call("rounding_bits", *_words(key), ctypes.c_uint64(first), count, found)
        return found

    def _call(self, name: str, *given: Any) -> None:
        def argument(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                assert value.flags.c_contiguous
                return ctypes.c_void_p(value.ctypes.data)
            return ctypes.c_int64(value) if isinstance(value, int) else value

        getattr(self._library, name)(*map(argument, given))


def _name(storage: Storage, signed: bool) -> str:
    return storage.stem + (("_signed" if signed else "_unsigned") if storage.block else "")


def _empty(storage: Storage, count: int) -> tuple[Array, ...]:
    lengths = zip(storage.lengths(count), storage.dtypes, strict=True)
    return tuple(np.empty(length, dtype) for length, dtype in lengths)


def _words(key: Key) -> list[Any]:
    kinds = ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32
    return [of(value) for of, value in zip(kinds, key, strict=True)]
