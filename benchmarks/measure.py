"""Time several contestants in turn, so that what disturbs one of them disturbs the others as much.

In: a function for each contestant. Out: seconds, one value a round.

In a round each contestant has one turn: a pause, a few calls that are not timed, and as many timed calls as the clock
needs. In the pause the threads of the others go to sleep (OpenMP's spin for some milliseconds); the untimed calls fill
the caches again. Each round begins with another contestant. A ratio is the median over the rounds of the ratio within a
round. Ratios hold on other machines, and times do not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["PAUSE", "ROUNDS", "in_turns", "interleaved", "ratio", "summary"]

#: Odd, so that the median is one of the values.
ROUNDS = 11
#: Seconds between two turns.
PAUSE = 0.01
#: The least seconds of the timed calls of a turn: the clock is too coarse for one call of microseconds.
LEAST = 0.01
MOST_CALLS = 2000


def interleaved(
    steps: Mapping[str, Callable[[], object]],
    rounds: int = ROUNDS,
    *,
    before: Callable[[str], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """The seconds of a call, one value a round, for each contestant.

    Parameters
    ----------
    steps
        By name, the call that is timed.
    before
        Called with the contestant's name before every call, and not timed. A turn is a single call then.
    clock
        What tells the seconds of a turn.
    """
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
            start = clock()
            for _ in range(calls[name]):
                step()
            times[name].append((clock() - start) / calls[name])
    return times


def in_turns(first: Callable[[], float], second: Callable[[], float], rounds: int) -> tuple[float, float, float]:
    """The median seconds that each of two calls says of itself, and the median of second ÷ first within a round. A
    round before the others binds what is stepped, and is not counted."""
    pairs = [(first(), second()) for _ in range(rounds + 1)][1:]
    ours, others = (list(times) for times in zip(*pairs, strict=True))
    return statistics.median(ours), statistics.median(others), ratio(others, ours)


def _calls(step: Callable[[], object]) -> int:
    """The number of calls in a turn. The first calls here touch the memory and wake the threads."""
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
    """The median seconds of a contestant, their quartiles, and the ratio to ours."""
    low, _, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    return {"seconds": statistics.median(times), "quartiles": [low, high], "ratio": ratio(times, ours)}
