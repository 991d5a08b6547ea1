"""Steps that go by a plan: whatever happens between two of them, the kernels give what the interpreter gives."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from memory import expect_bounded
from rules import OWN, SUBJECTS, make
from searching import LONG

import optgen
from optgen import param
from optgen.errors import ArrayError, OptgenError
from optgen.ir.expr import Extent
from optgen.optimiser.base import compilation_of, engine_of, settings_of
from optgen.runtime import engine, guard, plan
from optgen.runtime.acceptance import Acceptance
from optgen.runtime.slots import Slot

BACKENDS = ("kernel", "interpreter")


def same(a, b):
    """Bit for bit; all NaNs are one."""
    nan = np.isnan(a)
    if a.shape != b.shape or not (nan == np.isnan(b)).all():
        return False
    return np.where(nan, 0, a).tobytes() == np.where(nan, 0, b).tobytes()


class Tracked:
    """A tracked parameter of somebody else's."""

    def __init__(self, data):
        self.data = data


def array_of(p):
    return p if isinstance(p, np.ndarray) else p.data


# ---- Layouts: an array with the values of another ----


def strided(v):
    a = np.zeros([2 * n for n in v.shape], v.dtype)[(*[slice(None, None, 2)] * v.ndim, ...)]
    a[...] = v
    return a


def backwards(v):
    turned = (*[slice(None, None, -1)] * v.ndim, ...)
    return v[turned].copy()[turned]


def misaligned(v):
    a = np.ndarray(v.shape, v.dtype, bytearray(v.nbytes + 1), 1)
    a[...] = v
    return a


def readonly(v):
    a = v.copy()
    a.flags.writeable = False
    return a


ARRAYS = {
    "plain": lambda v: v.copy(),
    "fortran": lambda v: v.copy("F"),
    "strided": strided,
    "backwards": backwards,
    "misaligned": misaligned,
}
GRADIENTS = ARRAYS | {
    "readonly": readonly,
    "constant": lambda v: np.broadcast_to(v.ravel()[:1].reshape((1,) * v.ndim), v.shape) if v.size else v,
    "subclass": lambda v: v.copy().view(np.recarray),
    "scalar": lambda v: v[()] if v.ndim == 0 else v.copy(),
    "view": lambda v: np.stack([v, v])[1],
}


def constant(v):
    return lambda: v


#: Parameters: what gives, at every step, what is handed over.
PARAMETERS = {name: lambda v, make=make: constant(make(v)) for name, make in ARRAYS.items()} | {
    "param": lambda v: constant(param(v.copy())),
    "foreign": lambda v: constant(Tracked(v.copy())),
    "subclass": lambda v: constant(v.copy().view(np.recarray)),
    "anew": lambda v: (lambda a: lambda: a[...])(v.copy()),
    "tracked anew": lambda v: (lambda a: lambda: param(a))(v.copy()),
}
#: Vectors and matrices; of some, more than a block of elements, or a panel of rows.
SHAPES = [(), (0,), (1,), (5,), (17,), (3, 4), (4, 3), (2, 3, 2), (70,), (0, 3), (4, 0), (1100,), (66, 3), (2, 1030)]


def numbers(seed, shape, dtype):
    rng = np.random.default_rng(seed)
    v = np.asarray(rng.standard_normal(shape), dtype)
    if seed % 3 == 0:  # the hard ones, here and there
        hard = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e30, np.finfo(dtype).tiny / 4], dtype)
        v = np.asarray(np.where(rng.random(shape) < 0.2, rng.choice(hard, shape), v))
    return v


# What spoils a good step: given the lists of one world and the position, the lists that must be refused.
FAULTS = {
    "none": lambda ps, gs, i: (ps, [*gs[:i], None, *gs[i + 1 :]]),
    "a list": lambda ps, gs, i: (ps, [*gs[:i], gs[i].tolist(), *gs[i + 1 :]]),
    "dtype": lambda ps, gs, i: (ps, [*gs[:i], np.zeros(gs[i].shape, np.int64), *gs[i + 1 :]]),
    "shape": lambda ps, gs, i: (ps, [*gs[:i], np.zeros((*gs[i].shape, 2), gs[i].dtype), *gs[i + 1 :]]),
    "masked": lambda ps, gs, i: (ps, [*gs[:i], np.ma.array(gs[i]), *gs[i + 1 :]]),
    "too few": lambda ps, gs, i: (ps, gs[:-1]),
    "twice": lambda ps, gs, i: ([*ps, ps[i]], [*gs, gs[i]]),
    "overlap": lambda ps, gs, i: (ps, [*gs[:i], array_of(ps[i]), *gs[i + 1 :]]),
    "no parameter": lambda ps, gs, i: ([*ps[:i], 3.0, *ps[i + 1 :]], gs),
}


# ---- Stories ----


def linked(*parts):
    """What makes a chain of parts, each a name with its arguments."""

    def made(backend):
        return optgen.chain(*(getattr(optgen, name)(**given) for name, given in parts), backend=backend)

    return made


#: What stories are about: every rule, every part in a chain, variants that have other states, and longer chains.
STORIES = {subject: partial(make, subject) for subject in (*SUBJECTS, *OWN)} | {
    "SM3 without an average": partial(make, "SM3", rho=0),
    "SGD with a buffer": partial(make, "SGD", momentum=0.9, nesterov=True),
    "RMSprop with everything": partial(make, "RMSprop", momentum=0.5, centered=True),
    "Adam with everything": partial(make, "Adam", amsgrad=True, maximize=True, decoupled_weight_decay=True),
    "AccumGrad, Adafactor": linked(
        ("AccumGrad", {"n": 3}), ("ClipNorm", {"omega": 1.0}), ("Adafactor", {}), ("Lookahead", {"k": 2}), ("EMA", {})
    ),
    "NovoGrad, AccumGrad": linked(("WeightDecay", {}), ("NovoGrad", {}), ("AccumGrad", {}), ("Cautious", {})),
    "ClipGlobalNorm, SM3": linked(("ClipGlobalNorm", {}), ("SM3", {}), ("ExpDecay", {"every": 2})),
    "ClipGlobalNorm, AccumGrad": linked(("ClipGlobalNorm", {}), ("AccumGrad", {}), ("LAMB", {}), ("EMA", {})),
    "AccumGrad, ClipGlobalNorm": linked(("AccumGrad", {}), ("ClipGlobalNorm", {}), ("Momentum", {})),
    "Prodigy, ClipGlobalNorm": linked(("ClipGrad", {}), ("Prodigy", {"d0": 0.01}), ("ClipGlobalNorm", {})),
}


def extents(name):
    """Of the states and reductions of a story, all that is less than an element."""
    rules = compilation_of(STORIES[name]("interpreter")).rules
    return {state.extent for rule in rules for state in rule.small_states} | {
        Extent.GROUP for rule in rules if rule.grouped
    }


TOGETHER = [name for name in STORIES if Extent.GROUP in extents(name)]
SMALL = [name for name in STORIES if name not in TOGETHER and extents(name)]
CHAINED = [name for name in STORIES if "," in name and name not in TOGETHER + SMALL]
PLAIN = [name for name in STORIES if name not in TOGETHER + SMALL + CHAINED]


@dataclass(frozen=True)
class Alternating:
    """A hyperparameter that is a function, and no schedule that a state could hold."""

    odd: float
    even: float

    def __call__(self, t):
        return self.odd if t % 2 else self.even


def value_of(draw, within):
    """A number, a schedule or a function that stays in this range."""
    some = [x for x in (0.0, 0.5, 0.999, 1e-8, 1e-60, 1.5, 3.0, -0.25) if x in within]
    first, other = draw(st.sampled_from(some)), draw(st.sampled_from(some))
    between = [] if within.whole else [optgen.linear(first, other, 5)]
    return draw(st.sampled_from([first, first, Alternating(first, other), *between]))


#: In the place of what a step raised: its gradients were none to step with.
IGNORED = "the step does not count"


class Leaf:
    """One parameter in both worlds, the gradients it was last given, and how often it should have been stepped."""

    def __init__(self, kind, v):
        self.give = [PARAMETERS[kind](v) for _ in BACKENDS]
        self.shape, self.dtype, self.t = v.shape, v.dtype, 0
        self.kept = [v.copy() for _ in BACKENDS]

    def array(self, world):
        return array_of(self.give[world]())


class Worlds(RuleBasedStateMachine):
    """The same story with a kernel and with the interpreter; `order` is that in which parameters were first stepped."""

    names = PLAIN

    @initialize(data=st.data(), seed=st.integers(0, 99), tame=st.booleans())
    def begin(self, data, seed, tame):
        self.story = data.draw(st.sampled_from(self.names), "story")
        self.opts = list(map(STORIES[self.story], BACKENDS))
        self.together = self.story in TOGETHER
        self.tame = tame  # no infinities and NaNs, of which everything that is reduced becomes one
        self.leaves: list[Leaf] = []
        self.order: list[Leaf] = []
        rng = np.random.default_rng(seed)
        for kind in rng.choice(sorted(PARAMETERS), 3):
            self.add(kind, SHAPES[rng.integers(len(SHAPES))], rng.choice(["f", "d"]), seed)

    def numbers(self, seed, shape, dtype):
        return numbers(3 * seed + 1 if self.tame else seed, shape, dtype)

    def both(self, act):
        """What `act(world)` raised in both worlds, which must be the same: None if nothing; or that the step does not
        count."""
        raised = []
        for world in range(2):
            try:
                raised.append(IGNORED if act(world) is False else None)
            except OptgenError as error:
                raised.append(f"{type(error).__name__}: {error}")
        assert raised[0] == raised[1]
        return raised[0]

    def some(self, data, most):
        """Parameters, in any order, all of them in a group; drawn by number, so that nothing else keeps them alive."""
        places = range(len(self.leaves))
        if self.together:
            numbers = data.draw(st.permutations(places))
        else:
            numbers = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=most, unique=True))
        return [self.leaves[i] for i in numbers]

    def stepped(self, leaves, fault):
        if self.together and set(self.order) - set(leaves):
            assert "reduces over all parameters" in fault
            return
        if fault not in (None, IGNORED):
            # The only reasons for which these may be refused; the second, by a schedule.
            reasons = ["would be 0 in float32", "these values need the other variant"]
            reasons += ["the step overwrites it"] * ("ZeroGrad" in self.story)
            assert any(reason in fault for reason in reasons)
            return
        assert fault is None or "scale" in self.story.lower()
        for leaf in leaves:
            leaf.t += fault is None
            if leaf not in self.order:
                self.order.append(leaf)

    def part(self, data):
        """Whose hyperparameters are set: the optimiser, or a part of the chain."""
        parts = getattr(self.opts[0], "parts", None)
        having = [i for i, part in enumerate(parts or ()) if settings_of(part).values]
        i = data.draw(st.sampled_from(having)) if parts else None
        return lambda world: self.opts[world] if i is None else self.opts[world][i]

    # ---- What may happen ----

    @rule(
        kind=st.sampled_from(sorted(PARAMETERS)),
        shape=st.sampled_from(SHAPES),
        dtype=st.sampled_from("fd"),
        seed=st.integers(0, 99),
    )
    def add(self, kind, shape, dtype, seed):
        self.leaves.append(Leaf(kind, self.numbers(seed, shape, dtype)))

    @rule(data=st.data(), layout=st.sampled_from(["kept", *GRADIENTS]), seed=st.integers(0, 99))
    def step(self, data, layout, seed):
        chosen = self.some(data, 6)
        for turn in range(3):
            for i, leaf in enumerate(chosen):
                if layout != "kept":
                    v = self.numbers(seed + 7 * turn + i, leaf.shape, leaf.dtype)
                    leaf.kept = [GRADIENTS[layout](v) for _ in BACKENDS]
            for _ in range(2):  # a plan is made, and taken
                fault = self.both(
                    lambda world: self.opts[world].step(
                        [leaf.give[world]() for leaf in chosen], [leaf.kept[world] for leaf in chosen]
                    )
                )
                self.stepped(chosen, fault)

    @rule()
    def step_one_by_one(self):
        for leaf in self.leaves:
            self.stepped([leaf], self.both(lambda w, leaf=leaf: self.opts[w].step((leaf.give[w](),), (leaf.kept[w],))))

    @precondition(lambda self: len(self.leaves) > 1)
    @rule(data=st.data())
    def drop(self, data):
        leaf = self.some(data, 1)[0]
        self.leaves.remove(leaf)
        if leaf in self.order:
            self.order.remove(leaf)
        del leaf
        gc.collect()

    @rule(data=st.data())
    def set(self, data):
        part = self.part(data)
        name = data.draw(st.sampled_from(sorted(settings_of(part(0)).spellings)))
        hyper, index = settings_of(part(0)).spellings[name]
        places = range(len(hyper.default)) if index is None else [index]
        values = tuple(value_of(data.draw, hyper.ranges[i]) for i in places)
        value = values if index is None and hyper.vector else values[0]
        fault = self.both(lambda world: setattr(part(world), name, value))
        refused = "these values need the other variant", "is chosen when it is made"
        assert fault is None or any(words in fault for words in refused)

    @rule(data=st.data())
    def set_wrongly(self, data):
        part = self.part(data)
        name = data.draw(st.sampled_from(sorted(settings_of(part(0)).spellings)))
        hyper, index = settings_of(part(0)).spellings[name]
        value = -1 if -1 not in hyper.ranges[index or 0] else np.nan
        assert self.both(lambda world: setattr(part(world), name, value)) is not None

    @rule(data=st.data(), fault=st.sampled_from(sorted(FAULTS)))
    def refused(self, data, fault):
        chosen = self.some(data, 4)
        i = data.draw(st.integers(0, len(chosen) - 1))
        if fault == "overlap" and 0 in chosen[i].shape:
            return
        before = [pickle.dumps(opt) for opt in self.opts]

        def act(world):
            ps, gs = [leaf.give[world]() for leaf in chosen], [np.array(leaf.kept[world]) for leaf in chosen]
            self.opts[world].step(*FAULTS[fault](ps, gs, i))

        assert self.both(act) is not None
        assert [pickle.dumps(opt) for opt in self.opts] == before

    @rule(data=st.data(), change=st.sampled_from(["readonly", "shape"]))
    def changed_in_place(self, data, change):
        chosen = self.some(data, 1)
        leaf = chosen[0]
        flat = all(leaf.array(world).flags.owndata for world in range(2))
        if change == "shape" and not (flat and leaf.shape and 0 not in leaf.shape):
            return
        before = [pickle.dumps(opt) for opt in self.opts]
        given = [[each.give[world]() for each in chosen] for world in range(2)]
        grads = [[np.array(each.kept[world]) for each in chosen] for world in range(2)]
        for world in range(2):
            if change == "readonly":
                array_of(given[world][0]).flags.writeable = False
            else:
                array_of(given[world][0]).resize((*leaf.shape, 1), refcheck=False)
        assert self.both(lambda world: self.opts[world].step(given[world], grads[world])) is not None
        for world in range(2):
            if change == "readonly":
                array_of(given[world][0]).flags.writeable = True
            else:
                array_of(given[world][0]).resize(leaf.shape, refcheck=False)
        assert [pickle.dumps(opt) for opt in self.opts] == before

    def fresh(self, world):
        """An optimiser that has not stepped, with the functions that a state dict cannot hold."""
        opt, made = self.opts[world], STORIES[self.story](BACKENDS[world])
        for old, new in zip(getattr(opt, "parts", [opt]), getattr(made, "parts", [made]), strict=True):
            for name, values in settings_of(old).values.items():
                if any(isinstance(value, Alternating) for value in values):
                    setattr(new, name, values if settings_of(old).spellings[name][0].vector else values[0])
        return made

    @rule(way=st.sampled_from(["itself", "params", "pending", "pickle", "deepcopy", "copy"]))
    def carried_over(self, way):
        for world, opt in enumerate(self.opts):
            params = [leaf.give[world]() for leaf in self.order]
            if way == "itself":
                opt.load_state_dict(opt.state_dict())
                continue
            self.opts[world] = {
                "pickle": lambda opt=opt: pickle.loads(pickle.dumps(opt)),
                "deepcopy": lambda opt=opt: copy.deepcopy(opt),
                "copy": lambda opt=opt: copy.copy(opt),
            }.get(way, lambda world=world: self.fresh(world))()
            if way in ("params", "pending"):
                self.opts[world].load_state_dict(opt.state_dict(), params if way == "params" else None)
        if way in ("pending", "pickle", "deepcopy") and self.order:  # taken up by the first step, in order
            order = self.order.copy()
            fault = self.both(
                lambda world: self.opts[world].step(
                    [leaf.give[world]() for leaf in order], [np.array(leaf.kept[world]) for leaf in order]
                )
            )
            self.stepped(order, fault)
            if fault:
                for world, opt in enumerate(self.opts):
                    opt.load_state_dict(opt.state_dict(), [leaf.give[world]() for leaf in order])

    # ---- What must hold ----

    @invariant()
    def both_worlds_are_the_same(self):
        if not hasattr(self, "opts"):
            return
        kernel, oracle = self.opts
        assert repr(oracle) == repr(kernel)[:-1] + ", backend='interpreter')"
        for leaf in self.leaves:
            assert same(leaf.array(0), leaf.array(1))
            states = [self.opts[world].state(leaf.give[world]()) for world in range(2)]
            assert states[0].pop("t") == states[1].pop("t") == leaf.t
            assert all(same(states[0][name], states[1][name]) for name in states[0])

    @invariant()
    def nothing_is_left_behind(self):
        for opt in self.opts if hasattr(self, "opts") else ():
            assert len(engine_of(opt).states) == len(engine_of(opt).states._owners) == len(self.order)
            assert [slot.t for slot in engine_of(opt).states.slots()] == [leaf.t for leaf in self.order]
            plans = engine_of(opt).engine.plans
            numbers = {number for slot in engine_of(opt).states.slots() for number in slot.plans}
            assert numbers == {number for number, (key, _) in plans._plans.items() if key}  # no slot: the empty list
            assert plans._slots == sum(bool(slot.plans) for slot in engine_of(opt).states.slots())
            assert plans._size == sum(len(slot.plans) for slot in engine_of(opt).states.slots())
            assert plans._size <= plan.MOST_PLANS * plans._slots
            known = [(key, id(member.slot)) for key, member in plans._members.items()]
            slots = {id(slot): slot.known_as for slot in engine_of(opt).states.slots()}
            assert all(slots.get(slot) == key for key, slot in known)


class Small(Worlds):
    """With states of tensors, rows and columns."""

    names = SMALL


class Together(Worlds):
    """With values that are of all parameters: all of them are in each step."""

    names = TOGETHER


class Chained(Worlds):
    names = CHAINED


TestWorlds, TestSmall, TestTogether, TestChained = (machine.TestCase for machine in (Worlds, Small, Together, Chained))
TestWorlds.settings = TestSmall.settings = TestTogether.settings = TestChained.settings = settings(
    max_examples=30 if LONG else 8, stateful_step_count=30, deadline=None
)
TestWorlds.pytestmark = TestSmall.pytestmark = TestTogether.pytestmark = TestChained.pytestmark = [pytest.mark.searches]


# ---- What such stories are too short for ----


def pair(name="ADAM", **keywords):
    return [getattr(optgen, name)(**keywords, backend=backend) for backend in BACKENDS]


def plan_of(opt, params):
    return engine_of(opt).engine.plans.of(plan.key_of_list(params))


@pytest.fixture
def checked(monkeypatch):
    """How many parameters each list has that is checked anew."""
    found = []
    accept = Acceptance.of
    monkeypatch.setattr(Acceptance, "of", lambda self, *a, **k: found.append(len(a[0])) or accept(self, *a, **k))
    return found


def test_any_number_of_single_updates_is_checked_once(checked):
    one_by_one, together = optgen.ADAM(), optgen.ADAM()
    ps, qs = ([np.full(3, float(i)) for i in range(1100)] for _ in range(2))
    g = np.full(3, 0.5)
    for _ in range(2):
        for p in ps:
            one_by_one.step((p,), (g,))
        together.step(qs, [g] * len(qs))
    assert sum(checked) == 2 * len(ps)
    assert all((p == q).all() for p, q in zip(ps, qs, strict=True))
    assert len(engine_of(one_by_one).engine.plans) == len(ps)
    del p, ps
    assert len(engine_of(one_by_one).engine.plans) == 0


def test_lists_that_change_take_memory_as_their_parameters_do():
    rng, opt = np.random.default_rng(0), optgen.ADAM()
    ps = [np.ones(4) for _ in range(40)]
    opt.step(ps, ps2 := [np.ones(4) for _ in ps])
    slots = len(engine_of(opt).states)

    def step_half():
        chosen = rng.permutation(slots)[: slots // 2]
        opt.step([ps[i] for i in chosen], [ps2[i] for i in chosen])

    expect_bounded(step_half, 10, 40)
    assert sum(len(slot.plans) for slot in engine_of(opt).states.slots()) <= plan.MOST_PLANS * slots


def test_one_key_serves_a_list_of_any_length(monkeypatch):
    """A key of a list is as long as the list: it must not be looked up for each of its parameters."""

    class Key(tuple):
        looked_up = 0

        def __hash__(self):
            Key.looked_up += 1
            return super().__hash__()

    monkeypatch.setattr(plan, "key_of_list", lambda params: Key(map(id, params)))
    monkeypatch.setattr(engine, "key_of_list", plan.key_of_list)
    opt, ps = optgen.ADAM(), [np.ones(1) for _ in range(50)]
    opt.step(ps, [np.ones(1)] * 50)
    assert 0 < Key.looked_up < 10


def test_a_view_made_anew_for_every_step_needs_no_new_plan():
    opts, worlds = pair(), [np.arange(8.0) for _ in BACKENDS]
    for opt, whole in zip(opts, worlds, strict=True):
        for _ in range(5):
            opt.step([whole[:2], whole[6:]], [np.ones(2), np.ones(2)])
    assert worlds[0].tobytes() == worlds[1].tobytes()
    assert len(engine_of(opts[0]).engine.plans) == 1


class Contrary(np.ndarray):
    """A subclass that says something else than what it is."""

    shape = strides = flags = ctypes = view = fill = property(lambda _: 1 / 0)


def mapped(path):
    return np.memmap(path, np.float64, "w+", shape=(3, 4))


#: Arrays of other classes; what makes one, in or beside a file.
SUBCLASSES = {
    "np.memmap": mapped,
    "a view of np.memmap": lambda path: np.memmap(path, np.float64, "w+", shape=(6, 4))[::2],
    "np.matrix": lambda _: np.zeros((3, 4)).view(np.matrix),
    "np.recarray": lambda _: np.zeros((3, 4)).view(np.recarray),
    "one of somebody's": lambda _: np.zeros((3, 4)).view(type("Own", (np.ndarray,), {"__array_ufunc__": None})),
    "one that is contrary": lambda _: np.zeros((3, 4)).view(Contrary),
    "one with its own memory": lambda _: np.ndarray.__new__(type("Own", (np.ndarray,), {}), (3, 4)),
}


@pytest.mark.parametrize("reads", [True, False], ids=["read in memory", "asked by attributes"])
class TestRoll:
    """What is noticed of arrays that change between two steps, however arrays are looked at."""

    @pytest.fixture(autouse=True)
    def _reads(self, reads, monkeypatch):
        assert guard.readable()
        monkeypatch.setattr(guard, "readable", lambda: reads)

    @pytest.fixture
    def calls(self, monkeypatch):
        """How often lists are checked anew."""
        found = []
        accept = Acceptance.of
        monkeypatch.setattr(Acceptance, "of", lambda *a, **k: found.append(1) or accept(*a, **k))
        return found

    def test_the_same_lists_and_other_gradients_of_the_same_layout_are_checked_once(self, calls):
        opt, ps = optgen.ADAM(), [np.ones((3, 4)), np.ones(5, "f"), np.ones((0, 2)), np.array(1.0)]
        gs = [np.full_like(p, 0.5) for p in ps]
        for given in ((ps, gs), (tuple(ps), tuple(gs)), (list(ps), [g.copy() for g in gs]), (ps, [2 * gs[0], *gs[1:]])):
            opt.step(*given)
        assert len(calls) == 1
        assert [opt.state(p)["t"] for p in ps] == [4] * 4

    @pytest.mark.parametrize("what", ["shape", "strides", "dtype", "writeable", "length", "gradient shape",
                                      "gradient dtype", "gradient strides", "gradient alignment", "gradient class",
                                      "another array", "no array", "no gradient"])  # fmt: skip
    def test_any_change_of_an_array_is_noticed(self, what, calls):
        opt, memory = optgen.ADAM(), np.ones(24)
        p, q, g = np.ones((3, 4)), np.ones(2), np.full((3, 4), 0.5)
        opt.step([p, q], [g, np.ones(2)])
        gs = [g, np.ones(2)]
        ps = [p, q]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # they may be set, though one should not
            if what == "shape":
                p.shape, g.shape = (4, 3), (4, 3)
            elif what == "strides":
                p.strides = (8, 24)
            elif what == "dtype":
                p.dtype, g.dtype = np.int64, np.int64
            elif what == "writeable":
                p.flags.writeable = False
            elif what == "length":
                ps, gs = [p], [g]
            elif what == "gradient shape":
                gs[0] = g.reshape(4, 3)
            elif what == "gradient dtype":
                gs[0] = g.astype("f")
            elif what == "gradient strides":
                gs[0] = np.full((4, 3), 0.5).T
            elif what == "gradient alignment":
                gs[0] = np.zeros(97, np.uint8)[1:].view("f8").reshape(3, 4)
            elif what == "gradient class":
                gs[0] = memory[:12].reshape(3, 4).view(np.ma.MaskedArray)
            elif what == "another array":
                ps[0] = p.copy()
            elif what == "no array":
                ps[0] = 3.0
            else:
                gs[0] = None
        try:
            opt.step(ps, gs)
        except OptgenError:
            assert what in ("shape", "strides", "dtype", "writeable", "gradient shape", "gradient dtype",
                            "gradient class", "no array", "no gradient")  # fmt: skip
        assert len(calls) == (1 if what == "length" else 2)  # a parameter that is known, in another list

    @pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
    @pytest.mark.parametrize("kind", SUBCLASSES)
    @pytest.mark.parametrize("anew", [False, True], ids=["kept", "anew"])
    @pytest.mark.parametrize("name", ["ADAM", "Unscale, ADAM", "ADAM, ZeroGrad"])
    def test_subclasses_of_arrays_are_checked_once(self, kind, anew, name, calls, tmp_path):
        """`anew`: a view is made for every step."""
        anew = anew and kind != "np.recarray"  # whose views are of other classes
        opt, expected = (STORIES[name](backend) for backend in BACKENDS)
        p, g = (SUBCLASSES[kind](tmp_path / each) for each in "pg")
        plain = np.array(p), np.array(g)
        for i in range(4):
            numbers = np.full((3, 4), np.nan if i == 3 else 1.0 + i)
            for world, each, array in ((opt, p, g), (expected, *plain)):
                np.asarray(array)[...] = numbers
                world.step([each[:] if anew else each], [array[:] if anew else array])
            assert all(map(same, map(np.asarray, (p, g)), plain))
        assert len(calls) == 1 + 4  # those of the interpreter

    def test_a_class_that_is_no_more_is_not_taken_for_another_at_its_place(self, calls):
        opt, p = optgen.ADAM(), np.ones(3)
        for i in range(20):
            made = type(f"Array{i}", (np.ndarray,), {})
            opt.step([p], [np.ones(3).view(made)])
            del made
            gc.collect()
        assert len(calls) == 20

    def test_another_array_in_the_memory_of_one_that_is_no_more(self, calls):
        opt, memory = optgen.ADAM(), bytearray(np.ones(3).tobytes())
        p = np.frombuffer(memory)
        opt.step([p], [np.ones(3)])
        del p
        p = np.frombuffer(memory)
        opt.step([p], [np.ones(3)])
        assert len(calls) == 2
        assert opt.state(p)["t"] == 1

    def test_a_gradient_on_what_a_step_writes_is_refused_and_nothing_bound(self, calls):
        opt, ps = optgen.ADAM(), [np.zeros(3), np.zeros(3)]
        gs = [np.ones(3), np.ones(3)]
        opt.step(ps, gs)
        with pytest.raises(ArrayError):
            opt.step(ps, [np.full(3, 50.0), ps[0]])
        before = [p.copy() for p in ps]
        opt.step(ps, gs)
        assert ps[0].tobytes() == ps[1].tobytes() != before[0].tobytes()
        assert len(calls) == 2


@pytest.mark.parametrize("wrong", range(1, 9))
def test_arrays_that_are_laid_out_otherwise_are_not_read(wrong, monkeypatch):
    words = guard._words
    other = lambda at, n: [w ^ (n == 9 and i == wrong) for i, w in enumerate(words(at, n))]  # noqa: E731
    monkeypatch.setattr(guard, "_words", other)
    assert not guard.readable.__wrapped__()


@pytest.mark.parametrize("name", [name for name in STORIES if "ZeroGrad" not in name])
def test_fresh_gradients_of_one_layout_need_no_new_plan(name):
    opts = [STORIES[name](backend) for backend in BACKENDS]
    worlds = [[np.ones((3, 4)), np.ones(5, "f"), np.ones((4, 3)).T, np.ones((2, 3, 4), "f")] for _ in BACKENDS]
    first = None
    for i in (1, 2, 4, 5, 0):  # the last one has the hard numbers
        for opt, ps in zip(opts, worlds, strict=True):
            opt.step(ps, [numbers(i, p.shape, p.dtype).copy("K") for p in ps])
        first = first or plan_of(opts[0], worlds[0])
        assert plan_of(opts[0], worlds[0]) is first
        assert all(same(p, q) for p, q in zip(*worlds, strict=True))
        assert i == 0 or all(np.isfinite(p).all() for p in worlds[0])


@pytest.mark.parametrize("name", TOGETHER)
def test_a_list_that_was_all_parameters_once_is_refused_when_there_are_more(name):
    for backend in BACKENDS:
        opt, p, q = STORIES[name](backend), np.ones(3), np.ones((2, 2))
        for ps in ([p], [p], [p, q]):
            opt.step(ps, [x / 4 for x in ps])
        before = pickle.dumps(opt), p.tobytes()
        for gradient in (np.ones(3), np.ones(3)):  # by the plan of before, and anew
            with pytest.raises(ArrayError, match="expected the 2 of before, got all but 1"):
                opt.step([p], [gradient])
        assert (pickle.dumps(opt), p.tobytes()) == before
        del q, ps
        gc.collect()
        opt.step([p], [np.ones(3)])
        assert opt.state(p)["t"] == 4


def test_gradients_may_change_their_layout_at_every_step():
    opts, worlds = pair(), [[np.ones((3, 4)), np.ones(6, "f")] for _ in BACKENDS]
    for i, layout in enumerate(["plain", "strided", "backwards", "fortran", "misaligned", "constant"] * 2):
        for opt, ps in zip(opts, worlds, strict=True):
            opt.step(ps, [GRADIENTS[layout](numbers(3 * i + 1, p.shape, p.dtype)) for p in ps])
    assert all(p.tobytes() == q.tobytes() for p, q in zip(*worlds, strict=True))


def test_a_plan_that_takes_the_place_of_another_is_kept_for_its_own_slots():
    plans, old, new = plan.StepPlans(), Slot((), "float64", 0, {}), Slot((), "float64", 0, {})
    for slot in (old, new):
        plans.keep((1,), SimpleNamespace(slots=[slot], shared=False))
    assert (len(old.plans), len(new.plans), len(plans)) == (0, 1, 1)
    plans.forget(old)
    assert plans.of((1,)).slots == [new]
    plans.forget(new)
    assert plans.of((1,)) is None


def test_lists_that_share_parameters_take_turns():
    opts, worlds = pair("AMSGrad"), [[np.full(4, float(i)) for i in range(4)] for _ in BACKENDS]
    lists = [(0, 1, 2), (2, 1), (3,), (3, 0, 2, 1), (1, 2)]
    for turn in range(4):
        for i, chosen in enumerate(lists):
            for opt, ps in zip(opts, worlds, strict=True):
                opt.step([ps[j] for j in chosen], [np.full(4, 0.1 * (turn + i + j)) for j in chosen])
    assert all(p.tobytes() == q.tobytes() for p, q in zip(*worlds, strict=True))
    assert [[opt.state(p)["t"] for p in ps] for opt, ps in zip(opts, worlds, strict=True)] == [[8, 16, 16, 8]] * 2


def test_a_fresh_gradient_may_lie_between_the_elements_of_a_parameter_but_not_on_them():
    for opt in pair("Descent", eta=1.0):
        memory, apart = np.zeros((4, 3)), np.ones(4)
        p, beside = memory[:, 0], memory[:, 1]
        beside[...] = 2
        for g in (apart[::1], memory[:, 2], apart, beside, beside[:], np.ones(4)):
            opt.step([p], [g])
        assert p.tolist() == [-7] * 4
        # The same layout as that of `beside`, and memory that the step writes.
        for g in (p, memory[:, 0], memory.ravel()[:10:3]):
            with pytest.raises(ArrayError, match="an overlap of the parameter and the gradient"):
                opt.step([p], [g])
        assert p.tolist() == [-7] * 4
        assert opt.state(p)["t"] == 6


def test_a_step_refused_half_way_leaves_the_gradients_bound_that_come_next():
    opt, ps = optgen.Descent(1.0), [np.zeros(3), np.zeros(3)]
    gs = [np.ones(3), np.ones(3)]
    opt.step(ps, gs)
    with pytest.raises(ArrayError):
        opt.step(ps, [np.full(3, 50.0), ps[0]])
    opt.step(ps, gs)
    assert [p.tolist() for p in ps] == [[-2] * 3] * 2
