"""Values of the indices of dimensions: where they may stand, and where they meet elements.

In: typed expressions, and the terms that they come from. Out: reductions to and from such values, or a fault.

An element has an index of each dimension, and so several of these values. What they come to for it is said by a
reduction over the element: `min(acc, element)`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import Span
from ..ir.expr import Expr, Extent, Reduce, extent_of, joint_extent, type_of
from ..ir.primitives import Type
from .resolve import Resolver
from .syntax import Invoke, Term
from .vocabulary import OVER_WORDS

__all__ = ["OF_ELEMENT", "Indices"]

#: The reductions that go over the indices of an element, or over the elements of an index.
_FOLDS = ("min", "max")
OF_ELEMENT = "take the smallest of those that an element has, min(x, element), or the largest, max(x, element)"


class Indices(Resolver):
    """The values of indices in one choice of flags. A method that finds a fault records it."""

    def expr(self, term: Term) -> Expr | None:
        raise NotImplementedError  # `Expressions` has it

    def refuses_indices(self, span: Span, args: Sequence[Expr]) -> bool:
        """Record a fault if values of indices meet what is neither of indices nor one for the whole parameter. Return
        whether there is one."""
        extents = [extent_of(arg) for arg in args]
        other = next((own for own in extents if own != Extent.INDEX and own > Extent.TENSOR), None)
        if Extent.INDEX not in extents or other is None:
            return False
        message = f"{Extent.INDEX.words} does not fit {other.words}, which has an index of each dimension"
        self.fault(span, message, OF_ELEMENT)
        return True

    def of_element(self, term: Invoke) -> Expr | None:
        """Elaborate what the indices of each element come to, `min(acc, element)`."""
        name, given = term.function, term.args[:-1]
        args = [self.expr(arg) for arg in given]
        if len(given) != 1 or name not in _FOLDS:
            message = f"{name}() over the indices of an element: expected min(x, element) or max(x, element)"
            self.fault(term.span, message)
            return None
        (value,) = args
        if value is None:
            return None
        if extent_of(value) != Extent.INDEX or type_of(value) is not Type.REAL:
            got = extent_of(value).words if type_of(value) is Type.REAL else Type.BOOL.value
            message = f"{name}() over the indices of an element: expected {Extent.INDEX.words}, got {got}"
            self.fault(given[0].span, message, 'give a state extent = "index", or reduce to it: max(g**2, index)')
            return None
        return Reduce(name, (value,), Extent.ELEMENT)

    def refuses_reduction(self, term: Invoke, args: Sequence[Expr], over: Extent) -> bool:
        """Record a fault if a reduction to or from values of indices means nothing. Return whether there is one."""
        of, name = joint_extent(args), term.function
        if self.refuses_indices(term.span, args):
            return True
        if over == Extent.INDEX and name not in _FOLDS:
            self.fault(term.span, f"{name}() over an index: expected min(x, index) or max(x, index)")
        elif over == Extent.INDEX and of != Extent.ELEMENT:
            message = f"{name}() over an index: expected {Extent.ELEMENT.words}, got {of.words}"
            hint = "leave the reduction out" if of <= Extent.INDEX else f"write {name}(x, index) of the elements"
            self.fault(term.span, message, hint)
        elif of == Extent.INDEX and over > Extent.TENSOR:
            self.fault(term.span, f"{name}() over {OVER_WORDS[over]} was given {of.words}", OF_ELEMENT)
        else:
            return False
        return True
