"""What may be stepped, what is refused and in which words; a refused step has touched nothing.

And the layouts: whatever the strides, each element is visited once, together with those that belong to it.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from equivalence import Array, Placed, Placement, placement, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided
from searching import search

from optgen import param
from optgen.errors import ArrayError
from optgen.ir.expr import Matrices
from optgen.optimiser import classes
from optgen.runtime import overlaps
from optgen.runtime.addresses import bounds
from optgen.runtime.arrays import as_gradient, as_parameter
from optgen.runtime.layout import Layout, LayoutKind, layout_of
from optgen.runtime.overlaps import overlaps_itself, refuse_overlaps

ADAM, Descent = map(classes.shipped_class, ("ADAM", "Descent"))
BACKENDS = ("kernel", "interpreter")
F4 = np.float32


def ones(*shape: int, dtype: Any = F4) -> Array:
    return np.ones(shape, dtype)


def frozen(x: Array) -> Array:
    x.flags.writeable = False
    return x


# ---- Refused ----

_APART = "expected arrays apart in memory, got an overlap of"
_ONCE, _LEAVE_OUT = "expected each parameter once, got one array as", "leave the second one out"
_COPY = "give one of them memory of its own, .copy()"
_A, _B = np.arange(20, dtype=F4), np.arange(20, dtype=F4) + 1
#: The parameters, the gradients, and what the error says: the message, and the hint.
REFUSED: dict[str, tuple[list[Any], list[Any], str, str]] = {
    "a gradient of another shape": (
        [ones(3)], [ones(4)], "the gradient: expected shape (3,), that of its parameter, got (4,)", ""),
    "a gradient that would have to be broadcast": (
        [ones(2, 3)], [ones(3)], "the gradient: expected shape (2, 3), that of its parameter, got (3,)", ""),
    "the second gradient of another shape": (
        [ones(3), ones(3)], [ones(3), ones(3, 1)],
        "gradient 1: expected shape (3,), that of its parameter, got (3, 1)", ""),
    "a gradient of another dtype": (
        [ones(3)], [ones(3, dtype="f8")],
        "the gradient: expected float32, the dtype of its parameter, got float64",
        "convert it: g.astype(np.float32)"),
    "whole numbers": (
        [np.arange(3)], [np.arange(3)], "the parameter: expected float32, float64, bfloat16 or float16, got int64",
        "convert it and keep the result: x = x.astype(np.float32)"),
    "truth values": (
        [ones(3)], [ones(3) > 0], "the gradient: expected float32, float64, bfloat16 or float16, got truth values",
        "convert it and keep the result: x = x.astype(np.float32)"),
    "complex numbers": (
        [ones(3, dtype="c16")], [ones(3)],
        "the parameter: expected float32, float64, bfloat16 or float16, got complex numbers (complex128)",
        "step the real and the imaginary part as two parameters: z.real and z.imag"),
    "objects": (
        [np.array([1.0, None])], [ones(2)],
        "the parameter: expected float32, float64, bfloat16 or float16, got objects",
        "convert it and keep the result: x = x.astype(np.float32)"),
    "few bits": (
        [ones(3), ones(3, dtype="i1")], [ones(3), ones(3)],
        "parameter 1: expected float32, float64, bfloat16 or float16, got int8",
        "convert it and keep the result: x = x.astype(np.float32)"),
    "swapped bytes": (
        [ones(3).astype(">f4")], [ones(3)],
        "the parameter: expected float32, float64, bfloat16 or float16, got float32 with its bytes swapped (>f4)",
        "convert it: x.astype(x.dtype.newbyteorder('='))"),
    "swapped bytes in a gradient": (
        [ones(3)], [ones(3).astype(">f4")],
        "the gradient: expected float32, float64, bfloat16 or float16, got float32 with its bytes swapped (>f4)",
        "convert it: x.astype(x.dtype.newbyteorder('='))"),
    "a parameter that is read-only": (
        [frozen(ones(3))], [ones(3)], "the parameter: expected a writable array, got a read-only one",
        "a step changes the parameter in place: give a writable array, for example p.copy()"),
    "a masked parameter": (
        [np.ma.ones(3, F4)], [ones(3)], "the parameter: expected a plain array, got a masked array",
        "give x.filled(0) or x.data"),
    "a masked gradient": (
        [ones(3)], [np.ma.ones(3, F4)], "the gradient: expected a plain array, got a masked array",
        "give x.filled(0) or x.data"),
    "a list for a parameter": (
        [[1.0, 2.0]], [ones(2)], "the parameter: expected a NumPy array or param(...), got a list", ""),
    "a tuple for a gradient": ([ones(2)], [(1.0, 2.0)], "the gradient: expected a NumPy array, got a tuple", ""),
    "a number for a gradient": ([ones()], [1.0], "the gradient: expected a NumPy array, got a number", ""),
    "a scalar of NumPy for a parameter": (
        [F4(1)], [ones()], "the parameter: expected a NumPy array or param(...), got a numpy.float32", ""),
    "a text for a gradient": ([ones()], ["1"], "the gradient: expected a NumPy array, got a str", ""),
    "no gradient": (
        [ones(2), ones(2)], [ones(2), None], "gradient 1: expected an array, got None",
        "leave its parameter out of this step, or give zeros"),
    "a scalar of another dtype": (
        [ones()], [np.float64(1)], "the gradient: expected float32, the dtype of its parameter, got float64",
        "convert it: g.astype(np.float32)"),
    "a scalar that is no number": (
        [ones()], [np.bool_(True)], "the gradient: expected float32, float64, bfloat16 or float16, got truth values",
        "convert it and keep the result: x = x.astype(np.float32)"),
    "fewer gradients": ([ones(2), ones(2)], [ones(2)], "expected a gradient for each of 2 parameters, got 1", ""),
    "more gradients": ([ones(2)], [ones(2), ones(2)], "expected a gradient for each of 1 parameters, got 2", ""),
    "an array for the list of parameters": (
        ones(2, 2), [ones(2)], "expected a sequence of parameters, got an array of shape (2, 2)", "opt.step([p], [g])"),
    "the parameter as its gradient": ([_A], [_A], f"{_APART} the parameter and the gradient", _COPY),
    "a gradient that lies in part on the parameter": (
        [_A[:12]], [_A[8:]], f"{_APART} the parameter and the gradient", _COPY),
    "a gradient that lies on another parameter": (
        [_A, _B], [ones(20), _A[::-1]], f"{_APART} parameter 0 and gradient 1", _COPY),
    "a parameter that lies in part on another": (
        [_A[:12], _B, _A[11:]], [ones(12), ones(20), ones(9)], f"{_APART} parameter 0 and parameter 2", _COPY),
    "two views of a parameter": (
        [_A, _A.reshape(4, 5)], [ones(20), ones(4, 5)], f"{_APART} parameter 0 and parameter 1", _COPY),
    "a parameter twice": (
        [_B, _A, _A], [ones(20)] * 3, f"{_ONCE} parameter 1 and parameter 2", _LEAVE_OUT),
    "two views that are the same": (
        [_A[2:], _A[2:]], [ones(18)] * 2, f"{_ONCE} parameter 0 and parameter 1", _LEAVE_OUT),
    "a parameter whose elements share memory": (
        [as_strided(np.arange(9, dtype=F4), (4, 3), (4, 4))], [ones(4, 3)],
        "the parameter: expected elements apart in memory, got some that share it (strides (4, 4), shape (4, 3))",
        "give an array with an element of memory for every element, for example p.copy()"),
    "a parameter of stride 0": (
        [_A, as_strided(np.zeros(1, F4), (5,), (0,))], [ones(20), ones(5)],
        "parameter 1: expected elements apart in memory, got some that share it (strides (0,), shape (5,))",
        "give an array with an element of memory for every element, for example p.copy()"),
}  # fmt: skip


def memory(*lists: Any) -> list[bytes]:
    return [x.tobytes() for given in lists for x in given if isinstance(x, np.ndarray) and x.dtype != object]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("why", REFUSED)
def test_a_refused_step_says_why_and_has_touched_nothing(why: str, backend: str) -> None:
    params, grads, message, hint = REFUSED[why]
    opt = ADAM(backend=backend)
    good = [p for p in params if isinstance(p, np.ndarray) and p.dtype == F4 and p.flags.owndata and p.flags.writeable]
    good = [p for p in {id(p): p for p in good}.values() if type(p) is np.ndarray]
    for p in good:  # so that there are states and counts to be touched
        opt.step([p], [np.full_like(p, 0.5)])
    before, states = memory(params, grads), [opt.state(p) for p in good]
    kept = [{name: np.copy(x) for name, x in state.items()} for state in states]
    count = len(opt.state_dict()["parameters"])
    with pytest.raises(ArrayError) as caught:
        opt.step(params, grads)
    assert caught.value.message == message
    assert (caught.value.hint or "").endswith(hint)
    assert bool(caught.value.hint) == bool(hint)
    assert memory(params, grads) == before
    assert len(opt.state_dict()["parameters"]) == count, "a refused step has made a state"
    for p, state, old in zip(good, states, kept, strict=True):
        assert opt.state(p)["t"] == old.pop("t") == 1
        for name, x in old.items():
            same_bits(state[name], x, name)


def test_one_memory_under_two_arrays_is_one_parameter() -> None:
    room = bytearray(40)
    first, second = (np.frombuffer(room, F4) for _ in range(2))
    with pytest.raises(
        ArrayError,
        match="expected each parameter once, got one array as parameter 0 and parameter 1\n  hint: leave the second",
    ):
        ADAM().step([first, second], [ones(10), ones(10)])
    assert room == bytes(40)


def test_a_gradient_may_not_be_a_state() -> None:
    opt = ADAM()
    p = ones(4)
    opt.step([p], [ones(4)])
    before = p.copy()
    with pytest.raises(
        ArrayError, match="expected arrays apart in memory, got an overlap of a state of the optimiser and the gradient"
    ):
        opt.step([p], [opt.state(p)["m"]])
    same_bits(p, before, "the parameter")
    assert opt.state(p)["t"] == 1


# ---- Accepted ----


class Mine(np.ndarray):
    """A subclass that minds being computed with."""

    def __array_ufunc__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a step has called an operation of the subclass")


def mapped(folder: Path) -> Array:
    p = np.memmap(folder / "p", F4, "w+", shape=(6,))
    p[:] = np.arange(6)
    return p


ACCEPTED: dict[str, Callable[[Path], tuple[list[Any], list[Any]]]] = {
    "interleaved views": lambda _: ([_A.copy()[::2]], [_B[1::2]]),
    "every other element, and the others as the gradient": lambda _: (lambda a: ([a[::2]], [a[1::2]]))(_A.copy()),
    "the columns of an array as parameters": lambda _: (lambda a: ([a[:, 0], a[:, 1]], [ones(3)] * 2))(ones(3, 2)),
    "one gradient for two parameters": lambda _: ([ones(3), ones(3)], [_A[:3]] * 2),
    "a gradient that is read-only": lambda _: ([ones(3)], [frozen(ones(3))]),
    "a gradient of stride 0": lambda _: ([ones(3, 2)], [np.broadcast_to(F4(2), (3, 2))]),
    "a subclass": lambda _: ([ones(3).view(Mine)], [ones(3).view(Mine)]),
    "np.matrix": lambda _: ([ones(3, 2).view(np.matrix)], [ones(3, 2)]),
    "np.memmap": lambda folder: ([mapped(folder)], [ones(6)]),
    "what param makes": lambda _: ([param(ones(3))], [ones(3)]),
    "no dimensions": lambda _: ([ones()], [ones()]),
    "a scalar of NumPy as the gradient of an array without dimensions": lambda _: ([ones()], [F4(0.25)]),
    "an array of stride 0 with a single element": lambda _: ([as_strided(ones(1), (1, 1), (0, 4))], [ones(1, 1)]),
    "empty arrays": lambda _: ([ones(0, 3), ones(2), ones(3, 0)], [ones(0, 3), ones(2), ones(3, 0)]),
    "both dtypes in one list": lambda _: ([ones(3), ones(2, dtype="f8")], [ones(3), ones(2, dtype="f8")]),
    "no parameters": lambda _: ([], []),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", ACCEPTED)
def test_a_step_takes(what: str, backend: str, tmp_path: Path) -> None:
    params, grads = ACCEPTED[what](tmp_path)
    plain = [np.asarray(getattr(p, "data", p) if not isinstance(p, np.ndarray) else p) for p in params]
    opt, expected = ADAM(eta=0.5, backend=backend), ADAM(eta=0.5, backend="interpreter")
    copies = [p.copy() for p in plain]
    for _ in range(2):
        opt.step(params, grads)
        expected.step(copies, [np.array(g) for g in grads])
    for p, copy in zip(plain, copies, strict=True):
        same_bits(p, copy, what)


def test_the_memory_of_a_scalar_gradient_lives_as_long_as_the_scalar() -> None:
    scalar = np.float64(0.25)
    g = as_gradient(scalar, np.zeros(()), 0, 1)
    address = g.ctypes.data
    del g
    gc.collect()
    junk = [np.array(7.0) for _ in range(100)]  # takes up whatever memory was given back
    assert id(scalar) <= address < id(scalar) + scalar.__sizeof__(), "a kernel would read the memory of something else"
    assert (ctypes.c_double.from_address(address).value, junk[0]) == (0.25, 7.0)


# ---- Overlap ----


@st.composite
def strided(draw: Any) -> Array:
    """An array of any strides at all, within a room of its own."""
    item = draw(st.sampled_from([4, 8]))
    shape = draw(st.lists(st.integers(0, 4), max_size=4).map(tuple))
    strides = tuple(draw(st.integers(-6, 6)) * draw(st.sampled_from([1, item // 2, item])) for _ in shape)
    spread = [s * max(0, n - 1) for s, n in zip(strides, shape, strict=True)]
    offset = -sum(s for s in spread if s < 0)
    room = np.zeros(offset + sum(s for s in spread if s > 0) + item, np.uint8)
    return np.ndarray(shape, f"f{item}", room, offset, strides)


def addresses(x: Array) -> list[int]:
    """Where each element is, in the order of the indices."""
    each = product(*map(range, x.shape))
    return [x.ctypes.data + sum(i * s for i, s in zip(index, x.strides, strict=True)) for index in each]


def cells(x: Array) -> Counter[int]:
    return Counter(a + byte for a in addresses(x) for byte in range(x.itemsize))


@search(50, 300)
@given(strided())
def test_an_array_overlaps_itself_exactly_when_two_elements_share_memory(x: Array) -> None:
    assert overlaps_itself(x) == any(count > 1 for count in cells(x).values())


def test_an_array_whose_elements_lie_between_each_other_is_stepped() -> None:
    room = np.zeros(8, F4)
    p = np.ndarray((3, 2), F4, room, 0, (8, 12))  # words 0, 3, 2, 5, 4, 7
    Descent(eta=1.0).step([p], [np.arange(6, dtype=F4).reshape(3, 2)])
    assert (-room).tolist() == [0, 0, 2, 1, 4, 3, 0, 5]


@search(50, 100)
@given(st.data())
def test_an_array_made_by_slicing_and_transposing_never_overlaps_itself(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(0, 5), max_size=4).map(tuple))
    x = np.zeros(shape, F4)
    x = x[(..., *(slice(None, None, data.draw(st.sampled_from([-2, -1, 1, 2, 3]))) for _ in shape))]
    x = x.transpose(data.draw(st.permutations(range(x.ndim))))
    assert not overlaps_itself(x)
    assert as_parameter(x, 0, 1) is x


@search(50, 200)
@given(strided())
def test_bounds_are_the_first_byte_and_the_one_behind_the_last(x: Array) -> None:
    low, high = bounds(x)
    if x.size:
        assert (low, high) == (min(cells(x)), max(cells(x)) + 1)
    else:
        assert low == high


@st.composite
def views(draw: Any, room: Array) -> Array:
    start, stop = sorted(draw(st.tuples(st.integers(0, 24), st.integers(0, 24))))
    return room[start : stop : draw(st.integers(1, 4))][:: draw(st.sampled_from([1, -1]))]


@st.composite
def interleaved(draw: Any, room: Array) -> Array:
    """Of any strides at all, in words of a room of a hundred."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
    strides = tuple(draw(st.integers(-11, 11)) for _ in shape)
    spread = [s * (n - 1) for s, n in zip(strides, shape, strict=True)]
    low, high = -sum(s for s in spread if s < 0), 99 - sum(s for s in spread if s > 0)
    begin = draw(st.integers(low, high))
    return np.ndarray(shape, F4, room, 4 * begin, tuple(4 * s for s in strides))


#: Ways to find a shared element: two arrays at a time, or by marking elements, of memory that they fill or do not.
WAYS = {
    "as it comes": {},
    "by pairs": {"_COMPARISON": 0.001},
    "by pairs that are too hard": {"_COMPARISON": 0.001, "_WORK": 0},
    "by marks": {"_COMPARISON": 1e9, "_touching": lambda some: 10**6 * len(some)},
    "by marks of single elements": {"_COMPARISON": 1e9, "_touching": lambda some: 10**6 * len(some), "_SPARSE": 0},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [views, interleaved])
def test_arrays_are_refused_exactly_when_a_written_one_shares_memory(kind: Any, way: str) -> None:
    @settings(deadline=None, max_examples=40)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        room = np.zeros(100, F4)
        some = st.lists(kind(room), max_size=3)
        params, grads, states = data.draw(some), data.draw(some), data.draw(some)
        overwrites = data.draw(st.booleans())
        every = [*params, *states, *grads]
        written = len(every) if overwrites else len(params) + len(states)
        overlap = any(
            cells(every[i]) & cells(every[j]) for i in range(written) for j in range(i + 1, len(every))
        )  # fmt: skip
        try:
            refuse_overlaps(params, grads, states, overwrites=overwrites)
        except ArrayError:
            assert overlap
        else:
            assert not overlap

    with pytest.MonkeyPatch.context() as patch:
        for name, value in WAYS[way].items():
            patch.setattr(overlaps, name, value)
        check()


LISTS: dict[str, Callable[[int], list[Array]]] = {
    "of their own memory": lambda n: [ones(2) for _ in range(n)],
    "columns": lambda n: list(ones(4, n).T),
    "columns of a wide matrix": lambda n: list(ones(4, 500 * n)[:, :n].T),
    "blocks": lambda n: [block for rows in np.split(ones(8, n), 4) for block in np.split(rows, n // 4, axis=1)],
    "columns in both directions": lambda n: [x[::-1] if i % 2 else x for i, x in enumerate(ones(4, n).T)],
}


def work(run: Callable[[], Any]) -> int:
    """How many functions a run calls, those of C too."""
    calls = 0

    def count(_: Any, event: str, __: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("what", LISTS)
def test_the_work_of_a_first_step_grows_as_the_number_of_arrays(what: str) -> None:
    def first(n: int) -> int:
        opt, params = ADAM(), LISTS[what](n)
        grads = LISTS[what](n)
        return work(lambda: opt.step(params, grads))

    first(20)
    few, many = first(100), first(800)
    assert many < 10 * few


# ---- Layouts ----


def walked(layout: Layout, arrays: list[Array]) -> list[tuple[int, ...]]:
    """The addresses that a kernel goes through, a tuple for each element."""
    starts = [x.ctypes.data + offset for x, offset in zip(arrays, layout.offsets, strict=True)]
    found = []
    for index in product(*map(range, layout.shape)):
        found.append(tuple(
            start + sum(i * by[a] for i, by in zip(index, layout.by, strict=True)) for a, start in enumerate(starts)
        ))  # fmt: skip
    return found


@st.composite
def matching(draw: Any) -> list[Array]:
    """Arrays of one shape, each lying in memory in its own way; the second may have strides of 0."""
    shape = draw(st.lists(st.integers(0, 5), max_size=4).map(tuple))
    dimensions = range(len(shape))
    some = st.sets(st.sampled_from(dimensions)).map(sorted) if shape else st.just([])

    def place(still: bool) -> Placement:
        order, back, gap = draw(st.permutations(dimensions)), draw(some), draw(some)
        shift = draw(st.sampled_from([0, 0, 4, 1]))
        gaps = dict.fromkeys(gap, 2)
        return placement(shape, 4, order=order, back=back, gaps=gaps, still=draw(some) if still else (), shift=shift)

    places = [place(False), place(True), place(False)] if draw(st.booleans()) else [place(False)] * 3
    return [Placed(np.zeros(shape, F4), p).array for p in places]


@search(50, 300)
@given(matching())
def test_a_layout_visits_every_element_once_with_those_that_belong_to_it(arrays: list[Array]) -> None:
    layout = layout_of(arrays)
    together = sorted(zip(*map(addresses, arrays), strict=True))
    visited = walked(layout, arrays)
    assert sorted(visited) == together
    assert layout.cells()[:2] == [layout.dense, len(layout.shape)]
    assert len(layout.cells()) == 2 + len(layout.shape) * (1 + len(arrays))
    if layout.dense:
        steps = [tuple(b - a for a, b in zip(*pair, strict=True)) for pair in pairwise(visited)]
        assert all(step == tuple(x.itemsize for x in arrays) for step in steps)
        assert all(address % x.itemsize == 0 for x in arrays for address in addresses(x))
    elif layout.by:
        leading = [abs(by[0]) for by in layout.by]
        assert leading == sorted(leading, reverse=True), "the innermost dimension is not that of the smallest stride"


@search(50, 300)
@given(matching())
def test_an_ordered_layout_visits_the_elements_in_the_order_of_their_indices(arrays: list[Array]) -> None:
    layout = layout_of(arrays, ordered=True)
    assert walked(layout, arrays) == list(zip(*map(addresses, arrays), strict=True))
    assert not layout.dense or layout.shape == (arrays[0].size,)


@search(50, 300)
@given(matching().filter(lambda arrays: arrays[0].ndim >= 2))
def test_a_layout_of_matrices_keeps_rows_and_columns(arrays: list[Array]) -> None:
    together = list(zip(*map(addresses, arrays), strict=True))
    layout = layout_of(arrays, matrices=Matrices.LAST_TWO)
    assert walked(layout, arrays) == together
    assert layout.shape == arrays[0].shape
    slices = layout_of(arrays, matrices=Matrices.FIRST_BY_REST)
    lines = layout_of(arrays, matrices=Matrices.ALL_BUT_LAST)
    assert slices.shape[0] == arrays[0].shape[0]
    assert lines.shape[-1] == arrays[0].shape[-1]
    fewest = layout_of(arrays, matrices=Matrices.FEWEST)
    for each in (slices, lines, fewest):
        assert walked(each, arrays) == together
        in_pieces = len(each.shape) > 2  # of more dimensions only where they do not lie evenly
        assert (each.kind == LayoutKind.PIECES) == in_pieces
        assert in_pieces or each.kind == (LayoutKind.SLABS if each.slabs else each.dense)
    for each in (layout, slices, lines, fewest):
        if each.dense and together:
            width = each.shape[-1]
            for row in (walked(each, arrays)[i : i + width] for i in range(0, len(together), width)):
                steps = [tuple(b - a for a, b in zip(*pair, strict=True)) for pair in pairwise(row)]
                assert all(step == tuple(x.itemsize for x in arrays) for step in steps)


ALIKE = {
    "contiguous": lambda x: x,
    "Fortran": lambda x: np.asfortranarray(x),
    "transposed": lambda x: x.transpose(1, 2, 0),
    "reversed in all dimensions": lambda x: x[::-1, ::-1, ::-1],
    "transposed and reversed in some": lambda x: x.transpose(2, 0, 1)[:, ::-1],
    "with dimensions of one": lambda x: x[:, None, :, None, :].transpose(4, 1, 0, 3, 2),
    "rows of a larger array": lambda x: x[1:3],
}


@pytest.mark.parametrize("how", ["contiguous", "rows of a larger array"])
def test_slices_that_lie_in_one_piece_are_rows(how: str) -> None:
    arrays = [ALIKE[how](np.zeros((4, 3, 5), F4)) for _ in range(2)]
    layout = layout_of(arrays, matrices=Matrices.FIRST_BY_REST)
    assert (layout.dense, layout.shape, layout.kind) == (True, (arrays[0].shape[0], 15), LayoutKind.SLABS)
    layout = layout_of([arrays[0], np.asfortranarray(arrays[1])], matrices=Matrices.FIRST_BY_REST)
    assert (layout.shape, layout.kind) == (arrays[0].shape, LayoutKind.PIECES)


@pytest.mark.parametrize("how", ["contiguous", "rows of a larger array"])
def test_lines_that_follow_each_other_evenly_are_rows(how: str) -> None:
    arrays = [ALIKE[how](np.zeros((4, 3, 5), F4)) for _ in range(2)]
    layout = layout_of(arrays, matrices=Matrices.ALL_BUT_LAST)
    assert (layout.dense, layout.shape) == (True, (arrays[0].shape[0] * 3, 5))
    layout = layout_of([arrays[0], np.asfortranarray(arrays[1])], matrices=Matrices.ALL_BUT_LAST)
    assert (layout.shape, layout.kind) == (arrays[0].shape, LayoutKind.PIECES)


@pytest.mark.parametrize("how", ALIKE)
def test_arrays_without_gaps_that_lie_alike_are_dense(how: str) -> None:
    arrays = [ALIKE[how](np.zeros((4, 3, 5), F4)) for _ in range(3)]
    layout = layout_of(arrays)
    assert (layout.dense, layout.shape) == (True, (arrays[0].size,))


def test_arrays_that_lie_differently_or_have_gaps_or_are_unaligned_are_not_dense() -> None:
    x = np.zeros((4, 6), F4)
    room = np.zeros(100, np.uint8)
    unaligned = room[1 if room.ctypes.data % 4 == 0 else 4 - room.ctypes.data % 4 + 1 :][:96].view(F4).reshape(4, 6)
    for other in (
        np.asfortranarray(x),
        x[::-1],
        np.zeros((4, 7), F4)[:, 1:],
        np.broadcast_to(F4(0), (4, 6)),
        unaligned,
    ):
        assert not layout_of([x, other]).dense
        assert not layout_of([other, x]).dense
        assert layout_of([other.copy("C"), x]).dense


def test_dimensions_that_follow_each_other_are_merged() -> None:
    x = np.zeros((4, 3, 10), F4)[:, :, ::2]
    assert layout_of([x, x]) == Layout(False, (60,), ((8, 8),), (0, 0))
    y = np.zeros((4, 6, 5), F4)[:, ::2, :]
    assert layout_of([y, y]).shape == (12, 5)
