"""Threads for the steps: PyTorch's own, where they can be had.

In: the settings of PyTorch and OPTGEN_NUM_THREADS. Out: how many threads a step may use, and whose.

PyTorch's threads are still awake after the backward pass. Beside a second pool they would hold the processors for some
milliseconds, looking for work.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from functools import cache

import torch

from ..runtime import machine
from ..runtime.binding import Team
from .tensors import library_of_torch

__all__ = ["SLEEP", "team_fault", "threads"]


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


def team_fault() -> str:
    """Why steps run on other threads than PyTorch's, which hold the processors meanwhile; empty if none do.

    PyTorch's threads sleep between their work if OMP_WAIT_POLICY says so.
    """
    passive = os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive"
    if _TEAM or passive or torch.get_num_threads() == 1:
        return ""
    return f"PyTorch {torch.__version__} has no GNU OpenMP, on whose threads steps could run"


#: What helps then.
SLEEP = "set OMP_WAIT_POLICY=passive before the program starts, so that PyTorch's threads sleep when they have no work"


@cache
def _warn(fault: str) -> None:
    message = f"optgen.torch: large steps may wait for PyTorch's threads, each for some milliseconds: {fault}; {SLEEP}"
    warnings.warn(message, RuntimeWarning, stacklevel=3)


def threads() -> tuple[int, Team | None]:
    """How many threads a step may use: OPTGEN_NUM_THREADS, or as many as PyTorch does; and whose they are. A team of
    another size than PyTorch's would have its threads end and start again with every step."""
    own = torch.get_num_threads()
    wanted = machine.threads() if os.environ.get("OPTGEN_NUM_THREADS") else own
    if wanted > 1 and (fault := team_fault()):
        _warn(fault)
    return wanted, _TEAM if wanted == own else None
