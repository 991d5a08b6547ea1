"""The names that PyTorch has for the hyperparameters and states of a rule.

In: a compiled rule. Out: a `Naming`, which stays the same while its optimisers step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..compiler.driver import Compilation
from ..errors import ArgumentError
from ..frozen import frozen, replace
from ..ir.draws import SEED
from ..ir.expr import Extent, Matrices
from ..ir.rule import Aspect, Input, Rule, State
from ..ir.torch_names import torch_spellings
from ..optimiser.hyperparameters import other_lengths
from ..runtime.shapes import aspect_of
from .storing import NOTHING, Storing
from .strategies import Strategy

__all__ = ["STEP", "Naming"]

#: What PyTorch calls the count of updates among the states.
STEP = "step"
#: Rules whose states have no count in PyTorch: whether there has been a step shows in them.
_UNCOUNTED = {"Muon", "SGD"}


_NO_MEANING: Mapping[str, str] = {}


@frozen
class Naming:
    """A rule and its names in PyTorch.

    Attributes
    ----------
    module
        The file of optgen's own class, if it was built.
    strategy
        What depends on whether PyTorch has this rule too.
    hypers, flags
        By its name in the spec, what a group calls a hyperparameter or a flag.
    states
        States that have another name than in the spec.
    spellings
        What a group may say instead: the key that is meant, and the position of one value in it, or None.
    absent
        Of `ABSENT`, what the rule does not have.
    keys
        What of a group decides about a step.
    meaning
        Of a flag that a group says in words, the word that sets it.
    storing
        In what dtype states are kept, and what is rounded stochastically.
    """

    compilation: Compilation
    module: str | None
    strategy: Strategy
    hypers: Mapping[str, str]
    flags: Mapping[str, str]
    states: Mapping[str, str]
    spellings: Mapping[str, tuple[str, int | None]]
    absent: Mapping[str, float]
    keys: tuple[str, ...]
    meaning: Mapping[str, str] = _NO_MEANING
    storing: Storing = NOTHING

    @property
    def name(self) -> str:
        return self.compilation.name

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self.compilation.rules

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What a step is given beside gradients."""
        return self.rules[0].inputs

    def aspect_of(self, p: Any) -> Aspect:
        """What a parameter is to the rule."""
        return aspect_of(tuple(p.shape), self.matrices)

    def rules_for(self, p: Any) -> list[Rule]:
        """The variants that a parameter may be stepped in."""
        return [rule for rule in self.rules if rule.takes(self.aspect_of(p))]

    @property
    def multiplies(self) -> bool:
        """Whether a step has products of whole matrices, which no kernel computes."""
        return any(rule.multiplies for rule in self.rules)

    @property
    def grouped(self) -> bool:
        """Whether a value of a step depends on all parameters together."""
        return any(rule.grouped for rule in self.rules)

    @property
    def matrices(self) -> Matrices:
        """How a parameter of more than two dimensions is seen as matrices."""
        return self.rules[0].matrices

    @property
    def overwrites(self) -> bool:
        """Whether a step leaves something else in the gradients than they were."""
        return any(rule.overwrites for rule in self.rules)

    @property
    def counted(self) -> bool:
        """Whether the states have a count."""
        return self.name not in _UNCOUNTED

    def fitted(self, given: Mapping[str, Any]) -> Naming:
        """The same for a rule whose hyperparameters have as many values as are given, by the names that groups have."""
        rule = self.rules[0]
        values = {hyper.name: given[self.hypers[hyper.name]] for hyper in rule.hypers}
        made = self.compilation.of_lengths(other_lengths(rule, values))
        if made is self.compilation:
            return self
        spelled = torch_spellings(made.rules[0], {**self.hypers, **self.flags})
        return replace(self, compilation=made, module=None, spellings=spelled)

    def stored(self, storing: Storing) -> Naming:
        """The same with states kept so. What is rounded stochastically has a seed, and the number of each parameter."""
        if storing is NOTHING:
            return self
        made = replace(self, storing=storing)
        if not storing.rounding or SEED.name in self.hypers:
            return made
        hypers, keys = {**self.hypers, SEED.name: SEED.name}, (*self.keys, SEED.name)
        return replace(made, compilation=self.compilation.rounded, module=None, hypers=hypers, keys=keys)

    def key(self, state: str) -> str:
        """What a state of the spec is called."""
        return self.states.get(state, state)

    def own_states(self, rule: Rule) -> Iterator[tuple[State, str]]:
        """The states that each parameter has in a variant, and what they are called."""
        for state in rule.states:
            if state.extent > Extent.GROUP:
                yield state, self.key(state.name)

    def spelled(self, given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
        """What a caller gave in any spelling, by the keys that groups have; `usual` has what is not given of betas.

        Raises
        ------
        ArgumentError
            For what is given twice.
        """
        made = {key: value for key, value in given.items() if key not in self.spellings}
        seen: set[tuple[str, int | None]] = {(key, None) for key in made}
        for spelled in given.keys() & self.spellings.keys():
            key, index = self.spellings[spelled]
            if seen & {(key, None), (key, index)} or (index is None and key in made):
                raise ArgumentError(f"{self.name}: {key} is given twice, once as {spelled!r}")
            seen.add((key, index))
            self._put(made, key, index, given[spelled], usual)
        return made

    def respell(self, group: dict[str, Any]) -> None:
        """Gives what a group has in another spelling the key that groups have, in place: what was set last counts."""
        for spelled in [key for key in group if key in self.spellings]:
            key, index = self.spellings[spelled]
            self._put(group, key, index, group.pop(spelled), group)
        for key, value in self.absent.items():
            group.setdefault(key, value)

    @staticmethod
    def _put(into: dict[str, Any], key: str, index: int | None, value: Any, usual: Mapping[str, Any]) -> None:
        if index is not None:
            values = list(into.get(key, usual[key]))
            values[index] = value
            value = tuple(values)
        into[key] = value
