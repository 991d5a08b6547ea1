"""Which states are never negative: what formulas show, in all phases of a step and in any number of turns."""

from __future__ import annotations

import time

import pytest

from optgen.ir.signs import never_negative
from optgen.language.check import check
from optgen.language.parse import parse

SPEC = """name = "Signs"
[hyperparameters]
eta  = {{ default = 0.1, range = "[0, inf)" }}
beta = {{ default = [0.9, 0.99], range = "[0, 1)" }}
[state]
u = {{ init = "0" }}
v = {{ init = "{init}" }}
{update}
"""
ONE = """[update]
formulas = '''
u = {u}
v = {v}
delta = eta*u + eta*v
'''
"""


def found(v: str, u: str = "beta[1]*u + g", init: str = "0") -> frozenset[str]:
    return never_negative(check(parse(SPEC.format(init=init, update=ONE.format(u=u, v=v)), "signs.toml")))


NEVER = [
    "beta[2]*v + (1 - beta[2])*g**2", "max(beta[2]*v, abs(g))", "v + g*g", "sqrt(v) + exp(u)", "v + u**2",
    "where(g > 0, v, 1)", "v if t == 1 else g**4", "v*beta[1]**t", "v/(1 + v)", "min(v, 1)", "eta*sigmoid(g)*(g*v*g)",
    "cbrt(v)", "size*v", "max(g, v)",
]  # fmt: skip
MAYBE = [
    "beta[2]*v + (1 - beta[2])*g", "v - g**2", "(1 - eta)*v", "v + g**3", "v*g", "u", "tanh(v) + g", "min(v, g)",
    "v if t == 1 else g", "p*g", "sin(v)",
]  # fmt: skip


@pytest.mark.parametrize("v", NEVER)
def test_what_is_never_negative_is_found(v: str) -> None:
    assert found(v) == {"v"}


@pytest.mark.parametrize("v", MAYBE)
def test_what_may_be_negative_is_not(v: str) -> None:
    assert not found(v)


def test_a_state_begins_and_goes_on_without_a_sign_or_is_none() -> None:
    assert not found("v + g**2", init="-1")
    assert not found("v + g**2", init="p")
    assert found("v + u", u="beta[1]*u + g**2") == {"u", "v"}
    assert not found("v + u", u="beta[1]*u + v - g**2")


def test_many_turns_are_read_once_each() -> None:
    loop = "w = g**2\nfor _ in range(400):\n    w = w + w/(1 + w)"
    update = ONE.format(u="beta[1]*g", v="w").replace("v = w", f"{loop}\nv = w")
    rules = check(parse(SPEC.format(init="0", update=update), "signs.toml"))
    start = time.perf_counter()
    assert never_negative(rules) == {"v"}
    assert time.perf_counter() - start < 5


PHASES = """[update.first]
formulas = '''
v = u
p = p + 0*v
'''
[update.second]
formulas = '''
u = {u}
delta = beta[1]*g + eta*beta[2]*v
'''
"""


def test_a_state_takes_the_sign_that_another_phase_gives() -> None:
    """The first phase hands on what the second one has made."""
    for u, expected in (("g", frozenset[str]()), ("g**2", frozenset({"u", "v"}))):
        rules = check(parse(SPEC.format(init="0", update=PHASES.format(u=u)), "signs.toml"))
        assert never_negative(rules) == expected
