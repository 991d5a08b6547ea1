"""Steps of rules with blocks, as users take them: kernel and interpreter, states, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from equivalence import BLOCKS, same_bits

import optgen
from optgen.compiler import driver
from optgen.errors import ArgumentError, HyperparameterError, StateError
from optgen.ir.expr import Extent
from optgen.optimiser import classes

Array = np.ndarray[Any, np.dtype[Any]]
Blocks: Any = classes.module_class(driver.compile_text(BLOCKS, "blocks.toml"))
#: A variant for matrices that knows of rows, and one for others that knows of blocks.
MIXED = """
name = "Mixed"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
k   = { default = 4, range = "[1, inf), whole" }
[state]
r = { init = "0", extent = "row", when = "matrix" }
v = { init = "0", extent = "block", when = "not matrix" }
[update]
block    = "k"
formulas = '''
r     = r/2 + mean(g**2, row)
v     = v/2 + mean(g**2, block)
delta = eta*g/(sqrt(r if matrix else v) + 1e-3)
'''
"""
#: Blocks that the shape says, of a fraction of an element for some.
SHAPED = """
name = "Shaped"
[hyperparameters]
eta   = { default = 0.1, range = "[0, inf)" }
heads = { default = 2, range = "[1, inf), whole" }
[state]
v = { init = "0", extent = "block" }
[update]
block    = "length(-1)*length(1)/heads if ndim > 1 else size"
formulas = '''
v     = max(v, max(abs(g), block))
delta = eta*g/(v + 1e-3)
'''
[report]
twice = { value = "v + max(abs(g), block)" }
top   = { value = "max(abs(g))" }
"""
LIKE = [(), (1,), (0,), (3, 0), (7,), (2, 5), (3, 4, 5), (65, 3), (2000,), (70, 100)]


def made(text: str) -> Any:
    return classes.module_class(driver.compile_text(text, "test.toml"))


def arrays(dtype: str, seed: int) -> list[Array]:
    """Of many shapes; then transposed, with gaps, backwards."""
    rng = np.random.default_rng(seed)
    dense = [np.asarray(rng.normal(size=shape), dtype) for shape in LIKE]
    a, b, c = (np.asarray(rng.normal(size=shape), dtype) for shape in ((8, 9), (60, 70), (3000,)))
    return [*dense, a.T, b[::2, ::3], c[::-2], dense[6].transpose(2, 0, 1).copy("F")]


def expect_same(opts: Sequence[Any], worlds: Sequence[list[Array]]) -> None:
    """All NaNs are one: a mean of nothing has one."""
    for p, q in zip(*worlds, strict=True):
        ours, theirs = ({"p": x} | opt.state(x) for opt, x in zip(opts, (p, q), strict=True))
        for name in ours.keys() | theirs.keys():
            same_bits(*(np.asarray(state[name], "f8") for state in (ours, theirs)), f"{name} of {p.shape}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("k", [1, 2, 7, 64, 1000, 1024, 1025, 3000, 10**6])
def test_kernel_and_interpreter_are_one_for_any_size_of_a_block(k: int, dtype: str) -> None:
    opts, worlds = [Blocks(k=k, backend=b) for b in ("kernel", "interpreter")], [arrays(dtype, 1), arrays(dtype, 1)]
    for step in range(2):
        for opt, ps in zip(opts, worlds, strict=True):
            opt.step(ps, [np.asarray(g, dtype) for g in arrays(dtype, 2 + step)])
    expect_same(opts, worlds)


@pytest.mark.parametrize("text", [MIXED, SHAPED])
def test_blocks_beside_rows_and_of_the_shape(text: str) -> None:
    shapes = [(4, 6), (8,), (2, 3, 6), ()]
    rng = np.random.default_rng(0)
    start, g = ([rng.normal(size=shape) for shape in shapes] for _ in range(2))
    opts = [made(text)(backend=backend) for backend in ("kernel", "interpreter")]
    worlds = [[np.array(p) for p in start] for _ in opts]
    for opt, ps in zip(opts, worlds, strict=True):
        opt.step(ps, [np.array(x) for x in g])
    expect_same(opts, worlds)
    kept = [opts[0].state(p) for p in worlds[0]]
    if text is SHAPED:
        assert [state["v"].shape for state in kept] == [(2,), (1,), (6,), (1,)]
        np.testing.assert_array_equal(kept[0]["v"], [np.abs(g[0][:2]).max(), np.abs(g[0][2:]).max()])
    else:
        assert [sorted(state.keys() - {"t"}) for state in kept] == [["r"], ["v"], ["r"], ["v"]]


def test_a_state_has_one_value_for_each_block() -> None:
    opt, ps = Blocks(k=7), arrays("float32", 0)
    opt.step(ps, arrays("float32", 1))
    assert [opt.state(p)["v"].shape for p in ps] == [(math.ceil(p.size / 7),) for p in ps]
    assert {opt.state(p)["v"].dtype for p in ps} == {np.dtype("float64")}
    saved = opt.state_dict()
    twin, qs = Blocks(k=7), [p.copy() for p in ps]
    twin.load_state_dict(saved, qs)
    for each, own in ((opt, ps), (twin, qs)):
        each.step(own, arrays("float32", 2))
    expect_same([opt, twin], [ps, qs])


def test_how_large_a_block_is_stays_as_it_was() -> None:
    opt, p = Blocks(k=3), np.ones(10)
    opt.step([p], [p / 2])
    with pytest.raises(HyperparameterError, match=r"made with k=3, which is chosen when it is made; got 4\n"):
        opt.k = 4
    opt.k = 3
    opt.eta = 0.5
    with pytest.raises(HyperparameterError, match=r"made with k=4, which is chosen when it is made; got 3\n"):
        Blocks(k=4).load_state_dict(opt.state_dict())
    with pytest.raises(ArgumentError, match="k: expected a number, got a schedule: it is chosen when an optimiser is"):
        Blocks(k=lambda t: 3)
    with pytest.raises(HyperparameterError, match="k"):
        Blocks(k=0)
    with pytest.raises(HyperparameterError, match="k"):
        Blocks(k=2.5)


def test_a_state_of_another_number_of_blocks_is_refused() -> None:
    opt, p = Blocks(k=3), np.ones(10)
    opt.step([p], [p / 2])
    saved = opt.state_dict()
    saved["parameters"][0]["state"]["v"] = np.ones(3)
    with pytest.raises(StateError, match=r"expected v as an array of \(4,\), float64, got \(3,\), float64"):
        Blocks(k=3).load_state_dict(saved, [p])
    with pytest.raises(StateError, match=r"expected v as an array of \(4,\)"):
        opt.set_state(p, v=np.ones(5))


def test_half_an_element_is_refused_and_nothing_has_changed() -> None:
    opt = made(SHAPED)(heads=4)
    good, bad = np.ones((4, 2)), np.ones((3, 3))
    with pytest.raises(HyperparameterError, match=r"Shaped: expected blocks of a whole number .* got 2\.25") as caught:
        opt.step([good, bad], [good / 2, bad / 2])
    assert "of shape (3, 3)" in (caught.value.hint or "")
    assert (good == 1).all()
    assert opt.state(good)["t"] == 0
    opt.step([good], [good / 2])
    assert opt.state(good)["v"].shape == (4,)


def test_in_a_chain_blocks_go_with_parts_that_know_of_none() -> None:
    first = optgen.chain(optgen.ClipNorm(1.0), optgen.AdamWSN(subset=3), optgen.EMA())
    other = optgen.chain(optgen.ClipNorm(1.0), optgen.AdamWSN(subset=3), optgen.EMA(), backend="interpreter")
    p, q = np.ones((3, 4)), np.ones((3, 4))
    for opt, x in ((first, p), (other, q)):
        for step in range(3):
            opt.step([x], [np.arange(12.0).reshape(3, 4) - step])
    assert p.tobytes() == q.tobytes()
    assert first.state(p)["v"].shape == (4,)
    with pytest.raises(HyperparameterError, match=r"made with \w*subset=3, which is chosen when it is made"):
        first.parts[1].subset = 4
    for part in (optgen.Adafactor(), optgen.AdamMini(), optgen.AdamWSN(subset=4)):
        with pytest.raises(ArgumentError, match="they see a parameter as different blocks"):
            optgen.chain(optgen.AdamWSN(), part)


@pytest.mark.parametrize("backend", ["kernel", "interpreter"])
def test_a_value_of_each_block_is_reported(backend: str) -> None:
    opt, p = made(SHAPED)(backend=backend), np.ones((2, 3))
    opt.step([p], [np.array([[0.0, -1.0, 2.0], [3.0, 4.0, -5.0]])])
    np.testing.assert_array_equal(opt.report(p)["twice"], [4, 10])
    assert opt.report(p)["top"] == 5


def test_the_lowered_rule_has_values_of_blocks() -> None:
    """Else the kernels above would show nothing of them."""
    (low,) = driver.compile_text(BLOCKS, "blocks.toml").lowered
    assert {state.extent for state in low.small_states} >= {Extent.BLOCK}
    assert low.tiled
