"""Fusion of products with what is done to each of their elements at once: `b*C + a*(A @ B)`, and rounding to bfloat16.

In: a rule in which products have names, one way round. Out: the same, where such a formula is one product, `multiply`,
of A, B, C, a and b; and matrices that are rounded to bfloat16 are known as `halves`.

A library computes that in one call, which may round otherwise than the operations one by one do.
"""

from __future__ import annotations

from collections import Counter

from ..frozen import frozen, replace
from ..ir.expr import Call, Const, Expr, Extent, Load, Local, Product, dims_of, extent_of, walk
from ..ir.rule import Assign, Rule
from .name_products import core_of, is_plain

__all__ = ["Fused", "fused"]

_ONE = Const(1.0)


@frozen
class Fused:
    """A rule with fused products; `halves`: the names of matrices that are kept as bfloat16."""

    rule: Rule
    halves: frozenset[str]


def fused(rule: Rule) -> Fused:
    values = {a.target: a.value for a in rule.body}
    uses = Counter(e.name for a in rule.body for e in walk(a.value) if isinstance(e, Local))
    halves = frozenset(n for n, v in values.items() if _is_rounded(v) and extent_of(v) == Extent.ELEMENT)
    kept = rule.stores | rule.reported
    products = {
        n: v for n, v in values.items()
        if isinstance(v, Product) and v.op == "matmul" and extent_of(v) == Extent.ELEMENT
        and uses[n] == 1 and n not in kept
    }  # fmt: skip
    body: dict[str, Expr] = {}
    for name, value in values.items():
        found = None if name in kept else _fused(value, products, halves, half=name in halves)
        if found is None:
            body[name] = value
        else:
            product, body[name] = found
            body.pop(product)
    return Fused(replace(rule, body=tuple(Assign(n, v) for n, v in body.items())), halves - kept)


def _is_rounded(value: Expr) -> bool:
    return isinstance(value, Call) and value.op == "bfloat16"


def _fused(value: Expr, products: dict[str, Product], halves: frozenset[str], *, half: bool) -> tuple[str, Expr] | None:
    """The product that a formula is made of, and the formula as one with it; None for any other formula."""
    inner = value.args[0] if half and isinstance(value, Call) else value
    terms = inner.args if isinstance(inner, Call) and inner.op == "add" else (inner,)
    scaled = [_scaled(term) for term in terms]
    if any(each is None for each in scaled):
        return None
    own = [
        (i, x.name) for i, each in enumerate(scaled) if each and isinstance(x := each[0], Local) and x.name in products
    ]
    if len(own) != 1 or (len(terms) == 1 and not half):
        return None
    (at, name), product = own[0], products[own[0][1]]
    matrices = [*product.args, *(each[0] for i, each in enumerate(scaled) if i != at and each)]
    are_half = [isinstance(core_of(x), Local) and core_of(x).name in halves for x in matrices]  # type: ignore[union-attr]
    if half != all(are_half) or half != any(are_half):
        return None
    mine, others = scaled[at], [each for i, each in enumerate(scaled) if i != at]
    assert mine is not None
    args: tuple[Expr, ...] = (*product.args, mine[1])
    if others and others[0] is not None:
        args = (*args, *others[0])
    return name, Product("multiply", args, product.dims)


def _scaled(term: Expr) -> tuple[Expr, Expr] | None:
    """A matrix and the number that it is multiplied by; None if that is not what a term is."""
    factor: Expr = _ONE
    if isinstance(term, Call) and term.op == "mul":
        factor, term = term.args
        if extent_of(factor) > Extent.STEP:
            factor, term = term, factor
    number = extent_of(factor) <= Extent.STEP
    whole = is_plain(term) and extent_of(term) == Extent.ELEMENT and isinstance(core_of(term), Load | Local)
    return (term, factor) if number and whole and dims_of(term).rows and dims_of(term).columns else None
