"""Telling names: what a scalar that no author has named is called in C, from its formula.

In: the scalars of a step. Out: for each its name: `one_minus_beta1` for 1 - beta[1], `bias1` for 1 - beta[1]**t.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.expr import Call, Const, Count, Expr, Given, Local, Scalar
from ..ir.rule import Assign, Rule

__all__ = ["telling_names"]

#: A name that is longer than this tells less than a number with the formula beside it.
LONGEST = 24

_NUMBERS = {0.0: "zero", 0.5: "half", 1.0: "one", 2.0: "two", 3.0: "three", 4.0: "four"}
_BETWEEN = {"add": "plus", "sub": "minus", "mul": "times", "div": "over", "pow": "to", "powi": "to"}
_BEFORE = {"neg": "minus", "sqrt": "root"} | {name: name for name in ("exp", "log", "tanh", "abs", "max", "min")}


def telling_names(scalars: Sequence[Assign], checked: Rule) -> dict[str, str]:
    """By its target the name of each scalar. The author's own stay."""
    own = {assign.target for assign in checked.body}
    known: dict[str, str] = {}
    plain = (Scalar, Count, Given)
    for assign in scalars:
        name = "" if assign.target in own or isinstance(assign.value, plain) else _name(assign.value, known)
        known[assign.target] = name if 0 < len(name) <= LONGEST else assign.target
    return known


def _name(expr: Expr, known: Mapping[str, str]) -> str:
    """The formula in words; empty if there are none for a part of it."""
    match expr:
        case Const(value):
            return _NUMBERS.get(value, "")
        case Count():
            return "t"
        case Given(name=name):
            return name
        case Scalar(hyper, index):
            return f"{hyper}{index or ''}"
        case Local(name=name):
            return known.get(name, name)
        case Call("sub", (Const(1.0), Call("pow" | "powi", (base, Count() | Local(name="t"))))):
            decay = _name(base, known)
            return f"bias{decay.lstrip('abcdefghijklmnopqrstuvwxyz_')}" if decay else ""
        case Call("mul", (a, b)) if a == b:
            word = _name(a, known)
            return f"{word}_squared" if word else ""
        case Call(op, args):
            words = [_name(arg, known) for arg in args]
            if not all(words):
                return ""
            if op in _BETWEEN:
                return f"_{_BETWEEN[op]}_".join(words)
            return "_".join([_BEFORE[op], *words]) if op in _BEFORE else ""
    return ""
