"""The process that measures: one for each number of threads, kept to as many processors.

In: the jobs, as JSON on the standard input. Out: JSON on the standard output, a line for each job as it is done. What
peers print goes to the standard error.

Libraries read their number of threads when they are loaded, and XLA takes a thread for each processor that the process
may run on. So the number is set from outside, before anything is imported.
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
