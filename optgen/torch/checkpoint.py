"""Checks of a saved state before it is loaded: does it belong to this rule, and fit these parameters?

In: a state dict, and the groups it is to be loaded into. Out: the same by the names that this rule has, or a StateError
that names the parameter.

A state that says which rule it is of is taken at its word. Where it does not, as one of PyTorch's own optimisers, what
it holds is compared with what other rules would hold. Keys and states that no rule has are the caller's, and are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch

from .. import interpreter as interp
from ..compiler.catalogue import shipped_rules
from ..errors import StateError
from ..ir.expr import Extent
from ..ir.rule import State
from ..ir.torch_names import torch_states
from ..optimiser.classes import shipped_class
from .naming import STEP, Kind
from .param_groups import Groups, called
from .tensors import has_memory, local

__all__ = ["expect_state", "fitting"]

#: What wrappers of modules put into the names of parameters.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


def expect_state(what: str, state: State, given: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if not isinstance(given, torch.Tensor) or tuple(given.shape) != shape:
        got = f"shape {tuple(given.shape)}" if isinstance(given, torch.Tensor) else type(given).__name__
        message = f"{what}: shape {shape} was expected, got {got}"
        raise StateError(message, hint="give the parameters in the order in which they were saved")
    if given.layout is not torch.strided or given.device.type != "cpu" or not has_memory(local(given)):
        got = f"{type(given).__name__} of {given.layout} on {given.device}"
        raise StateError(f"{what}: a dense tensor in memory of the CPU was expected, got {got}")
    if state.extent == Extent.ELEMENT and given.dtype is not dtype:
        hint = "convert the state, or the model, first"
        raise StateError(f"{what}: {dtype}, as the parameter, was expected, got {given.dtype}", hint=hint)


def fitting(kind: Kind, own: Sequence[Mapping[str, Any]], saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved state whose groups have the keys of this rule.

    Parameters
    ----------
    own
        The groups that it is to be loaded into.

    Raises
    ------
    StateError
        Unless it is of this rule, and of the parameters in these groups.
    """
    _expect_layout(own, saved)
    groups = [dict(group) for group in saved["param_groups"]]
    guess = not _says_its_rule(kind, saved)
    for i, other in enumerate(groups):
        kind.respell(other)
        _expect_hypers(kind, other, i, guess=guess)
    reader, number = Groups(kind), 0
    for i, (group, other) in enumerate(zip(own, groups, strict=True)):
        needed = _needed(kind, reader.variants_of(other, i))
        names, saved_names = group.get("param_names"), other.get("param_names")
        for j, (p, q) in enumerate(zip(group["params"], other["params"], strict=True)):
            what = called(own, number)
            number += 1
            if names and saved_names and _unwrapped(names[j]) != _unwrapped(saved_names[j]):
                message = f"{what}: a state of that name was expected, got one of {saved_names[j]}"
                raise StateError(message, hint="give the parameters in the order in which they were saved")
            _expect_states(kind, what, p, saved["state"].get(q) or {}, needed[p.dim() >= 2], guess=guess)
    return {**saved, "param_groups": groups}


def _expect_layout(own: Sequence[Mapping[str, Any]], saved: Mapping[str, Any]) -> None:
    """StateError unless it is a state dict with as many groups and parameters."""
    if not (isinstance(saved, Mapping) and {"state", "param_groups"} <= saved.keys()):
        got = ", ".join(map(str, list(saved)[:3])) or "nothing" if isinstance(saved, Mapping) else type(saved).__name__
        raise StateError(f"a state dict of an optimiser, with state and param_groups, was expected, got {got}")
    sizes, theirs = [len(g["params"]) for g in own], [len(g["params"]) for g in saved["param_groups"]]
    if len(theirs) != len(sizes):
        message = f"loaded state dict has a different number of parameter groups: {len(theirs)}, not {len(sizes)}"
        raise StateError(message, hint="make the optimiser with the groups that it was saved with")
    for i, (size, other) in enumerate(zip(sizes, theirs, strict=True)):
        if size != other:
            theirs_say = "contains a parameter group that doesn't match the size of optimizer's group"
            raise StateError(f"loaded state dict {theirs_say}: group {i} has {size} parameters, got {other}")


def _says_its_rule(kind: Kind, saved: Mapping[str, Any]) -> bool:
    """Whether it names its rule. StateError if that is not this one, and none that is loaded as this one."""
    name = saved.get("rule")
    if name is not None and name != kind.name and not kind.strategy.loads_as(name):
        raise StateError(f"a state of {kind.name} was expected, got one of {name}")
    return name is not None


def _expect_hypers(kind: Kind, saved: Mapping[str, Any], i: int, *, guess: bool) -> None:
    """StateError if a saved group lacks a hyperparameter of this rule. `guess`: or has those of another one."""
    absent = [key for key in kind.hypers.values() if key not in saved]
    if absent:
        doubt = "is it of another rule?" if guess else "was it saved as a whole?"
        raise StateError(f"group {i}: {kind.name} has {absent[0]!r}, and the saved one has not; {doubt}")
    if guess:
        kind.strategy.expect_own(kind.name, saved, i)


def _expect_states(
    kind: Kind, what: str, p: torch.Tensor, kept: Mapping[str, Any], needed: Sequence[str], *, guess: bool
) -> None:
    """StateError unless a parameter may have these states."""
    named = {key: state for rule in kind.rules for state, key in kind.own_states(rule)}
    begun = any(key == STEP or key in named for key in kept) or (kept and kind.strategy.counts_whatever_is_kept)
    for key in needed if begun else ():
        if kept.get(key) is None:
            hint = "a parameter that was stepped has all its states; was it saved as a whole?"
            raise StateError(f"{what}: its state {key!r} of {kind.name} is not there", hint=hint)
    unseen = p.device.type == "meta" or not has_memory(local(p))  # PyTorch's own loop steps it
    for key, value in kept.items():
        if key in named and value is not None and not unseen:
            shape = interp.shape_of(named[key].extent, tuple(p.shape), kind.rules[0].rows)
            given = value.cpu() if isinstance(value, torch.Tensor) else value
            expect_state(f"{what}: {key}", named[key], given, shape, p.dtype)
        elif guess and key not in named and key in _states_of_rules():
            raise StateError(f"{what}: {kind.name} has no state {key!r}; is this of another rule?")


def _needed(kind: Kind, variants: Mapping[bool, int] | None) -> dict[bool, list[str]]:
    """What a state must have, by whether the parameter is a matrix. Momentum may come and go, so a rule that does not
    count may have begun without."""
    needed: dict[bool, list[str]] = {False: [], True: []}
    for matrix, variant in (variants or {}).items() if kind.counted else ():
        needed[matrix] = [STEP, *(key for _, key in kind.own_states(kind.rules[variant]))]
    return needed


def _unwrapped(name: str) -> str:
    """The name that a parameter has in the module itself."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


@cache
def _states_of_rules() -> frozenset[str]:
    """What PyTorch would call the states of all rules that ship."""
    rules = [rule for name in shipped_rules() for rule in shipped_class(name)._compilation.rules]
    return frozenset(torch_states(rule).get(state.name, state.name) for rule in rules for state in rule.states) - {STEP}
