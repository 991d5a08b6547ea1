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
    """A measurement: of the kind "steps", a rule on a list of shapes beside peers; or one of the `experiments`."""

    kind: str = "steps"
    rule: str = ""
    shape: str = ""
    peers: list[str] = field(default_factory=list)
    rounds: int = 0

    def json(self) -> dict[str, Any]:
        return asdict(self)


def environment(threads: int) -> Mapping[str, str]:
    """The environment of a process on so many threads.

    It has the variables from which libraries read that number, and a path with the tools of this Python environment:
    DeepSpeed compiles with its ninja.
    """
    count = str(threads)
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    names = ("OPTGEN", "OMP", "MKL", "OPENBLAS", "NUMBA")
    return {**os.environ, **{f"{name}_NUM_THREADS": count for name in names}, "PATH": path}
