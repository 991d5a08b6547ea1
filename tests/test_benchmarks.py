"""What the benchmarks compare with is what it is said to be: the same rules, the shapes of ResNet-50, a stream."""

from __future__ import annotations

import math

import numpy as np
import pytest

import optgen
from optgen import driver
from optgen.resources import benchmarks

numpy_rules, shapes, stream = map(benchmarks, ("numpy_rules", "shapes", "stream"))

SHIPPED = [driver.compile_file(path).rules[0] for path in driver.shipped()]
RULES = [rule.name for rule in SHIPPED if rule.origin == "Flux"]


def test_every_rule_of_the_seed_has_its_rival() -> None:
    assert len(RULES) == 11
    assert set(numpy_rules.RULES) == set(numpy_rules.INIT) == set(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_the_rival_by_hand_takes_the_same_steps(rule: str) -> None:
    rng = np.random.default_rng(0)
    by_hand = rng.standard_normal(40)
    ours, state, opt = by_hand.copy(), numpy_rules.INIT[rule](by_hand), getattr(optgen, rule)()
    for t in range(1, 31):
        g = rng.standard_normal(40) * 10.0 ** rng.integers(-3, 3)
        numpy_rules.RULES[rule](by_hand, g, state, t)
        opt.step([ours], [g])
    np.testing.assert_allclose(by_hand, ours, rtol=1e-11, atol=1e-12)


def test_the_list_of_shapes_is_that_of_resnet_50() -> None:
    resnet50 = shapes.SHAPES["resnet50"]
    assert (len(resnet50), sum(map(math.prod, resnet50))) == (161, 25_557_032)


def test_the_other_list_of_shapes_is_that_of_gpt_2_small() -> None:
    gpt2 = shapes.SHAPES["gpt2"]
    assert (len(gpt2), sum(map(math.prod, gpt2))) == (148, 124_439_808)


def test_the_stream_goes_over_every_element_once() -> None:
    limit = stream.Stream(1001)
    limit.run()
    assert np.array_equal(limit.array, np.full(1001, np.float32(1.0000001)))
