"""Kernel against interpreter, bit for bit: a single comparison, `compare`, and fixed rounds of them, `check_kernel`.

Every array lies inside a larger piece of memory, so a comparison also notices writes beside it. All NaNs count as
equal; zeros of different sign differ. Every failure is an AssertionError, on which the mutants rely.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import optgen
from optgen import interpreter as interp
from optgen.compiler import catalogue, driver, toolchain
from optgen.compiler.declarations import read_declarations
from optgen.interpreter.codes import decoded, encoded
from optgen.ir.evaluate import Always
from optgen.ir.expr import GRADIENT, Extent
from optgen.ir.rule import Rounding, Rule, Storages
from optgen.optimiser.base import compilation_of
from optgen.paths import BUILD, declarations
from optgen.runtime import library
from optgen.runtime.binding import Binding, rows_of
from optgen.runtime.group_step import GroupStep
from optgen.runtime.kernel import Kernel, kernel_of
from optgen.runtime.library import Runtime, open_library
from optgen.runtime.shapes import block_of, chosen_once, state_shape

Array = NDArray[Any]
Values = Mapping[str, tuple[float, ...]]

DTYPES = ("float32", "float64")
KINDS = ("ordinary", "special", "bits", "tiny")

#: Every exact primitive, also among scalars, and literals that no compute type holds exactly.
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
#: Neither scalars nor states.
PLAIN = 'name = "Plain"\n[update]\nformulas = "delta = 0.3*g"\n'


#: Every reduction over every extent, and every combination of values of different extents.
REDUCED = """
name = "Reduced"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
[state]
m = { init = "0" }
k = { init = "eta", extent = "tensor" }
d = { init = "1", extent = "group" }
b = { init = "1", extent = "matrix", when = "matrix" }
r = { init = "0", extent = "row", when = "matrix" }
c = { init = "eta", extent = "column", when = "matrix" }
w = { init = "2*p" }
[update]
formulas = '''
r     = 0.9*r + mean(g*abs(m), row) + max(p, row) - min(g, row)/(1 + k) + dot(p, g, row)
c     = norm(g - p, column) + c/2 + max(g, column) + sum(m, column) - min(p, column)
b     = b/3 + mean(r, matrix) - max(c, matrix) + norm(p, matrix) + min(g, matrix) + dot(c, c, matrix)
far   = norm(p) > 1.5 and t > 1
near  = max(r*1) + min(b) + mean(c) + sum(b) if matrix else sum(g)/size
k     = where(far, k + max(abs(m)), min(p - g))/t + floor(near/3)
d     = max(d, sum(k, group)/t) + norm(g, group) + mean(m, group) - min(p, group) + max(near, group)
m     = eta*m + (r*g + sign(c)/b if matrix else g)/(1 + abs(k)) - dot(p, g)*1e-3
u     = g/(1 + norm(m)) + m*d/size
delta = where(far, u*mean(u), u + w)/max(1, norm(u, group)) + (where(r > c, r, c) - 1/b if matrix else 0)
'''
"""

#: States of rows and columns whose new values are read, and one whose new value is not.
LATE = """
name = "Late"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
[state]
r = { init = "eta", extent = "row" }
c = { init = "0", extent = "column" }
d = { init = "1", extent = "column" }
b = { init = "1", extent = "matrix" }
[update]
formulas = '''
n     = norm(p)
x     = r*n
r     = r/2 + mean(g, row)
y     = sum(c)
c     = c/2 + dot(g, g, column)*t
d     = d/3 + max(p, column)
w     = sum(d) - min(r)
b     = b/2 + mean(c, matrix) - max(x, matrix)*w
delta = eta*(g*x + c*b)/(1 + abs(y))
'''
"""

#: Values of indices in all places where they may stand.
INDICES = """
name = "Indices"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
[state]
a = { init = 0, extent = "index", when = "matrix" }
b = { init = "eta", extent = "index", when = "matrix" }
r = { init = 1, extent = "tensor", when = "matrix" }
[update]
formulas = '''
least = max(a, element) - min(b, element)/2
delta = eta*g/(1 + abs(least)) + eta*1e-3*r*g if matrix else eta*g
a     = a/2 + max(abs(g), index)*r
b     = min(b, 1) + min(g + least, index)/t
r     = r/2 + mean(a, tensor)
'''
"""

#: What is refreshed every few steps, of whole tensors, rows, columns and elements; in between, there is one sweep less.
REFRESHED = """
name = "Refreshed"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
k   = { default = 3, range = "[1, inf), whole" }
[state]
m = { init = "0" }
h = { init = "eta" }
r = { init = "1", extent = "tensor" }
s = { init = "1", extent = "row", when = "matrix" }
c = { init = "eta", extent = "column", when = "matrix" }
[update]
formulas = '''
due   = t % k == 0
m     = 0.9*m + 0.1*g
r     = norm(m) if due else r
s     = mean(abs(m), row) if due else s
c     = c if t % k != 0 else max(abs(m), column)
h     = m % 0.3 if not not due else h
delta = eta*m*(h/(1 + r) + (s*c if matrix else 1)) if t > 1 else eta*g
'''
"""
#: An accumulator for each row and each column of every matrix.
ACCUMULATORS = """
name = "Accumulators"
[hyperparameters]
eta  = { default = 0.1, range = "[0, inf)" }
rho  = { default = 0.9, range = "[0, 1)" }
eps  = { default = 1e-8, range = "[0, inf)" }
[state]
m          = { init = "0" }
acc        = { init = "0", when = "not matrix" }
acc_row    = { init = "0", extent = "row", when = "matrix" }
acc_column = { init = "0", extent = "column", when = "matrix" }
[update]
formulas = '''
covered    = min(acc_row, acc_column) if matrix else acc
square     = g**2 + covered
u          = g/sqrt(square + eps) if square > 0 else 0
m          = rho*m + (1 - rho)*u
delta      = m*eta
acc        = square
acc_row    = max(square, row)
acc_column = max(square, column)
'''
"""
#: Every reduction over blocks, and every combination of their values with others.
BLOCKS = """
name = "Blocks"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
k   = { default = 7, range = "[1, inf), whole" }
[state]
m = { init = "0" }
v = { init = "1", extent = "block" }
w = { init = "eta", extent = "block" }
s = { init = "0", extent = "tensor" }
d = { init = "1", extent = "group" }
[update]
block    = "k"
formulas = '''
v     = v/2 + mean(g*abs(m), block) + max(p, block) - min(g, block)/(1 + s)
w     = norm(g - p, block) + w/3 + dot(p, g, block)*t
y     = sum(w) + max(v*norm(p)) - mean(w)
s     = max(s/2, min(v)) + y*1e-3
d     = max(d, sum(v, group)/t) + norm(g, group) + mean(w, group)
m     = eta*m + (g*v if w > 1 else sign(g)/w)/(1 + abs(s)) - sum(abs(p), block)*1e-3
u     = g/(1 + norm(m, block)) + m*d/size
delta = (u*mean(u) + where(v > w, v, w))/max(1, norm(u, group))
'''
"""
#: Conditions of the step, the group and the tensor, one after the other.
COURSES = """
name = "Courses"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
k   = { default = 3, range = "[1, inf), whole" }
[state]
u = { init = "0" }
w = { init = "2*p" }
d = { init = "1", extent = "group" }
[update]
formulas = '''
d     = d/2 + norm(g, group) if t % k < 2 else d
many  = d > 1
u     = u + g % 0.5 if many else u
far   = norm(p) > 1
w     = w + g*dot(p, u) if far else w
delta = eta*(u + w if far and many else w if far else p % 0.7 if t % 2 == 0 else g)
'''
"""


def chains() -> dict[str, driver.Compilation]:
    """Chains that transform gradients, steps and parameters, and that hold steps back."""
    made = (
        optgen.chain(optgen.ClipNorm(1.0), optgen.WeightDecay(1e-4), optgen.ADAM()),
        optgen.chain(optgen.AccumGrad(3), optgen.ADAM(), optgen.ExpDecay(), optgen.EMA()),
        optgen.chain(
            optgen.ClipGlobalNorm(1.0), optgen.GradientCentralisation(), optgen.Momentum(), optgen.Lookahead(2)
        ),
        optgen.chain(optgen.Adafactor(), optgen.AccumGrad(2), optgen.Cautious()),
    )
    return {repr([type(part).__name__ for part in each]): compilation_of(each) for each in made}


def compilations() -> dict[str, tuple[driver.Compilation, int]]:
    """Every variant of the shipped rules, of the rules above and of `chains` that kernels step: its compilation and its
    number."""
    specs = [driver.compile_file(path) for path in catalogue.shipped()]
    own = EVERY, PLAIN, REDUCED, LATE, INDICES, REFRESHED, BLOCKS, COURSES
    specs += [driver.compile_text(text, "test.toml") for text in own]
    specs += chains().values()
    return {
        " ".join(filter(None, (spec.name, rule.variant))): (spec, i)
        for spec in specs
        for i, rule in enumerate(spec.rules)
        if not rule.multiplies
    }


# ---- Numbers ----


def special(dtype: str) -> Array:
    """Numbers at which floating-point arithmetic behaves differently: zeros, infinities, NaN, limits of the format."""
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
    if kind == "tiny":  # denormals of all magnitudes and both signs
        mantissa = (1 << np.finfo(dtype).nmant) - 1
        bits &= np.array(1 << (8 * bits.itemsize - 1) | mantissa, np.uint64).astype(whole)
    return bits.view(dtype)


def busy(rule: Rule) -> dict[str, tuple[float, ...]]:
    """A value for every hyperparameter that changes the result: a kernel that ignores one is caught."""
    supply = cycle((0.37, 0.71, 0.59, 0.13, 0.83))
    values = {h.name: tuple(next(supply) for _ in h.default) for h in rule.hypers} | given_numbers(rule)
    return values | dict.fromkeys(chosen_once([rule]), (3.0,))


def defaults(rule: Rule) -> dict[str, tuple[float, ...]]:
    return {h.name: h.default for h in rule.hypers} | given_numbers(rule)


def given_numbers(rule: Rule) -> dict[str, tuple[float, ...]]:
    """The numbers that a step is given, such as the loss."""
    return dict.fromkeys(rule.given_numbers, (1.47,))


# ---- Memory ----


@dataclass(frozen=True)
class Placement:
    """The layout of an array inside its piece of memory, in bytes."""

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
    """Lay an array out.

    Parameters
    ----------
    order
        The dimensions, innermost first.
    back
        The dimensions that run backwards.
    gaps
        By dimension, the number of elements skipped after each of its own.
    still
        The dimensions of stride 0.
    shift
        The distance of the first byte from an aligned address.
    """
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
    """An array inside a piece of memory whose other bytes must not change."""

    def __init__(self, values: Array, place: Placement) -> None:
        # The margin keeps a mutant that reads too far from reading foreign memory.
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
        """Assert that the elements are `expected` and that no other byte has changed."""
        same_bits(self.array, expected, what)
        room = self.before.copy()
        self._of(room)[...] = self.array
        assert np.array_equal(room, self.room), f"{what}: memory beside the array was written"


def same_bits(got: Array, expected: Array, what: str) -> None:
    """Assert that both arrays hold the same numbers: NaN for NaN, all others bit for bit."""
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
    """One parameter: its arrays in the order of the rule, its count of updates, and its states of less than element
    extent."""

    arrays: dict[str, Placed]
    t: int
    small: dict[str, Array]
    block: int = 0  # how many elements a block has
    storages: Storages = ()
    rounding: Rounding = ()

    def copy(self) -> Tensor:
        """Another one with the same numbers, laid out alike."""
        arrays = {name: Placed(placed.array, placed.place) for name, placed in self.arrays.items()}
        small = {name: array.copy() for name, array in self.small.items()}
        return Tensor(arrays, self.t, small, self.block, self.storages, self.rounding)

    def all(self, rule: Rule) -> list[Array]:
        """The arrays that a kernel takes."""
        arrays = [placed.array for placed in self.arrays.values()]
        return arrays + [self.small[name] for name in rule.tensor_states if name in self.small]


def group_of(rule: Rule, values: Values) -> dict[str, Array]:
    initial = interp.initial_state(rule, values)
    return {state.name: np.array(initial[state.name]) for state in rule.states if state.extent == Extent.GROUP}


def make_tensor(
    rule: Rule,
    values: Values,
    places: Sequence[Placement],
    dtype: str,
    kind: str,
    rng: np.random.Generator,
    t: int,
    storages: Storages = (),
    rounding: Rounding = (),
) -> Tensor:
    """A tensor filled with numbers of one kind. Ordinary ones come with states as two steps leave them. `dtype`: the
    compute type."""
    shape = places[0].shape
    size = int(np.prod(shape))
    arrays = {name: numbers(kind, rng, size, dtype).reshape(shape) for name in rule.arrays}
    initial = interp.initial_state(rule, values, arrays["p"])
    small = {}
    for state in rule.small_states:
        if state.extent > Extent.GROUP:
            small[state.name] = np.full(state_shape(rule, state, values, shape), initial[state.name])
    if kind == "ordinary":
        for name in initial.keys() & arrays.keys():  # an input has no initial value
            arrays[name][...] = initial[name]
        for warm in range(2):
            arrays[GRADIENT] = numbers(kind, rng, size, dtype).reshape(shape)
            interp.step(rule, values, warm + 1, arrays | small | group_of(rule, values))
        arrays[GRADIENT] = numbers(kind, rng, size, dtype).reshape(shape)
    for name, storage in storages:
        codes = encoded(storage, arrays[name])
        if kind == "bits":  # of all NaNs those that a step leaves
            any_bits = rng.integers(0, np.iinfo(codes.dtype).max, codes.shape, codes.dtype, endpoint=True)
            codes = encoded(storage, decoded(storage, any_bits, np.float32, shape))
        arrays[name] = codes
    placed = {name: Placed(a, place) for (name, a), place in zip(arrays.items(), places, strict=True)}
    return Tensor(placed, t, small, block_of(rule, values, shape), storages, rounding)


def bound(kernel: Kernel, rule: Rule, tensors: Sequence[Tensor]) -> Binding:
    return Binding(kernel, rows_of(kernel, [x.all(rule) for x in tensors], [x.block for x in tensors]))


def compare(
    rule: Rule,
    kernels: Kernel | Sequence[Kernel],
    tensors: Sequence[Tensor],
    values: Values,
    *,
    steps: int = 1,
    threads: int = 1,
    grain: int | None = None,
) -> None:
    """Step all tensors with the interpreter, and in one call of each kernel; assert that all give the same bits.

    From step to step, the gradients change in place. `tensors` are left as the last kernel has them.
    """
    kernels = [kernels] if isinstance(kernels, Kernel) else kernels
    expected = list(_interpreted(rule, tensors, values, steps))
    for kernel in kernels:
        own = tensors if kernel is kernels[-1] else [tensor.copy() for tensor in tensors]
        _compare(kernel, own, values, expected, threads, grain)


#: What a step leaves: the states of the group, and the arrays of each tensor.
Left = tuple[dict[str, Array], list[dict[str, Array]]]


def _interpreted(rule: Rule, tensors: Sequence[Tensor], values: Values, steps: int) -> Iterator[Left]:
    """What the interpreter leaves after each step."""
    arrays = [
        {name: placed.array.copy("C") for name, placed in tensor.arrays.items()}
        | {name: array.copy() for name, array in tensor.small.items()}
        for tensor in tensors
    ]
    group = group_of(rule, values)
    for step in range(steps):
        counts = [tensor.t + step + 1 for tensor in tensors]
        before = [own[GRADIENT].copy() for own in arrays]
        kept = [(tensor.storages, tensor.rounding) for tensor in tensors]
        all_arrays = zip(counts, arrays, kept, strict=True)
        stepped = [(rule, values, interp.Tensor(t, own, *how)) for t, own, how in all_arrays]
        if stepped:
            interp.step_group(stepped, group, values, max(counts))
        yield {name: x.copy() for name, x in group.items()}, [{n: x.copy() for n, x in own.items()} for own in arrays]
        for tensor, own, gradient in zip(tensors, arrays, before, strict=True):
            if 0 not in tensor.arrays[GRADIENT].place.strides:
                own[GRADIENT] = turned(gradient)


def turned(gradient: Array) -> Array:
    """Another gradient: the negative one in the other order, of numbers or of codes."""
    other = np.array(np.flip(gradient))
    sign = np.array(1 << 8 * other.itemsize - 1, np.uint64)
    return np.array(-other) if other.dtype.kind == "f" else np.array(other ^ sign.astype(other.dtype))


def _compare(
    kernel: Kernel, tensors: Sequence[Tensor], values: Values, expected: Sequence[Left], threads: int, grain: int | None
) -> None:
    """Step with a kernel, and assert that each step leaves what is expected."""
    rule = kernel.rule
    binding = bound(kernel, rule, tensors)
    group = group_of(rule, values)
    heading = " ".join(filter(None, (rule.name, rule.variant, kernel.dtype, kernel.isa)))
    for step, (group_left, left) in enumerate(expected):
        before = [tensor.arrays[GRADIENT].array.copy("C") for tensor in tensors]
        run(binding, values, [tensor.t + step + 1 for tensor in tensors], threads, grain, group)
        for name, array in group.items():
            same_bits(array, group_left[name], f"{heading}, step {step}: {name} of the group, {threads} threads")
        for i, (tensor, arrays) in enumerate(zip(tensors, left, strict=True)):
            for name, array in tensor.small.items():
                same_bits(array, arrays[name], f"{heading}, step {step}: {name} of tensor {i}, {array.shape}")
            for name, placed in tensor.arrays.items():
                read = name == GRADIENT and not rule.overwrites
                where = f"gradient {i}, only read" if read else f"{name} of tensor {i}, {placed.place}"
                placed.expect(arrays[name], f"{heading}, step {step}: {where}, {threads} threads, grain {grain}")
            gradient = tensor.arrays[GRADIENT]
            if 0 not in gradient.place.strides:
                gradient.set(turned(before[i]))


def run(
    binding: Binding,
    values: Values,
    counts: Sequence[int],
    threads: int,
    grain: int | None = None,
    group: Mapping[str, Array] | None = None,
) -> None:
    """Run one step of any rule, after which tensor i has had `counts[i]` updates."""
    binding.count_from([t - 1 for t in counts])
    if not binding.kernel.rule.grouped:
        binding.run([Always(values)], 1, threads, grain)
    elif counts:
        states = group_of(binding.kernel.rule, values) if group is None else group
        together = GroupStep([binding], [np.arange(len(counts))], threads, grain)
        together.run([Always(values)], 1, max(counts), states)


# ---- Fixed rounds ----

LENGTHS = (0, 1, 2, 3, 5, 8, 15, 16, 17, 33, 49, 100)


#: Shapes of matrices: empty, of one row or column, with more rows than a panel, with more columns than a block.
MATRICES = ((3, 5), (1, 1), (0, 4), (4, 0), (2, 3, 4), (2, 0, 3), (65, 3), (130, 2), (3, 1030), (2, 3, 2, 5))

#: Shapes of several matrices around the limits of slabs: of one element, row or column each; filters of convolutions;
#: with about as many columns as there are lanes; with as many elements as a slab, and one more; with more rows than a
#: panel; more matrices than a slab takes; empty.
SLABS = (
    (520, 1, 1), (7, 1, 5), (9, 5, 1), (6, 20, 3, 3), (11, 2, 5), (150, 2, 2), (12, 7, 7), (2, 31, 33), (3, 16, 32),
    (3, 7, 32), (2, 7, 33), (5, 9, 31), (2, 1, 512), (2, 512, 1), (2, 1, 513), (2, 130, 3), (3, 0, 3), (0, 3, 3),
    (3, 3, 0),
)  # fmt: skip


def _layouts(arrays: int, item: int, matrix: bool, blocks: bool) -> Iterator[tuple[str, list[list[Placement]]]]:
    """Lists of tensors by their layout: for every tensor, a placement for every array.

    `matrix` leaves out tensors of fewer than two dimensions; `blocks` adds some that are longer than the blocks of
    reductions.
    """

    def alike(shape: tuple[int, ...], **how: Any) -> list[Placement]:
        return [placement(shape, item, **how)] * arrays

    def others(shape: tuple[int, ...], g: Mapping[str, Any], **how: Any) -> list[Placement]:
        places = alike(shape, **how)
        places[1] = placement(shape, item, **g)
        return places

    if matrix:
        yield "matrices", [alike(shape) for shape in MATRICES]
        yield "many small matrices", [alike(shape) for shape in SLABS]
        yield "the same", [alike(shape) for shape in SLABS[:9]]  # on as many threads, or as few, as the others were not
        for order, back in product(((0, 1), (1, 0)), ([], [0], [1])):
            yield "laid out otherwise", [alike((7, 9), order=order, back=back), alike((66, 3), order=order, back=back)]
        yield "with gaps", [alike((5, 7), gaps={1: 0, 0: 3}), alike((5, 7), gaps={1: 2})]
        yield "unaligned", [alike(shape, shift=1) for shape in MATRICES]
        others_strides = [
            others((7, 5), {"order": (0, 1)}),
            others((5, 7), {"still": [0]}),
            others((5, 7), {"still": [1]}),
        ]
        yield "gradient of other strides", others_strides
        yield (
            "more than one matrix, laid out otherwise",
            [
                alike((4, 3, 6), gaps={1: 2, 2: 1}, back=[1]),
                others((3, 4, 5), {"order": (2, 0, 1), "back": [1]}, back=[0, 1]),
                others((2, 3, 400), {"order": (1, 0, 2)}),
            ],
        )
        return
    if blocks:
        yield "longer than a block", [alike((n,)) for n in (1023, 1024, 1025, 2050)] + [alike((3, 700))]
        yield "longer than a block, with gaps", [alike((1030,), gaps={0: 1}), alike((40, 60), order=(0, 1))]
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


def check_kernel(rule: Rule, *kernels: Kernel) -> None:
    """Compare kernels of one compute type on all layouts and kinds of numbers, up to the first difference."""
    kernel = kernels[0]
    rng = np.random.default_rng(7)
    item = np.dtype(kernel.dtype).itemsize
    hypers = (busy(rule), defaults(rule))
    blocks = kernel.entry.units != 1
    for i, (about, tensors) in enumerate(_layouts(len(rule.arrays), item, bool(rule.matrix), blocks)):
        if rule.overwrites and about == "gradient of stride 0":
            continue  # which is refused
        for j, kind in enumerate(KINDS):
            values = hypers[(i + j) % 2]
            made = [make_tensor(rule, values, places, kernel.dtype, kind, rng, t=3 * (i % 2) * k)
                    for k, places in enumerate(tensors)]  # fmt: skip
            threads, grain = ((1, None), (3, 5))[(i + j // 2) % 2]
            compare(rule, kernels, made, values, steps=2, threads=threads, grain=grain)
    for kernel in kernels:
        check_positions(rule, kernel)


def check_all(rule: Rule, kernel: Kernel) -> None:
    """Run every fixed round: the kernel on all layouts, and its runtime on small and large sizes."""
    check_kernel(rule, kernel)
    check_runtime(kernel.runtime, [5, 0, 7, 200], 3, 3)
    check_runtime(kernel.runtime, [5, 0, 700, 1000], 3, 300, dense=True)
    check_runtime(kernel.runtime, [2**31 + 5, 0, 2**33, 3], 1, 2**28 + 1)


def check_positions(rule: Rule, kernel: Kernel) -> None:
    """Assert that equal numbers give equal results, whatever their position; but for random numbers."""
    if rule.draws:
        return
    rng = np.random.default_rng(8)
    item = np.dtype(kernel.dtype).itemsize
    size = 3 * 64 // item + 1
    size -= size % max(1, block_of(rule, busy(rule), (size,)))  # a short block is of other numbers
    shape = (3, size) if rule.matrix else (size,)
    for kind in KINDS * 2:
        places = [placement(shape, item)] * len(rule.arrays)
        tensor = make_tensor(rule, busy(rule), places, kernel.dtype, kind, rng, 2)
        for placed in tensor.arrays.values():
            placed.array[...] = numbers(kind, rng, 1, kernel.dtype)
        for array in tensor.small.values():
            array[...] = array.flat[0]
        run(bound(kernel, rule, [tensor]), busy(rule), [3], 3, 7)
        for name, placed in tensor.arrays.items():
            first = np.full(shape, placed.array.flat[0])
            same_bits(placed.array, first, f"{name} by position, {kind} numbers")


def check_runtime(runtime: Runtime, sizes: Sequence[int], threads: int, grain: int, *, dense: bool = False) -> None:
    """Cut a step over tensors of these sizes into rows, and assert that the rows cover each element once.

    Sizes may be huge, since no element is read. Each row must pair the same elements of both arrays. Tensors start
    off the boundary of a cache line; long rows of dense ones must still begin on one.
    """
    ffi = runtime.ffi
    visits: list[tuple[int, int, int]] = []

    def row(at: Any, by: Any, n: int, values: Any) -> None:
        visits.append((int(ffi.cast("intptr_t", at[0])), int(ffi.cast("intptr_t", at[1])), n))

    callback = ffi.callback("optgen_row", row)
    work = ffi.new("optgen_work[1]", [{"row": callback}])
    kernel = ffi.new("optgen_kernel *", {"arrays": 2, "units": 1, "count": 1, "work": work})
    layouts = [np.array([int(dense), 1, size, 4, 8], np.int64) for size in sizes]
    starts = [((1 + k) << 40) + 4 * (1 + k % 15) for k in range(len(sizes))]
    firsts = [sum(sizes[:k]) for k in range(len(sizes))]
    columns = zip(firsts, layouts, starts, strict=True)
    rows = [[first, layout.ctypes.data, 0, 0, 0, start, 2 * start] for first, layout, start in columns]
    table = np.array(rows, np.int64)
    address = ffi.cast("void *", table.ctypes.data)
    runtime.library.optgen_step(kernel, address, len(sizes), sum(sizes), 0, ffi.NULL, 0, 1, threads, grain, ffi.NULL)
    assert all(second == 2 * first for first, second, _ in visits), "the arrays went out of step"
    ends = {start: start + 4 * size for start, size in zip(starts, sizes, strict=True) if size}
    reached = {start: start for start in ends}
    for first, _, n in sorted(visits):
        assert n > 0, "an empty row"
        start = starts[(first >> 40) - 1]
        assert first == reached[start], "an element was left out, or came twice"
        assert not dense or n <= 256 or first % 64 == 0, "a long row does not begin with a line of the cache"
        reached[start] = first + 4 * n
    assert reached == ends, "an element was left out"


# ---- Kernels from other sources ----


def open_kernel(source: str, path: Path, lowered: Rule, dtype: str, isa: str, flags: tuple[str, ...] = (),
                runtime: Runtime | None = None) -> Kernel:  # fmt: skip
    """Compile a kernel from `source` to `path`, and open it."""
    runtime = runtime or library.runtime()
    toolchain.compile_library(source, path, None, flags)
    return Kernel(runtime, open_library(runtime.ffi, path, "optgen_abi"), lowered, dtype, isa)


def open_runtime(source: str, path: Path) -> Runtime:
    """Compile a runtime from `source` to `path`, and open it."""
    toolchain.compile_library(source, path)
    return Runtime(read_declarations(declarations, None), path)


def users_kernel(spec: driver.Compilation, variant: int, dtype: str, isa: str | None = None) -> Kernel:
    """The kernel that users get: of a shipped rule the one that was built, if it is current; else compiled now."""
    return kernel_of(spec, variant, dtype, str(BUILD / f"{spec.stem}.py"), isa)


def all_kernels(spec: driver.Compilation, variant: int) -> Iterator[list[Kernel]]:
    """The kernels of a variant for the instruction sets of this machine, by compute type."""
    for dtype in DTYPES:
        yield [users_kernel(spec, variant, dtype, isa) for isa in library.runtime().usable]
