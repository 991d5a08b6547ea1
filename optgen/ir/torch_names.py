"""What PyTorch calls the hyperparameters and states of a rule.

In: a rule. Out: PyTorch's names by those of the spec. PyTorch itself is not needed to know them, so that signatures can
be written where it is absent.
"""

from __future__ import annotations

from .rule import Rule

__all__ = ["torch_names", "torch_states"]

#: What PyTorch calls a hyperparameter that specs call otherwise.
_HYPERS = {"eta": "lr"}
#: By the name of a rule: what PyTorch calls a state that the spec calls otherwise.
_STATES = {"Adagrad": {"state_sum": "sum"}}


def torch_names(rule: Rule) -> dict[str, str]:
    """By its name in the spec, what each hyperparameter is called: as in PyTorch, unless another one has that name."""
    own = [hyper.name for hyper in rule.hypers]
    return {name: name if (theirs := _HYPERS.get(name, name)) in own else theirs for name in own}


def torch_states(rule: Rule) -> dict[str, str]:
    """The states that have another name in PyTorch than in the spec."""
    return _STATES.get(rule.name, {})
