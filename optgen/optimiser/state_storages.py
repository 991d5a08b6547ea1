"""The storages of states, as callers choose them.

In: the name of one storage for all states, or of one for each of some. Out: the storage of each state that is not kept
in the compute type, or an error that says which state cannot have it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count, takewhile
from typing import TypeAlias

from ..errors import ArgumentError, shown
from ..ir.expr import PARAMETER, Extent, Load, walk
from ..ir.rule import Rule
from ..ir.signs import never_negative
from ..ir.storages import STORAGES, UNSIGNED
from ..names import canonical
from .hyperparameters import suggestion

__all__ = [
    "OF_STATES",
    "STOCHASTIC",
    "Seed",
    "Storage",
    "chosen_rounding",
    "chosen_storages",
    "rounding_argument",
    "storage_argument",
]

#: The storages that a state can have.
OF_STATES = tuple(name for name, each in STORAGES.items() if each.bits <= 16 and not each.is_split)
STOCHASTIC = "stochastic"
_ROUNDINGS = ("nearest", STOCHASTIC)
#: What a constructor takes: nothing, where all states are kept in the compute type.
Storage: TypeAlias = str | Mapping[str, str] | None
Seed: TypeAlias = int | None


def chosen_storages(
    owner: str, rules: Iterable[Rule], given: object, known: Sequence[str] = OF_STATES
) -> dict[str, str]:
    """Of these variants of a rule, the storage of each state that is kept in another type than the compute type.

    One name holds for every state like the parameter that does not start as it: what is, or was, a parameter would lose
    the steps that are smaller than the distance between two numbers. States with fewer values are float64. `known`: the
    storages that there are.
    """
    rules = tuple(rules)
    extents = {state.name: state.extent for rule in rules for state in rule.states}
    like, elements = {name for rule in rules for name in rule.element_states}, _of_one_name(rules)
    if given is None:
        return {}
    if isinstance(given, str):
        _expect_storage("storage", given, known)
        if not elements:
            has = "only states that start as the parameter" if like else "no state with a value for each element"
            hint = "name the state: storage={...}" if like else "leave it out"
            raise ArgumentError(f"storage: {owner} has {has}, got {given!r}", hint=hint)
        return _with_signs(rules, dict.fromkeys(elements, given))
    if not isinstance(given, Mapping):
        message = f"storage: expected the name of a storage, or a name for each state, got {shown(given)}"
        raise ArgumentError(message, hint=f'storage="{OF_STATES[0]}"')
    found: dict[str, str] = {}
    for spelled, storage in given.items():
        names = _meant(spelled, extents)
        if not names:
            raise ArgumentError(f"storage: {owner} has no state {spelled!r}{suggestion(str(spelled), list(extents))}")
        _expect_storage(f"the storage of {spelled}", storage, known)
        for name in names:
            if extents[name] < Extent.ELEMENT:
                few = f"expected a state with a value for each element, got {extents[name].words}"
                raise ArgumentError(f"the storage of {spelled}: {few}", hint="it is kept in float64: leave it out")
            if name not in like:
                few = "expected a state like the parameter, got a matrix of other dimensions"
                hint = "it is kept in the compute type: leave it out"
                raise ArgumentError(f"the storage of {spelled}: {few}", hint=hint)
            found[name] = str(storage)
    return _with_signs(rules, found)


def _with_signs(rules: Sequence[Rule], storages: Mapping[str, str]) -> dict[str, str]:
    """The same where states that are never negative have the unsigned form of a block storage."""
    unsigned = usual_rounding(rules, storages) if any(STORAGES[each].block for each in storages.values()) else ()
    return {
        name: f"{UNSIGNED}{kept}" if name in unsigned and STORAGES[kept].block else kept
        for name, kept in storages.items()
    }


def _meant(spelled: object, known: Collection[str]) -> list[str]:
    """The arrays that a name stands for: one, or `v1`, `v2` and so on, which a spec has under the name `v`."""
    name = canonical(spelled) if isinstance(spelled, str) else ""
    if name in known:
        return [name]
    return list(takewhile(known.__contains__, (f"{name}{i}" for i in count(1))))


def _of_one_name(rules: Iterable[Rule]) -> list[str]:
    """The states that the name of one storage holds for."""
    states = {state.name: state for rule in rules for state in rule.states if state.name in rule.element_states}
    return [name for name, state in states.items() if Load(PARAMETER) not in set(walk(state.init))]


def chosen_rounding(owner: str, rules: Sequence[Rule], storages: Mapping[str, str], given: object) -> frozenset[str]:
    """Those of the stored states, and of the parameter, that are rounded stochastically.

    Without a choice, those are that are never negative: rounded to the nearest, a second moment would not fall.
    """
    if given is None:
        return usual_rounding(rules, storages)
    if isinstance(given, str):
        _expect_rounding("rounding", given)
        return frozenset((PARAMETER, *storages)) if given == STOCHASTIC else frozenset()
    if not isinstance(given, Mapping):
        message = f"rounding: expected one of {', '.join(_ROUNDINGS)}, or one for each array, got {shown(given)}"
        raise ArgumentError(message, hint=f'rounding={{"{PARAMETER}": "{STOCHASTIC}"}}')
    found = set(usual_rounding(rules, storages))
    for spelled, rounding in given.items():
        names = _meant(spelled, (PARAMETER, *storages))
        if not names:
            known = ", ".join((PARAMETER, *storages))
            raise ArgumentError(f"rounding: expected an array in a storage, of {owner} {known}, got {shown(spelled)}")
        _expect_rounding(f"the rounding of {spelled}", rounding)
        (found.update if rounding == STOCHASTIC else found.difference_update)(names)
    return frozenset(found)


def usual_rounding(rules: Sequence[Rule], storages: Mapping[str, str]) -> frozenset[str]:
    """The stored states that are never negative."""
    return never_negative(rules) & set(storages) if storages else frozenset()


def rounding_argument(rules: Sequence[Rule], storages: Mapping[str, str], rounding: Collection[str]) -> list[str]:
    """The argument of a constructor that chooses this rounding, as source text; nothing if it is the usual one."""
    usual = usual_rounding(rules, storages)
    other = [name for name in (PARAMETER, *storages) if (name in rounding) != (name in usual)]
    chosen = {name: STOCHASTIC if name in rounding else "nearest" for name in other}
    return [f"rounding={chosen!r}"] if chosen else []


def storage_argument(rules: Iterable[Rule], storages: Mapping[str, str]) -> list[str]:
    """The argument of a constructor that chooses these storages, as source text."""
    if not storages:
        return []
    storages = {name: kept.removeprefix(UNSIGNED) for name, kept in storages.items()}
    every = set(storages.values())
    one = every.pop() if len(every) == 1 and storages.keys() == set(_of_one_name(rules)) else None
    return [f"storage={one or dict(storages)!r}"]


def _expect_rounding(what: str, rounding: object) -> None:
    """ArgumentError unless this is a way to round."""
    if rounding not in _ROUNDINGS:
        raise ArgumentError(f"{what}: expected one of {', '.join(_ROUNDINGS)}, got {shown(rounding)}")


def _expect_storage(what: str, storage: object, known: Sequence[str]) -> None:
    """ArgumentError unless this is the name of a storage."""
    if not isinstance(storage, str) or storage not in known:
        raise ArgumentError(f"{what}: expected one of {', '.join(known)}, got {shown(storage)}")
