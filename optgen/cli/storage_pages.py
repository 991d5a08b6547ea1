"""Pages about storages for a terminal: what rules keep and move where states are in some of them.

In: compilations, and the name of a storage. Out: lines and `Table`s, as those of `pages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..compiler.driver import Compilation
from ..errors import ArgumentError
from ..ir.rule import Storages
from ..ir.storages import storage_called
from ..notation import facts
from .pages import FAMILIES, Block, Table, groups

__all__ = ["costs", "listing", "of_rule"]

_LEGEND = (
    ("kept", "bytes of state per element, shares of scales included; states of fewer numbers count as nothing"),
    ("moved", "bytes that a step reads and writes per element; of rules of matrices, none are told"),
    ("parameters and gradients", "float32"),
)


def costs(compilation: Compilation, variant: int, storage: str | None) -> tuple[str, str]:
    """The bytes that one variant of a rule keeps, and that a step of it moves, for each element of float32, with all
    states that can be in a storage in this one."""
    from ..optimiser.state_storages import chosen_storages

    phases = list(compilation.in_phases(variant))
    rules = [compilation.rules[i] for i in phases]
    try:
        chosen = chosen_storages(compilation.name, rules, storage)
    except ArgumentError:  # no state can be
        chosen = {}
    of = [_storages(compilation, i, chosen) for i in phases]
    kept = sum(_bytes(dict(of[0]).get(name, "float32")) for name in rules[0].element_states)
    if any(rule.multiplies for rule in rules):
        return _number(kept), ""
    moved = sum(_moved(compilation, i, own) for i, own in zip(phases, of, strict=True))
    return _number(kept), _number(moved)


def _storages(compilation: Compilation, variant: int, chosen: dict[str, str]) -> Storages:
    return tuple((name, chosen[name]) for name in compilation.rules[variant].element_states if name in chosen)


def _moved(compilation: Compilation, variant: int, storages: Storages) -> float:
    lowered, own = compilation.lowered_with(variant, storages), dict(storages)
    return facts.bytes_moved_by(lowered, {name: _bytes(own.get(name, "float32")) for name in lowered.arrays})


def _bytes(storage: str) -> float:
    """Of an element, with its share of a scale."""
    row = storage_called(storage)
    return row.bits / 8 + (4 / row.block if row.block else 0)


def _number(x: float) -> str:
    return f"{x:.2f}".rstrip("0").rstrip(".")


def listing(compilations: Iterable[Compilation], storage: str) -> Iterator[Block]:
    """Of each rule, by families, what it keeps and moves in float32 and in this storage; and a legend."""
    for family, members in groups(compilations).items():
        rows = [(each.name, *costs(each, 0, None), *costs(each, 0, storage)) for each in members]
        yield f"{FAMILIES[family]} ({family})" if family else FAMILIES[family]
        yield Table(rows, ("rule", "kept", "moved", f"kept, {storage}", f"moved, {storage}"))
        yield ""
    yield Table(_LEGEND)


def of_rule(compilation: Compilation, variant: int) -> Iterator[Block]:
    """What one variant of a rule keeps and moves with its states in each storage."""
    from ..optimiser.state_storages import OF_STATES

    yield f"{compilation.rules[variant].name}: bytes for each element of float32, by what its states are kept in"
    yield Table([(name, *costs(compilation, variant, None if name == "float32" else name))
                 for name in ("float32", *OF_STATES)], ("storage", "kept", "moved"))  # fmt: skip
