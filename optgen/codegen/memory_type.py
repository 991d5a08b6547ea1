"""Memory types: how the elements of an array lie in memory, and how C reads and writes one.

In: a lowered rule and a compute type. Out: of each array its type, that of its storage where it has one.
"""

from __future__ import annotations

from ..frozen import frozen
from ..ir.rule import Rule
from ..ir.storages import STORAGES
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
    """

    type: str
    storage: str
    ctype: CType

    def load(self, code: str) -> str:
        """The value of the element `code` in the compute type."""
        return f"optgen_load_{self.storage}({code})" if self.storage else code

    def store(self, value: str) -> str:
        """What is written for a value of the compute type."""
        if not self.storage:
            return value
        return f"optgen_store_{self.storage}({value if self.ctype is SINGLE else f'(float){value}'})"


def memory_types(rule: Rule, ctype: CType) -> dict[str, MemoryType]:
    """Of each array of a lowered rule what its elements are in memory."""
    stored = dict(rule.storages)
    return {array: _of_storage(stored.get(array, ""), ctype) for array in rule.arrays}


def _of_storage(storage: str, ctype: CType) -> MemoryType:
    if not storage:
        return MemoryType(ctype.name, "", ctype)
    row = STORAGES[storage]
    return MemoryType(f"{row.dtypes[0]}_t", row.stem, ctype)
