"""The kernel equals the interpreter, bit for bit, whatever the numbers, the memory, the threads and the processor."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from equivalence import (
    DTYPES,
    KINDS,
    Array,
    Placed,
    Placement,
    all_kernels,
    busy,
    check_kernel,
    check_runtime,
    compare,
    compilations,
    defaults,
    given_numbers,
    make_tensor,
    numbers,
    placement,
    run,
    same_bits,
    special,
    users_kernel,
)
from hypothesis import given
from hypothesis import strategies as st
from searching import LONG, search

from optgen.compiler import catalogue
from optgen.ir.interval import Interval
from optgen.ir.rule import Hyper, Rule
from optgen.runtime import library
from optgen.runtime.binding import Binding, rows_of
from optgen.runtime.kernel import Kernel

Draw = Any
RULES = compilations()
SHIPPED = {path.name for path in catalogue.shipped()}


def bound(kernel: Kernel, tensors: Any, block: int = 0) -> Binding:
    return Binding(kernel, rows_of(kernel, tensors, [block] * len(tensors)))


every_rule = pytest.mark.parametrize("name", RULES)


def rule_of(name: str) -> Rule:
    spec, variant = RULES[name]
    return spec.rules[variant]


def kernel_of(name: str, dtype: str, isa: str | None = None) -> Kernel:
    return users_kernel(*RULES[name], dtype, isa)


def instruction_sets(name: str) -> Sequence[str]:
    """Those of this machine; a short search compiles a kernel for the best one only, and takes all that are built."""
    usable = library.runtime().usable
    return usable if LONG or RULES[name][0].file in SHIPPED else usable[:1]


# ---- What may come ----

lengths = st.integers(0, 49) | st.sampled_from([63, 64, 65, 127, 200, 1000])
shapes = lengths.map(lambda n: (n,)) | st.lists(st.integers(0, 9), max_size=4).map(tuple)
long_shapes = shapes | st.sampled_from([(1024,), (1025,), (3000,), (35, 70)])
matrices = st.lists(st.integers(0, 9), min_size=2, max_size=4).map(tuple) | st.sampled_from(
    [(65, 4), (3, 1026), (129, 1), (600, 1, 1), (70, 3, 3), (3, 33, 15), (3, 33, 16), (4, 2, 40)]
)


@st.composite
def placements(draw: Draw, shape: tuple[int, ...], item: int, *, still: bool = False) -> Placement:
    dimensions = range(len(shape))
    some = st.sets(st.sampled_from(dimensions)) if shape else st.just(set())
    return placement(
        shape,
        item,
        order=draw(st.permutations(dimensions)),
        back=sorted(draw(some)),
        gaps={d: draw(st.integers(0, 3)) for d in draw(some)},
        still=sorted(draw(some)) if still else (),
        shift=draw(st.sampled_from([0, 0, 0, item, 1, item // 2])),
    )


@st.composite
def layouts(draw: Draw, arrays: int, item: int, which: Any, still: bool) -> list[Placement]:
    """A placement for each array of a tensor: all dense, all the same, or each as it likes; `still`: the gradient may
    have strides of 0."""
    shape = draw(which)
    match draw(st.sampled_from(["dense", "same", "gradient", "any"])):
        case "dense":
            return [placement(shape, item)] * arrays
        case "same":
            return [draw(placements(shape, item))] * arrays
        case "gradient":
            places = [placement(shape, item)] * arrays
            return [places[0], draw(placements(shape, item, still=still)), *places[2:]]
        case _:
            return [draw(placements(shape, item, still=still and i == 1)) for i in range(arrays)]


@st.composite
def hyperparameters(draw: Draw, hypers: tuple[Hyper, ...]) -> dict[str, tuple[float, ...]]:
    def number(hyper: Hyper, interval: Interval) -> float:
        low, high = max(interval.low, -1e3), min(interval.high, 1e3)
        some = [x for x in (0.0, 1.0, 1e-40, 1e-8, 0.5, 1e30, *hyper.default) if x in interval]
        real, whole = st.floats(low, high), st.integers(int(low), int(high)).map(float)
        numbers = (whole if interval.whole else real).filter(interval.__contains__)
        return float(draw(st.sampled_from(some) | numbers))

    return {hyper.name: tuple(number(hyper, interval) for interval in hyper.ranges) for hyper in hypers}


# ---- Properties ----


@every_rule
@search(6, 12)
@given(data=st.data())
def test_the_kernel_equals_the_interpreter(name: str, data: st.DataObject) -> None:
    rule, draw = rule_of(name), data.draw
    dtype = draw(st.sampled_from(DTYPES), "dtype")
    item = np.dtype(dtype).itemsize
    kernel = kernel_of(name, dtype, draw(st.sampled_from(instruction_sets(name)), "isa"))
    values = draw(hyperparameters(rule.hypers).map(given_numbers(rule).__or__) | st.just(busy(rule)), "values")
    rng = np.random.default_rng(draw(st.integers(0, 2**32), "seed"))
    counts = st.just(draw(st.integers(0, 3), "t")) | st.integers(0, 2000)
    which = matrices if rule.matrix else long_shapes if kernel.sweeps.reduces else shapes
    places, kinds = layouts(len(rule.arrays), item, which, not rule.overwrites), st.sampled_from(KINDS)
    tensors = [
        make_tensor(rule, values, draw(places), dtype, draw(kinds), rng, draw(counts))
        for _ in range(draw(st.integers(1, 4), "tensors"))
    ]
    threads = draw(st.sampled_from([1, 2, 3, 7]), "threads")
    grain = draw(st.sampled_from([None, 1, 3, 16, 33, 1000]), "grain")
    compare(rule, kernel, tensors, values, steps=draw(st.integers(1, 3), "steps"), threads=threads, grain=grain)


#: Layouts, threads and instruction sets are the template's concern: the rules of the largest library add nothing to it.
OF_ALL_KINDS = [name for name, (spec, variant) in RULES.items() if spec.rules[variant].origin != "pytorch-optimizer"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_ALL_KINDS)
def test_in_all_layouts_on_all_instruction_sets(name: str) -> None:
    for kernels in all_kernels(*RULES[name]):
        check_kernel(rule_of(name), *kernels)


def test_matrices_that_are_small_and_dense_go_in_slabs() -> None:
    """Else the rounds above would show nothing of them."""
    kernel = kernel_of("Adafactor matrix", "float32")
    rule = rule_of("Adafactor matrix")

    def parts(shape: tuple[int, ...], **how: Any) -> tuple[int, int]:
        places = [placement(shape, 4, **how)] * len(rule.arrays)
        tensor = make_tensor(rule, busy(rule), places, "float32", "tiny", np.random.default_rng(0), 0)
        binding = bound(kernel, [tensor.all(rule)])
        layout = library.runtime().ffi.cast("int64_t *", int(binding.table["layout"][0]))
        calls = library.runtime().library
        found = calls.optgen_slabs(layout), calls.optgen_units(kernel.entry, layout)
        assert found == (binding.slabs, binding.total)
        return binding.slabs, binding.total

    assert parts((1100, 1, 1)) == (3, 0)
    assert parts((57, 3, 3)) == (2, 0)
    assert parts((2, 16, 32)) == (2, 0)
    assert parts((2, 19, 27)) == (0, 2)  # an element too many
    assert parts((57, 3, 3), gaps={1: 1}) == (0, 57)
    assert parts((57, 3, 3), shift=1) == (0, 57)
    assert parts((0, 3, 3)) == parts((3, 0, 3)) == parts((3, 3, 0)) == (0, 0)


ELEMENTWISE = [
    name
    for name in RULES
    if not (rule_of(name).small_states or rule_of(name).tiled or kernel_of(name, "float32").sweeps.reduces)
]


@pytest.mark.parametrize("name", ELEMENTWISE)
@search(4, 8)
@given(data=st.data())
def test_any_grouping_of_the_tensors_gives_the_same_bits(name: str, data: st.DataObject) -> None:
    rule, draw = rule_of(name), data.draw
    size = 300
    rng = np.random.default_rng(draw(st.integers(0, 2**32), "seed"))
    dtype = draw(st.sampled_from(DTYPES), "dtype")
    kind = draw(st.sampled_from(KINDS), "kind")
    whole = [numbers(kind, rng, size, dtype) for _ in rule.arrays]
    split = [a.copy() for a in whole]
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=12), "cuts"))
    pieces = [[a[i:j] for a in split] for i, j in zip([0, *cuts], [*cuts, size], strict=True)]
    groups: dict[int, list[list[Array]]] = {}
    for piece in draw(st.permutations(pieces), "order"):
        groups.setdefault(draw(st.integers(0, 2)), []).append(piece)
    values = busy(rule)
    run(bound(kernel_of(name, dtype), [whole]), values, [4], 1)
    for group in groups.values():
        binding = bound(kernel_of(name, dtype, draw(st.sampled_from(library.runtime().usable))), group)
        run(binding, values, [4] * len(group), draw(st.sampled_from([1, 2, 3, 7])), draw(st.integers(1, 40)))
    for array, a, b in zip(rule.arrays, split, whole, strict=True):
        same_bits(a, b, f"{array}, cut at {cuts}")


@every_rule
def test_the_count_is_each_tensors_own_whatever_the_step_before_was(name: str) -> None:
    rule, rng = rule_of(name), np.random.default_rng(3)
    values = defaults(rule)
    kernel = kernel_of(name, "float64")
    places = [placement((11, 3) if rule.matrix else (11,), 8)] * len(rule.arrays)
    sets = [[make_tensor(rule, values, places, "float64", "ordinary", rng, t) for _ in range(4)] for t in range(2)]
    # The same binding, with all counts alike, then not, then alike again.
    arrays = [tensor.all(rule) for tensor in sets[0]]
    binding = bound(kernel, arrays, sets[0][0].block)
    single = [[a.copy() for a in tensor] for tensor in arrays]
    if rule.grouped:
        return  # what a tensor gets depends on the others
    for counts in ([1, 1, 1, 1], [2, 7, 2, 900], [3, 3, 3, 3], [4, 3, 3, 3]):
        run(binding, values, counts, 2, 3)
        for tensor, t in zip(single, counts, strict=True):
            run(bound(kernel, [tensor], sets[0][0].block), values, [t], 1)
        for tensor, expected in zip(arrays, single, strict=True):
            for array, a, b in zip((*rule.arrays, *rule.tensor_states), tensor, expected, strict=False):
                same_bits(a, b, f"{array} at counts {counts}")


def test_a_list_with_empty_tensors_anywhere_and_an_empty_list() -> None:
    rule, kernel = rule_of("ADAM"), kernel_of("ADAM", "float32")
    rng, values = np.random.default_rng(4), defaults(rule)
    for sizes in ([], [0], [0, 0], [0, 3, 0, 0, 50, 0], [1] * 40, [0] * 9 + [1]):
        tensors = [make_tensor(rule, values, [placement((n,), 4)] * 4, "float32", "special", rng, 0) for n in sizes]
        compare(rule, kernel, tensors, values, threads=3, grain=2)


def test_a_gradient_of_the_same_layout_takes_the_place_of_another() -> None:
    rule, kernel = rule_of("Descent"), kernel_of("Descent", "float32")
    for how in ({}, {"back": [0]}, {"gaps": {1: 2}}, {"shift": 1}):
        place = placement((4, 6), 4, **how)
        p, g, other = (Placed(np.arange(24, dtype="f4") + k, place) for k in range(3))
        binding = bound(kernel, [[p.array, g.array]])
        for gradient in (other, g, other):
            expected = p.array - np.float32(0.5) * gradient.array
            (cell,), offset = binding.given_cells(0).tolist(), binding.rows[0].form.offsets[1]
            ctypes.c_int64.from_address(cell).value = gradient.array.ctypes.data + offset
            run(binding, {"eta": (0.5,)}, [1], 1)
            p.expect(expected, f"{rule.name} with gradients {how}")


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("grain", [1, 3, 1000])
def test_every_element_has_its_turn_once(threads: int, grain: int) -> None:
    for sizes in ([1], [5, 7], [0, 5, 0, 0, 1, 200, 7, 0], [0, 999, 1, 1000]):
        check_runtime(library.runtime(), sizes, threads, grain)
        check_runtime(library.runtime(), [30 * size for size in sizes], threads, 30 * grain, dense=True)


@pytest.mark.parametrize("threads", [1, 3])
def test_sizes_have_64_bits(threads: int) -> None:
    check_runtime(library.runtime(), [2**31 + 5, 0, 2**33, 3, 2**32], threads, 2**28 + 1)


# ---- The comparison itself ----


def test_the_comparison_tells_zeros_apart_and_takes_nans_for_one() -> None:
    plus, minus = np.zeros(1), np.array([-0.0])
    with pytest.raises(AssertionError, match="1 of 1 elements differ, the first at"):
        same_bits(plus, minus, "zeros")
    with pytest.raises(AssertionError, match="differ"):
        same_bits(np.array([np.nan]), plus, "NaN and a number")
    same_bits(np.array([np.nan]), np.array([0x7FF8_0000_0000_0001], "u8").view("f8"), "two NaNs")


def test_the_comparison_sees_what_is_written_beside_an_array() -> None:
    placed = Placed(np.ones(5), placement((5,), 8, gaps={0: 1}))
    placed.expect(np.ones(5), "untouched")
    placed.room[8] ^= 1
    with pytest.raises(AssertionError, match="memory beside the array was written"):
        placed.expect(np.ones(5), "touched in a gap")


def test_the_numbers_are_what_they_are_called() -> None:
    for dtype in DTYPES:
        of = np.finfo(dtype)
        tiny = numbers("tiny", np.random.default_rng(0), 1000, dtype)
        assert (np.abs(tiny) < of.tiny).all()
        assert len(np.unique(tiny)) > 990
        assert (np.signbit(tiny)).any()
        assert np.isnan(special(dtype)).any()
        assert np.isnan(numbers("bits", np.random.default_rng(0), 9000, dtype)).any()
        assert np.isfinite(numbers("ordinary", np.random.default_rng(0), 1000, dtype)).all()


def test_ordinary_tensors_move_and_their_states_are_not_zero() -> None:
    for name in RULES:
        rule = rule_of(name)
        places = [placement((20, 25) if rule.matrix else (500,), 4)] * len(rule.arrays)
        # With a short memory, it waits for ever until its second moment can be told.
        values = defaults(rule) if name == "ScheduleFreeRAdam" else busy(rule)
        tensor = make_tensor(rule, values, places, "float32", "ordinary", np.random.default_rng(5), 0)
        before: Array = tensor.arrays["p"].array.copy()
        for array, placed in tensor.arrays.items():
            # It keeps ten gradients, and has had two; or this phase waits for its first turn.
            late = name == "AdaShift" or rule.when is not None or "LookSAM" in name
            other = array in rule.element_states and array not in rule.stores  # which another phase writes
            assert np.count_nonzero(placed.array) > 200 or late or other, f"{array} of {name}"
        compare(rule, kernel_of(name, "float32"), [tensor], values, steps=12)
        assert np.count_nonzero(tensor.arrays["p"].array != before) > 250, name
