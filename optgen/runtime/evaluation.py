"""Evaluation: what parameters are evaluated with, in the place of what they are trained with.

In: parameters between two steps, with their slots. Out: what writes to them, all of it computed before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import interpreter as interp
from ..interpreter.codes import encoded
from ..ir.expr import PARAMETER
from .array_library import ParameterSlot
from .engine import StepEngine
from .interrupts import to_its_end

__all__ = ["evaluated"]


def evaluated(
    engine: StepEngine, given: Sequence[Any], places: Sequence[int], slots: Sequence[ParameterSlot | None]
) -> Callable[[], object]:
    """What writes to these parameters what they are evaluated with. Those that were never stepped stay as they are.

    Nothing is changed before it is called. `places`: where they stand among all parameters of the optimiser.
    """
    library, hypers = engine.library, engine.hypers
    begun = [i for i, slot in enumerate(slots) if slot is not None and slot.t]
    sets = hypers.sets_at([slots[i] for i in begun], ahead=0)
    computed = []
    for i in begun:
        slot, looked = slots[i], library.parameter(given[i], i, len(given))
        assert slot is not None
        rule = hypers.compilation.rules[hypers.variant(places[i], looked.shape)]
        small = {state.name for state in rule.small_states}
        kept = dict(slot.storages)
        arrays = {
            name: library.state(x, small=name in small, storage=kept.get(name, "")).memory
            for name, x in slot.arrays.items()
        }
        arrays |= {PARAMETER: looked.memory} | engine.states.group
        own = ((PARAMETER, looked.storage),) if looked.storage else ()
        tensor = interp.Tensor(slot.t, arrays, (*own, *slot.storages))
        values = interp.evaluated(rule, sets[hypers.number(places[i], looked.compute)][slot.t], tensor)
        codes = encoded(looked.storage, values).view(looked.memory.dtype) if looked.storage else values
        computed.append((looked, codes))

    def work() -> bool:
        for looked, values in computed:
            looked.memory[...] = values
            if looked.restore is not None:
                looked.restore()
        if library.mark_changed is not None:
            library.mark_changed([given[i] for i in begun])
        return True

    return lambda: to_its_end(work)
