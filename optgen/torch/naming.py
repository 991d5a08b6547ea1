"""The names that PyTorch has for the hyperparameters and states of a rule.

In: a compiled rule. Out: a `Kind`, which stays the same while its optimisers step.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..compiler.driver import Compilation
from ..frozen import frozen
from ..ir.expr import Extent
from ..ir.rule import Rule, State
from .strategies import Strategy

__all__ = ["STEP", "Kind"]

#: What PyTorch calls the count of updates among the states.
STEP = "step"
#: Rules whose states have no count in PyTorch: whether there has been a step shows in them.
_UNCOUNTED = {"SGD"}


@frozen
class Kind:
    """A rule and its names in PyTorch.

    Attributes
    ----------
    module
        The file of optgen's own class, if it was built.
    strategy
        What depends on whether PyTorch has this rule too.
    hypers
        By its name in the spec, what a group calls a hyperparameter.
    states
        States that have another name than in the spec.
    keys
        What of a group decides about a step.
    """

    compilation: Compilation
    module: str | None
    strategy: Strategy
    hypers: dict[str, str]
    states: dict[str, str]
    keys: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.compilation.name

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self.compilation.rules

    @property
    def grouped(self) -> bool:
        """Whether a value of a step depends on all parameters together."""
        return any(rule.grouped for rule in self.rules)

    @property
    def overwrites(self) -> bool:
        """Whether a step leaves something else in the gradients than they were."""
        return any(rule.overwrites for rule in self.rules)

    @property
    def counted(self) -> bool:
        """Whether the states have a count."""
        return self.name not in _UNCOUNTED

    def key(self, state: str) -> str:
        """What a state of the spec is called."""
        return self.states.get(state, state)

    def own_states(self, rule: Rule) -> Iterator[tuple[State, str]]:
        """The states that each parameter has in a variant, and what they are called."""
        for state in rule.states:
            if state.extent > Extent.GROUP:
                yield state, self.key(state.name)
