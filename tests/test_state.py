"""The state of parameters: found by memory, gone with it, saved and resumed bit for bit."""

from __future__ import annotations

import copy
import gc
import mmap
import pickle
import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest

import optgen
from optgen import driver, param
from optgen.errors import ArgumentError, ArrayError, HyperparameterError, StateError

SPECS = {spec.name: spec for spec in map(driver.compile_file, driver.shipped())}
RULES = list(SPECS)
STATES = {name: [state.name for state in spec.rules[0].states] for name, spec in SPECS.items()}
DTYPES = ("float32", "float64")
BACKENDS = ("kernel", "interpreter")

by_rule = pytest.mark.parametrize("rule", RULES)
by_dtype = pytest.mark.parametrize("dtype", DTYPES)
by_backend = pytest.mark.parametrize("backend", BACKENDS)


def arrays(dtype="float64", shapes=((3, 4), (5,), ()), seed=0):
    rng = np.random.default_rng(seed)
    return [np.array(rng.standard_normal(shape), dtype) for shape in shapes]


def run(opt, ps, steps, start=0):
    """Steps `start` to `start + steps` of one and the same training."""
    for i in range(start, start + steps):
        grads = arrays(shapes=[p.shape for p in ps], seed=100 + i)
        opt.step(ps, [g.astype(p.dtype) for p, g in zip(ps, grads, strict=True)])


def bits(opt, ps):
    """All that a step can change, comparable."""
    states = [opt.state(p) for p in ps]
    return [p.tobytes() for p in ps], [[s["t"], *(s[n].tobytes() for n in sorted(s) if n != "t")] for s in states]


# ---- What a state is ----


@by_rule
@by_dtype
@by_backend
def test_a_state_has_the_names_of_the_spec_and_the_shape_and_dtype_of_its_parameter(rule, dtype, backend):
    opt, ps = getattr(optgen, rule)(backend=backend), arrays(dtype)
    for steps in (0, 2):
        run(opt, ps, steps)
        for p in ps:
            state = opt.state(p)
            assert list(state) == [*STATES[rule], "t"]
            assert state["t"] == steps
            for name in STATES[rule]:
                assert (state[name].shape, state[name].dtype) == (p.shape, p.dtype)
                assert not state[name].flags.writeable
    assert len(opt._states) == len(ps)


@pytest.mark.parametrize(
    ("rule", "start"), [("ADAGrad", {"acc": 0.5}), ("AMSGrad", {"m": 0.5, "v": 0.5, "vhat": 0.5}), ("ADAM", {"m": 0})]
)
def test_a_state_starts_as_the_spec_says(rule, start):
    opt, p = getattr(optgen, rule)(eps=0.5), np.ones((2, 3))
    state = opt.state(p)
    assert all((state[name] == value).all() for name, value in start.items())
    assert len(opt._states) == 0  # to look is not to begin
    opt.step([p], [np.zeros((2, 3))])
    assert state["t"] == 0
    assert opt.state(p)["t"] == 1


def test_the_arrays_of_a_state_are_live():
    opt, p = optgen.Momentum(eta=1.0), np.ones(2)
    opt.step([p], [np.ones(2)])
    v = opt.state(p)["v"]
    opt.step([p], [np.ones(2)])
    assert (v == 1.9).all()


def test_the_state_of_what_is_no_parameter():
    with pytest.raises(ArrayError, match="the parameter: a NumPy array or param"):
        optgen.ADAM().state([1.0])


# ---- Found by memory ----


@by_backend
def test_views_of_one_place_are_one_parameter(backend):
    opt, W = optgen.ADAM(backend=backend), np.ones((4, 4))
    for _ in range(3):
        opt.step([W[:]], [np.ones((4, 4))])
    opt.step([W], [np.ones((4, 4))])
    opt.step([param(W)], [np.ones((4, 4))])
    opt.step([W.view(np.recarray)], [np.ones((4, 4))])
    assert opt.state(W)["t"] == 6
    assert len(opt._states) == 1


def test_places_of_one_array_are_parameters_of_their_own():
    opt, W = optgen.ADAM(), np.ones((4, 4))
    for i in range(4):
        for _ in range(i + 1):
            opt.step([W[i]], [np.ones(4)])
    assert [opt.state(W[i])["t"] for i in range(4)] == [1, 2, 3, 4]
    for other in (W, W.T, W[:, 0], W[0].view("f4"), W.view("f4")[0, ::2]):
        assert opt.state(other)["t"] == 0
    for other in (W.view("f4")[3, ::2], W[3]):  # of one address, shape and strides
        opt.step([other], [np.ones(4, other.dtype)])
    assert opt.state(W[3])["t"] == 5


@pytest.mark.parametrize("made", [lambda W: np.lib.stride_tricks.as_strided(W, (2, 4)), lambda W: W.view(np.memmap)])
def test_a_view_through_something_else_is_a_view_too(made):
    opt, W = optgen.ADAM(), np.ones((4, 4))
    for _ in range(3):
        opt.step([made(W)], [np.ones_like(made(W))])
    assert opt.state(made(W))["t"] == 3


def test_memory_that_is_no_arrays_own():
    for memory in (bytearray(64), mmap.mmap(-1, 64)):
        opt, p = optgen.ADAM(), np.frombuffer(memory)
        for _ in range(3):
            opt.step([p[:]], [np.ones(8)])
        assert opt.state(p)["t"] == 3
        assert np.frombuffer(memory)[0] == p[0] != 0
        p = None
        gc.collect()
    with mmap.mmap(-1, 64) as memory:  # its arrays come and go
        opt = optgen.ADAM()
        for t in range(3):
            assert opt.state(np.frombuffer(memory))["t"] == t
            opt.step([np.frombuffer(memory)], [np.ones(8)])


@by_backend
def test_a_parameter_cannot_be_moved_and_another_shape_is_another_parameter(backend):
    opt, p = optgen.ADAM(backend=backend), np.ones(8)
    opt.step([p], [np.ones(8)])
    with pytest.raises(ValueError, match="cannot resize"):
        p.resize(16, refcheck=False)
    p.resize((2, 4), refcheck=False)
    opt.step([p], [np.ones((2, 4))])
    assert opt.state(p)["t"] == 1
    assert opt.state(p)["m"].shape == (2, 4)
    p.resize(8, refcheck=False)
    assert opt.state(p)["t"] == 1


# ---- Gone with it ----


@by_rule
@by_backend
def test_state_dies_with_its_parameter(rule, backend):
    opt, keep, other = getattr(optgen, rule)(backend=backend), np.ones(5), np.ones(5)
    tracked = param(np.ones(5))
    grads = [np.ones(5) for _ in range(3)]
    opt.step([keep, other, tracked], grads)
    opt.step([other], grads[:1])
    slots = [weakref.ref(slot) for slot in opt._states.slots()]
    dying = [weakref.ref(x) for x in (other, tracked, tracked.data, *grads)]
    del other, tracked, grads
    if backend == "interpreter":
        gc.collect()
    assert [ref() for ref in dying] == [None] * 6
    assert [slot() is None for slot in slots] == [False, True, True]
    assert len(opt._plans) == 0
    assert opt.state(keep)["t"] == 1


def test_state_dies_with_a_parameter_that_the_garbage_collector_finds():
    opt, cycle = optgen.ADAM(), [np.ones(5)]
    cycle.append(cycle)
    opt.step(cycle[:1], [np.ones(5)])
    del cycle
    gc.collect()
    assert len(opt._states) == len(opt._plans) == len(opt._states._owners) == 0


@pytest.mark.parametrize(
    "act",
    [
        lambda opt, keep: opt.state_dict(),
        lambda opt, keep: copy.copy(opt),
        lambda opt, keep: opt.load_state_dict({**opt.state_dict(), "parameters": []}, []),
        lambda opt, keep: opt.step([keep[:], np.ones(5)], [np.ones(5), np.ones(5)]),
    ],
    ids=["state_dict", "copy", "load_state_dict", "step"],
)
def test_the_garbage_collector_may_take_parameters_at_any_moment(act):
    threshold = gc.get_threshold()
    gc.collect()
    gc.freeze()  # what a whole run of tests has loaded is not looked through each time
    try:
        for moment in range(1, 120):
            opt, keep = optgen.ADAM(), np.ones(5)
            opt.step([keep], [np.ones(5)])
            gc.set_threshold(0)
            for _ in range(5):
                cycle: list[Any] = [np.ones(5)]
                cycle.append(cycle)
                opt.step(cycle[:1], [np.ones(5)])
            del cycle
            gc.set_threshold(gc.get_count()[0] + moment)  # so many objects from now
            act(opt, keep)
            gc.collect()
            assert len(opt._states) == len(opt._states._owners) <= 1
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()


@pytest.mark.parametrize(("backend", "count"), [("kernel", 10_000), ("interpreter", 1000)])
def test_many_short_lived_parameters_leave_nothing_behind(backend, count):
    opt, keep, crowd = optgen.ADAM(backend=backend), np.ones(64), []
    for i in range(count):
        p = np.ones(64)
        opt.step([p], [keep])
        if i % 10 == 0:
            opt.step([param(p), keep], [np.ones(64), np.ones(64)])
        crowd = [*crowd[-20:], p]  # so that ids are not reused at once
        assert len(opt._states) <= 100
    del p, crowd
    gc.collect()
    assert len(opt._states) == len(opt._states._owners) == 1
    assert len(opt._plans) == 0
    assert len(opt._states.slots()[0].plans) == 0


@by_backend
def test_memory_does_not_grow(backend):
    opt, keep = optgen.ADAM(backend=backend), np.ones(64)

    def live():
        for _ in range(200):
            p = np.ones(64)
            opt.step([p, keep], [p + 1, keep + 1])
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        live()
        assert live() - live() < 1000
    finally:
        tracemalloc.stop()


def test_an_optimiser_goes_away_at_once_and_takes_its_states_along():
    opt, p = optgen.ADAM(), np.ones(5)
    opt.step([p], [np.ones(5)])
    dying = [weakref.ref(opt), weakref.ref(opt._states.slots()[0])]
    gc.disable()
    try:
        del opt
        assert [ref() for ref in dying] == [None, None]
    finally:
        gc.enable()


def test_an_id_that_is_used_again_is_another_parameter():
    opt, seen = optgen.ADAM(), set()
    for _ in range(200):
        p = np.ones(3)
        seen.add(id(p))
        opt.step([p], [np.ones(3)])
        assert opt.state(p)["t"] == 1
        del p
    assert len(seen) < 200  # or nothing was tested


# ---- Saved and resumed ----


def through_dict(opt, ps):
    twin = type(opt)(backend=opt.backend)
    twin.load_state_dict(opt.state_dict(), ps)
    return twin


def through_pending(opt, ps):
    twin = type(opt)(backend=opt.backend)
    twin.load_state_dict(opt.state_dict())
    return twin


def through_npz(opt, ps, path="/tmp"):
    """As a user would store it: arrays and numbers, nothing pickled."""
    import io

    saved, file = opt.state_dict(), io.BytesIO()
    entries = saved.pop("parameters")
    np.savez(
        file,
        allow_pickle=False,
        **{f"hyper.{name}": np.array(value) for name, value in saved["hyperparameters"].items()},
        **{f"{i}.shape": np.array(e["shape"], int) for i, e in enumerate(entries)},
        **{f"{i}.dtype": np.array(e["dtype"]) for i, e in enumerate(entries)},
        **{f"{i}.t": np.array(e["t"]) for i, e in enumerate(entries)},
        **{f"{i}.state.{name}": array for i, e in enumerate(entries) for name, array in e["state"].items()},
    )
    file.seek(0)
    stored = dict(np.load(file, allow_pickle=False))
    saved["hyperparameters"] = {n: stored[f"hyper.{n}"].tolist() for n in saved["hyperparameters"]}
    saved["parameters"] = [
        {
            "shape": stored[f"{i}.shape"],
            "dtype": stored[f"{i}.dtype"],
            "t": stored[f"{i}.t"],
            "state": {name: stored[f"{i}.state.{name}"] for name in entry["state"]},
        }
        for i, entry in enumerate(entries)
    ]
    twin = type(opt)(backend=opt.backend)
    twin.load_state_dict(saved, ps)
    return twin


WAYS = {
    "state dict with its parameters": through_dict,
    "state dict, then the first step": through_pending,
    "into itself": lambda opt, ps: (opt.load_state_dict(opt.state_dict()), opt)[1],
    "npz": through_npz,
    "pickle": lambda opt, ps: pickle.loads(pickle.dumps(opt)),
    "deepcopy": lambda opt, ps: copy.deepcopy(opt),
    "copy": lambda opt, ps: copy.copy(opt),
    "pickle of a state dict": lambda opt, ps: through_npz(pickle.loads(pickle.dumps(opt)), ps),
    "the other backend": lambda opt, ps: (
        twin := type(opt)(backend=BACKENDS[1 - BACKENDS.index(opt.backend)]),
        twin.load_state_dict(opt.state_dict(), ps),
    )[0],
}


@by_rule
@by_dtype
@pytest.mark.parametrize("way", WAYS)
def test_k_steps_and_n_more_after_a_resume_are_k_plus_n(rule, dtype, way):
    straight, ps = getattr(optgen, rule)(backend="kernel"), arrays(dtype)
    setattr(straight, RULES and next(iter(straight._values)), 0.03)
    run(straight, ps, 5)
    first, qs = getattr(optgen, rule)(backend="kernel"), arrays(dtype)
    setattr(first, next(iter(first._values)), 0.03)
    run(first, qs, 2)
    resumed = WAYS[way](first, qs)
    run(resumed, qs, 3, start=2)
    assert bits(resumed, qs) == bits(straight, ps)
    assert resumed.state_dict()["hyperparameters"] == straight.state_dict()["hyperparameters"]


def test_parameters_with_counts_of_their_own_resume_with_them():
    opt, ps = optgen.ADAM(), arrays()
    run(opt, ps, 2)
    opt.step(ps[:1], [np.ones((3, 4))])
    for twin in (through_dict(opt, ps), copy.copy(opt)):
        assert [twin.state(p)["t"] for p in ps] == [3, 2, 2]


def test_a_pending_state_is_taken_up_in_order_over_several_steps():
    opt, ps = optgen.ADAM(), arrays()
    run(opt, ps, 2)
    twin = through_pending(opt, ps)
    assert [twin.state(p)["t"] for p in ps] == [2, 2, 2]  # each is the only one of its shape and dtype
    assert twin.state(np.ones(7))["t"] == 0
    twin.step(ps[:2], [np.ones((3, 4)), np.ones(5)])
    fresh = np.ones(3)
    with pytest.raises(StateError, match=r"parameter 0: a saved state of \(3,\), float64 was expected, got \(\), fl"):
        twin.step([fresh], [fresh + 1])
    twin.load_state_dict(twin.state_dict())  # of two parameters that it has, and one that it waits for
    twin.step([ps[2]], [np.ones(())])
    twin.step([fresh], [fresh + 1])
    assert [twin.state(p)["t"] for p in (*ps, fresh)] == [3, 3, 3, 1]
    assert [entry["t"] for entry in twin.state_dict()["parameters"]] == [3, 3, 3, 1]


def test_nothing_that_is_handed_out_or_taken_in_is_shared():
    opt, ps = optgen.ADAM(), arrays()
    run(opt, ps, 2)
    want = bits(opt, ps)
    saved = opt.state_dict()
    clean = pickle.loads(pickle.dumps(saved))
    twins = [through_dict(opt, ps), copy.copy(opt)]
    for twin in twins:
        twin.load_state_dict(saved)
    pending = [through_pending(opt, ps), copy.deepcopy(opt)]
    pending += [copy.copy(pending[0])]
    pending[0].load_state_dict(saved)
    for given in (saved, *(opt.state_dict() for opt in pending)):
        for entry in given["parameters"]:
            for array in entry["state"].values():
                array.fill(7)
    assert bits(opt, ps) == want
    assert all(bits(twin, ps) == want for twin in twins)
    for twin in pending:
        twin.load_state_dict(twin.state_dict(), ps)
        assert bits(twin, ps) == want
    twins[1].eta = 0.5
    run(twins[1], [p.copy() for p in ps], 1)
    assert opt.eta == 0.001
    opt.load_state_dict(clean)
    assert bits(opt, ps) == want


def test_a_copy_goes_on_with_the_same_parameters_on_its_own():
    opt, p = optgen.Momentum(), np.ones(3)
    opt.step([p], [np.ones(3)])
    twin = copy.copy(opt)
    twin.step([p], [np.ones(3)])
    assert (opt.state(p)["t"], twin.state(p)["t"]) == (1, 2)
    assert opt.state(p)["v"][0] != twin.state(p)["v"][0]
    del p
    assert len(opt._states) == len(twin._states) == 0


def test_a_copy_takes_up_pending_states_on_its_own():
    opt, ps = optgen.ADAM(), arrays()
    run(opt, ps, 2)
    waiting = copy.deepcopy(opt)
    twin = copy.copy(waiting)
    run(twin, ps, 1)
    others = [p.copy() for p in ps]
    run(waiting, others, 1)
    assert [twin.state(p)["t"] for p in ps] == [waiting.state(p)["t"] for p in others] == [3, 3, 3]


def test_parameters_of_any_layout_resume():
    layouts = [np.asfortranarray(np.ones((3, 4))), np.ones((6, 8))[::2, ::-2], np.ones((4, 3)).T]
    for p in layouts:
        p[...] = np.arange(12).reshape(3, 4)
    opt, g = optgen.ADAM(), np.arange(12.0).reshape(3, 4)
    opt.step(layouts, [g, g, g])
    want = opt.state(layouts[0])["m"]
    twin = through_dict(opt, [np.ones((3, 4)), *layouts[1:]])
    assert all((entry["state"]["m"] == want).all() for entry in twin.state_dict()["parameters"])
    twin.step(layouts[1:], [g, g])
    assert (layouts[1] == layouts[2]).all()
    assert (opt.state(layouts[1])["m"] == want).all()


# ---- What does not fit ----


def damaged(saved, **changes):
    return {**saved, **changes}


def entry_with(saved, **changes):
    return damaged(saved, parameters=[saved["parameters"][0], {**saved["parameters"][1], **changes}])


M, V = np.zeros(5), np.zeros(5)

FAULTS = [
    (lambda s: None, r"what state_dict\(\) gives was expected, with format, rule, flags, hyperparameters, parameters"),
    (lambda s: {n: s[n] for n in s if n != "rule"}, "what state_dict"),
    (lambda s: damaged(s, format=2), "a state of format 1 was expected, got 2"),
    (lambda s: damaged(s, rule="NADAM"), "a state of ADAM was expected, got one of NADAM"),
    (lambda s: damaged(s, flags={"x": True}), "a state with the flags {} was expected, got {'x': True}"),
    (lambda s: damaged(s, hyperparameters={"eta": 1}), "hyperparameters eta, beta, eps were expected, got eta"),
    (lambda s: damaged(s, hyperparameters={}), "hyperparameters eta, beta, eps were expected, got none"),
    (lambda s: damaged(s, hyperparameters=3), "hyperparameters eta, beta, eps were expected, got int"),
    (lambda s: damaged(s, parameters={}), "a list of saved parameters was expected, got dict"),
    (lambda s: damaged(s, parameters=[1]), "saved parameter 0: shape, dtype, t and state were expected"),
    (lambda s: damaged(s, parameters=[{"t": 1}]), "saved parameter 0: shape, dtype, t and state were expected"),
    (lambda s: entry_with(s, shape=5), "saved parameter 1: a tuple of numbers was expected as shape, got 5"),
    (lambda s: entry_with(s, shape="5"), "saved parameter 1: a tuple of numbers was expected as shape, got '5'"),
    (lambda s: entry_with(s, t=-1), "saved parameter 1: a count of updates was expected as t, got -1"),
    (lambda s: entry_with(s, t=1.5), "saved parameter 1: a count of updates was expected as t, got 1.5"),
    (lambda s: entry_with(s, t=10**400), "saved parameter 1: a count of updates was expected as t, got 10"),
    (lambda s: entry_with(s, state={"m": M}), "saved parameter 1: the states m, v were expected, got m$"),
    (lambda s: entry_with(s, state={"m": M, "u": V}), "saved parameter 1: the states m, v were expected, got m, u"),
    (lambda s: entry_with(s, state={}), "saved parameter 1: the states m, v were expected, got none"),
    (lambda s: entry_with(s, state=[M, V]), "saved parameter 1: the states m, v were expected, got list"),
    (lambda s: entry_with(s, state={"m": M, "v": [0.0] * 5}), r"1: v as an array of \(5,\), float64 .*, got list"),
    (lambda s: entry_with(s, state={"m": M, "v": V[:3]}), r"1: v as an array of \(5,\), float64 was .*, got \(3,\)"),
    (lambda s: entry_with(s, state={"m": M, "v": V.astype("f4")}), r"1: v as an .* expected, got \(5,\), float32"),
    (lambda s: entry_with(s, shape=(3,), state={"m": M[:3], "v": V[:3]}), r"parameter 1: a saved state of \(5,\)"),
    (
        lambda s: entry_with(s, dtype="float32", state={"m": M.astype("f4"), "v": V.astype("f4")}),
        r"parameter 1: a saved state of \(5,\), float64 was expected, got \(5,\), float32",
    ),
    (lambda s: damaged(s, parameters=s["parameters"][::-1]), r"parameter 0: a saved state of \(3, 4\), float64 was"),
    (lambda s: damaged(s, parameters=s["parameters"][:1]), "saved states of 2 parameters were expected, got 1"),
    (lambda s: damaged(s, parameters=s["parameters"] * 2), "saved states of 2 parameters were expected, got 4"),
]


@by_backend
@pytest.mark.parametrize(("damage", "message"), FAULTS)
def test_a_state_that_does_not_fit_is_refused_and_nothing_is_changed(damage, message, backend):
    opt, ps = optgen.ADAM(backend=backend), arrays()[:2]
    run(opt, ps, 2)
    saved = opt.state_dict()
    run(opt, ps, 1)
    want, hypers = bits(opt, ps), repr(opt)
    saved["hyperparameters"]["eta"] = 0.5
    for params in (None, ps):
        with pytest.raises(StateError, match=message):
            opt.load_state_dict(damage(saved), params)
        assert bits(opt, ps) == want
        assert repr(opt) == hypers
    opt.load_state_dict(saved)  # the rest of it was right
    assert opt.eta == 0.5


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (lambda ps: ps[0], ArrayError, "a sequence of parameters was expected, got ndarray"),
        (lambda ps: 3, ArrayError, "a sequence of parameters was expected, got int"),
        (lambda ps: [ps[0], None], ArrayError, "parameter 1: a NumPy array or param"),
        (lambda ps: [ps[0], ps[0]], ArrayError, "parameter 0 and parameter 1 are the same array"),
        (lambda ps: [ps[0], ps[0][0]], ArrayError, "parameter 0 and parameter 1 overlap"),
        (lambda ps: [], StateError, "saved states of 0 parameters were expected, got 2"),
    ],
)
def test_parameters_that_cannot_be_given_a_state(params, error, message):
    opt, ps = optgen.ADAM(), arrays()[:2]
    run(opt, ps, 2)
    want = bits(opt, ps)
    with pytest.raises(error, match=message):
        opt.load_state_dict(opt.state_dict(), params(ps))
    assert bits(opt, ps) == want


def test_saved_hyperparameters_are_checked_as_given_ones_are():
    opt = optgen.ADAM()
    for value, error in ((-1, HyperparameterError), ("x", ArgumentError)):
        saved = opt.state_dict()
        saved["hyperparameters"]["eta"] = value
        with pytest.raises(error, match=r"eta \(η\)"):
            opt.load_state_dict(saved)


def test_loaded_hyperparameters_are_checked_against_the_dtype_before_the_next_step():
    opt, p = optgen.ADAM(), np.ones(3, np.float32)
    opt.step([p], [p + 1])
    saved = opt.state_dict()
    saved["hyperparameters"]["eps"] = 1e-60
    opt.load_state_dict(saved)
    with pytest.raises(HyperparameterError, match="would be 0 in float32"):
        opt.step([p], [p + 1])


def test_flags_are_part_of_a_state():
    saved = optgen.ADAMW(coupled=True).state_dict()
    with pytest.raises(StateError, match=r"a state with the flags \{'coupled': False\} was expected"):
        optgen.ADAMW().load_state_dict(saved)
    twin = optgen.ADAMW(coupled=True, decay=0.5)
    twin.load_state_dict(saved)
    assert twin.decay == 0


def test_every_rule_refuses_the_state_of_every_other():
    saved = {rule: getattr(optgen, rule)().state_dict() for rule in RULES}
    for rule in RULES:
        for other in set(RULES) - {rule}:
            with pytest.raises(StateError, match=f"a state of {rule} was expected, got one of {other}"):
                getattr(optgen, rule)().load_state_dict(saved[other])


def test_the_state_that_awaits_a_parameter_is_shown_only_where_one_alone_can_be_meant():
    opt, ps = optgen.ADAM(), [np.ones(3), np.ones(3)]
    opt.step(ps, [np.ones(3), np.ones(3)])
    twin = optgen.ADAM()
    twin.load_state_dict(opt.state_dict())
    with pytest.raises(StateError, match=r"2 loaded states of shape \(3,\) wait for their parameters"):
        twin.state(ps[0])
    twin.load_state_dict(opt.state_dict(), ps)
    assert twin.state(ps[0])["t"] == 1
