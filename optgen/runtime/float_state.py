"""The floating-point state in which the host computes scalars: that of kernels, whatever the program's own is.

In: a step. Out: the same step, with numbers rounded to the nearest and denormals honoured.

A program may round in another direction (`fesetround`) or flush denormals to zero; libraries that are compiled with
`-ffast-math` leave that behind. Kernels have a state of their own; what is computed for them has the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .library import Runtime

__all__ = ["kernel_state", "rounds_to_nearest"]

_ONE, _NEXT = 1.0, 1.0 + 2.0**-52
_QUARTER, _THREE_QUARTERS = 2.0**-54, 3 * 2.0**-54
_SMALLEST_NORMAL, _HALF = 2.0**-1022, 0.5


def rounds_to_nearest() -> bool:
    """Whether this thread rounds to the nearest and honours denormals, by sums that come out otherwise if not: a
    quarter and three quarters of the last place of 1 make one place of it."""
    return _ONE + _QUARTER + _THREE_QUARTERS == _NEXT and _SMALLEST_NORMAL * _HALF != 0.0


@contextmanager
def kernel_state(runtime: Runtime) -> Iterator[None]:
    """In the body, this thread computes as kernels do."""
    before = runtime.library.optgen_enter()
    try:
        yield
    finally:
        runtime.library.optgen_leave(before)
