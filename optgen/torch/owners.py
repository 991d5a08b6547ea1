"""Owners: each matrix that lies in shards is stepped whole, by one process.

In: what each process has of some parameters, their gradients and states. Out: whole arrays where this process is the
owner, and a way to step them: shards go to the owners in one exchange, and come back in another.

So a step has the bits of one process, however many there are. States stay in shards between steps, which checkpoints
load on any number of processes. Owners are chosen by shapes alone, so that every process knows all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from ..errors import ArrayError
from ..frozen import frozen
from ..runtime.array_library import Piece
from ..runtime.arrays import Array
from ..runtime.interrupts import undisturbed
from .agreement import Processes, agree, tell
from .sharding import cut, cuts_matrices, span

__all__ = ["Owners", "balanced", "owners_of"]

#: What processes are about to do that have computed what they own.
_COMPUTED = bytes(4)


def owners_of(parts: Sequence[Piece]) -> Owners | None:
    """The owners of those parameters whose matrices are cut; None if there are none."""
    groups: dict[Processes, dict[int, Piece]] = {}
    for i, part in enumerate(parts):
        if cuts_matrices(part.rule, part.given):
            (along,) = cut(part.given)
            groups.setdefault((part.given.device_mesh, along), {})[i] = part
    return Owners([_Group(*processes, own) for processes, own in groups.items()]) if groups else None


def balanced(costs: Sequence[float], count: int) -> list[int]:
    """Which of so many processes does each piece of work: the largest first, each by whoever has least to do."""
    load, owners = [0.0] * count, [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owners[i] = load.index(min(load))
        load[owners[i]] += costs[i]
    return owners


class Owners:
    """The matrices of one step, by group of processes.

    Attributes
    ----------
    arrays
        By the places of the parameters, their whole arrays; None where another process is the owner.
    """

    def __init__(self, groups: Sequence[_Group]) -> None:
        self._groups = groups
        self.arrays = {i: whole for group in groups for i, whole in group.wholes.items()}
        self._error: Exception | None = None
        self._done = False

    def step(self, compute: Callable[[], object]) -> None:
        """Have `compute` step the whole arrays that this process owns, and the shards of all processes be what comes of
        it. All processes call it together. After an error on one of them no shard has changed, on any. Once it is done,
        another call does nothing."""
        if self._error is not None:
            raise self._error
        if self._done:
            return
        try:
            undisturbed(partial(self._step, compute))
        except Exception as error:
            self._error = error
            raise

    def _step(self, compute: Callable[[], object]) -> None:
        processes = [group.processes for group in self._groups]
        for group in self._groups:
            group.collect()
        try:
            compute()
        except Exception as error:
            tell(processes, _COMPUTED, error)
            raise
        agree(processes, _COMPUTED)
        for group in self._groups:
            group.give_back()
        self._done = True


@frozen
class _Lie:
    """How an array of a parameter lies: the shape of the whole, and the dimension that is cut; None if every process
    has it whole."""

    shape: tuple[int, ...]
    dim: int | None

    def within(self, whole: Array, count: int, number: int) -> Array:
        """The part of the shard `number` of `count`, in an array of the whole."""
        if self.dim is None:
            return whole
        at = span(self.shape[self.dim], count, number)
        return whole[(slice(None),) * self.dim + (at,)]


class _Group:
    """The matrices that some processes share, along one dimension of a mesh.

    Attributes
    ----------
    processes
        These processes.
    wholes
        By place, the whole arrays of those that this process owns; None for the others.
    """

    def __init__(self, mesh: Any, along: int, parts: Mapping[int, Piece]) -> None:
        self.processes = mesh, along
        self._size, self._own = mesh.size(along), mesh.get_local_rank(along)
        self._parts = parts
        chosen = balanced([_cost(part) for part in parts.values()], self._size)
        self._owner = dict(zip(parts, chosen, strict=True))
        self._lies = {i: _lies(part, along, self._size, self._own) for i, part in parts.items()}
        self.wholes: dict[int, dict[str, Array] | None] = {i: self._whole(i) for i in parts}

    def _whole(self, i: int) -> dict[str, Array] | None:
        if self._owner[i] != self._own:
            return None
        arrays, lies = self._parts[i].arrays, self._lies[i]
        # By PyTorch, whose memory begins where its tensors do: a library may give other bits elsewhere.
        types = {name: torch.from_numpy(np.empty(0, x.dtype)).dtype for name, x in arrays.items()}
        return {name: torch.empty(lies[name].shape, dtype=types[name]).numpy() for name in arrays}

    def collect(self) -> None:
        """Send this process's shards to the owners, and put together those that it owns."""
        parts, lies = self._parts, self._lies
        cuts = {i: [name for name, lie in lies[i].items() if lie.dim is not None] for i in parts}
        send = [
            [parts[i].arrays[name] for i in parts if self._owner[i] == rank for name in cuts[i]]
            for rank in range(self._size)
        ]
        self._exchange(send, self._within(cuts))
        for i, whole in self.wholes.items():
            for name, x in (whole or {}).items():
                if name not in cuts[i]:
                    x[...] = parts[i].arrays[name]

    def give_back(self) -> None:
        """Send every process its shards of what this one owns, and take this one's from the owners."""
        parts = self._parts
        stored = {i: [name for name in part.arrays if name in part.stored] for i, part in parts.items()}
        take = [
            [parts[i].arrays[name] for i in parts if self._owner[i] == rank for name in stored[i]]
            for rank in range(self._size)
        ]
        self._exchange(self._within(stored), take)

    def _within(self, names: Mapping[int, Sequence[str]]) -> list[list[Array]]:
        """For each process, its parts of the arrays of these names that are whole here."""
        own = [
            (self._lies[i][name], x)
            for i, whole in self.wholes.items()
            for name, x in (whole or {}).items()
            if name in names[i]
        ]
        return [[lie.within(x, self._size, rank) for lie, x in own] for rank in range(self._size)]

    def _exchange(self, send: Sequence[Sequence[Array]], take: Sequence[Sequence[Array]]) -> None:
        """Send arrays to each process, and fill those that come from each."""
        mesh, along = self.processes
        sizes = [[sum([x.nbytes for x in own]) for own in arrays] for arrays in (take, send)]
        packed = [np.ascontiguousarray(x).reshape(-1).view(np.uint8) for own in send for x in own]
        sent = torch.from_numpy(np.concatenate([np.empty(0, np.uint8), *packed]))
        came = torch.empty(sum(sizes[0]), dtype=torch.uint8)
        torch.distributed.all_to_all_single(came, sent, *sizes, group=mesh.get_group(along))
        read, at = came.numpy(), 0
        for own in take:
            for x in own:
                x[...] = read[at : at + x.nbytes].view(x.dtype).reshape(x.shape)
                at += x.nbytes


def _cost(part: Piece) -> float:
    """How much work a step of a parameter is: that of a product of its matrices."""
    rows, columns = part.sides
    return float(math.prod(part.given.shape) * min(rows, columns))


def _lies(part: Piece, along: int, count: int, number: int) -> dict[str, _Lie]:
    """How the arrays of a parameter lie. ArrayError if this process has another part of one than its shard."""
    found = {}
    for name, x in part.arrays.items():
        of = part.states.get(name, part.given)
        lie = found[name] = _Lie(tuple(of.shape), cut(of).get(along))
        expected = list(lie.shape)
        if lie.dim is not None:
            at = span(lie.shape[lie.dim], count, number)
            expected[lie.dim] = at.stop - at.start
        if list(x.shape) != expected:
            message = f"a tensor of shape {lie.shape} in {count} shards: expected number {number} of shape "
            message += f"{tuple(expected)}, got {x.shape}"
            raise ArrayError(message, hint="lay it out by distribute_tensor or fully_shard")
    return found
