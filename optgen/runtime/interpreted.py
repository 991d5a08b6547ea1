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
from .array_library import ArrayLibrary, Part
from .arrays import Array
from .chunks import Matrix
from .members import Accepted
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
    parts, restores = [], []
    for member in accepted.members:
        rule = rules[member.variant]
        looked = {PARAMETER: member.p, **dict(zip(rule.given_arrays, member.inputs, strict=True))}
        small = {state.name for state in rule.small_states}
        states = member.slot.arrays
        looked |= {name: library.state(x, small=name in small) for name, x in states.items()}
        stored = rule.stores | {PARAMETER}
        restores += [x.restore for name, x in looked.items() if x.restore and name in stored]
        parts.append(Part(rule, member.given, states, {name: x.memory for name, x in looked.items()}, stored))
    owned = library.owned(parts)
    wholes = owned.arrays if owned is not None else {}
    matrices: list[Matrix] = []
    tensors = []
    for i, (member, part) in enumerate(zip(accepted.members, parts, strict=True)):
        rule, t, arrays = part.rule, member.slot.t + 1, wholes.get(i, part.arrays)
        if arrays is None:
            continue
        if programs is not None and not member.storages and programs.takes(rule):
            matrices.append(Matrix(rule, member.dtype, arrays, t, member.hypers))
        else:
            tensors.append((rule, sets[member.hypers][t], interp.Tensor(t, arrays, member.storages, member.rounding)))
    counts = [member.slot.t + 1 for member in accepted.members]
    last = max(counts)
    run: Callable[[], object] = _nothing
    if programs is not None and matrices:
        try:
            run = programs.begun(matrices, sets, *library.threads())
        except CompilerNotFound:  # segments are compiled when they are first needed; the interpreter needs no compiler
            alike = [(each.rule, sets[each.hypers][each.t], interp.Tensor(each.t, each.arrays)) for each in matrices]
            if owned is None:
                tensors += alike
            else:  # whose values are not here yet
                run = lambda: interp.computed_group(alike, group, sets[0][last], last)[0]()  # noqa: E731
    write_values, reported = interp.computed_group(tensors, group, sets[0][last], last)

    def write() -> bool:
        if owned is not None:
            owned.step(run)
        else:
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
    if matrices or owned is not None:  # whose rules report nothing
        return write, None
    return write, of_interpreter([rule for rule, _, _ in tensors], slots, reported)


def _nothing() -> None:
    """What is left where other processes step all matrices."""
