"""The storages of saved states: how a state dict names them, and what is read of one.

In: an entry of a state dict, from a file and perhaps from somebody else, and the storages of an optimiser.
Out: what the entry says of its storages; a state in the storage that is wanted, or a StateError.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import StateError, shown
from ..interpreter.codes import code_dtype, code_shape, decoded, encoded
from ..ir.rule import Storages
from ..ir.storages import UNSIGNED, storage_called
from ..runtime.arrays import Array
from .checkpoint import scalar
from .state_storages import OF_STATES

__all__ = ["STORAGES_KEY", "entry_storages", "in_storage", "read_storages", "saved_form"]

#: The storages that a saved state may be in.
_SAVED = (*OF_STATES, *(f"{UNSIGNED}{name}" for name in OF_STATES if storage_called(name).block))
#: What an entry calls its storages.
STORAGES_KEY = "storages"


def entry_storages(storages: Storages) -> dict[str, dict[str, tuple[str, int]]]:
    """What the entry of a parameter has besides, if states of it are in storages: of each the name, and the version of
    its definition."""
    named = {name: (storage, storage_called(storage).version) for name, storage in storages}
    return {STORAGES_KEY: named} if named else {}


def read_storages(which: str, saved: object) -> dict[str, str]:
    """The storages that an entry names; StateError for what is none, or one of another version."""
    if not isinstance(saved, Mapping):
        raise StateError(f"{which}: expected the storages of states by name, got {shown(saved)}")
    found: dict[str, str] = {}
    for name, given in saved.items():
        storage, version = map(scalar, given) if isinstance(given, list | tuple) and len(given) == 2 else (None, None)
        if not isinstance(storage, str) or storage not in _SAVED or type(version) is not int:
            known = f"one of {', '.join(OF_STATES)}, and its version"
            raise StateError(f"{which}: expected the storage of {name}, {known}, got {shown(given)}")
        if version != (known_version := storage_called(storage).version):
            message = f"{which}: expected {name} in {storage} of version {known_version}, got {version}"
            raise StateError(message, hint="with the optgen that saved it, load it into another storage, and save that")
        found[name] = storage
    return found


def saved_form(storage: str | None, shape: tuple[int, ...], dtype: str) -> tuple[tuple[int, ...], str]:
    """The shape and dtype that a saved state has: those of codes, or the compute type `dtype` if it is in no storage.
    `shape`: that of its parameter."""
    return (code_shape(storage, shape), str(code_dtype(storage))) if storage else (shape, dtype)


def in_storage(
    name: str, codes: Array, saved: str | None, wanted: str | None, dtype: str, shape: tuple[int, ...], *, convert: bool
) -> Array:
    """A copy of a saved state in the storage that is wanted; None stands for the compute type `dtype`. `shape`: that of
    its parameter.

    StateError if that is another one, unless it may be converted.
    """
    if saved == wanted:
        return np.array(codes, order="K")
    if not convert:
        hint = (
            f"convert=True converts it; storage={{{name!r}: {saved!r}}} keeps it"
            if saved
            else "convert=True converts it"
        )
        raise StateError(f"expected {name} in {wanted or dtype}, got {saved or dtype}", hint=hint)
    numbers = decoded(saved, codes, dtype, shape) if saved else codes
    return encoded(wanted, numbers) if wanted else np.array(numbers, order="K")
