"""What an array library must have, to evaluate rules with it.

In: the name of a library. Out: its `LibraryTable`, imported when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, TypeAlias

from ..errors import ArgumentError, OptgenError
from ..frozen import frozen
from ..names import close_matches

__all__ = ["LIBRARIES", "Array", "LibraryTable", "Shape", "array_library"]

#: An array of the library, which may be a tracer.
Array: TypeAlias = Any
Shape: TypeAlias = tuple[int, ...]

#: The libraries by name, each with the package that it is installed as.
LIBRARIES = {"numpy": "numpy", "torch": "torch", "jax": "jax"}


@frozen
class LibraryTable:
    """The primitives of rules in one array library.

    `primitives`: a function of arrays for each row of `ir.primitives.OPS`. `reductions`: "sum", "max" and "min", of an
    array over axes that stay, with length 1. `products`: a function of stacks of matrices for each row of
    `ir.primitives.PRODUCTS` but the identity. `weak`: whether arithmetic takes Python's numbers as they are, in the
    type of the array beside them.
    """

    name: str
    primitives: Mapping[str, Callable[..., Array]]
    reductions: Mapping[str, Callable[[Array, tuple[int, ...]], Array]]
    products: Mapping[str, Callable[..., Array]]
    weak: bool
    #: Whether something is an array of this library.
    owns: Callable[[Any], bool]
    #: The type that elements of a parameter are computed in.
    compute_type: Callable[[Array], Any]
    #: The type of values of less than element extent beside a parameter: float64, where there is one.
    wide_type: Callable[[Array], Any]
    #: `cast(x, dtype)`.
    cast: Callable[[Array, Any], Array]
    #: `number(value, dtype, like)`: an array of no dimensions, where `like` is.
    number: Callable[[float | bool, Any, Array], Array]
    #: `beside(x, like)`: a value where `like` is.
    beside: Callable[[Array, Array], Array]
    #: `broadcast(x, shape)`.
    broadcast: Callable[[Array, Shape], Array]
    #: `apart(x)`: the same values, in memory of their own.
    apart: Callable[[Array], Array]
    #: `join(arrays)`: one behind the other, along their only dimension.
    join: Callable[[Sequence[Array]], Array]
    #: `identity(n, dtype, like)`.
    identity: Callable[[int, Any, Array], Array]
    #: `indices(n, like)`: the whole numbers below n, as words of at least 32 bits without a sign.
    indices: Callable[[int, Array], Array]
    #: `word(value, like)`: a whole number as such a word, of an array or a number of Python.
    word: Callable[[Any, Array], Array]
    #: `select(test, then, other)`: what one of two functions gives; `test` has no dimensions and may be traced.
    select: Callable[[Array, Callable[[], Array], Callable[[], Array]], Array]
    #: What a step is computed in: where it says nothing of divisions by zero, and of overflow.
    quietly: Callable[[], AbstractContextManager[Any]]
    #: A container's leaves, and what puts others in their places.
    flatten: Callable[[Any], tuple[list[Any], Callable[[Sequence[Any]], Any]]]


def array_library(name: str) -> LibraryTable:
    """The library of this name. ArgumentError if there is none, OptgenError if it is not installed."""
    if name not in LIBRARIES:
        close = close_matches(str(name), LIBRARIES)
        hint = f"did you mean {close[0]!r}?" if close else None
        raise ArgumentError(f"expected the name of a library, one of {', '.join(LIBRARIES)}; got {name!r}", hint=hint)
    try:
        found: LibraryTable = import_module(f"{__package__}.{name}_library").LIBRARY
    except ModuleNotFoundError as error:
        if error.name != LIBRARIES[name]:
            raise
        message = f"a function for {name} needs the package {LIBRARIES[name]}, which is not installed"
        raise OptgenError(message, hint=f"pip install {LIBRARIES[name]}") from None
    return found
