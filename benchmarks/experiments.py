"""Measure what single steps do not show: more threads, more tensors, and other work between steps.

In: a job of the kind "threads", "tensors" or "product". Out: its medians and ratios.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from optgen.runtime.binding import SERIAL

from . import rules
from .jobs import Job
from .measure import ROUNDS, interleaved, ratio
from .shapes import SHAPES

__all__ = ["run", "serve"]

SMALL = 64
FEW, MANY = 10, 10_000
#: The side of the matrices of a product. One product takes some milliseconds on all threads.
SIDE = 1024
#: What is stepped between products: enough to need several threads, and small beside the cache.
BETWEEN = [(SERIAL * 5 // 4,)]
#: Seconds to wait before a turn. The threads of OpenBLAS look for work for a tenth of a second.
REST = 0.2
#: The number of products in a turn.
TURN = 7

_CHILD = "from optgen.paths import benchmarks; benchmarks('experiments').serve()"


def run(job: Job) -> dict[str, Any]:
    kinds: dict[str, Callable[[Job, int], dict[str, Any]]] = {
        "threads": threads, "tensors": tensors, "product": product,
    }  # fmt: skip
    return kinds[job.kind](job, job.rounds or ROUNDS)


def _arrays(shapes: list[tuple[int, ...]]) -> tuple[list[Any], list[Any]]:
    """Parameters and gradients."""
    rng = np.random.default_rng(0)
    params, grads = ([rng.standard_normal(shape, dtype=np.float32) for shape in shapes] for _ in range(2))
    return params, grads


def _model(rule: str, shapes: list[tuple[int, ...]]) -> tuple[Any, list[Any], list[Any]]:
    return rules.make(rule), *_arrays(shapes)


def threads(job: Job, rounds: int) -> dict[str, Any]:
    """A step of the same parameters on one thread and on two. An optimiser keeps the number of threads of its first
    step."""
    params, grads = _arrays(SHAPES[job.shape])
    steps: dict[str, Callable[[], object]] = {}
    before = os.environ.get("OPTGEN_NUM_THREADS", "")
    for count in ("1", "2"):
        os.environ["OPTGEN_NUM_THREADS"] = count
        opt = rules.make(job.rule)
        opt.step(params, grads)
        steps[count] = lambda opt=opt: opt.step(params, grads)  # type: ignore[misc]
    os.environ["OPTGEN_NUM_THREADS"] = before
    times = interleaved(steps, rounds)
    seconds = {count: statistics.median(each) for count, each in times.items()}
    return {"rule": job.rule, "shape": job.shape, "seconds": seconds, "ratio": ratio(times["1"], times["2"])}


def tensors(job: Job, rounds: int) -> dict[str, Any]:
    """The cost of each further small tensor: with the gradient arrays of the step before, and with new ones in every
    step. The new arrays are made outside the timed part."""
    models = {count: _model(job.rule, [(SMALL,)] * count) for count in (FEW, MANY)}
    given = {count: grads for count, (_, _, grads) in models.items()}

    def step(count: int) -> Callable[[], None]:
        opt, params, _ = models[count]
        return lambda: opt.step(params, given[count])

    def renew(name: str) -> None:
        given[int(name)] = [g.copy() for g in models[int(name)][2]]

    steps = {str(count): step(count) for count in models}
    same = interleaved(steps, rounds)
    # A step on ten tensors takes microseconds, so it needs many rounds.
    new = interleaved(steps, 3 * rounds, before=renew)
    return {
        "rule": job.rule,
        "same": _further(same),
        "new": _further(new),
    }


def _further(times: dict[str, list[float]]) -> float:
    """The seconds that one more tensor takes."""
    few, many = (statistics.median(times[str(count)]) for count in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def product(job: Job, rounds: int) -> dict[str, Any]:
    """A product of matrices by another library, after a step on as many threads and after a step on one.

    On one thread, no threads of optgen's can disturb the product. Each case has a process of its own, since libraries
    leave threads behind that look for work. The two take turns, so that a busy machine is equally busy for both.
    """
    threads = {"alone": "1", "between": os.environ["OPTGEN_NUM_THREADS"]}
    times: dict[str, dict[str, list[float]]] = {}
    for library in [name for name in _PRODUCTS if importlib.util.find_spec(name)]:
        with ExitStack() as stack:
            asked = {key: stack.enter_context(_asked(job.rule, library, count)) for key, count in threads.items()}
            turns = [{key: ask() for key, ask in asked.items()} for _ in range(rounds + 1)]
        times[library] = {key: [turn[key] for turn in turns[1:]] for key in threads}  # less the warm-up
    return {
        "rule": job.rule,
        "alone": {name: statistics.median(own["alone"]) for name, own in times.items()},
        "between": {name: statistics.median(own["between"]) for name, own in times.items()},
        "ratio": {name: ratio(own["alone"], own["between"]) for name, own in times.items()},
    }


@contextmanager
def _asked(rule: str, library: str, threads: str) -> Iterator[Callable[[], float]]:
    """A function that asks a process, in which optgen has this many threads, for the seconds of a product."""
    environment, pipe = {**os.environ, "OPTGEN_NUM_THREADS": threads}, subprocess.PIPE
    command = [sys.executable, "-c", _CHILD, rule, library, str(SIDE)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, encoding="utf-8", env=environment) as other:
        given, answer = other.stdin, other.stdout
        assert given is not None
        assert answer is not None

        def ask() -> float:
            print(file=given, flush=True)
            return float(answer.readline())

        yield ask
        given.close()


def serve() -> None:
    """Answer each line of the standard input with the seconds of a product after a step.

    The arguments of the command are the rule, the library and the side of the matrices.
    """
    rule, library, side = sys.argv[1:]
    run_ = _PRODUCTS[library](int(side))
    opt, params, grads = _model(rule, BETWEEN)
    for _ in range(2):  # start all threads
        opt.step(params, grads)
        run_()
    _tell_apart()
    for _ in sys.stdin:
        print(_turn(run_, lambda: opt.step(params, grads)), flush=True)


def _matrices(side: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((side, side), dtype=np.float32) for _ in range(2))
    return a, b, np.empty_like(a)


def _of_numpy(side: int) -> Callable[[], object]:
    a, b, into = _matrices(side)
    return lambda: np.matmul(a, b, out=into)


def _of_torch(side: int) -> Callable[[], object]:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    a, b, into = map(torch.from_numpy, _matrices(side))
    return lambda: torch.matmul(a, b, out=into)


#: By library, a product of two square matrices of a given side.
_PRODUCTS = {"numpy": _of_numpy, "torch": _of_torch}


def _tell_apart() -> None:
    """Bind the main thread to one processor and all other threads to the rest, on Linux.

    Otherwise some systems wake a thread on a busy processor and leave it waiting there while another one is idle.
    """
    tasks = Path("/proc/self/task")
    processors = sorted(os.sched_getaffinity(0)) if tasks.exists() else []
    for task in tasks.iterdir() if len(processors) > 1 else ():
        own = int(task.name) == os.getpid()
        with suppress(ProcessLookupError):  # the thread has ended
            os.sched_setaffinity(int(task.name), processors[:1] if own else processors[1:])


def _turn(run: Callable[[], object], step: Callable[[], object]) -> float:
    """The median seconds of a few products, each after a step that is not timed."""
    time.sleep(REST)
    times = []
    for _ in range(TURN):
        step()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
