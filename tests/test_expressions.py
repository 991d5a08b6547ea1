"""One table of expressions through every interpretation: NumPy, the host, C, plain text and LaTeX.

Each expression is the value of a state, of gradients and of an old state that hold every special number. The names
a, b and c are of elements (the gradient and two states), s is a hyperparameter of 0.1, t the count.
"""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest

from optgen import driver, interp
from optgen.emit import c, latex, text
from optgen.host import HOST, evaluate
from optgen.ir import Call, Const, Expr, Load, Local, Rule, Scalar, children
from optgen.kernel import Binding
from optgen.ops import LARGEST_POWER, OPS, Type, power_steps

Array = np.ndarray[Any, np.dtype[Any]]
DTYPES = (np.float32, np.float64)
VALUES: dict[str, tuple[float, ...]] = {"s": (0.1,), "r": (3.0, -7.0)}

#: What is written in a spec, in plain text, in LaTeX.
TABLE = [
    ("-(-a)", "−(−a)", r"-\left(-a\right)"),
    ("--a", "−(−a)", r"-\left(-a\right)"),
    ("+a", "a", "a"),
    ("a - -b", "a − −b", "a - -b"),
    ("a + (b + c)", "a + (b + c)", r"a + \left(b + c\right)"),
    ("a + b + c", "a + b + c", "a + b + c"),
    ("a - (b - c)", "a − (b − c)", r"a - \left(b - c\right)"),
    ("a - b - c", "a − b − c", "a - b - c"),
    ("a - (b + c)", "a − (b + c)", r"a - \left(b + c\right)"),
    ("a/(b/c)", "a/(b/c)", r"\frac{a}{\frac{b}{c}}"),
    ("a/b/c", "a/b/c", r"\frac{\frac{a}{b}}{c}"),
    ("a/(b*c)", "a/(b·c)", r"\frac{a}{b \, c}"),
    ("a*(b*c)", "a·(b·c)", r"a \, \left(b \, c\right)"),
    ("a*(b/c)", "a·(b/c)", r"a \, \frac{b}{c}"),
    ("a*b/c", "a·b/c", r"\frac{a \, b}{c}"),
    ("(a + b)*c", "(a + b)·c", r"\left(a + b\right) \, c"),
    ("a*(b + c)", "a·(b + c)", r"a \, \left(b + c\right)"),
    ("a*-b", "a·−b", r"a \, \left(-b\right)"),
    ("-(a*b)", "−(a·b)", r"-\left(a \, b\right)"),
    ("-a*b", "−a·b", r"-a \, b"),
    ("-(a + b)", "−(a + b)", r"-\left(a + b\right)"),
    ("-a**2", "−a²", "-a^{2}"),
    ("(-a)**2", "(−a)²", r"\left(-a\right)^{2}"),
    ("a**3", "a³", "a^{3}"),
    ("a**5", "a⁵", "a^{5}"),
    ("a**64", "a⁶⁴", "a^{64}"),
    ("(a**2)**3", "(a²)³", r"\left(a^{2}\right)^{3}"),
    ("(a*b)**2", "(a·b)²", r"\left(a \, b\right)^{2}"),
    ("(a/b)**2", "(a/b)²", r"\left(\frac{a}{b}\right)^{2}"),
    ("sqrt(a)**2", "(√a)²", r"\sqrt{a}^{2}"),
    ("a*b**2", "a·b²", "a \\, b^{2}"),
    ("a*2", "a·2", r"a \cdot 2"),
    ("2*3**2*a", "2·3²·a", r"2 \cdot 3^{2} \, a"),
    ("2*a", "2·a", r"2 \, a"),
    ("a*2**t", "a·2ᵗ", r"a \cdot 2^{t}"),
    ("a*s**t", "a·sᵗ", r"a \, s^{t}"),
    ("a*(1 - s)**t", "a·(1 − s)ᵗ", r"a \, \left(1 - s\right)^{t}"),
    ("a*s**(t + 1)", "a·s^(t + 1)", "a \\, s^{t + 1}"),
    ("a*s**0.5", "a·s^0.5", r"a \, s^{0.5}"),
    ("a*t**-1", "a·t^(−1)", r"a \, t^{-1}"),
    ("a*1e-8", "a·1e-08", r"a \, \left(1 \cdot 10^{-8}\right)"),
    ("1e-8*a", "1e-08·a", r"1 \cdot 10^{-8} \, a"),
    ("(1e-8)**2*a", "(1e-08)²·a", r"\left(1 \cdot 10^{-8}\right)^{2} \, a"),
    ("a + 1e-45", "a + 1e-45", r"a + 1 \cdot 10^{-45}"),
    ("a + 5e-324", "a + 5e-324", r"a + 5 \cdot 10^{-324}"),
    ("a + 1e39", "a + 1e+39", r"a + 1 \cdot 10^{39}"),
    ("a - 1e308", "a − 1e+308", r"a - 1 \cdot 10^{308}"),
    ("a + 3.4028234663852886e38", "a + 3.4028234663852886e+38", r"a + 3.4028234663852886 \cdot 10^{38}"),
    ("a + 0.1", "a + 0.1", "a + 0.1"),
    ("a + 16777217", "a + 16777217", "a + 16777217"),
    ("a*0x10", "a·16", r"a \cdot 16"),
    ("a - 0", "a − 0", "a - 0"),
    ("a + 0", "a + 0", "a + 0"),
    ("0 - a", "0 − a", "0 - a"),
    ("a - -0.0", "a − −0", "a - -0"),
    ("max(a, 0)", "max(a, 0)", r"\max\left(a, 0\right)"),
    ("max(a, -0.0)", "max(a, −0)", r"\max\left(a, -0\right)"),
    ("max(a, b)", "max(a, b)", r"\max\left(a, b\right)"),
    ("min(a, b)", "min(a, b)", r"\min\left(a, b\right)"),
    ("max(min(a, b), max(b, c))", "max(min(a, b), max(b, c))", r"\max\left(\min\left(a, b\right), \max\left(b, c\right)\right)"),
    ("max(abs(a), -b)", "max(|a|, −b)", r"\max\left(\left|a\right|, -b\right)"),
    ("abs(a - b)", "|a − b|", r"\left|a - b\right|"),
    ("sign(a)", "sign(a)", r"\operatorname{sign}\left(a\right)"),
    ("sign(a)*abs(b)", "sign(a)·|b|", r"\operatorname{sign}\left(a\right) \, \left|b\right|"),
    ("sqrt(a*b)", "√(a·b)", r"\sqrt{a \, b}"),
    ("sqrt(abs(a)) + s", "√|a| + s", r"\sqrt{\left|a\right|} + s"),
    ("a + (s + 1/3)", "a + (s + 1/3)", r"a + \left(s + \frac{1}{3}\right)"),
    ("a + s + 1/3", "a + s + 1/3", r"a + s + \frac{1}{3}"),
    ("a*(s*t - 1/t)", "a·(s·t − 1/t)", r"a \, \left(s \, t - \frac{1}{t}\right)"),
    ("a/(1 - t)", "a/(1 − t)", r"\frac{a}{1 - t}"),
    ("a*(r[1] - r[2])", "a·(r₁ − r₂)", r"a \, \left(r_{1} - r_{2}\right)"),
    ("where(a > b, a, b)", "(a if a > b else b)", r"\begin{cases} a & a > b \\ b & \text{otherwise} \end{cases}"),
    ("where(a >= b, -a, b - c)", "(−a if a ≥ b else b − c)", r"\begin{cases} -a & a \ge b \\ b - c & \text{otherwise} \end{cases}"),
    ("where(a < b, a, b)", "(a if a < b else b)", r"\begin{cases} a & a < b \\ b & \text{otherwise} \end{cases}"),
    ("where(a <= b, a, b)", "(a if a ≤ b else b)", r"\begin{cases} a & a \le b \\ b & \text{otherwise} \end{cases}"),
    ("where(a == b, a, c)", "(a if a = b else c)", r"\begin{cases} a & a = b \\ c & \text{otherwise} \end{cases}"),
    ("where(a != b, a, c)", "(a if a ≠ b else c)", r"\begin{cases} a & a \ne b \\ c & \text{otherwise} \end{cases}"),
    ("where(a > 0 and b > 0, a, b)", "(a if a > 0 and b > 0 else b)",
     r"\begin{cases} a & a > 0 \land b > 0 \\ b & \text{otherwise} \end{cases}"),
    ("where(a > 0 and (b > 0 or c > 0), a, b)", "(a if a > 0 and (b > 0 or c > 0) else b)",
     r"\begin{cases} a & a > 0 \land \left(b > 0 \lor c > 0\right) \\ b & \text{otherwise} \end{cases}"),
    ("where(a > 0 and b > 0 or c > 0, a, b)", "(a if a > 0 and b > 0 or c > 0 else b)",
     r"\begin{cases} a & a > 0 \land b > 0 \lor c > 0 \\ b & \text{otherwise} \end{cases}"),
    ("where(a > 0 or b > 0 or c > 0, a, b)", "(a if a > 0 or b > 0 or c > 0 else b)",
     r"\begin{cases} a & a > 0 \lor b > 0 \lor c > 0 \\ b & \text{otherwise} \end{cases}"),
    ("where(not a > b, a, b)", "(a if not a > b else b)", r"\begin{cases} a & \lnot \left(a > b\right) \\ b & \text{otherwise} \end{cases}"),
    ("where(not (a > b or b > c), a, b)", "(a if not (a > b or b > c) else b)",
     r"\begin{cases} a & \lnot \left(a > b \lor b > c\right) \\ b & \text{otherwise} \end{cases}"),
    ("where(not not a > b, a, b)", "(a if not (not a > b) else b)",
     r"\begin{cases} a & \lnot \left(\lnot \left(a > b\right)\right) \\ b & \text{otherwise} \end{cases}"),
    ("where(where(a > b, a, c) > 0, where(b > c, b, c), a)", "((b if b > c else c) if (a if a > b else c) > 0 else a)",
     r"\begin{cases} \begin{cases} b & b > c \\ c & \text{otherwise} \end{cases} & "
     r"\begin{cases} a & a > b \\ c & \text{otherwise} \end{cases} > 0 \\ a & \text{otherwise} \end{cases}"),
    ("where(t == 1, a, b)", "(a if t = 1 else b)", r"\begin{cases} a & t = 1 \\ b & \text{otherwise} \end{cases}"),
    ("where(t > 1 and a > b, a, b)", "(a if t > 1 and a > b else b)",
     r"\begin{cases} a & t > 1 \land a > b \\ b & \text{otherwise} \end{cases}"),
    ("where(t > 1 and s > 0.5, a, b)", "(a if t > 1 and s > 0.5 else b)",
     r"\begin{cases} a & t > 1 \land s > 0.5 \\ b & \text{otherwise} \end{cases}"),
    ("where(a == a, a, s)*(1/3)", "(a if a = a else s)·(1/3)",
     r"\begin{cases} a & a = a \\ s & \text{otherwise} \end{cases} \, \frac{1}{3}"),
    ("where(1 < 2, t, a)*0.1", "(t if 1 < 2 else a)·0.1", r"\begin{cases} t & 1 < 2 \\ a & \text{otherwise} \end{cases} \cdot 0.1"),
    ("s*t/3", "s·t/3", r"\frac{s \, t}{3}"),
    ("1/0 + a", "1/0 + a", r"\frac{1}{0} + a"),
    ("0/0 - a", "0/0 − a", r"\frac{0}{0} - a"),
    ("a*sqrt(-1)", "a·√(−1)", r"a \, \sqrt{-1}"),
]  # fmt: skip
EXPRESSIONS = [row[0] for row in TABLE]
#: Functions with no one right result: compared within their bound, on numbers that are neither huge nor special.
INEXACT = ["exp(a)", "log(abs(a) + 1)", "exp(-a)*log(s)", "abs(a)**1.5", "abs(a)**b", "a**-1"]


def spec_of(expressions: list[str]) -> str:
    """A rule whose state e0, e1, ... takes the value of each expression, and whose delta is none of the matter."""
    names = [f"e{i}" for i in range(len(expressions))]
    states = "".join(f"{name} = {{ init = 0 }}\n" for name in ("b", "c", *names))
    formulas = "".join(f"{name} = {source.replace('a', 'g') if False else source}\n" for name, source in zip(names, expressions, strict=True))
    formulas = re.sub(r"\ba\b", "g", formulas)
    keep = " + ".join(["b", "c", "s*r[1]*r[2]"])
    reads = "\n".join(f"z{i} = 0*({' + '.join(names[i : i + 50])})" for i in range(0, len(names), 50))
    zs = " + ".join(f"z{i}" for i in range(0, len(names), 50))
    return f"""
name = "Table"
[hyperparameters]
s = {{ default = 0.1, range = "[0, 1]" }}
r = {{ default = [3, -7], range = "(-inf, inf)" }}
[state]
{states}
[update]
formulas = '''
b = b*1
c = c*1
{formulas}
{reads}
delta = {keep} + {zs}
'''
"""
