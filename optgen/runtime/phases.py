"""Phases: which part of a step comes next, where a step needs the gradient at more than one point.

In: the names of the phases, and the states of all parameters together. Out: a number; or an error that says what comes
next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import ArgumentError, ArrayError, StateError, shown
from ..ir.rule import FIRST_PHASE, OF_PHASES, PHASE
from .arrays import Array
from .collaborators import Hypers
from .shapes import first_group_states

__all__ = [
    "another_list", "expect_one_phase", "expect_one_with_phases", "expect_phase", "expect_phase_number",
    "expect_whole_step", "is_between_phases", "next_phase",
]  # fmt: skip


def next_phase(hypers: Hypers, group: Mapping[str, Array]) -> int:
    """The number of the phase that comes next; `group`: empty before the first step."""
    known = group or first_group_states(hypers.compilation.rules[0], hypers.sets_at(())[0][1])
    return int(known[PHASE]) or int(known.get(FIRST_PHASE, 0))


def is_between_phases(group: Mapping[str, Array]) -> bool:
    """Whether a step has begun that has phases left."""
    return bool(group.get(PHASE, 0))


def expect_phase(rule: str, phases: Sequence[str], number: int, wanted: object) -> None:
    """ArgumentError unless the phase that comes next is the one that is `wanted`."""
    if not phases:
        raise ArgumentError(f"{rule}: expected no phase, since its steps have but one, got {shown(wanted)}")
    if wanted not in phases:
        raise ArgumentError(f"{rule}: expected one of the phases {', '.join(phases)}, got {shown(wanted)}")
    if wanted != phases[number]:
        hint = f"take the gradient where the parameters are now, and step with phase={phases[number]!r}"
        message = f"{rule}: expected the phase {phases[number]!r}, which comes next, got {wanted!r}"
        raise ArgumentError(message, hint=hint)


def expect_phase_number(phases: Sequence[str], group: Mapping[str, object]) -> None:
    """StateError unless the states of all parameters together, if there are any, have the number of a phase."""
    for name in OF_PHASES if phases else ():
        number = float(group.get(name, 0))  # type: ignore[arg-type]  # of numbers, as has been checked
        if number not in range(len(phases)):
            message = f"expected the number of a phase, from 0 to {len(phases) - 1}, as {name}, got {number:g}"
            raise StateError(message, hint="it is damaged")


def expect_one_phase(what: str, rule: str, phases: Sequence[str]) -> None:
    """ArgumentError for a rule whose step has several phases."""
    if phases:
        message = (
            f"{what}: expected a rule whose step takes one gradient, got {rule} with the phases {', '.join(phases)}"
        )
        raise ArgumentError(message, hint="step its parameters by an optimiser of their own")


def expect_one_with_phases(found: Sequence[str]) -> None:
    """ArgumentError for several parts of a chain whose steps have phases."""
    if len(found) > 1:
        message = f"expected one part with phases in a chain, got {' and '.join(found)}"
        raise ArgumentError(message, hint="each of them takes gradients at points of its own: use one of them")


def expect_whole_step(what: str, phases: Sequence[str], group: Mapping[str, Array]) -> None:
    """ArgumentError between two phases of a step."""
    if is_between_phases(group):
        message = f"expected to {what} between two steps, got a call before the phase {phases[int(group[PHASE])]!r}"
        raise ArgumentError(message, hint="step until the last phase is through")


def another_list(rule: str, phases: Sequence[str], number: int) -> ArrayError:
    """The error for a phase that is given other parameters than the phase before."""
    message = f"{rule}: expected the parameters of the phase {phases[0]!r} in {phases[number]!r} too, got others"
    return ArrayError(message, hint="give all of them, with a gradient of zeros where there is none, and no new ones")
