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

__all__ = ["Array", "CompiledStorages", "compiled", "instruction_sets"]

Array = np.ndarray[Any, np.dtype[Any]]


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

    def load(self, storage: Storage, arrays: tuple[Array, ...]) -> Array:
        x = np.empty(arrays[0].size, np.float32)
        self._call(f"load_{storage.stem}", x.size, x, *arrays)
        return x

    def store(self, storage: Storage, x: Array, random: Array | None = None) -> tuple[Array, ...]:
        lengths = zip(storage.lengths(x.size), storage.dtypes, strict=True)
        arrays = tuple(np.empty(length, dtype) for length, dtype in lengths)
        name = f"store_{storage.stem}"
        if random is None:
            self._call(name, x.size, x, *arrays)
        else:
            self._call(f"{name}_stochastic", x.size, x, *arrays, random)
        return arrays

    def rounding_bits(self, seed: int, t: int, parameter: int, stream: int, first: int, count: int) -> Array:
        found = np.empty(count, np.uint32)
        words = ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64
        given = (seed, t, parameter, stream, first)
        self._call("rounding_bits", *(of(value) for of, value in zip(words, given, strict=True)), count, found)
        return found

    def _call(self, name: str, *given: Any) -> None:
        def argument(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                assert value.flags.c_contiguous
                return ctypes.c_void_p(value.ctypes.data)
            return ctypes.c_int64(value) if isinstance(value, int) else value

        getattr(self._library, name)(*map(argument, given))
