"""C declarations for cffi, parsed now or when optgen was built.

In: the text of the declarations. Out: an FFI, or a Python module that makes one without a parser.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..paths import module_at

__all__ = ["read_declarations", "write_declarations"]


def write_declarations(text: str, path: Path) -> None:
    """Writes what cffi makes of the C declarations `text`, as a Python module that loads without a parser."""
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(text)
    ffi.set_source(path.stem, None, compiler_verbose=0)
    ffi.emit_python_code(str(path))


def read_declarations(text: Callable[[], str], path: Path | None) -> Any:
    """The FFI for declarations: from the module at `path` if there is one, else from what `text` gives, parsed now."""
    if path is not None:
        return module_at(path).ffi
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(text())
    return ffi
