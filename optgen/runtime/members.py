"""Members: the parameters that kernels step, each by itself, as any step plan takes it.

In: a parameter and its gradient after every check, and the kernel that steps them. Out: what a plan needs of them,
whatever stands beside them in a list: a row of the kernel's table, what the guard compares, and what a step writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ..frozen import frozen
from .addresses import Interval, address_of, bounds
from .array_library import ArrayLibrary, BoundStates, Looked, ParameterSlot
from .binding import TensorRow, rows_of
from .guard import Seen, see
from .kernel import Kernel

__all__ = ["BoundMember", "KernelKey", "Member", "bind_members"]

#: A compute type, and the position of a variant.
KernelKey: TypeAlias = tuple[str, int]


@frozen
class Member:
    """One parameter of a step, after every check.

    Attributes
    ----------
    given
        The parameter as the caller has it.
    p, g
        The parameter and its gradient.
    variant
        The position of the variant of the rule that steps it.
    dtype
        Its compute type.
    hypers
        Which of the sets of hyperparameters it goes by.
    slot
        Its state.
    """

    given: Any
    p: Looked
    g: Looked
    variant: int
    dtype: str
    hypers: int
    slot: ParameterSlot


@frozen
class BoundMember:
    """A member for its kernel. It keeps no array of the caller's alive, unless its library marks those that change.

    Attributes
    ----------
    key
        Which kernel steps it.
    hypers, slot
        As those of a member.
    row
        Its row in the kernel's table.
    p, g
        The parameter and its gradient, as they were seen.
    span
        Where the gradient begins and ends, seen from its first element.
    written
        The intervals of addresses that a step writes.
    changed
        The parameter, if it is to be marked as changed.
    made
        The memory of a gradient that was made for this step alone.
    deferrable
        Whether another gradient laid out as this one may be deferred.
    through
        Whether the guard looks at something else than what the caller gives.
    """

    key: KernelKey
    hypers: int
    slot: ParameterSlot
    row: TensorRow
    p: Seen
    g: Seen
    span: Interval
    written: tuple[Interval, ...]
    changed: Any
    made: Looked | None
    deferrable: bool
    through: bool


def bind_members(
    library: ArrayLibrary,
    members: Sequence[Member],
    grads: Sequence[Any],
    states: BoundStates,
    kernels: Mapping[KernelKey, Kernel],
) -> list[BoundMember]:
    """The members of a step for their kernels; `grads` are their gradients as they were given."""
    groups: dict[KernelKey, list[int]] = {}
    for i, member in enumerate(members):
        groups.setdefault((member.dtype, member.variant), []).append(i)
    rows: dict[int, TensorRow] = {}
    for key, own in groups.items():
        names = kernels[key].rule.tensor_states
        tensors = ((members[i].p.memory, members[i].g.memory, *states.arrays(i, names)) for i in own)
        rows |= zip(own, rows_of(kernels[key], tensors), strict=True)

    def bind(i: int, m: Member) -> BoundMember:
        at, (low, high) = address_of(m.g.memory), bounds(m.g.memory)
        kept = (bounds(library.memory(x)) for x in m.slot.arrays.values())
        return BoundMember(
            key=(m.dtype, m.variant), hypers=m.hypers, slot=m.slot, row=rows[i],
            p=see(m.p.seen, library.reader, alone=library.is_alone(m.p.seen)), g=see(m.g.seen, library.reader),
            span=(low - at, high - at), written=(bounds(m.p.memory), *kept),
            changed=m.given if library.mark_changed else None,
            made=m.g if m.g.seen is not library.gradient_seen(grads[i]) else None,
            deferrable=library.may_be_deferred(m.g.seen), through=m.p.seen is not m.given,
        )  # fmt: skip

    return [bind(i, member) for i, member in enumerate(members)]
