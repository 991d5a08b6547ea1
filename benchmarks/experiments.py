"""What a comparison of single steps does not show: more threads, more tensors, and work of others between steps."""

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
#: Side of the matrices of a product, which then takes some milliseconds on all threads.
SIDE = 1024
#: What is stepped between products: enough for several threads, and little of the cache.
BETWEEN = [(SERIAL * 5 // 4,)]
#: Seconds until the threads of OpenBLAS no longer look for work, as they do for a tenth of one.
REST = 0.2
#: How many products make a turn.
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
    """A step on one thread and on two, of the same parameters. An optimiser keeps the number of threads that there was
    when it first stepped a list."""
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
    """What a step takes for each further tensor of a few elements: with the gradients of the step before, and with new
    arrays in every step, which are made while no clock runs."""
    models = {count: _model(job.rule, [(SMALL,)] * count) for count in (FEW, MANY)}
    given = {count: grads for count, (_, _, grads) in models.items()}

    def step(count: int) -> Callable[[], None]:
        opt, params, _ = models[count]
        return lambda: opt.step(params, given[count])

    def renew(name: str) -> None:
        given[int(name)] = [g.copy() for g in models[int(name)][2]]

    steps = {str(count): step(count) for count in models}
    same = interleaved(steps, rounds)
    # A single step on ten tensors is a matter of microseconds, so it takes many rounds.
    new = interleaved(steps, 3 * rounds, before=renew)
    return {
        "rule": job.rule,
        "same": _further(same),
        "new": _further(new),
    }


def _further(times: dict[str, list[float]]) -> float:
    """Seconds of a further tensor."""
    few, many = (statistics.median(times[str(count)]) for count in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def product(job: Job, rounds: int) -> dict[str, Any]:
    """A product of matrices with the threads of its own library, after a step on as many threads, and after a step on
    one, where there are none of optgen's to disturb it. Each has a process of its own, for libraries leave threads
    behind that look for work; and the two have turns, so that a busy machine is as busy for both."""
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
    """A function that asks a process with so many threads of optgen for the seconds of a product."""
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
    """For each line of the standard input: the seconds of a product after a step, in a line. In the arguments: the
    rule, the library, the side of the matrices."""
    rule, library, side = sys.argv[1:]
    run_ = _PRODUCTS[library](int(side))
    opt, params, grads = _model(rule, BETWEEN)
    for _ in range(2):  # all threads are there then
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


#: By library: a product of square matrices of some side.
_PRODUCTS = {"numpy": _of_numpy, "torch": _of_torch}


def _tell_apart() -> None:
    """Binds the main thread of this process to one processor, and all others to the rest: some systems wake a thread
    on the processor of another, and leave it there, waiting, while one is idle. Only on Linux."""
    tasks = Path("/proc/self/task")
    processors = sorted(os.sched_getaffinity(0)) if tasks.exists() else []
    for task in tasks.iterdir() if len(processors) > 1 else ():
        own = int(task.name) == os.getpid()
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(task.name), processors[:1] if own else processors[1:])


def _turn(run: Callable[[], object], step: Callable[[], object]) -> float:
    """The median seconds of a few products with a step before each, which is not timed."""
    time.sleep(REST)
    times = []
    for _ in range(TURN):
        step()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
