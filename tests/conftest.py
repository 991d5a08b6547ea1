"""What holds for all tests: their tiers, the option that writes the golden C anew, interrupts, garbage collection."""

from __future__ import annotations

import gc
import re
import signal
import tomllib
from pathlib import Path

import pytest

#: The rules of one collection, by their names and the stems of their files: more than all others together. The first
#: tier compares each with the collection, and its kernels with the interpreter; what else is tested of every rule is
#: tested of these in the second tier.
COLLECTED = {
    name
    for path in (Path(__file__).parents[1] / "specs").glob("*.toml")
    for spec in [tomllib.loads(path.read_text("utf-8"))]
    if spec.get("origin") == "pytorch-optimizer"
    for name in (spec["name"], path.stem)
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write the golden C anew; look at the change")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        case = getattr(item, "callspec", None)
        if case and item.path.stem != "test_library_collection" and COLLECTED & set(re.findall(r"\w+", case.id)):
            item.add_marker(pytest.mark.slow)
    # What takes longest goes first: at the end of a run, one process would do it alone.
    items.sort(key=lambda item: item.path.stem != "test_sanitizers")


@pytest.fixture(autouse=True, scope="session")
def interrupts() -> None:
    """Those that tests raise, though a shell that runs all this in the background has them ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def nothing_old_for_the_garbage_collector() -> None:
    """Take all that is there out of its sight: with a whole run's tests and libraries, each collection takes 0.3 s."""
    gc.collect()
    gc.freeze()
