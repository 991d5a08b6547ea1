"""The optimiser object: what one writes to make, use, show, copy and derive it, and what a refused step leaves."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import subprocess
import sys
import typing

import numpy as np
import pytest

import optgen
from optgen import driver, param
from optgen.errors import ArgumentError, ArrayError
from optgen.optimiser import Optimiser

SPECS = {spec.name: spec for spec in map(driver.compile_file, driver.shipped())}
RULES = list(SPECS)
BACKENDS = ("kernel", "interpreter")

by_rule = pytest.mark.parametrize("rule", RULES)
by_backend = pytest.mark.parametrize("backend", BACKENDS)


class Tracked:
    """A tracked parameter of somebody else's: it has `data`, and takes no weak references."""

    __slots__ = ("data",)

    def __init__(self, data):
        self.data = data


# ---- The class ----


@by_rule
def test_a_rule_is_one_class_with_a_signature_a_docstring_and_annotations(rule):
    cls, spec = getattr(optgen, rule), SPECS[rule].rules[0]
    assert cls is getattr(optgen, rule)
    assert (cls.__name__, cls.__module__) == (rule, "optgen")
    assert issubclass(cls, Optimiser)
    parameters = inspect.signature(cls).parameters
    assert list(parameters) == [h.name for h in spec.hypers] + [f.name for f in spec.flags] + ["backend"]
    hints = typing.get_type_hints(cls.__init__)
    for hyper in spec.hypers:
        assert hints[hyper.name] == (tuple[float, float] if hyper.vector else float)
    for flag in spec.flags:
        assert hints[flag.name] is bool
        assert parameters[flag.name].kind is inspect.Parameter.KEYWORD_ONLY
    doc = inspect.getdoc(cls)
    for words in (spec.summary, spec.reference, *(f"{h.name}: {h.doc}; in {h.range}" for h in spec.hypers)):
        assert words in doc
    for state in spec.states:
        assert f"{state.name}: {state.doc}; shaped as p" in doc
    assert "p ← p − " in doc
    assert "backend=" in doc


def test_the_seeds_signatures():
    assert str(inspect.signature(optgen.Descent)).startswith("(eta: float = 0.1, *, backend")
    adamw = "(eta: float = 0.001, beta: tuple[float, float] = (0.9, 0.999), decay: float = 0.0, eps: float"
    assert str(inspect.signature(optgen.ADAMW)).startswith(adamw)


def test_the_rules_are_listed_and_an_unknown_one_is_an_attribute_error():
    assert set(RULES) | {"load", "param", "OptgenError"} <= set(dir(optgen))
    for name in ("ADAN", "adam", "__nothing__"):
        assert not hasattr(optgen, name)
    with pytest.raises(AttributeError, match=r"optgen has no rule 'ADAN'.*\n.*optgen list"):
        optgen.ADAN  # noqa: B018
    with pytest.raises(ImportError):
        from optgen import ADAN  # noqa: F401


@by_rule
def test_a_repr_makes_the_same_again(rule):
    cls = getattr(optgen, rule)
    flags = [{}] + [{flag.name: not flag.default} for flag in SPECS[rule].rules[0].flags]
    for chosen in flags:
        for backend in BACKENDS:
            opt = cls(**chosen, backend=backend)
            setattr(opt, next(iter(opt._values)), 0.1 + 0.2)
            again = eval(repr(opt), {rule: cls})
            assert repr(again) == repr(opt)
            assert again.state_dict() == opt.state_dict()
            assert (again.backend, again.rule) == (backend, opt.rule)


def test_a_repr_says_no_more_than_it_must():
    assert repr(optgen.ADAM()) == "ADAM(eta=0.001, beta=(0.9, 0.999), eps=1e-08)"
    shown = "ADAMW(eta=0.001, beta=(0.9, 0.999), decay=0.0, eps=1e-08, coupled=True, backend='interpreter')"
    assert repr(optgen.ADAMW(coupled=True, backend="interpreter")) == shown


class Mine(optgen.ADAM):
    """A rule with a default of one's own."""

    def __init__(self, schedule=()):
        super().__init__(0.01, β1=0.8)

    @property
    def doubled(self):
        return 2 * self.eta


@by_backend
def test_a_subclass_of_a_rule_works(backend):
    p, q = np.ones(3), np.ones(3)
    opt, plain = Mine(schedule=3), optgen.ADAM(0.01, (0.8, 0.999))
    for twin in (opt, copy.copy(opt), copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert isinstance(twin, Mine)
        assert (twin.doubled, twin.beta) == (0.02, (0.8, 0.999))
    opt.step([p], [np.ones(3)])
    plain.step([q], [np.ones(3)])
    assert (p == q).all()
    opt.η = 0.5
    assert opt.doubled == 1
    opt.load_state_dict(plain.state_dict(), [p])
    assert opt.eta == 0.01


# ---- A step ----


@by_rule
@by_backend
def test_every_rule_is_a_drop_in_for_every_other(rule, backend):
    """The seed's linear regression, with gradients by hand."""
    rng = np.random.default_rng(0)
    W, b, x, y = rng.random((2, 5)), rng.random(2), rng.random(5), rng.random(2)
    losses = []
    opt = getattr(optgen, rule)(backend=backend)
    for _ in range(20):
        error = W @ x + b - y
        losses.append(error @ error)
        opt.step([W, b], [np.outer(2 * error, x), 2 * error])
    assert losses[-1] < losses[1] < losses[0]


@by_rule
def test_parameters_of_all_kinds_in_one_step(rule):
    def params():
        rng = np.random.default_rng(1)
        a = rng.standard_normal((3, 4))
        return [
            a,
            a.astype("f4"),
            param(a.copy()),
            Tracked(a.astype("f4")),
            np.asfortranarray(a),
            np.repeat(a, 2)[::2].reshape(3, 4)[::-1],
            np.array(3.0),
            np.array(3.0, "f4"),
            np.zeros((0, 3)),
        ]

    def data(p):
        return p if isinstance(p, np.ndarray) else p.data

    groups = params(), params()
    kernel, oracle = (getattr(optgen, rule)(backend=backend) for backend in BACKENDS)
    alone = [getattr(optgen, rule)() for _ in groups[0]]
    singles = params()
    for i in range(4):
        rng = np.random.default_rng(10 + i)
        grads = [np.asarray(rng.standard_normal(data(p).shape), data(p).dtype) for p in groups[0]]
        kernel.step(groups[0], grads)
        oracle.step(iter(groups[1]), iter(grads))
        for opt, p, g in zip(alone, singles, grads, strict=True):
            opt.step((p,), (g,))
    for p, q, r in zip(*groups, singles, strict=True):
        assert data(p).tobytes() == data(q).tobytes() == data(r).tobytes()
        assert kernel.state(p)["t"] == oracle.state(q)["t"] == 4


@by_backend
def test_a_step_of_nothing(backend):
    opt = optgen.ADAM(backend=backend)
    for _ in range(2):
        opt.step([], [])
        opt.step((), ())
    assert opt.state_dict()["parameters"] == []


@by_rule
def test_a_changed_hyperparameter_holds_from_the_next_step(rule):
    results = []
    for backend in BACKENDS:
        p, opt = np.ones(3), getattr(optgen, rule)(backend=backend)
        first = next(iter(opt._values))
        for value in (0.5, 0.25, 0.125):
            setattr(opt, first, value)
            opt.step([p], [np.full(3, 0.5)])
        results.append(p.tobytes())
        fixed, constant = np.ones(3), getattr(optgen, rule)(**{first: 0.5}, backend=backend)
        for _ in range(3):
            constant.step([fixed], [np.full(3, 0.5)])
        assert fixed.tobytes() != p.tobytes()
    assert results[0] == results[1]


def test_setting_a_hyperparameter_compiles_nothing(monkeypatch):
    p, opt = np.ones(3), optgen.ADAM()
    opt.step([p], [np.ones(3)])
    monkeypatch.setattr(driver, "kernel", None)
    opt.eta, opt.beta, opt.eps = 0.5, (0.1, 0.2), 0.25
    opt.step([p], [np.ones(3)])


def test_the_interpreter_needs_no_kernel(monkeypatch):
    monkeypatch.setattr(driver, "kernel", None)
    p, opt = np.ones(3), optgen.ADAM(backend="interpreter")
    opt.step([p], [np.ones(3)])
    assert opt.backend == "interpreter"
    assert p[0] != 1


def test_scalar_gradients_are_alive_while_the_kernel_reads_them():
    """Of NumPy's scalars the optimiser makes arrays; freed too early, the C library overwrites them here."""
    code = """
import numpy as np, optgen
ps = [np.array(float(i)) for i in range(50)]
opt = optgen.Descent(1.0)
for _ in range(3):
    opt.step(ps, [np.float64(i) for i in range(50)])
assert [float(p) for p in ps] == [-2.0 * i for i in range(50)], ps
"""
    variables = {**os.environ, "MALLOC_PERTURB_": "165", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- A refused step ----


def readonly(a):
    a = a.copy()
    a.flags.writeable = False
    return a


#: How a good list of parameters and gradients is spoilt in its middle, and what is said about it.
FAULTS = [
    (lambda ps, gs, opt: (ps, gs[:-1]), "a gradient for each of 3 parameters was expected, got 2"),
    (lambda ps, gs, opt: (ps[:-1], gs), "a gradient for each of 2 parameters was expected, got 3"),
    (lambda ps, gs, opt: (ps[0], gs), "a sequence of parameters was expected, got ndarray"),
    (lambda ps, gs, opt: (ps, 3), "a sequence of gradients was expected, got int"),
    (lambda ps, gs, opt: (ps, [gs[0], None, gs[2]]), "gradient 1 is None"),
    (lambda ps, gs, opt: (ps, [gs[0], [1.0], gs[2]]), "gradient 1: a NumPy array was expected, got a list"),
    (lambda ps, gs, opt: (ps, [gs[0], gs[1][:1], gs[2]]), "gradient 1: shape"),
    (lambda ps, gs, opt: (ps, [gs[0], gs[1].astype("f4"), gs[2]]), "gradient 1: float64, the dtype of its parameter"),
    (lambda ps, gs, opt: (ps, [gs[0], gs[1].astype(">f8"), gs[2]]), "gradient 1: .*bytes swapped"),
    (lambda ps, gs, opt: (ps, [gs[0], np.ma.array(gs[1]), gs[2]]), "gradient 1: .*masked"),
    (lambda ps, gs, opt: ([ps[0], None, ps[2]], gs), "parameter 1: a NumPy array or param"),
    (lambda ps, gs, opt: ([ps[0], Tracked(None), ps[2]], gs), "parameter 1: a NumPy array or param"),
    (lambda ps, gs, opt: ([ps[0], ps[1].astype(int), ps[2]], gs), "parameter 1: float32 or float64 was expected"),
    (lambda ps, gs, opt: ([ps[0], readonly(ps[1]), ps[2]], gs), "parameter 1 is read-only"),
    (lambda ps, gs, opt: ([ps[0], np.ma.array(ps[1]), ps[2]], gs), "parameter 1: .*masked"),
    (lambda ps, gs, opt: ([ps[0], ps[1], ps[1]], [gs[0], gs[1], gs[1]]), "parameter 1 and parameter 2 are the same"),
    (lambda ps, gs, opt: ([ps[0], ps[1], ps[1][:]], [gs[0], gs[1], gs[1]]), "parameter 1 and parameter 2 are the same"),
    (lambda ps, gs, opt: ([*ps, ps[1][:1]], [*gs, gs[1][:1].copy()]), "parameter 1 and parameter 3 overlap"),
    (lambda ps, gs, opt: (ps, [gs[0], ps[1], gs[2]]), "parameter 1 and gradient 1 are the same|overlap"),
    (lambda ps, gs, opt: (ps, [ps[1], gs[1], gs[2]]), "parameter 1 and gradient 0"),
    (lambda ps, gs, opt: ([e := np.ones((0, 2)), e], [e, e]), "parameter 0 and parameter 1 are the same array"),
    (lambda ps, gs, opt: ([np.broadcast_to(ps[1], (2, *ps[1].shape)), *ps], [gs[0], *gs]), "parameter 0"),
]


@by_backend
@pytest.mark.parametrize("stepped", [0, 1, 2])
@pytest.mark.parametrize(("spoil", "message"), FAULTS)
def test_a_refused_step_touches_nothing(spoil, message, stepped, backend):
    opt = optgen.ADAM(backend=backend)
    ps = [np.ones((2, 3)), np.ones((2, 3)), np.ones(4, "f4")]
    gs = [np.full_like(p, 0.5) for p in ps]
    gone = np.ones(5)  # its state waits for the parameter that comes next
    opt.step([gone], [gone + 1])
    opt = copy.deepcopy(opt)
    opt.load_state_dict(opt.state_dict(), [gone])
    for _ in range(stepped):
        opt.step(ps, gs)
    before = pickle.dumps(opt), pickle.dumps([p.tobytes() for p in ps])
    count = len(opt._states)
    params, grads = spoil(ps, gs, opt)
    with pytest.raises(ArrayError, match=message):
        opt.step(params, grads)
    assert (pickle.dumps(opt), pickle.dumps([p.tobytes() for p in ps])) == before
    assert len(opt._states) == count
    opt.step(ps, gs)
    assert [opt.state(p)["t"] for p in ps] == [stepped + 1] * 3


@by_backend
@pytest.mark.parametrize("name", ["m", "v"])
def test_a_gradient_that_is_a_state_of_the_same_step_is_refused(name, backend):
    opt, p, q = optgen.ADAM(backend=backend), np.ones(3), np.ones(3)
    g = np.full(3, 0.5)
    for _ in range(2):
        opt.step([p, q], [g, g])
    before = pickle.dumps(opt), p.tobytes(), q.tobytes()
    for parameter in (p, q):
        with pytest.raises(ArrayError, match="a state of the optimiser and gradient 1 overlap"):
            opt.step([p, q], [g, opt.state(parameter)[name]])
        assert (pickle.dumps(opt), p.tobytes(), q.tobytes()) == before
    opt.step([q], [opt.state(p)[name]])  # which this step does not write
    assert opt.state(q)["t"] == 3


@by_backend
def test_a_refused_step_leaves_a_pending_state_where_it_is(backend):
    opt, ps = optgen.ADAM(backend=backend), [np.ones(3), np.ones(4)]
    opt.step(ps, [np.ones(3), np.ones(4)])
    opt = copy.deepcopy(opt)
    before = pickle.dumps(opt)
    for params, grads in ((ps[::-1], [np.ones(4), np.ones(3)]), (ps, [np.ones(3), np.ones(5)])):
        with pytest.raises((ArrayError, optgen.OptgenError)):
            opt.step(params, grads)
        assert pickle.dumps(opt) == before
        assert (len(opt._states), len(opt._states.pending)) == (0, 2)
    opt.step(ps, [np.ones(3), np.ones(4)])
    assert [opt.state(p)["t"] for p in ps] == [2, 2]


@pytest.mark.parametrize("stepped", [False, True])
def test_a_wrong_setting_of_the_environment_refuses_a_step_whole(monkeypatch, stepped):
    opt, p, q = optgen.ADAM(), np.ones(3), np.ones(3)
    if stepped:
        opt.step([p], [np.ones(3)])
    before = pickle.dumps(opt), p.tobytes(), q.tobytes()
    monkeypatch.setenv("OPTGEN_NUM_THREADS", "many")
    with pytest.raises(ArgumentError, match="OPTGEN_NUM_THREADS"):  # it is read when a list is stepped first
        opt.step([p, q], [np.ones(3), np.ones(3)])
    assert (pickle.dumps(opt), p.tobytes(), q.tobytes()) == before
