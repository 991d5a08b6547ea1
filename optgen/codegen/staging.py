"""Staging: arrays whose neighbours share a scale, which a sweep reads and writes as numbers of its own.

In: a sweep, and what its arrays are in memory. Out: of each such array what is loaded before a block of elements is
updated, and stored after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..frozen import frozen
from ..ir.rule import Rule
from ..lowering.work import Sweep
from .memory_type import MemoryType

__all__ = ["StagedArray", "staged_arrays"]


@frozen
class StagedArray:
    """One such array of a sweep: its number among the rule's arrays, its storage, whether the sweep reads or writes it,
    and the number of its random bits, None if it is rounded to the nearest."""

    number: int
    stem: str
    read: bool
    written: bool
    stream: int | None

    @property
    def name(self) -> str:
        """What C calls the numbers of a block of elements."""
        return f"stage{self.number}"

    @property
    def place(self) -> list[str]:
        """Arguments: how many elements, their numbers, and where their codes are in an array of bytes."""
        return ["n", self.name, f"values->tensor->at[{self.number}]", "values->element", "size"]

    @property
    def rounded(self) -> list[str]:
        """Arguments: what random bits are made of."""
        return [] if self.stream is None else [f"optgen_key{self.stream}", f"{self.stream}u"]

    @property
    def store(self) -> str:
        """The function that stores it."""
        return f"optgen_store_stage_{self.stem}{'' if self.stream is None else '_stochastic'}("

    @property
    def load(self) -> str:
        """The function that loads it."""
        return f"optgen_load_stage_{self.stem}("


def staged_arrays(rule: Rule, sweep: Sweep, memory: Mapping[str, MemoryType]) -> Sequence[StagedArray]:
    """Those of a sweep, in the order of the arrays of its rule."""
    return tuple(
        StagedArray(i, of.staged, array in sweep.loads, array in sweep.stores, of.stream)
        for i, (array, of) in enumerate(memory.items())
        if of.staged and (array in sweep.loads or array in sweep.stores)
    )
