"""The common printer of expressions: a `Form` for each primitive, and brackets only where they change the meaning.

In: an expression, and a table of forms. Out: text. Floating point is not associative, so a right-hand `a + (b + c)`
keeps its brackets in every language.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum

from ..frozen import frozen
from ..ir.expr import Call, Expr, Product, Reduce

__all__ = ["Form", "Power", "write"]


class Power(IntEnum):
    """How tightly an operator binds; each language has the part of this order that it needs."""

    CHOICE = 0
    OR = 1
    AND = 2
    NOT = 3
    COMPARE = 4
    ADD = 5
    MULTIPLY = 6
    SIGN = 7
    RAISE = 8
    ATOM = 9


@frozen
class Form:
    """How a primitive is written.

    `template` has a place for each argument. `binds` is the power of the whole. An argument that binds less than its
    entry in `needs` gets brackets.
    """

    template: str
    binds: Power = Power.ATOM
    needs: tuple[Power, ...] = (Power.CHOICE, Power.CHOICE, Power.CHOICE)


_NO_FORMS: Mapping[str, Form] = {}


def write(
    expr: Expr,
    forms: Mapping[str, Form],
    atom: Callable[[Expr], tuple[str, Power]],
    brackets: str = "({})",
    special: Callable[[Call], Form | None] = lambda call: None,
    reduced: Callable[[Reduce], Form] | None = None,
    products: Mapping[str, Form] = _NO_FORMS,
) -> tuple[str, Power]:
    """The text of `expr`, and how tightly it binds.

    `atom` writes what is no call. `special` may replace a form. `reduced` gives the form of a reduction, in languages
    that have them, and `products` those of products of matrices.
    """
    if isinstance(expr, Reduce) and reduced is not None:
        form = reduced(expr)
    elif isinstance(expr, Call):
        form = special(expr) or forms[expr.op]
    elif isinstance(expr, Product):
        form = products[expr.op]
    else:
        return atom(expr)
    arguments = []
    for arg, needs in zip(expr.args, form.needs, strict=False):
        text, binds = write(arg, forms, atom, brackets, special, reduced, products)
        arguments.append(text if binds >= needs else brackets.format(text))
    return form.template.format(*arguments), form.binds
