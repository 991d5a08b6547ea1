"""Checks of a saved state before it is loaded: does it belong to this rule, and fit these parameters?

In: a state dict, and the groups it is to be loaded into. Out: the same by the names that this rule has, or a StateError
that names the parameter.

A state that says which rule it is of is taken at its word. Where it does not, as one of PyTorch's own optimisers, what
it holds is compared with what other rules would hold. Keys and states that no rule has are the caller's, and are kept.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from ..compiler.catalogue import shipped_rules
from ..errors import ArgumentError, StateError, excerpt, shown
from ..ir.evaluate import HyperValues
from ..ir.expr import Extent, Ordinal
from ..ir.rule import Aspect, State
from ..ir.torch_names import torch_states
from ..optimiser.base import compilation_of
from ..optimiser.classes import shipped_class
from ..optimiser.state import MOST_UPDATES
from ..runtime.phases import expect_phase_number
from ..runtime.shapes import state_shape
from .naming import STEP, Naming
from .param_groups import Groups, called
from .phases import expect_numbers
from .saved_codes import converted, expect_storages, read_storages
from .state_dicts import BEGUN, OF_ALL
from .tensors import count_dtype, has_memory, local

__all__ = [
    "copies_of_states", "expect_layout", "expect_state", "fitting", "unwrapped",
]  # fmt: skip

_IN_ORDER = "give the parameters in the order in which they were saved"

#: What wrappers of modules put into the names of parameters.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


def expect_state(
    what: str, state: State, given: Any, shape: tuple[int, ...], dtype: torch.dtype, hint: str = _IN_ORDER
) -> None:
    if not isinstance(given, torch.Tensor) or tuple(given.shape) != shape:
        got = f"shape {tuple(given.shape)}" if isinstance(given, torch.Tensor) else type(given).__name__
        message = f"{what}: expected shape {shape}, got {got}"
        raise StateError(message, hint=hint)
    if given.layout is not torch.strided or given.device.type != "cpu" or not has_memory(local(given)):
        got = f"{type(given).__name__} of {given.layout} on {given.device}"
        raise StateError(f"{what}: expected a dense tensor in memory of the CPU, got {got}")
    if state.extent == Extent.ELEMENT and given.dtype is not dtype:
        hint = "opt.load_state_dict(saved, convert=True) converts it"
        raise StateError(f"{what}: expected {dtype}, got {given.dtype}", hint=hint)


def copies_of_states(naming: Naming, p: torch.Tensor, hypers: HyperValues, values: Mapping[str, Any]) -> dict[str, Any]:
    """Copies of states of parameter `p` by the names that PyTorch has; an error for one that does not fit."""
    own = {key: (state, rule) for rule in naming.rules_for(p) for state, key in naming.own_states(rule)}
    known = [*own, *[STEP] * naming.counted]
    copies: dict[str, Any] = {}
    for key, given in values.items():
        if key not in known:
            raise ArgumentError(f"expected a state among {', '.join(known)}, got {key}")
        if key in own:
            state, rule = own[key]
            shape = naming.storing.shape(state.name, state_shape(rule, state, hypers, tuple(p.shape)))
            dtype = naming.storing.dtype(state.name, p)
            expect_state(f"the state {key}", state, given, shape, dtype, hint=f"see opt.state[p][{key!r}]")
            copies[key] = given.detach().clone()
        elif not _is_count(given):
            raise StateError(f"expected a count of updates as {STEP!r}, got {shown(given)}")
        else:
            copies[key] = torch.tensor(float(given), dtype=count_dtype())
    return copies


def fitting(
    naming: Naming, own: Sequence[Mapping[str, Any]], saved: Mapping[str, Any], *, convert: bool = False
) -> dict[str, Any]:
    """A saved state whose groups have the keys of this rule.

    Parameters
    ----------
    own
        The groups that it is to be loaded into.
    convert
        Whether states of another dtype are converted; else they are refused.

    Raises
    ------
    StateError
        Unless it is of this rule, and of the parameters in these groups.
    """
    expect_layout(own, saved)
    seeds = set(naming.storing.rounding.values())  # which PyTorch's own have not
    groups = [
        {key: group[key] for key in seeds if key in group} | dict(other)
        for group, other in zip(own, saved["param_groups"], strict=True)
    ]
    guess = not _says_its_rule(naming, saved)
    for i, other in enumerate(groups):
        naming.respell(other)
        _expect_hypers(naming, other, i, guess=guess)
        _expect_values(naming, other, i)
    _expect_group_states(naming, saved.get("group", groups[0].get(OF_ALL) if groups else None))
    reader, number, states = Groups(naming), 0, dict(saved["state"])
    codes = read_storages(saved)
    if not convert:
        expect_storages(naming, codes)
    for i, (group, other) in enumerate(zip(own, groups, strict=True)):
        needed, hypers = _needed(naming, reader.variants_of(other, i)), reader.values_of(other, i)
        names, saved_names = group.get("param_names"), other.get("param_names")
        if saved_names is not None and not _names(saved_names, len(other["params"])):
            raise StateError(f"group {i}: expected a name for each parameter, got {shown(saved_names)}")
        for j, (p, q) in enumerate(zip(group["params"], other["params"], strict=True)):
            what = called(own, number)
            number += 1
            if names and saved_names and unwrapped(names[j]) != unwrapped(saved_names[j]):
                message = f"{what}: expected a state of that name, got one of {excerpt(saved_names[j])}"
                raise StateError(message, hint="give the parameters in the order in which they were saved")
            kept = states.get(q) or {}
            if convert and kept:
                kept = states[q] = converted(naming, p, kept, codes)
            _expect_states(naming, what, p, hypers, kept, needed.get(naming.aspect_of(p), ()), guess=guess)
    expect_numbers(saved.get(BEGUN, ()), number)
    return {**saved, "state": states, "param_groups": groups}


def expect_layout(own: Sequence[Mapping[str, Any]], saved: Mapping[str, Any]) -> None:
    """StateError unless it is a state dict with as many groups and parameters."""
    if not (isinstance(saved, Mapping) and {"state", "param_groups"} <= saved.keys()):
        got = ", ".join(map(str, list(saved)[:3])) or "nothing" if isinstance(saved, Mapping) else type(saved).__name__
        raise StateError(f"expected a state dict of an optimiser, with state and param_groups, got {got}")
    groups, states = saved["param_groups"], saved["state"]
    for what, value, kinds in (("param_groups", groups, list | tuple), ("state", states, Mapping)):
        if not isinstance(value, kinds):
            raise StateError(f"{what}: expected a {'list' if what[0] == 'p' else 'dict'}, got {shown(value)}")
    for i, group in enumerate(groups):
        numbers = group.get("params") if isinstance(group, Mapping) else None
        if not isinstance(numbers, list | tuple) or not all(isinstance(n, int | str) for n in numbers):
            raise StateError(f"group {i}: expected a dict with the numbers of its params, got {shown(group)}")
    for i, kept in states.items():
        if not isinstance(kept, Mapping):
            raise StateError(f"state {shown(i)}: expected a dict, got {shown(kept)}")
    sizes, theirs = [len(g["params"]) for g in own], [len(g["params"]) for g in groups]
    if len(theirs) != len(sizes):
        message = f"loaded state dict has a different number of parameter groups: {len(theirs)}, not {len(sizes)}"
        raise StateError(message, hint="make the optimiser with the groups that it was saved with")
    for i, (size, other) in enumerate(zip(sizes, theirs, strict=True)):
        if size != other:
            theirs_say = "contains a parameter group that doesn't match the size of optimizer's group"
            raise StateError(f"loaded state dict {theirs_say}: group {i} has {size} parameters, got {other}")


def _says_its_rule(naming: Naming, saved: Mapping[str, Any]) -> bool:
    """Whether it names its rule. StateError if that is not this one, and none that is loaded as this one."""
    name = saved.get("rule")
    known = isinstance(name, str) and (name == naming.name or naming.strategy.loads_as(name))
    if name is not None and not known:
        got = excerpt(name) if isinstance(name, str) else shown(name)
        raise StateError(f"expected a state of {naming.name}, got one of {got}")
    return name is not None


def _expect_hypers(naming: Naming, saved: Mapping[str, Any], i: int, *, guess: bool) -> None:
    """StateError if a saved group lacks a hyperparameter of this rule. `guess`: or has those of another one."""
    absent = [key for key in naming.hypers.values() if key not in saved]
    if absent:
        doubt = "is it of another rule?" if guess else "was it saved as a whole?"
        raise StateError(f"group {i}: {naming.name} has {absent[0]!r}, and the saved one has not; {doubt}")
    if guess:
        naming.strategy.expect_own(naming.name, saved, i)


def _expect_values(naming: Naming, saved: Mapping[str, Any], i: int) -> None:
    """StateError unless the hyperparameters and flags of a saved group are numbers, for the step computes with them."""
    for hyper in naming.rules[0].hypers:
        key, size = naming.hypers[hyper.name], len(hyper.default)
        given = saved[key]
        each = given if hyper.vector and isinstance(given, list | tuple) and len(given) == size else (given,)
        if len(each) != size or not all(x is None or _is_number(x) for x in each):
            expected = f"{size} numbers" if hyper.vector else "a number"
            raise StateError(f"group {i}: expected {expected} as {key!r}, got {shown(given)}")
    for key in naming.absent:
        if not _is_number(saved.get(key, 0)):
            raise StateError(f"group {i}: expected a number as {key!r}, got {shown(saved[key])}")
    said = {naming.flags[flag] for flag in naming.meaning}  # in words
    for key in (*naming.flags.values(), *naming.strategy.flags):
        if not isinstance(saved.get(key), str | None if key in said else bool | int | None):
            raise StateError(f"group {i}: expected True or False as {key!r}, got {shown(saved[key])}")


def _expect_group_states(naming: Naming, given: Any) -> None:
    """StateError unless these are all states of all parameters together, or none."""
    names = {state.name for rule in naming.rules for state in rule.states if state.extent == Extent.GROUP}
    if given is None or (isinstance(given, Mapping) and not given):
        return
    if not isinstance(given, Mapping) or set(given) != names or not all(map(_is_number, given.values())):
        expected = ", ".join(sorted(names)) or "none"
        raise StateError(f"expected the states {expected} of the group, as numbers, got {shown(given)}")
    expect_phase_number(naming.compilation.phases, given)


def _is_number(x: Any) -> bool:
    """Whether it is one real number, by itself or in a tensor or array."""
    if isinstance(x, torch.Tensor):
        return x.numel() == 1 and not x.is_complex() and x.layout is torch.strided and x.device.type != "meta"
    if isinstance(x, np.ndarray):
        return x.size == 1 and x.dtype.kind in "biuf"
    if isinstance(x, int):
        return abs(x) <= MOST_UPDATES  # as floats, those are whole numbers too
    return isinstance(x, numbers.Real)


def _names(given: Any, count: int) -> bool:
    return isinstance(given, list | tuple) and len(given) == count and all(isinstance(name, str) for name in given)


def _expect_states(
    naming: Naming,
    what: str,
    p: torch.Tensor,
    hypers: HyperValues,
    kept: Mapping[str, Any],
    needed: Sequence[str],
    *,
    guess: bool,
) -> None:
    """StateError unless a parameter may have these states."""
    rules = [*naming.rules, *naming.rules_for(p)]  # the own ones last
    named = {key: (state, rule) for rule in rules for state, key in naming.own_states(rule)}
    begun = any(key == STEP or key in named for key in kept) or (kept and naming.strategy.counts_whatever_is_kept)
    for key in needed if begun else ():
        if kept.get(key) is None:
            hint = "a parameter that was stepped has all its states; was it saved as a whole?"
            raise StateError(f"{what}: its state {key!r} of {naming.name} is not there", hint=hint)
    unseen = p.device.type == "meta" or not has_memory(local(p))  # PyTorch's own loop steps it
    for key, value in kept.items():
        if key in named and value is not None and not unseen:
            state, rule = named[key]
            shape = naming.storing.shape(state.name, state_shape(rule, state, hypers, tuple(p.shape)))
            given = value.cpu() if isinstance(value, torch.Tensor) and value.device.type != "meta" else value
            expect_state(f"{what}: {key}", state, given, shape, naming.storing.dtype(state.name, p, what))
        elif key == STEP and value is not None and not unseen and not _is_count(value):
            raise StateError(f"{what}: expected a count of updates as {STEP!r}, got {shown(value)}")
        elif guess and key not in named and key in _states_of_rules():
            raise StateError(f"{what}: {naming.name} has no state {key!r}; is this of another rule?")


def _is_count(x: Any) -> bool:
    return _is_number(x) and 0 <= float(x) <= MOST_UPDATES and float(x).is_integer()


def _needed(naming: Naming, variants: Mapping[Aspect, int] | None) -> dict[Aspect, list[str]]:
    """What a state must have, by what the parameter is. Momentum may come and go, so a rule that does not count may
    have begun without."""
    return {
        aspect: [
            STEP,
            *(key for state, key in naming.own_states(naming.rules[variant]) if not _is_given(naming, state)),
        ]
        for aspect, variant in ((variants or {}).items() if naming.counted else ())
    }


def _is_given(naming: Naming, state: State) -> bool:
    """Whether it is the number of a parameter for stochastic rounding, which one that lacks it is given."""
    return bool(naming.storing.rounding) and state.init == Ordinal()


def unwrapped(name: str) -> str:
    """The name that a parameter has in the module itself."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


@cache
def _states_of_rules() -> frozenset[str]:
    """What PyTorch would call the states of all rules that ship."""
    rules = [rule for name in shipped_rules() for rule in compilation_of(shipped_class(name)).rules]
    return frozenset(torch_states(rule).get(state.name, state.name) for rule in rules for state in rule.states) - {STEP}
