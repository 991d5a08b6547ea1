"""Reports: what the last step has computed and does not store, read where the step has left it.

In: the kernels of a step, or what the interpreter computed. Out: numbers and arrays by their names. A step costs
nothing for them but what it computes; the next step puts others in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any
from weakref import ref

import numpy as np

from .. import interpreter as interp
from ..errors import StateError
from ..frozen import frozen
from ..ir.expr import Extent, Matrices, extent_of
from ..ir.rule import Rule
from .array_library import ParameterSlot
from .binding import Binding
from .bound import BoundKernels

__all__ = ["Reports", "last_reports", "of_interpreter", "of_kernels"]

_STEP_FIRST = "step first: opt.step(...), then opt.report()"
#: The extents of which a tensor keeps several values, in the order in which they lie.
_SEVERAL = (Extent.MATRIX, Extent.ROW, Extent.COLUMN, Extent.INDEX)


@frozen
class Reports:
    """What a step of some parameters reports.

    Attributes
    ----------
    rules
        Of each parameter the variant of the rule that stepped it.
    owners
        What each parameter is known by, held weakly.
    values
        Gives the reports of parameter i by their names.
    """

    rules: Sequence[Rule]
    owners: Sequence[ref[Any]]
    values: Callable[[int], Mapping[str, Any]]

    def shared(self) -> dict[str, Any]:
        """Those that are one for all parameters, as the first one has them."""
        return self._chosen(0, shared=True) if self.owners else {}

    def of(self, owner: object) -> dict[str, Any] | None:
        """Those of one parameter alone; None if the step was not one of it."""
        found = next((i for i, each in enumerate(self.owners) if each() is owner), None)
        return None if found is None else self._chosen(found, shared=False)

    def each(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Those of every parameter alone, with what it is known by; those that live no more are left out."""
        for i, alive in enumerate(self.owners):
            if (owner := alive()) is not None:
                yield owner, self._chosen(i, shared=False)

    def _chosen(self, i: int, *, shared: bool) -> dict[str, Any]:
        chosen = [each.name for each in self.rules[i].reports if (each.extent <= Extent.GROUP) is shared]
        values = self.values(i) if chosen else {}
        return {name: values[name] for name in chosen}


def last_reports(last: Sequence[Reports] | None, rules: Sequence[Rule]) -> Sequence[Reports]:
    """What the last step reports; StateError if there was none, and the rule would report something."""
    if last is None and any([rule.reports for rule in rules]):
        message = f"{rules[0].name}: expected a report of the last step, and there was none yet"
        hint = "no whole step yet: a report comes with its last phase" if rules[0].phases else _STEP_FIRST
        raise StateError(message, hint=hint)
    return last or ()


def of_interpreter(
    rules: Sequence[Rule], slots: Sequence[ParameterSlot], values: Sequence[Mapping[str, Any]]
) -> Reports | None:
    """What the interpreter has computed, the reports of each parameter; None if these rules report nothing."""
    if not any([rule.reports for rule in rules]):
        return None
    return Reports(rules, [ref(slot.owner) for slot in slots], values.__getitem__)


def of_kernels(bound: BoundKernels, rules: Sequence[Rule], slots: Sequence[ParameterSlot]) -> Reports | None:
    """What kernels leave in the memory of their tensors; None if these rules report nothing."""
    if not any([rule.reports for rule in rules]):
        return None
    found: dict[int, tuple[Mapping[str, Callable[[int], Any]], int]] = {}
    for binding, own in zip(bound.bindings, bound.order, strict=True):
        readers = _readers(binding, rules[int(own[0])])
        found |= {int(i): (readers, row) for row, i in enumerate(own)}

    def values(i: int) -> dict[str, Any]:
        readers, row = found[i]
        return {name: read(row) for name, read in readers.items()}

    return Reports(rules, [ref(slot.owner) for slot in slots], values)


def _readers(binding: Binding, checked: Rule) -> dict[str, Callable[[int], Any]]:
    """What reads each report of a tensor, in a row of its binding, where the last step has left it.

    `checked`: its rule before the passes, after which a value may have lesser extent.
    """
    if not checked.reports:
        return {}
    lowered = binding.kernel.rule
    extents = {assign.target: extent_of(assign.value) for assign in (*lowered.scalars, *lowered.body)}
    readers: dict[str, Callable[[int], Any]] = {}
    for report in checked.reports:
        read = _reader(binding, report.value, extents[report.value], checked.matrices)
        several = report.extent > Extent.TENSOR
        readers[report.name] = _spread(binding, read, report.extent, checked.matrices) if several else read
    return readers


def _reader(binding: Binding, name: str, extent: Extent, matrices: Matrices) -> Callable[[int], Any]:
    """What reads a value of this extent in a row."""
    kernel = binding.kernel
    if extent <= Extent.STEP:
        number = [assign.target for assign in kernel.sweeps.scalars].index(name)
        return lambda row: binding.scalar(row, number)
    if extent == Extent.GROUP:
        place = kernel.group.places[name]
        return lambda _: float(binding.group_values[place])
    if extent == Extent.TENSOR:
        cell = kernel.group.cells[name]
        return lambda row: float(binding.cells[row, cell])
    return lambda row: _several(binding, row, name, extent).reshape(_shape(binding, row, extent, matrices))


def _spread(
    binding: Binding, read: Callable[[int], Any], extent: Extent, matrices: Matrices
) -> Callable[[int], Any]:  # fmt: skip
    """What reads a copy with a value for each of this extent, of which there may be fewer."""
    return lambda row: np.array(np.broadcast_to(read(row), _shape(binding, row, extent, matrices)))


def _shape(binding: Binding, row: int, extent: Extent, matrices: Matrices) -> tuple[int, ...]:
    form = binding.rows[row].form
    return interp.shape_of(extent, form.shape, matrices, form.block)


def _several(binding: Binding, row: int, name: str, extent: Extent) -> Any:
    """The values of matrices, rows, columns, indices or blocks in the space of a tensor."""
    own = binding.rows[row]
    count, number = own.form.counts[extent], binding.kernel.sweeps.small(extent).index(name)
    begins = dict(zip(_SEVERAL, [*accumulate(own.form.numbers)][1:], strict=False))
    begin = begins[Extent.ROW if extent == Extent.BLOCK else extent] + number * count
    return own.space[begin : begin + count]
