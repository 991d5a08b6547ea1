"""The arrays of a step: what may be stepped, where its memory lies, and in what layout a kernel goes over it.

In: parameters and gradients as they were given. Out: plain arrays that any backend may write, or an `ArrayError` that
names the one at fault. Nothing here writes to an array.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import ArrayError
from .addresses import address_of
from .overlaps import overlaps_itself

__all__ = [
    "COMPUTE",
    "LEAVE_OUT",
    "LINE",
    "Array",
    "as_gradient",
    "as_parameter",
    "compute_type",
    "empty_beside",
    "storage_of",
]


if TYPE_CHECKING:
    from numpy.typing import NDArray  # which takes a millisecond to load

Array: TypeAlias = "NDArray[Any]"

#: What arrays of these dtypes are computed in.
COMPUTE = {"float32": "float32", "float64": "float64", "bfloat16": "float32", "float16": "float32"}
#: Bytes of a line of the cache.
LINE = 64
#: What to do about a parameter without a gradient.
LEAVE_OUT = "leave its parameter out of this step, or give zeros"


@lru_cache(64)  # the name of a dtype is made anew each time
def compute_type(dtype: np.dtype[Any]) -> str:
    """What arrays of this dtype are computed in; empty if they are not."""
    return COMPUTE.get(dtype.name, "") if dtype.isnative else ""


@lru_cache(64)
def storage_of(dtype: np.dtype[Any]) -> str:
    """The storage of arrays of this dtype; empty if it is a compute type."""
    return "" if dtype.name == COMPUTE.get(dtype.name) else dtype.name


def as_parameter(given: object, number: int | str, count: int) -> Array:
    """The array behind a parameter: a writable array of one of the dtypes, or what `param` made of one. `number`: its
    place among others, or its name."""
    what = "the parameter" if count == 1 else f"parameter {number}"
    p = given if isinstance(given, np.ndarray) else getattr(given, "data", None)
    if not isinstance(p, np.ndarray):
        message = f"{what}: expected a NumPy array or param(...), got {_kind(given)}"
        raise ArrayError(message, hint=_kind_hint(given))
    p = _plain(p, what)
    if not p.flags.writeable:
        hint = "a step changes the parameter in place: give a writable array, for example p.copy()"
        raise ArrayError(f"{what}: expected a writable array, got a read-only one", hint=hint)
    if overlaps_itself(p):
        hint = "give an array with an element of memory for every element, for example p.copy()"
        raise ArrayError(_shared(what, p), hint=hint)
    return p


def as_gradient(
    given: object,
    p: Array,
    number: int,
    count: int,
    absent: str = LEAVE_OUT,
    *,
    written: bool = False,
    name: str = "gradient",
) -> Array:
    """The gradient of `p` as an array: of its shape and compute type, with any strides. `absent`: what to do if it is
    None. `written`: the step overwrites it, so it must be writable, with an element of memory for every element.
    `name`: what it is, if it is another input."""
    what = f"the {name}" if count == 1 else f"{name} {number}"
    if given is None:
        raise ArrayError(f"{what}: expected an array, got None", hint=absent)
    if isinstance(given, np.generic):  # what NumPy makes of an operation on arrays without dimensions
        # Its own memory, which lives as long as the caller holds it, and not a copy that nobody holds.
        given = np.frombuffer(given, given.dtype).reshape(()) if compute_type(given.dtype) else np.asarray(given)
    if not isinstance(given, np.ndarray):
        raise ArrayError(f"{what}: expected a NumPy array, got {_kind(given)}", hint=_kind_hint(given))
    g = _plain(given, what)
    if compute_type(g.dtype) != compute_type(p.dtype):
        hint = f"convert it: g.astype({'p.dtype' if storage_of(p.dtype) else f'np.{p.dtype}'})"
        raise ArrayError(f"{what}: expected {p.dtype}, the dtype of its parameter, got {g.dtype}", hint=hint)
    if g.shape != p.shape:
        raise ArrayError(f"{what}: expected shape {p.shape}, that of its parameter, got {g.shape}")
    if written and not g.flags.writeable:
        hint = "the step overwrites it: give a writable array, g.copy()"
        raise ArrayError(f"{what}: expected a writable array, got a read-only one", hint=hint)
    if written and overlaps_itself(g):
        hint = "the step overwrites it: give an array with an element of memory for every element, g.copy()"
        raise ArrayError(_shared(what, g), hint=hint)
    return g


def _shared(what: str, x: Array) -> str:
    return f"{what}: expected elements apart in memory, got some that share it (strides {x.strides}, shape {x.shape})"


def _plain(x: Array, what: str) -> Array:
    if not compute_type(x.dtype):
        kinds = "float32, float64, bfloat16 or float16"
        raise ArrayError(f"{what}: expected {kinds}, got {_dtype(x.dtype)}", hint=_dtype_hint(x.dtype))
    if type(x) is np.ndarray:  # asked first: `np.ma` costs an import
        return x
    if isinstance(x, np.ma.MaskedArray):
        raise ArrayError(f"{what}: expected a plain array, got a masked array", hint="give x.filled(0) or x.data")
    return np.ndarray.view(x, np.ndarray)  # whatever a subclass has made of `view`


def _kind(given: object) -> str:
    name = type(given).__name__
    return {"list": "a list", "tuple": "a tuple", "NoneType": "None", "float": "a number", "int": "a number"}.get(
        name, f"a {type(given).__module__}.{name}".replace("builtins.", "")
    )


def _kind_hint(given: object) -> str | None:
    if type(given).__module__.partition(".")[0] == "torch":
        return "optgen.torch has the same rules for tensors of PyTorch"
    return None


def _dtype(dtype: np.dtype[Any]) -> str:
    if not dtype.isnative:
        return f"{dtype.newbyteorder('=')} with its bytes swapped ({dtype.str})"
    return {"O": "objects", "c": f"complex numbers ({dtype})", "b": "truth values"}.get(dtype.kind, str(dtype))


def _dtype_hint(dtype: np.dtype[Any]) -> str:
    if not dtype.isnative:
        return "convert it: x.astype(x.dtype.newbyteorder('='))"
    if dtype.kind == "c":
        return "step the real and the imaginary part as two parameters: z.real and z.imag"
    return "convert it and keep the result: x = x.astype(np.float32)"


def empty_beside(x: Array, dtype: np.dtype[Any] | None = None) -> Array:
    """An array laid out as `x`, whose elements stand in lines of the cache as those of `x` do: where a vector of one
    lies within a line, so does that of the other. Its values are whatever was there. `dtype`: that of `x`, if it is not
    given; elements of fewer bytes begin as far into a line as so many of them take."""
    plain = np.empty_like(x, dtype, order="K", subok=False)
    into = address_of(x) % LINE // x.itemsize * plain.itemsize
    if plain.nbytes <= 16 * LINE or address_of(plain) % LINE == into:
        return plain
    room = np.empty(plain.nbytes + LINE, np.uint8)
    return np.ndarray(x.shape, plain.dtype, room, (into - address_of(room)) % LINE, plain.strides)
