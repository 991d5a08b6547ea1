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
from rules import DESCENDING, FED, GROUPED, PARTS, SPECS, SUBJECTS, another, make, part_of, rules_of, variants

import optgen
from optgen import param
from optgen.errors import ArgumentError, ArrayError
from optgen.notation.facts import kept
from optgen.optimiser.base import Optimiser, engine_of, settings_of
from optgen.runtime import engine

BACKENDS = ("kernel", "interpreter")

by_name = pytest.mark.parametrize("name", SPECS)
by_subject = pytest.mark.parametrize("subject", SUBJECTS)
by_backend = pytest.mark.parametrize("backend", BACKENDS)


class Tracked:
    """A tracked parameter of somebody else's: it has `data`, and takes no weak references."""

    __slots__ = ("data",)

    def __init__(self, data):
        self.data = data


# ---- The class ----


@by_name
def test_a_rule_is_one_class_with_a_signature_a_docstring_and_annotations(name):
    cls, spec = getattr(optgen, name), SPECS[name].rules[0]
    assert cls is getattr(optgen, name)
    assert (cls.__name__, cls.__module__) == (name, "optgen")
    assert issubclass(cls, Optimiser)
    parameters = inspect.signature(cls).parameters
    names = [each.name for each in (*spec.hypers, *spec.flags)]
    of_arrays = ["backend", "storage", "rounding"] + ["seed"] * ("seed" not in names)
    assert list(parameters) == names + of_arrays
    hints = typing.get_type_hints(cls.__init__)
    for hyper in spec.hypers:
        several = tuple[float, ...] if hyper.free else tuple[(float,) * len(hyper.default)]
        assert hints[hyper.name] == (several if hyper.vector else float)
    for flag in spec.flags:
        assert hints[flag.name] == (bool | None if flag.when else bool)
        assert parameters[flag.name].default is (None if flag.when else flag.default)
        assert parameters[flag.name].kind is inspect.Parameter.KEYWORD_ONLY
    doc = inspect.getdoc(cls)
    for words in (spec.summary, spec.reference, *(f"{h.name}: {h.doc}; in {h.range}" for h in spec.hypers)):
        assert words in doc
    states = {state.name: state for rule in SPECS[name].rules for state in rule.states}
    for state in states.values():
        assert f"{state.name}: {state.doc}; {kept(state, spec.matrices)}; starts as " in doc
    said = doc[doc.index("State, for every parameter:") :].split("\n\n")[0]
    assert len(said.splitlines()) == 1 + max(1, len(states))
    assigned = {assign.target for assign in SPECS[name].open[0].body}
    shown = "p ← p − Δ" if "delta" in assigned and not spec.part else "Δ ← " if "delta" in assigned else "p ← "
    assert f"\n    {shown}" in doc
    assert ("A part of chains" in doc) == (name in PARTS)
    for report in spec.reports:
        assert f"{report.name}: {report.doc}; " in doc
    assert "backend=" in doc


def test_the_seeds_signatures():
    assert str(inspect.signature(optgen.Descent)).startswith("(eta: float = 0.1, *, backend")
    adamw = "(eta: float = 0.001, beta: tuple[float, float] = (0.9, 0.999), decay: float = 0.0, eps: float"
    assert str(inspect.signature(optgen.ADAMW)).startswith(adamw)


def test_the_rules_are_listed_and_an_unknown_one_is_an_attribute_error():
    assert {*SPECS, "load", "param", "chain", "OptgenError"} <= set(dir(optgen))
    for name in ("ADAN", "adam", "__nothing__"):
        assert not hasattr(optgen, name)
    with pytest.raises(AttributeError, match=r"optgen has no rule 'ADAN'.*\n.*optgen list"):
        optgen.ADAN  # noqa: B018
    with pytest.raises(ImportError):
        from optgen import ADAN  # noqa: F401


@pytest.mark.parametrize(("name", "flags"), variants(), ids=str)
def test_a_repr_makes_the_same_again(name, flags):
    cls, hypers = getattr(optgen, name), SPECS[name].rules[0].hypers
    others = {hyper.name: another(hyper) for hyper in hypers}
    zeros = {hyper.name: 0.0 for hyper in hypers if not hyper.vector and 0.0 in hyper.ranges[0]}
    decided = {flag.name for flag in SPECS[name].rules[0].flags if flag.when}
    left = {flag: value for flag, value in flags.items() if flag not in decided}
    for given in ({}, others, zeros):
        for chosen, backend in ((flags, "kernel"), (flags, "interpreter"), (left, "kernel")):
            try:
                opt = cls(**given, **chosen, backend=backend)
            except ArgumentError:
                if chosen == flags:
                    raise
                continue  # what the hyperparameters decide contradicts the rest
            again = eval(repr(opt), {name: cls})
            assert repr(again) == repr(opt)
            assert again.state_dict() == opt.state_dict()
            assert (again.backend, again.rule) == (backend, opt.rule)


@by_subject
@by_backend
def test_the_repr_of_a_subject_makes_it_again(subject, backend):
    opt = make(subject, backend)
    again = eval(repr(opt), {name: getattr(optgen, name) for name in (*SPECS, "chain")} | FED)
    assert isinstance(opt, type(again))
    assert repr(again) == repr(opt)
    assert again.state_dict() == opt.state_dict()
    assert again.rule == opt.rule


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


@by_subject
@by_backend
def test_every_rule_is_a_drop_in_for_every_other(subject, backend):
    """The seed's linear regression, with gradients by hand."""
    rng = np.random.default_rng(0)
    W, b, x, y = rng.random((2, 5)), rng.random(2), rng.random(5), rng.random(2)
    losses = []
    opt = make(subject, backend, **DESCENDING.get(subject, {}))
    for _ in range(20):
        error = W @ x + b - y
        losses.append(error @ error)
        opt.step([W, b], [np.outer(2 * error, x), 2 * error])
    first = next(i for i, each in enumerate(losses) if each != losses[0])  # behind the step that is the first to move
    assert losses[-1] < losses[first] < losses[0]


@by_subject
def test_parameters_of_all_kinds_in_one_step(subject):
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
            rng.standard_normal((2, 3, 4)),
            rng.standard_normal(5),
            rng.standard_normal(5).astype("f4"),
            np.array(3.0),
            np.array(3.0, "f4"),
            np.zeros((0, 3)),
            np.zeros((3, 0), "f4"),
            np.zeros(0),
        ]

    def data(p):
        return p if isinstance(p, np.ndarray) else p.data

    groups = params(), params()
    before = [data(p).copy() for p in groups[0]]
    given = DESCENDING.get(subject, {})
    kernel, oracle = (make(subject, backend, **given) for backend in BACKENDS)
    alone = [make(subject, **given) for _ in groups[0]]
    singles = params()
    for i in range(5):
        rng = np.random.default_rng(10 + i)
        grads = [np.asarray(3 + rng.standard_normal(data(p).shape), data(p).dtype) for p in groups[0]]
        copies = [[g.copy() for g in grads] for _ in range(3)]  # a step may overwrite them
        kernel.step(groups[0], copies[0])
        oracle.step(iter(groups[1]), iter(copies[1]))
        for opt, p, g in zip(alone, singles, copies[2], strict=True):
            opt.step((p,), (g,))
    for p, q, first in zip(*groups, before, strict=True):
        assert data(p).tobytes() == data(q).tobytes()
        still = first.size == 1 and "OrthoGrad" in subject  # nothing is orthogonal to a number
        still |= subject == "AdaShift"  # which waits for ten gradients
        assert np.any(data(p) != first) or not first.size or still
        assert kernel.state(p)["t"] == oracle.state(q)["t"] == 5
    apart = [data(p).tobytes() == data(r).tobytes() for p, r in zip(groups[0], singles, strict=True)]
    # What a group has in common is of other numbers for one alone, if it is more than whether the step counts; and a
    # parameter that is alone draws other numbers.
    drawn = any(rule.draws for rule in rules_of(subject))
    few = "scale" in subject.lower() or subject == "ExtraGradient"  # which have nothing but the phase in common
    few |= subject in ("EmoFact", "EmoLynx", "EmoNavi", "SWATS")  # or the loss, or a switch that is not turned yet
    assert all(apart) == ((subject not in GROUPED and not drawn) or few)


@by_backend
def test_a_step_of_nothing(backend):
    opt = optgen.ADAM(backend=backend)
    for _ in range(2):
        opt.step([], [])
        opt.step((), ())
    assert opt.state_dict()["parameters"] == []


#: What is changed instead of the first hyperparameter, which says how a state starts, or what is next looked at.
LATER = {"LossScale, ADAM": "interval", "Rprop": "etas2", "LookSAM, ADAM": "alpha"}
#: Each but AdaShift, which waits for ten gradients.
AT_ONCE = [each for each in SUBJECTS if settings_of(part_of(make(each))).values and each != "AdaShift"]


@pytest.mark.parametrize("subject", AT_ONCE)
def test_a_changed_hyperparameter_holds_from_the_next_step(subject):
    results = []
    for backend in BACKENDS:
        opt, constant = make(subject, backend), make(subject, backend)
        first = LATER.get(subject) or next(iter(settings_of(part_of(opt)).values))
        within = settings_of(part_of(opt)).spellings[first][0].ranges[-1]
        values = [x for x in (0.5, 0.25, 0.125, 3.0, 2.0, 5.0) if x in within][:3]
        p, fixed = (np.array([1.0, 2.0, -3.0]) for _ in range(2))
        path, fixed_path = [], []
        for i in range(6):
            setattr(part_of(constant), first, values[0])
            setattr(part_of(opt), first, values[i // 2])
            g = np.array([0.5, -0.25, 0.125]) * (i + 1)
            opt.step([p], [g])
            constant.step([fixed], [g])
            for one, x, into in ((opt, p, path), (constant, fixed, fixed_path)):
                state = one.state(x)
                into.append(b"".join([x.tobytes(), *(state[name].tobytes() for name in state if name != "t")]))
        results.append(path)
        assert path[:2] == fixed_path[:2]
        assert path != fixed_path
    assert results[0] == results[1]


def test_setting_a_hyperparameter_compiles_nothing(monkeypatch):
    p, opt = np.ones(3), optgen.ADAM()
    opt.step([p], [np.ones(3)])
    monkeypatch.setattr(engine, "kernels_of", None)
    opt.eta, opt.beta, opt.eps = 0.5, (0.1, 0.2), 0.25
    opt.step([p], [np.ones(3)])


def test_the_interpreter_needs_no_kernel(monkeypatch):
    monkeypatch.setattr(engine, "kernels_of", None)
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
    (lambda ps, gs, opt: (ps, gs[:-1]), "expected a gradient for each of 3 parameters, got 2"),
    (lambda ps, gs, opt: (ps[:-1], gs), "expected a gradient for each of 2 parameters, got 3"),
    (lambda ps, gs, opt: (ps[0], gs), "expected a sequence of parameters, got an array of shape"),
    (lambda ps, gs, opt: (ps, 3), "expected a sequence of gradients, got int"),
    (lambda ps, gs, opt: (ps, [gs[0], None, gs[2]]), "gradient 1: expected an array, got None"),
    (lambda ps, gs, opt: (ps, [gs[0], [1.0], gs[2]]), "gradient 1: expected a NumPy array, got a list"),
    (lambda ps, gs, opt: (ps, [gs[0], gs[1][:1], gs[2]]), "gradient 1: expected shape"),
    (
        lambda ps, gs, opt: (ps, [gs[0], gs[1].astype("f4"), gs[2]]),
        "gradient 1: expected float64, the dtype of its parameter",
    ),
    (lambda ps, gs, opt: (ps, [gs[0], gs[1].astype(">f8"), gs[2]]), "gradient 1: .*bytes swapped"),
    (lambda ps, gs, opt: (ps, [gs[0], np.ma.array(gs[1]), gs[2]]), "gradient 1: .*masked"),
    (lambda ps, gs, opt: ([ps[0], None, ps[2]], gs), "parameter 1: expected a NumPy array or param"),
    (lambda ps, gs, opt: ([ps[0], Tracked(None), ps[2]], gs), "parameter 1: expected a NumPy array or param"),
    (lambda ps, gs, opt: ([ps[0], ps[1].astype(int), ps[2]], gs), "parameter 1: expected float32, float64, bf"),
    (lambda ps, gs, opt: ([ps[0], readonly(ps[1]), ps[2]], gs), "parameter 1: expected a writable array"),
    (lambda ps, gs, opt: ([ps[0], np.ma.array(ps[1]), ps[2]], gs), "parameter 1: .*masked"),
    (lambda ps, gs, opt: ([ps[0], ps[1], ps[1]], [gs[0], gs[1], gs[1]]), "one array as parameter 1 and parameter 2"),
    (lambda ps, gs, opt: ([ps[0], ps[1], ps[1][:]], [gs[0], gs[1], gs[1]]), "one array as parameter 1 and parameter 2"),
    (lambda ps, gs, opt: ([*ps, ps[1][:1]], [*gs, gs[1][:1].copy()]), "an overlap of parameter 1 and parameter 3"),
    (lambda ps, gs, opt: (ps, [gs[0], ps[1], gs[2]]), "an overlap of parameter 1 and gradient 1"),
    (lambda ps, gs, opt: (ps, [ps[1], gs[1], gs[2]]), "parameter 1 and gradient 0"),
    (
        lambda ps, gs, opt: ([e := np.ones((0, 2)), e], [e, e]),
        "expected each parameter once, got one array as parameter 0 and parameter 1",
    ),
    (lambda ps, gs, opt: ([np.broadcast_to(ps[1], (2, *ps[1].shape)), *ps], [gs[0], *gs]), "parameter 0"),
]


@by_backend
@pytest.mark.parametrize("stepped", [0, 1, 2])
@pytest.mark.parametrize(("spoil", "message"), FAULTS)
@pytest.mark.parametrize("subject", ["ADAM", "Adafactor", "Prodigy", "AccumGrad, ADAM"])
def test_a_refused_step_touches_nothing(subject, spoil, message, stepped, backend):
    opt = make(subject, backend)
    ps = [np.ones((2, 3)), np.ones((2, 3)), np.ones(4, "f4")]
    gs = [np.full_like(p, 0.5) for p in ps]
    gone = np.ones(5)  # its state waits for the parameter that comes next
    if subject not in GROUPED:  # in which it could not be left out
        opt.step([gone], [gone + 1])
        opt = copy.deepcopy(opt)
        opt.load_state_dict(opt.state_dict(), [gone])
    for _ in range(stepped):
        opt.step(ps, gs)
    before = pickle.dumps(opt), pickle.dumps([p.tobytes() for p in ps])
    count = len(engine_of(opt).states)
    params, grads = spoil(ps, gs, opt)
    with pytest.raises(ArrayError, match=message):
        opt.step(params, grads)
    assert (pickle.dumps(opt), pickle.dumps([p.tobytes() for p in ps])) == before
    assert len(engine_of(opt).states) == count
    opt.step(ps, gs)
    assert [opt.state(p)["t"] for p in ps] == [stepped + 1] * 3


@by_backend
@pytest.mark.parametrize("subject", GROUPED)
def test_a_group_that_is_not_complete_is_refused_whole(subject, backend):
    opt = make(subject, backend)
    with pytest.raises(ArrayError, match="reduces over all parameters of a step: expected at least one, got none"):
        opt.step([], [])
    ps = [np.ones((2, 3)), np.ones(5), np.ones(4, "f4")]
    gs = [np.full_like(p, 0.5) for p in ps]
    for _ in range(2):
        opt.step(ps, gs)
    before = pickle.dumps(opt), pickle.dumps([p.tobytes() for p in ps])
    fresh = np.ones(3)
    for params, absent in ((ps[:2], 1), (ps[2:], 2), ([ps[0], fresh], 2), ([fresh], 3)):
        message = f"reduces over all parameters: expected the 3 of before, got all but {absent}"
        with pytest.raises(ArrayError, match=message) as caught:
            opt.step(params, [np.ones_like(p) for p in params])
        assert "with a gradient of zeros where there is none" in caught.value.hint
    with pytest.raises(ArrayError, match="expected at least one, got none"):
        opt.step([], [])
    assert (pickle.dumps(opt), pickle.dumps([p.tobytes() for p in ps])) == before
    opt.step([fresh, *ps[::-1]], [fresh / 2, *gs[::-1]])  # one more, and in another order
    assert [opt.state(p)["t"] for p in (*ps, fresh)] == [3, 3, 3, 1]


@by_backend
@pytest.mark.parametrize("name", ["m", "v"])
def test_a_gradient_that_is_a_state_of_the_same_step_is_refused(name, backend):
    opt, p, q = optgen.ADAM(backend=backend), np.ones(3), np.ones(3)
    g = np.full(3, 0.5)
    for _ in range(2):
        opt.step([p, q], [g, g])
    before = pickle.dumps(opt), p.tobytes(), q.tobytes()
    for parameter in (p, q):
        with pytest.raises(ArrayError, match="an overlap of a state of the optimiser and gradient 1"):
            opt.step([p, q], [g, opt.state(parameter)[name]])
        assert (pickle.dumps(opt), p.tobytes(), q.tobytes()) == before
    opt.step([q], [opt.state(p)[name]])  # which this step does not write
    assert opt.state(q)["t"] == 3


@by_backend
@pytest.mark.parametrize(
    ("subject", "shape", "name"),
    [
        ("Adafactor", (3, 1), "row_var"),
        ("Adafactor", (1, 3), "col_var"),
        ("NovoGrad", (), "v"),
        ("AccumGrad, ADAM", (), "count"),
    ],
)
def test_a_gradient_that_is_a_small_state_is_refused_too(subject, shape, name, backend):
    opt, p, g = make(subject, backend), np.ones(shape), np.full(shape, 0.5)
    small = opt.state(p)[name]
    assert (small.shape, small.dtype) == (p.shape, p.dtype)
    for _ in range(2):
        opt.step([p], [g])
    small = opt.state(p)[name]
    before = pickle.dumps(opt), p.tobytes()
    for gradient in (small, small[...]):
        with pytest.raises(ArrayError, match="an overlap of a state of the optimiser and the gradient"):
            opt.step([p], [gradient])
    assert (pickle.dumps(opt), p.tobytes()) == before
    opt.step([p], [small.copy()])
    assert opt.state(p)["t"] == 3


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
        assert (len(engine_of(opt).states), len(engine_of(opt).states.pending)) == (0, 2)
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
