"""Storages: in what form arrays keep their values.

In: nothing. Out: the table of storages, one row each, as plain data.

Formulas never see a storage. They take values in the compute type, as a *load* gives them, and what they give a *store*
rounds, to the nearest value or stochastically. `optgen/interpreter/storages.py` has the load and the store of each row
in NumPy, `templates/c/storage.h` in C: the same integer operations, and the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..frozen import frozen, replace

__all__ = ["STORAGES", "UNSIGNED", "Storage", "in_blocks", "storage_called"]

#: How the name of a block storage begins where no number is negative: it has twice the levels.
UNSIGNED = "unsigned "


@frozen
class Storage:
    """One form of keeping numbers.

    Attributes
    ----------
    name
        What users call it.
    stem
        What functions of C call it; those of a block storage add `_signed` or `_unsigned`.
    summary
        What it is good for, in a few words.
    bits
        The bits of an element, without its share of a scale.
    dtypes
        The dtypes of the arrays that keep a tensor: the codes; then the low bits, or the scales.
    block
        How many neighbours in C order share a scale; 0 if there are no scales.
    levels
        The largest code of a number with a sign, and that of one without.
    dropped
        Of a logarithmic storage, how many bits of a float32 a step leaves out; 0 of any other.
    packed
        How many elements lie in one code.
    rounds
        Whether a store of a float32 loses bits, and so may be stochastic.
    version
        Counts up when codes change their meaning; checkpoints keep it.
    signed
        Whether it keeps negative numbers; of the table, all do.
    """

    name: str
    stem: str
    summary: str
    bits: int
    dtypes: tuple[str, ...]
    block: int = 0
    levels: tuple[int, int] = (0, 0)
    dropped: int = 0
    packed: int = 1
    rounds: bool = True
    version: int = 1
    signed: bool = True

    @property
    def is_split(self) -> bool:
        """Whether the first array is a bfloat16 that can be used by itself, and the second one holds its low bits."""
        return len(self.dtypes) > 1 and not self.block

    def lengths(self, count: int) -> tuple[int, ...]:
        """The lengths of the arrays that keep `count` elements."""
        if not self.block:
            return (count,) * len(self.dtypes)
        blocks, rest = divmod(count, self.block)
        codes = blocks * (self.block // self.packed) + -(-rest // self.packed)
        return codes, blocks + (rest > 0)

    def begins(self, count: int) -> tuple[int, int]:
        """Where the scales of `count` elements begin and end in an array of bytes that begins with the codes, and that
        states are kept in: codes, up to 3 bytes of nothing, scales."""
        codes, scales = self.lengths(count)
        at = -(-codes // 4) * 4
        return at, at + 4 * scales


#: Every storage, by its name.
STORAGES = {
    storage.name: storage
    for storage in (
        Storage("float32", "float32", "the usual form", 32, ("float32",), rounds=False),
        Storage("float64", "float64", "for parameters in float64", 64, ("float64",), rounds=False),
        Storage("bfloat16", "bfloat16", "half the bytes, all of float32's range", 16, ("uint16",)),
        Storage("float16", "float16", "half the bytes, three more bits, from 6e-8 to 65504", 16, ("uint16",)),
        Storage("bf16+8", "bf16_8", "parameters: a bfloat16 to compute with, 8 more bits to train",
                24, ("uint16", "uint8")),
        Storage("bf16+16", "bf16_16", "parameters: a bfloat16 to compute with, and all of float32 to train",
                32, ("uint16", "uint16"), rounds=False),
        Storage("log8", "log8", "states: a quarter of the bytes, eight steps an octave",
                8, ("uint8", "float32"), 256, (127, 255), dropped=20),
        Storage("linear8", "linear8", "states of even size: a quarter of the bytes, the cheapest",
                8, ("uint8", "float32"), 256, (127, 255)),
        Storage("log4", "log4", "states: an eighth of the bytes, one step an octave",
                4, ("uint8", "float32"), 128, (7, 15), dropped=23, packed=2),
    )
}  # fmt: skip


def storage_called(name: str) -> Storage:
    """The storage of this name, which may be `unsigned log8` too. KeyError if there is none."""
    if not name.startswith(UNSIGNED):
        return STORAGES[name]
    row = STORAGES[name.removeprefix(UNSIGNED)]
    if not row.block:
        raise KeyError(name)
    return replace(row, name=name, signed=False)


def in_blocks(storages: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Of arrays, each with its storage, those whose neighbours share a scale."""
    return frozenset(name for name, storage in storages if storage_called(storage).block)
