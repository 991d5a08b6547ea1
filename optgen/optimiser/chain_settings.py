"""The settings of a chain: those of all its parts as those of one rule.

In: the settings of the parts, and what the rule of the chain calls what is theirs.
Out: a `Settings` that keeps nothing by itself: what is set is set in the part that has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

from ..compiler.driver import Compilation
from ..errors import ArgumentError
from ..ir.evaluate import Always, HyperValues, ValuesByCount
from ..ir.expr import PARAMETER
from ..names import canonical
from ..runtime.array_library import ParameterSlot
from .checkpoint import flags_of_parts
from .hyperparameters import Given, resolved, spellings
from .settings import Settings

__all__ = ["ChainSettings", "joined_rounding", "joined_storages"]


class ChainSettings(Settings):
    """The settings of all parts as those of one rule; each stays with its part.

    Parameters
    ----------
    parts
        The settings of the parts, in order.
    named
        For each part, what its hyperparameters are called in the chain.
    counted
        For each part, the state that counts its updates; empty where that is the count of the chain, None where nothing
        goes by it.
    storages
        Those of the states of all parts.
    rounding
        The arrays of all parts that are rounded stochastically, each with its seed.
    """

    def __init__(
        self, compilation: Compilation, parts: Sequence[Settings], named: Sequence[Mapping[str, str]],
        counted: Sequence[str | None], backend: str, storages: Mapping[str, str], rounding: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.parts = tuple(parts)
        self.named = named
        self.counted = counted
        known = spellings(compilation.rules[0].hypers)
        values = JoinedValues(parts, named)
        self._joined = (Always(values),)  # type: ignore[arg-type]  # read while all are numbers
        super().__init__("Chain", compilation, known, values, {}, {}, backend, storages)
        self.chosen_rounding = rounding  # the parts have seeds

    @property
    def scheduled(self) -> bool:
        for part in self.parts:  # noqa: SIM110  # runs in every step, where `any` costs more
            if part.scheduled:
                return True
        return False

    @property
    def fixed(self) -> Sequence[ValuesByCount] | None:
        return None if self.scheduled else self._joined

    def saved_flags(self) -> dict[str, bool]:
        return flags_of_parts([part.flags for part in self.parts])

    def usual_flags(self) -> dict[str, bool]:
        return flags_of_parts([part.usual_flags() for part in self.parts])

    def replace(self, values: Mapping[str, tuple[Given, ...]]) -> None:
        for part, names in zip(self.parts, self.named, strict=True):
            own = {old: values[new] for old, new in names.items() if new in values}
            if own:
                part.replace(own)

    def refuse_other_variant(self, values: Mapping[str, tuple[Given, ...]]) -> None:
        for part, names in zip(self.parts, self.named, strict=True):
            part.refuse_other_variant({own: values[name] for own, name in names.items()})

    def values_at(self, slots: Sequence[ParameterSlot | None], ahead: int) -> dict[int, HyperValues]:
        """The schedules of a part count its own updates, which a part before it may hold back."""
        counts: dict[int, tuple[int, ...]] = {}
        for slot in slots or [None]:
            t = slot.t if slot else 0
            own = tuple(int(slot.arrays[name]) if slot and name else t for name in self.counted)
            if counts.setdefault(t, own) != own:
                message = f"expected parameters of one count of updates, got {own} and {counts[t]} in the parts"
                raise ArgumentError(message, hint="a schedule has one value a step: step them apart, or give a number")
        return {
            t + ahead: {
                new: values[name]
                for part, names, count in zip(self.parts, self.named, own, strict=True)
                for values in [resolved(part.compilation.rules[0].hypers, part.values, count + ahead)]
                for name, new in names.items()
            }
            for t, own in sorted(counts.items())
        }

    # Dtypes are known by every part, so that a change of one makes the chain look again.

    def known_to_fit(self, dtypes: Set[str]) -> bool:
        for part in self.parts:  # noqa: SIM110  # runs in every step, where `all` costs more
            if not part.known_to_fit(dtypes):
                return False
        return True

    def accept_dtypes(self, dtypes: Set[str]) -> None:
        for part in self.parts:
            part.accept_dtypes(dtypes)

    def forget_dtypes(self) -> None:
        for part in self.parts:
            part.forget_dtypes()

    def suggestion(self, name: str, names: Sequence[str]) -> str:
        """Where to find a name that several parts have."""
        stem = canonical(name)
        having = [i for i, part in enumerate(self.parts) if stem in part.spellings]
        if not having:
            return super().suggestion(name, names)
        places = " or ".join(f"opt[{i}].{name} ({self.parts[i].owner})" for i in having)
        return f" of its own: several parts have it; write {places}"


def joined_storages(parts: Sequence[Settings], states: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The storages that parts have chosen, by what the states are called in the chain."""
    pairs = zip(parts, states, strict=True)
    return {names[own]: kept for part, names in pairs for own, kept in part.chosen_storages.items() if own in names}


class JoinedValues(Mapping[str, tuple[Given, ...]]):
    """The hyperparameters of all parts under their names in the chain, as they are now."""

    def __init__(self, parts: Sequence[Settings], named: Sequence[Mapping[str, str]]) -> None:
        pairs = zip(parts, named, strict=True)
        self._places = {new: (part, own) for part, names in pairs for own, new in names.items()}

    def __getitem__(self, name: str) -> tuple[Given, ...]:
        part, own = self._places[name]
        return part.values[own]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def joined_rounding(
    parts: Sequence[Settings], states: Sequence[Mapping[str, str]], hypers: Sequence[Mapping[str, str]]
) -> dict[str, str]:
    """What parts round stochastically, by what it and its seed are called in the chain."""
    return {
        names.get(own, own): seeds[seed]
        for part, names, seeds in zip(parts, states, hypers, strict=True)
        for own, seed in part.chosen_rounding.items()
        if own == PARAMETER or own in names
    }
