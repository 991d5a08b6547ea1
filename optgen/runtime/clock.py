"""Clocks: the steps that the parameters of a plan take together, counted in memory that kernels count in.

In: the count of each parameter when a clock is begun. Out: how many steps there have been since.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

__all__ = ["Clock"]


class Clock:
    """Counts the steps of some parameters.

    Parameters
    ----------
    begun
        The count that each of them has now.
    small
        The address of the small states that are written with every count; 0 if there are none.

    Attributes
    ----------
    address
        Where the number of steps is.
    whole
        Whether no parameter has been given another count since.
    prepare, finish
        What Python does before a step, given whether it counts, and after its count; `finish` may be done again. None
        if there is nothing.
    """

    __slots__ = ("_steps", "address", "begun", "finish", "prepare", "small", "whole")

    def __init__(
        self,
        begun: Sequence[int],
        small: int = 0,
        *,
        prepare: Callable[[bool], None] | None = None,
        finish: Callable[[], None] | None = None,
    ) -> None:
        self.begun = begun
        self._steps = ctypes.c_int64(0)
        self.address = ctypes.addressof(self._steps)
        self.small = small
        self.whole = True
        self.prepare, self.finish = prepare, finish

    @property
    def n(self) -> int:
        """How many steps there have been."""
        return self._steps.value
