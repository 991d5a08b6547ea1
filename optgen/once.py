"""What a process makes once: values that threads share.

In: a function of hashable arguments. Out: the same function, whose value for the same arguments is one object, also
where several threads ask for it first. `functools.cache` would let each of them make one of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["once"]

P = ParamSpec("P")
T = TypeVar("T")

#: Held while a value is made: one lock for all, so that values that need each other cannot wait for each other.
_MAKING = threading.RLock()


def once(make: Callable[P, T]) -> Callable[P, T]:
    """`make`, called once for the same positional arguments. What it raises is raised, and not kept."""
    known: dict[tuple[Hashable, ...], T] = {}

    @wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> T:
        key = (*args, *sorted(kwargs.items()))
        if key not in known:
            with _MAKING:
                if key not in known:
                    known[key] = make(*args, **kwargs)
        return known[key]

    return made
