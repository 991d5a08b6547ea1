"""Tapes: what one run of `gradient` records, and how gradients go back through it.

In: parameters; then every call that autograd's boxes go through. Out: the gradient of each parameter's node.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

import numpy as np
from autograd.core import add_outgrads
from autograd.extend import SparseObject, VJPNode
from autograd.tracer import new_box, notrace_primitives, toposort

from ..errors import TrackError
from .derivatives import INSTEAD

__all__ = ["Array", "Node", "Tape", "current", "pull_back"]

Array = np.ndarray[Any, np.dtype[Any]]


class Tape:
    """One run of `gradient`: while it records, the box of each of its parameters by the parameter's identity."""

    __slots__ = ("boxes", "open")

    def __init__(self, params: Iterable[Any]) -> None:
        self.open = True
        self.boxes = {id(p): new_box(p.data, 0, Node.new_root(self, p.data.shape)) for p in params}

    def close(self) -> None:
        # The boxes point back here. Once the circle is cut, they need no garbage collector.
        self.open, self.boxes = False, {}


current: ContextVar[Tape | None] = ContextVar("optgen_tape", default=None)

# autograd passes these to the function, but ignores them in its gradient, which is then silently wrong.
_FORGOTTEN = frozenset({"where", "initial", "correction", "mean"})

_FAULTS = (NotImplementedError, TypeError, ValueError, LookupError, AttributeError, AssertionError)


class Node(VJPNode):  # type: ignore[misc]
    """autograd's node for backpropagation, with its tape, its shape, and a name for messages."""

    __slots__ = ("name", "shape", "tape")

    def __init__(self, value: Any, fun: Any, args: Any, kwargs: Any, parent_argnums: Any, parents: Any) -> None:
        self.name = fun.__name__.strip("_").replace("getitem", "indexing").replace("_args", "")
        self.shape = None if isinstance(value, (tuple, list)) else np.shape(value)
        self.tape = parents[0].tape
        if any(parent.tape is not self.tape for parent in parents):
            raise TrackError(
                "expected values of this run of `gradient`, got one of another run", hint="take its `.data`"
            )
        if _FORGOTTEN & kwargs.keys():
            raise self._fault(f"with {', '.join(sorted(_FORGOTTEN & kwargs.keys()))}=")
        try:
            super().__init__(value, fun, args, kwargs, parent_argnums, parents)
        except _FAULTS as error:
            raise self._fault(f"with these arguments ({error})") from error

    def initialize_root(self, tape: Tape, shape: tuple[int, ...]) -> None:
        super().initialize_root()
        self.name, self.shape, self.tape = "param", shape, tape

    def pull(self, g: Any) -> list[Any]:
        """Turn the gradient `g` of this node into one for each parent, in the parent's shape."""
        try:
            grads = list(self.vjp(g))
        except _FAULTS as error:
            raise self._fault(f"with these arguments ({error})") from error
        for parent, grad in zip(self.parents, grads, strict=True):
            shape = grad.vs.shape if isinstance(grad, SparseObject) else np.shape(grad)
            if parent.shape not in (None, shape):
                raise self._fault(f"for these shapes (expected a gradient of {parent.shape}, got {shape})")
        return grads

    def _fault(self, case: str) -> TrackError:
        return TrackError(f"autograd has no gradient of `{self.name}` {case}", hint=INSTEAD)


# The same set, not a copy: functions that autograd declares constant later are constant here too.
notrace_primitives[Node] = notrace_primitives[VJPNode]


def pull_back(end: Node, tape: Tape, seed: Array) -> dict[Node, Array]:
    """Backpropagate from `end` to the nodes of the parameters that it was computed from."""
    if end.tape is not tape:
        raise TrackError(
            "expected a loss of this run of `gradient`, got one of another run",
            hint="compute it in the function itself",
        )
    pending: dict[Node, Any] = {end: (seed, False)}
    for node in list(toposort(end)):
        if node.parents:
            for parent, grad in zip(node.parents, node.pull(pending.pop(node)[0]), strict=True):
                pending[parent] = add_outgrads(pending.get(parent), grad)
            # A value that the caller keeps would otherwise keep every value of the run alive.
            node.parents, node.vjp = (), None
    return {node: g for node, (g, _) in pending.items()}
