"""Steps that go by a plan: whatever happens between two of them, the kernels give what the interpreter gives."""

from __future__ import annotations

import copy
import gc
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import optgen
from optgen import driver, param, plan
from optgen.errors import ArrayError, OptgenError
from optgen.state import Slot

RULES = [driver.compile_file(path).name for path in driver.shipped()]
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
SHAPES = [(), (0,), (1,), (5,), (17,), (3, 4), (4, 3), (2, 3, 2), (70,)]


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

    @initialize(name=st.sampled_from(RULES), seed=st.integers(0, 99))
    def begin(self, name, seed):
        self.opts = [getattr(optgen, name)(backend=backend) for backend in BACKENDS]
        self.leaves: list[Leaf] = []
        self.order: list[Leaf] = []
        rng = np.random.default_rng(seed)
        for kind in rng.choice(sorted(PARAMETERS), 3):
            self.add(kind, SHAPES[rng.integers(len(SHAPES))], rng.choice(["f", "d"]), seed)

    def both(self, act):
        """What `act(world)` raised in both worlds, which must be the same: None if nothing."""
        raised = []
        for world in range(2):
            try:
                act(world)
                raised.append(None)
            except OptgenError as error:
                raised.append(f"{type(error).__name__}: {error}")
        assert raised[0] == raised[1]
        return raised[0]

    def some(self, data, most):
        """Parameters, in any order; drawn by number, so that nothing else keeps them alive."""
        numbers = data.draw(st.lists(st.integers(0, len(self.leaves) - 1), min_size=1, max_size=most, unique=True))
        return [self.leaves[i] for i in numbers]

    def stepped(self, leaves, fault):
        if fault is not None:
            assert "would be 0 in float32" in fault  # the one reason for which these may be refused
            return
        for leaf in leaves:
            leaf.t += 1
            if leaf not in self.order:
                self.order.append(leaf)

    # ---- What may happen ----

    @rule(
        kind=st.sampled_from(sorted(PARAMETERS)),
        shape=st.sampled_from(SHAPES),
        dtype=st.sampled_from("fd"),
        seed=st.integers(0, 99),
    )
    def add(self, kind, shape, dtype, seed):
        self.leaves.append(Leaf(kind, numbers(seed, shape, dtype)))

    @rule(data=st.data(), layout=st.sampled_from(["kept", *GRADIENTS]), seed=st.integers(0, 99))
    def step(self, data, layout, seed):
        chosen = self.some(data, 6)
        for turn in range(3):
            for i, leaf in enumerate(chosen):
                if layout != "kept":
                    v = numbers(seed + 7 * turn + i, leaf.shape, leaf.dtype)
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
        (leaf,) = self.some(data, 1)
        self.leaves.remove(leaf)
        if leaf in self.order:
            self.order.remove(leaf)
        del leaf
        gc.collect()

    @rule(data=st.data(), value=st.sampled_from([0.0, 0.5, 0.999, 1e-8, 1e-60]))
    def set(self, data, value):
        name = data.draw(st.sampled_from(sorted(self.opts[0]._spellings)))
        values = (value, 0.25) if name == "beta" else value
        assert self.both(lambda world: setattr(self.opts[world], name, values)) is None

    @rule(data=st.data())
    def set_wrongly(self, data):
        name = data.draw(st.sampled_from(sorted(self.opts[0]._spellings)))
        assert self.both(lambda world: setattr(self.opts[world], name, -1)) is not None

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
        (leaf,) = self.some(data, 1)
        flat = all(leaf.array(world).flags.owndata for world in range(2))
        if change == "shape" and not (flat and leaf.shape and 0 not in leaf.shape):
            return
        before = [pickle.dumps(opt) for opt in self.opts]
        given = [leaf.give[world]() for world in range(2)]
        grads = [np.array(g) for g in leaf.kept]
        for world in range(2):
            if change == "readonly":
                array_of(given[world]).flags.writeable = False
            else:
                array_of(given[world]).resize((*leaf.shape, 1), refcheck=False)
        assert self.both(lambda world: self.opts[world].step([given[world]], [grads[world]])) is not None
        for world in range(2):
            if change == "readonly":
                array_of(given[world]).flags.writeable = True
            else:
                array_of(given[world]).resize(leaf.shape, refcheck=False)
        assert [pickle.dumps(opt) for opt in self.opts] == before

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
            }.get(way, lambda opt=opt: type(opt)(backend=opt.backend))()
            if way in ("params", "pending"):
                self.opts[world].load_state_dict(opt.state_dict(), params if way == "params" else None)
        if way in ("pending", "pickle", "deepcopy"):  # taken up by the first step, in order
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
            assert len(opt._states) == len(opt._states._owners) == len(self.order)
            assert [slot.t for slot in opt._states.slots()] == [leaf.t for leaf in self.order]
            keys = {key for slot in opt._states.slots() for key in slot.plans}
            assert keys == set(opt._plans._plans) - {()}  # the empty list has no slot


TestWorlds = Worlds.TestCase
TestWorlds.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# ---- What such stories are too short for ----


def pair(name="ADAM", **keywords):
    return [getattr(optgen, name)(**keywords, backend=backend) for backend in BACKENDS]


def plan_of(opt, params):
    return opt._plans.get(tuple(map(id, params)))


def test_more_single_updates_than_there_are_plans():
    count = plan.MOST_PLANS + 50
    worlds = [[np.full(3, float(i)) for i in range(count)] for _ in BACKENDS]
    g, opts = np.full(3, 0.5), pair()
    for _ in range(2):
        for opt, ps in zip(opts, worlds, strict=True):
            for p in ps:
                opt.step((p,), (g,))
    for opt, ps in zip(opts, worlds, strict=True):
        opt.step(ps, [g] * count)
    assert all((p == q).all() for p, q in zip(*worlds, strict=True))
    assert {opt.state(p)["t"] for opt, ps in zip(opts, worlds, strict=True) for p in ps} == {3}
    assert len(opts[0]._plans) == plan.MOST_PLANS
    assert sum(len(slot.plans) for slot in opts[0]._states.slots()) == plan.MOST_PLANS - 1 + count
    del p, ps, worlds
    assert len(opts[0]._plans) == 0


def test_one_parameter_in_more_lists_than_there_are_plans():
    opt, p = optgen.ADAM(), np.ones((2, 2))
    views = [p[:] for _ in range(plan.MOST_PLANS + 50)]
    for view in views:
        opt.step((view,), (np.ones((2, 2)),))
    (slot,) = opt._states.slots()
    assert slot.t == len(views)
    assert len(slot.plans) == len(opt._plans) == plan.MOST_PLANS


@pytest.mark.parametrize("name", RULES)
def test_fresh_gradients_of_one_layout_need_no_new_plan(name):
    opts, worlds = pair(name), [[np.ones((3, 4)), np.ones(5, "f"), np.ones((4, 3)).T] for _ in BACKENDS]
    first = None
    for i in range(5):
        for opt, ps in zip(opts, worlds, strict=True):
            opt.step(ps, [numbers(i, p.shape, p.dtype).copy("K") for p in ps])
        first = first or plan_of(opts[0], worlds[0])
        assert plan_of(opts[0], worlds[0]) is first
    assert all(p.tobytes() == q.tobytes() for p, q in zip(*worlds, strict=True))


def test_gradients_may_change_their_layout_at_every_step():
    opts, worlds = pair(), [[np.ones((3, 4)), np.ones(6, "f")] for _ in BACKENDS]
    for i, layout in enumerate(["plain", "strided", "backwards", "fortran", "misaligned", "constant"] * 2):
        for opt, ps in zip(opts, worlds, strict=True):
            opt.step(ps, [GRADIENTS[layout](numbers(3 * i + 1, p.shape, p.dtype)) for p in ps])
    assert all(p.tobytes() == q.tobytes() for p, q in zip(*worlds, strict=True))


def test_a_plan_that_takes_the_place_of_another_is_kept_for_its_own_slots():
    plans, old, new = plan.Plans(), Slot((), "float64", 0, {}), Slot((), "float64", 0, {})
    for slot in (old, new):
        plans.keep((1,), SimpleNamespace(slots=[slot]))
    assert (old.plans, new.plans) == (set(), {(1,)})
    plans.forget(old)
    assert plans.get((1,)).slots == [new]
    plans.forget(new)
    assert plans.get((1,)) is None


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
            with pytest.raises(ArrayError, match="the parameter and the gradient overlap"):
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
