"""Binding: from arrays to one call of a compiled kernel. In: a kernel library and arrays that `arrays` has accepted.

A `Binding` is a table of pointers that stays valid while the arrays live; who holds it must see to that.
"""

from __future__ import annotations

__all__ = ["ABI", "ISAS"]


ABI = 4
#: Instruction sets, the best first; the last one is that of all other processors than x86-64.
ISAS = ("x86_64_v4", "x86_64_v3", "x86_64_v2", "baseline")
