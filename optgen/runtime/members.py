"""Members: the parameters that kernels step, each by itself, whatever list it stands in.

In: parameters and their inputs after every check, with their slots, and the kernels that step them.
Out: of each a `BoundMember`, all that a step plan needs to know of it: a row of the kernel's table, what the guard
compares, and what a step writes. Plans of other lists are made of the same members.

A bound member keeps states alive, and no array of the caller's but those that its library marks as changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack
from typing import Any, TypeAlias

from ..frozen import frozen
from ..ir.evaluate import ValuesByCount
from ..ir.rule import Rounding, Storages
from .addresses import bounds
from .array_library import ArrayLibrary, BoundStates, Looked, ParameterSlot
from .binding import TensorRow, rows_of
from .guard import Seen, SeenGradient, see, see_gradient
from .kernel import Kernel
from .program_kernel import MatrixRow, ProgramKernel

__all__ = ["Accepted", "AnyKernel", "BoundMember", "Member", "bind_members", "by_kernel"]

#: What steps a parameter: in one call, or by a program.
AnyKernel: TypeAlias = Kernel | ProgramKernel


@frozen
class Member:
    """One parameter of a step, after every check.

    Attributes
    ----------
    given
        The parameter as the caller has it.
    p
        The parameter.
    inputs
        Its gradient, then what else a step is given for it.
    variant
        The position of the variant of the rule that steps it.
    dtype
        Its compute type.
    hypers
        Which of the sets of hyperparameters it goes by.
    slot
        Its state.
    block
        How many elements a block of it has; 0 if the rule has none.
    storages
        Those of its arrays that are kept in another type than the compute type.
    rounding
        Those of these that are rounded stochastically.
    """

    given: Any
    p: Looked
    inputs: Sequence[Looked]
    variant: int
    dtype: str
    hypers: int
    slot: ParameterSlot
    block: int
    storages: Storages
    rounding: Rounding


@frozen
class Accepted:
    """Parameters of a step after every check, and the sets of hyperparameters for their counts."""

    members: Sequence[Member]
    sets: Sequence[ValuesByCount]


@frozen
class BoundMember:
    """A member for its kernel.

    Attributes
    ----------
    kernel
        What steps it.
    variant, hypers, slot
        As those of a member.
    row
        Its row in the table of that.
    p
        The parameter as it was seen.
    inputs
        The same of its gradient, and of what else a step is given for it.
    deferrable
        Of each of these, whether another one laid out so may be deferred.
    written
        The intervals of addresses that a step writes, two numbers each.
    through
        Whether the guard looks at something else than what the caller gives.
    changed
        The parameter, if it is to be marked as changed.
    """

    kernel: AnyKernel
    variant: int
    hypers: int
    slot: ParameterSlot
    row: TensorRow | MatrixRow
    p: Seen
    inputs: Sequence[SeenGradient]
    deferrable: Sequence[bool]
    written: bytes
    through: bool
    changed: Any


def bind_members(
    library: ArrayLibrary, members: Sequence[Member], states: BoundStates, kernels: Sequence[AnyKernel]
) -> list[BoundMember]:
    """The members of a step; `states` are theirs, and `kernels` what steps each."""
    bound: dict[int, BoundMember] = {}
    for kernel, own in by_kernel(kernels).items():
        names = kernel.states if isinstance(kernel, ProgramKernel) else kernel.rule.tensor_states
        tensors = ([members[i].p, *members[i].inputs] for i in own)
        arrays = ((*[x.memory for x in each], *states.arrays(i, names)) for i, each in zip(own, tensors, strict=True))
        rows: Sequence[TensorRow | MatrixRow]
        if isinstance(kernel, ProgramKernel):
            rows = list(map(kernel.row, arrays))
        else:
            rows = rows_of(kernel, arrays, [members[i].block for i in own])
        for i, row in zip(own, rows, strict=True):
            bound[i] = _bound(library, members[i], kernel, row)
    return [bound[i] for i in range(len(members))]


def by_kernel(kernels: Sequence[AnyKernel]) -> dict[AnyKernel, list[int]]:
    """The places of the tensors that each kernel steps; `kernels` has that of each tensor."""
    places: dict[AnyKernel, list[int]] = {}
    for i, kernel in enumerate(kernels):
        places.setdefault(kernel, []).append(i)
    return places


def _bound(library: ArrayLibrary, member: Member, kernel: AnyKernel, row: TensorRow | MatrixRow) -> BoundMember:
    reader, p, inputs = library.reader, member.p, member.inputs
    written = [*bounds(p.memory)]
    for x in member.slot.arrays.values():
        written += bounds(library.memory(x))
    offsets = row.offsets[1:]
    return BoundMember(
        kernel,
        member.variant,
        member.hypers,
        member.slot,
        row,
        see(p.seen, reader, alone=library.is_alone(p.seen)),
        [see_gradient(x.seen, x.memory, offset, reader) for x, offset in zip(inputs, offsets, strict=False)],
        [library.may_be_deferred(x.seen) for x in inputs],
        pack(f"{len(written)}q", *written),
        p.seen is not member.given,
        member.given if library.mark_changed else None,
    )
