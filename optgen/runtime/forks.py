"""Forks: what the child of a fork does with the steps that other threads were in.

In: step engines. Out: nothing; in the child nobody holds their locks.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["in_children"]


class Forked(Protocol):
    def leave_step(self) -> None: ...


_KNOWN: WeakSet[Forked] = WeakSet()


def in_children(engine: Forked) -> None:
    """Have `engine` leave its step in the child of every fork."""
    _KNOWN.add(engine)


def _leave_steps() -> None:
    for engine in list(_KNOWN):
        engine.leave_step()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_steps)
