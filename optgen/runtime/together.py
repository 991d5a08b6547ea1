"""Steps of several engines as one: all are checked before one of them changes anything.

In: engines, and what steps each. Out: what the steps gave; or the error of the first that is refused, and then nothing
has changed.

The steps are nested: where the first has checked everything, it calls the second, and so on. So the last one changes
its parameters first. What is refused later than that, by an array library's own loop or for want of memory, leaves
those behind it stepped: who may be refused so late comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .engine import StepEngine
from .interrupts import undisturbed

__all__ = ["step_together"]


class _Refused(Exception):
    """Carries the error of a step out of those that it is nested in, which are not to handle it as one of theirs."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


def step_together(
    steps: Sequence[tuple[StepEngine, Callable[[], Any]]], then: Callable[[], None] | None = None
) -> list[Any]:
    """What these steps give, each with the engine that it steps. Signals wait until all are through. `then`: what is
    called where all is checked, and may refuse all."""
    results: list[Any] = [None] * len(steps)

    def step(i: int) -> None:
        if i == len(steps):
            return then() if then is not None else None
        engine, run = steps[i]
        engine.when_checked = partial(step, i + 1)
        try:
            results[i] = run()
            engine.checked()  # where no list was stepped
        except _Refused:
            raise
        except BaseException as error:
            raise _Refused(error) from None
        finally:
            engine.when_checked = None

    try:
        undisturbed(lambda: step(0))
    except _Refused as refused:
        error = refused.error
    else:
        return results
    raise error
