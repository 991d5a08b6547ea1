"""Measure one step of a rule: by optgen, by the peers that have the rule, and beside the memory limit.

In: a job of the kind "steps". Out: medians, quartiles and ratios by contestant. Nothing is timed before it has taken
the same eight steps as optgen, each with other gradients.
"""

from __future__ import annotations

import gc
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optgen.errors import CompilerError

from . import rules
from .contestant import Array, Contestant
from .jobs import Job
from .measure import ROUNDS, interleaved, summary
from .peers import PEERS, ours
from .shapes import SHAPES, Shapes
from .stream import Stream

__all__ = ["apart", "run", "trial"]

#: Factors of the gradients in the steps that are compared. There are more than the first five, in which RAdam differs.
TRIAL = (1.0, -0.5, 2.0, 0.25, -1.0, 1.5, 1.0, -0.75)
#: The difference allowed, relative to how far the parameters have moved, beside the rounding of float32.
TOLERANCE = 1e-4
#: The same for rules with norms and means: peers add up millions of float32 in float32, with an error of some 1e-4.
REDUCED = 1e-3
#: The most arrays, each as large as the parameters, that a contestant needs: with gradients, states, temporaries.
ARRAYS = 8


def run(job: Job, threads: int) -> dict[str, Any]:
    shapes = SHAPES[job.shape]
    notes = {key: why for key in job.peers if (why := PEERS[key].absent())}
    having = [key for key in job.peers if key not in notes and PEERS[key].has(job.rule)]
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    elements = sum(map(math.prod, shapes))
    optimiser = rules.make(job.rule)
    moved = rules.least_bytes(optimiser, shapes)
    stream = _stream(moved, notes)
    rounds = job.rounds or ROUNDS
    figures: dict[str, Any] = {}
    limits: dict[str, list[float]] = {"optgen": [], "stream": []}
    for group in _groups(having, elements):
        found = _times(job.rule, shapes, group, stream, rounds, notes)
        figures |= {name: summary(own, found["optgen"]) for name, own in found.items() if name not in limits}
        for name, all_times in limits.items():
            all_times += found.get(name, [])
    figures = {name: summary(own, limits["optgen"]) for name, own in limits.items() if own} | figures
    return {
        "rule": job.rule,
        "shape": job.shape,
        "tensors": len(shapes),
        "elements": elements,
        "bytes": moved,
        "sweeps": rules.sweeps(optimiser, len(shapes[0]) >= 2),
        "flops": rules.flops(optimiser),
        "rounds": rounds,
        "peers": job.peers,
        "contestants": figures,
        "notes": notes,
    }


def trial(contestant: Contestant, grads: Sequence[Array]) -> list[Array]:
    """The parameters after a few steps with gradients of several sizes and signs. The contestant has `grads` then."""
    for scale in TRIAL:
        contestant.take([g * np.float32(scale) for g in grads])
        contestant.step()
    contestant.take(grads)
    return [np.array(p) for p in contestant.params()]


def apart(there: Sequence[Array], here: Sequence[Array], start: Sequence[Array]) -> float:
    """The distance between two paths from `start` beyond rounding, relative to the length of the second; at least 0.

    It is a norm over all parameters: a sign that rounding turns makes any single element quite different.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        distance, length, size = (
            math.sqrt(sum(float(np.sum(np.square(a - b, dtype=np.float64))) for a, b in zip(left, right, strict=True)))
            for left, right in ((there, here), (here, start), (here, [np.float32(0)] * len(here)))
        )
    excess = distance - size * float(np.finfo(np.float32).eps)
    if excess <= 0:
        return 0.0
    return excess / length if length else excess  # NaN, where there is any


def _times(
    rule: str, shapes: Shapes, peers: Sequence[str], stream: Stream | None, rounds: int, notes: dict[str, str]
) -> dict[str, list[float]]:
    """The times of all contestants that take the same steps. Notes why the others have none."""
    rng = np.random.default_rng(0)
    params = [0.02 * rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    grads = [0.1 * rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    contestants = {"optgen": ours(rule, params)}
    path = trial(contestants["optgen"], grads)
    matrix = any(len(shape) >= 2 for shape in shapes)
    tolerance = REDUCED if rules.sweeps(rules.make(rule), matrix) > 1 else TOLERANCE
    for key in peers:
        try:
            contestant = PEERS[key].make(rule, params)
            difference = apart(trial(contestant, grads), path, params)
        except Exception as error:  # a peer may fail in any way
            words = str(error).strip().splitlines() or [""]
            notes[key] = f"failed: {type(error).__name__}: {words[0]}"
            continue
        if difference <= tolerance:
            contestants[key] = contestant
        else:
            notes[key] = f"takes other steps: after {len(TRIAL)} it is {difference:.2g} of the way apart from optgen"
    del path
    steps: dict[str, Callable[[], object]] = {name: each.step for name, each in contestants.items()}
    if stream:
        steps["stream"] = stream.run
    times = interleaved(steps, rounds)
    contestants.clear()
    steps.clear()
    gc.collect()
    return times


def _stream(moved: int, notes: dict[str, str]) -> Stream | None:
    try:
        return Stream(moved // 8)
    except CompilerError as error:
        notes["stream"] = error.message
        return None


def _groups(peers: Sequence[str], elements: int) -> Iterator[Sequence[str]]:
    """The peers in groups that fit into memory beside optgen and the stream."""
    room = _free_memory() * 3 // 4 // (4 * elements * ARRAYS) - 3
    size = max(1, min(room, len(peers)))
    for i in range(0, max(1, len(peers)), size):
        yield peers[i : i + size]


def _free_memory() -> int:
    """The bytes of memory that are free, without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
