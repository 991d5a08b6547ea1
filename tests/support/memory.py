"""Memory that does not grow, however often a thing is done."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

__all__ = ["expect_bounded"]


def expect_bounded(act: Callable[[], object], few: int, many: int) -> None:
    """Assert that what is allocated after `few` calls has not doubled after `many` more."""

    def kept(calls: int) -> int:
        for _ in range(calls):
            act()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    act()  # what is imported and compiled once does not count
    tracemalloc.start()
    try:
        first, last = kept(few), kept(many)
    finally:
        tracemalloc.stop()
    assert last < 2 * first
