"""Steps of parameters that no kernel steps in one call: by the interpreter, or by programs.

In: parameters after every check. Out: what writes and counts their step, all of it computed or bound before; and what
it reports. Nothing is changed before that is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from .. import interpreter as interp
from ..errors import CompilerNotFound
from ..ir.evaluate import HyperValues
from ..ir.expr import PARAMETER
from ..ir.rule import Rule
from .array_library import ArrayLibrary, Piece
from .arrays import Array
from .members import Accepted, Member
from .program_binding import ProgramBinding
from .program_kernel import MatrixRow, ProgramKernel
from .programs import ProgramSteps
from .reports import Reports, of_interpreter

__all__ = ["computed"]

#: A parameter for the interpreter: its rule, its hyperparameters and its arrays.
Interpreted: TypeAlias = tuple[Rule, HyperValues, interp.Tensor]


def computed(
    library: ArrayLibrary,
    rules: Sequence[Rule],
    accepted: Accepted,
    group: Mapping[str, Array],
    programs: ProgramSteps | None,
) -> tuple[Callable[[], bool], Reports | None]:
    """One step, computed or bound, and not yet written: what writes and counts it, as often as one likes, and says
    whether it counts; and its reports. `programs`: what steps those whose rule has products of matrices."""
    sets = accepted.sets
    pieces, restores = [], []
    for member in accepted.members:
        rule = rules[member.variant]
        looked = {PARAMETER: member.p, **dict(zip(rule.given_arrays, member.inputs, strict=True))}
        small = {state.name for state in rule.small_states}
        states, kept = member.slot.arrays, dict(member.storages)
        looked |= {
            name: library.state(x, small=name in small, storage=kept.get(name, "")) for name, x in states.items()
        }
        stored = rule.stores | {PARAMETER}
        restores += [x.restore for name, x in looked.items() if x.restore and name in stored]
        pieces.append(Piece(rule, member.given, states, {name: x.memory for name, x in looked.items()}, stored))
    owned = library.owned(pieces)
    wholes = owned.arrays if owned is not None else {}
    matrices: dict[ProgramKernel, list[tuple[MatrixRow, int, int]]] = {}
    tensors: list[Interpreted] = []
    late: list[Interpreted] = []  # whose values are not here yet
    for i, (member, piece) in enumerate(zip(accepted.members, pieces, strict=True)):
        rule, t, arrays = piece.rule, member.slot.t + 1, wholes.get(i, piece.arrays)
        if arrays is None:
            continue
        kernel = _program(programs, member) if programs is not None else None
        if kernel is not None:
            row = kernel.row([arrays[name] for name in kernel.names])
            matrices.setdefault(kernel, []).append((row, member.slot.t, member.hypers))
        else:
            tensor = interp.Tensor(t, arrays, member.storages, member.rounding)
            (late if i in wholes else tensors).append((rule, sets[member.hypers][t], tensor))
    counts = [member.slot.t + 1 for member in accepted.members]
    last = max(counts)
    run = None
    if programs is not None and matrices:
        bindings = [_bound(kernel, own, library) for kernel, own in matrices.items()]
        run = programs.begun(bindings, sets, 1)
    write_values, reported = interp.computed_group(tensors, group, sets[0][last], last)

    def multiply() -> None:
        if run is not None:
            run()
        if late:
            interp.computed_group(late, group, sets[0][last], last)[0]()

    def write() -> bool:
        if owned is not None:
            owned.step(multiply)
        else:
            multiply()
        counts_too = write_values()
        for restore in restores:
            restore()
        if counts_too:
            for member, t in zip(accepted.members, counts, strict=True):
                if rules[member.variant].ends_step:
                    member.slot.t = t
            if library.mark_changed is not None:
                library.mark_changed([member.given for member in accepted.members])
        return counts_too

    slots = [member.slot for member in accepted.members]
    if matrices or owned is not None:  # whose rules report nothing
        return write, None
    return write, of_interpreter([rule for rule, _, _ in tensors], slots, reported)


def _program(programs: ProgramSteps, member: Member) -> ProgramKernel | None:
    """What steps a parameter by programs; None if only the interpreter can."""
    if member.storages or not programs.takes(member.variant):
        return None
    try:
        return programs.kernel(member.variant, member.dtype)
    except CompilerNotFound:  # the interpreter needs none
        return None


def _bound(kernel: ProgramKernel, own: Sequence[tuple[MatrixRow, int, int]], library: ArrayLibrary) -> ProgramBinding:
    """Parameters bound to their programs; of each its row, its count of updates and its set of hyperparameters."""
    rows, counts, sets = zip(*own, strict=True)
    binding = ProgramBinding(kernel, rows, *library.threads())
    binding.count_from(counts, sets)
    return binding
