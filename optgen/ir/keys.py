"""Keys: reductions over the group, in which tensors in several variants take part together.

In: the body of a rule. Out: the same, with a number for each of these reductions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ..frozen import replace
from .expr import Expr, Extent, Reduce, children, rebuilt
from .rule import Assign

__all__ = ["keyed"]


def keyed(body: Sequence[Assign]) -> tuple[Assign, ...]:
    """The body with a number for each reduction over the group, in the order in which a step meets them.

    Tensors in other variants take part in these reductions, whatever becomes of them in this variant.
    """
    keys = itertools.count()

    def numbered(expr: Expr) -> Expr:
        expr = rebuilt(expr, tuple(map(numbered, children(expr))))
        if isinstance(expr, Reduce) and expr.over == Extent.GROUP:
            return replace(expr, key=next(keys))
        return expr

    return tuple(Assign(assign.target, numbered(assign.value)) for assign in body)
