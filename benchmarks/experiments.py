"""What a comparison of single steps does not show: more threads, more tensors, and work of others between steps."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from . import rules
from .measure import ROUNDS, interleaved, ratio
from .shapes import SHAPES
from .worker import Job

__all__ = ["run"]

SMALL = 64
FEW, MANY = 10, 10_000
#: Side of the matrices of a product, which then takes some milliseconds on all threads.
SIDE = 1024


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
    """A product of matrices with the threads of its own library: before optgen has started any, and between steps."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIDE, SIDE), dtype=np.float32) for _ in range(2))
    into = np.empty_like(a)
    products: dict[str, Callable[[], object]] = {"numpy": lambda: np.matmul(a, b, out=into)}
    try:
        import torch
    except ImportError:
        pass
    else:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        x, y = torch.from_numpy(a), torch.from_numpy(b)
        z = torch.empty_like(x)
        products["torch"] = lambda: torch.matmul(x, y, out=z)
    alone = {name: _products(each, rounds, lambda: None) for name, each in products.items()}
    opt, params, grads = _model(job.rule, SHAPES[job.shape])
    opt.step(params, grads)  # the threads are there from now on
    between = {name: _products(each, rounds, lambda: opt.step(params, grads)) for name, each in products.items()}
    return {"rule": job.rule, "shape": job.shape, "alone": alone, "between": between}


def _products(run: Callable[[], object], rounds: int, step: Callable[[], object]) -> float:
    """The median seconds of a product with a step before each, which is not timed."""
    times = []
    for _ in range(3 + 10 * rounds):
        step()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])
