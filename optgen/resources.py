"""Where the files are that optgen is made of: in a checkout beside the package, in an installed wheel inside it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["BUILD", "PACKAGE", "SPECS", "TEMPLATES", "declarations"]

PACKAGE = Path(__file__).resolve().parent
_ROOT = PACKAGE if (PACKAGE / "templates").is_dir() else PACKAGE.parent

SPECS = _ROOT / "specs"
TEMPLATES = _ROOT / "templates"
#: What `optgen build` makes. Nothing depends on its being there.
BUILD = _ROOT / "build"


def declarations() -> str:
    """The C declarations of everything that Python calls or reads, for cffi."""
    return "\n".join((TEMPLATES / name).read_text("utf-8") for name in ("abi.h", "kernel.h", "runtime.h"))
