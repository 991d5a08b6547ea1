"""Agreement of processes: each learns whether all are ready, before one of them changes anything.

In: the groups of processes among which parameters lie in shards, and what each process is about to step. Out: nothing;
or an error on every process. Without it, one that refuses a step would leave the others waiting for its shards.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import torch

from ..errors import ArrayError
from ..runtime.engine import StepEngine
from .sharding import cut

__all__ = ["Processes", "agree", "agreed", "tell"]

#: A mesh, and the dimension of it along which some processes share parameters.
Processes: TypeAlias = tuple[Any, int]
#: How many bytes of a message others are told.
_MOST = 400
#: What processes are about to step that have found nothing to do, as where a GradScaler has found infinities.
_NOTHING = bytes(4)
#: What a process tells before its message: whether it is ready, and what it is about to step.
_HEAD = 1 + 4


def agreed(
    groups: Sequence[Mapping[str, Any]], engine: StepEngine | None = None
) -> AbstractContextManager[Callable[[], None] | None]:
    """A step of the parameters in these groups, whose rules have products of matrices: once it is checked, no process
    goes on unless all do. `engine`: what steps all of them; else the caller calls what this gives."""
    if not torch.distributed.is_available() or (engine is not None and engine.when_checked is not None):
        return nullcontext()
    params = [p for group in groups for p in group["params"]]
    processes = dict.fromkeys((p.device_mesh, along) for p in params if p.dim() > 1 for along in cut(p))
    return _agreed(list(processes), _about(groups), engine) if processes else nullcontext()


@contextmanager
def _agreed(processes: Sequence[Processes], about: bytes, engine: StepEngine | None) -> Iterator[Callable[[], None]]:
    asked = False

    def ask() -> None:
        nonlocal asked
        asked = True
        agree(processes, about)

    if engine is not None:
        engine.when_checked = ask
    try:
        yield ask
    except BaseException as error:
        if not asked:
            tell(processes, about, error)
        raise
    finally:
        if engine is not None:
            engine.when_checked = None
    if not asked:
        agree(processes, _NOTHING)


def _about(groups: Sequence[Mapping[str, Any]]) -> bytes:
    """What processes must have in common: the parameters with a gradient, and plain hyperparameters."""
    values = [[(key, x) for key, x in group.items() if isinstance(x, int | float | str | tuple)] for group in groups]
    given = [[(i, tuple(p.shape)) for i, p in enumerate(group["params"]) if p.grad is not None] for group in groups]
    return zlib.crc32(repr((values, given)).encode()).to_bytes(4, "little")


def agree(processes: Sequence[Processes], about: bytes) -> None:
    """ArrayError on all processes unless all are ready for the same."""
    for (mesh, along), told in zip(processes, tell(processes, about), strict=True):
        ranks = torch.distributed.get_process_group_ranks(mesh.get_group(along))
        for rank, each in zip(ranks, told, strict=True):
            if each[0]:
                message = each[_HEAD:].rstrip(b"\0").decode("utf-8", "replace")
                raise ArrayError(f"process {rank} refused the step: {message}", hint="here nothing has changed")
        for rank, each in zip(ranks, told, strict=True):
            if each[1:_HEAD] != about:
                message = "expected all processes to step the same parameters with the same hyperparameters; process "
                message += f"{rank} has others than this one"
                raise ArrayError(message, hint="a gradient may be None on some of them; here nothing has changed")


def tell(processes: Sequence[Processes], about: bytes, error: BaseException | None = None) -> list[list[bytes]]:
    """Tell the other processes that this one is ready, or is not for this error: what each of them has told, by
    group."""
    text = "" if error is None else f"{type(error).__name__}: {error}"
    head = bytes([error is not None]) + about
    row = torch.frombuffer(bytearray((head + text.encode()[:_MOST]).ljust(_HEAD + _MOST, b"\0")), dtype=torch.uint8)
    told = []
    for mesh, along in processes:
        every = torch.empty((mesh.size(along), len(row)), dtype=torch.uint8)
        torch.distributed.all_gather(list(every), row, group=mesh.get_group(along))
        told.append([bytes(each.numpy()) for each in every])
    return told
