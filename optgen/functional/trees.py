"""Containers of arrays: mappings, sequences, and None, nested in any way.

In: a container. Out: its leaves in order, and a container like it for others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["flatten"]


def flatten(tree: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """The leaves of a container, and a function that gives a container like it for as many others.

    >>> leaves, rebuilt = flatten({"w": [1, 2], "b": None})
    >>> leaves, rebuilt([10, 20])
    ([1, 2], {'w': [10, 20], 'b': None})
    """
    leaves: list[Any] = []
    _collect(tree, leaves)

    def rebuilt(others: Sequence[Any]) -> Any:
        return _rebuilt(tree, iter(others))

    return leaves, rebuilt


def _collect(tree: Any, leaves: list[Any]) -> None:
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        for each in tree:
            _collect(each, leaves)
    elif tree is not None:
        leaves.append(tree)


def _rebuilt(tree: Any, others: Iterator[Any]) -> Any:
    if isinstance(tree, Mapping):
        return {key: _rebuilt(each, others) for key, each in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):  # a named tuple
        return type(tree)(*[_rebuilt(each, others) for each in tree])
    if isinstance(tree, list | tuple):
        return type(tree)(_rebuilt(each, others) for each in tree)
    return None if tree is None else next(others)
