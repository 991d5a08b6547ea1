"""Liveness: which places of a program may share memory.

In: the steps of a program, and the places that they use. Out: for each place its slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .program import Operand, Place, Segment, Step

__all__ = ["placed"]


def placed(steps: Sequence[Step], places: Iterable[Operand]) -> dict[str, Place]:
    """Memory for the places: those that are not needed at once may share it, if they have the same dimensions."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    own = {place.array: place for place in places}
    for i, step in enumerate(steps):
        arrays = step.arrays.values() if isinstance(step, Segment) else (*step.operands, step.target)
        for operand in arrays:
            if operand.array in own:
                first.setdefault(operand.array, i)
                last[operand.array] = i
    found: dict[str, Place] = {}
    free: list[tuple[int, int, object]] = []  # until which step a slot is taken, its number, and of what it is
    for name in sorted(first, key=first.__getitem__):
        place = own[name]
        kind = (place.dims, place.extent, place.half)
        reusable = next((each for each in free if each[0] < first[name] and each[2] == kind), None)
        if reusable is not None:
            free.remove(reusable)
        number = reusable[1] if reusable is not None else _next_number(found)
        free.append((last[name], number, kind))
        found[name] = Place(place.dims, place.extent, number, place.half)
    return found


def _next_number(found: Mapping[str, Place]) -> int:
    return 1 + max((place.slot for place in found.values()), default=-1)
