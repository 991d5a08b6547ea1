"""Intervals: the values that a hyperparameter may take.

In: two ends, each of which belongs to it or does not. Out: which numbers are within, and words for messages.
"""

from __future__ import annotations

import math

from ..frozen import frozen

__all__ = ["Interval"]


@frozen
class Interval:
    """The values that a hyperparameter may take.

    `[0, 1)` is closed below and open above; `[1, inf), whole` has whole numbers only.
    """

    low: float
    high: float
    low_closed: bool
    high_closed: bool
    whole: bool = False

    def __contains__(self, x: float) -> bool:
        above = self.low <= x if self.low_closed else self.low < x
        below = x <= self.high if self.high_closed else x < self.high
        return above and below and (not self.whole or math.isinf(x) or x == math.floor(x))

    def __str__(self) -> str:
        return f"{self._ends}{', whole' * self.whole}"

    @property
    def words(self) -> str:
        """What is expected, in words for a message."""
        return f"a whole number in {self._ends}" if self.whole else f"a value in {self._ends}"

    @property
    def _ends(self) -> str:
        ends = ("[" if self.low_closed else "(", "]" if self.high_closed else ")")
        return f"{ends[0]}{self.low:g}, {self.high:g}{ends[1]}"
