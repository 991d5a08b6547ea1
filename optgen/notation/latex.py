"""Rules as LaTeX, for a paper or a page.

In: expressions, assignments, a checked rule. Out: one aligned display of all formulas.
"""

from __future__ import annotations

import re

from ..ir.expr import Call, Const, Count, Draw, Expr, Extent, Given, Load, Local, Reduce, Scalar, Shape, Size
from ..ir.rule import Assign, Rule
from ..names import GREEK
from .printer import Form, Power, write
from .text import count_name, draw_dims, number, shape_name
from .turns import InTurns

__all__ = ["FORMS", "expression", "formula", "rule"]

_P = Power
FORMS: dict[str, Form] = {
    "neg": Form("-{0}", _P.SIGN, (_P.RAISE,)),
    "add": Form("{0} + {1}", _P.ADD, (_P.ADD, _P.MULTIPLY)),
    "sub": Form("{0} - {1}", _P.ADD, (_P.ADD, _P.MULTIPLY)),
    "mul": Form(r"{0} \, {1}", _P.MULTIPLY, (_P.MULTIPLY, _P.RAISE)),
    # A fraction is its own bracket, above and below.
    "div": Form(r"\frac{{{0}}}{{{1}}}", _P.RAISE, (_P.CHOICE, _P.CHOICE)),
    "powi": Form("{0}^{{{1}}}", _P.RAISE, (_P.ATOM, _P.CHOICE)),
    "pow": Form("{0}^{{{1}}}", _P.RAISE, (_P.ATOM, _P.CHOICE)),
    "sqrt": Form(r"\sqrt{{{0}}}", _P.ATOM),
    "exp": Form(r"\exp\left({0}\right)"),
    "log": Form(r"\log\left({0}\right)"),
    "tanh": Form(r"\tanh\left({0}\right)"),
    "sigmoid": Form(r"\operatorname{{sigmoid}}\left({0}\right)"),
    "erf": Form(r"\operatorname{{erf}}\left({0}\right)"),
    "cbrt": Form(r"\sqrt[3]{{{0}}}", _P.ATOM),
    "sin": Form(r"\sin\left({0}\right)"),
    "cos": Form(r"\cos\left({0}\right)"),
    "atan2": Form(r"\operatorname{{atan2}}\left({0}, {1}\right)"),
    "abs": Form(r"\left|{0}\right|"),
    "sign": Form(r"\operatorname{{sign}}\left({0}\right)"),
    "floor": Form(r"\left\lfloor {0} \right\rfloor"),
    "mod": Form(r"{0} \bmod {1}", _P.MULTIPLY, (_P.MULTIPLY, _P.RAISE)),
    "bfloat16": Form(r"\operatorname{{bf16}}\left({0}\right)"),
    "floordiv": Form(r"\left\lfloor \frac{{{0}}}{{{1}}} \right\rfloor"),
    "min": Form(r"\min\left({0}, {1}\right)"),
    "max": Form(r"\max\left({0}, {1}\right)"),
    "lt": Form("{0} < {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "le": Form(r"{0} \le {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "gt": Form("{0} > {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "ge": Form(r"{0} \ge {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "eq": Form("{0} = {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "ne": Form(r"{0} \ne {1}", _P.COMPARE, (_P.ADD, _P.ADD)),
    "and": Form(r"{0} \land {1}", _P.AND, (_P.AND, _P.NOT)),
    "or": Form(r"{0} \lor {1}", _P.OR, (_P.OR, _P.AND)),
    "not": Form(r"\lnot {0}", _P.NOT, (_P.ATOM,)),
    "where": Form(r"\begin{{cases}} {1} & {0} \\ {2} & \text{{otherwise}} \end{{cases}}", _P.ATOM),
}
#: The products of whole matrices.
PRODUCTS: dict[str, Form] = {
    "matmul": Form(r"{0} \, {1}", _P.MULTIPLY, (_P.MULTIPLY, _P.RAISE)),
    "transpose": Form(r"{{{0}}}^\top", _P.RAISE, (_P.ATOM,)),
    "identity": Form("I"),
    "power": Form(r"{{{0}}}^{{{1}}}", _P.RAISE, (_P.ATOM, _P.CHOICE)),
    "inverse": Form(r"{{{0}}}^{{-1}}", _P.RAISE, (_P.ATOM,)),
    "leading": Form(r"\operatorname{{leading}}\left({0}, {1}\right)"),
    **{
        name: Form(rf"\operatorname{{{{{name}}}}}\left({{0}}\right)")
        for name in ("eigenvectors", "eigenvalues", "orthonormal", "sorting", "upper", "diagonal", "diag", "trace")
    },
}
#: Letters whose command in TeX is another than their name here.
_COMMANDS = {"eps": "epsilon", "lam": "lambda"}
_DOTTED = Form(r"{0} \cdot {1}", _P.MULTIPLY, (_P.MULTIPLY, _P.RAISE))


def expression(expr: Expr) -> str:
    return write(expr, FORMS, _atom, r"\left({}\right)", _dotted, _reduced, PRODUCTS)[0]


def formula(assign: Assign) -> str:
    times = rf"\text{{{assign.times} times: }} " if isinstance(assign, InTurns) and assign.times else ""
    indent = r"\quad " if isinstance(assign, InTurns) else ""
    return rf"{times}{indent}{_name(assign.target)} &\leftarrow {expression(assign.value)}"


def rule(rule: Rule) -> str:
    r"""All formulas of the checked rule, in an `aligned` environment between `\[` and `\]`."""
    lines = " \\\\\n".join(f"  {formula(assign)}" for assign in rule.body)
    return f"\\[\n\\begin{{aligned}}\n{lines}\n\\end{{aligned}}\n\\]"


def _atom(expr: Expr) -> tuple[str, Power]:
    match expr:
        case Const():
            return _number(expr.value)
        case Scalar():
            return _name(expr.hyper, str(expr.index or "")), Power.ATOM
        case Given():
            return _name(expr.name), Power.ATOM
        case Count():
            return "t", Power.ATOM
        case Load():
            return _name(expr.array), Power.ATOM
        case Size():
            return _count(expr), Power.ATOM
        case Shape():
            return rf"\text{{{shape_name(expr)}}}", Power.ATOM
        case Draw():
            return rf"\text{{{expr.op}}}({draw_dims(expr)})", Power.ATOM
        case Local():
            return _name(expr.name), Power.ATOM
    raise AssertionError(expr)


def _count(size: Size) -> str:
    """What a spec has a name for; any other count by the letter that it has in papers."""
    if name := count_name(size):
        return _name(name)
    return rf"n_{{\text{{{size.of.name.lower()}s in a {size.over.name.lower()}}}}}"


def _number(value: float) -> tuple[str, Power]:
    r"""`1e-8` is 10^{-8}, and 2e-8 is 2 \cdot 10^{-8}."""
    mantissa, _, exponent = number(value).partition("e")
    if not exponent:
        return mantissa, Power.SIGN if mantissa.startswith("-") else Power.ATOM
    raised = f"10^{{{int(exponent)}}}"
    return (raised, Power.RAISE) if mantissa == "1" else (rf"{mantissa} \cdot {raised}", Power.MULTIPLY)


def _name(name: str, index: str = "") -> str:
    r"""`beta` is \beta, `vhat` is \hat{v}, `x2` is x_{2}, and a word stands upright."""
    if match := re.fullmatch(r"(.*?)_?(\d+)", name):  # one subscript for all, since TeX takes no second one
        return _name(match[1], f"{match[2]},{index}" if index else match[2])
    if index:
        return f"{_name(name)}_{{{index}}}"
    if name == "delta":
        return r"\Delta"
    if name in GREEK:
        return rf"\{_COMMANDS.get(name, name)}"
    if name.endswith("hat") and len(name) > 3:
        return rf"\hat{{{_name(name[:-3])}}}"
    return name if len(name) == 1 else rf"\mathrm{{{name.replace('_', chr(92) + '_')}}}"


def _reduced(expr: Reduce) -> Form:
    r"""A norm between bars, anything else as an operator; over less or more than a tensor, that as a subscript."""
    over = "" if expr.over == Extent.TENSOR else rf"_{{{{\text{{{{{expr.over.name.lower()}}}}}}}}}"
    if expr.op == "norm":
        return Form(rf"\left\lVert {{0}} \right\rVert{over}")
    if expr.op == "dot":
        return Form(rf"\left\langle {{0}}, {{1}} \right\rangle{over}")
    name = rf"\{expr.op}" if expr.op in ("max", "min") else rf"\operatorname{{{{{expr.op}}}}}"
    return Form(rf"{name}{over}\left({{0}}\right)")


def _dotted(call: Call) -> Form | None:
    """A product with a number on its right gets a sign, since 2 3 would be read as 23."""
    left_most = call.args[-1]
    while isinstance(left_most, Call) and left_most.op in ("pow", "powi"):
        left_most = left_most.args[0]
    return _DOTTED if call.op == "mul" and isinstance(left_most, Const) else None
