"""A line for whoever waits for the compiler.

In: words, and work that may take long. Out: a line with a spinner on a terminal; nothing anywhere else.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["PATIENCE", "announced"]

#: How many seconds pass in silence.
PATIENCE = 1.0


@contextmanager
def announced(words: str) -> Iterator[None]:
    """Show `words` with a spinner on the standard error while the body runs, once it has run for longer than PATIENCE;
    only where the standard error is a terminal. The line is gone when the body ends."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()

    def show() -> None:
        if not ended.wait(PATIENCE):
            from rich.console import Console

            with Console(stderr=True).status(words):
                ended.wait()

    thread = threading.Thread(target=show, name="optgen waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
