"""The lines of a split: what makes the optimiser of each, and what they have in common.

In: what a caller gave for a line; the optimisers of all. Out: options, defaults, and the inputs that each line takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from ..errors import ArgumentError, shown
from ..optimiser.base import Optimiser
from ..optimiser.chain import Chain
from ..optimiser.division import SplitLine, in_line
from ..optimiser.inputs import respelled
from ..runtime.phases import expect_one_phase
from .classes import chain
from .inputs import LOSS
from .optimizer import Adapter, naming_of, step_of
from .options import ChainOptions, Options

__all__ = ["LINE", "RULE", "inputs_of_lines", "options_of", "respell_momentum", "shared_defaults", "step_line"]

#: What a group of a split has besides: the name of its line, and that of its rule.
LINE, RULE = "line", "rule"


def options_of(line: SplitLine) -> Any:
    """What makes the optimiser of a line."""
    rule = line.rule
    if isinstance(rule, Chain):
        rule = ChainOptions(rule, chain)
    if isinstance(rule, Options | ChainOptions):
        phases = naming_of(rule.cls).rules[0].phases if isinstance(rule, Options) else rule.core.rule.phases
        expect_one_phase(f"split: {line.name}", rule.name, phases)
        return rule
    hint = f"{line.name}=optgen.torch.AdamW.options(lr=1e-3)"
    got = shown(rule)
    if isinstance(rule, type) and issubclass(rule, Adapter):
        got, hint = f"the class {rule.__name__}", f"{line.name}=optgen.torch.{rule.__name__}.options()"
    elif isinstance(rule, Optimizer):
        got = f"an optimiser, {type(rule).__name__}, which has parameters already"
    elif isinstance(rule, Optimiser):
        got, hint = f"{type(rule).__name__} for NumPy", f"optgen.torch.{type(rule).__name__}.options(...), or a chain"
    raise ArgumentError(f"split: {line.name}: expected options of a rule, got {got}", hint=hint)


def shared_defaults(members: Sequence[Adapter]) -> dict[str, Any]:
    """What all lines have a default for, with that of the first. Schedulers that cycle the momentum look for it here:
    where not all have `betas`, they find `momentum`."""
    first, *others = [member.defaults for member in members]
    shared = {key: value for key, value in first.items() if all(key in other for other in others)}
    cycled = [other for other in (first, *others) if other.keys() & {"betas", "momentum"}]
    return shared | ({"momentum": 0.0} if cycled and not shared.keys() & {"betas", "momentum"} else {})


def respell_momentum(keys: Sequence[str], groups: Sequence[dict[str, Any]]) -> None:
    """What a scheduler has set as `momentum` is the first of the betas of a rule that has these."""
    if "betas" in keys and "momentum" not in keys:
        for group in groups:
            if "momentum" in group:
                group["betas"] = (group.pop("momentum"), *group["betas"][1:])


def inputs_of_lines(members: Sequence[Adapter], given: Mapping[str, Any], loss: Any) -> list[dict[str, Any]]:
    """Of what a step is given, what each line takes; ArgumentError for what none does."""
    names = [{each.name for each in naming_of(member).inputs} for member in members]
    given = respelled(given, set().union(*names)) if given else given
    given = given if loss is None else {LOSS: loss, **given}
    return [{name: value for name, value in given.items() if name in own} for own in names]


def step_line(member: Adapter, inputs: Mapping[str, Any]) -> None:
    with in_line(member.param_groups[0][LINE]):
        step_of(member)(**inputs)
