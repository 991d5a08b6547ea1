"""One table of expressions through every interpretation: NumPy, the host, C, plain text and LaTeX.

Each expression is the value of a state, of gradients and of an old state that hold every special number. The names
g, b and c are of elements (the gradient and two states); s is a hyperparameter, t the count.
"""

from __future__ import annotations

import ast
import itertools
import math
import re
from fractions import Fraction
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from optgen import interpreter as interp
from optgen.codegen import c_language as c
from optgen.compiler import catalogue, driver
from optgen.ir.evaluate import HOST, Always, evaluate
from optgen.ir.expr import Call, Const, Expr, Extent, Load, Local, Scalar, children
from optgen.ir.primitives import DEFINED, LARGEST_POWER, OPS, REPRESENTATION, Type, power_steps
from optgen.ir.rule import Rule
from optgen.notation import latex, text
from optgen.runtime import library
from optgen.runtime.binding import Binding, rows_of
from optgen.runtime.kernel import kernel_of

Array = np.ndarray[Any, np.dtype[Any]]
DTYPES = (np.float32, np.float64)
VALUES: dict[str, tuple[float, ...]] = {"s": (0.1,), "r": (3.0, -7.0)}

#: What is written in a spec, in plain text, in LaTeX.
TABLE = [
    ("-(-g)", "−(−g)", r"-\left(-g\right)"),
    ("--g", "−(−g)", r"-\left(-g\right)"),
    ("+g", "g", "g"),
    ("g - -b", "g − −b", "g - -b"),
    ("g + (b + c)", "g + (b + c)", r"g + \left(b + c\right)"),
    ("g + b + c", "g + b + c", "g + b + c"),
    ("g - (b - c)", "g − (b − c)", r"g - \left(b - c\right)"),
    ("g - b - c", "g − b − c", "g - b - c"),
    ("g - (b + c)", "g − (b + c)", r"g - \left(b + c\right)"),
    ("g/(b/c)", "g/(b/c)", r"\frac{g}{\frac{b}{c}}"),
    ("g/b/c", "g/b/c", r"\frac{\frac{g}{b}}{c}"),
    ("g/(b*c)", "g/(b·c)", r"\frac{g}{b \, c}"),
    ("g*(b*c)", "g·(b·c)", r"g \, \left(b \, c\right)"),
    ("g*(b/c)", "g·(b/c)", r"g \, \frac{b}{c}"),
    ("g*b/c", "g·b/c", r"\frac{g \, b}{c}"),
    ("(g + b)*c", "(g + b)·c", r"\left(g + b\right) \, c"),
    ("g*(b + c)", "g·(b + c)", r"g \, \left(b + c\right)"),
    ("g*-b", "g·−b", r"g \, \left(-b\right)"),
    ("-(g*b)", "−(g·b)", r"-\left(g \, b\right)"),
    ("-g*b", "−g·b", r"-g \, b"),
    ("-(g + b)", "−(g + b)", r"-\left(g + b\right)"),
    ("-g**2", "−g²", "-g^{2}"),
    ("(-g)**2", "(−g)²", r"\left(-g\right)^{2}"),
    ("g**3", "g³", "g^{3}"),
    ("g**5", "g⁵", "g^{5}"),
    ("g**64", "g⁶⁴", "g^{64}"),
    ("(g**2)**3", "(g²)³", r"\left(g^{2}\right)^{3}"),
    ("(g*b)**2", "(g·b)²", r"\left(g \, b\right)^{2}"),
    ("(g/b)**2", "(g/b)²", r"\left(\frac{g}{b}\right)^{2}"),
    ("sqrt(g)**2", "(√g)²", r"\sqrt{g}^{2}"),
    ("g*b**2", "g·b²", "g \\, b^{2}"),
    ("g*2", "g·2", r"g \cdot 2"),
    ("2*3**2*g", "2·3²·g", r"2 \cdot 3^{2} \, g"),
    ("2*g", "2·g", r"2 \, g"),
    ("g*2**t", "g·2ᵗ", r"g \cdot 2^{t}"),
    ("g*s**t", "g·sᵗ", r"g \, s^{t}"),
    ("g*(1 - s)**t", "g·(1 − s)ᵗ", r"g \, \left(1 - s\right)^{t}"),
    ("g*s**(t + 1)", "g·s^(t + 1)", "g \\, s^{t + 1}"),
    ("g*s**0.5", "g·s^0.5", r"g \, s^{0.5}"),
    ("g*t**-1", "g·t^(−1)", r"g \, t^{-1}"),
    ("g*1e-8", "g·1e-08", r"g \cdot 10^{-8}"),
    ("g*5e-8", "g·5e-08", r"g \cdot \left(5 \cdot 10^{-8}\right)"),
    ("-1e-8 + g*-5e-8", "−1e-08 + g·−5e-08", r"-10^{-8} + g \, \left(-\left(5 \cdot 10^{-8}\right)\right)"),
    ("1e-8*g", "1e-08·g", r"10^{-8} \, g"),
    ("(1e-8)**2*g", "(1e-08)²·g", r"\left(10^{-8}\right)^{2} \, g"),
    ("g + 1e-45", "g + 1e-45", r"g + 10^{-45}"),
    ("g + 5e-324", "g + 5e-324", r"g + 5 \cdot 10^{-324}"),
    ("g + 1e39", "g + 1e+39", r"g + 10^{39}"),
    ("g - 1e308", "g − 1e+308", r"g - 10^{308}"),
    ("g + 3.4028234663852886e38", "g + 3.4028234663852886e+38", r"g + 3.4028234663852886 \cdot 10^{38}"),
    ("g + 0.1", "g + 0.1", "g + 0.1"),
    ("g + 16777217", "g + 16777217", "g + 16777217"),
    ("g*0x10", "g·16", r"g \cdot 16"),
    ("g - 0", "g − 0", "g - 0"),
    ("g + 0", "g + 0", "g + 0"),
    ("0 - g", "0 − g", "0 - g"),
    ("g - -0.0", "g − −0", "g - -0"),
    ("max(g, 0)", "max(g, 0)", r"\max\left(g, 0\right)"),
    ("max(g, -0.0)", "max(g, −0)", r"\max\left(g, -0\right)"),
    ("max(g, b)", "max(g, b)", r"\max\left(g, b\right)"),
    ("min(g, b)", "min(g, b)", r"\min\left(g, b\right)"),
    ("max(min(g, b), max(b, c))", "max(min(g, b), max(b, c))",
     r"\max\left(\min\left(g, b\right), \max\left(b, c\right)\right)"),
    ("max(abs(g), -b)", "max(|g|, −b)", r"\max\left(\left|g\right|, -b\right)"),
    ("abs(g - b)", "|g − b|", r"\left|g - b\right|"),
    ("sign(g)", "sign(g)", r"\operatorname{sign}\left(g\right)"),
    ("sign(g)*abs(b)", "sign(g)·|b|", r"\operatorname{sign}\left(g\right) \, \left|b\right|"),
    ("bfloat16(g*b)", "bfloat16(g·b)", r"\operatorname{bf16}\left(g \, b\right)"),
    ("floor(g)", "⌊g⌋", r"\left\lfloor g \right\rfloor"),
    ("floor(g*b) - floor(-c)", "⌊g·b⌋ − ⌊−c⌋",
     r"\left\lfloor g \, b \right\rfloor - \left\lfloor -c \right\rfloor"),
    ("g*floor(t/3)", "g·⌊t/3⌋", r"g \, \left\lfloor \frac{t}{3} \right\rfloor"),
    ("g % b", "g % b", r"g \bmod b"),
    ("g // b", "⌊g/b⌋", r"\left\lfloor \frac{g}{b} \right\rfloor"),
    ("g % (b*c) // -c", "⌊g % (b·c)/−c⌋", r"\left\lfloor \frac{g \bmod \left(b \, c\right)}{-c} \right\rfloor"),
    ("g*(t % 3)", "g·(t % 3)", r"g \, \left(t \bmod 3\right)"),
    ("g*(-t // 3)", "g·⌊−t/3⌋", r"g \, \left\lfloor \frac{-t}{3} \right\rfloor"),
    ("g*(s % 0)", "g·(s % 0)", r"g \, \left(s \bmod 0\right)"),
    ("g*(s // 0)", "g·⌊s/0⌋", r"g \, \left\lfloor \frac{s}{0} \right\rfloor"),
    ("clip(g, b, c)", "min(max(g, b), c)", r"\min\left(\max\left(g, b\right), c\right)"),
    ("g if g > b else c", "(g if g > b else c)",
     r"\begin{cases} g & g > b \\ c & \text{otherwise} \end{cases}"),
    ("sqrt(g*b)", "√(g·b)", r"\sqrt{g \, b}"),
    ("sqrt(abs(g)) + s", "√|g| + s", r"\sqrt{\left|g\right|} + s"),
    ("g + (s + 1/3)", "g + (s + 1/3)", r"g + \left(s + \frac{1}{3}\right)"),
    ("g + s + 1/3", "g + s + 1/3", r"g + s + \frac{1}{3}"),
    ("g*(s*t - 1/t)", "g·(s·t − 1/t)", r"g \, \left(s \, t - \frac{1}{t}\right)"),
    ("g/(1 - t)", "g/(1 − t)", r"\frac{g}{1 - t}"),
    ("exp(g)", "exp(g)", r"\exp\left(g\right)"),
    ("exp(-b)*log(s)", "exp(−b)·log(s)", r"\exp\left(-b\right) \, \log\left(s\right)"),
    ("log(abs(c) + 1)", "log(|c| + 1)", r"\log\left(\left|c\right| + 1\right)"),
    ("log(b)", "log(b)", r"\log\left(b\right)"),
    ("tanh(g)*sigmoid(-b)", "tanh(g)·sigmoid(−b)",
     r"\tanh\left(g\right) \, \operatorname{sigmoid}\left(-b\right)"),
    ("sin(g) - cos(b)", "sin(g) − cos(b)", r"\sin\left(g\right) - \cos\left(b\right)"),
    ("atan2(g, -b)", "atan2(g, −b)", r"\operatorname{atan2}\left(g, -b\right)"),
    ("erf(c)", "erf(c)", r"\operatorname{erf}\left(c\right)"),
    ("cbrt(b)", "∛b", r"\sqrt[3]{b}"),
    ("cbrt(b*c)**2 - sqrt(cbrt(g))", "(∛(b·c))² − √(∛g)", r"\sqrt[3]{b \, c}^{2} - \sqrt{\sqrt[3]{g}}"),
    ("g**b", "g^b", "g^{b}"),
    ("b**-1", "b^(−1)", "b^{-1}"),
    ("abs(c)**s", "|c|^s", r"\left|c\right|^{s}"),
    ("c**3.0", "c^3", "c^{3}"),
    ("g*(r[1] - r[2])", "g·(r₁ − r₂)", r"g \, \left(r_{1} - r_{2}\right)"),
    ("where(g > b, g, b)", "(g if g > b else b)", r"\begin{cases} g & g > b \\ b & \text{otherwise} \end{cases}"),
    ("where(g >= b, -g, b - c)", "(−g if g ≥ b else b − c)",
     r"\begin{cases} -g & g \ge b \\ b - c & \text{otherwise} \end{cases}"),
    ("where(g < b, g, b)", "(g if g < b else b)", r"\begin{cases} g & g < b \\ b & \text{otherwise} \end{cases}"),
    ("where(g <= b, g, b)", "(g if g ≤ b else b)", r"\begin{cases} g & g \le b \\ b & \text{otherwise} \end{cases}"),
    ("where(g == b, g, c)", "(g if g = b else c)", r"\begin{cases} g & g = b \\ c & \text{otherwise} \end{cases}"),
    ("where(g != b, g, c)", "(g if g ≠ b else c)", r"\begin{cases} g & g \ne b \\ c & \text{otherwise} \end{cases}"),
    ("where(g > 0 and b > 0, g, b)", "(g if g > 0 and b > 0 else b)",
     r"\begin{cases} g & g > 0 \land b > 0 \\ b & \text{otherwise} \end{cases}"),
    ("where(g > 0 and (b > 0 or c > 0), g, b)", "(g if g > 0 and (b > 0 or c > 0) else b)",
     r"\begin{cases} g & g > 0 \land \left(b > 0 \lor c > 0\right) \\ b & \text{otherwise} \end{cases}"),
    ("where(g > 0 and b > 0 or c > 0, g, b)", "(g if g > 0 and b > 0 or c > 0 else b)",
     r"\begin{cases} g & g > 0 \land b > 0 \lor c > 0 \\ b & \text{otherwise} \end{cases}"),
    ("where(g > 0 or b > 0 or c > 0, g, b)", "(g if g > 0 or b > 0 or c > 0 else b)",
     r"\begin{cases} g & g > 0 \lor b > 0 \lor c > 0 \\ b & \text{otherwise} \end{cases}"),
    ("where(not g > b, g, b)", "(g if not g > b else b)",
     r"\begin{cases} g & \lnot \left(g > b\right) \\ b & \text{otherwise} \end{cases}"),
    ("where(not (g > b or b > c), g, b)", "(g if not (g > b or b > c) else b)",
     r"\begin{cases} g & \lnot \left(g > b \lor b > c\right) \\ b & \text{otherwise} \end{cases}"),
    ("where(not not g > b, g, b)", "(g if not (not g > b) else b)",
     r"\begin{cases} g & \lnot \left(\lnot \left(g > b\right)\right) \\ b & \text{otherwise} \end{cases}"),
    ("where(where(g > b, g, c) > 0, where(b > c, b, c), g)", "((b if b > c else c) if (g if g > b else c) > 0 else g)",
     r"\begin{cases} \begin{cases} b & b > c \\ c & \text{otherwise} \end{cases} & "
     r"\begin{cases} g & g > b \\ c & \text{otherwise} \end{cases} > 0 \\ g & \text{otherwise} \end{cases}"),
    ("where(t == 1, g, b)", "(g if t = 1 else b)", r"\begin{cases} g & t = 1 \\ b & \text{otherwise} \end{cases}"),
    ("where(t > 1 and g > b, g, b)", "(g if t > 1 and g > b else b)",
     r"\begin{cases} g & t > 1 \land g > b \\ b & \text{otherwise} \end{cases}"),
    ("where(t > 1 and s > 0.5, g, b)", "(g if t > 1 and s > 0.5 else b)",
     r"\begin{cases} g & t > 1 \land s > 0.5 \\ b & \text{otherwise} \end{cases}"),
    ("where(g == g, g, s)*(1/3)", "(g if g = g else s)·(1/3)",
     r"\begin{cases} g & g = g \\ s & \text{otherwise} \end{cases} \, \frac{1}{3}"),
    ("where(1 < 2, t, g)*0.1", "(t if 1 < 2 else g)·0.1",
     r"\begin{cases} t & 1 < 2 \\ g & \text{otherwise} \end{cases} \cdot 0.1"),
    ("s*t/3", "s·t/3", r"\frac{s \, t}{3}"),
    ("1/(1 - 1) + g", "1/(1 − 1) + g", r"\frac{1}{1 - 1} + g"),
    ("0/(1 - 1) - g", "0/(1 − 1) − g", r"\frac{0}{1 - 1} - g"),
    ("g*sqrt(-1)", "g·√(−1)", r"g \, \sqrt{-1}"),
]  # fmt: skip


#: How many states a kernel takes besides b and c.
MOST = 40
NAMES = [f"e{i}" for i in range(len(TABLE))]


def spec_of(name: str, expressions: dict[str, str]) -> str:
    """A rule with a state for each expression, which takes its value; delta reads them all, as it must."""
    states = "\n".join(f"{state} = {{ init = 0 }}" for state in ("b", "c", *expressions))
    formulas = "\n".join(f"{state} = {source}" for state, source in expressions.items())
    return f"""
name = "{name}"
[hyperparameters]
s = {{ default = 0.1, range = "[0, 1]" }}
r = {{ default = [3, -7], range = "(-inf, inf)" }}
[state]
{states}
[update]
formulas = '''
b = b
c = c
{formulas}
delta = s*r[1]*r[2] + b + c + {" + ".join(expressions)}
'''
"""


def compiled(expressions: dict[str, str]) -> list[driver.Compilation]:
    rows = list(expressions.items())
    parts = [dict(rows[i : i + MOST]) for i in range(0, len(rows), MOST)]
    return [driver.compile_text(spec_of(f"Table{i}", part), "table.toml") for i, part in enumerate(parts)]


COMPILED = compiled(dict(zip(NAMES, (row[0] for row in TABLE), strict=True)))
VALUE = {a.target: a.value for compilation in COMPILED for a in compilation.rules[0].body}


# ---- What numbers may come ----


def special(dtype: type) -> list[float]:
    info = np.finfo(dtype)
    numbers = [0.0, 1.0, 0.1, 3.0, math.inf, float(info.max), float(info.tiny), float(info.smallest_subnormal), 1e-8]
    return [math.nan, *numbers, *(-x for x in numbers)]


def operands(dtype: type) -> tuple[Array, ...]:
    """All triples of special numbers, then ordinary ones."""
    triples = np.array(list(itertools.product(special(dtype), repeat=3)), dtype).T
    ordinary = np.random.default_rng(7).normal(0, 10, (3, 501)).astype(dtype)
    return tuple(np.ascontiguousarray(x) for x in np.concatenate([triples, ordinary], axis=1))


def arrays_of(rule: Rule, dtype: type) -> dict[str, Array]:
    g, b, c_ = operands(dtype)
    zeros = {name: np.zeros_like(g) for name in rule.arrays}
    return zeros | {"g": g, "b": b, "c": c_}


def same_bits(x: Array, y: Array) -> Array:
    """Where two arrays agree to the bit; any NaN is as good as another."""
    unsigned = np.uint32 if x.dtype == np.float32 else np.uint64
    return (x.view(unsigned) == y.view(unsigned)) | (np.isnan(x) & np.isnan(y))


def interpreted(compilation: driver.Compilation, dtype: type, t: int) -> dict[str, Array]:
    arrays = arrays_of(compilation.rules[0], dtype)
    interp.step(compilation.rules[0], VALUES, t, arrays)
    return arrays


# ---- The tables ----


def test_every_interpretation_knows_every_primitive() -> None:
    tables = {"text": text.FORMS, "LaTeX": latex.FORMS}
    assert {name: set(table) ^ set(OPS) for name, table in tables.items()} == {name: set() for name in tables}
    tables = {"HOST": HOST, "NUMPY": interp.NUMPY, "C": c.FORMS}
    assert {name: set(table) ^ set(OPS | REPRESENTATION) for name, table in tables.items()} == {
        name: set() for name in tables
    }


def test_the_table_of_expressions_has_every_primitive() -> None:
    found = {e.op for value in VALUE.values() for e in nodes(value) if isinstance(e, Call)}
    assert found == set(OPS)


def nodes(expr: Expr) -> list[Expr]:
    return [expr, *(below for child in children(expr) for below in nodes(child))]


# ---- Text and LaTeX ----


@pytest.mark.parametrize(
    ("name", "expected"), [(n, row[1]) for n, row in zip(NAMES, TABLE, strict=True)], ids=[r[0] for r in TABLE]
)
def test_plain_text_is_written_as_expected(name: str, expected: str) -> None:
    assert text.expression(VALUE[name]) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [(n, row[2]) for n, row in zip(NAMES, TABLE, strict=True)], ids=[r[0] for r in TABLE]
)
def test_latex_is_written_as_expected(name: str, expected: str) -> None:
    assert latex.expression(VALUE[name]) == expected
    assert well_formed(expected)


def well_formed(source: str) -> bool:
    """Whether braces, \\left and \\right, and environments are closed in the order in which they were opened."""
    opened: list[str] = []
    for token in re.findall(r"\\left\b|\\right\b|\\begin\{\w+\}|\\end\{\w+\}|\\.|[{}]|[_^]", source):
        if token == "{" or token == r"\left" or token.startswith(r"\begin"):
            opened.append(token)
        elif token == "}" or token == r"\right" or token.startswith(r"\end"):
            expected = {"}": "{", r"\right": r"\left"}.get(token, token.replace("end", "begin"))
            if not opened or opened.pop() != expected:
                return False
    # A second subscript or superscript on one letter is an error of TeX.
    return not opened and re.search(r"([_^])\{[^{}]*\}\1", source) is None


@pytest.mark.parametrize("path", catalogue.shipped(), ids=lambda path: path.stem)
def test_the_latex_of_every_shipped_rule_is_well_formed(path: Any) -> None:
    for rule in driver.compile_file(path).rules:
        assert well_formed(latex.rule(rule))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m", "m"),
        ("beta", r"\beta"),
        ("eps", r"\epsilon"),
        ("delta", r"\Delta"),
        ("vhat", r"\hat{v}"),
        ("betahat", r"\hat{\beta}"),
        ("hat", r"\mathrm{hat}"),
        ("x2", "x_{2}"),
        ("x_12", "x_{12}"),
        ("x1_2", "x_{1,2}"),
        ("vhat2", r"\hat{v}_{2}"),
        ("beta1hat", r"\hat{\beta_{1}}"),
        ("decay_rate", r"\mathrm{decay\_rate}"),
        ("rate_2_x", r"\mathrm{rate\_2\_x}"),
    ],
)
def test_names_are_set_as_in_a_paper(name: str, expected: str) -> None:
    assert latex.expression(Load(name)) == expected
    assert well_formed(expected)


def test_an_index_joins_the_number_of_a_name() -> None:
    assert latex.expression(Scalar("beta", 2)) == r"\beta_{2}"
    assert latex.expression(Scalar("b2", 1)) == "b_{2,1}"


# ---- Numbers ----


def by_host(name: str, *args: Any) -> Any:
    return np.float64(HOST[name](*map(float, args)))


def by_python(source: str, t: int) -> Any:
    """The expression as Python itself understands it: a function of g, b and c, which are float64."""

    def power(x: Any, n: Any, whole: bool) -> Any:
        if not whole:
            return np.float64(HOST["pow"](float(x), float(n)))
        powers = {1: x}
        for i, j in power_steps(int(n)):
            powers[i + j] = powers[i] * powers[j]
        return powers[int(n)]

    class Floats(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.AST:
            return ast.parse(f"float64({node.value!r})", mode="eval").body

        def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
            return node

        def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
            n = node.right.value if isinstance(node.right, ast.Constant) else None
            self.generic_visit(node)
            if not isinstance(node.op, ast.Pow):
                return node
            whole = ast.Constant(type(n) is int and 2 <= n <= LARGEST_POWER)
            return ast.Call(ast.Name("power", ast.Load()), [node.left, node.right, whole], [])

    code = compile(ast.fix_missing_locations(Floats().visit(ast.parse(source, mode="eval"))), "expression", "eval")
    names = {
        "float64": np.float64, "power": power,
        "t": np.float64(t), "s": np.float64(0.1), "r": (None, *map(np.float64, VALUES["r"])),
        "sqrt": np.sqrt, "abs": np.abs, "floor": np.floor,
        **{name: partial(by_host, name) for name in DEFINED},
        "sign": lambda x: np.float64((x > 0) * 1.0 - (x < 0) * 1.0) if x == x else x,
        "max": lambda x, y: y if y > x or y != y else x, "min": lambda x, y: y if y < x or y != y else x,
        "bfloat16": lambda x: np.float64(np.asarray(x, ml_dtypes.bfloat16)),
        "where": lambda condition, x, y: x if condition else y, "clip": lambda x, low, high: np.clip(x, low, high),
    }  # fmt: skip
    return lambda g, b, c: eval(code, names | {"g": g, "b": b, "c": c})


def unloaded(expr: Expr) -> Expr:
    """The expression with arrays as locals, so that the host can take it."""
    match expr:
        case Load():
            return Local(expr.array, Extent.STEP, Type.REAL)
        case Call():
            return Call(expr.op, tuple(map(unloaded, expr.args)))
    return expr


@pytest.mark.parametrize("t", [1, 2, 1000])
def test_the_interpreter_and_the_host_and_python_agree_on_every_expression(t: int) -> None:
    picked = slice(None, None, 13)
    for compilation in COMPILED:
        arrays = interpreted(compilation, np.float64, t)
        triples = list(zip(*(arrays[name][picked] for name in ("g", "b", "c")), strict=True))
        for name, (source, _, _) in zip(NAMES, TABLE, strict=True):
            if name in arrays:
                expr, python = unloaded(VALUE[name]), by_python(source, t)
                with np.errstate(all="ignore"):
                    expected = np.array([python(*triple) for triple in triples], np.float64)
                host = [evaluate(expr, VALUES, t, dict(zip("gbc", map(float, row), strict=True))) for row in triples]
                assert same_bits(arrays[name][picked], expected).all(), source
                assert same_bits(np.array(host, np.float64), expected).all(), source


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("t", [1, 2, 1000])
def test_the_kernel_and_the_interpreter_agree_on_every_expression(dtype: type, t: int) -> None:
    for compilation in COMPILED:
        expected = interpreted(compilation, dtype, t)
        for isa in library.runtime().usable:
            kernel = kernel_of(compilation, 0, dtype.__name__, None, isa)
            arrays = arrays_of(compilation.rules[0], dtype)
            rows = rows_of(kernel, [[arrays[name] for name in compilation.rules[0].arrays]])
            Binding(kernel, rows).run([Always(VALUES)], t, 1)
            for name, (source, _, _) in zip(NAMES, TABLE, strict=True):
                if name in arrays:
                    wrong = np.flatnonzero(~same_bits(arrays[name], expected[name]))
                    where = [(float(arrays["g"][i]), float(arrays["b"][i]), float(arrays["c"][i])) for i in wrong[:3]]
                    assert wrong.size == 0, f"{source} on {isa} differs at {where}"


@pytest.mark.parametrize("name", ["max", "min", "sign", "abs", "sqrt", "floor", "mod", "floordiv"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_are_those_of_numpy(name: str, dtype: type) -> None:
    numpy = {"max": np.maximum, "min": np.minimum, "sign": np.sign, "abs": np.absolute, "sqrt": np.sqrt,
             "floor": np.floor, "mod": np.mod, "floordiv": np.floor_divide}[name]  # fmt: skip
    a, b, _ = operands(dtype)
    arguments = (a, b) if len(OPS[name].takes) == 2 else (a,)
    tie = (a == 0) & (b == 0) if name in ("max", "min") else np.zeros(a.shape, bool)
    with np.errstate(all="ignore"):
        agree = same_bits(interp.NUMPY[name](*arguments).astype(dtype), numpy(*arguments))
    assert (agree | tie).all()
    assert tie.any() == (name in ("max", "min"))


def test_of_two_zeros_max_and_min_take_the_first() -> None:
    for name, table in itertools.product(("max", "min"), (HOST, interp.NUMPY)):
        assert [math.copysign(1, table[name](x, y)) for x, y in ((0.0, -0.0), (-0.0, 0.0))] == [1, -1]


# ---- Literals ----


@pytest.mark.parametrize(
    ("value", "float32", "float64"),
    [
        (0.0, "0.0f", "0.0"),
        (-0.0, "-0.0f", "-0.0"),
        (1.0, "1.0f", "1.0"),
        (-2.5, "-2.5f", "-2.5"),
        (0.1, "0.1f", "0.1"),
        (1 / 3, "0.33333334f", "0.3333333333333333"),
        (1e-8, "1e-08f", "1e-08"),
        (1e-45, "1e-45f", "1e-45"),
        (1e-46, "0.0f", "1e-46"),
        (-1e-46, "-0.0f", "-1e-46"),
        (16777217.0, "16777216.0f", "16777217.0"),
        (3.4028234663852886e38, "3.4028235e+38f", "3.4028234663852886e+38"),
        (1e39, "INFINITY", "1e+39"),
        (-1e39, "-INFINITY", "-1e+39"),
        (5e-324, "0.0f", "5e-324"),
        (1.7976931348623157e308, "INFINITY", "1.7976931348623157e+308"),
    ],
)
def test_a_literal_is_the_shortest_that_gives_the_number_back(value: float, float32: str, float64: str) -> None:
    single, double = c.DTYPES
    assert c.literal(value, single) == float32
    assert c.literal(value, double) == float64


def nearest_float32(number: Fraction) -> float:
    """As C reads a number: rounded once, to the nearest float32, ties to even."""
    near = np.float32(float(number))
    around = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
    bits = {float(x): int(x.view(np.uint32)) for x in around}
    return min(map(float, around), key=lambda x: (abs(Fraction(x) - number), bits[x] & 1))


@given(st.integers(1, 0x7F7FFFFE))
@example(int(np.float32(7.038531e-26).view(np.uint32)))
def test_a_float32_literal_is_right_for_a_compiler_that_rounds_once(bits: int) -> None:
    value = float(np.uint32(bits).view(np.float32))
    assert nearest_float32(Fraction(c.literal(value, c.DTYPES[0]).removesuffix("f"))) == value


@pytest.mark.parametrize("value", [0.1, 1e-45, 5e-324, 1 / 3, 3.4028234663852886e38, 123456789.0])
def test_constants_that_differ_in_sign_only_are_different(value: float) -> None:
    assert Const(value) == Const(value)
    assert Const(value) != Const(-value)
    assert Const(0.0) != Const(-0.0)
    assert len({Const(0.0), Const(-0.0), Const(value), Const(value)}) == 3
