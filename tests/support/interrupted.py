"""Interrupts at every point at which Python lets a handler of signals run, one after the other."""

from __future__ import annotations

import dis
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from optgen.paths import PACKAGE

__all__ = ["Interrupted", "each_point", "interrupted"]

#: Behind these operations, and where a function begins, Python runs handlers of signals.
_OPERATIONS = ("CALL", "JUMP_BACKWARD")
#: Where a step is done; what is only computed elsewhere changes nothing.
_WINGS = tuple(str(PACKAGE / wing) for wing in ("runtime", "optimiser", "torch"))


class Interrupted(BaseException):
    """What a handler raises."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


def interrupted(work: Callable[[], object], at: int) -> bool:
    """Runs `work`, and sends a signal at point number `at`, whose handler raises `Interrupted`; whether there is such a
    point."""
    passed = -1
    last: dict[FrameType, int] = {}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal passed
        if not frame.f_code.co_filename.startswith(_WINGS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        before = last.get(frame)
        if event == "opcode":
            last[frame] = frame.f_lasti
        behind = event == "opcode" and before is not None
        if event == "call" or (behind and dis.opname[frame.f_code.co_code[before or 0]].startswith(_OPERATIONS)):
            passed += 1
            if passed == at:
                signal.raise_signal(signal.SIGUSR1)
        return trace

    usual, handler = sys.gettrace(), signal.signal(signal.SIGUSR1, _interrupt)
    gc.disable()  # finalisers have points of their own
    sys.settrace(trace)
    try:
        work()
    except Interrupted:
        pass
    finally:
        sys.settrace(usual)
        signal.signal(signal.SIGUSR1, handler)
        gc.enable()
    return passed >= at


def each_point(make: Callable[[], Any], work: Callable[[Any], object], every: int = 1) -> Iterator[Any]:
    """For each point, or every so many: what `make` gives, after `work` with it was interrupted there."""
    at = 0
    while True:
        made = make()
        if not interrupted(lambda made=made: work(made), at):  # type: ignore[misc]
            return
        yield made
        at += every
