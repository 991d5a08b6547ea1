"""Python's parser, asked by several threads at once."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

from optgen.python_syntax import syntax_tree

TEXT = "a = b + c * (d - e / f(g, h, x**2))\n" * 20


@pytest.fixture
def threads_take_turns() -> Iterator[None]:
    """The garbage collector comes in the middle of every tree, and lets another thread run."""

    def wait(phase: str, info: dict[str, int]) -> None:
        time.sleep(1e-6)

    usual = gc.get_threshold()
    gc.callbacks.append(wait)
    gc.set_threshold(100)
    yield
    gc.set_threshold(*usual)
    gc.callbacks.remove(wait)


def test_threads_do_not_disturb_each_other(threads_take_turns: None) -> None:
    """Python 3.11 by itself raises SystemError in many of these, and filters of warnings stay behind."""
    failed = []
    filters = list(warnings.filters)

    def work() -> None:
        for _ in range(20):
            try:
                syntax_tree(TEXT)
            except SystemError as error:
                failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert list(warnings.filters) == filters


def test_what_python_warns_of_is_refused() -> None:
    with pytest.raises(SyntaxError):
        syntax_tree("x = 1if y else 2")
