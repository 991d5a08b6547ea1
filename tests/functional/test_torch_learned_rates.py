"""The example that learns learning rates: it gets further each time, in the direction that differences show."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import learn_rates

import optgen

pytestmark = pytest.mark.no_cover


def test_a_rule_gets_further_with_the_rates_that_are_learned() -> None:
    curve, rates = learn_rates.learn(optgen.Descent.function("torch"), 0.02, times=4)
    assert curve == sorted(curve, reverse=True)
    assert all(rate > 0.04 for rate in rates.values())
