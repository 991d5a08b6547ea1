"""Interrupts: what a handler of signals raises in the middle of a step is raised when the step is through.

Python runs handlers of signals between any two operations of the main thread, and what they raise, such as a
KeyboardInterrupt, breaks off whatever runs. One call of C is not broken off. Work of several calls is written so that
it may be begun anew, and goes on from where it was.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["to_its_end"]

#: How often work is begun anew. More interrupts than that come from the work itself.
_MOST = 8


def to_its_end(work: Callable[[], bool]) -> bool:
    """What `work` gives, which may be begun anew at any point, and then goes on. What broke it off is raised after
    it."""
    raised: BaseException | None = None
    for _ in range(_MOST):
        try:
            done = work()
        except BaseException as error:
            raised = error
        else:
            if raised is None:
                return done
            break
    assert raised is not None
    raise raised
