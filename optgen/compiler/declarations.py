"""C declarations for cffi, parsed now or when optgen was built.

In: the text of the declarations. Out: an FFI, or a Python module that makes one without a parser.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

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
        spec = spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.ffi
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(text())
    return ffi
