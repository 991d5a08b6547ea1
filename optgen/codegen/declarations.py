"""Declarations: how functions of C come by the names that expressions begin with.

In: what expressions need. Out: lines that declare it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import groupby

from ..frozen import frozen
from .places import KeptArray, Need

__all__ = ["Declared", "arrays_of", "declarations"]


@frozen
class Declared:
    """A name that is declared with a value; `base` is the type that names of one declaration share, and `name` has
    its own stars."""

    base: str
    name: str
    value: str


def declarations(names: Iterable[Declared]) -> list[str]:
    """Declarations of names in order; those of one type that follow each other stand in one."""
    return [
        f"{base} {', '.join(f'{each.name} = {each.value}' for each in group)};"
        for base, group in groupby(names, key=lambda each: each.base)
    ]


def arrays_of(needs: Collection[Need]) -> list[KeptArray]:
    """The kept arrays among what is needed, in order."""
    return sorted((need for need in needs if isinstance(need, KeptArray)), key=lambda a: (a.field, a.number))
