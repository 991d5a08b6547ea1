"""Saved states of tensors in codes: how a state dict names their storages, and what becomes of other ones.

In: a state dict, perhaps from somebody else, and the names of a rule. Out: the storages that it names; a StateError if
they are not those of the optimiser; or states in the form that the optimiser keeps them in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import StateError, shown
from ..interpreter.codes import decoded, encoded
from ..ir.storages import UNSIGNED, storage_called
from .naming import Naming
from .storing import IN_BLOCKS
from .tensors import local, wide

__all__ = ["IN_CODES", "converted", "expect_storages", "named_storages", "read_storages"]

#: Where a saved group has the storages of states in codes, by the names of states: each with its version.
IN_CODES = "storages_of_states"


def named_storages(naming: Naming) -> dict[str, list[Any]]:
    """Those of this optimiser, as they are saved."""
    of = naming.storing.storages
    return {naming.key(name): [kept, storage_called(kept).version] for name, kept in of.items() if _has_blocks(kept)}


def read_storages(saved: Mapping[str, Any]) -> dict[str, str]:
    """Those that a state dict names; StateError for what is none, or one of another version."""
    groups = saved["param_groups"]
    found = groups[0].get(IN_CODES, {}) if groups else {}
    if not isinstance(found, Mapping):
        raise StateError(f"expected the storages of states by name, got {shown(found)}")
    for key, given in found.items():
        kept, version = given if isinstance(given, list | tuple) and len(given) == 2 else (None, None)
        if not isinstance(kept, str) or not _has_blocks(kept):
            raise StateError(f"expected the storage of {key}, one of {', '.join(IN_BLOCKS)}, got {shown(given)}")
        if version != (own := storage_called(kept).version):
            raise StateError(f"expected {key} in {kept} of version {own}, got {shown(version)}")
    return {key: kept for key, (kept, _) in found.items()}


def expect_storages(naming: Naming, saved: Mapping[str, str]) -> None:
    """StateError unless a state dict has the states in codes that this optimiser has, each in its storage."""
    own = {key: kept for key, (kept, _) in named_storages(naming).items()}
    for key in sorted(own.keys() | saved.keys()):
        if own.get(key) != saved.get(key):
            message = f"expected {key} in {own.get(key, 'numbers')}, got {saved.get(key, 'numbers')}"
            raise StateError(message, hint="opt.load_state_dict(saved, convert=True) converts it")


def converted(naming: Naming, p: torch.Tensor, kept: Mapping[str, Any], saved: Mapping[str, str]) -> dict[str, Any]:
    """The saved states of a parameter in the form that they are to have, rounded to the nearest. `saved`: the storages
    of those in codes."""
    names = {naming.key(name): name for rule in naming.rules_for(p) for name in rule.element_states}
    return {
        key: _converted(naming, names[key], p, x, saved.get(key, ""))
        if key in names and isinstance(x, torch.Tensor)
        else x
        for key, x in kept.items()
    }


def _converted(naming: Naming, name: str, p: torch.Tensor, x: torch.Tensor, saved: str) -> torch.Tensor:
    own = naming.storing.storages.get(name, "")
    if _has_blocks(own) and saved == own:
        return x
    if saved:
        numbers = decoded(saved, local(x).detach().cpu().numpy(), "float32", tuple(p.shape))
        x = torch.from_numpy(numbers)
    if _has_blocks(own):
        return torch.from_numpy(encoded(own, wide(x).cpu().numpy()))
    return x.to(naming.storing.dtype(name, p)) if x.is_floating_point() else x


def _has_blocks(storage: str) -> bool:
    return storage.removeprefix(UNSIGNED) in IN_BLOCKS
