"""The interface between Python and compiled libraries.

In: `templates/c/abi.h`. Out: its version, and the instruction sets that kernels are compiled for.
"""

from __future__ import annotations

from ..paths import constant

__all__ = ["ABI", "ISAS"]

#: The version of the interface. A library with another one is not loaded.
ABI = constant("ABI")
#: Instruction sets, the best first; the last one is that of all processors other than x86-64.
ISAS = ("x86_64_v4", "x86_64_v3", "x86_64_v2", "baseline")
