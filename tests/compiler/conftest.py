"""What the tests of the toolchain and of the cache have in common: a cache of their own, compilers that are scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from recorded_compiler import Recorded, recorded


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, not made yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("OPTGEN_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recorded]:
    """Makes $CC a script that notes its arguments and runs the given shell text before it builds."""

    def write(before_building: str, after_building: str = ":") -> Recorded:
        made = recorded(tmp_path, before_building, after_building)
        monkeypatch.setenv("CC", str(made.path))
        return made

    return write
