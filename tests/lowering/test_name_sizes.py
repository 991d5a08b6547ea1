"""Tensors in shards, in threads that stand for processes: what is reduced over a tensor is that of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest

from optgen import interpreter as interp
from optgen.compiler import catalogue, driver
from optgen.ir.evaluate import Always
from optgen.ir.verify import verify
from optgen.lowering import name_sizes as shards
from optgen.lowering.sweeps import sweeps_of
from optgen.lowering.work import Exchange, Group
from optgen.runtime.binding import Binding, rows_of
from optgen.runtime.group_step import GroupStep, Shards
from optgen.runtime.kernel import kernel_of
from optgen.runtime.layout import counts_of

RULE = """
name = "R"
[hyperparameters]
eta = {{ default = 0.5, range = "[0, inf)" }}
[state]
v = {{ init = "0", extent = "tensor" }}
[update]
formulas = '''
{formulas}
'''
"""
FORMULAS = {
    "the shape": "v = v + length(1)*length(-1) + ndim\ndelta = eta*(v + length(2))*g/norm(g)",
    "the size before the first pass": "v = v + size\ndelta = eta*g/size",
    "a norm": "v = norm(g)\ndelta = eta*g/v*norm(p)",
    "one after the other": "v = v + norm(g)\nu = g/v\ndelta = eta*u*max(u) + min(u)*mean(u*u)",
    "a sum over a sum": "v = max(abs(p))\nr = norm(g, group)\ndelta = eta*g/r*sum(norm(g), group) + mean(g, group)*v",
    "of rows": "v = sum(mean(g, row))\ndelta = eta*v*max(max(g*g, row))*p",
}
CUT = (0, 3, 3, 130, 131)  # four shards along the first dimension, an empty one and one of a single row among them
SHAPE = (131, 70)


def compiled(formulas: str) -> driver.Compilation:
    return driver.compile_text(RULE.format(formulas=formulas), "r.toml")


def joiner(count: int) -> Any:
    """For each of `count` threads its way to put parts together, as a backend would."""
    barrier, given = Barrier(count, timeout=20), [np.zeros(0)] * count

    def joined(i: int, folds: Sequence[str], parts: Any) -> Any:
        given[i] = parts
        barrier.wait()
        take = {"sum": np.add, "max": np.maximum, "min": np.minimum}
        total = given[0]
        for part in given[1:]:
            total = np.stack([take[how](total[:, k], part[:, k]) for k, how in enumerate(folds)], axis=1)
        barrier.wait()
        return total

    return joined


@pytest.mark.slow
@pytest.mark.parametrize("formulas", FORMULAS.values(), ids=FORMULAS)
def test_shards_reduce_as_the_whole_does(formulas: str) -> None:
    spec = compiled(formulas)
    rng = np.random.default_rng(0)
    whole = {"p": rng.standard_normal(SHAPE), "v": np.zeros(()), "g": np.zeros(SHAPE)}
    parts = list(pairwise(CUT))
    params = [whole["p"][low:high].copy() for low, high in parts]
    states = [np.zeros(()) for _ in parts]
    kernel = kernel_of(spec.in_shards, 0, "float64", None)
    joined = joiner(len(parts))
    for t in (1, 2):
        whole["g"] = rng.standard_normal(SHAPE)
        interp.step(spec.rules[0], {"eta": (0.5,)}, t, whole)
        counted: list[bool] = []

        def run(i: int, t: int = t, g: Any = whole["g"], counted: list[bool] = counted) -> None:
            low, high = parts[i]
            mine = g[low:high].copy()  # a binding keeps nothing alive
            binding = Binding(kernel, rows_of(kernel, [(params[i], mine, states[i])]))
            binding.count_from([t - 1])
            of = [counts_of(SHAPE, kernel.rule if kernel.entry.units == 0 else None)]
            own = Shards([SHAPE], of, lambda folds, given: joined(i, folds, given))
            values = [Always({"eta": (0.5,)})]
            counted.append(GroupStep([binding], [np.array([0])], 1, shards=[own]).run(values, 1, t, {}))

        threads = [Thread(target=run, args=(i,)) for i in range(len(parts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counted == [True] * len(parts)
    np.testing.assert_allclose(np.concatenate(params), whole["p"], rtol=1e-12, atol=1e-12)
    assert len({state.tobytes() for state in states}) == 1
    np.testing.assert_allclose(states[0], whole["v"], rtol=1e-12)


def test_a_rule_that_reduces_over_no_tensor_is_the_same_in_shards() -> None:
    spec = compiled("v = v + 1\ndelta = eta*v*g/norm(g, group)")
    assert spec.in_shards is spec
    other = compiled("v = v + 1\ndelta = eta*v*g/norm(g)").in_shards
    assert other.sharded
    assert other.in_shards is other
    assert all(rule.sharded for rule in other.lowered)


def test_only_what_shards_must_tell_each_other_is_exchanged() -> None:
    spec = compiled("v = v + size\na = norm(g)\nb = norm(a*g, group)\ndelta = eta*g/a/b + size*v*p")
    plan = sweeps_of(spec.in_shards.lowered[0])
    kinds = [kind.__name__ for kind, _ in groupby(map(type, plan.work))]
    assert kinds == ["Exchange", "SmallLoop", "Sweep", "SmallLoop", "Exchange", "SmallLoop", "Sweep", "SmallLoop",
                     "Group", "Sweep"]  # fmt: skip
    exchanged = [assign.value for work in plan.work if isinstance(work, Exchange) for assign in work.code]
    assert len(exchanged) == 2  # the size, once; and the square of the norm
    assert not any(isinstance(work, Exchange) for work in sweeps_of(spec.lowered[0]).work)
    assert sum(isinstance(work, Group) for work in plan.work) == 1


def test_the_pass_is_sound() -> None:
    for spec in map(driver.compile_file, catalogue.shipped()):
        for rule in spec.lowered:
            if shards.needed(rule):
                verify(shards.run(rule))
