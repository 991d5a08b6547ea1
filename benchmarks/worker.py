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

from .jobs import Job

__all__ = ["main"]


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
