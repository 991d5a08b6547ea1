"""State dicts: what PyTorch's own way of saving and loading them leaves to be done.

In: an optimiser, and what is to be done within its `state_dict` or `load_state_dict`. Out: the state dict with all that
a rule keeps; or the optimiser with all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from ..runtime.arrays import Array
from .naming import Naming
from .saved_codes import IN_CODES, named_storages

__all__ = ["BEGUN", "OF_ALL", "copied", "load_with", "name_rule", "state_dict_with", "take_rest"]

#: Where the states of all parameters together are kept in a saved group.
OF_ALL = "of_all_parameters"
#: Where the numbers of the parameters of a step are kept that is between two of its phases.
BEGUN = "begun"


def name_rule(naming: Naming, group: Mapping[str, Any], begun: Sequence[int], _: Any, saved: dict[str, Any]) -> None:
    """Add to a state dict what PyTorch's has not: the name of the rule, the states of all parameters together, and the
    numbers of those parameters that a step has begun with which has phases left."""
    saved["rule"] = naming.name
    if begun:
        saved[BEGUN] = list(begun)
    if group:
        saved["group"] = {name: float(value) for name, value in group.items()}
        for each in saved["param_groups"]:  # a distributed checkpoint has room for nothing else
            each[OF_ALL] = saved["group"]
    if codes := named_storages(naming):
        for each in saved["param_groups"]:
            each[IN_CODES] = codes


def state_dict_with(
    saving: Callable[[], dict[str, Any]], opt: Optimizer, name: Callable[[Any, dict[str, Any]], None]
) -> dict[str, Any]:
    """What `saving` gives, PyTorch's state dict of `opt`, with what `name` writes into it before the caller's hooks."""
    handle = opt.register_state_dict_post_hook(name, prepend=True)
    try:
        return saving()
    finally:
        handle.remove()


def load_with(
    loading: Callable[[], object], opt: Optimizer, expect: Callable[..., Any], take: Callable[[Any], None]
) -> None:
    """Load a state dict of `opt` by `loading`, PyTorch's own way. `expect` sees it behind the caller's hooks, and gives
    what is loaded; `take` comes before the caller's hooks of a state that is loaded."""
    handles = [
        opt.register_load_state_dict_pre_hook(expect),
        opt.register_load_state_dict_post_hook(take, prepend=True),
    ]
    try:
        loading()
    finally:
        for handle in handles:
            handle.remove()


def take_rest(naming: Naming, opt: Optimizer, saved: Mapping[str, Any]) -> dict[str, Array]:
    """After a load: gives `opt` its small states and those in storages, which PyTorch rounds to the dtype of the
    parameter, and returns those of all parameters together."""
    params = [p for group in opt.param_groups for p in group["params"]]
    order = [i for group in saved["param_groups"] for i in group["params"]]
    other = {naming.key(state.name) for rule in naming.rules for state in rule.small_states}
    other |= set(map(naming.key, naming.storing.storages))
    for p, i in zip(params, order, strict=True):
        for name, value in saved["state"].get(i, {}).items():
            if name in other and isinstance(value, torch.Tensor):
                opt.state[p][name] = value.detach().to(opt.state[p][name].device, copy=True)
    for group in opt.param_groups:
        group.pop(IN_CODES, None)
    kept = [group.pop(OF_ALL, None) for group in opt.param_groups]
    return {name: np.array(value) for name, value in (saved.get("group", kept[0]) or {}).items()}


def copied(kept: Any) -> Any:
    """The states of a parameter in memory of their own, so that neither side of a load changes the other."""
    if not isinstance(kept, Mapping):
        return kept
    return {key: x.detach().clone() if isinstance(x, torch.Tensor) else x for key, x in kept.items()}
