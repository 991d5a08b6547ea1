"""Random numbers: the published words, the same in kernels and interpreter, and what statistics say of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import optgen
from optgen.compiler import driver
from optgen.errors import ArgumentError, HyperparameterError, SpecError
from optgen.interpreter import philox
from optgen.optimiser import classes

Array = np.ndarray[Any, np.dtype[Any]]

SPEC = """
name = "Drawing"
[hyperparameters]
eta = {{ default = 1, range = "[0, inf)" }}
{tables}
[update]
formulas = '''
{formulas}
'''
"""


def rule(formulas: str, tables: str = "") -> Any:
    return classes.module_class(driver.compile_text(SPEC.format(formulas=formulas, tables=tables), "drawing.toml"))


def drawn(formula: str, *shapes: tuple[int, ...], steps: int = 1, dtype: Any = np.float64, **given: Any) -> list[Array]:
    """What a formula gives in the last of some steps, for parameters of these shapes."""
    opt = rule(f"p = eta*({formula}) + 0*g")(**given)
    params = [np.zeros(shape, dtype) for shape in shapes]
    for _ in range(steps):
        opt.step(params, [np.zeros_like(p) for p in params])
    return params


# ---- The words ----

#: Of Random123's known answers: counter, key, words.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_words_are_those_of_the_paper(counter: Any, key: Any, words: Any) -> None:
    assert tuple(map(int, philox(counter, key))) == words


def word(element: int, t: int, draw: int, seed: int, parameter: int) -> int:
    """The word of 64 bits of an element, in whole numbers of Python."""
    a, b, c, d = element % 2**32, element >> 32, t, draw
    for _ in range(10):
        left, right = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = right >> 32 ^ b ^ seed, right % 2**32, left >> 32 ^ d ^ parameter, left % 2**32
        seed, parameter = (seed + 0x9E3779B9) % 2**32, (parameter + 0xBB67AE85) % 2**32
    return a << 32 | b


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_uniform_number_is_the_upper_bits_of_its_word(dtype: Any) -> None:
    x, y = drawn("uniform()", (5,), (2, 3), steps=2, dtype=dtype, seed=7)
    bits = 24 if dtype == np.float32 else 52
    for parameter, found in enumerate((x, y)):
        words = [word(i, 2, 0, 7, parameter) for i in range(found.size)]
        assert found.ravel().tolist() == [(w >> (64 - bits)) / 2**bits for w in words]
    (signs,) = drawn("uniform()*0 + rademacher()", (9,), seed=10**9)
    assert signs.tolist() == [-1.0 if word(i, 1, 1, 10**9, 0) >> 63 else 1.0 for i in range(9)]


def test_a_normal_number_has_the_quantile_of_its_word() -> None:
    special = pytest.importorskip("scipy.special")
    (x,) = drawn("normal()", (2000,), seed=3)
    words = [word(i, 1, 0, 3, 0) for i in range(x.size)]
    tails = np.array([((w >> 12) + 1) / 2**53 for w in words])
    sizes = -special.ndtri(tails)
    np.testing.assert_allclose(x, np.where([w & 1 for w in words], -sizes, sizes), rtol=2e-7, atol=2e-8)


# ---- Kernels and interpreter ----

FORMULAS = {
    "one sweep": "delta = eta*(g + uniform() - 0.5)*rademacher()",
    "a normal number": "x = normal()\ndelta = eta*(g + x)/norm(x*x) + x",
    "twice the same": "x = uniform()\ndelta = eta*x*g + x",
    "reductions": "x = uniform()\ndelta = eta*(x - mean(x))/norm(x*g + rademacher())",
    "rows and columns": "x = uniform()\ny = x - mean(x, row) if matrix else x\n"
    "delta = eta*y/max(abs(y), column) + rademacher() if matrix else eta*y",
    "the group": "delta = eta*g*uniform()/norm(rademacher() + p, group)",
}
SHAPES = [(), (5,), (3000,), (0, 4), (70, 50), (2, 3, 3), (3, 40, 1100)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("formulas", FORMULAS.values(), ids=FORMULAS)
def test_kernels_draw_what_the_interpreter_draws(formulas: str, dtype: Any) -> None:
    made = rule(formulas)
    results = []
    for backend in ("interpreter", "kernel"):
        rng = np.random.default_rng(0)
        params = [np.asarray(rng.standard_normal(shape), dtype) for shape in SHAPES]
        params += [np.asfortranarray(params[4]), np.repeat(params[2], 2)[::-2]]
        opt = made(backend=backend, seed=11)
        for _ in range(2):
            opt.step(params, [np.asarray(rng.standard_normal(p.shape), dtype) for p in params])
        results.append([p.tobytes() for p in params])
    assert results[0] == results[1]


def test_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    made = rule(FORMULAS["reductions"])
    results = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OPTGEN_NUM_THREADS", threads)
        opt, p = made(), np.zeros(300_000)
        opt.step([p], [np.ones_like(p)])
        results.append(p.tobytes())
    assert results[0] == results[1]


# ---- What a number depends on ----


def test_every_parameter_step_draw_and_seed_has_numbers_of_its_own() -> None:
    x, y = drawn("uniform()", (1000,), (1000,))
    (again,) = drawn("uniform()", (1000,))
    (later,) = drawn("uniform()", (1000,), steps=2)
    (seeded,) = drawn("uniform()", (1000,), seed=1)
    (second,) = drawn("0*uniform() + uniform()", (1000,))
    assert np.array_equal(x, again)
    for other in (y, later, seeded, second):
        assert abs(np.corrcoef(x, other)[0, 1]) < 0.15
        assert not np.any(x == other)


def test_parts_of_a_chain_draw_different_numbers() -> None:
    part = optgen.GradientDropout(0.5)
    opt = optgen.chain(part, optgen.GradientDropout(0.5), optgen.Descent(1.0))
    p = np.zeros(4000)
    opt.step([p], [np.ones_like(p)])
    kept = np.mean(p != 0)
    assert 0.2 < kept < 0.3  # a quarter, not half of them
    assert set(np.unique(p)) == {-4.0, 0.0}


def test_parameters_are_numbered_as_they_come_and_keep_their_numbers() -> None:
    made, ps = rule("p = uniform()*eta + 0*g"), [np.zeros(3) for _ in range(3)]
    opt = made()
    opt.step(ps[:2], [np.zeros(3)] * 2)
    opt.step([ps[2], ps[0]], [np.zeros(3)] * 2)
    assert [opt.state(p)["stream"] for p in ps] == [0, 1, 2]
    other = made()
    other.load_state_dict(opt.state_dict())
    opt.step(ps, [np.zeros(3)] * 3)
    again = [np.zeros(3) for _ in range(3)]
    other.step(again, [np.zeros(3)] * 3)
    assert all(map(np.array_equal, ps, again))


def test_a_refused_step_takes_no_numbers() -> None:
    opt, p, q = rule("p = uniform()*eta + 0*g")(), np.zeros(3), np.zeros(3)
    with pytest.raises(optgen.errors.ArrayError):
        opt.step([q, p], [np.zeros(3), np.zeros(4)])
    opt.step([p], [np.zeros(3)])
    assert opt.state(p)["stream"] == 0


def test_pytorch_draws_the_same_numbers() -> None:
    torch = pytest.importorskip("torch")
    import optgen.torch

    params = [torch.nn.Parameter(torch.zeros(n, dtype=torch.float64)) for n in (5, 7)]
    opt = optgen.torch.NoisySGD(params, seed=4)
    ours, ps = optgen.NoisySGD(seed=4), [np.zeros(5), np.zeros(7)]
    for _ in range(3):
        for p in params:
            p.grad = torch.ones_like(p)
        opt.step()
        ours.step(ps, [np.ones(5), np.ones(7)])
    saved = opt.state_dict()
    for p, q in zip(params, ps, strict=True):
        assert np.array_equal(p.detach().numpy(), q)
    resumed = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = optgen.torch.NoisySGD(resumed)
    other.load_state_dict(saved)
    for each, of in ((opt, params), (other, resumed)):
        for p in of:
            p.grad = torch.ones_like(p)
        each.step()
    assert all(map(torch.equal, params, resumed))


# ---- Statistics ----


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("draw", "law"), [("normal()", "norm"), ("uniform()", "uniform")])
def test_the_numbers_follow_their_law(draw: str, law: str, dtype: Any) -> None:
    stats = pytest.importorskip("scipy.stats")
    (x,) = drawn(draw, (200_000,), dtype=dtype, seed=1)
    assert stats.kstest(x.astype(np.float64), law).pvalue > 1e-3
    n = x.size - 1
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 4 / np.sqrt(n)
    if law == "uniform":
        assert 0 <= x.min() < 1e-4 < 1 - 1e-4 < x.max() < 1
    else:
        assert abs(stats.kurtosis(x.astype(np.float64))) < 4 * np.sqrt(24 / n)
        assert 4 < np.abs(x).max() < 6


#: Rules with normal noise as their papers have them, with their defaults.
PAPERS = {
    "SGLD": lambda p, g, t, noise: p - 0.01 * g + np.sqrt(2 * 0.01 * 1e-4) * noise,
    "NoisySGD": lambda p, g, t, noise: p - 0.01 * (g + np.sqrt(0.01 / t**0.55) * noise),
}


@pytest.mark.parametrize("name", PAPERS)
def test_noise_is_added_as_the_paper_has_it(name: str) -> None:
    ndtri = pytest.importorskip("scipy.special").ndtri
    opt, p = getattr(optgen, name)(seed=5, backend="interpreter"), np.linspace(-2, 2, 9)
    expected = p.copy()
    for t in range(1, 101):
        g = np.cos(np.arange(9) + t)
        words = [word(i, t, 0, 5, 0) for i in range(9)]
        noise = [ndtri(((w >> 12) + 1) / 2**53) * (1 if w & 1 else -1) for w in words]
        opt.step([p], [g])
        expected = PAPERS[name](expected, g, t, np.array(noise))
        np.testing.assert_allclose(p, expected, rtol=0, atol=1e-8)


def test_dropout_leaves_out_what_is_drawn_below_its_rate() -> None:
    opt, p = optgen.chain(optgen.GradientDropout(0.25, seed=3), optgen.Descent(1.0)), np.zeros(50)
    expected = p.copy()
    for t in range(1, 101):
        g = np.cos(np.arange(50) + t)
        kept = np.array([(word(i, t, 0, 3, 0) >> 12) / 2**52 >= 0.25 for i in range(50)])
        opt.step([p], [g])
        expected -= np.where(kept, g / 0.75, 0)
        np.testing.assert_allclose(p, expected, rtol=0, atol=1e-12)


def test_signs_are_as_often_positive() -> None:
    (x,) = drawn("rademacher()", (200_000,))
    assert set(np.unique(x)) == {-1.0, 1.0}
    assert abs(x.mean()) < 4 / np.sqrt(x.size)


def test_sgld_samples_the_distribution_that_its_loss_describes() -> None:
    p, opt = np.zeros(4000), optgen.SGLD(eta=0.05, temperature=0.25)
    for _ in range(200):
        opt.step([p], [p - 1.0])  # the loss (p - 1)²/2: mean 1, variance near to the temperature
    assert abs(p.mean() - 1) < 0.03
    assert abs(p.var() - 0.25 / (1 - 0.05 / 2)) < 0.03


def test_noise_falls_as_optax_has_it() -> None:
    p, opt = np.zeros(100_000), optgen.NoisySGD(eta=1.0, variance=0.5, gamma=0.55)
    for t in range(1, 4):
        before = p.copy()
        opt.step([p], [np.ones_like(p)])
        noise = before - p - 1
        assert abs(noise.mean()) < 0.01
        assert abs(noise.var() - 0.5 / t**0.55) < 0.01


# ---- Bad input ----


@pytest.mark.parametrize("seed", [1.5, -1, 2e9, float("nan"), "1"])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises((ArgumentError, HyperparameterError), match="seed"):
        optgen.NoisySGD(seed=seed)


FAULTS = [
    ("delta = g*normal(3)", "", r"normal\(\): expected no arguments, or two dimensions; got 1"),
    ("m = 0.9*m + g\ndelta = m", "[state]\nm = { init = 'normal()' }", r"no random numbers before the first step"),
    ("delta = g*normal()", "seed = { default = 1 }", r"shadows the given name 'seed', which random numbers are drawn"),
    (
        "stream = g\ndelta = stream*normal()",
        "",
        r"'stream' is which parameter they are drawn for",
    ),
    ("delta = " + " + ".join(["g*normal()"] * 5), "", "expected at most 4 random numbers for an element, got 5"),
    ("delta = g", "[evaluation]\nformulas = 'p = p + eta*normal()'", r"no random numbers in \[evaluation\]"),
    ("delta = g*randn()", "", "unknown function 'randn'"),
    ("delta = g if f else 0", "[flags]\nf = { default = 'normal() > eta' }", "no random numbers before the first step"),
]


@pytest.mark.parametrize(("formulas", "tables", "message"), FAULTS)
def test_faults_of_draws_are_said_where_they_stand(formulas: str, tables: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        rule(formulas, tables)


def test_a_checkpoint_holds_the_seed_and_the_numbers_of_parameters() -> None:
    opt, p = optgen.NoisySGD(seed=9), np.zeros(3)
    opt.step([p], [np.zeros(3)])
    saved = opt.state_dict()
    other = optgen.NoisySGD()
    other.load_state_dict(saved)
    assert other.seed == 9
    q = p.copy()
    opt.step([p], [np.zeros(3)])
    other.step([q], [np.zeros(3)])
    assert np.array_equal(p, q)
