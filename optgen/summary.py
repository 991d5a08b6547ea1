"""What a rule costs and how exact it is, read off its IR. In: a rule. Out: numbers and words for `optgen list` and
`optgen show`.

Pure functions; how the numbers are laid out is the business of `cli`.
"""

from __future__ import annotations

from .ir import Call, Extent, Rule, loads, walk
from .ops import OPS

__all__ = ["EXACT", "bytes_moved", "exactness", "inexact"]

EXACT = "exact: equal to the interpreter bit for bit"


def bytes_moved(lowered: Rule, itemsize: int) -> int:
    """Bytes that a step of the lowered rule reads and writes for every element, of `itemsize` bytes each.

    This, and not the arithmetic, is what a step costs on tensors that no cache holds.
    """
    return (len(loads(lowered)) + len(lowered.stores)) * itemsize


def inexact(rule: Rule) -> dict[str, int]:
    """The primitives of elements that no library rounds correctly, each with its bound in ulps.

    Not those of a step (`beta**t`): interpreter and kernel take these from the same place, so they have the same bits.
    """
    calls = [e for a in rule.body for e in walk(a.value) if isinstance(e, Call) and e.extent is Extent.ELEMENT]
    return {call.op: OPS[call.op].ulps for call in calls if not OPS[call.op].exact}


def exactness(rule: Rule) -> str:
    """How near the kernel of `rule` is to the interpreter, in words."""
    bounds = [f"{op} within {ulps} ulps" for op, ulps in inexact(rule).items()]
    return f"inexact: {', '.join(bounds)}; all else is exact" if bounds else EXACT
