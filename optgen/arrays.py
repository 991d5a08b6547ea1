"""The arrays of a step: what may be stepped, where its memory lies, and in what layout a kernel goes over it.

In: parameters and gradients as they were given. Out: plain arrays that any backend may write, or an `ArrayError` that
names the one at fault. Nothing here writes to an array.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from .errors import ArrayError

__all__ = [
    "COMPUTE", "LINE", "SLAB", "Array", "Layout", "as_gradient", "as_parameter", "bounds", "empty_beside", "layout_of",
    "refuse_overlaps",
]  # fmt: skip

Array: TypeAlias = NDArray[Any]

COMPUTE = {np.dtype(np.float32): "float32", np.dtype(np.float64): "float64"}
#: Bytes of a line of the cache.
LINE = 64
#: Matrices of no more elements, dense behind each other, are gone through several at a time.
SLAB = 512
#: How hard to look for a shared element of two interleaved arrays before calling them overlapping.
_WORK = 10_000
#: What to do about a parameter without a gradient.
LEAVE_OUT = "leave its parameter out of this step, or give zeros"


def as_parameter(given: object, number: int, count: int) -> Array:
    """The array behind a parameter: a writable array of float32 or float64, or what `param` made of one."""
    what = "the parameter" if count == 1 else f"parameter {number}"
    p = given if isinstance(given, np.ndarray) else getattr(given, "data", None)
    if not isinstance(p, np.ndarray):
        message = f"{what}: a NumPy array or param(...) was expected, got {_kind(given)}"
        raise ArrayError(message, hint=_kind_hint(given))
    p = _plain(p, what)
    if not p.flags.writeable:
        hint = "a step changes the parameter in place: give a writable array, for example p.copy()"
        raise ArrayError(f"{what} is read-only", hint=hint)
    if _overlaps_itself(p):
        hint = "give an array with an element of memory for every element, for example p.copy()"
        raise ArrayError(f"{what} has elements that share memory (strides {p.strides}, shape {p.shape})", hint=hint)
    return p


def as_gradient(
    given: object, p: Array, number: int, count: int, absent: str = LEAVE_OUT, *, written: bool = False
) -> Array:
    """The gradient of `p` as an array: of its shape and dtype, with any strides. `absent`: what to do if it is None.
    `written`: the step overwrites it, so it must be writable, with an element of memory for every element."""
    what = "the gradient" if count == 1 else f"gradient {number}"
    if given is None:
        raise ArrayError(f"{what} is None", hint=absent)
    if isinstance(given, np.generic):  # what NumPy makes of an operation on arrays without dimensions
        # Its own memory, which lives as long as the caller holds it, and not a copy that nobody holds.
        given = np.frombuffer(given, given.dtype).reshape(()) if given.dtype in COMPUTE else np.asarray(given)
    if not isinstance(given, np.ndarray):
        raise ArrayError(f"{what}: a NumPy array was expected, got {_kind(given)}", hint=_kind_hint(given))
    g = _plain(given, what)
    if g.dtype != p.dtype:
        hint = f"convert it: g.astype(np.{p.dtype})"
        raise ArrayError(f"{what}: {p.dtype}, the dtype of its parameter, was expected, got {g.dtype}", hint=hint)
    if g.shape != p.shape:
        raise ArrayError(f"{what}: shape {p.shape}, that of its parameter, was expected, got {g.shape}")
    if written and not g.flags.writeable:
        raise ArrayError(f"{what} is read-only, and the step overwrites it", hint="give a writable array: g.copy()")
    if written and _overlaps_itself(g):
        hint = "the step overwrites it: give an array with an element of memory for every element, g.copy()"
        raise ArrayError(f"{what} has elements that share memory (strides {g.strides}, shape {g.shape})", hint=hint)
    return g


def _plain(x: Array, what: str) -> Array:
    if x.dtype not in COMPUTE or not x.dtype.isnative:
        raise ArrayError(f"{what}: float32 or float64 was expected, got {_dtype(x.dtype)}", hint=_dtype_hint(x.dtype))
    if isinstance(x, np.ma.MaskedArray):
        raise ArrayError(f"{what}: a plain array was expected, got a masked array", hint="give x.filled(0) or x.data")
    return x if type(x) is np.ndarray else x.view(np.ndarray)


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


def _overlaps_itself(x: Array) -> bool:
    """Whether two elements may be the same memory: false if each stride leaps over all that smaller strides reach."""
    if x.size <= 1 or x.flags.c_contiguous or x.flags.f_contiguous:
        return False
    reach = x.itemsize
    for stride, extent in sorted((abs(s), n) for s, n in zip(x.strides, x.shape, strict=True) if n > 1):
        if stride < reach:
            return True
        reach += stride * (extent - 1)
    return False


def empty_beside(x: Array) -> Array:
    """An array laid out as `x`, whose elements stand in lines of the cache as those of `x` do: where a vector of one
    lies within a line, so does that of the other. Its values are whatever was there."""
    plain = np.empty_like(x, order="K", subok=False)
    if plain.nbytes <= 16 * LINE or (plain.ctypes.data - x.ctypes.data) % LINE == 0:
        return plain
    room = np.empty(plain.nbytes + LINE, np.uint8)
    return np.ndarray(x.shape, x.dtype, room, (x.ctypes.data - room.ctypes.data) % LINE, plain.strides)


def bounds(x: Array) -> tuple[int, int]:
    """Address of the first byte of `x`, and of the one behind its last."""
    if x.size == 0:
        return x.ctypes.data, x.ctypes.data
    low = high = x.ctypes.data
    for stride, extent in zip(x.strides, x.shape, strict=True):
        if stride < 0:
            low += stride * (extent - 1)
        else:
            high += stride * (extent - 1)
    return low, high + x.itemsize


def refuse_overlaps(
    parameters: Sequence[Array], gradients: Sequence[Array], states: Sequence[Array], *, overwrites: bool = False
) -> None:
    """ArrayError if a step would write memory that it reads or writes elsewhere. Gradients may share with gradients,
    unless the step `overwrites` them."""
    count = len(parameters)
    arrays = [*parameters, *states, *gradients]
    before = count + len(states)
    written = len(arrays) if overwrites else before

    def name(i: int) -> str:
        if i < count:
            return "the parameter" if count == 1 else f"parameter {i}"
        if i < before:
            return "a state of the optimiser"
        return "the gradient" if count == 1 else f"gradient {i - before}"

    for i, j in _touching([bounds(x) for x in arrays], written):
        a, b = arrays[i], arrays[j]
        if not _share(a, b):
            continue
        if j < count and a.ctypes.data == b.ctypes.data and a.shape == b.shape and a.strides == b.strides:
            raise ArrayError(f"{name(i)} and {name(j)} are the same array", hint="give each parameter once")
        hint = "a step writes one while it reads or writes the other: give one of them memory of its own, .copy()"
        raise ArrayError(f"{name(i)} and {name(j)} overlap in memory", hint=hint)


def _touching(intervals: Sequence[tuple[int, int]], written: int) -> Iterator[tuple[int, int]]:
    """Pairs i < j of intervals with an address in common, of which the first at least is one of the `written`."""
    active: list[int] = []
    for i in sorted(range(len(intervals)), key=intervals.__getitem__):
        low, high = intervals[i]
        if low == high:
            continue
        active = [j for j in active if intervals[j][1] > low]
        for j in active:
            if min(i, j) < written:
                yield min(i, j), max(i, j)
        active.append(i)


def _share(a: Array, b: Array) -> bool:
    try:
        return bool(np.shares_memory(a, b, max_work=_WORK))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


@dataclass(frozen=True)
class Layout:
    """How a kernel goes over some arrays of one shape: the dimensions left after merging, the last one innermost.

    `offsets` are in bytes, from the first element of each array to the first one visited; `by[d][a]` is the stride in
    bytes of array `a` along dimension `d`. `dense`: one dimension, every array aligned and without gaps; of matrices,
    which keep their dimensions, every row of every array. `slices`: the rows are slices of the first dimension.
    `slabs`: the matrices are small, and every array is dense from the first to the last.
    """

    dense: bool
    shape: tuple[int, ...]
    by: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    slices: bool = False
    slabs: bool = False

    def cells(self) -> list[int]:
        """The layout as the runtime reads it."""
        return [
            3 if self.slabs else 2 if self.slices else int(self.dense),
            len(self.shape),
            *self.shape,
            *(stride for row in self.by for stride in row),
        ]


def layout_of(arrays: Sequence[Array], *, ordered: bool = False, tiled: bool = False, slices: bool = False) -> Layout:
    """The layout of arrays of one shape, the first of which leads: its smallest stride becomes the innermost.

    `ordered`: the elements are visited in the order of their indices instead, as a reduction must. `tiled`: so are rows
    and columns, which stay what they are; `slices` if these rows are the slices of the first dimension.
    """
    lead = arrays[0]
    if slices and lead.ndim > 2:
        flat = [_as_matrix(x) for x in arrays]
        matrices = [x for x in flat if x is not None]
        if len(matrices) == len(arrays):  # each slice lies in one piece
            return layout_of(matrices, tiled=True)
    sizes = tuple(x.itemsize for x in arrays)
    if tiled:
        by = tuple(tuple(x.strides[d] for x in arrays) for d in range(lead.ndim))
        smooth = (by[-1] == sizes or lead.shape[-1] <= 1) and all(x.flags.aligned for x in arrays)
        sliced = slices and lead.ndim > 2
        small = 0 < lead.shape[-2] * lead.shape[-1] <= SLAB and lead.size > 0 and not sliced
        slabs = small and all(x.flags.c_contiguous and x.flags.aligned for x in arrays)
        return Layout(smooth, lead.shape, by, (0,) * len(arrays), sliced, slabs)
    if all(x.flags.c_contiguous and x.flags.aligned for x in arrays):
        return Layout(True, (lead.size,), (sizes,), (0,) * len(arrays))
    offsets = [0] * len(arrays)
    dimensions: list[tuple[int, tuple[int, ...]]] = []
    for d, extent in enumerate(lead.shape):
        strides = tuple(x.strides[d] for x in arrays)
        if extent == 1:
            continue
        if strides[0] < 0 and not ordered:  # from the other end, so that a reversed array may still be dense
            offsets = [o + s * (extent - 1) for o, s in zip(offsets, strides, strict=True)]
            strides = tuple(-s for s in strides)
        dimensions.append((extent, strides))
    if not ordered:
        dimensions.sort(key=lambda dimension: -dimension[1][0])
    merged: list[tuple[int, tuple[int, ...]]] = []
    for extent, strides in dimensions:
        if merged and merged[-1][1] == tuple(s * extent for s in strides):
            merged[-1] = (merged[-1][0] * extent, strides)
        else:
            merged.append((extent, strides))
    if not merged:
        merged = [(lead.size, sizes)]
    shape, by = zip(*merged, strict=True)
    dense = len(shape) == 1 and by[0] == sizes and all(x.flags.aligned for x in arrays)
    return Layout(dense, tuple(shape), tuple(by), tuple(offsets))


def _as_matrix(x: Array) -> Array | None:
    """The same memory with a row for each slice of the first dimension; None if the elements do not lie so."""
    inner = [(n, stride) for n, stride in zip(x.shape[1:], x.strides[1:], strict=True) if n != 1]
    if any(outer[1] != n * stride for outer, (n, stride) in pairwise(inner)):
        return None
    shape = (x.shape[0], math.prod(x.shape[1:]))
    return as_strided(x, shape, (x.strides[0], inner[-1][1] if inner else x.itemsize))
