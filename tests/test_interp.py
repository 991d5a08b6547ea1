"""The oracle itself: what it leaves behind, and the order in which it reads and writes. Its numbers: test_oracle."""

from __future__ import annotations

import gc
import weakref

import numpy as np

import optgen
from optgen import driver, interp


def test_a_step_keeps_nothing_alive_without_the_help_of_the_collector() -> None:
    opt, p, g = optgen.ADAM(backend="interpreter"), np.ones(3), np.ones(3)
    watched = [weakref.ref(p), weakref.ref(g)]
    gc.disable()
    try:
        opt.step([p], [g])
        del p, g
        assert [ref() for ref in watched] == [None, None]
    finally:
        gc.enable()


def test_an_old_value_that_was_given_a_name_stays_old() -> None:
    text = """
    name = "Swap"
    [state]
    a = { init = 1 }
    b = { init = 2 }
    [update]
    formulas = '''
    old   = a
    a     = b
    b     = old
    delta = g*0*(a + b)
    '''
    """
    rule = driver.compile_text(text, "swap.toml").rules[0]
    arrays = {"p": np.zeros(2), "g": np.zeros(2), "a": np.full(2, 1.0), "b": np.full(2, 2.0)}
    interp.step(rule, {}, 1, arrays)
    assert (arrays["a"].tolist(), arrays["b"].tolist()) == ([2.0, 2.0], [1.0, 1.0])


def test_a_number_of_the_host_is_rounded_once_where_it_meets_an_element() -> None:
    text = """
    name = "Round"
    [hyperparameters]
    eta = { default = 0.1, range = "[0, 1]" }
    [update]
    formulas = "delta = (eta*eta)*g"
    """
    rule = driver.compile_text(text, "round.toml").rules[0]
    p, g = np.zeros(1, np.float32), np.full(1, 3, np.float32)
    interp.step(rule, {"eta": (0.1,)}, 1, {"p": p, "g": g})
    assert p[0] == -(np.float32(0.1 * 0.1) * np.float32(3))
    assert p[0] != -(np.float32(0.1) * np.float32(0.1) * np.float32(3))
