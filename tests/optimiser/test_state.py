"""The state of parameters: found by memory, gone with it, saved and resumed bit for bit."""

from __future__ import annotations

import copy
import gc
import math
import mmap
import pickle
import re
import tempfile
import weakref
from collections import deque
from typing import Any

import numpy as np
import pytest
from memory import expect_bounded
from rules import GROUPED, OWN, RULES, SPECS, SUBJECTS, another, make, part_of, rules_of, variants

import optgen
from optgen import param
from optgen.errors import ArgumentError, ArrayError, HyperparameterError, StateError
from optgen.ir.expr import Extent, Matrices
from optgen.optimiser.base import compilation_of, engine_of, settings_of

DTYPES = ("float32", "float64")
BACKENDS = ("kernel", "interpreter")

by_subject = pytest.mark.parametrize("subject", SUBJECTS)
by_dtype = pytest.mark.parametrize("dtype", DTYPES)
by_backend = pytest.mark.parametrize("backend", BACKENDS)


def arrays(dtype="float64", shapes=((3, 4), (5,), (), (2, 3, 4)), seed=0):
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


def shape_of(extent, shape, matrices=Matrices.LAST_TWO):
    """The shape of a state, by NumPy's rules for what goes with an array of `shape`: as docs/language.md has it."""
    if extent == Extent.INDEX:
        return (sum(shape),)
    count = len(shape)
    ones = (1,) * (count - 1)
    along, across = {  # by dimension, whether a row has an index of its own, and whether a column has
        Matrices.LAST_TWO: ((*shape[:-1], 1), (*shape[:-2], 1, *shape[-1:])),
        Matrices.FIRST_BY_REST: ((*shape[:1], *ones), (1, *shape[1:])),
        Matrices.ALL_BUT_LAST: ((*shape[:-1], 1), (*ones, *shape[-1:])),
    }.get(matrices, ((), ()))
    many = shape[:-2] if matrices == Matrices.LAST_TWO else (1,) * (count - 2)
    shapes = {Extent.ELEMENT: shape, Extent.COLUMN: across, Extent.ROW: along, Extent.MATRIX: (*many, 1, 1)}
    return shapes.get(extent, ())


#: How many elements a block has by default, as the notes of the rules have it.
IN_BLOCK = {
    "AdamWSN": lambda shape: math.isqrt(math.prod(shape)),
    "AdamMini": lambda shape: math.prod(shape[1:] if len(shape) > 1 else shape),
}


#: States of these have a dimension of their own.
APART = {Extent.BLOCK, Extent.INDEX}


@by_subject
@by_dtype
@by_backend
def test_a_state_has_the_names_of_the_spec_and_shapes_and_dtypes_that_go_with_its_parameter(subject, dtype, backend):
    opt, ps = make(subject, backend), arrays(dtype)
    rules = {rule.matrix: rule for rule in rules_of(subject)}
    for steps in (0, 2):
        run(opt, ps, steps)
        for p in ps:
            state, rule = opt.state(p), rules.get(p.ndim >= 2) or rules[None]
            assert list(state) == [s.name for s in sorted(rule.states, key=lambda s: s.extent == Extent.GROUP)] + ["t"]
            assert state["t"] == steps
            for own in rule.states:
                expected = p.dtype if own.extent == Extent.ELEMENT else np.float64
                shape = shape_of(own.extent, p.shape, rule.matrices)
                if own.dims is not None:
                    sides = {"row": len(p), "column": p.size // len(p)}  # of the first dimension by the rest
                    shape = sides[own.dims.rows], sides[own.dims.columns]
                if own.extent == Extent.BLOCK:
                    shape = (math.ceil(p.size / IN_BLOCK[subject](p.shape)),)
                assert (state[own.name].shape, state[own.name].dtype) == (shape, expected)
                assert not state[own.name].flags.writeable
                assert own.extent in APART or own.dims or np.broadcast_shapes(shape, p.shape) == p.shape
    assert len(engine_of(opt).states) == len(ps)


START = np.array([[1.0, -2.0, 3.0], [0.5, 0.0, -7.0]])


@by_backend
@pytest.mark.parametrize(
    ("subject", "given", "start"),
    [
        ("ADAGrad", {"eps": 0.5}, {"acc": 0.5}),
        ("AMSGrad", {"eps": 0.5}, {"m": 0.5, "v": 0.5, "vhat": 0.5}),
        ("ADAM", {"eps": 0.5}, {"m": 0}),
        ("Rprop", {"lr": 0.25}, {"prev": 0, "step_size": 0.25}),
        ("Adagrad", {"initial_accumulator_value": 0.25}, {"state_sum": 0.25}),
        ("Yogi", {"initial": 0.125}, {"m": 0.125, "v": 0.125}),
        ("ASGD", {"lr": 0.25}, {"eta": 0.25, "mu": 1, "ax": 0}),
        ("NAdam", {}, {"mu_product": 1}),
        ("NovoGrad", {}, {"v": 0, "m": 0}),
        ("SM3", {}, {"acc_index": 0}),
        ("ScheduleFreeSGD", {}, {"z": START, "max_lr": 0}),
        ("Prodigy", {"d0": 0.25}, {"p0": START, "d": 0.25, "num": 0}),
        ("ADAM, EMA", {}, {"avg": START}),
        ("ADAM, Lookahead", {}, {"slow": START}),
        ("AccumGrad, ADAM", {}, {"acc": 0, "count": 0, "m": 0}),
    ],
)
def test_a_state_starts_as_the_spec_says(subject, given, start, backend):
    opt, p = make(subject, backend, **given), START.copy()
    state = opt.state(p)
    assert all((state[name] == value).all() for name, value in start.items())
    assert len(engine_of(opt).states) == 0  # to look is not to begin
    assert opt.state_dict()["parameters"] == []
    p *= 2
    again = opt.state(p)
    for name, value in start.items():
        assert (again[name] == (2 * START if value is START else value)).all()
    opt.step([p], [np.zeros((2, 3))])
    assert state["t"] == 0
    assert opt.state(p)["t"] == 1


@by_backend
def test_the_states_of_lines_are_of_all_dimensions_but_the_last(backend):
    opt, ps = make("Lines", backend), arrays(shapes=((3, 4), (2, 3, 4), (5,), (2, 0, 3)))
    run(opt, ps, 2)
    shapes = [{name: array.shape for name, array in opt.state(p).items() if name != "t"} for p in ps]
    assert shapes == [
        {"r": (3, 1), "c": (1, 4), "b": (1, 1)},
        {"r": (2, 3, 1), "c": (1, 1, 4), "b": (1, 1, 1)},
        {},
        {"r": (2, 0, 1), "c": (1, 1, 3), "b": (1, 1, 1)},
    ]


@pytest.mark.parametrize("rule", ["RACS", "Lines"])
def test_in_pieces_too_there_are_columns_where_there_are_no_rows(rule):
    found = []
    for backend in BACKENDS:
        opt = make(rule, backend)
        p, g = (np.lib.stride_tricks.as_strided(np.zeros(64), (0, 1, 2, 2), (256, 64, 8, 32)) for _ in range(2))
        opt.step([p], [g])
        found.append({name: array.tobytes() for name, array in opt.state(p).items() if name != "t"})
    assert found[0] == found[1]


@by_backend
def test_the_states_of_slices_are_of_the_first_dimension(backend):
    opt, ps = make("Slices", backend), arrays(shapes=((3, 4), (2, 3, 4), (5,), (2, 0, 3)))
    run(opt, ps, 2)
    shapes = [{name: array.shape for name, array in opt.state(p).items() if name != "t"} for p in ps]
    assert shapes == [
        {"r": (3, 1), "c": (1, 4), "b": (1, 1)},
        {"r": (2, 1, 1), "c": (1, 3, 4), "b": (1, 1, 1)},
        {},
        {"r": (2, 1, 1), "c": (1, 0, 3), "b": (1, 1, 1)},
    ]


@by_backend
def test_to_look_at_the_state_of_a_group_is_not_to_begin_it(backend):
    opt, p = optgen.Prodigy(d0=0.25, backend=backend), np.ones(3)
    assert opt.state(p)["d"] == 0.25
    opt.d0 = 0.5
    assert opt.state(p)["d"] == 0.5
    assert "group" not in opt.state_dict()
    opt.step([p], [np.zeros(3)])
    opt.d0 = 0.125  # too late
    assert opt.state(p)["d"] == opt.state(np.ones(2))["d"] == opt.state_dict()["group"]["d"] == 0.5


@pytest.mark.parametrize("offset", [0, 4, 16, 60])
def test_the_arrays_of_a_state_stand_in_lines_of_the_cache_as_their_parameter(offset):
    """Else the vectors of a kernel, which lie within lines of the parameter, would lie across those of the states."""
    room = np.zeros(5064, np.uint8)
    p = room[-room.ctypes.data % 64 + offset :][:4000].view(np.float32).reshape(25, 40)
    opt = optgen.ADAM()
    for x in (p, p.T):
        opt.step([x], [np.ones_like(x)])
        for name in ("m", "v"):
            state = opt.state(x)[name]
            assert (state.shape, state.strides, state.dtype) == (x.shape, x.strides, x.dtype)
            assert state.ctypes.data % 64 == offset


@by_backend
def test_the_arrays_of_a_state_are_live(backend):
    opt, p = optgen.Momentum(eta=1.0, backend=backend), np.ones(2)
    opt.step([p], [np.ones(2)])
    v = opt.state(p)["v"]
    opt.step([p], [np.ones(2)])
    assert (v == 1.9).all()


@by_backend
@pytest.mark.parametrize(
    ("subject", "name"), [("NovoGrad", "v"), ("SM3", "acc_index"), ("Adafactor", "col_var"), ("DAdaptAdamW", "num")]
)
def test_the_small_states_are_live_too(subject, name, backend):
    opt, p = make(subject, backend), START.copy()
    opt.step([p], [START / 4])
    seen = opt.state(p)[name]
    before = seen.copy()
    for _ in range(3):
        opt.step([p], [START])
        assert (seen == opt.state(p)[name]).all()
    assert (seen != before).any()


@by_backend
@pytest.mark.parametrize("subject", ["ADAM", "Adam", "SM3", "Prodigy", "ScheduleFreeSGD", "ADAM, EMA"])
def test_the_state_of_a_parameter_is_there_under_a_schedule_too(subject, backend):
    opt, ps = make(subject, backend), arrays()
    rate = next(name for name in ("eta", "lr") if name in settings_of(opt).spellings)
    setattr(opt, rate, optgen.linear(0.1, 0.01, 10))
    for t in range(3):
        for p in (*ps, np.ones(7)):
            state = opt.state(p)
            assert state["t"] == (t if p.size != 7 else 0)
        run(opt, ps, 1, start=t)


def test_the_state_of_what_is_no_parameter():
    with pytest.raises(ArrayError, match="the parameter: expected a NumPy array or param"):
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
    assert len(engine_of(opt).states) == 1


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


class Circular(np.ndarray):
    """An array that calls itself its base."""

    base = property(lambda self: self)


class Holder:
    """The owner of some memory, which calls something else its base."""

    def __init__(self, memory, base):
        self.memory, self.base = memory, base or self
        self.__array_interface__ = memory.__array_interface__


def around(memory):
    """Two that call each other their base."""
    one, two = Holder(memory, None), Holder(memory, None)
    one.base, two.base = two, one
    return np.asarray(one)


@pytest.mark.parametrize(
    "made",
    [lambda memory: np.asarray(Holder(memory, None)), around, lambda memory: memory.view(Circular)],
    ids=["itself", "each other", "an array"],
)
@by_backend
def test_what_calls_itself_its_base_is_not_gone_after(made, backend):
    p, opt = made(np.ones(8)), optgen.Descent(0.5, backend=backend)
    for t in (1, 2):
        assert opt.step([p[:]], [np.ones(8)])
        assert opt.state(p)["t"] == t
    assert (p == 0).all()


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


@by_subject
@by_backend
def test_state_dies_with_its_parameter(subject, backend):
    opt, keep, other = make(subject, backend), np.ones(5), np.ones(5)
    tracked = param(np.ones((5, 2)))
    grads = [np.ones(5), np.ones(5), np.ones((5, 2))]
    opt.step([keep, other, tracked], grads)
    if subject not in GROUPED:
        opt.step([other], grads[:1])
    slots = [weakref.ref(slot) for slot in engine_of(opt).states.slots()]
    dying = [weakref.ref(x) for x in (other, tracked, tracked.data, *grads)]
    del other, tracked, grads
    if backend == "interpreter" or any(rule.multiplies for rule in rules_of(subject)):  # which has no kernel
        gc.collect()
    assert [ref() for ref in dying] == [None] * 6
    assert [slot() is None for slot in slots] == [False, True, True]
    assert len(engine_of(opt).engine.plans) == 0
    assert opt.state(keep)["t"] == 1
    opt.step([keep], [np.ones(5)])  # and it goes on, a group with those that are left
    assert opt.state(keep)["t"] == 2
    assert len(engine_of(opt).states) == 1


@by_backend
def test_a_group_is_of_the_parameters_that_are_left(backend):
    opt = optgen.chain(optgen.ClipGlobalNorm(1.0, eps=0.0), optgen.Descent(1.0), backend=backend)
    p, q, r = np.zeros(1), np.zeros(2), np.zeros(1)
    opt.step([p, q, r], [np.array([3.0]), np.array([0.0, 4.0]), np.array([12.0])])
    np.testing.assert_allclose([*p, *q, *r], np.array([-3.0, 0.0, -4.0, -12.0]) / 13)
    del r
    opt.step([p, q], [np.array([3.0]), np.array([0.0, 4.0])])
    np.testing.assert_allclose([*p, *q], [-3 / 13 - 0.6, 0.0, -4 / 13 - 0.8])
    del q
    opt.step([p], [np.array([3.0])])
    np.testing.assert_allclose(p, -3 / 13 - 1.6)


@pytest.mark.parametrize("subject", GROUPED)
def test_a_group_that_loses_a_parameter_goes_on_the_same_with_both_backends_and_after_a_resume(subject):
    results = []
    for backend in BACKENDS:
        for way in ("straight", "state dict with its parameters", "pickle", "copy"):
            opt, ps = make(subject, backend), arrays()
            run(opt, ps, 3)
            del ps[1]
            gc.collect()
            if way in WAYS:
                opt = WAYS[way](opt, ps, lambda backend, subject=subject: make(subject, backend))
            run(opt, ps, 3, start=3)
            results.append(bits(opt, ps))
            assert len(opt.state_dict()["parameters"]) == 3
    assert all(result == results[0] for result in results)


def test_state_dies_with_a_parameter_that_the_garbage_collector_finds():
    opt, cycle = optgen.ADAM(), [np.ones(5)]
    cycle.append(cycle)
    opt.step(cycle[:1], [np.ones(5)])
    del cycle
    gc.collect()
    assert len(engine_of(opt).states) == len(engine_of(opt).engine.plans) == len(engine_of(opt).states._owners) == 0


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
            assert len(engine_of(opt).states) == len(engine_of(opt).states._owners) <= 1
    finally:
        gc.set_threshold(*threshold)


@pytest.mark.parametrize(("backend", "count"), [("kernel", 3000), ("interpreter", 1000)])
def test_many_short_lived_parameters_leave_nothing_behind(backend, count):
    opt, keep, crowd = optgen.ADAM(backend=backend), np.ones(64), []
    for i in range(count):
        p = np.ones(64)
        opt.step([p], [keep])
        if i % 10 == 0:
            opt.step([param(p), keep], [np.ones(64), np.ones(64)])
        crowd = [*crowd[-20:], p]  # so that ids are not reused at once
        assert len(engine_of(opt).states) <= 100
    del p, crowd
    gc.collect()
    assert len(engine_of(opt).states) == len(engine_of(opt).states._owners) == 1
    assert len(engine_of(opt).engine.plans) == 0
    assert len(engine_of(opt).states.slots()[0].plans) == 0


@by_backend
def test_memory_does_not_grow(backend):
    opt, keep = optgen.ADAM(backend=backend), np.ones(64)
    living = deque(maxlen=4)  # beside these, what Python and NumPy keep for reuse is little

    def step_a_new_one():
        living.append(p := np.ones(64))
        opt.step([p, keep], [p + 1, keep + 1])

    expect_bounded(step_a_new_one, 100, 200)


def test_an_optimiser_goes_away_at_once_and_takes_its_states_along():
    opt, p = optgen.ADAM(), np.ones(5)
    opt.step([p], [np.ones(5)])
    dying = [weakref.ref(opt), weakref.ref(engine_of(opt).states.slots()[0])]
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


def through_dict(opt, ps, fresh):
    twin = fresh(opt.backend)
    twin.load_state_dict(opt.state_dict(), ps)
    return twin


def through_pending(opt, ps, fresh):
    twin = fresh(opt.backend)
    twin.load_state_dict(opt.state_dict())
    return twin


def through_npz(opt, ps, fresh):
    """As a user would store it: arrays and numbers, nothing pickled."""
    import io

    saved, file = opt.state_dict(), io.BytesIO()
    entries, group = saved.pop("parameters"), saved.pop("group", {})
    np.savez(
        file,
        allow_pickle=False,
        **{f"hyper.{name}": np.array(value) for name, value in saved["hyperparameters"].items()},
        **{f"group.{name}": array for name, array in group.items()},
        **{f"{i}.shape": np.array(e["shape"], int) for i, e in enumerate(entries)},
        **{f"{i}.dtype": np.array(e["dtype"]) for i, e in enumerate(entries)},
        **{f"{i}.t": np.array(e["t"]) for i, e in enumerate(entries)},
        **{f"{i}.state.{name}": array for i, e in enumerate(entries) for name, array in e["state"].items()},
    )
    file.seek(0)
    stored = dict(np.load(file, allow_pickle=False))
    saved["hyperparameters"] = {n: stored[f"hyper.{n}"].tolist() for n in saved["hyperparameters"]}
    saved["group"] = {name: stored[f"group.{name}"] for name in group}
    saved["parameters"] = [
        {
            "shape": stored[f"{i}.shape"],
            "dtype": stored[f"{i}.dtype"],
            "t": stored[f"{i}.t"],
            "state": {name: stored[f"{i}.state.{name}"] for name in entry["state"]},
        }
        for i, entry in enumerate(entries)
    ]
    twin = fresh(opt.backend)
    twin.load_state_dict(saved, ps)
    return twin


def through_file(opt, ps, fresh):
    """The parameters are saved too, and have gone elsewhere meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        opt.save(f"{folder}/run.safetensors", ps)
        for p in ps:
            p[...] = 0
        twin = fresh(opt.backend)
        twin.load(f"{folder}/run.safetensors", ps)
    return twin


#: Each takes an optimiser, its parameters, and what makes a fresh one of a backend.
WAYS = {
    "state dict with its parameters": through_dict,
    "state dict, then the first step": through_pending,
    "into itself": lambda opt, ps, fresh: (opt.load_state_dict(opt.state_dict()), opt)[1],
    "npz": through_npz,
    "file": through_file,
    "pickle": lambda opt, ps, fresh: pickle.loads(pickle.dumps(opt)),
    "deepcopy": lambda opt, ps, fresh: copy.deepcopy(opt),
    "copy": lambda opt, ps, fresh: copy.copy(opt),
    "pickle of a state dict": lambda opt, ps, fresh: through_npz(pickle.loads(pickle.dumps(opt)), ps, fresh),
    "the other backend": lambda opt, ps, fresh: (
        twin := fresh(BACKENDS[1 - BACKENDS.index(opt.backend)]),
        twin.load_state_dict(opt.state_dict(), ps),
    )[0],
}


def fresh_adam(backend):
    return optgen.ADAM(backend=backend)


def expect_to_resume(fresh, way, dtype, k, n):
    """k steps, and n more with what was resumed, are k + n steps; and some hyperparameter comes along."""

    def begun():
        opt = fresh("kernel")
        for hyper in compilation_of(part_of(opt)).rules[0].hypers[:1]:
            setattr(part_of(opt), hyper.name, another(hyper))
        return opt, arrays(dtype)

    straight, ps = begun()
    run(straight, ps, k + n)
    first, qs = begun()
    run(first, qs, k)
    resumed = WAYS[way](first, qs, fresh)
    run(resumed, qs, n, start=k)
    assert bits(resumed, qs) == bits(straight, ps)
    assert resumed.state_dict()["hyperparameters"] == straight.state_dict()["hyperparameters"]
    assert resumed.state_dict().keys() == straight.state_dict().keys()


@by_subject
@by_dtype
@pytest.mark.parametrize("way", WAYS)
def test_k_steps_and_n_more_after_a_resume_are_k_plus_n(subject, dtype, way):
    expect_to_resume(lambda backend: make(subject, backend), way, dtype, 2, 3)


@pytest.mark.parametrize("rule", OWN)
@by_dtype
@pytest.mark.parametrize("way", WAYS)
def test_states_of_all_extents_are_resumed(rule, dtype, way):
    found = {state.extent for each in compilation_of(make(rule)).rules for state in each.small_states}
    assert {Extent.MATRIX, Extent.ROW, Extent.COLUMN} <= found or found & APART
    expect_to_resume(lambda backend: make(rule, backend), way, dtype, 2, 3)


@pytest.mark.parametrize(("rule", "flags"), [each for each in variants() if each[0] in RULES], ids=str)
@by_dtype
def test_every_variant_is_resumed(rule, flags, dtype):
    expect_to_resume(lambda backend: make(rule, backend, **flags), "pickle of a state dict", dtype, 3, 2)


def test_parameters_with_counts_of_their_own_resume_with_them():
    opt, ps = optgen.ADAM(), arrays()
    run(opt, ps, 2)
    opt.step(ps[:1], [np.ones((3, 4))])
    for twin in (through_dict(opt, ps, fresh_adam), copy.copy(opt)):
        assert [twin.state(p)["t"] for p in ps] == [3, 2, 2, 2]


def test_a_pending_state_is_taken_up_in_order_over_several_steps():
    opt, ps = optgen.ADAM(), arrays()[:3]
    run(opt, ps, 2)
    twin = through_pending(opt, ps, fresh_adam)
    assert [twin.state(p)["t"] for p in ps] == [2, 2, 2]  # each is the only one of its shape and dtype
    assert twin.state(np.ones(7))["t"] == 0
    twin.step(ps[:2], [np.ones((3, 4)), np.ones(5)])
    fresh = np.ones(3)
    with pytest.raises(StateError, match=r"parameter 0: expected a saved state of \(3,\), float64, got \(\), fl"):
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
    twins = [through_dict(opt, ps, fresh_adam), copy.copy(opt)]
    for twin in twins:
        twin.load_state_dict(saved)
    pending = [through_pending(opt, ps, fresh_adam), copy.deepcopy(opt)]
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


@pytest.mark.parametrize("subject", ["SM3", "NovoGrad", "Prodigy", "AccumGrad, ADAM"])
def test_small_states_that_are_handed_out_or_taken_in_are_not_shared_either(subject):
    opt, ps = make(subject), arrays()
    run(opt, ps, 2)
    want, saved = bits(opt, ps), opt.state_dict()
    through, deep = (WAYS[way](opt, ps, lambda backend: make(subject, backend)) for way in ("npz", "deepcopy"))
    twin = copy.copy(opt)
    twin.load_state_dict(saved)
    for given in (saved, deep.state_dict(), twin.state_dict()):
        for entry in (*given["parameters"], {"state": given.get("group", {})}):
            for array in entry["state"].values():
                array.fill(7)
    for one in (opt, through, twin):
        assert bits(one, ps) == want
    deep.load_state_dict(deep.state_dict(), ps)
    assert bits(deep, ps) == want
    run(twin, [p.copy() for p in ps] if subject not in GROUPED else ps, 1, start=2)
    assert bits(opt, ps)[1] == want[1]


@by_backend
@pytest.mark.parametrize("subject", GROUPED)
def test_a_loaded_group_is_taken_up_as_a_whole(subject, backend):
    """What waits for its parameters is of the group too."""
    opt, ps = make(subject, backend), arrays()
    run(opt, ps, 2)
    twin = copy.deepcopy(opt)
    before = pickle.dumps(twin)
    with pytest.raises(ArrayError, match="got all but 2"):
        twin.step(ps[:2], [np.ones_like(p) for p in ps[:2]])
    assert pickle.dumps(twin) == before
    qs = [p.copy() for p in ps]
    run(twin, qs, 2, start=2)
    run(opt, ps, 2, start=2)
    assert bits(twin, qs) == bits(opt, ps)


def test_a_copy_goes_on_with_the_same_parameters_on_its_own():
    opt, p = optgen.Momentum(), np.ones(3)
    opt.step([p], [np.ones(3)])
    twin = copy.copy(opt)
    twin.step([p], [np.ones(3)])
    assert (opt.state(p)["t"], twin.state(p)["t"]) == (1, 2)
    assert opt.state(p)["v"][0] != twin.state(p)["v"][0]
    del p
    assert len(engine_of(opt).states) == len(engine_of(twin).states) == 0


def test_a_copy_takes_up_pending_states_on_its_own():
    opt, ps = optgen.ADAM(), arrays()
    run(opt, ps, 2)
    waiting = copy.deepcopy(opt)
    twin = copy.copy(waiting)
    run(twin, ps, 1)
    others = [p.copy() for p in ps]
    run(waiting, others, 1)
    assert [twin.state(p)["t"] for p in ps] == [waiting.state(p)["t"] for p in others] == [3] * 4


def test_parameters_of_any_layout_resume():
    layouts = [np.asfortranarray(np.ones((3, 4))), np.ones((6, 8))[::2, ::-2], np.ones((4, 3)).T]
    for p in layouts:
        p[...] = np.arange(12).reshape(3, 4)
    opt, g = optgen.ADAM(), np.arange(12.0).reshape(3, 4)
    opt.step(layouts, [g, g, g])
    want = opt.state(layouts[0])["m"]
    twin = through_dict(opt, [np.ones((3, 4)), *layouts[1:]], fresh_adam)
    assert all((entry["state"]["m"] == want).all() for entry in twin.state_dict()["parameters"])
    twin.step(layouts[1:], [g, g])
    assert (layouts[1] == layouts[2]).all()
    assert (opt.state(layouts[1])["m"] == want).all()


@pytest.mark.parametrize("subject", ["SM3", "Adafactor", "NovoGrad"])
def test_small_states_go_with_parameters_of_any_layout(subject):
    layouts = [np.asfortranarray(np.ones((3, 4))), np.ones((6, 8))[::2, ::-2], np.ones((4, 3)).T]
    g = np.arange(12.0).reshape(3, 4) - 3
    opt = make(subject)
    for p in layouts:
        p[...] = g
    opt.step(layouts, [g, g, g])
    plain = g.copy()
    twin = through_dict(opt, [plain, *layouts[1:]], lambda backend: make(subject, backend))
    plain[...] = layouts[0]
    twin.step([*layouts[1:], plain], [g, g, g])
    for p in layouts[1:]:
        assert (p == plain).all()
        for name, array in twin.state(plain).items():
            assert np.array_equal(array, twin.state(p)[name])


# ---- What does not fit ----


def damaged(saved, **changes):
    return {**saved, **changes}


def entry_with(saved, **changes):
    return damaged(saved, parameters=[saved["parameters"][0], {**saved["parameters"][1], **changes}])


M, V = np.zeros(5), np.zeros(5)

FAULTS = [
    (lambda s: None, r"expected what state_dict\(\) gives, with format, rule, flags, hyperparameters, parameters"),
    (lambda s: {n: s[n] for n in s if n != "rule"}, "what state_dict"),
    (lambda s: damaged(s, format=2), "expected a state of format 1, got 2"),
    (lambda s: damaged(s, rule="NADAM"), "expected a state of ADAM, got one of NADAM"),
    (lambda s: damaged(s, flags={"x": True}), "expected a state with the flags {}, got {'x': True}"),
    (lambda s: damaged(s, hyperparameters={"eta": 1}), "expected the hyperparameters eta, beta, eps, got eta"),
    (lambda s: damaged(s, hyperparameters={}), "expected the hyperparameters eta, beta, eps, got none"),
    (lambda s: damaged(s, hyperparameters=3), "expected the hyperparameters eta, beta, eps, got int"),
    (lambda s: damaged(s, parameters={}), "expected a list of saved parameters, got dict"),
    (lambda s: damaged(s, parameters=[1]), "saved parameter 0: expected shape, dtype, t and state, got"),
    (lambda s: damaged(s, parameters=[{"t": 1}]), "saved parameter 0: expected shape, dtype, t and state, got"),
    (lambda s: entry_with(s, shape=5), "saved parameter 1: expected a tuple of numbers as shape, got 5"),
    (lambda s: entry_with(s, shape="5"), "saved parameter 1: expected a tuple of numbers as shape, got '5'"),
    (lambda s: entry_with(s, t=-1), "saved parameter 1: expected a count of updates as t, got -1"),
    (lambda s: entry_with(s, t=1.5), "saved parameter 1: expected a count of updates as t, got 1.5"),
    (lambda s: entry_with(s, t=10**400), "saved parameter 1: expected a count of updates as t, got 10"),
    (lambda s: entry_with(s, state={"m": M}), "saved parameter 1: expected the states m, v, got m$"),
    (lambda s: entry_with(s, state={"m": M, "u": V}), "saved parameter 1: expected the states m, v, got m, u"),
    (lambda s: entry_with(s, state={}), "saved parameter 1: expected the states m, v, got none"),
    (lambda s: entry_with(s, state=[M, V]), "saved parameter 1: expected the states m, v, got list"),
    (
        lambda s: entry_with(s, state={"m": M, "v": [0.0] * 5}),
        r"1: expected v as an array of \(5,\), float64, got list",
    ),
    (lambda s: entry_with(s, state={"m": M, "v": V[:3]}), r"1: expected v as an array of \(5,\), float64, got \(3,\)"),
    (lambda s: entry_with(s, state={"m": M, "v": V.astype("f4")}), r"1: expected v as an .*, got \(5,\), float32"),
    (
        lambda s: entry_with(s, shape=(3,), state={"m": M[:3], "v": V[:3]}),
        r"parameter 1: expected a saved state of \(5,\)",
    ),
    (
        lambda s: entry_with(s, dtype="float32", state={"m": M.astype("f4"), "v": V.astype("f4")}),
        r"parameter 1: expected a saved state of \(5,\), float64, got \(5,\), float32",
    ),
    (
        lambda s: damaged(s, parameters=s["parameters"][::-1]),
        r"parameter 0: expected a saved state of \(3, 4\), float64",
    ),
    (lambda s: damaged(s, parameters=s["parameters"][:1]), "expected saved states of 2 parameters, got 1"),
    (lambda s: damaged(s, parameters=s["parameters"] * 2), "expected saved states of 2 parameters, got 4"),
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


def with_state(name, value):
    """What becomes of a state dict if the second parameter has this in the place of a state."""
    return lambda s: entry_with(s, state={**s["parameters"][1]["state"], name: value})


def without_state(name):
    return lambda s: entry_with(s, state={n: x for n, x in s["parameters"][1]["state"].items() if n != name})


def with_group(value):
    return lambda s: damaged(s, group=value)


def double(*shape):
    return np.zeros(shape)


def wanted(name, shape, dtype, got):
    return re.escape(f"saved parameter 1: expected {name} as an array of {shape}, {dtype}, got {got}") + "$"


def of_rows_and_columns(state):
    """The state of SM3 as it was while it took tensors as matrices of the last two dimensions."""
    return {"m": state["m"], "acc_row": double(2, 3, 1), "acc_column": double(2, 1, 4)}


D, NUM = np.array(0.5), np.array(0.25)
OF_MATRICES = "expected the states m, acc_index, got"
OF_GROUP = "expected the states num, d of the group, got"

#: Of parameters of shape (5,) and (2, 3, 4), of float32: what is done to the state dict, and what is said.
SMALL_FAULTS = [
    ("SM3", without_state("acc_index"), f"saved parameter 1: {OF_MATRICES} m$"),
    ("SM3", with_state("acc", double(2, 3, 4)), f"saved parameter 1: {OF_MATRICES} m, acc_index, acc$"),
    ("SM3", with_state("acc_index", double(2, 3)), wanted("acc_index", (9,), "float64", "(2, 3), float64")),
    ("SM3", with_state("acc_index", double(7)), wanted("acc_index", (9,), "float64", "(7,), float64")),
    ("SM3", with_state("acc_index", double(2, 3, 4)), wanted("acc_index", (9,), "float64", "(2, 3, 4), float64")),
    ("SM3", with_state("acc_index", double(9).astype("f4")), wanted("acc_index", (9,), "float64", "(9,), float32")),
    ("SM3", with_state("acc_index", [0.0] * 9), wanted("acc_index", (9,), "float64", "list")),
    (
        "SM3",
        lambda s: entry_with(s, state=of_rows_and_columns(s["parameters"][1]["state"])),
        f"saved parameter 1: {OF_MATRICES} m, acc_row, acc_column$",
    ),
    ("SM3", with_state("m", double(2, 3, 4)), wanted("m", (2, 3, 4), "float32", "(2, 3, 4), float64")),
    (
        "SM3",
        lambda s: damaged(s, parameters=[{**s["parameters"][0], "state": s["parameters"][1]["state"]}] * 2),
        "saved parameter 0: expected the states m, acc, got m, acc_index$",
    ),
    ("SM3", lambda s: entry_with(s, shape=(6, 4)), wanted("m", (6, 4), "float32", "(2, 3, 4), float32")),
    ("Adafactor", with_state("row_var", double(3, 1)), wanted("row_var", (2, 3, 1), "float64", "(3, 1), float64")),
    ("Adafactor", with_state("col_var", double(2, 4)), wanted("col_var", (2, 1, 4), "float64", "(2, 4), float64")),
    ("Adafactor", without_state("col_var"), "parameter 1: expected the states row_var, col_var, got row_var$"),
    ("NovoGrad", without_state("v"), "saved parameter 1: expected the states m, v, got m$"),
    ("NovoGrad", with_state("v", 0.0), wanted("v", (), "float64", "float")),
    ("NovoGrad", with_state("v", double(1)), wanted("v", (), "float64", "(1,), float64")),
    ("NovoGrad", with_state("v", np.array(0, "f4")), wanted("v", (), "float64", "(), float32")),
    ("NovoGrad", with_state("v", double(2, 3, 4)), wanted("v", (), "float64", "(2, 3, 4), float64")),
    ("AccumGrad, ADAM", with_state("count", double(1)), wanted("count", (), "float64", "(1,), float64")),
    ("AccumGrad, ADAM", without_state("acc"), r"parameter 1: expected the states .*\bacc\b.*, got (?!.*\bacc\b)"),
    ("Prodigy", lambda s: {n: s[n] for n in s if n != "group"}, f"{OF_GROUP} none$"),
    ("Prodigy", with_group({}), f"{OF_GROUP} none$"),
    ("Prodigy", with_group({"d": D}), f"{OF_GROUP} d$"),
    ("Prodigy", with_group({"d": D, "num": NUM, "s": D}), f"{OF_GROUP} d, num, s$"),
    ("Prodigy", with_group({"d": D, "den": NUM}), f"{OF_GROUP} d, den$"),
    ("Prodigy", with_group([D, NUM]), f"{OF_GROUP} list$"),
    ("Prodigy", with_group(None), f"{OF_GROUP} NoneType$"),
    ("Prodigy", with_group({"d": 0.5, "num": NUM}), r"d: expected an array of \(\), float64, got 0.5$"),
    ("Prodigy", with_group({"d": D, "num": double(1)}), r"num: expected an array of \(\), float64, got .*\[0\.\]"),
    ("Prodigy", with_group({"d": D.astype("f4"), "num": NUM}), r"d: expected an array of \(\), float64, got .*float32"),
    ("Prodigy", with_state("d", D), "parameter 1: expected the states m, v, s, p0, got m, v, s, p0, d$"),
    ("ADAM", with_group({"d": D}), "expected the states none of the group, got d$"),
]


@by_backend
@pytest.mark.parametrize(("subject", "damage", "message"), SMALL_FAULTS)
def test_small_states_that_do_not_fit_are_refused_and_nothing_is_changed(subject, damage, message, backend):
    opt, ps = make(subject, backend), arrays("float32", ((5,), (2, 3, 4)))
    run(opt, ps, 2)
    saved = opt.state_dict()
    run(opt, ps, 1)
    want, hypers = bits(opt, ps), repr(opt)
    rate = next(iter(saved["hyperparameters"]))
    saved["hyperparameters"][rate] = 7.0
    fresh = make(subject, backend)
    for one, params in ((opt, None), (opt, ps), (fresh, None)):
        with pytest.raises(StateError, match=message):
            one.load_state_dict(damage(saved), params)
        assert bits(opt, ps) == want
        assert repr(opt) == hypers
    assert repr(fresh) == repr(make(subject, backend))
    assert fresh.state_dict()["parameters"] == []
    opt.load_state_dict(saved)  # the rest of it was right
    assert bits(opt, ps) != want
    assert opt.state_dict()["hyperparameters"][rate] == 7


def test_a_group_without_parameters_is_saved_and_loaded():
    """They are gone, or there were none yet."""
    opt, p = optgen.Prodigy(d0=0.5), np.ones(3)
    optgen.Prodigy().load_state_dict(opt.state_dict())
    opt.step([p], [np.zeros(3)])
    del p
    saved = opt.state_dict()
    assert (saved["parameters"], saved["group"]["d"]) == ([], 0.5)
    twin = optgen.Prodigy()
    twin.load_state_dict(saved)
    assert twin.state(np.ones(2))["d"] == 0.5


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (lambda ps: ps[0], ArrayError, "expected a sequence of parameters, got an array of shape"),
        (lambda ps: 3, ArrayError, "expected a sequence of parameters, got int"),
        (lambda ps: [ps[0], None], ArrayError, "parameter 1: expected a NumPy array or param"),
        (
            lambda ps: [ps[0], ps[0]],
            ArrayError,
            "expected each parameter once, got one array as parameter 0 and parameter 1",
        ),
        (lambda ps: [ps[0], ps[0][0]], ArrayError, "an overlap of parameter 0 and parameter 1"),
        (lambda ps: [], StateError, "expected saved states of 0 parameters, got 2"),
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
    with pytest.raises(StateError, match=r"expected a state with the flags \{'coupled': False\}"):
        optgen.ADAMW().load_state_dict(saved)
    twin = optgen.ADAMW(coupled=True, decay=0.5)
    twin.load_state_dict(saved)
    assert twin.decay == 0


def test_every_rule_and_chain_refuses_the_state_of_every_other():
    made = {opt.rule.name: opt for opt in map(make, [*SPECS, *SUBJECTS])}
    assert len(made) == len({*SPECS, *SUBJECTS})
    saved = {name: opt.state_dict() for name, opt in made.items()}
    for name, opt in made.items():
        before = repr(opt)
        for other in made.keys() - {name}:
            with pytest.raises(StateError, match=f"expected a state of {name}, got one of {other}"):
                opt.load_state_dict(saved[other])
        assert repr(opt) == before


def test_the_state_that_awaits_a_parameter_is_shown_only_where_one_alone_can_be_meant():
    opt, ps = optgen.ADAM(), [np.ones(3), np.ones(3)]
    opt.step(ps, [np.ones(3), np.ones(3)])
    twin = optgen.ADAM()
    twin.load_state_dict(opt.state_dict())
    with pytest.raises(StateError, match=r"2 loaded states of shape \(3,\) wait for their parameters"):
        twin.state(ps[0])
    twin.load_state_dict(opt.state_dict(), ps)
    assert twin.state(ps[0])["t"] == 1


# ---- A state set by hand ----


def stepped(name: str, **hypers: object) -> tuple[Any, list[Any]]:
    opt, ps = getattr(optgen, name)(**hypers), [np.ones((3, 4), np.float32), np.ones(5)]
    opt.step(ps, [np.full_like(p, 0.5) for p in ps])
    return opt, ps


def test_a_state_is_set_by_hand_and_the_next_step_goes_by_it() -> None:
    """As from a checkpoint that has these values."""
    opt, ps = stepped("ADAM")
    m, v = np.arange(12, dtype="f4").reshape(3, 4), np.full((3, 4), 2.0, "f4")
    opt.set_state(ps[0], m=m, v=v, t=7)
    m[0, 0] = 99.0  # what was given is copied
    state = opt.state(ps[0])
    assert state["m"][0].tolist() == [0, 1, 2, 3]
    assert state["t"] == 7
    assert opt.state(ps[1])["t"] == 1
    saved, twins = opt.state_dict(), [p.copy() for p in ps]
    resumed = optgen.ADAM()
    resumed.load_state_dict(saved, twins)
    for each, own in ((opt, ps), (resumed, twins)):
        each.step(own, [np.full_like(p, 0.25) for p in own])
    assert all(p.tobytes() == q.tobytes() for p, q in zip(ps, twins, strict=True))


def test_the_state_of_a_parameter_that_was_never_stepped_is_set() -> None:
    opt, p = optgen.ADAM(), np.ones(3)
    opt.set_state(p, m=np.full(3, 0.5))
    assert opt.state(p)["m"].tolist() == [0.5] * 3
    assert opt.state(p)["v"].tolist() == [0.0] * 3
    assert opt.state(p)["t"] == 0


def test_small_states_and_those_of_all_parameters_are_set() -> None:
    opt, ps = stepped("SM3")
    opt.set_state(ps[0], acc_index=np.full(sum(ps[0].shape), 4.0))
    assert opt.state(ps[0])["acc_index"].tolist() == [4.0] * sum(ps[0].shape)
    opt, ps = stepped("Prodigy")
    opt.set_state(ps[0], d=0.25)
    assert opt.state(ps[1])["d"] == 0.25


AS_IT_IS = "expected m as an array of (3, 4), float32"
SET: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "an unknown name": ({"u": M}, ArgumentError, "expected a state among m, v, t, got u"),
    "another shape": (
        {"m": np.zeros((3, 1), "f4")},
        StateError,
        "expected m as an array of (3, 4), float32, got (3, 1)",
    ),
    "a number": ({"m": 1.0}, StateError, "expected m as an array of (3, 4), float32, got float"),
    "another dtype": (
        {"m": np.zeros((3, 4))},
        StateError,
        "expected m as an array of (3, 4), float32, got (3, 4), float64",
    ),
    "a count below 0": ({"t": -1}, StateError, "expected a count of updates as t, got -1"),
    "a count that is none": ({"t": 1.5}, StateError, "expected a count of updates as t, got 1.5"),
}


@pytest.mark.parametrize("fault", SET)
def test_what_does_not_fit_is_refused_and_nothing_is_set(fault: str) -> None:
    values, error, message = SET[fault]
    opt, ps = stepped("ADAM")
    before = opt.state_dict()
    with pytest.raises(error, match=re.escape(message)):
        opt.set_state(ps[0], **{"v": np.zeros((3, 4), "f4"), **values})
    assert pickle.dumps(opt.state_dict()) == pickle.dumps(before)
    with pytest.raises(ArrayError, match="expected a NumPy array"):
        opt.set_state([1.0], **values)


def test_a_state_is_not_set_where_loaded_ones_wait_or_in_a_part() -> None:
    opt, _ = stepped("ADAM")
    waiting = optgen.ADAM()
    waiting.load_state_dict(opt.state_dict())
    with pytest.raises(StateError, match="loaded states wait for their parameters"):
        waiting.set_state(np.ones((3, 4), "f4"), t=3)
    with pytest.raises(ArgumentError, match="has hyperparameters and states, and no steps of its own"):
        optgen.chain(optgen.ClipNorm(1.0), optgen.ADAM()).parts[1].set_state(np.ones(3), t=3)
