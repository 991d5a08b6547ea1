"""The shared libraries of this process: the runtime, and how a library is opened.

In: the path of a library. Out: the opened library, if its ABI is ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from ctypes import CDLL
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..codegen.abi import ABI, ISAS
from ..compiler.declarations import read_declarations
from ..compiler.manifest import built_library, fingerprint
from ..errors import CompilerError
from ..ir.evaluate import HOST, Value
from ..ir.primitives import OPS
from ..once import once
from ..paths import BUILD, declarations

__all__ = ["Runtime", "open_library", "runtime"]


@once
def runtime() -> Runtime:
    """The runtime of this process. CompilerNotFound if it was never built and there is no compiler to build it."""
    path = built_library(BUILD / "runtime.json", fingerprint(""))
    if path is None:
        from ..codegen.runtime_source import runtime_source
        from ..compiler.cache import open_cached

        def opened(path: Path) -> Runtime:
            return Runtime(read_declarations(declarations, None), path)

        return open_cached(runtime_source(), "runtime", ABI, opened)
    return Runtime(read_declarations(declarations, path.with_name("declarations.py")), path)


def open_library(ffi: Any, path: Path, abi: str) -> Any:
    """The shared library at `path`, if the number that its function `abi` gives is ours; else CompilerError."""
    try:
        # Never unloaded: at the end of the process its threads may still be in there, at work or asleep.
        # By ctypes, for cffi takes no path that is not UTF-8.
        handle = CDLL(str(path), os.RTLD_NOW | os.RTLD_NODELETE)._handle
        library = ffi.dlopen(ffi.cast("void *", handle))
        found = getattr(library, abi)()
    except (OSError, AttributeError, getattr(ffi, "error", OSError)) as error:  # the last of an FFI made by a module
        raise CompilerError(f"expected to load {path}, got {error}", hint="delete it and build again") from None
    if found != ABI:
        message = f"{path}: expected kernels of interface {ABI}, got {found}"
        raise CompilerError(message, hint="build it again with this version of optgen: optgen build")
    return library


def _of_one(of: Callable[[float, float], float], x: float) -> float:
    return of(x, 0.0)


class Runtime:
    """The one runtime of this process: the pool of threads, and what the processor has."""

    def __init__(self, ffi: Any, path: Path) -> None:
        self.ffi = ffi
        self.path = path
        self.library = open_library(ffi, path, "optgen_runtime_abi")
        self.isa: str = ffi.string(self.library.optgen_isa()).decode()

    @cached_property
    def host(self) -> Mapping[str, Callable[..., Value]]:
        """The primitives on the host, with compiled functions in the place of Python's: the same bits, sooner."""
        found = dict(HOST)
        functions = self.library.optgen_functions()
        i = 0
        while functions[i].name:
            name, of = self.ffi.string(functions[i].name).decode(), functions[i].of
            found[name] = of if len(OPS[name].takes) == 2 else partial(_of_one, of)
            i += 1
        return found

    @property
    def usable(self) -> tuple[str, ...]:
        """The instruction sets of this processor, the best first."""
        return ISAS[ISAS.index(self.isa) :] if self.isa == ISAS[-1] else ISAS[ISAS.index(self.isa) : -1]
