"""Values that nobody would save, and containers that are spoilt with them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["CALLED", "Code", "spoilt"]

#: Whatever of a checkpoint was called.
CALLED: list[object] = []


class Code:
    """Something in a checkpoint that runs when it is called, compared or written."""

    def __call__(self, *arguments: object) -> float:
        CALLED.append(arguments)
        return 0.5


def _nested(kind: type, depth: int) -> Any:
    found: Any = 0.5
    for _ in range(depth):
        found = [found] if kind is list else {"schedule": "warmup", "steps": 5, "then": found, "start": 0.0}
    return found


def _array_of_code() -> Any:
    found = np.empty(2, object)
    found[:] = [Code(), Code()]
    return found


#: What makes a value: some are large, and some may be changed.
VALUES: list[Callable[[], Any]] = [
    *(lambda value=value: value for value in (
        None, True, -1, 0, 1, 2, 10**400, 10**5000, -0.5, 0.25, 1e308, float("nan"), float("inf"), 3j, "",
        "x", "x" * 10**5, b"ADAM", "a function of the step", Code, len, (0.5, 0.25), np.float32(0.5), np.int64(1),
        np.dtype("f4"), range(3),
    )),
    Code, object, _array_of_code, list, lambda: [1.0, 2.0], dict, lambda: {1: 2}, lambda: {"x": "y"},
    lambda: {(1, 2): [3]}, lambda: {"schedule": "cosine"}, lambda: {"schedule": ["cosine"]}, lambda: {1, 2},
    lambda: {"schedule": "constant", "value": Code()}, lambda: iter([0.5]), lambda: np.zeros(3),
    lambda: np.zeros((2, 2)),
    lambda: np.ones(()), lambda: np.array([True, False]), lambda: np.array("ADAM"), lambda: np.array(["a", "b"]),
    lambda: _nested(list, 5000), lambda: _nested(dict, 2000), lambda: _nested(list, 90), lambda: _nested(dict, 20),
    lambda: [_nested(dict, 90)],
]  # fmt: skip


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(node, Mapping):
        for key in node:
            yield from _places(node[key], (*path, key))
    elif isinstance(node, list | tuple):
        for i, inner in enumerate(node):
            yield from _places(inner, (*path, i))


def _at(node: Any, path: tuple[Any, ...], change: Any) -> Any:
    """A copy of the containers down to `path`, in which `change` has been at work."""
    if not path:
        return change(node)
    first, *rest = path
    if isinstance(node, Mapping):
        return {key: _at(inner, tuple(rest), change) if key == first else inner for key, inner in node.items()}
    return type(node)(_at(inner, tuple(rest), change) if i == first else inner for i, inner in enumerate(node))


def spoilt(
    saved: Mapping[str, Any], count: int, more: Sequence[Callable[[], Any]] = (), seed: int = 0
) -> Iterator[Any]:
    """`count` state dicts that differ from `saved`, which stays as it is, in something each."""
    rng = random.Random(seed)
    places = [path for path in _places(saved) if path]
    for _ in range(count):
        path, value = rng.choice(places), rng.choice([*VALUES, *more])()

        def change(node: Any, value: Any = value) -> Any:
            kind = rng.randrange(8)
            if kind == 0 and isinstance(node, dict) and node:
                left = rng.choice(list(node))
                return {key: inner for key, inner in node.items() if key != left}
            if kind == 1 and isinstance(node, dict):
                return {**node, rng.choice(["more", 7, (1, 2), "x" * 10**5]): value}
            if kind == 2 and isinstance(node, list | tuple):
                return type(node)([*node, value])
            if kind == 3 and isinstance(node, list | tuple) and node:
                return type(node)(node[:-1])
            return value

        yield _at(saved, path, change)
