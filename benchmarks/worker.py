"""The process in which things are timed: one for each number of threads, kept to as many processors.

Libraries read how many threads they may take when they are loaded, and XLA takes a thread for each processor that the
process may run on; so the number is set from outside, before anything is imported. In: the jobs, as JSON on the
standard input. Out: JSON on the standard output, a line for each job when it is done. Whatever the peers print goes to
the standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Job", "environment", "main"]


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


def main() -> None:
    given = json.load(sys.stdin)
    threads = given["threads"]
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    from . import experiments, steps

    for fields in given["jobs"]:
        job = Job(**fields)
        result = steps.run(job, threads) if job.kind == "steps" else experiments.run(job)
        print(json.dumps({"kind": job.kind, "threads": threads, **result}), file=out, flush=True)
