"""Where the files are that optgen is made of: in a checkout beside the package, in an installed wheel inside it."""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

__all__ = [
    "BENCHMARKS",
    "BUILD",
    "C_FILES",
    "PACKAGE",
    "SPECS",
    "TEMPLATES",
    "benchmarks",
    "constant",
    "declarations",
    "module_at",
]

PACKAGE = Path(__file__).resolve().parent
_ROOT = PACKAGE if (PACKAGE / "templates").is_dir() else PACKAGE.parent

SPECS = _ROOT / "specs"
TEMPLATES = _ROOT / "templates"
#: The C that is written by hand.
C_FILES = TEMPLATES / "c"
#: No part of optgen, though a wheel brings them inside it: nothing that is built depends on them.
BENCHMARKS = _ROOT / "benchmarks"
#: What `optgen build` makes. Nothing depends on its being there.
BUILD = _ROOT / "build"


def declarations() -> str:
    """The C declarations of everything that Python calls or reads, for cffi, which knows no preprocessor."""
    files = ("abi.h", "kernel.h", "functions.h", "quantise.h", "runtime.h")
    text = "\n".join((C_FILES / name).read_text("utf-8") for name in files)
    return re.sub(r"(?m)^#(?!define).*\n", "", text)


@cache
def _constants() -> dict[str, int]:
    text = (C_FILES / "abi.h").read_text("utf-8")
    return {name: int(value) for name, value in re.findall(r"(?m)^#define OPTGEN_(\w+) (\d+)$", text)}


def constant(name: str) -> int:
    """The whole number that `templates/c/abi.h` defines as OPTGEN_`name`, where it is stated for C and Python alike."""
    return _constants()[name]


def module_at(path: Path, name: str = "", *, known: bool = False) -> ModuleType:
    """The module in the file at `path`, run anew. `known`: others find it by its `name`.

    Raises `FileNotFoundError` where there is no such file.
    """
    spec = spec_from_file_location(name or path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    if known:
        sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def benchmarks(name: str) -> ModuleType:
    """A module of the benchmarks, `optgen.benchmarks.<name>`: where their folder stands beside the package, the package
    is made to look for them there."""
    path = sys.modules["optgen"].__path__
    if str(BENCHMARKS.parent) not in path:
        path.append(str(BENCHMARKS.parent))
    return import_module(f"optgen.benchmarks.{name}")
