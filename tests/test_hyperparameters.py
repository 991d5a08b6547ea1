"""Hyperparameters as callers give them: in any spelling, when an optimiser is made and later, within their ranges."""

from __future__ import annotations

import inspect
import math
from fractions import Fraction

import numpy as np
import pytest

import optgen
from optgen import driver
from optgen.check import ARGUMENTS
from optgen.errors import ArgumentError, HyperparameterError
from optgen.names import greek
from optgen.optimiser import Optimiser

SPECS = [driver.compile_file(path) for path in driver.shipped()]
RULES = [spec.name for spec in SPECS]
HYPERS = [(spec.name, hyper) for spec in SPECS for hyper in spec.rules[0].hypers]

by_hyper = pytest.mark.parametrize(("rule", "hyper"), HYPERS, ids=lambda x: getattr(x, "name", x))
by_rule = pytest.mark.parametrize("rule", RULES)

#: A value of every hyperparameter that is not its default.
OTHER = {1: 0.25, 2: (0.5, 0.75)}


def make(rule, **keywords):
    return getattr(optgen, rule)(**keywords, backend="interpreter")


# ---- When an optimiser is made ----


def test_the_seeds_own_lines():
    assert optgen.ADAM(0.001, (0.9, 0.999)) is not None
    assert optgen.AdaMax(0.001, β1=0.8, β2=0.99, ϵ=1e-7).beta == (0.8, 0.99)
    assert optgen.RMSProp(η=0.01, ρ=0.8).rho == 0.8
    assert optgen.ADAGrad(0.1, ε=1e-6).eps == 1e-6
    assert optgen.ADAMW(0.001, (0.9, 0.999), 0.1).decay == 0.1


@by_hyper
def test_a_keyword_may_be_ascii_or_greek_and_not_normalised(rule, hyper):
    value = OTHER[len(hyper.default)]
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
    others = [OTHER[len(hyper.default)] for hyper in hypers]
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
        (lambda: optgen.ADAM(backend="gpu"), "backend: one of kernel, interpreter was expected, got 'gpu'"),
        (lambda: optgen.ADAMW(coupled=1), "the flag coupled: True or False was expected, got 1"),
        (lambda: optgen.ADAM("0.1"), "eta (η): a number was expected, got '0.1'"),
        (lambda: optgen.ADAM(True), "eta (η): a number was expected, got True"),
        (lambda: optgen.ADAMW(decay=None), "decay: a number was expected, got None"),
        (lambda: optgen.ADAM(beta=0.9), "beta (β): 2 numbers were expected, got 0.9"),
        (lambda: optgen.ADAM(beta=(0.9,)), "beta (β): 2 numbers were expected, got (0.9,)"),
        (lambda: optgen.ADAM(beta="12"), "beta (β): 2 numbers were expected, got '12'"),
        (lambda: optgen.ADAM(beta=np.array(0.5)), "beta (β): 2 numbers were expected"),
        (lambda: optgen.ADAM(beta=("0.9", 0.9)), "beta (β): a number was expected, got '0.9'"),
        (lambda: Optimiser(), "Optimiser is made of no spec"),
        (lambda: type("Own", (Optimiser,), {})(), "Own is made of no spec"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_by_name(call, message):
    with pytest.raises(ArgumentError) as error:
        call()
    assert message in str(error.value)


@pytest.mark.parametrize("values", [{0.5, 0.25}, {0.5: 1, 0.25: 2}])
def test_values_without_an_order_are_refused(values):
    with pytest.raises(ArgumentError, match=r"beta \(β\): 2 numbers were expected"):
        optgen.ADAM(beta=values)


def test_sequences_and_numbers_of_any_kind_are_taken():
    values = (0.5, 0.25)
    for given in ([*values], np.array(values), np.float32(values), iter(values)):
        assert optgen.ADAM(beta=given).beta == values
    for number in (1, np.float32(1), np.int64(1), Fraction(1)):
        opt = optgen.ADAM(number)
        assert (opt.eta, type(opt.eta)) == (1.0, float)


# ---- Ranges ----


@by_hyper
@pytest.mark.parametrize("bad", [-0.5, -math.inf, math.inf, math.nan, 10**400, -(10**400), Fraction(10**400)])
def test_a_value_out_of_range_is_refused_by_name_and_range(rule, hyper, bad):
    given = (0.5, bad) if hyper.vector else bad
    opt = make(rule)
    before = repr(opt)
    with pytest.raises(HyperparameterError) as made:
        make(rule, **{hyper.name: given})
    with pytest.raises(HyperparameterError) as assigned:
        setattr(opt, hyper.name, given)
    for message in (str(made.value), str(assigned.value)):
        assert message.startswith(hyper.name)
        assert str(hyper.range) in message
        assert hyper.doc in message
    assert repr(opt) == before


def test_the_ends_of_a_range_are_as_the_spec_says():
    assert optgen.ADAM(0, (0, 0), 0).eta == 0
    assert optgen.Momentum(rho=1).rho == 1
    message = r"beta \(β\), decay rates of the two moments: a value in \[0, 1\) was expected, got 1\.0"
    with pytest.raises(HyperparameterError, match=message):
        optgen.ADAM(beta2=1)
    # Not rounded to what would have been in range.
    with pytest.raises(HyperparameterError, match=r"got 1\.0000000001"):
        optgen.Momentum(rho=1.0000000001)


# ---- As attributes ----


@by_hyper
def test_each_may_be_changed_at_any_time(rule, hyper):
    opt = make(rule)
    value = OTHER[len(hyper.default)]
    setattr(opt, greek(hyper.name), value)
    assert getattr(opt, hyper.name) == value
    for i in range(len(hyper.default) if hyper.vector else 0):
        setattr(opt, f"{hyper.name}{i + 1}", 0.125)
        assert getattr(opt, f"{greek(hyper.name)}{i + 1}") == getattr(opt, hyper.name)[i] == 0.125
    with pytest.raises(ArgumentError, match=f"{hyper.name}.* expected, got"):
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
    assert {name for name in dir(opt) if not name.startswith("_")} - public == set(opt._names())


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
