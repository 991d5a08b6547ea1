"""Questions that are asked of terms before they are elaborated.

In: terms of formulas and conditions, and where it matters a choice of flags. Out: their parts, and what they mention.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from ..ir.draws import DRAWS
from ..ir.expr import COUNTS, Extent
from .syntax import Choice, Invoke, Item, Name, Operation, Term
from .vocabulary import MATRIX, OF_MATRICES, OVER, TALL, UNIT, WIDE

__all__ = [
    "aspects_in", "chosen_subterms", "decided", "is_of_tiles", "leaves", "mentions_matrix", "mentions_tiles",
    "names_in", "reduced_over", "sides_in", "subterms",
]  # fmt: skip


def _parts(term: Term) -> tuple[Term, ...]:
    match term:
        case Operation(args=args) | Invoke(args=args):
            return args
        case Choice(test=test, then=then, other=other):
            return test, then, other
    return ()


def subterms(term: Term) -> Iterator[Term]:
    """A term and all terms inside it."""
    yield term
    for part in _parts(term):
        yield from subterms(part)


def chosen_subterms(term: Term, choice: Mapping[str, bool]) -> Iterator[Term]:
    """A term and all terms inside it, without the tests that these flags decide and the sides that they leave out."""
    yield term
    parts = _parts(term)
    if isinstance(term, Choice) and (side := decided(term.test, choice)) is not None:
        parts = (term.then if side else term.other,)
    for part in parts:
        yield from chosen_subterms(part, choice)


def names_in(terms: Iterable[Term]) -> frozenset[str]:
    """The names among these terms, those of values of a hyperparameter too."""
    return frozenset(term.name for term in terms if isinstance(term, Name | Item))


def leaves(test: Term) -> Iterator[Term]:
    """What a condition is made of by `not`, `and` and `or`."""
    if isinstance(test, Operation) and test.op in ("not", "and", "or"):
        for part in test.args:
            yield from leaves(part)
    else:
        yield test


def decided(test: Term, choice: Mapping[str, bool]) -> bool | None:
    """The truth of a condition as far as these flags decide it; None if they do not."""
    match test:
        case Name():
            return choice.get(test.name)
        case Operation(op="not", args=(arg,)):
            value = decided(arg, choice)
            return None if value is None else not value
        case Operation(op=("and" | "or") as op, args=args):
            values = [decided(arg, choice) for arg in args]
            if (op == "or") in values:  # one false decides `and`, one true decides `or`
                return op == "or"
            return None if None in values else op == "and"
    return None


def reduced_over(term: Term) -> Iterator[Name]:
    """The names of extents that stand last in the reductions of a term."""
    for part in subterms(term):
        last = part.args[-1] if isinstance(part, Invoke) and part.args else None
        if isinstance(last, Name) and last.name in OVER:
            yield last


def mentions_matrix(term: Term) -> bool:
    """Whether a choice, or a condition, tests the given flag `matrix`. Elsewhere that word names an extent."""
    tests = [part.test for part in subterms(term) if isinstance(part, Choice)]
    tests += [term] if isinstance(term, Name | Operation) else []
    extents = list(reduced_over(term))
    found = (part for test in tests for part in subterms(test) if isinstance(part, Name) and part.name == MATRIX)
    return any(name not in extents for name in found)


def is_of_tiles(extent: str) -> bool:
    """Whether this is the extent of matrices, rows or columns."""
    return OVER.get(extent, Extent.CONSTANT) >= Extent.MATRIX


def mentions_tiles(term: Term, given: Collection[str]) -> bool:
    """Whether something is reduced over matrices, rows or columns, or these are counted by a `given` name."""
    if any(is_of_tiles(extent.name) for extent in reduced_over(term)):
        return True
    if any(_is_product(part) for part in subterms(term)):
        return True
    known = {name for name, count in COUNTS.items() if count.over > Extent.TENSOR} | {UNIT, TALL, WIDE}
    return not (known & set(given)).isdisjoint(names_in(subterms(term)))


def _is_product(term: Term) -> bool:
    match term:
        case Operation(op=op):
            return op in ("matmul", "transpose")
        case Invoke(function=name):
            return name in OF_MATRICES or (name in DRAWS and bool(term.args))
    return False


def aspects_in(terms: Iterable[Term], given: Collection[str]) -> frozenset[str]:
    """Which of the `given` flags `tall` and `wide` these terms mention."""
    return names_in(part for term in terms for part in subterms(term)) & {TALL, WIDE} & set(given)


def sides_in(terms: Iterable[Term]) -> frozenset[str]:
    """The names that matrices of random numbers have for their dimensions: those of `normal(short, long)`."""
    parts = (part for term in terms for part in subterms(term))
    return names_in(arg for part in parts if isinstance(part, Invoke) and part.function in DRAWS for arg in part.args)
