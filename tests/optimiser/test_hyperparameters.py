"""Hyperparameters as callers give them: in any spelling, when an optimiser is made and later, within their ranges; as
numbers, or as schedules; and what they decide."""

from __future__ import annotations

import copy
import inspect
import json
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

import optgen
from optgen.compiler import catalogue, driver
from optgen.errors import ArgumentError, HyperparameterError, StateError
from optgen.language.spec_names import ARGUMENTS
from optgen.names import greek
from optgen.optimiser.base import Optimiser, settings_of
from optgen.optimiser.schedules import cosine, linear, one_cycle, warmup

SPECS = [driver.compile_file(path) for path in catalogue.shipped()]
RULES = [spec.name for spec in SPECS]
HYPERS = [(spec.name, hyper) for spec in SPECS for hyper in spec.rules[0].hypers]

by_hyper = pytest.mark.parametrize(("rule", "hyper"), HYPERS, ids=lambda x: getattr(x, "name", x))
by_rule = pytest.mark.parametrize("rule", RULES)


def other(hyper):
    """A value that is not the default."""
    values = [
        next(x for x in (0.25, 0.75, 0.5, 2.0, 3.0, -0.25) if x in within and x != default)
        for within, default in zip(hyper.ranges, hyper.default, strict=True)
    ]
    return tuple(values) if hyper.vector else values[0]


def make(rule, **keywords):
    return getattr(optgen, rule)(**keywords, backend="interpreter")


def make_free(rule, **keywords):
    """With its flags given, so that no hyperparameter decides about them."""
    flags = {flag.name: flag.default for flag in SPECS[RULES.index(rule)].rules[0].flags}
    return make(rule, **flags, **keywords)


# ---- When an optimiser is made ----


def test_the_seeds_own_lines():
    assert optgen.ADAM(0.001, (0.9, 0.999)) is not None
    assert optgen.AdaMax(0.001, β1=0.8, β2=0.99, ϵ=1e-7).beta == (0.8, 0.99)
    assert optgen.RMSProp(η=0.01, ρ=0.8).rho == 0.8
    assert optgen.ADAGrad(0.1, ε=1e-6).eps == 1e-6
    assert optgen.ADAMW(0.001, (0.9, 0.999), 0.1).decay == 0.1


@by_hyper
def test_a_keyword_may_be_ascii_or_greek_and_not_normalised(rule, hyper):
    value = other(hyper)
    spellings = {hyper.name, greek(hyper.name)} | ({"ϵ"} if hyper.name == "eps" else set())
    for spelled in spellings:
        opt = make(rule, **{spelled: value})
        assert getattr(opt, spelled) == getattr(opt, hyper.name) == value


@by_rule
def test_defaults_and_order_are_those_of_the_spec(rule):
    hypers = SPECS[RULES.index(rule)].rules[0].hypers
    values = [hyper.default if hyper.vector else hyper.default[0] for hyper in hypers]
    parameters = inspect.signature(getattr(optgen, rule)).parameters
    positional = [p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in positional] == [hyper.name for hyper in hypers]
    assert [p.default for p in positional] == values
    others = [other(hyper) for hyper in hypers]
    opt = getattr(optgen, rule)(*others)
    assert [getattr(opt, hyper.name) for hyper in hypers] == others


def test_each_value_of_beta_has_a_name_of_its_own():
    assert optgen.ADAM(beta2=0.5).beta == (0.9, 0.5)
    assert optgen.ADAM(beta1=0.1, β2=0.5).beta == (0.1, 0.5)
    assert optgen.ADAM(**{"β₁": 0.3}).beta1 == 0.3


def test_a_rule_whose_vector_ends_in_a_digit(tmp_path):
    spec = tmp_path / "r.toml"
    spec.write_text(
        'name = "R"\n[hyperparameters]\nb2 = { default = [0.5, 0.25], range = "[0, 1]" }\n'
        '[update]\nformulas = "delta = b2[1]*g + b2[2]*p"\n'
    )
    opt = optgen.load(spec)(b22=0.75)
    assert (opt.b2, opt.b21, opt.b22) == ((0.5, 0.75), 0.5, 0.75)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optgen.ADAM(lr=0.1), "ADAM: unknown name 'lr'; did you mean 'eta'?"),
        (lambda: optgen.ADAM(et=0.1), "did you mean 'eta'"),
        (lambda: optgen.ADAM(**{"learning rate": 1}), "unknown name 'learning rate'"),
        (lambda: optgen.ADAM(beta3=0.1), "unknown name 'beta3'; did you mean 'beta'"),
        (lambda: optgen.ADAM(beta01=0.1), "unknown name 'beta01'"),
        (lambda: optgen.ADAM(self=1), "self"),
        (lambda: optgen.ADAM(1, (0, 0), 1, 1), "too many positional arguments"),
        (lambda: optgen.ADAM(0.1, eta=0.1), "ADAM: 'eta' is given twice"),
        (lambda: optgen.ADAM(eta=0.1, η=0.1), "'η' is given twice"),
        (lambda: optgen.ADAM(0.1, (0.1, 0.2), beta1=0.1), "'beta1' is given twice"),
        (lambda: optgen.ADAM(beta1=0.1, β1=0.1), "'β1' is given twice"),
        (lambda: optgen.ADAM(beta=(0.1, 0.2), beta1=0.1), "'beta' is given twice, as a whole and in parts"),
        (lambda: optgen.ADAM(backend="gpu"), "backend: expected one of kernel, interpreter, got 'gpu'"),
        (lambda: optgen.ADAMW(coupled=1), "the flag coupled: expected True or False, got 1"),
        (lambda: optgen.ADAM("0.1"), "eta (η): expected a number, got '0.1'"),
        (lambda: optgen.ADAM(True), "eta (η): expected a number, got True"),
        (lambda: optgen.ADAMW(decay=None), "decay: expected a number, got None"),
        (lambda: optgen.ADAM(beta=0.9), "beta (β): expected 2 numbers, got 0.9"),
        (lambda: optgen.ADAM(beta=(0.9,)), "beta (β): expected 2 numbers, got (0.9,)"),
        (lambda: optgen.ADAM(beta="12"), "beta (β): expected 2 numbers, got '12'"),
        (lambda: optgen.ADAM(beta=np.array(0.5)), "beta (β): expected 2 numbers"),
        (lambda: optgen.ADAM(beta=("0.9", 0.9)), "beta (β): expected a number, got '0.9'"),
        (lambda: optgen.Optimiser(), "expected at least one part of a chain, got none"),
        (lambda: type("Own", (Optimiser,), {})(), "Own is made of no spec"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_by_name(call, message):
    with pytest.raises(ArgumentError) as error:
        call()
    assert message in str(error.value)


ELSEWHERE = [
    ("ADAM", "lr", "eta"), ("ADAM", "LR", "eta"), ("ADAM", "learning_rate", "eta"), ("ADAM", "alpha", "eta"),
    ("ADAM", "step_size", "eta"), ("ADAM", "betas", "beta"), ("ADAM", "b1", "beta1"), ("ADAM", "beta_2", "beta2"),
    ("ADAM", "betas1", "beta1"), ("ADAM", "beta3", "beta"), ("ADAM", "epsilon", "eps"), ("ADAM", "eta1", "eta"),
    ("ADAMW", "weight_decay", "decay"), ("ADAMW", "wd", "decay"), ("ADAMW", "lam", "decay"), ("ADAMW", "λ", "decay"),
    ("Adam", "eta", "lr"), ("Adam", "η", "lr"), ("Adam", "learning_rate", "lr"), ("Adam", "alpha", "lr"),
    ("Adam", "beta", "betas"), ("Adam", "beta1", "betas1"), ("Adam", "b2", "betas2"), ("Adam", "decay", "weight_decay"),
    ("Adam", "lam", "weight_decay"), ("Adam", "epsilon", "eps"), ("SGD", "rho", "momentum"), ("SGD", "eta", "lr"),
    ("SGD", "mu", "momentum"), ("Momentum", "momentum", "rho"), ("Momentum", "lr", "eta"), ("RMSProp", "alpha", "rho"),
    ("RMSProp", "decay", "rho"), ("RMSprop", "rho", "alpha"), ("RMSprop", "decay", "weight_decay"),
    ("WeightDecay", "decay", "lam"), ("WeightDecay", "weight_decay", "lam"), ("WeightDecay", "wd", "lam"),
    ("ClipNorm", "max_norm", "omega"), ("ClipGrad", "delta", "bound"), ("EMA", "decay", "rho"),
    ("Lookahead", "sync_period", "k"), ("AccumGrad", "k", "n"), ("AccumGrad", "every_k_schedule", "n"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "name", "meant"), ELSEWHERE)
def test_what_other_libraries_call_a_thing_is_told_by_its_name_here(rule, name, meant):
    with pytest.raises(ArgumentError) as error:
        make(rule, **{name: 0.5})
    assert str(error.value) == f"{rule}: unknown name {name!r}; did you mean {meant!r}?"
    opt = make(rule)
    getattr(opt, meant)  # is one


def test_nothing_is_suggested_that_the_rule_does_not_have():
    with pytest.raises(
        ArgumentError, match=r"Descent: unknown name 'rho'; it has eta, backend, storage, rounding, seed$"
    ):
        optgen.Descent(rho=1)
    with pytest.raises(ArgumentError, match=r"ScheduleFreeSGD: unknown name 'b1'; it has eta, beta, decay, "):
        optgen.ScheduleFreeSGD(b1=1)  # it has one beta


@pytest.mark.parametrize("values", [{0.5, 0.25}, {0.5: 1, 0.25: 2}])
def test_values_without_an_order_are_refused(values):
    with pytest.raises(ArgumentError, match=r"beta \(β\): expected 2 numbers"):
        optgen.ADAM(beta=values)


def test_sequences_and_numbers_of_any_kind_are_taken():
    values = (0.5, 0.25)
    for given in ([*values], np.array(values), np.float32(values), iter(values)):
        assert optgen.ADAM(beta=given).beta == values
    for number in (1, np.float32(1), np.int64(1), Fraction(1)):
        opt = optgen.ADAM(number)
        assert (opt.eta, type(opt.eta)) == (1.0, float)


# ---- Ranges ----


def outside(hyper):
    """Values out of the range of the last value of a hyperparameter."""
    numbers = [-0.5, 0.0, 1.0, 1.5, -math.inf, math.inf, math.nan, 10**400, -(10**400), Fraction(10**400)]
    finite = {x for x in numbers[:4] if x in hyper.ranges[-1]}
    return [x for x in numbers if x not in finite]


@pytest.mark.parametrize(
    ("rule", "hyper", "bad"),
    [pytest.param(rule, hyper, bad, id=f"{rule}-{hyper.name}-{str(bad)[:6]}")
     for rule, hyper in HYPERS for bad in outside(hyper)],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_name_and_range(rule, hyper, bad):
    given = (*hyper.default[:-1], bad) if hyper.vector else bad
    opt = make(rule)
    before = repr(opt)
    with pytest.raises(HyperparameterError) as made:
        make(rule, **{hyper.name: given})
    with pytest.raises(HyperparameterError) as assigned:
        setattr(opt, hyper.name, given)
    for message in (str(made.value), str(assigned.value)):
        assert message.startswith(hyper.name)
        assert str(hyper.ranges[-1]).removesuffix(", whole") in message
        assert ("a whole number in" in message) is hyper.ranges[-1].whole
        assert hyper.doc in message
    assert repr(opt) == before


def test_each_value_is_held_to_its_own_range():
    opt = optgen.Rprop(backend="interpreter")
    for change, message in (
        (lambda: optgen.Rprop(etas=(1.5, 2)), r"etas\[1\], .*: expected a value in \(0, 1\), got 1\.5"),
        (lambda: optgen.Rprop(etas=(0.5, 0.75)), r"etas\[2\], .*: expected a value in \(1, inf\), got 0\.75"),
        (lambda: optgen.Rprop(etas1=1), r"etas\[1\], .*: expected a value in \(0, 1\), got 1\.0"),
        (lambda: setattr(opt, "etas2", 1), r"etas\[2\], .*: expected a value in \(1, inf\), got 1\.0"),
        (lambda: setattr(opt, "etas", (0.5, 1)), r"etas\[2\], .*: expected a value in \(1, inf\), got 1\.0"),
    ):
        with pytest.raises(HyperparameterError, match=message):
            change()
    assert opt.etas == (0.5, 1.2)
    words = "etas: factors of shrinking and of growing; in (0, 1) and (1, inf); default (0.5, 1.2)"
    assert words in optgen.Rprop.__doc__


def test_the_ends_of_a_range_are_as_the_spec_says():
    assert optgen.ADAM(0, (0, 0), 0).eta == 0
    assert optgen.Momentum(rho=1).rho == 1
    message = r"beta \(β\), decay rates of the two moments: expected a value in \[0, 1\), got 1\.0"
    with pytest.raises(HyperparameterError, match=message):
        optgen.ADAM(beta2=1)
    # Not rounded to what would have been in range.
    with pytest.raises(HyperparameterError, match=r"got 1\.0000000001"):
        optgen.Momentum(rho=1.0000000001)


# ---- As attributes ----


@by_hyper
def test_each_may_be_changed_at_any_time(rule, hyper):
    opt = make_free(rule)
    value = other(hyper)
    if hyper.name in settings_of(opt).sizing:  # but for lengths and counts
        with pytest.raises(HyperparameterError, match="which is chosen when it is made"):
            setattr(opt, hyper.name, value)
        return
    for i in range(len(hyper.default) if hyper.vector else 0):
        setattr(opt, f"{hyper.name}{i + 1}", value[i])
        assert getattr(opt, f"{greek(hyper.name)}{i + 1}") == getattr(opt, hyper.name)[i] == value[i]
    setattr(opt, hyper.name, hyper.default if hyper.vector else hyper.default[0])
    setattr(opt, greek(hyper.name), value)
    assert getattr(opt, hyper.name) == value
    with pytest.raises(ArgumentError, match=f"{hyper.name}.*: expected .*, got"):
        setattr(opt, hyper.name, "much")


def test_what_is_no_hyperparameter_can_be_neither_set_nor_got():
    opt = optgen.ADAMW()
    for name, value in (("lr", 0.1), ("step", None), ("rule", None), ("_values", {})):
        with pytest.raises(ArgumentError, match=f"ADAMW has no hyperparameter '{name}'"):
            setattr(opt, name, value)
    with pytest.raises(ArgumentError, match="did you mean 'decay'"):
        opt.deca = 1
    with pytest.raises(ArgumentError, match="the flag 'coupled' is chosen when the optimiser is made"):
        opt.coupled = True
    with pytest.raises(AttributeError, match="ADAMW has no 'betta'; did you mean 'beta'"):
        opt.betta  # noqa: B018
    with pytest.raises(AttributeError, match="beta3"):
        opt.beta3  # noqa: B018
    assert not hasattr(opt, "_nothing")
    assert opt.coupled is False
    assert optgen.ADAMW(coupled=True).coupled is True


@by_rule
def test_no_name_of_the_object_can_be_one_of_a_spec(rule):
    public = {name for name in dir(Optimiser) if not name.startswith("_")}
    assert public | {"self", "backend"} <= ARGUMENTS
    opt = make(rule)
    assert {name for name in dir(opt) if not name.startswith("_")} - public == set(settings_of(opt).names())


@pytest.mark.parametrize("name", ["Optimiser", "str", "text", "cls", "init", "name"])
def test_any_other_name_may_be_one_of_a_spec(tmp_path, name):
    spec = tmp_path / "r.toml"
    spec.write_text(
        f'name = "R"\n[hyperparameters]\n{name} = {{ default = 0.5, range = "[0, 1]" }}\n'
        f'[flags]\n{name}_too = {{ default = false }}\n[update]\nformulas = "delta = {name}*g if {name}_too else g"\n'
    )
    p = np.ones(2)
    opt = optgen.load(spec)(**{name: 0.25, f"{name}_too": True}, backend="interpreter")
    opt.step([p], [np.ones(2)])
    assert p[0] == 0.75
    spec.write_text(
        f'name = "R"\n[hyperparameters]\nk = {{ default = 0.5, range = "[0, 1]" }}\n'
        f'[flags]\n{name} = {{ default = false }}\n[update]\nformulas = "delta = k*g if {name} else g"\n'
    )
    assert getattr(optgen.load(spec)(**{name: True}), name) is True


# ---- In a compute type ----


@pytest.mark.parametrize("backend", ["kernel", "interpreter"])
def test_a_value_that_vanishes_in_float32_is_refused_there_and_fine_in_float64(backend):
    opt = optgen.ADAM(eps=1e-60, backend=backend)
    p32, p64 = np.ones(3, np.float32), np.ones(3)
    with pytest.raises(HyperparameterError, match="ADAM: ε = 1e-60 would be 0 in float32") as error:
        opt.step([p64, p32], [np.ones(3), np.ones(3, np.float32)])
    assert "float64" in error.value.hint
    assert (p32 == 1).all()
    assert (p64 == 1).all()
    assert opt.state(p64)["t"] == 0
    opt.step([p64], [np.ones(3)])
    opt.eps = 1e-8
    opt.step([p32], [np.ones(3, np.float32)])
    opt.eps = 0  # what is zero does not vanish
    opt.step([p32], [np.ones(3, np.float32)])
    opt.eps = 1e-60
    for grad in (np.ones(3, np.float32), np.ones(3, np.float32)):
        with pytest.raises(HyperparameterError, match="would be 0 in float32"):
            opt.step([p32], [grad])
    assert opt.state(p32)["t"] == 2


def test_the_smallest_numbers_that_do_not_vanish():
    p, g = np.ones(1, np.float32), np.ones(1, np.float32)
    for value in (2.0**-149, np.nextafter(2.0**-150, 1)):
        optgen.Descent(value).step([p], [g])
    with pytest.raises(HyperparameterError, match=r"η = .* would be 0 in float32"):
        optgen.Descent(2.0**-150).step([p], [g])
    optgen.Descent(5e-324).step([np.ones(1)], [np.ones(1)])


def rule_of(tmp_path, formulas, state=""):
    spec = tmp_path / "r.toml"
    head = 'name = "R"\n[hyperparameters]\nk = { default = 0.5, range = "[0, inf)" }\n'
    spec.write_text(f"{head}{state}[update]\nformulas = '''\n{formulas}\n'''\n")
    return optgen.load(spec)


@pytest.mark.parametrize(
    ("formulas", "state", "what"),
    [
        ("delta = k*k*g", "", "k·k"),
        ("delta = k*g*1e-50", "", "1e-50"),
        ("m = m + g\ndelta = m", '[state]\nm = { init = "k*1e-30" }\n', "k·.?1e-30"),
    ],
)
def test_expressions_literals_and_initial_states_may_vanish_too(tmp_path, formulas, state, what):
    opt = rule_of(tmp_path, formulas, state)(1e-25, backend="interpreter")
    with pytest.raises(HyperparameterError, match=f"{what} = .* would be 0 in float32"):
        opt.step([np.ones(1, np.float32)], [np.ones(1, np.float32)])
    opt.step([np.ones(1)], [np.ones(1)])


def test_what_stays_on_the_host_does_not_vanish(tmp_path):
    p = np.ones(1, np.float32)
    rule_of(tmp_path, "small = k*1e-50\ndelta = small*1e50*t*g")(0.5, backend="interpreter").step([p], [p.copy()])
    assert p[0] == 0.5


def test_a_state_may_start_as_an_infinity_without_a_warning():
    p = np.ones(1, np.float32)
    opt = optgen.ADAGrad(eps=1e300, backend="interpreter")
    opt.step([p], [np.ones(1, np.float32)])
    assert opt.state(p)["acc"][0] == np.inf


# ---- Schedules: functions of the step in the place of numbers ----

both = pytest.mark.parametrize("backend", ["kernel", "interpreter"])


class Zero:
    """An array of one number as other libraries have it: no number to Python."""

    shape = ()

    def __init__(self, value):
        self.value = value

    def item(self):
        return self.value


BAD = [
    ("text", "0.1", ArgumentError, "eta (η): expected a number, got '0.1' from its schedule in step 3"),
    ("nothing", None, ArgumentError, "eta (η): expected a number, got None from its schedule in step 3"),
    ("a truth", True, ArgumentError, "expected a number, got True from its schedule in step 3"),
    ("NaN", math.nan, HyperparameterError,
     "eta (η), learning rate: expected a value in [0, inf), got nan from its schedule in step 3"),
    ("an infinity", math.inf, HyperparameterError, "got inf from its schedule in step 3"),
    ("a negative rate", -0.1, HyperparameterError, "got -0.1 from its schedule in step 3"),
    ("an array of a negative rate", np.asarray(-0.5), HyperparameterError, "got -0.5 from its schedule in step 3"),
    ("a whole number too large", 10**400, HyperparameterError, "got inf from its schedule in step 3"),
    ("a complex number", 0.1 + 0j, ArgumentError, "expected a number, got (0.1+0j) from its schedule in step 3"),
    ("a complex array", np.asarray(1j), ArgumentError, "expected a number, got 1j from its schedule in step 3"),
    ("two numbers", np.array([0.1, 0.2]), ArgumentError, "got array([0.1, 0.2]) from its schedule in step 3"),
    ("an array of one", np.array([0.1]), ArgumentError, "got array([0.1]) from its schedule in step 3"),
    ("a list", [0.1], ArgumentError, "got [0.1] from its schedule in step 3"),
    ("a function", abs, ArgumentError, "got <built-in function abs> from its schedule in step 3"),
]  # fmt: skip


def touched(opt, ps):
    """All that a step may change, as it is now; with a number in the place of a schedule, which may be at fault."""
    before, opt.eta = opt.eta, 0.1
    states = [{name: np.array(value) for name, value in opt.state(p).items()} for p in ps]
    opt.eta = before
    return [p.copy() for p in ps], states


def same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        if isinstance(x, dict):
            assert x.keys() == y.keys()
            same(list(x.values()), list(y.values()))
        elif isinstance(x, list):
            same(x, y)
        else:
            assert x.tobytes() == y.tobytes()


@both
@pytest.mark.parametrize(("value", "error", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_a_schedule_may_not_give_is_refused_and_nothing_is_touched(backend, value, error, message):
    opt = optgen.ADAM(lambda t: 0.1 if t != 3 else value, backend=backend)
    ps, gs = [np.ones(3), np.ones((2, 2), np.float32)], [np.ones(3), np.ones((2, 2), np.float32)]
    for _ in range(2):
        opt.step(ps, gs)
    before = touched(opt, ps)
    for _ in range(2):
        with pytest.raises(error) as refused:
            opt.step(ps, gs)
        assert message in str(refused.value)
        same(before, touched(opt, ps))
    opt.eta = 0.1
    opt.step(ps, gs)
    assert opt.state(ps[0])["t"] == 3


@both
def test_a_schedule_at_fault_in_the_first_step_leaves_no_state(backend):
    opt = optgen.ADAM(lambda t: -1.0, backend=backend)
    p = np.ones(3)
    with pytest.raises(HyperparameterError, match=r"got -1\.0 from its schedule in step 1"):
        opt.step([p], [np.ones(3)])
    assert p.tolist() == [1.0] * 3
    assert opt.state_dict()["parameters"] == []


@both
def test_what_a_schedule_raises_itself_goes_through_and_nothing_is_touched(backend):
    def ends(t):
        if t > 2:
            raise RuntimeError("no more")
        return 0.1

    opt, p = optgen.ADAM(ends, backend=backend), np.ones(3)
    for _ in range(2):
        opt.step([p], [np.ones(3)])
    before = touched(opt, [p])
    with pytest.raises(RuntimeError, match="no more"):
        opt.step([p], [np.ones(3)])
    same(before, touched(opt, [p]))


@both
def test_one_value_at_fault_of_two_is_refused_by_its_range(backend):
    opt = optgen.Rprop(etas=(0.5, lambda t: 1 / t), backend=backend)
    p = np.ones(2)
    with pytest.raises(
        HyperparameterError, match=r"etas\[2\].*: expected a value in \(1, inf\), got 1.0 from its schedule"
    ):
        opt.step([p], [np.ones(2)])
    assert p.tolist() == [1.0, 1.0]


@both
def test_a_value_of_a_schedule_may_vanish_too(backend):
    opt, p = optgen.Descent(lambda t: 0.5 if t < 2 else 1e-60, backend=backend), np.ones(2, np.float32)
    opt.step([p], [np.ones(2, np.float32)])
    with pytest.raises(HyperparameterError, match="would be 0 in float32"):
        opt.step([p], [np.ones(2, np.float32)])
    assert p.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("kind", [cosine, Zero, float, type("Own", (), {"__call__": lambda self, t: 0.1})])
def test_a_class_is_no_schedule(kind):
    for make_it in (lambda: optgen.ADAM(kind), lambda: setattr(optgen.ADAM(), "eta", kind)):
        with pytest.raises(ArgumentError, match=r"eta \(η\): expected a number, got <class") as error:
            make_it()
        assert error.value.hint == f"make one: {kind.__name__}(...)"


def test_parameters_are_not_given_to_a_constructor():
    with pytest.raises(ArgumentError, match=r"lr: expected a number, got \[array") as error:
        optgen.Adam([np.ones(2)])
    assert error.value.hint == "parameters are given to each step: opt.step(params, grads)"


@pytest.mark.parametrize("name", ["AccumGrad", "Lookahead"])
def test_a_whole_number_is_asked_for_where_one_is_needed(name):
    cls = getattr(optgen, name)
    (name,) = [hyper.name for hyper in cls().rule.hypers if "whole" in hyper.range]
    assert getattr(cls(**{name: 3}), name) == getattr(cls(**{name: 3.0}), name) == 3
    with pytest.raises(HyperparameterError, match=r"expected a whole number in \[1, inf\), got 2\.5"):
        cls(**{name: 2.5})


@both
def test_a_schedule_is_called_once_a_step_with_the_count_that_the_step_has(backend):
    calls = []

    def rate(t):
        calls.append(t)
        return 0.5 / t

    opt = optgen.ADAM(rate, (0.5, lambda t: calls.append(-t) or 0.75), backend=backend)
    assert calls == []
    ps, gs = [np.ones(3), np.ones(2), np.ones(2, np.float32)], [np.ones(3), np.ones(2), np.ones(2, np.float32)]
    for step in range(1, 5):
        opt.step(ps, gs)
        assert sorted(calls) == [*range(-step, 0), *range(1, step + 1)]
    assert all(type(t) is int for t in calls)


@both
def test_to_look_at_the_state_of_what_was_stepped_calls_no_schedule(backend):
    calls = []
    opt, p = optgen.ADAM(lambda t: calls.append(t) or 0.1, backend=backend), np.ones(3)
    for _ in range(2):
        opt.step([p], [np.ones(3)])
        assert opt.state(p)["t"] == len(calls)


@both
def test_parameters_of_different_counts_get_the_values_of_their_counts(backend):
    calls = []
    opt = optgen.Descent(lambda t: calls.append(t) or 2.0**-t, backend=backend)
    a, b, one = np.zeros(1), np.zeros(1), np.ones(1)
    opt.step([a], [one])
    opt.step([a], [one])
    assert a[0] == -0.75
    opt.step([a, b], [one, one])
    assert (a[0], b[0]) == (-0.875, -0.5)
    opt.step([b, a], [one, one])
    assert (a[0], b[0]) == (-0.9375, -0.75)
    assert [sorted(calls[i : i + 2]) for i in (2, 4)] == [[1, 3], [2, 4]]
    assert len(calls) == 6


@both
def test_every_value_of_a_vector_may_be_a_schedule(backend):
    schedule = cosine(0.5, 10, 0.25)
    opt = optgen.ADAM(0.1, (0.9, lambda t: 0.99), backend=backend)
    fixed = optgen.ADAM(0.1, (0.9, 0.99), backend=backend)
    p, q, g = np.ones(5), np.ones(5), np.linspace(-1, 1, 5)
    for _ in range(3):
        opt.step([p], [g])
        fixed.step([q], [g])
    same([p], [q])
    opt.beta1 = schedule
    assert opt.beta[0] is schedule
    assert callable(opt.beta2)
    for t in (4, 5):
        fixed.beta1 = schedule(t)
        opt.step([p], [g])
        fixed.step([q], [g])
    same([p], [q])


@both
@pytest.mark.parametrize(
    "wrap", [float, np.float32, np.float64, np.asarray, Zero, Fraction, lambda x: np.array(x, np.float32)]
)
def test_numbers_of_any_kind_are_what_a_schedule_may_give(backend, wrap):
    opt, p = optgen.Descent(lambda t: wrap(0.5), backend=backend), np.ones(2)
    opt.step([p], [np.ones(2)])
    assert p.tolist() == [0.5, 0.5]


@both
def test_a_schedule_may_take_the_place_of_a_number_while_running_and_the_other_way_round(backend):
    opt, fixed = optgen.ADAM(0.1, backend=backend), optgen.ADAM(0.1, backend=backend)
    p, q, g = np.ones(3), np.ones(3), np.array([1.0, -2.0, 0.5])
    schedule = cosine(0.1, 10)
    for t in range(1, 7):
        if t == 3:
            opt.eta = schedule
        if t == 5:
            opt.eta = 0.05
        fixed.eta = schedule(t) if t in (3, 4) else 0.1 if t < 3 else 0.05
        opt.step([p], [g])
        fixed.step([q], [g])
    same([p], [q])
    opt.eta = schedule
    assert "eta=cosine(0.1, steps=10)" in repr(opt)
    assert opt.eta is opt.η is schedule


def test_a_kernel_and_the_interpreter_are_given_the_same_numbers():
    schedule, g = one_cycle(0.1, 5), np.linspace(-1, 1, 7, dtype=np.float32)
    ps = []
    for backend in ("kernel", "interpreter"):
        opt, p = optgen.NADAM(schedule, (0.9, lambda t: 1 - 0.1 / t), backend=backend), np.ones(7, np.float32)
        for _ in range(6):
            opt.step([p], [g])
        ps.append(p)
    same([ps[0]], [ps[1]])


# ---- Schedules that are saved and copied ----


@both
def test_supplied_schedules_are_saved_as_plain_containers_and_resumed(backend):
    def fresh(eta=0.1):
        return optgen.ADAM(eta, (0.9, linear(0.9, 0.99, 5)), backend=backend)

    opt, p, g = fresh(warmup(2, cosine(0.1, 4))), np.ones(3), np.array([1.0, -2.0, 0.5])
    for _ in range(2):
        opt.step([p], [g])
    saved = opt.state_dict()
    text = json.dumps(saved["hyperparameters"])
    assert saved["hyperparameters"]["eta"]["schedule"] == "warmup"
    assert saved["hyperparameters"]["beta"][1]["schedule"] == "linear"
    saved["hyperparameters"] = json.loads(text)
    other, q = fresh(), p.copy()
    other.load_state_dict(saved, [q])
    assert (other.eta, other.beta2) == (opt.eta, opt.beta2)
    copies = [copy.deepcopy(opt), pickle.loads(pickle.dumps(opt)), other]
    qs = [p.copy(), p.copy(), q]
    for _ in range(3):
        for each, x in zip((opt, *copies), (p, *qs), strict=True):
            each.step([x], [g])
    for x in qs:
        same([p], [x])
    assert all(each.eta == opt.eta for each in copies)


@both
def test_a_function_is_saved_as_a_word_that_loads_only_where_there_is_one(backend):
    opt = optgen.ADAM(lambda t: 0.1, (0.9, lambda t: 0.99), backend=backend)
    p = np.ones(3)
    opt.step([p], [np.ones(3)])
    saved = opt.state_dict()
    assert saved["hyperparameters"]["eta"] == "a function of the step"
    assert saved["hyperparameters"]["beta"] == (0.9, "a function of the step")
    json.dumps(saved["hyperparameters"])
    message = "expected a number or a saved schedule, got a function of the step, which no state holds"
    for other in (optgen.ADAM(), optgen.ADAM(lambda t: 0.2), optgen.ADAM(beta=(lambda t: 0.5, lambda t: 0.5))):
        before = repr(other)
        with pytest.raises(StateError, match=message) as refused:
            other.load_state_dict(saved)
        assert "load again" in refused.value.hint
        assert repr(other) == before
    own = lambda t: 0.25  # noqa: E731
    other = optgen.ADAM(own, (0.5, own), backend=backend)
    other.load_state_dict(saved, [p])
    assert (other.eta, other.beta) == (own, (0.9, own))
    assert other.state(p)["t"] == 1
    twin = copy.deepcopy(opt)
    assert twin.eta is opt.eta
    assert twin.beta == opt.beta


def test_a_saved_schedule_is_checked_as_when_it_is_made():
    saved = optgen.ADAM(cosine(0.1, 10)).state_dict()
    values = saved["hyperparameters"]
    for change in ({"steps": 0}, {"schedule": "sine"}, {"start": "0.1"}):
        opt = optgen.ADAM()
        with pytest.raises(StateError):
            opt.load_state_dict(saved | {"hyperparameters": values | {"eta": values["eta"] | change}})
        assert opt.eta == 0.001


# ---- Flags that hyperparameters decide ----


@both
def test_a_value_that_would_decide_otherwise_is_refused_once_a_flag_is_decided(backend):
    opt = optgen.SGD(0.1, backend=backend)
    p = np.ones(2)
    opt.step([p], [np.ones(2)])
    with pytest.raises(HyperparameterError) as error:
        opt.momentum = 0.9
    assert "SGD was made with buffered=False, since not momentum ≠ 0" in str(error.value)
    assert "buffered=True" in error.value.hint
    assert (opt.momentum, opt.buffered) == (0.0, False)
    opt.momentum = 0
    opt.lr = 0.5
    opt.step([p], [np.ones(2)])
    kept = optgen.SGD(0.1, 0.9, backend=backend)
    kept.momentum = 0.5
    with pytest.raises(HyperparameterError, match="SGD was made with buffered=True, since momentum ≠ 0"):
        kept.momentum = 0
    assert kept.momentum == 0.5
    with pytest.raises(StateError, match="flags"):
        opt.load_state_dict(kept.state_dict())


@both
def test_a_flag_that_was_chosen_lets_hyperparameters_be_what_they_like(backend):
    opt, twin = optgen.SGD(0.1, buffered=True, backend=backend), optgen.SGD(0.1, 0.9, backend=backend)
    opt.momentum = 0.9
    p, q, g = np.ones(3), np.ones(3), np.array([1.0, -2.0, 0.5])
    for _ in range(3):
        opt.step([p], [g])
        twin.step([q], [g])
    same([p], [q])
    still = optgen.SGD(0.1, 0.9, buffered=False, backend=backend)
    still.step([p], [g])
    assert "momentum_buffer" not in still.state(p)


def test_flags_that_contradict_each_other_are_refused_when_made():
    with pytest.raises(ArgumentError, match="SGD: the flags contradict each other: nesterov requires buffered"):
        optgen.SGD(nesterov=True)
    assert optgen.SGD(momentum=0.9, nesterov=True).nesterov
