"""The definition of each function.

In: its name, and a compute type. Out: the definition, which takes and gives numbers of float64.
"""

from __future__ import annotations

from functools import cache

from .both import BOTH
from .definition import Definition, definition
from .float32 import FLOAT32
from .float64 import FLOAT64

__all__ = ["function"]


@cache
def function(name: str, dtype: str) -> Definition:
    """The definition of a function for arguments of a compute type."""
    return definition(BOTH + {"float32": FLOAT32, "float64": FLOAT64}[dtype], name)
