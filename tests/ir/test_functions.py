"""Functions have one definition: near the true values, the same bits wherever they run, special values as in C."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

from optgen import interpreter
from optgen.compiler import driver
from optgen.ir.evaluate import HOST, Always
from optgen.ir.expr import Call, Expr, Local
from optgen.ir.functions.definition import compiled, definition
from optgen.ir.primitives import DEFINED, OPS
from optgen.paths import PACKAGE, benchmarks
from optgen.runtime import library
from optgen.runtime.binding import Binding, rows_of
from optgen.runtime.kernel import kernel_of

DTYPES = ("float32", "float64")
every_function = pytest.mark.parametrize("name", DEFINED)


def arguments(name: str, dtype: str, count: int, seed: int) -> list[Any]:
    """Arguments of all bits, half of them of usual size, the last ones special."""
    rng = np.random.default_rng([seed, *name.encode()])
    whole = np.dtype(dtype).str.replace("f", "u")
    info = np.finfo(dtype)
    special = [0, 1, 0.5, 2, 3, 1 / 3, 1e-8, 89, 710, 746, math.inf, math.nan, info.max, info.tiny]
    special += [info.smallest_subnormal, 1 + info.eps, 1 - info.epsneg, 2.0**52, 2.0**52 + 1, 2.0**53, 2.0**22 + 0.5]
    both = np.array([sign * x for x in special for sign in (1, -1)], dtype)
    found = []
    for i, taken in enumerate(zip(*itertools.product(both, repeat=len(OPS[name].takes)), strict=True)):
        bits = rng.integers(0, np.iinfo(whole).max, count, whole, endpoint=True).view(dtype)
        usual = (rng.standard_normal(count) * 10.0 ** rng.integers(-3, 3, count)).astype(dtype)
        found.append(np.concatenate([np.where(rng.random(count) < 0.5, bits, usual), taken]).astype(dtype))
        assert found[i].dtype == dtype
    return found


def same(x: Any, y: Any) -> Any:
    return ((x == y) & (np.signbit(x) == np.signbit(y))) | (np.isnan(x) & np.isnan(y))


def by_numpy(name: str, *args: Any) -> Any:
    with np.errstate(all="ignore"):
        return interpreter.NUMPY[name](*args)


# ---- Near the true values ----

#: The functions of mpmath.
TRUE: dict[str, Callable[..., Any]] = {
    "exp": mp.exp, "log": mp.log, "pow": mp.power, "tanh": mp.tanh, "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "sin": mp.sin, "cos": mp.cos, "atan2": mp.atan2, "erf": mp.erf, "cbrt": lambda x: mp.sign(x) * mp.cbrt(abs(x)),
}  # fmt: skip


def distance(name: str, args: Sequence[Any]) -> tuple[float, tuple[float, ...]]:
    """The most ulps that a function of float64 is off at these arguments, and where."""
    worst: tuple[float, tuple[float, ...]] = 0.0, ()
    with mp.workprec(1200 if name in ("sin", "cos") else 200):
        for value, *row in zip(by_numpy(name, *args).tolist(), *(arg.tolist() for arg in args), strict=True):
            truth = TRUE[name](*map(mpf, row))
            if math.isfinite(value):
                exponent = max(int(mp.frexp(truth)[1]), -1021) if truth else -1021
                off = float(abs(mpf(value) - truth) * mpf(2) ** (53 - exponent))
            else:  # right where the true value is nearer to infinity than to the largest number
                off = 0.0 if abs(truth) > mpf(2) ** 1024 - mpf(2) ** 970 else math.inf
            worst = max(worst, (off, tuple(row)))
    return worst


@every_function
def test_a_function_of_float64_is_within_one_ulp(name: str) -> None:
    measured = benchmarks("functions")
    for make in (measured.points, measured.hard):
        off, where = distance(name, make(name, np.random.default_rng([7, *name.encode()]), 1500))
        assert off < 0.8, where


@every_function
def test_a_function_of_float32_is_within_0_51_ulps(name: str) -> None:
    """Of one in 10,000 numbers; `benchmarks/functions.py` takes them all."""
    off, where = benchmarks("functions").worst(name, "float32", 400_000)
    assert off < 0.51, where


def test_the_numbers_are_those_that_their_script_computes() -> None:
    path = PACKAGE.parent / "docs" / "coefficients.py"
    spec = importlib.util.spec_from_file_location("coefficients", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.text() == (PACKAGE / "ir" / "functions" / "coefficients.py").read_text("utf-8")


# ---- The same bits ----


@every_function
def test_the_host_in_python_and_compiled_gives_the_bits_of_the_interpreter(name: str) -> None:
    args = arguments(name, "float64", 2000, 1)
    expected = by_numpy(name, *args)
    for table in (HOST, library.runtime().host):
        values = np.array([table[name](*row) for row in zip(*(arg.tolist() for arg in args), strict=True)])
        wrong = np.flatnonzero(~same(values, expected))[:3]
        assert not wrong.size, [(float(arg[i]) for arg in args) for i in wrong]


def test_every_function_is_compiled_for_the_host() -> None:
    assert {name for name, of in library.runtime().host.items() if of is not HOST[name]} == set(DEFINED)


@pytest.mark.parametrize("dtype", DTYPES)
@every_function
def test_the_kernel_gives_the_bits_of_the_interpreter(name: str, dtype: str) -> None:
    """On every instruction set, in dense and in strided arrays."""
    two = len(OPS[name].takes) == 2
    text = {"pow": "g**p"}.get(name, f"{name}(g, p)" if two else f"{name}(g)")
    formulas = f"y = {text}\ndelta = p + y"
    source = f"name = 'Of{name}'\n[state]\ny = {{ init = 0 }}\n[update]\nformulas = '''\n{formulas}\n'''\n"
    compilation = driver.compile_text(source, "of.toml")
    args = arguments(name, dtype, 3001, 2)
    given = dict(zip("gp", args, strict=False))
    expected = by_numpy(name, *args)
    for isa in library.runtime().usable:
        kernel = kernel_of(compilation, 0, dtype, None, isa)
        for stride in (1, 3):
            arrays = []
            for each in compilation.rules[0].arrays:
                arrays.append(np.zeros(expected.size * stride, dtype)[::stride])
                arrays[-1][...] = given.get(each, np.zeros_like(expected))
            Binding(kernel, rows_of(kernel, [arrays])).run([Always({})], 1, 1)
            values = arrays[compilation.rules[0].arrays.index("y")]
            wrong = np.flatnonzero(~same(values, expected))[:3]
            assert not wrong.size, [(isa, *(float(arg[i]) for arg in args)) for i in wrong]


# ---- Special values, as in Annex F of C ----

INF, NAN, PI = math.inf, math.nan, math.pi
SPECIAL: dict[str, list[tuple[float, ...]]] = {
    "exp": [(0, 1), (-0.0, 1), (-INF, 0), (INF, INF), (NAN, NAN), (1e4, INF), (-1e4, 0)],
    "log": [(0, -INF), (-0.0, -INF), (1, 0), (-1, NAN), (-5e-324, NAN), (INF, INF), (-INF, NAN), (NAN, NAN)],
    "tanh": [(0, 0), (-0.0, -0.0), (INF, 1), (-INF, -1), (NAN, NAN), (30, 1), (5e-324, 5e-324), (-1e-200, -1e-200)],
    "sigmoid": [(0, 0.5), (-0.0, 0.5), (INF, 1), (-INF, 0), (NAN, NAN), (40, 1), (-800, 0)],
    "erf": [(0, 0), (-0.0, -0.0), (INF, 1), (-INF, -1), (NAN, NAN), (7, 1), (-30, -1)],
    "cbrt": [(0, 0), (-0.0, -0.0), (INF, INF), (-INF, -INF), (NAN, NAN), (-27, -3), (1e300, 1e100),
             (2.0**-1074, 2.0**-358)],
    "sin": [(0, 0), (-0.0, -0.0), (INF, NAN), (-INF, NAN), (NAN, NAN), (5e-324, 5e-324), (-1e-200, -1e-200)],
    "cos": [(0, 1), (-0.0, 1), (INF, NAN), (-INF, NAN), (NAN, NAN), (5e-324, 1), (-1e-200, 1)],
    "atan2": [
        (0, 0, 0), (-0.0, 0, -0.0), (0, -0.0, PI), (-0.0, -0.0, -PI), (0, 1, 0), (-0.0, 1, -0.0), (0, -1, PI),
        (-0.0, -1, -PI), (1, 0, PI / 2), (-1, 0, -PI / 2), (1, -0.0, PI / 2), (1, INF, 0), (-1, INF, -0.0),
        (1, -INF, PI), (-1, -INF, -PI), (INF, 1, PI / 2), (-INF, 1, -PI / 2), (INF, INF, PI / 4),
        (-INF, INF, -PI / 4), (INF, -INF, 3 * PI / 4), (-INF, -INF, -3 * PI / 4), (NAN, 1, NAN), (1, NAN, NAN),
        (NAN, INF, NAN), (0, NAN, NAN), (INF, NAN, NAN), (3, 3, PI / 4), (5e-324, 5e-324, PI / 4),
        (1e300, 1e300, PI / 4),
        (5e-324, 1, 5e-324), (-1, 1e308, -1e-308), (1e-300, -1e300, PI),
    ],
    "pow": [
        *((zero, y, math.copysign(INF, zero)) for zero in (0.0, -0.0) for y in (-1, -3, -(2.0**53) + 1)),
        *((zero, y, INF) for zero in (0.0, -0.0) for y in (-2, -0.5, -INF, -(2.0**53), -1e300)),
        *((zero, y, zero) for zero in (0.0, -0.0) for y in (1, 3, 2.0**53 - 1)),
        *((zero, y, 0) for zero in (0.0, -0.0) for y in (2, 0.5, INF, 2.0**53, 1e300)),
        (-1, INF, 1), (-1, -INF, 1), *((1, y, 1) for y in (0, 3, -0.5, INF, -INF, NAN)),
        *((x, y, 1) for x in (0, -0.0, 2, -2, INF, -INF, NAN) for y in (0, -0.0)),
        *((x, y, NAN) for x in (-2, -0.1, -1e300) for y in (0.5, -1.5, 1e-300)),
        *((x, -INF, INF) for x in (0.5, -0.5, 0, -0.0)), *((x, -INF, 0) for x in (2, -2, INF, -INF)),
        *((x, INF, 0) for x in (0.5, -0.5, 0, -0.0)), *((x, INF, INF) for x in (2, -2, INF, -INF)),
        *((-INF, y, -0.0) for y in (-1, -3)), *((-INF, y, 0) for y in (-2, -0.5)),
        *((-INF, y, -INF) for y in (1, 3)), *((-INF, y, INF) for y in (2, 0.5)),
        (INF, -3, 0), (INF, 0.1, INF), (NAN, 1, NAN), (2, NAN, NAN), (-1, NAN, NAN), (-2, 3, -8), (-2, -2, 0.25),
        (-8, 1 / 3, NAN), (4, 0.5, 2), (1e300, 2, INF), (-1e300, 3, -INF), (1e-300, 2, 0), (-1e-300, 3, -0.0),
        (0.5, 1074, 5e-324), (0.5, 1075, 0), (2, 1023, 2.0**1023), (2, 1024, INF), (10, 2, 100), (10, -2, 0.01),
    ],
}  # fmt: skip


@every_function
def test_special_values_are_those_of_c(name: str) -> None:
    rows = np.array(SPECIAL[name], np.float64)
    values = by_numpy(name, *rows[:, :-1].T)
    assert [tuple(row) for row, right in zip(rows, same(values, rows[:, -1]), strict=True) if not right] == []


@every_function
def test_special_values_of_float32_are_those_of_float64(name: str) -> None:
    with np.errstate(over="ignore"):
        rows = np.array(SPECIAL[name]).astype(np.float32)
        expected = by_numpy(name, *rows[:, :-1].astype(np.float64).T).astype(np.float32)
    values = by_numpy(name, *rows[:, :-1].T)
    assert values.dtype == np.float32
    assert same(values, expected).all()


# ---- The language of definitions ----


@pytest.mark.parametrize(
    ("text", "args", "value"),
    [
        ("def f(x):\n    return x + 2**-1*x", (3.0,), 4.5),
        (
            "def two(a, b):\n    s = a + b\n    return s, a*b\ndef f(x):\n    s, p = two(x, 3)\n    return s - p",
            (5.0,),
            -7,
        ),
        ("def one(s):\n    t = s*s\n    return t\ndef f(t):\n    s = one(t) + one(t + 1)\n    return s", (2.0,), 13.0),
        ("def f(x, y):\n    '''Words.'''\n    return x if x > y and not y == 0 or x < -1 else -INF", (2.0, 0.0), -INF),
        ("def f(x):\n    return near(x)", (2.5,), 2.0),
        ("def f(x):\n    x = x*2\n    x = x*2\n    return x", (1.0,), 4.0),
    ],
)
def test_a_definition_means_what_python_means(text: str, args: tuple[float, ...], value: float) -> None:
    assert compiled(definition(text, "f"), HOST)(*args) == value


def depth(expr: Expr, behind: dict[str, int]) -> int:
    """How many operations wait for each other."""
    if isinstance(expr, Call):
        return 1 + max(depth(arg, behind) for arg in expr.args)
    return behind.get(expr.name, 0) if isinstance(expr, Local) else 0


def test_estrins_scheme_gives_the_polynomial_of_horners_in_fewer_operations_that_wait() -> None:
    values, depths = [], []
    for scheme in ("horner", "estrin"):
        function = definition(f"def f(x):\n    return {scheme}(x, EXP2_32)", "f")
        values.append(compiled(function, HOST)(0.3))
        behind: dict[str, int] = {}
        for assign in function.body:
            behind[assign.target] = depth(assign.value, behind)
        depths.append(depth(function.value, behind))
    assert values[0] == pytest.approx(math.expm1(0.3 * math.log(2)) / 0.3, rel=1e-9)
    assert values[1] == pytest.approx(values[0], rel=1e-15)
    assert depths == [12, 5]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("def f(x):\n    x += 1\n    return x", r"line 2: x \+= 1"),
        ("def f(x):\n    return x ^ 2", r"line 2: x \^ 2"),
        ("def f(x):\n    return x[0]", r"line 2: x\[0\]"),
        ("def f(x):\n    y = x", "f returns nothing"),
        ("def f(x):\n    return 1 < x < 2", "line 2: 1 < x < 2"),
        ("def f(x):\n    return sinh(x)", "line 2: sinh"),
        ("def f(x):\n    return x + y", "line 2: y"),
        ("def f(x):\n    return x + NOTHING", "line 2: NOTHING"),
        ("def f(x):\n    return sqrt(x, x)", r"line 2: sqrt\(x, x\)"),
    ],
)
def test_what_is_no_definition_is_refused_with_its_line(text: str, fault: str) -> None:
    with pytest.raises(SyntaxError, match=fault):
        definition(text, "f")


HEX: Callable[[float], str] = float.hex


@pytest.mark.parametrize(
    ("name", "args", "value"),
    [
        ("top", (1.0 + 2.0**-25 + 2.0**-26,), 1.0 + 2.0**-25),
        ("top", (-(2.0**53) + 1,), -(2.0**53) + 2.0**27),
        ("exponent", (3.0, 0.5), 2.0),
        ("exponent", (3.0, 0.75), 2.0),
        ("exponent", (3.0, 0.8), 1.0),
        ("significand", (3.0, 0.5), 0.75),
        ("significand", (3.0, 0.8), 1.5),
        ("power_of_two", (-1022.0,), 2.0**-1022),
        ("power_of_two", (1023.0,), 2.0**1023),
        ("copysign", (3.0, -0.0), -3.0),
    ],
)
def test_the_primitives_of_the_representation(name: str, args: tuple[float, ...], value: float) -> None:
    assert HEX(HOST[name](*args)) == HEX(value)
    assert HEX(float(interpreter.NUMPY[name](*map(np.float64, args)))) == HEX(value)
