"""Threads for the steps: PyTorch's own, where they can be had.

In: the settings of PyTorch and OPTGEN_NUM_THREADS. Out: how many threads a step may use, and whose.

PyTorch's threads are still awake after the backward pass. Beside a second pool they would hold the processors for some
milliseconds, looking for work.
"""

from __future__ import annotations

import ctypes
import os

import torch

from ..runtime import machine
from ..runtime.binding import Team
from .tensors import library_of_torch

__all__ = ["threads"]


def _found() -> Team | None:
    """The threads of the OpenMP that PyTorch was linked with, if it calls them as GNU's does."""
    try:
        library = library_of_torch("torch_global_deps")
        calls = library.GOMP_parallel, library.omp_get_thread_num
    except (OSError, AttributeError):
        return None
    parallel, number = (ctypes.cast(call, ctypes.c_void_p).value for call in calls)
    return Team(parallel, number) if parallel and number else None


_TEAM = _found()


def threads() -> tuple[int, Team | None]:
    """How many threads a step may use: OPTGEN_NUM_THREADS, or as many as PyTorch does; and whose they are. A team of
    another size than PyTorch's would have its threads end and start again with every step."""
    own = torch.get_num_threads()
    wanted = machine.threads() if os.environ.get("OPTGEN_NUM_THREADS") else own
    return wanted, _TEAM if wanted == own else None
