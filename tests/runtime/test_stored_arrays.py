"""Arrays in other types than the compute type: the kernel equals the interpreter, whatever rule, storage and layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from equivalence import KINDS, Placement, busy, compare, compilations, make_tensor, placement
from hypothesis import given
from hypothesis import strategies as st
from searching import search

from optgen.compiler.driver import Compilation
from optgen.interpreter.codes import code_dtype
from optgen.ir.rule import Rounding, Storages
from optgen.lowering.sweeps import sweeps_of
from optgen.runtime import library
from optgen.runtime.kernel import Kernel, kernel_of

Draw = Any
RULES = compilations()

#: Rules of one sweep and of several, of elements, matrices, blocks and draws; the storages of their arrays; the compute
#: type; and what is rounded stochastically. Every instruction set is tried with ADAM, the best with the others.
CASES: dict[str, Any] = {
    "Adam": ("ADAM", (("m", "bfloat16"), ("v", "float16")), "float32"),
    "Adam in float64": ("ADAM", (("m", "bfloat16"), ("v", "bfloat16")), "float64"),
    "all of Adam": ("ADAM", (("p", "bfloat16"), ("g", "bfloat16"), ("m", "bfloat16"), ("v", "bfloat16")), "float32"),
    "draws": ("NoisySGD", (("p", "float16"), ("g", "bfloat16")), "float32"),
    "draws, rounded stochastically": ("NoisySGD", (("p", "bfloat16"),), "float32", ("p",)),
    "Adam, rounded stochastically": (
        "ADAM",
        (("p", "bfloat16"), ("m", "bfloat16"), ("v", "float16")),
        "float32",
        ("p", "m", "v"),
    ),
    "Adam in float64, rounded stochastically": ("ADAM", (("v", "bfloat16"),), "float64", ("v",)),
    "reductions, rounded stochastically": ("Reduced", (("m", "bfloat16"), ("w", "float16")), "float32", ("m",)),
    "matrices, rounded stochastically": (
        "Reduced matrix",
        (("p", "bfloat16"), ("m", "bfloat16")),
        "float32",
        ("p", "m"),
    ),
    "blocks, rounded stochastically": ("Blocks", (("p", "float16"), ("m", "float16")), "float32", ("p", "m")),
    "one state of two": ("Every", (("u", "bfloat16"),), "float32"),
    "reductions": ("Reduced", (("m", "bfloat16"), ("w", "bfloat16")), "float32"),
    "reductions of matrices": ("Reduced matrix", (("m", "bfloat16"), ("w", "bfloat16")), "float32"),
    "courses": ("Courses", (("p", "bfloat16"), ("g", "float16"), ("u", "bfloat16"), ("w", "bfloat16")), "float32"),
    "blocks": ("Blocks", (("m", "float16"),), "float32"),
}


def kernels(case: str) -> list[Kernel]:
    (spec, variant), storages, dtype, rounding = parts(case)
    usable = library.runtime().usable[: None if CASES[case][0] == "ADAM" else 1]
    return [kernel_of(spec, variant, dtype, None, isa, storages, rounding) for isa in usable]


def parts(case: str) -> tuple[tuple[Compilation, int], Storages, str, Rounding]:
    name, storages, dtype, *rounded = CASES[case]
    spec, variant = RULES[name]
    rounding = tuple((array, "seed") for array in rounded[0]) if rounded else ()
    return (spec.rounded if rounding else spec, variant), storages, dtype, rounding


lengths = st.integers(0, 49) | st.sampled_from([63, 64, 65, 127, 200, 1000])
shapes = lengths.map(lambda n: (n,)) | st.lists(st.integers(0, 9), max_size=4).map(tuple)
long_shapes = shapes | st.sampled_from([(1024,), (1025,), (3000,), (35, 70)])
matrices = st.lists(st.integers(0, 9), min_size=2, max_size=4).map(tuple) | st.sampled_from(
    [(65, 4), (3, 1026), (129, 1), (600, 1, 1), (70, 3, 3), (3, 33, 15), (3, 33, 16), (4, 2, 40)]
)


@st.composite
def placements(draw: Draw, shape: tuple[int, ...], items: list[int]) -> list[Placement]:
    """A placement for each array, whose elements have so many bytes: all dense, all alike, or each as it likes."""
    dimensions = range(len(shape))
    some = st.sets(st.sampled_from(dimensions)) if shape else st.just(set())

    def how() -> dict[str, Any]:
        order = draw(st.permutations(dimensions))
        return {"order": order, "back": sorted(draw(some)), "gaps": {d: draw(st.integers(0, 3)) for d in draw(some)}}

    match draw(st.sampled_from(["dense", "alike", "any"])):
        case "dense":
            return [placement(shape, item) for item in items]
        case "alike":
            same = how()
            return [placement(shape, item, **same) for item in items]
        case _:
            return [placement(shape, item, **how(), shift=draw(st.sampled_from([0, 0, item, 1]))) for item in items]


@pytest.mark.parametrize("case", CASES)
@search(15, 80)
@given(data=st.data())
def test_the_kernel_equals_the_interpreter(case: str, data: st.DataObject) -> None:
    draw, ((spec, variant), storages, dtype, rounding) = data.draw, parts(case)
    rule = spec.rules[variant]
    kernel = draw(st.sampled_from(kernels(case)), "kernel")
    stored = dict(storages)
    # Interpreter and kernel see arrays of 16 bits as codes, whatever their dtype.
    items = [(code_dtype(stored[a]) if a in stored else np.dtype(dtype)).itemsize for a in rule.arrays]
    rng = np.random.default_rng(draw(st.integers(0, 2**32), "seed"))
    which = matrices if rule.matrix else long_shapes
    values, kinds, counts = busy(rule), st.sampled_from(KINDS), draw(st.integers(0, 3), "t")
    tensors = [
        make_tensor(
            rule, values, draw(placements(draw(which), items)), dtype, draw(kinds), rng, counts, storages, rounding
        )
        for _ in range(draw(st.integers(1, 3), "tensors"))
    ]
    threads = draw(st.sampled_from([1, 2, 3, 7]), "threads")
    grain = draw(st.sampled_from([None, 1, 16, 33, 1000]), "grain")
    compare(rule, kernel, tensors, values, steps=draw(st.integers(1, 3), "steps"), threads=threads, grain=grain)


def test_formulas_see_a_state_before_its_storage_rounds_it() -> None:
    """A later sweep computes it again; it does not read what was written."""
    spec, variant = RULES["Reduced"]
    plain = sweeps_of(spec.lowered[variant])
    stored = sweeps_of(spec.lowered_with(variant, (("m", "bfloat16"), ("w", "bfloat16"))))
    assert any(sweep.new for sweep in plain.sweeps)
    assert not any(sweep.new & {"m", "w"} for sweep in stored.sweeps)
