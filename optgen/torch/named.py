"""Named parameters of a model, and groups of them by patterns.

In: a model, its named parameters, or a mapping of them. Out: each parameter with all its names; or groups for an
optimiser.

A parameter that a model has under several names, as tied weights are, is one with all of them. A name goes without what
wrappers put into it, such as `_orig_mod.` of torch.compile, and is known with that too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..errors import ArgumentError, shown
from ..optimiser.division import Named, chosen, named_pairs
from .checkpoint import unwrapped

__all__ = ["group_of", "groups", "parameters_by_name"]

_MODEL = "give the model, or list(model.named_parameters())"


def groups(params: Any, patterns: Mapping[Any, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Groups of named parameters for one rule: for each pattern those that it is the first to match, then the rest.

    Parameters
    ----------
    params
        A model, its named parameters, or a mapping of names.
    patterns
        By a pattern, or a tuple of them, what the group says beside its parameters. A pattern with wildcards is one of
        a whole name; any other matches whole words between dots; a function is given name and parameter.

    Returns
    -------
    Groups with `params`, `param_names` and what `patterns` say, in their order. The last one has what is left, if
    there is any, and says nothing.

    Raises
    ------
    ArgumentError
        For a pattern that takes nothing, for what is no pattern, and where there are no names.

    Examples
    --------
    >>> import torch
    >>> import optgen.torch as optim
    >>> model = torch.nn.Linear(4, 2)
    >>> opt = optim.AdamW(optim.groups(model, {"bias": dict(weight_decay=0.0)}), lr=1e-3, weight_decay=0.1)
    >>> [(group["param_names"], group["weight_decay"]) for group in opt.param_groups]
    [(['bias'], 0.0), (['weight'], 0.1)]
    """
    if not isinstance(patterns, Mapping):
        hint = 'groups(model, {"*.bias": dict(weight_decay=0.0)})'
        raise ArgumentError(f"groups: expected settings by patterns, got {shown(patterns)}", hint=hint)
    for key, settings in patterns.items():
        if not isinstance(settings, Mapping) or "params" in settings:
            message = f"groups: {shown(key)}: expected what a group says beside its parameters, got {shown(settings)}"
            raise ArgumentError(message, hint="such as dict(weight_decay=0.0)")
    found = chosen(patterns, parameters_by_name(params, "groups"), "groups")
    said = [*patterns.values(), {}]
    return [group_of(own, settings) for own, settings in zip(found, said, strict=True) if own]


def group_of(params: Iterable[Named], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A group of these parameters that says this too."""
    params = list(params)
    return {"params": [p.given for p in params], "param_names": [p.name for p in params], **settings}


def parameters_by_name(given: Any, where: str) -> list[Named]:
    """The parameters of a model, each once, with all its names; ArgumentError where there are none."""
    if isinstance(given, torch.nn.Module):
        given = given.named_parameters(remove_duplicate=False)
    names: dict[int, dict[str, None]] = {}
    params: dict[int, torch.Tensor] = {}
    for name, p in named_pairs(given, torch.Tensor, where, "a model", _MODEL):
        if not isinstance(p, torch.Tensor):
            raise ArgumentError(f"{where}: {name}: expected a parameter, got {type(p).__name__}", hint=_MODEL)
        params[id(p)] = p
        names.setdefault(id(p), {}).update({name: None})
    return [
        Named(p, p.dim(), tuple(dict.fromkeys([*map(unwrapped, names[key]), *names[key]]))) for key, p in params.items()
    ]
