"""Acceptance: the checks of parameters and inputs that no step plan knows.

In: a list of parameters and inputs, and the four collaborators of the step engine that know of them. Out: those that
are chosen of the list as members, with the sets of hyperparameters that they go by; or an error. No parameter, state
or count has changed then, and no slot is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

from ..errors import ArrayError
from ..frozen import frozen
from ..ir.evaluate import HyperValues, ValuesByCount, with_numbers
from ..ir.expr import PARAMETER
from ..ir.rule import Rounding, Rule, Storages
from .array_library import ArrayLibrary, Looked
from .arrays import Array
from .collaborators import Hypers, StateStore
from .lacking import Lacking, refuse_read
from .members import Accepted, Member
from .overlaps import refuse_overlaps
from .phases import another_list, is_between_phases
from .shapes import refuse_sides

__all__ = ["Acceptance", "changed_by_schedule"]

#: Kernels number elements by 32 bits where they round.
MOST_ROUNDED = 2**32


@frozen
class Acceptance:
    """The checks of one list, for one step.

    Attributes
    ----------
    library, hypers, states
        As those of the step engine.
    phase
        The number of the phase of the step.
    lacking
        Inputs with something else in their place.
    places
        Where the parameters stand among all of the optimiser.
    params, inputs, numbers
        As the step is given them.
    """

    library: ArrayLibrary
    hypers: Hypers
    states: StateStore
    phase: int
    lacking: Sequence[Lacking]
    places: Sequence[int]
    params: list[Any]
    inputs: list[Any]
    numbers: HyperValues

    def of(self, chosen: Sequence[int], *, by_kernel: bool) -> Accepted:
        """Those of the list at the positions `chosen`, after every check. Their slots are not kept yet."""
        library, hypers, compilation = self.library, self.hypers, self.hypers.compilation
        given, at = [self.params[i] for i in chosen], [self.places[i] for i in chosen]
        coded = by_kernel or not compilation.rules[0].multiplies
        ps = [library.parameter(p, i, len(chosen), coded=coded) for i, p in enumerate(given)]
        shapes = [hypers.variant(place, p.shape) for place, p in zip(at, ps, strict=True)]
        variants = [compilation.in_phase(variant, self.phase) for variant in shapes]
        rules = [compilation.rules[variant] for variant in variants]
        sizes = [partial(hypers.block, place, rule) for place, rule in zip(at, rules, strict=True)]
        for place, p, rule, block in zip(at, given, rules, sizes, strict=True):
            library.expect_whole(rule, p, place, block, by_kernel=by_kernel)
        arrays = self._inputs(chosen, ps, rules)
        found = self._slots(given, ps, rules, at)
        # Before memory is taken for new states: a refused step should not take it.
        self._refuse_overlaps(ps, arrays, found, rules)
        sets = self._sets(ps, arrays, found)
        members, ordinals = [], self.states.ordinals(found)
        for i, slot in enumerate(found):
            memory, dtype = ps[i].memory, ps[i].compute
            number = hypers.number(at[i], dtype)
            first = sets[number][(slot.t if slot else 0) + 1]
            if rules[i].multiplies:
                refuse_sides(rules[i], first, ps[i].shape, self.hypers.what(at[i]))
            slot = self.states.begin(slot, given[i], memory, rules[i], first, ordinals[i])
            own, elements = [each[i] for each in arrays], sizes[i](memory.shape)
            kept = zip((PARAMETER, *rules[i].given_arrays), (ps[i], *own), strict=True)
            given_in = [(name, x.storage) for name, x in kept if x.storage]
            storages = (*given_in, *slot.storages)
            rounding = _rounding(hypers.rounding(at[i], rules[i]), storages, memory, i)
            members.append(Member(given[i], ps[i], own, variants[i], dtype, number, slot, elements, storages, rounding))
        if self.lacking:
            who = [(id(p), place) for p, place in zip(given, at, strict=True)]
            refuse_read(self.lacking, who, members, compilation.rules, sets)
        return Accepted(members, sets)

    def _inputs(self, chosen: Sequence[int], ps: Sequence[Looked], rules: Sequence[Rule]) -> list[list[Looked]]:
        """The gradients of those that are chosen, then each further input of them."""
        if not chosen:
            return []
        names = self.hypers.compilation.rules[0].given_arrays
        return [
            [
                self.library.given(self.inputs[first + i], self.params[i], p, number, len(chosen), rule=rule, name=name)
                for number, (i, p, rule) in enumerate(zip(chosen, ps, rules, strict=True))
            ]
            for name, first in zip(names, range(0, len(self.inputs), max(1, len(self.params))), strict=True)
        ]

    def _slots(self, given: Sequence[Any], ps: Sequence[Looked], rules: Sequence[Rule], at: Sequence[int]) -> list[Any]:
        """The slot of each parameter; None for one that was never stepped, which no step takes that has begun."""
        found = self.states.find(given, [p.memory for p in ps], rules, at)
        if is_between_phases(self.states.group) and not all([self.states.has_begun(slot) for slot in found]):
            compilation = self.hypers.compilation
            raise another_list(compilation.name, compilation.phases, self.phase)
        return found

    def _refuse_overlaps(
        self, ps: Sequence[Looked], arrays: Sequence[Sequence[Looked]], found: Sequence[Any], rules: Sequence[Rule]
    ) -> None:
        kept = [self.library.memory(x) for slot in found if slot for x in slot.arrays.values()]
        overwrites = any([rule.overwrites for rule in rules])
        lacking = {each.name for each in self.lacking}  # with gradients in their place
        names = self.hypers.compilation.rules[0].given_arrays
        looked = [own for name, own in zip(names, arrays, strict=False) if name not in lacking]
        gs, *others = [[x.memory for x in own] for own in looked] or [[]]
        memory = [p.memory for p in ps]
        refuse_overlaps(memory, gs, kept, list(chain.from_iterable(others)), overwrites=overwrites)

    def _sets(
        self, ps: Sequence[Looked], arrays: Sequence[Sequence[Looked]], found: Sequence[Any]
    ) -> Sequence[ValuesByCount]:
        """The sets of hyperparameters for these slots, with the numbers of the step; every one of them fits."""
        hypers, reader = self.hypers, self.library.reader
        seen = [x.seen for x in (*ps, *chain.from_iterable(arrays))] if hypers.fixed is None else []
        before = [(reader.mark(x), reader.address(x)) for x in seen]
        sets = hypers.sets_at(found)
        if before != [(reader.mark(x), reader.address(x)) for x in seen]:
            raise changed_by_schedule()
        hypers.refuse_vanishing({p.compute for p in ps}, sets)
        return with_numbers(sets, self.numbers) if self.numbers else sets


def _rounding(chosen: Rounding, storages: Storages, p: Array, number: int) -> Rounding:
    """Those arrays of a parameter that are rounded stochastically; ArrayError if it has too many elements for that."""
    stored = dict(storages)
    found = tuple(each for each in chosen if each[0] in stored)
    if found and p.size > MOST_ROUNDED:
        message = f"parameter {number}: expected at most {MOST_ROUNDED} elements to round stochastically, got {p.size}"
        raise ArrayError(message, hint='step it in parts, or give rounding="nearest"')
    return found


def changed_by_schedule() -> ArrayError:
    """The error for arrays that are others after schedules were called, which are anybody's code."""
    message = "expected arrays that stay what they are in a step, got one that changed while schedules were called"
    return ArrayError(message, hint="leave the arrays of a step alone until it is through")
