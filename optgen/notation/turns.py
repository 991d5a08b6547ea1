"""Turns of loops, put together again for a reader.

In: the formulas of a variant, its loops written out. Out: the same formulas, those of a loop once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from ..frozen import frozen, replace
from ..ir.expr import Expr, Local, children, rebuilt, walk
from ..ir.rule import Assign

__all__ = ["InTurns", "put_together"]

#: The fewest turns that are worth a line that says how many there are, and the most formulas of a turn.
FEWEST, MOST_FORMULAS = 3, 12


@frozen
class InTurns(Assign):
    """A formula of a loop. `times`: how many turns this and the formulas behind it have; 0 if it is one of those."""

    target: str
    value: Expr
    times: int


def put_together(body: Sequence[Assign]) -> tuple[Assign, ...]:
    """The formulas in order, where several turns of a loop follow each other only once."""
    names = _names(body)
    plain = [_named_alike(assign, names) for assign in body]
    found: list[Assign] = []
    i = 0
    while i < len(body):
        size, times = _turns_at(plain, i)
        if times >= FEWEST:
            found += [InTurns(a.target, a.value, times * (k == 0)) for k, a in enumerate(plain[i : i + size])]
            i += size * times
        else:
            found.append(body[i])
            i += 1
    looped = {assign.target for assign in found if isinstance(assign, InTurns)} & names
    return tuple(assign if isinstance(assign, InTurns) else _named_alike(assign, looped) for assign in found)


def _names(body: Sequence[Assign]) -> set[str]:
    """The names that may stand for all their turns: nothing reads one of these once the next one is assigned."""
    names = {assign.target for assign in body}
    last: dict[str, str] = {}
    for assign in body:
        for expr in walk(assign.value):
            if isinstance(expr, Local) and last.get(name := _stem(expr.name), expr.name) != expr.name:
                names.discard(name)
        last[_stem(assign.target)] = assign.target
    return names


def _stem(name: str) -> str:
    """`X` of `X_3`, the name of a turn."""
    return re.sub(r"_\d+$", "", name)


def _turns_at(plain: Sequence[Assign], i: int) -> tuple[int, int]:
    """How many formulas a turn has that begins with formula `i`, and how many such turns there are."""
    for size in range(1, MOST_FORMULAS + 1):
        times, turn = 1, plain[i : i + size]
        while plain[i + times * size : i + (times + 1) * size] == turn:
            times += 1
        if times >= FEWEST:
            return size, times
    return 1, 1


def _named_alike(assign: Assign, names: Collection[str]) -> Assign:
    """A formula with the names of the author in the place of those of turns: `X` for `X_3`."""

    def named(name: str) -> str:
        stem = _stem(name)
        return stem if stem in names else name

    def read(expr: Expr) -> Expr:
        if isinstance(expr, Local):
            return replace(expr, name=named(expr.name))
        return rebuilt(expr, tuple(map(read, children(expr))))

    return Assign(named(assign.target), read(assign.value))
