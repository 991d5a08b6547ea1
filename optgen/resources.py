"""Where the files are that optgen is made of: in a checkout beside the package, in an installed wheel inside it."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

__all__ = ["BUILD", "PACKAGE", "SPECS", "TEMPLATES", "benchmarks", "declarations"]

PACKAGE = Path(__file__).resolve().parent
_ROOT = PACKAGE if (PACKAGE / "templates").is_dir() else PACKAGE.parent

SPECS = _ROOT / "specs"
TEMPLATES = _ROOT / "templates"
#: What `optgen build` makes. Nothing depends on its being there.
BUILD = _ROOT / "build"


def declarations() -> str:
    """The C declarations of everything that Python calls or reads, for cffi."""
    return "\n".join((TEMPLATES / name).read_text("utf-8") for name in ("abi.h", "kernel.h", "runtime.h"))


def benchmarks(room: str) -> ModuleType:
    """A room of the benchmarks, `optgen.benchmarks.<room>`: where their folder stands beside the package, the package
    is made to look for them there."""
    path = sys.modules["optgen"].__path__
    if str(_ROOT) not in path:
        path.append(str(_ROOT))
    return import_module(f"optgen.benchmarks.{room}")
