"""Expressions as plain text with the signs of mathematics.

In: expressions and assignments. Out: one line each, for comments, docstrings and the terminal.
"""

from __future__ import annotations

import math

from ..ir.expr import (
    COUNTS,
    Call,
    Const,
    Count,
    Draw,
    Expr,
    Extent,
    Given,
    Load,
    Local,
    Ordinal,
    PerIndex,
    Reduce,
    Scalar,
    Shape,
    Size,
)
from ..ir.rule import Assign
from ..names import greek
from .printer import Form, Power, write
from .turns import InTurns

__all__ = ["FORMS", "PRODUCTS", "count_name", "draw_dims", "expression", "formula", "number", "shape_name"]

_P = Power
FORMS: dict[str, Form] = {
    "neg": Form("−{0}", _P.SIGN, (_P.RAISE,)),
    "add": Form("{0} + {1}", _P.ADD, (_P.ADD, _P.MULTIPLY)),
    "sub": Form("{0} − {1}", _P.ADD, (_P.ADD, _P.MULTIPLY)),
    "mul": Form("{0}·{1}", _P.MULTIPLY, (_P.MULTIPLY, _P.SIGN)),
    "div": Form("{0}/{1}", _P.MULTIPLY, (_P.MULTIPLY, _P.SIGN)),
    "powi": Form("{0}^{1}", _P.RAISE, (_P.ATOM, _P.ATOM)),
    "pow": Form("{0}^{1}", _P.RAISE, (_P.ATOM, _P.ATOM)),
    "sqrt": Form("√{0}", _P.RAISE, (_P.ATOM,)),
    "exp": Form("exp({0})"),
    "log": Form("log({0})"),
    "tanh": Form("tanh({0})"),
    "sigmoid": Form("sigmoid({0})"),
    "erf": Form("erf({0})"),
    "cbrt": Form("∛{0}", Power.RAISE, (Power.ATOM,)),
    "sin": Form("sin({0})"),
    "cos": Form("cos({0})"),
    "atan2": Form("atan2({0}, {1})"),
    "abs": Form("|{0}|"),
    "sign": Form("sign({0})"),
    "floor": Form("⌊{0}⌋"),
    "bfloat16": Form("bfloat16({0})"),
    "mod": Form("{0} % {1}", _P.MULTIPLY, (_P.MULTIPLY, _P.SIGN)),
    "floordiv": Form("⌊{0}/{1}⌋", _P.ATOM, (_P.MULTIPLY, _P.SIGN)),
    "min": Form("min({0}, {1})"),
    "max": Form("max({0}, {1})"),
    "lt": Form("{0} < {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "le": Form("{0} ≤ {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "gt": Form("{0} > {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "ge": Form("{0} ≥ {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "eq": Form("{0} = {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "ne": Form("{0} ≠ {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "and": Form("{0} and {1}", _P.AND, (_P.AND, _P.NOT)),
    "or": Form("{0} or {1}", _P.OR, (_P.OR, _P.AND)),
    "not": Form("not {0}", _P.NOT, (_P.COMPARE,)),
    "where": Form("({1} if {0} else {2})", _P.ATOM, (_P.OR, _P.OR, _P.CHOICE)),
}
#: The products of whole matrices.
PRODUCTS: dict[str, Form] = {
    "matmul": Form("{0} @ {1}", _P.MULTIPLY, (_P.MULTIPLY, _P.SIGN)),
    "transpose": Form("{0}ᵀ", _P.RAISE, (_P.ATOM,)),
    "identity": Form("I"),
    **{name: Form(f"{name}({{0}})") for name in ("eigenvectors", "eigenvalues", "orthonormal", "sorting", "upper")},
    **{name: Form(f"{name}({{0}})") for name in ("inverse", "diagonal", "diag", "trace")},
    **{name: Form(f"{name}({{0}}, {{1}})") for name in ("power", "leading")},
}
_COUNTED: dict[Expr, str] = {size: name for name, size in COUNTS.items()}
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float) -> str:
    """A number as short as it can be written: 1, 0.5, 1e-08."""
    return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def expression(expr: Expr) -> str:
    return write(expr, FORMS, _atom, special=_superscript, reduced=_reduced, products=PRODUCTS)[0]


def formula(assign: Assign) -> str:
    """`m ← β₁·m + (1 − β₁)·g`; of a loop, `5 times: A ← X @ Xᵀ`, and below it the other formulas of a turn."""
    line = f"{_name(assign.target)} ← {expression(assign.value)}"
    return f"{_times(assign.times)}{line}" if isinstance(assign, InTurns) else line


def _times(times: int) -> str:
    """What stands before a formula of a loop."""
    return f"{times} times: " if times else " " * len("5 times: ")


def _atom(expr: Expr) -> tuple[str, Power]:
    match expr:
        case Const():
            text = number(abs(expr.value))
            if math.copysign(1.0, expr.value) < 0:
                return f"−{text}", Power.SIGN
            return text, Power.RAISE if "e" in text else Power.ATOM  # 1e-08² would be another number
        case Scalar():
            index = str(expr.index).translate(_SUBSCRIPTS) if expr.index else ""
            return greek(expr.hyper) + index, Power.ATOM
        case Given():
            return greek(expr.name), Power.ATOM
        case Count():
            return "t", Power.ATOM
        case Load():
            return greek(expr.array), Power.ATOM
        case Size():
            return count_name(expr) or _count(expr), Power.ATOM
        case Shape():
            return shape_name(expr), Power.ATOM
        case Draw():
            return f"{expr.op}({draw_dims(expr)})", Power.ATOM
        case PerIndex():
            return f"{expr.op}({_atom(expr.rows)[0]} and {_atom(expr.columns)[0]}, index)", Power.ATOM
        case Ordinal():
            return "the number of the parameter", Power.ATOM
        case Local():
            return _name(expr.name), Power.ATOM
    raise AssertionError(expr)


def count_name(size: Size) -> str | None:
    """The name that formulas have for a count: size, rows, columns."""
    return _COUNTED.get(size)


def draw_dims(draw: Draw) -> str:
    """What a draw is called with: the dimensions of a matrix that is not like the parameter."""
    return "" if draw.dims is None else f"{draw.dims.rows}, {draw.dims.columns}"


def shape_name(shape: Shape) -> str:
    """`ndim`, or `length(k)`, as formulas have it."""
    return "ndim" if shape.dimension is None else f"length({shape.dimension})"


def _count(size: Size) -> str:
    return f"count({size.of.name.lower()}s in a {size.over.name.lower()})"


def _reduced(expr: Reduce) -> Form:
    """`norm(g)` over a tensor, `norm(g, row)` over anything else."""
    places = ", ".join(f"{{{i}}}" for i in range(len(expr.args)))
    over = "" if expr.over == Extent.TENSOR else f", {expr.over.name.lower()}"
    if expr.op == "norm" and not over:
        return Form("‖{0}‖")
    return Form(f"{expr.op}({places}{over})")


def _superscript(call: Call) -> Form | None:
    """A power by t or by a whole number is written with a raised exponent."""
    exponent = call.args[-1]
    if call.op in ("pow", "powi") and isinstance(exponent, Count):
        return Form("{0}ᵗ", Power.RAISE, (Power.ATOM, Power.CHOICE))
    if call.op == "powi" and isinstance(exponent, Const):
        return Form("{0}" + number(exponent.value).translate(_SUPERSCRIPTS), Power.RAISE, (Power.ATOM, Power.CHOICE))
    return None


def _name(name: str) -> str:
    return "Δ" if name == "delta" else greek(name)
