"""Times of several contestants, taken in turn: what disturbs one of them disturbs the others as much.

In a round each has its turn once, and begins it anew: a pause, in which the threads of the others go to sleep (OpenMP's
spin for some milliseconds after their work), a few calls that are not timed, in which what fits into the caches comes
there again, then as many as it takes for the clock to be exact. Each round begins with another contestant. A ratio of
two is the median over the rounds of the ratio within a round; it holds on other machines, times do not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["PAUSE", "ROUNDS", "interleaved", "ratio", "summary"]

#: More than nine, and odd, so that the median is one of them.
ROUNDS = 11
#: Seconds between two turns.
PAUSE = 0.01
#: Seconds that the timed calls of a turn take at least, so that a call of microseconds is not drowned by the clock.
LEAST = 0.01
MOST_CALLS = 2000


def interleaved(
    steps: Mapping[str, Callable[[], object]],
    rounds: int = ROUNDS,
    *,
    before: Callable[[str], object] | None = None,
) -> dict[str, list[float]]:
    """Seconds of a call of each of `steps`, one value a round. `before`: what is called, not timed, before every timed
    call, with the contestant's name; then a turn is a single call."""
    calls = {name: 1 if before else _calls(step) for name, step in steps.items()}
    names = list(steps)
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(rounds):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            step = steps[name]
            time.sleep(PAUSE)
            for _ in range(max(1, calls[name] // 4)):
                if before:
                    before(name)
                step()
            if before:
                before(name)
            start = time.perf_counter()
            for _ in range(calls[name]):
                step()
            times[name].append((time.perf_counter() - start) / calls[name])
    return times


def _calls(step: Callable[[], object]) -> int:
    """How many calls make a turn. The first ones touch the memory and wake the threads."""
    fastest = LEAST
    for _ in range(3):
        start = time.perf_counter()
        step()
        fastest = min(fastest, time.perf_counter() - start)
    return max(1, min(MOST_CALLS, round(LEAST / fastest)))


def ratio(times: list[float], to: list[float]) -> float:
    """The median of the ratios of the rounds."""
    return statistics.median(a / b for a, b in zip(times, to, strict=True))


def summary(times: list[float], ours: list[float]) -> dict[str, Any]:
    """Of one contestant: the median of its seconds, the quartiles, and by how much it is slower than ours."""
    low, _, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    return {"seconds": statistics.median(times), "quartiles": [low, high], "ratio": ratio(times, ours)}
