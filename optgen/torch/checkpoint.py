"""Checks of a saved state before it is loaded: does it belong to this rule, and fit these parameters?

In: a state dict, and the groups it is to be loaded into. Out: nothing, or a StateError that names the parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from .. import interpreter as interp
from ..errors import StateError
from ..ir.expr import Extent
from ..ir.rule import State
from .naming import STEP, Kind
from .param_groups import Groups
from .tensors import has_memory, local

__all__ = ["expect_fit", "expect_state"]


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


def expect_fit(
    kind: Kind,
    own: Sequence[Mapping[str, Any]],
    defaults: Mapping[str, Any],
    saved: Mapping[str, Any],
    called: Callable[[int], str],
) -> None:
    """StateError unless a saved state is of this rule, and of the parameters in the groups `own`. `called`: what
    parameter i is called, counted over all groups."""
    if not (isinstance(saved, Mapping) and {"state", "param_groups"} <= saved.keys()):
        got = ", ".join(map(str, list(saved)[:3])) or "nothing" if isinstance(saved, Mapping) else type(saved).__name__
        raise StateError(f"a state dict of an optimiser, with state and param_groups, was expected, got {got}")
    name, groups = kind.name, saved["param_groups"]
    if saved.get("rule", name) != name:
        raise StateError(f"a state of {name} was expected, got one of {saved['rule']}")
    sizes, theirs = [len(g["params"]) for g in own], [len(g["params"]) for g in groups]
    if len(theirs) != len(sizes):
        message = f"loaded state dict has a different number of parameter groups: {len(theirs)}, not {len(sizes)}"
        raise StateError(message, hint="make the optimiser with the groups that it was saved with")
    for i, (size, other) in enumerate(zip(sizes, theirs, strict=True)):
        if size != other:
            theirs_say = "contains a parameter group that doesn't match the size of optimizer's group"
            raise StateError(f"loaded state dict {theirs_say}: group {i} has {size} parameters, got {other}")
    for i, group in enumerate(groups):
        _expect_rule(kind, defaults, group, i)
    named = {key: state for rule in kind.rules for state, key in kind.own_states(rule)}
    number = 0
    reader = Groups(kind)
    for i, (group, other) in enumerate(zip(own, groups, strict=True)):
        needed = _needed(kind, reader.variants_of(other, i))
        names, saved_names = group.get("param_names"), other.get("param_names")
        for j, (p, q) in enumerate(zip(group["params"], other["params"], strict=True)):
            what = called(number)
            number += 1
            if names and saved_names and names[j] != saved_names[j]:
                message = f"{what}: a state of that name was expected, got one of {saved_names[j]}"
                raise StateError(message, hint="give the parameters in the order in which they were saved")
            kept = saved["state"].get(q) or {}
            for key in needed[p.dim() >= 2] if kept else ():
                if kept.get(key) is None:
                    hint = "a parameter that was stepped has all its states; was it saved as a whole?"
                    raise StateError(f"{what}: its state {key!r} of {name} is not there", hint=hint)
            for key, value in kept.items():
                if key == STEP or value is None:
                    continue
                if key not in named:
                    raise StateError(f"{what}: {name} has no state {key!r}; is this of another rule?")
                if p.device.type == "meta" or not has_memory(local(p)):
                    continue  # PyTorch's own loop steps it
                shape = interp.shape_of(named[key].extent, tuple(p.shape), kind.rules[0].rows)
                given = value.cpu() if isinstance(value, torch.Tensor) else value
                expect_state(f"{what}: {key}", named[key], given, shape, p.dtype)


def _needed(kind: Kind, variants: Mapping[bool, int] | None) -> dict[bool, list[str]]:
    """What a state must have, by whether the parameter is a matrix. Momentum may come and go, so a rule that does not
    count may have begun without."""
    needed: dict[bool, list[str]] = {False: [], True: []}
    for matrix, variant in (variants or {}).items() if kind.counted else ():
        needed[matrix] = [STEP, *(key for _, key in kind.own_states(kind.rules[variant]))]
    return needed


def _expect_rule(kind: Kind, defaults: Mapping[str, Any], saved: Mapping[str, Any], i: int) -> None:
    """StateError if a saved group has not the hyperparameters of this rule, or those of another one."""
    name, own = kind.name, set(kind.hypers.values())
    absent = [key for key in own if key not in saved]
    if absent:
        raise StateError(f"group {i}: {name} has {absent[0]!r}, and the saved one has not; is it of another rule?")
    kind.strategy.expect_saved(name, kind.keys, defaults, saved, i)
