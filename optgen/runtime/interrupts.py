"""Interrupts: what a handler of signals raises in the middle of a step or a load is raised when that is through.

Python runs handlers of signals between any two operations of the main thread, and what they raise, such as a
KeyboardInterrupt, breaks off whatever runs. One call of C is not broken off. Work of several calls is written so that
it may be begun anew, and goes on from where it was. What cannot be begun anew, such as what processes do together, has
signals wait.
"""

from __future__ import annotations

import _signal  # the functions of `signal` without enumerations, which take most of their time
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

__all__ = ["to_its_end", "undisturbed"]

T = TypeVar("T")

_NUMBERS = tuple(map(int, _signal.valid_signals()))
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


def undisturbed(work: Callable[[], T]) -> T:
    """What `work` gives. Handlers of the signals that come meanwhile run after it."""
    if threading.current_thread() is not threading.main_thread():  # where no handlers run
        return work()
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    came: list[tuple[int, FrameType | None]] = []
    try:
        for number in _NUMBERS:
            handler = _signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                _signal.signal(number, lambda *signalled: came.append(signalled))
        return work()
    finally:
        for number, handler in handlers.items():
            _signal.signal(number, handler)
        for number, frame in came:
            handlers[number](number, frame)
