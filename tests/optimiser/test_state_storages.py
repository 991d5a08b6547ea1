"""States in other storages than the compute type: the object that a user holds, its checkpoints, and bad input."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

import optgen
from optgen import ADAM, SGD, Adafactor, AdamW, Optimiser, ScheduleFreeAdamW, chain
from optgen.errors import ArgumentError, ArrayError, OptgenError, StateError
from optgen.optimiser.array_engine import ArrayEngine
from optgen.optimiser.base import engine_of
from optgen.runtime import acceptance

Array = NDArray[Any]


def gradients(shape: tuple[int, ...] = (7, 5), seed: int = 0) -> Callable[[], Array]:
    rng = np.random.default_rng(seed)
    return lambda: rng.standard_normal(shape).astype(np.float32)


def train(opt: Any, p: Array, steps: int, seed: int = 0) -> None:
    g = gradients(p.shape, seed)
    for _ in range(steps):
        opt.step([p], [g()])


def codes(opt: Any, p: Array) -> dict[str, Array]:
    engine = engine_of(opt)
    assert isinstance(engine, ArrayEngine)
    slot = engine.states.of(p)
    assert slot is not None
    return slot.arrays


@pytest.mark.parametrize("backend", ["kernel", "interpreter"])
def test_states_are_rounded_to_the_storage_and_nothing_else_is(backend: str) -> None:
    """Against Adam by hand, with the conversions of ml_dtypes."""
    opt = ADAM(0.1, (0.9, 0.99), 1e-8, storage="bfloat16", rounding="nearest", backend=backend)
    p, g = np.ones(9, np.float32), gradients((9,))
    one = np.float32(1)
    m = v = np.zeros(9, ml_dtypes.bfloat16)
    expected = p.copy()
    b1, b2, eta, eps = (np.float32(x) for x in (0.9, 0.99, 0.1, 1e-8))
    for t in range(1, 6):
        grad = g()
        opt.step([p], [grad])
        m32 = b1 * m.astype("f4") + np.float32(1 - 0.9) * grad
        v32 = b2 * v.astype("f4") + np.float32(1 - 0.99) * (grad * grad)
        expected = expected - m32 / np.float32(1 - 0.9**t) / (np.sqrt(v32 / np.float32(1 - 0.99**t)) + eps) * eta
        m, v = m32.astype(ml_dtypes.bfloat16), v32.astype(ml_dtypes.bfloat16)
        assert one * p == pytest.approx(expected, rel=1e-6)
    state = opt.state(p)
    assert state["m"].dtype == np.float32
    assert state["m"] == pytest.approx(m.astype("f4"), rel=1e-2)
    assert np.array_equal(state["m"], state["m"].astype(ml_dtypes.bfloat16).astype("f4"))
    assert {name: x.dtype for name, x in codes(opt, p).items()} == {"m": np.uint16, "v": np.uint16}


def test_a_storage_for_each_state_by_any_spelling() -> None:
    opt, p = AdamW(1e-3, storage={"exp_avg": "bfloat16"}), np.ones((3, 4), np.float32)
    train(opt, p, 2)
    assert {name: x.dtype for name, x in codes(opt, p).items()} == {"exp_avg": np.uint16, "exp_avg_sq": np.float32}
    assert "storage={'exp_avg': 'bfloat16'}" in repr(opt)
    assert repr(ADAM(storage="float16")).endswith("storage='float16')")
    assert "storage" not in repr(ADAM())


def test_the_name_of_a_spec_stands_for_each_of_its_states() -> None:
    """AggMo has a velocity `v` for each rate: v1, v2 and v3."""
    opt, p = optgen.AggMo(storage={"v": "bfloat16", "v2": "float16"}, rounding={"v": "stochastic"}), np.ones(4, "f4")
    assert "storage={'v1': 'bfloat16', 'v2': 'float16', 'v3': 'bfloat16'}, rounding={'v1': 'stochastic'" in repr(opt)
    train(opt, p, 2)
    assert {name: x.dtype for name, x in codes(opt, p).items() if name != "stream"} == dict.fromkeys(
        ("v1", "v2", "v3"), np.uint16
    )
    with pytest.raises(ArgumentError, match="storage: ADAM has no state ''"):
        ADAM(storage={"": "bfloat16"})
    with pytest.raises(ArgumentError, match="storage: Prodigy has no state 'p'"):  # its state p0 is another
        optgen.Prodigy(storage={"p": "bfloat16"})


def test_small_states_stay_float64() -> None:
    opt, matrix, vector = Adafactor(storage="bfloat16"), np.ones((3, 4), np.float32), np.ones(4, np.float32)
    opt.step([matrix, vector], [matrix.copy(), vector.copy()])
    assert codes(opt, vector)["variance"].dtype == np.uint16
    assert {x.dtype for x in codes(opt, matrix).values()} == {np.dtype(np.float64)}


def test_parts_of_a_chain_keep_their_storages() -> None:
    made = lambda **how: chain(optgen.ClipNorm(1.0), ADAM(storage="bfloat16"), optgen.EMA(0.9), **how)  # noqa: E731
    opt, other, p = made(), made(backend="interpreter"), np.ones((3, 4), np.float32)
    q = p.copy()
    train(opt, p, 3)
    train(other, q, 3)
    assert p.tobytes() == q.tobytes()
    assert {name: x.dtype for name, x in codes(opt, p).items()} | {"stream": np.float64} == {
        "m": np.uint16, "v": np.uint16, "avg": np.float32, "stream": np.float64
    }  # fmt: skip
    assert np.array_equal(opt[1].state(p)["m"], other[1].state(q)["m"])
    assert repr(opt[1]) in repr(opt)
    assert "storage='bfloat16'" in repr(opt[1])


def test_a_chain_takes_no_storage_of_its_own() -> None:
    with pytest.raises(ArgumentError, match="chain: expected parts and a backend, got storage=") as error:
        chain(optgen.ClipNorm(1.0), ADAM(), storage="bfloat16")
    assert "give it to the part" in str(error.value)


def test_what_is_evaluated_is_made_of_stored_states() -> None:
    opt, p = ScheduleFreeAdamW(storage="bfloat16"), np.ones((3, 4), np.float32)
    train(opt, p, 3)
    trained = p.copy()
    opt.eval()
    assert not np.array_equal(p, trained)
    opt.train()
    assert np.array_equal(p, trained)


def test_a_state_that_is_set_is_stored() -> None:
    opt, p = ADAM(storage="bfloat16"), np.ones(3, np.float32)
    third = np.full(3, 1 / 3, np.float32)
    opt.set_state(p, m=third)
    assert np.array_equal(opt.state(p)["m"], third.astype(ml_dtypes.bfloat16).astype("f4"))
    with pytest.raises(StateError, match=r"expected v as an array of \(3,\), float32, got \(3,\), uint16"):
        opt.set_state(p, v=np.zeros(3, np.uint16))


def test_states_lie_as_their_parameter_does() -> None:
    whole = np.ones((6, 8), np.float32)
    for p in (whole[::2, 1:5], whole.T, whole[::-1]):
        opt, other, q = ADAM(storage="bfloat16"), ADAM(storage="bfloat16", backend="interpreter"), p.copy()
        train(opt, p, 3)
        train(other, q, 3)
        assert np.array_equal(p, q)


# ---- Resuming ----


def resumed(how: str, opt: Optimiser, p: Array, path: Path) -> Any:
    match how:
        case "a state dict":
            other = type(opt)(storage="bfloat16")
            other.load_state_dict(opt.state_dict(), [p])
        case "a state dict for whatever comes":
            other = type(opt)(storage="bfloat16")
            other.load_state_dict(opt.state_dict())
        case "a file":
            opt.save(path, [p])
            other = type(opt)(storage="bfloat16")
            other.load(path, [p])
        case "a pickle":
            other = pickle.loads(pickle.dumps(opt))
        case "a copy":
            other = copy(opt)
        case _:
            other = deepcopy(opt)
    return other


WAYS = ["a state dict", "a state dict for whatever comes", "a file", "a pickle", "a copy", "a deep copy"]


@pytest.mark.parametrize("how", WAYS)
def test_a_run_that_is_resumed_gives_the_same_bits(how: str, tmp_path: Path) -> None:
    opt, p = ADAM(storage="bfloat16"), np.ones((7, 5), np.float32)
    train(opt, p, 3)
    start = p.copy()
    train(opt, p, 4, seed=1)
    expected, states = p.copy(), {name: x.copy() for name, x in codes(opt, p).items()}
    again, q = ADAM(storage="bfloat16"), np.ones((7, 5), np.float32)
    train(again, q, 3)
    assert np.array_equal(q, start)
    other = resumed(how, again, q, tmp_path / "run.safetensors")
    train(other, q, 4, seed=1)
    assert q.tobytes() == expected.tobytes()
    assert all(np.array_equal(x, states[name]) for name, x in codes(other, q).items())


def test_a_state_dict_has_codes_and_says_of_which_storage() -> None:
    opt, p = AdamW(1e-3, storage={"exp_avg": "bfloat16"}), np.ones(4, np.float32)
    train(opt, p, 1)
    (entry,) = opt.state_dict()["parameters"]
    assert entry["storages"] == {"exp_avg": ("bfloat16", 1)}
    assert entry["state"]["exp_avg"].dtype == np.uint16
    assert "storages" not in AdamW().state_dict()


@pytest.mark.parametrize("file", [False, True])
@pytest.mark.parametrize(("saved", "wanted"), [(None, "bfloat16"), ("bfloat16", None), ("bfloat16", "float16")])
def test_another_storage_is_refused_unless_it_may_be_converted(
    saved: Any, wanted: Any, file: bool, tmp_path: Path
) -> None:
    opt, p, path = ADAM(storage=saved), np.ones(4, np.float32), tmp_path / "run.safetensors"
    train(opt, p, 2)
    numbers = {name: x.copy() for name, x in opt.state(p).items() if name in ("m", "v")}
    opt.save(path, [p])
    other = ADAM(storage=wanted)
    load = (lambda **how: other.load(path, [p], **how)) if file else (
        lambda **how: other.load_state_dict(opt.state_dict(), [p], **how)
    )  # fmt: skip
    expected = "expected a state with(out)? stochastic rounding, got one with(out)?"
    if saved and wanted:
        expected = f"saved parameter 0: expected m in {wanted}, got {saved}"
    with pytest.raises(StateError, match=expected):
        load()
    assert other.state(p)["t"] == 0
    load(convert=True)
    state = other.state(p)
    assert state["t"] == 2
    for name, x in numbers.items():
        assert state[name] == pytest.approx(x, rel=1e-2)


def test_without_stochastic_rounding_another_storage_is_refused_by_name() -> None:
    opt, p = ADAM(storage="bfloat16", rounding="nearest"), np.ones(4, np.float32)
    train(opt, p, 2)
    with pytest.raises(StateError, match="saved parameter 0: expected m in float32, got bfloat16") as error:
        ADAM().load_state_dict(opt.state_dict())
    assert "convert=True" in str(error.value)


def test_bad_entries_of_storages_are_refused() -> None:
    opt, p = ADAM(storage="bfloat16"), np.ones(4, np.float32)
    train(opt, p, 1)
    saved = opt.state_dict()

    def loading(storages: Any) -> None:
        entry = saved["parameters"][0] | {"storages": storages}
        opt.load_state_dict(saved | {"parameters": [entry]})

    with pytest.raises(StateError, match="expected m in bfloat16 of version 1, got 2"):
        loading({"m": ("bfloat16", 2), "v": ("bfloat16", 1)})
    for bad in ("bfloat16", ("bfloat16",), ("nothing", 1), ("bfloat16", "1"), ("bf16+8", 1)):
        with pytest.raises(StateError, match=r"expected the storage of m, one of bfloat16, .*, log4, and its version"):
            loading({"m": bad, "v": ("bfloat16", 1)})
    with pytest.raises(StateError, match="expected the storages of states by name, got"):
        loading([])
    with pytest.raises(StateError, match=r"expected m as an array of \(4,\), float32, got \(4,\), uint16"):
        loading({"v": ("bfloat16", 1)})
    loading(saved["parameters"][0]["storages"])


# ---- Bad input ----


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ADAM(storage="bf16"), "storage: expected one of bfloat16, float16, log8, linear8, log4, got 'bf16'"),
        (lambda: ADAM(storage=16), "storage: expected the name of a storage, or a name for each state, got 16"),
        (lambda: ADAM(storage={"x": "bfloat16"}), "storage: ADAM has no state 'x'; it has m, v"),
        (
            lambda: ADAM(storage={"m": "int8"}),
            "the storage of m: expected one of bfloat16, float16, log8, linear8, log4, got 'int8'",
        ),
        (lambda: AdamW(storage={"max_exp_avg_sq": "bfloat16"}), "AdamW has no state 'max_exp_avg_sq'; did you mean"),
        (lambda: SGD(storage="bfloat16"), "storage: SGD has no state with a value for each element, got 'bfloat16'"),
        (
            lambda: Adafactor(storage={"row_var": "bfloat16"}),
            "the storage of row_var: expected a state with a value for each element, got one value for each row",
        ),
    ],
)
def test_a_storage_that_a_state_cannot_have(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError) as error:
        make()
    assert message in str(error.value)


# ---- Parameters and gradients ----

BF16 = ml_dtypes.bfloat16


@pytest.mark.parametrize("kept", [BF16, np.float16, np.float32])
@pytest.mark.parametrize("gradient", [BF16, np.float16, np.float32])
def test_parameters_and_gradients_in_other_dtypes(kept: Any, gradient: Any) -> None:
    rng = np.random.default_rng(3)
    for layout in ("C", "strided"):
        p = rng.standard_normal((7, 6)).astype(kept)
        p = p[::2, 1:5] if layout == "strided" else p
        q, plain = p.copy(), p.astype(np.float32)
        opt, other, wide = ADAM(0.1), ADAM(0.1, backend="interpreter"), ADAM(0.1)
        for _ in range(3):
            g = rng.standard_normal(p.shape).astype(gradient)
            opt.step([p], [g])
            other.step([q], [g])
            wide.step([plain], [g.astype(np.float32)])
        assert p.tobytes() == q.tobytes()
        assert p.dtype == kept
        assert opt.state(p)["m"].dtype == np.float32
        assert np.array_equal(opt.state(p)["m"], wide.state(plain)["m"])
        assert p.astype(np.float32) == pytest.approx(plain, abs=0.05)


def test_gradients_of_several_dtypes_in_one_step() -> None:
    ps = [np.ones(5, np.float32), np.ones(5, BF16), np.ones(5, np.float64)]
    gs = [np.ones(5, BF16), np.ones(5, np.float32), np.ones(5)]
    opt = chain(optgen.ClipGlobalNorm(1.0), ADAM(0.1))
    other, qs = chain(optgen.ClipGlobalNorm(1.0), ADAM(0.1), backend="interpreter"), [p.copy() for p in ps]
    for _ in range(2):
        opt.step(ps, gs)
        other.step(qs, gs)
    assert [p.tobytes() for p in ps] == [q.tobytes() for q in qs]
    opt.step(ps, [np.ones(5, np.float16), gs[0], gs[2]])  # another dtype than the step before


def test_a_parameter_of_16_bits_is_saved_and_resumed(tmp_path: Path) -> None:
    opt, p, path = ADAM(0.1, storage="bfloat16"), np.ones(5, BF16), tmp_path / "run.safetensors"
    opt.step([p], [np.ones(5, BF16)])
    opt.save(path, [p])
    q, other = np.zeros(5, BF16), ADAM(0.1, storage="bfloat16")
    other.load(path, [q])
    again, r = ADAM(0.1, storage="bfloat16"), p.copy()
    again.load_state_dict(opt.state_dict(), [r])
    for each, x in ((opt, p), (other, q), (again, r)):
        each.step([x], [np.full(5, 0.5, BF16)])
    assert p.tobytes() == q.tobytes() == r.tobytes()
    with pytest.raises(StateError, match=r"parameter 0: expected \(5,\), float32; got \(5,\), bfloat16"):
        other.load(path, [np.zeros(5, np.float32)])


def test_rules_that_start_from_the_parameter_and_evaluate_it() -> None:
    opt, p = ScheduleFreeAdamW(0.1), np.full(5, 3, BF16)
    opt.step([p], [np.ones(5, BF16)])
    assert np.all(np.abs(opt.state(p)["z"] - 3) < 0.2)
    trained = p.copy()
    opt.eval()
    opt.train()
    assert p.tobytes() == trained.tobytes()


def test_a_gradient_of_another_compute_type_is_refused() -> None:
    p, expected = np.ones(3, BF16), "the gradient: expected bfloat16, the dtype of its parameter, got float64"
    with pytest.raises(ArrayError, match=expected) as error:
        ADAM().step([p], [np.ones(3)])
    assert "g.astype(p.dtype)" in str(error.value)
    with pytest.raises(ArrayError, match="the gradient: expected float64, the dtype of its parameter, got bfloat16"):
        ADAM().step([np.ones(3)], [p])
    assert np.array_equal(p, np.ones(3, BF16))


# ---- Stochastic rounding ----


def test_second_moments_are_rounded_stochastically_and_fall() -> None:
    """Rounded to the nearest, a second moment stays where it was when gradients shrink."""
    found = {}
    for rounding in (None, "nearest"):
        opt, p, g = ADAM(1e-3, storage="bfloat16", rounding=rounding), np.zeros(2000, np.float32), gradients((2000,))
        for step in range(4000):
            opt.step([p], [g() * np.float32(1 if step < 500 else 0.1)])
        found[rounding] = float(np.sqrt(opt.state(p)["v"]).mean())
    exact = np.sqrt(0.01 * (1 - 0.999**3500) + (1 - 0.999**500) * 0.999**3500)
    assert found[None] == pytest.approx(exact, rel=0.03)
    assert found["nearest"] > 1.5 * exact


def test_float16_has_no_small_second_moments() -> None:
    """What `docs/training.md` warns of; bfloat16 has them."""
    lengths = {}
    for storage in ("float16", "bfloat16"):
        opt, p = ADAM(0.01, storage={"v": storage}, rounding="nearest"), np.zeros(1, np.float32)
        for _ in range(4000):
            before = p.copy()
            opt.step([p], [np.full(1, 1e-3, np.float32)])
        lengths[storage] = float(np.abs(p - before)[0]) / 0.01
        assert (opt.state(p)["v"] == 0).all() == (storage == "float16")
    assert 30 < lengths["float16"] < 1 / np.sqrt(1 - 0.999)
    assert lengths["bfloat16"] < 3


def test_stochastic_rounding_is_right_on_average() -> None:
    p = np.full(100_000, 1, BF16)  # the next one below is 1 - 2**-8
    opt = optgen.Descent(2.0**-11, rounding={"p": "stochastic"}, seed=3)
    for _ in range(8):
        opt.step([p], [np.ones(p.size, np.float32)])
    assert p.astype(np.float32).mean() == pytest.approx(1 - 2.0**-8, abs=5e-5)
    nearest = np.full(8, 1, BF16)
    optgen.Descent(2.0**-11).step([nearest], [np.ones(8, np.float32)])
    assert np.array_equal(nearest, np.ones(8, BF16))


def test_the_bits_depend_on_seed_step_parameter_and_place_alone() -> None:
    def stepped(seed: int | None, ps: list[Array]) -> list[bytes]:
        opt = ADAM(1e-3, storage="bfloat16", rounding="stochastic", seed=seed)
        for _ in range(2):
            opt.step(ps, [np.full(p.shape, 0.3, np.float32) for p in ps])
        return [opt.state(p)["m"].tobytes() for p in ps]

    one, other = np.ones((40, 50), np.float32), np.ones((40, 50), np.float32)
    first = stepped(1, [one, other])
    assert first[0] != first[1]
    room = np.ones((80, 100), np.float32)
    assert stepped(1, [room[::2, ::2], np.ones((40, 50), np.float32)]) == first
    assert stepped(2, [np.ones((40, 50), np.float32)] * 1)[0] != first[0]
    assert stepped(None, [np.ones(9, np.float32)]) == stepped(0, [np.ones(9, np.float32)])


def test_what_is_rounded_how_is_shown_and_goes_with_copies() -> None:
    opt = AdamW(storage="bfloat16", rounding={"p": "stochastic", "exp_avg_sq": "nearest"}, seed=4)
    assert opt.seed == 4
    shown = "seed=4, storage='bfloat16', rounding={'p': 'stochastic', 'exp_avg_sq': 'nearest'})"
    assert repr(opt).endswith(shown)
    assert repr(pickle.loads(pickle.dumps(opt))).endswith(shown)
    assert "rounding" not in repr(AdamW(storage="bfloat16"))
    assert "seed" not in repr(AdamW(storage="bfloat16", rounding="nearest"))
    assert "seed" not in repr(AdamW(storage={"exp_avg": "bfloat16"}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ADAM(seed=1), "seed: expected none, since nothing of ADAM is rounded stochastically, got 1"),
        (lambda: ADAM(storage="bfloat16", seed=-1), "seed"),
        (lambda: ADAM(rounding={"m": "stochastic"}), "rounding: expected an array in a storage, of ADAM p, got 'm'"),
        (lambda: ADAM(rounding="up"), "rounding: expected one of nearest, stochastic, got 'up'"),
        (lambda: ADAM(rounding={"p": "up"}), "the rounding of p: expected one of nearest, stochastic, got 'up'"),
        (lambda: ADAM(rounding=3), "rounding: expected one of nearest, stochastic, or one for each array, got 3"),
    ],
)
def test_a_rounding_that_nothing_has(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(OptgenError) as error:
        make()
    assert message in str(error.value)


def test_a_parameter_with_too_many_elements_to_round_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptance, "MOST_ROUNDED", 8)
    opt, p = ADAM(storage="bfloat16"), np.ones(9, np.float32)
    with pytest.raises(ArrayError, match=r"parameter 0: expected at most 8 elements to round stochastically, got 9"):
        opt.step([p], [p.copy()])
    assert np.array_equal(p, np.ones(9))
    ADAM(storage="bfloat16", rounding="nearest").step([p], [p.copy()])
