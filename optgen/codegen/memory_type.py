"""Memory types: how the elements of an array lie in memory, and how C reads and writes one.

In: a lowered rule and a compute type. Out: of each array its type, that of its storage where it has one.
"""

from __future__ import annotations

from ..frozen import frozen
from ..ir.rule import Rule
from ..ir.storages import storage_called
from .c_language import SINGLE, CType

__all__ = ["MemoryType", "memory_types"]


@frozen
class MemoryType:
    """What the elements of an array are in memory.

    Attributes
    ----------
    type
        Their type in C.
    storage
        What functions of C call the storage that loads and stores them; empty if they are in the compute type.
    ctype
        The compute type.
    stream
        The number of the random bits by which it is rounded stochastically; None if it is rounded to the nearest.
    staged
        What functions of C call the storage, if its neighbours share a scale: elements are float32 then, in memory of
        the thread.
    """

    type: str
    storage: str
    ctype: CType
    stream: int | None = None
    staged: str = ""

    def load(self, code: str) -> str:
        """The value of the element `code` in the compute type."""
        return f"optgen_load_{self.storage}({code})" if self.storage else code

    def store(self, value: str) -> str:
        """What is written for a value of the compute type."""
        if not self.storage:
            return value if self.type == self.ctype.name else f"({self.type}){value}"
        single = value if self.ctype is SINGLE else f"(float){value}"
        if self.stream is None:
            return f"optgen_store_{self.storage}({single})"
        bits = f"optgen_rounding_bits(optgen_key{self.stream}, optgen_element, {self.stream}u)"
        return f"optgen_store_{self.storage}_stochastic({single}, {bits})"


def memory_types(rule: Rule, ctype: CType) -> dict[str, MemoryType]:
    """Of each array of a lowered rule what its elements are in memory."""
    stored, rounding = dict(rule.storages), dict(rule.rounding)
    found = {}
    for i, array in enumerate(rule.arrays):
        if array not in stored:
            found[array] = MemoryType(ctype.name, "", ctype)
            continue
        row, stream = storage_called(stored[array]), i if array in rounding else None
        if row.block:
            stem = f"{row.stem}_{'signed' if row.signed else 'unsigned'}"
            found[array] = MemoryType("float", "", ctype, stream, stem)
        else:
            found[array] = MemoryType(f"{row.dtypes[0]}_t", row.stem, ctype, stream)
    return found
