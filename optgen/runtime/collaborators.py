"""What the step engine asks of those who know hyperparameters, states, and who steps what.

In: nothing; these are protocols. `array_library` has the one for arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any, Protocol

from ..compiler.driver import Compilation
from ..ir.evaluate import HyperValues, ValuesByCount
from ..ir.rule import Rounding, Rule
from .array_library import ParameterSlot
from .arrays import Array
from .members import Member

__all__ = ["Hypers", "StateStore", "Ways"]


class Hypers(Protocol):
    """What a step asks of the hyperparameters of an optimiser.

    Attributes
    ----------
    compilation
        The rule, in all its variants.
    fixed
        The sets of hyperparameters, each by count; None while a value is a function of the step.
    """

    @property
    def compilation(self) -> Compilation: ...
    @property
    def fixed(self) -> Sequence[ValuesByCount] | None: ...
    def sets_at(self, slots: Sequence[ParameterSlot | None], ahead: int = 1) -> Sequence[ValuesByCount]:
        """The sets for parameters with these states, None for one that was never stepped: for the next update, or of
        the last one, which is 0 `ahead`."""

    def number(self, place: int, dtype: str) -> int:
        """Which of the sets the parameter in this place goes by, in a compute type."""

    def what(self, place: int) -> str:
        """What the parameter in this place is called in messages."""

    def variant(self, place: int, shape: tuple[int, ...]) -> int:
        """The position of the variant for a parameter of this shape; ArrayError if there is none."""

    def block(self, place: int, rule: Rule, shape: tuple[int, ...]) -> int:
        """How many elements a block of the parameter in this place has, of this shape; 0 if the rule has none.
        HyperparameterError if that is no such number."""

    def rounding(self, place: int, rule: Rule) -> Rounding:
        """Those arrays of the parameter in this place that are rounded stochastically where they are in a storage."""

    def known_to_fit(self, dtypes: Set[str]) -> bool:
        """Whether every constant of the rule is known to be representable in these dtypes."""

    def refuse_vanishing(self, dtypes: Set[str], sets: Sequence[ValuesByCount]) -> None:
        """HyperparameterError if a constant of the rule is not zero, but would be in one of these dtypes."""


class StateStore(Protocol):
    """Where the states of an optimiser are kept.

    Attributes
    ----------
    group
        The states of all parameters together; empty before the first step.
    by_identity
        Whether a parameter is the same object in every step.
    """

    group: dict[str, Array]
    by_identity: bool

    def find(
        self, given: Sequence[Any], ps: Sequence[Array], rules: Sequence[Rule], places: Sequence[int]
    ) -> list[Any]:
        """The slot of each parameter, None for one that was never stepped; an error if one does not fit. Nothing is
        changed."""

    def has_begun(self, slot: Any) -> bool:
        """Whether the parameter was stepped before. `slot`: what `find` gave."""

    def ordinals(self, found: Sequence[Any]) -> list[int]:
        """Of each of these slots, as `find` gave them, which parameter of the optimiser it is of, from 0."""

    def begin(self, slot: Any, given: Any, p: Array, rule: Rule, values: HyperValues, ordinal: int) -> Any:
        """The slot of a parameter with all its states; `slot` is what `find` gave. It is not kept yet."""

    def registration(self, members: Sequence[Member]) -> tuple[Callable[[], None], Callable[[], None]]:
        """What keeps the slots of these, which are about to step, and what undoes it, however far that has come: an
        interrupt may break it off anywhere."""

    def bound(self, slots: Any) -> Any:
        """The states of these slots as `BoundStates`."""

    def has_others(self, slots: Any) -> bool:
        """Whether a value of all parameters together lacks some, if these are stepped."""


class Ways(Protocol):
    """Who steps which parameter.

    Attributes
    ----------
    interprets
        Whether the interpreter steps what kernels do not; else the array library does.
    by_programs
        Whether programs step in the place of the interpreter where a rule has products of matrices.
    """

    interprets: bool
    by_programs: bool

    def divided(self, places: Sequence[int], params: list[Any], inputs: list[Any]) -> tuple[list[int], list[int]]:
        """Positions in the list of the parameters that kernels step, and of the others; an error for one that nothing
        steps. `places`: where these stand among all parameters of the optimiser."""

    def step_foreign(self, params: Sequence[Any]) -> None:
        """One step of these by the array library."""
