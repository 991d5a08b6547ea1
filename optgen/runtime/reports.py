"""Reports: what the last step has computed and nobody keeps, read where the step has left it.

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
from ..ir.expr import Extent, extent_of
from ..ir.rule import Rule
from .array_library import ParameterSlot
from .binding import Binding
from .bound import BoundKernels

__all__ = ["Reports", "is_shared", "last_reports", "of_interpreter", "of_kernels"]

#: The extents of which a tensor keeps several values, in the order in which they lie.
_SEVERAL = (Extent.MATRIX, Extent.ROW, Extent.COLUMN)


def is_shared(extent: Extent) -> bool:
    """Whether a report of this extent is one for all parameters of a step."""
    return extent <= Extent.GROUP


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
        chosen = [each.name for each in self.rules[i].reports if is_shared(each.extent) is shared]
        values = self.values(i) if chosen else {}
        return {name: values[name] for name in chosen}


def last_reports(last: Sequence[Reports] | None, rules: Sequence[Rule]) -> Sequence[Reports]:
    """What the last step reports; StateError if there was none, and the rule would report something."""
    if last is None and any([rule.reports for rule in rules]):
        message = f"{rules[0].name}: expected a report of the last step, and there was none yet"
        raise StateError(message, hint="step first: opt.step(...), then opt.report()")
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
    pairs = zip(bound.bindings, bound.order, strict=True)
    found = {int(i): (binding, row) for binding, own in pairs for row, i in enumerate(own)}
    return Reports(rules, [ref(slot.owner) for slot in slots], lambda i: _from_kernel(*found[i], rules[i]))


def _from_kernel(binding: Binding, row: int, checked: Rule) -> dict[str, Any]:
    """The reports of one tensor, where the last step of its binding has left them.

    `checked`: its rule before the passes, after which a value may have lesser extent.
    """
    kernel = binding.kernel
    extents = {a.target: extent_of(a.value) for a in (*kernel.rule.scalars, *kernel.rule.body)}
    shape, block = binding.rows[row].form.shape, binding.rows[row].form.block

    def shape_of(extent: Extent) -> tuple[int, ...]:
        return interp.shape_of(extent, shape, checked.matrices, block)

    def value(name: str, declared: Extent) -> Any:
        extent = extents[name]
        if extent <= Extent.STEP:
            found: Any = binding.scalar(row, name)
        elif extent == Extent.GROUP:
            found = float(binding.group_values[kernel.group.places[name]])
        elif extent == Extent.TENSOR:
            found = float(binding.cells[row, kernel.group.cells[name]])
        else:
            found = _several(binding, row, name, extent).reshape(shape_of(extent))
        if declared <= Extent.TENSOR:
            return found
        return np.array(np.broadcast_to(found, shape_of(declared)))

    return {report.name: value(report.value, report.extent) for report in checked.reports}


def _several(binding: Binding, row: int, name: str, extent: Extent) -> Any:
    """The values of matrices, rows, columns or blocks in the space of a tensor."""
    own = binding.rows[row]
    count, number = own.form.counts[extent], binding.kernel.sweeps.small(extent).index(name)
    begins = dict(zip(_SEVERAL, [*accumulate(own.form.numbers)][1:], strict=False))
    begin = begins[Extent.ROW if extent == Extent.BLOCK else extent] + number * count
    return own.space[begin : begin + count]
