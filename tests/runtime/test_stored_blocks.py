"""States whose neighbours share a scale: the kernel equals the interpreter, and codes are those of `quantise`."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from equivalence import KINDS, Placement, busy, compare, compilations, make_tensor, placement
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from searching import search

import optgen
from optgen import ADAM, LAMB, Adafactor, chain, dequantise, quantise
from optgen.errors import ArgumentError, StateError
from optgen.interpreter.codes import code_dtype, code_shape
from optgen.ir.rule import Storages
from optgen.optimiser.base import engine_of
from optgen.runtime import kernel, library, machine

Array = NDArray[Any]
STORAGES = ("log8", "linear8", "log4")
#: Short and long blocks, several pieces of work, and several threads.
SIZES = (1, 127, 129, 256, 257, 1025, 5000)


def gradient(shape: Any, t: int, dtype: Any = np.float32, *, special: bool = False) -> Array:
    rng = np.random.default_rng(t)
    g = rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 3, shape)
    if special and g.size > 300:
        g.reshape(-1)[300 + t] = [np.nan, np.inf, -np.inf, 0.0, 1e-40][t % 5]
        g.reshape(-1)[:256] *= 0 if t % 2 else 1e-30
    return g.astype(dtype)


def trained(opt: Any, ps: list[Array], steps: int, first: int = 0, **how: Any) -> None:
    for t in range(first, first + steps):
        opt.step(ps, [gradient(p.shape, 10 * t + i, p.dtype, **how) for i, p in enumerate(ps)])


def arrays_of(opt: Any, p: Array) -> dict[str, Array]:
    slot = engine_of(opt).states.of(p)  # type: ignore[attr-defined]
    assert slot is not None
    return dict(slot.arrays)


def same(one: Any, other: Any, ps: list[Array], qs: list[Array]) -> bool:
    """Parameters and codes, bit for bit."""
    pairs = [(p, q) for p, q in zip(ps, qs, strict=True)]
    pairs += [
        (x, arrays_of(other, q)[name])
        for p, q in zip(ps, qs, strict=True)
        for name, x in arrays_of(one, p).items()
        if x.dtype == np.uint8
    ]
    assert any(x.dtype == np.uint8 for x, _ in pairs)
    return all(np.array_equal(x, y) or x.tobytes() == y.tobytes() or _same_numbers(x, y) for x, y in pairs)


def _same_numbers(x: Array, y: Array) -> bool:
    """All NaNs of parameters count as equal."""
    return x.dtype.kind == "f" and np.array_equal(x, y, equal_nan=True)


CASES: list[tuple[str, dict[str, Any], Any]] = [
    *(("ADAM", {"storage": storage}, np.float32) for storage in STORAGES),
    *(("ADAM", {"storage": storage, "rounding": "stochastic", "seed": 7}, np.float32) for storage in STORAGES),
    ("ADAM", {"storage": {"m": "linear8", "v": "log4"}, "rounding": "nearest"}, np.float32),
    ("ADAM", {"storage": {"m": "bfloat16", "v": "log8"}}, np.float32),
    ("ADAM", {"storage": "log8"}, np.float64),
    ("ADAM", {"storage": "log8", "rounding": {"p": "stochastic"}}, ml_dtypes.bfloat16),
    ("AdamW", {"storage": "log8", "amsgrad": True}, np.float32),
    ("Lion", {"storage": "log4"}, np.float32),
    ("LAMB", {"storage": "log8"}, np.float32),  # several sweeps, and reductions
    ("Adafactor", {"storage": "log8"}, np.float32),  # of one dimension; matrices go to the interpreter
]


@pytest.mark.parametrize(("name", "given", "dtype"), CASES, ids=str)
def test_the_kernel_equals_the_interpreter(name: str, given: dict[str, Any], dtype: Any) -> None:
    made = [getattr(optgen, name)(0.01, backend=backend, **given) for backend in ("kernel", "interpreter")]
    ps, qs = ([gradient((n,), 99 + n, dtype) for n in SIZES] for _ in made)
    for t in range(3):
        trained(made[0], ps, 1, t, special=True)
        trained(made[1], qs, 1, t, special=True)
        assert same(made[0], made[1], ps, qs)


@pytest.mark.parametrize("isa", library.runtime().usable)
@pytest.mark.parametrize("storage", STORAGES)
def test_the_bits_are_those_of_every_instruction_set(storage: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "choose_isa", lambda usable: isa)
    kernel.kernel_of.cache_clear()
    here, there = (ADAM(0.01, storage=storage, backend=backend) for backend in ("kernel", "interpreter"))
    p = gradient((3000,), 1)
    q = p.copy()
    trained(here, [p], 3, special=True)
    trained(there, [q], 3, special=True)
    kernel.kernel_of.cache_clear()
    assert same(here, there, [p], [q])


@pytest.mark.parametrize("cls", [ADAM, LAMB])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_bits_are_those_of_any_number_of_threads(cls: Any, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "threads", lambda: threads)
    here, there = (cls(0.01, storage="log8", backend=backend) for backend in ("kernel", "interpreter"))
    ps = [gradient((n,), n) for n in (250_001, 300)]
    qs = [p.copy() for p in ps]
    trained(here, ps, 2)
    trained(there, qs, 2)
    assert same(here, there, ps, qs)


@pytest.mark.parametrize("backend", ["kernel", "interpreter"])
def test_codes_follow_the_order_of_indices_whatever_the_strides(backend: str) -> None:
    whole = gradient((40, 30), 1)
    layouts = [whole.copy(), np.asfortranarray(whole), np.repeat(whole, 2, 0)[::2], whole[:, ::-1].copy()[:, ::-1]]
    made = []
    for p in layouts:
        opt = ADAM(0.01, storage="log8", backend=backend)
        trained(opt, [p], 3)
        made.append((opt, p))
    (first, p), *others = made
    for opt, q in others:
        assert np.array_equal(p, q)
        assert all(np.array_equal(x, arrays_of(opt, q)[name]) for name, x in arrays_of(first, p).items())
    one, two = ADAM(0.01, storage="log8"), whole.copy()
    trained(one, [two], 3)
    assert np.array_equal(two, p)


def test_matrices_of_a_rule_with_rows_are_stepped_too() -> None:
    """By the interpreter, to the same bits as by itself."""
    made = [optgen.SGDP(0.01, storage="log8", backend=backend) for backend in ("kernel", "interpreter")]
    ps, qs = ([gradient((20, 30), 5), gradient((300,), 6)] for _ in made)
    trained(made[0], ps, 3)
    trained(made[1], qs, 3)
    assert same(made[0], made[1], ps, qs)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_state_is_kept_as_quantise_keeps_an_array(storage: str) -> None:
    opt = ADAM(0.0, (0.0, 0.5), storage=storage, rounding="nearest")
    p, g = np.ones((7, 90), np.float32), gradient((7, 90), 3)
    opt.step([p], [g])
    half = np.float32(0.5) * (g * g)
    for name, numbers, signed in (("m", g, True), ("v", half, False)):
        wanted, kept = quantise(numbers, storage, signed=signed), arrays_of(opt, p)[name]
        at = -(-wanted.codes.size // 4) * 4
        assert np.array_equal(kept[: wanted.codes.size], wanted.codes)
        assert wanted.more is not None
        assert kept[at:].tobytes() == wanted.more.tobytes()
        assert np.array_equal(opt.state(p)[name], dequantise(wanted))
    assert opt.state(p)["v"].shape == (7, 90)


def test_second_moments_fall_where_gradients_shrink() -> None:
    """Rounded to the nearest they would fall too late: by default they are rounded stochastically."""

    def root(**how: Any) -> float:
        opt, exact = ADAM(0.0, (0.9, 0.999), storage={"v": "log8"}, **how), ADAM(0.0, (0.9, 0.999))
        p, rng = np.zeros(512, np.float32), np.random.default_rng(0)
        q = p.copy()
        for t in range(3000):
            g = (rng.standard_normal(512) * (1 if t < 300 else 0.1)).astype(np.float32)
            opt.step([p], [g])
            exact.step([q], [g])
        return float(np.sqrt(opt.state(p)["v"].mean() / exact.state(q)["v"].mean()))

    assert root() == pytest.approx(1, abs=0.05)
    assert root(rounding="nearest") > 1.1


def test_states_take_the_bytes_that_they_say() -> None:
    p = np.ones(256 * 100, np.float32)
    sizes = {}
    for storage in STORAGES:
        opt = ADAM(storage={"m": storage})
        opt.step([p], [p.copy()])
        sizes[storage] = arrays_of(opt, p)["m"].nbytes
    assert sizes == {"log8": 26_000, "linear8": 26_000, "log4": 13_600}


# ---- Kernels by themselves ----

RULES = compilations()
#: Rules of one sweep and of several, the storages of their arrays, the compute type, and what is rounded by chance.
KERNELS: dict[str, tuple[str, Storages, str, tuple[str, ...]]] = {
    "Adam": ("ADAM", (("m", "log8"), ("v", "unsigned log4")), "float32", ("m", "v")),
    "Adam, to the nearest": ("ADAM", (("m", "linear8"), ("v", "unsigned log8")), "float32", ()),
    "Adam of bfloat16": ("ADAM", (("p", "bfloat16"), ("m", "log4"), ("v", "bfloat16")), "float32", ("p", "m")),
    "Adam in float64": ("ADAM", (("m", "log8"), ("v", "unsigned linear8")), "float64", ("v",)),
    "one state of two": ("Every", (("u", "log8"),), "float32", ()),
    "reductions": ("Reduced", (("m", "log8"), ("w", "linear8")), "float32", ("m",)),
    "courses": ("Courses", (("u", "log4"), ("w", "log8")), "float32", ()),
}


@pytest.mark.parametrize("case", KERNELS)
@search(10, 60)
@given(data=st.data())
def test_kernels_write_nothing_but_their_arrays(case: str, data: st.DataObject) -> None:
    """To the bits of the interpreter, for any length, numbers, threads and shares of work."""
    draw, (name, storages, dtype, rounded) = data.draw, KERNELS[case]
    (spec, variant), stored = RULES[name], dict(storages)
    spec = spec.rounded if rounded else spec
    rounding = tuple((array, "seed") for array in rounded)
    rule, of = spec.rules[variant], kernel.kernel_of(spec, variant, dtype, None, None, storages, rounding)
    rng, values = np.random.default_rng(draw(st.integers(0, 2**32), "seed")), busy(rule)
    counts, kinds = draw(st.integers(0, 3), "t"), st.sampled_from(KINDS)
    lengths = st.sampled_from([0, 1, 127, 128, 129, 255, 256, 257, 511, 1000, 1024, 1025, 3000])

    def places(shape: tuple[int, ...]) -> list[Placement]:
        found = []
        for array in rule.arrays:
            storage = stored.get(array)
            own = code_shape(storage, shape) if storage else shape
            found.append(placement(own, (code_dtype(storage) if storage else np.dtype(dtype)).itemsize))
        return found

    tensors = [
        make_tensor(rule, values, places((draw(lengths),)), dtype, draw(kinds), rng, counts, storages, rounding)
        for _ in range(draw(st.integers(1, 3), "tensors"))
    ]
    threads, grain = draw(st.sampled_from([1, 2, 3]), "threads"), draw(st.sampled_from([None, 1, 2]), "grain")
    compare(rule, of, tensors, values, steps=draw(st.integers(1, 3), "steps"), threads=threads, grain=grain)


# ---- Checkpoints ----

GIVEN = {"storage": {"m": "log8", "v": "log4"}, "seed": 5}


def through_dict(opt: Any, ps: list[Array], tmp_path: Path) -> Any:
    made = ADAM(0.5, **GIVEN)
    made.load_state_dict(opt.state_dict(), ps)
    return made


def through_file(opt: Any, ps: list[Array], tmp_path: Path) -> Any:
    pytest.importorskip("safetensors")
    opt.save(tmp_path / "run.safetensors", ps)
    made = ADAM(0.5, **GIVEN)
    made.load(tmp_path / "run.safetensors", ps)
    return made


def through_pickle(opt: Any, ps: list[Array], tmp_path: Path) -> Any:
    return pickle.loads(pickle.dumps(opt))


@pytest.mark.parametrize("way", [through_dict, through_file, through_pickle])
def test_a_resumed_run_goes_on_with_the_same_bits(way: Any, tmp_path: Path) -> None:
    straight, here = ADAM(0.01, **GIVEN), ADAM(0.01, **GIVEN)
    ps = [gradient((n,), n) for n in (300, 1025)]
    qs = [p.copy() for p in ps]
    trained(straight, ps, 6)
    trained(here, qs, 3)
    here = way(here, qs, tmp_path)
    trained(here, qs, 3, 3)
    assert same(straight, here, ps, qs)
    assert repr(here) == repr(straight)


def test_a_saved_state_says_its_storage_and_version() -> None:
    opt, p = ADAM(0.01, **GIVEN), np.ones(300, np.float32)
    trained(opt, [p], 1)
    (entry,) = opt.state_dict()["parameters"]
    assert entry["storages"] == {"m": ("log8", 1), "v": ("unsigned log4", 1)}
    assert {name: x.shape for name, x in entry["state"].items() if x.dtype == np.uint8} == {"m": (308,), "v": (164,)}


def test_what_does_not_fit_is_refused_or_converted() -> None:
    opt, p = ADAM(0.01, **GIVEN), gradient((300,), 1)
    trained(opt, [p], 2)
    saved = opt.state_dict()
    plain = ADAM(0.01, rounding="nearest", storage={"v": "log4"})
    with pytest.raises(StateError, match=r"stochastic|log8"):
        plain.load_state_dict(saved, [p])
    plain.load_state_dict(saved, [p], convert=True)
    assert np.array_equal(plain.state(p)["m"], opt.state(p)["m"])
    assert np.array_equal(plain.state(p)["v"], opt.state(p)["v"])
    other = ADAM(0.01, **GIVEN)
    for change, message in (
        (("log8", 2), "expected m in log8 of version 1, got 2"),
        (("log9", 1), "expected the storage of m"),
        (("unsigned bfloat16", 1), "expected the storage of m"),
        (("log4", 1), r"expected m as an array of \(164,\), uint8, got \(308,\), uint8"),
    ):
        wrong = copy.deepcopy(saved)
        wrong["parameters"][0]["storages"]["m"] = change
        with pytest.raises(StateError, match=message):
            other.load_state_dict(wrong, [p])


# ---- What cannot be ----


def test_what_no_state_can_have_is_refused() -> None:
    with pytest.raises(ArgumentError, match="expected one of bfloat16, float16, log8, linear8, log4, got 'bf16"):
        ADAM(storage="bf16+8")
    with pytest.raises(ArgumentError, match=r"the storage of row_var: .* got .*row"):
        Adafactor(storage={"row_var": "log8"})
    with pytest.raises(ArgumentError, match="got 'unsigned log8'"):
        ADAM(storage="unsigned log8")


def test_parts_of_a_chain_have_them() -> None:
    made = [
        chain(optgen.ClipGlobalNorm(1.0), ADAM(0.01, **GIVEN), backend=backend) for backend in ("kernel", "interpreter")
    ]
    ps, qs = ([gradient((n,), n) for n in (300, 1025)] for _ in made)
    trained(made[0], ps, 3)
    trained(made[1], qs, 3)
    assert same(made[0], made[1], ps, qs)
