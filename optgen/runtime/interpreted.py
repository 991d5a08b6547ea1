"""Steps by the interpreter: what it computes of parameters that kernels do not step, and how that is written.

In: parameters after every check. Out: what writes and counts their step, all of it computed before; and what it
reports. Nothing is changed before that is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .. import interpreter as interp
from ..ir.expr import PARAMETER
from ..ir.rule import Rule
from .array_library import ArrayLibrary
from .arrays import Array
from .members import Accepted
from .reports import Reports, of_interpreter

__all__ = ["computed"]


def computed(
    library: ArrayLibrary, rules: Sequence[Rule], accepted: Accepted, group: Mapping[str, Array]
) -> tuple[Callable[[], bool], Reports | None]:
    """One step, computed and not yet written: what writes and counts it, as often as one likes, and says whether it
    counts; and its reports."""
    sets = accepted.sets
    tensors, restores = [], []
    for member in accepted.members:
        rule, t = rules[member.variant], member.slot.t + 1
        looked = {PARAMETER: member.p, **dict(zip(rule.given_arrays, member.inputs, strict=True))}
        small = {state.name for state in rule.small_states}
        looked |= {name: library.state(x, small=name in small) for name, x in member.slot.arrays.items()}
        stored = rule.stores | {PARAMETER}
        restores += [x.restore for name, x in looked.items() if x.restore and name in stored]
        arrays = {name: x.memory for name, x in looked.items()}
        tensors.append((rule, sets[member.hypers][t], interp.Tensor(t, arrays, member.storages, member.rounding)))
    t = max(tensor.t for _, _, tensor in tensors)
    write_values, reported = interp.computed_group(tensors, group, sets[0][t], t)

    def write() -> bool:
        counts = write_values()
        for restore in restores:
            restore()
        if counts:
            for member, (rule, _, tensor) in zip(accepted.members, tensors, strict=True):
                if rule.ends_step:
                    member.slot.t = tensor.t
            if library.mark_changed is not None:
                library.mark_changed([member.given for member in accepted.members])
        return counts

    slots = [member.slot for member in accepted.members]
    return write, of_interpreter([rule for rule, _, _ in tensors], slots, reported)
