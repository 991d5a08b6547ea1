"""Kernel against interpreter, bit for bit: one comparison (`compare`), and fixed rounds of them (`check_kernel`).

Every array is cut out of a larger piece of memory, so that a comparison also sees what was written beside it. NaNs are
one class; zeros of different sign differ. Whatever is wrong raises AssertionError; the mutants rely on that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optgen import driver, interp, toolchain
from optgen.ir import GRADIENT, Hyper, Rule
from optgen.kernel import Binding, Kernel, Runtime, open_library, read_declarations
from optgen.resources import declarations

Array = NDArray[Any]
Values = Mapping[str, tuple[float, ...]]

DTYPES = ("float32", "float64")
KINDS = ("ordinary", "special", "bits", "tiny")

#: One rule that uses every primitive that is exact, in scalars too, and literals that no compute type holds exactly.
EVERY = """
name = "Every"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
k   = { default = [0.9, 2], range = "(-inf, inf)" }
[state]
m = { init = "0" }
u = { init = "k[1]" }
[update]
formulas = '''
m     = where(t > 2 and k[1] < 1, k[1]*m + 0.1*g, -g)
far   = abs(m) >= 1.3 or (g != g) or not u <= max(p, 0.7)
u     = min(max(k[2]*u, sign(g)*g**3), 1e30)
delta = where(far, eta*sign(m)*sqrt(abs(u) + 1e-8), where(m == u, p**5/3, eta*(m - 0.2*(u/(1 - k[1]**t)))))
'''
"""
#: No scalar at all, and no state.
PLAIN = 'name = "Plain"\n[update]\nformulas = "delta = 0.3*g"\n'


def compilations() -> dict[str, tuple[driver.Compilation, int]]:
    """Every variant of every shipped rule, and of the two rules above: the spec and the number of the variant."""
    specs = [driver.compile_file(path) for path in driver.shipped()]
    specs += [driver.compile_text(text, "test.toml") for text in (EVERY, PLAIN)]
    return {
        " ".join(filter(None, (spec.name, rule.variant))): (spec, i)
        for spec in specs
        for i, rule in enumerate(spec.rules)
    }


# ---- Numbers ----


def special(dtype: str) -> Array:
    """The numbers at which arithmetic changes its ways."""
    of = np.finfo(dtype)
    sizes = [0.0, 1.0, np.inf, np.nan, of.max, of.tiny, of.smallest_subnormal, of.eps, 3 * of.smallest_subnormal]
    sizes += [of.max**0.5, of.tiny**0.5, 1 + of.eps, 1e-8, 1e30, 1e-30]
    return np.array([sign * size for size in sizes for sign in (1, -1)], dtype)


def numbers(kind: str, rng: np.random.Generator, size: int, dtype: str) -> Array:
    ordinary = rng.standard_normal(size).astype(dtype)
    if kind == "ordinary":
        return ordinary
    if kind == "special":
        return np.where(rng.random(size) < 0.6, rng.choice(special(dtype), size), ordinary)
    whole = np.dtype(dtype).str.replace("f", "u")
    bits = rng.integers(0, np.iinfo(whole).max, size, whole, endpoint=True)
    if kind == "tiny":  # denormals of all sizes, of both signs
        mantissa = (1 << np.finfo(dtype).nmant) - 1
        bits &= np.array(1 << (8 * bits.itemsize - 1) | mantissa, np.uint64).astype(whole)
    return bits.view(dtype)


def busy(hypers: Sequence[Hyper]) -> dict[str, tuple[float, ...]]:
    """A value for every hyperparameter such that none of them can be left out without a trace."""
    supply = cycle((0.37, 0.71, 0.59, 0.13, 0.83))
    return {h.name: tuple(next(supply) for _ in h.default) for h in hypers}


def defaults(hypers: Sequence[Hyper]) -> dict[str, tuple[float, ...]]:
    return {h.name: h.default for h in hypers}


# ---- Memory ----


@dataclass(frozen=True)
class Placement:
    """How an array lies in its piece of memory, all in bytes."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    size: int


def placement(
    shape: tuple[int, ...],
    itemsize: int,
    *,
    order: Sequence[int] | None = None,
    back: Sequence[int] = (),
    gaps: Mapping[int, int] | None = None,
    still: Sequence[int] = (),
    shift: int = 0,
) -> Placement:
    """`order`: the dimensions, the innermost first. `back`: those that run backwards. `gaps`: elements left out behind
    each of a dimension. `still`: those of stride 0. `shift`: how far from an aligned address it all begins."""
    strides = [0] * len(shape)
    offset, reach = shift, itemsize
    for d in reversed(range(len(shape))) if order is None else order:
        if d in still:
            continue
        strides[d] = reach + (gaps or {}).get(d, 0) * itemsize
        reach = strides[d] * max(1, shape[d])
        if d in back:
            offset += strides[d] * max(0, shape[d] - 1)
            strides[d] = -strides[d]
    return Placement(shape, tuple(strides), offset, shift + reach + itemsize)


class Placed:
    """An array in a piece of memory that is watched."""

    def __init__(self, values: Array, place: Placement) -> None:
        # With a margin, so that a mutant that reads too far reads no memory of others.
        room = np.full(place.size + 64 + 1024, 0xA5, np.uint8)
        self.room = room[-room.ctypes.data % 64 :][: place.size + 1024]
        self.place = place
        self.dtype = values.dtype
        self.array = self._of(self.room)
        self.set(values)

    def set(self, values: Array) -> None:
        self.array[...] = values.reshape(self.place.shape)
        self.before = self.room.copy()

    def _of(self, room: Array) -> Array:
        return np.ndarray(self.place.shape, self.dtype, room, self.place.offset, self.place.strides)

    def expect(self, expected: Array, what: str) -> None:
        """AssertionError unless the elements are `expected` and all else is as it was."""
        same_bits(self.array, expected, what)
        room = self.before.copy()
        self._of(room)[...] = self.array
        assert np.array_equal(room, self.room), f"{what}: memory beside the array was written"


def same_bits(got: Array, expected: Array, what: str) -> None:
    """AssertionError unless both hold the same numbers: NaN where NaN, and all others bit for bit."""
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape), what
    whole = got.dtype.str.replace("f", "u")
    a, b = (np.array(x, copy=True, order="C", ndmin=1) for x in (got, expected))
    differ = (a.view(whole) != b.view(whole)) & ~(np.isnan(a) & np.isnan(b))
    if differ.any():
        at = tuple(int(i) for i in np.argwhere(differ)[0])
        places = f"{np.count_nonzero(differ)} of {differ.size} elements"
        raise AssertionError(f"{what}: {places} differ, the first at {at}: {a[at]!r}, the interpreter has {b[at]!r}")


# ---- A comparison ----


@dataclass
class Tensor:
    """The arrays of one parameter, in the rule's order, and how often it was updated."""

    arrays: dict[str, Placed]
    t: int


def make_tensor(
    rule: Rule, values: Values, places: Sequence[Placement], dtype: str, kind: str, rng: np.random.Generator, t: int
) -> Tensor:
    """A tensor with numbers of a kind. Of ordinary ones the states are such as come about in use."""
    size = int(np.prod(places[0].shape))
    arrays = {name: numbers(kind, rng, size, dtype) for name in rule.arrays}
    if kind == "ordinary":
        for name, value in interp.initial_state(rule, values).items():
            arrays[name][...] = value
        for warm in range(2):
            arrays[GRADIENT] = numbers(kind, rng, size, dtype)
            interp.step(rule, values, warm + 1, arrays)
        arrays[GRADIENT] = numbers(kind, rng, size, dtype)
    return Tensor({name: Placed(a, place) for (name, a), place in zip(arrays.items(), places, strict=True)}, t)


def compare(
    rule: Rule,
    kernel: Kernel,
    tensors: Sequence[Tensor],
    values: Values,
    *,
    steps: int = 1,
    threads: int = 1,
    grain: int | None = None,
) -> None:
    """Steps all tensors in one call of the kernel, and each by itself with the interpreter; AssertionError if they
    do not end up the same. From step to step the gradients change, and stay where they are."""
    binding = Binding(kernel, [[placed.array for placed in tensor.arrays.values()] for tensor in tensors])
    oracle = [{name: placed.array.copy("C") for name, placed in tensor.arrays.items()} for tensor in tensors]
    for step in range(steps):
        binding.run(values, [tensor.t + step + 1 for tensor in tensors], threads, grain)
        for i, (tensor, arrays) in enumerate(zip(tensors, oracle, strict=True)):
            interp.step(rule, values, tensor.t + step + 1, arrays)
            for name, placed in tensor.arrays.items():
                where = f"{name} of tensor {i}, {placed.place}" if name != GRADIENT else f"gradient {i}, only read"
                heading = " ".join(filter(None, (rule.name, rule.variant, kernel.dtype, kernel.isa)))
                placed.expect(arrays[name], f"{heading}, step {step}: {where}, {threads} threads, grain {grain}")
            gradient = tensor.arrays[GRADIENT]
            if 0 not in gradient.place.strides:
                arrays[GRADIENT] = -np.flip(arrays[GRADIENT]).copy()
                gradient.set(arrays[GRADIENT])


# ---- Fixed rounds ----

LENGTHS = (0, 1, 2, 3, 5, 8, 15, 16, 17, 33, 49, 100)


def _layouts(arrays: int, item: int) -> Iterator[tuple[str, list[list[Placement]]]]:
    """Lists of tensors by the way their arrays lie: for every tensor a placement for every array."""

    def alike(shape: tuple[int, ...], **how: Any) -> list[Placement]:
        return [placement(shape, item, **how)] * arrays

    def others(shape: tuple[int, ...], g: Mapping[str, Any], **how: Any) -> list[Placement]:
        places = alike(shape, **how)
        places[1] = placement(shape, item, **g)
        return places

    yield "dense", [alike((n,)) for n in LENGTHS]
    yield "0-d and more than one dimension", [alike(()), alike((3, 0, 2)), alike((3, 5, 7)), alike((1, 1))]
    yield "sliced", [alike((n,), gaps={0: 1}) for n in LENGTHS]
    yield "reversed", [alike((n,), back=[0]) for n in LENGTHS]
    yield "Fortran", [alike((5, 7), order=(0, 1)), alike((3, 4, 5), order=(0, 1, 2))]
    yield "transposed", [alike((2, 9, 3), order=(1, 0, 2)), alike((3, 4, 5), order=(1, 2, 0), back=[2])]
    yield "cut from a larger one", [alike((5, 7), gaps={1: 0, 0: 3}), alike((4, 3, 6), gaps={1: 2, 2: 1}, back=[1])]
    yield "unaligned", [alike((n,), shift=1) for n in LENGTHS]
    yield (
        "gradient of other strides",
        [
            others((7, 5), {"order": (0, 1)}),
            others((17,), {"back": [0]}),
            others((17,), {"gaps": {0: 2}}, gaps={0: 1}),
            others((3, 4, 5), {"order": (2, 0, 1), "back": [1]}, back=[0, 1]),
            others((33,), {"shift": 3}),
        ],
    )
    still = [((17,), [0]), ((5, 7), [0]), ((5, 7), [1]), ((3, 4, 5), [0, 2])]
    yield "gradient of stride 0", [others(shape, {"still": dimensions}) for shape, dimensions in still]


def check_kernel(rule: Rule, kernel: Kernel) -> None:
    """All layouts and kinds of numbers; AssertionError at the first difference."""
    rng = np.random.default_rng(7)
    item = np.dtype(kernel.dtype).itemsize
    hypers = (busy(rule.hypers), defaults(rule.hypers))
    for i, (_, tensors) in enumerate(_layouts(len(rule.arrays), item)):
        for j, kind in enumerate(KINDS):
            values = hypers[(i + j) % 2]
            made = [make_tensor(rule, values, places, kernel.dtype, kind, rng, t=3 * (i % 2) * k)
                    for k, places in enumerate(tensors)]  # fmt: skip
            threads, grain = ((1, None), (3, 5))[(i + j // 2) % 2]
            compare(rule, kernel, made, values, steps=2, threads=threads, grain=grain)
    check_positions(rule, kernel)


def check_all(rule: Rule, kernel: Kernel) -> None:
    """Every fixed round: the kernel on all layouts, and its runtime on sizes small and large."""
    check_kernel(rule, kernel)
    check_runtime(kernel.runtime, [5, 0, 7, 200], 3, 3)
    check_runtime(kernel.runtime, [2**31 + 5, 0, 2**33, 3], 1, 2**28 + 1)


def check_positions(rule: Rule, kernel: Kernel) -> None:
    """The same numbers at every position give the same results at every position."""
    rng = np.random.default_rng(8)
    item = np.dtype(kernel.dtype).itemsize
    size = 3 * 64 // item + 1
    for kind in KINDS * 2:
        arrays = [np.repeat(numbers(kind, rng, 1, kernel.dtype), size) for _ in rule.arrays]
        binding = Binding(kernel, [arrays])
        binding.run(busy(rule.hypers), [3], 3, 7)
        for name, array in zip(rule.arrays, arrays, strict=True):
            same_bits(array, np.repeat(array[:1], size), f"{name} by position, {kind} numbers")


def check_runtime(runtime: Runtime, sizes: Sequence[int], threads: int, grain: int) -> None:
    """Cuts a step over tensors of these sizes (of any size: nothing is read) and sees that every element gets its
    turn once, with the element of the second array that goes with it."""
    ffi = runtime.ffi
    visits: list[tuple[int, int, int]] = []

    def row(at: Any, by: Any, n: int, scalars: Any) -> None:
        visits.append((int(ffi.cast("intptr_t", at[0])), int(ffi.cast("intptr_t", at[1])), n))

    callback = ffi.callback("optgen_row", row)
    layouts = [np.array([0, 1, size, 4, 8], np.int64) for size in sizes]
    starts = [(1 + k) << 40 for k in range(len(sizes))]
    firsts = [sum(sizes[:k]) for k in range(len(sizes))]
    columns = zip(firsts, layouts, starts, strict=True)
    table = np.array([[first, layout.ctypes.data, 0, start, 2 * start] for first, layout, start in columns], np.int64)
    address = ffi.cast("void *", table.ctypes.data)
    runtime.library.optgen_step(callback, address, len(sizes), 2, sum(sizes), threads, grain)
    assert all(second == 2 * first for first, second, _ in visits), "the arrays went out of step"
    ends = {start: start + 4 * size for start, size in zip(starts, sizes, strict=True) if size}
    reached = dict.fromkeys(ends)
    for first, _, n in sorted(visits):
        assert n > 0, "an empty row"
        start = first >> 40 << 40
        assert first == (reached[start] or start), "an element was left out, or came twice"
        reached[start] = first + 4 * n
    assert reached == ends, "an element was left out"


# ---- Kernels from other sources ----


def open_kernel(source: str, path: Path, lowered: Rule, dtype: str, isa: str, flags: tuple[str, ...] = (),
                runtime: Runtime | None = None) -> Kernel:  # fmt: skip
    """The kernel in `source`, compiled to `path`."""
    runtime = runtime or driver.runtime()
    toolchain.compile_library(source, path, None, flags)
    return Kernel(runtime, open_library(runtime.ffi, path, "optgen_abi"), lowered, dtype, isa)


def open_runtime(source: str, path: Path) -> Runtime:
    """The runtime in `source`, compiled to `path`."""
    toolchain.compile_library(source, path)
    return Runtime(read_declarations(declarations(), None), path)


def all_kernels(spec: driver.Compilation, variant: int) -> Iterator[Kernel]:
    """The kernels of a variant that run here."""
    for dtype, isa in chain.from_iterable([(d, i) for i in driver.runtime().usable] for d in DTYPES):
        yield driver.kernel(spec, variant, dtype, None, isa)
