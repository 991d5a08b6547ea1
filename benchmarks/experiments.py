"""What a comparison of single steps does not show: more threads, more tensors, and work of others between steps."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from optgen.kernel import SERIAL

from . import rules
from .measure import PAUSE, ROUNDS, interleaved, ratio
from .shapes import SHAPES
from .worker import Job

__all__ = ["run", "serve"]

SMALL = 64
FEW, MANY = 10, 10_000
#: Side of the matrices of a product, which then takes some milliseconds on all threads.
SIDE = 1024
#: How many products make a turn.
TURN = 7

_CHILD = "from optgen.resources import benchmarks; benchmarks('experiments').serve()"


def run(job: Job) -> dict[str, Any]:
    kinds: dict[str, Callable[[Job, int], dict[str, Any]]] = {
        "threads": threads, "tensors": tensors, "product": product,
    }  # fmt: skip
    return kinds[job.kind](job, job.rounds or ROUNDS)


def _model(rule: str, shapes: list[tuple[int, ...]]) -> tuple[Any, list[Any], list[Any]]:
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    return rules.make(rule), params, [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


def threads(job: Job, rounds: int) -> dict[str, Any]:
    """A step on one thread and on two. An optimiser keeps the number that there was when it first stepped a list."""
    steps: dict[str, Callable[[], object]] = {}
    before = os.environ.get("OPTGEN_NUM_THREADS", "")
    for count in ("1", "2"):
        os.environ["OPTGEN_NUM_THREADS"] = count
        opt, params, grads = _model(job.rule, SHAPES[job.shape])
        opt.step(params, grads)
        steps[count] = lambda opt=opt, params=params, grads=grads: opt.step(params, grads)  # type: ignore[misc]
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
    """A product of matrices with the threads of its own library: in a process that has none of optgen's, and in this
    one with a step before each. The two have turns, so that a busy machine is as busy for both."""
    opt, params, grads = _model(job.rule, [(SERIAL * 5 // 4,)])  # for several threads, and little of the cache
    products = _products()
    times: dict[str, dict[str, list[float]]] = {name: {"alone": [], "between": []} for name in products}
    command, pipe = [sys.executable, "-c", _CHILD], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, encoding="utf-8") as other:
        assert other.stdin is not None
        assert other.stdout is not None
        for _ in range(rounds + 1):
            for name, run_ in products.items():
                print(name, SIDE, file=other.stdin, flush=True)
                times[name]["alone"].append(float(other.stdout.readline()))
                times[name]["between"].append(_turn(run_, lambda: opt.step(params, grads)))
        other.stdin.close()
    found = {name: {key: each[1:] for key, each in own.items()} for name, own in times.items()}  # less the warm-up
    return {
        "rule": job.rule,
        "alone": {name: statistics.median(own["alone"]) for name, own in found.items()},
        "between": {name: statistics.median(own["between"]) for name, own in found.items()},
        "ratio": {name: ratio(own["alone"], own["between"]) for name, own in found.items()},
    }


def serve() -> None:
    """Of each product that a line of the standard input names, with its side: the seconds, in a line."""
    products: dict[str, Callable[[], object]] = {}
    for line in sys.stdin:
        name, side = line.split()
        products = products or _products(int(side))
        print(_turn(products[name], lambda: None), flush=True)


def _products(side: int = 0) -> dict[str, Callable[[], object]]:
    """By library: a product of square matrices."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((side or SIDE,) * 2, dtype=np.float32) for _ in range(2))
    into = np.empty_like(a)
    products: dict[str, Callable[[], object]] = {"numpy": lambda: np.matmul(a, b, out=into)}
    try:
        import torch
    except ImportError:
        return products
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    z = torch.empty_like(x)
    return products | {"torch": lambda: torch.matmul(x, y, out=z)}


def _turn(run: Callable[[], object], step: Callable[[], object]) -> float:
    """The median seconds of a few products with a step before each, which is not timed."""
    time.sleep(PAUSE)
    times = []
    for _ in range(TURN):
        step()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
