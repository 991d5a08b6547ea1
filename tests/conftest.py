"""What holds for all tests: the option that writes the golden C anew, and a garbage collector with little to do."""

from __future__ import annotations

import gc

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write the golden C anew; look at the change")


@pytest.fixture(autouse=True, scope="module")
def nothing_old_for_the_garbage_collector() -> None:
    """Take all that is there out of its sight: with a whole run's tests and libraries, each collection takes 0.3 s."""
    gc.collect()
    gc.freeze()
