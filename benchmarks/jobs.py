"""A measurement to take, and the environment of the process that takes it.

In: what to measure, on how many threads. Out: a `Job`, which travels as JSON, and the variables of its process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Job", "environment"]


@dataclass(frozen=True)
class Job:
    """`kind`: "steps" of a rule on a list of shapes beside peers, or one of the `experiments`."""

    kind: str = "steps"
    rule: str = ""
    shape: str = ""
    peers: list[str] = field(default_factory=list)
    rounds: int = 0

    def json(self) -> dict[str, Any]:
        return asdict(self)


def environment(threads: int) -> Mapping[str, str]:
    """What libraries read about threads, and a path on which the tools of this environment are found (ninja, which
    DeepSpeed compiles with)."""
    count = str(threads)
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    names = ("OPTGEN", "OMP", "MKL", "OPENBLAS", "NUMBA")
    return {**os.environ, **{f"{name}_NUM_THREADS": count for name in names}, "PATH": path}
