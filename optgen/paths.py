"""Where the files are that optgen is made of: in a checkout beside the package, in an installed wheel inside it."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

__all__ = ["BENCHMARKS", "BUILD", "PACKAGE", "SPECS", "TEMPLATES", "benchmarks", "declarations"]

PACKAGE = Path(__file__).resolve().parent
_ROOT = PACKAGE if (PACKAGE / "templates").is_dir() else PACKAGE.parent

SPECS = _ROOT / "specs"
TEMPLATES = _ROOT / "templates"
#: No part of optgen, though a wheel brings them inside it: nothing that is built depends on them.
BENCHMARKS = _ROOT / "benchmarks"
#: What `optgen build` makes. Nothing depends on its being there.
BUILD = _ROOT / "build"


def declarations() -> str:
    """The C declarations of everything that Python calls or reads, for cffi."""
    return "\n".join((TEMPLATES / name).read_text("utf-8") for name in ("abi.h", "kernel.h", "runtime.h"))


def benchmarks(room: str) -> ModuleType:
    """A room of the benchmarks, `optgen.benchmarks.<room>`: where their folder stands beside the package, the package
    is made to look for them there."""
    path = sys.modules["optgen"].__path__
    if str(BENCHMARKS.parent) not in path:
        path.append(str(BENCHMARKS.parent))
    return import_module(f"optgen.benchmarks.{room}")
