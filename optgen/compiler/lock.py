"""One builder at a time in a folder.

In: a folder. Out: a lock on it, which the system lets go when its holder dies; or a CacheError.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CacheError
from . import toolchain
from .trust import ELSEWHERE

__all__ = ["sole_builder"]

SPARE = 60.0  # seconds that a builder may take besides what its compiler takes


@contextmanager
def sole_builder(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` while the body runs. The wait for it ends even if its holder hangs."""
    import filelock

    patience = toolchain.time_limit() + SPARE
    lock: filelock.BaseFileLock = filelock.FileLock(folder / ".lock", timeout=patience)
    try:
        with lock:
            # What filelock takes where the file system has no locks: a mere file, which outlives its owner.
            if isinstance(lock, filelock.SoftFileLock):
                raise OSError("the file system has no locks")
            yield
    except CacheError:
        raise
    except filelock.Timeout as fault:
        raise CacheError(
            f"another process has held {folder / '.lock'} for {patience:g} seconds",
            hint=f"end that process and its lock goes with it, or {ELSEWHERE}",
        ) from fault
    except (OSError, NotImplementedError) as fault:
        raise CacheError(f"expected to write the cache folder {folder}, got {fault}", hint=ELSEWHERE) from fault
