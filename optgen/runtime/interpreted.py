"""Steps of parameters that no kernel steps in one call: by the interpreter, or by programs.

In: parameters after every check. Out: what writes and counts their step, all of it computed or bound before; and what
it reports. Nothing is changed before that is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .. import interpreter as interp
from ..errors import CompilerNotFound
from ..ir.expr import PARAMETER
from ..ir.rule import Rule
from .array_library import ArrayLibrary
from .arrays import Array
from .members import Accepted, Member
from .program_binding import ProgramBinding
from .program_kernel import MatrixRow, ProgramKernel
from .programs import ProgramSteps
from .reports import Reports, of_interpreter

__all__ = ["computed"]


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
    matrices: dict[ProgramKernel, list[tuple[MatrixRow, int, int]]] = {}
    tensors, restores = [], []
    for member in accepted.members:
        rule, t = rules[member.variant], member.slot.t + 1
        looked = {PARAMETER: member.p, **dict(zip(rule.given_arrays, member.inputs, strict=True))}
        small = {state.name for state in rule.small_states}
        looked |= {name: library.state(x, small=name in small) for name, x in member.slot.arrays.items()}
        stored = rule.stores | {PARAMETER}
        restores += [x.restore for name, x in looked.items() if x.restore and name in stored]
        arrays = {name: x.memory for name, x in looked.items()}
        kernel = _program(programs, member) if programs is not None else None
        if kernel is not None:
            row = kernel.row([arrays[name] for name in kernel.names])
            matrices.setdefault(kernel, []).append((row, member.slot.t, member.hypers))
        else:
            tensors.append((rule, sets[member.hypers][t], interp.Tensor(t, arrays, member.storages, member.rounding)))
    counts = [member.slot.t + 1 for member in accepted.members]
    run = None
    if programs is not None and matrices:
        bindings = [_bound(kernel, own, library) for kernel, own in matrices.items()]
        run = programs.begun(bindings, sets, 1)
    write_values, reported = interp.computed_group(tensors, group, sets[0][max(counts)], max(counts))

    def write() -> bool:
        if run is not None:
            run()
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
    if matrices:  # whose rules report nothing
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
