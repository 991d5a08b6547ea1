"""What a step may use of this machine: its instruction set and its number of threads.

In: the environment and the limits of this process. Out: a name and a number.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ..errors import ArgumentError

__all__ = ["choose_isa", "processors", "threads"]


MOST_THREADS = 256


def choose_isa(usable: Sequence[str]) -> str:
    """The best instruction set, or the one that OPTGEN_ISA names."""
    wanted = os.environ.get("OPTGEN_ISA", "")
    if not wanted:
        return usable[0]
    if wanted not in usable:
        message = f"OPTGEN_ISA: expected one of {', '.join(usable)} on this processor, got {wanted[:40]!r}"
        raise ArgumentError(message, hint="unset it for the best one")
    return wanted


def threads() -> int:
    """How many threads a step may use: OPTGEN_NUM_THREADS, or the processors that this process may run on."""
    wanted = os.environ.get("OPTGEN_NUM_THREADS", "")
    return _available() if not wanted else _thread_count(wanted)


@cache
def _thread_count(wanted: str) -> int:
    if not wanted.isdecimal() or len(wanted.lstrip("0")) > 3 or not 1 <= int(wanted) <= MOST_THREADS:
        message = f"OPTGEN_NUM_THREADS: expected a whole number from 1 to {MOST_THREADS}, got {wanted[:40]!r}"
        raise ArgumentError(message, hint="unset it for one thread a processor")
    return int(wanted)


def processors() -> int:
    """The processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _available() -> int:
    """Processors by affinity, and by the quota of the control group, rounded up."""
    affinity = processors()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        limit = math.ceil(int(quota) / int(period)) if quota != "max" else affinity
    except (OSError, ValueError):
        limit = affinity
    return max(1, min(affinity, limit))
