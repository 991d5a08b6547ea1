"""The storages of states, as callers choose them.

In: the name of one storage for all states, or of one for each of some. Out: the storage of each state that is not kept
in the compute type, or an error that says which state cannot have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from ..errors import ArgumentError, shown
from ..ir.expr import Extent
from ..ir.rule import Rule
from ..ir.storages import STORAGES
from ..names import canonical
from .hyperparameters import suggestion

__all__ = ["OF_STATES", "Storage", "chosen_storages", "storage_argument"]

#: The storages that a state can have.
OF_STATES = tuple(name for name, each in STORAGES.items() if each.bits == 16 and not each.block and not each.is_split)
#: What a constructor takes: nothing, where all states are kept in the compute type.
Storage: TypeAlias = str | Mapping[str, str] | None


def chosen_storages(owner: str, rules: Iterable[Rule], given: object) -> dict[str, str]:
    """Of these variants of a rule, the storage of each state that is kept in another type than the compute type.

    One name holds for every state with a value for each element; states with fewer values are float64.
    """
    extents = {state.name: state.extent for rule in rules for state in rule.states}
    elements = [name for name, extent in extents.items() if extent == Extent.ELEMENT]
    if given is None:
        return {}
    if isinstance(given, str):
        _expect_storage("storage", given)
        if not elements:
            message = f"storage: {owner} has no state with a value for each element, got {given!r}"
            raise ArgumentError(message, hint="leave it out")
        return dict.fromkeys(elements, given)
    if not isinstance(given, Mapping):
        message = f"storage: expected the name of a storage, or a name for each state, got {shown(given)}"
        raise ArgumentError(message, hint=f'storage="{OF_STATES[0]}"')
    found = {}
    for spelled, storage in given.items():
        name = canonical(spelled) if isinstance(spelled, str) else spelled
        if name not in extents:
            raise ArgumentError(f"storage: {owner} has no state {spelled!r}{suggestion(str(spelled), list(extents))}")
        _expect_storage(f"the storage of {spelled}", storage)
        if extents[name] < Extent.ELEMENT:
            few = f"expected a state with a value for each element, got {extents[name].words}"
            raise ArgumentError(f"the storage of {spelled}: {few}", hint="it is kept in float64: leave it out")
        found[name] = storage
    return found


def storage_argument(rules: Iterable[Rule], storages: Mapping[str, str]) -> list[str]:
    """The argument of a constructor that chooses these storages, as source text."""
    if not storages:
        return []
    elements = {name for rule in rules for name in rule.element_states}
    every = set(storages.values())
    one = every.pop() if len(every) == 1 and storages.keys() == elements else None
    return [f"storage={one or dict(storages)!r}"]


def _expect_storage(what: str, storage: object) -> None:
    """ArgumentError unless this is the name of a storage."""
    if not isinstance(storage, str) or storage not in OF_STATES:
        raise ArgumentError(f"{what}: expected one of {', '.join(OF_STATES)}, got {shown(storage)}")
