"""What it takes to find out which matrices are symmetric, where there are many products."""

from __future__ import annotations

import time

from optgen.ir.rule import Rule
from optgen.language.check import check
from optgen.language.parse import parse

SPEC = """name = "Long"
[hyperparameters]
eta = {{ default = 0.1, range = "[0, inf)" }}
[state]
{state}
[update]
formulas = '''
{formulas}
'''
"""


def rule(formulas: str, state: str = "") -> Rule:
    (found,) = check(parse(SPEC.format(formulas=formulas, state=state), "long.toml"))
    return found


def test_factors_of_factors_are_looked_at_once() -> None:
    """A product in a product in a product: 40 of them, the first within the last."""
    right = "g"
    for i in range(40):
        right = f"{'g' if i % 2 else 'g.T'} @ ({right})"
    start = time.perf_counter()
    rule(f"x = {right}\ndelta = eta*g + sum(power(x @ x.T, 2))*g")
    assert time.perf_counter() - start < 5


def test_many_turns_take_no_more_of_the_stack_than_few() -> None:
    rule("x = g @ g.T\nfor _ in range(600):\n    x = x + eta*x\ndelta = eta*g + sum(power(x, 2))*g")
