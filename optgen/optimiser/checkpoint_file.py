"""Checkpoints as files: parameters, their states and the settings of their optimiser, in the safetensors format.

In: the parts of a state dict, with names and arrays of the parameters; or a path. Out: a file, all of the old or all of
the new; or what a file holds, checked against the names, shapes and dtypes that are wanted. Nothing in it is code.

The arrays are `parameter/NAME`, `state/NAME/STATE` and `group/STATE`. The metadata are `optgen`, the version that wrote
the file, and as JSON `format`, `rule`, `flags`, `hyperparameters` and `parameters`: for each name the count of updates,
or null for a parameter that was never stepped. `storages` is there if states are kept in another type than their
parameter: for each name of these, and for each state, the storage and its version.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from .. import __version__
from ..compiler.files import open_regular, whole_file
from ..errors import ArgumentError, HyperparameterError, OptgenError, StateError
from ..runtime.arrays import Array
from ..runtime.interrupts import to_its_end
from ..runtime.slots import Slot
from .checkpoint import FORMAT
from .saved_storages import STORAGES_KEY as STORAGES
from .saved_storages import entry_storages

__all__ = ["FilePath", "load_checkpoint", "write_checkpoint"]

FilePath: TypeAlias = str | os.PathLike[str]

#: What arrays are called begins with these.
PARAMETER, STATE, GROUP = "parameter", "state", "group"
#: The metadata that are JSON.
_FIELDS = ("format", "rule", "flags", "hyperparameters", "parameters")
#: What safetensors calls the dtypes of parameters and states.
_DTYPES = {"F32": "float32", "F64": "float64", "BF16": "bfloat16", "F16": "float16"}
#: And those of states: of numbers, and of codes.
_STATES, _CODES = ("F32", "F64"), ("U16", "U8")
_WRITTEN = "expected a checkpoint that opt.save(path, params) wrote"
#: How many names a message lists.
_MOST_NAMES = 8


def write_checkpoint(
    path: FilePath,
    settings: Mapping[str, Any],
    params: Mapping[str, Array],
    slots: Mapping[str, Slot | None],
    group: Mapping[str, Array],
) -> None:
    """Write a checkpoint to `path`. `settings`: the format, the rule, its flags and its hyperparameters.

    Raises `OSError` if it cannot be written; then a file of that name is as it was.
    """
    safetensors = _safetensors()
    arrays = {f"{PARAMETER}/{name}": p for name, p in params.items()}
    for name, slot in slots.items():
        arrays |= {f"{STATE}/{name}/{state}": array for state, array in (slot.arrays if slot else {}).items()}
    arrays |= {f"{GROUP}/{state}": array for state, array in group.items()}
    counts = {name: slot and slot.t for name, slot in slots.items()}
    storages = {name: entry_storages(slot.storages)[STORAGES] for name, slot in slots.items() if slot and slot.storages}
    fields = {name: {**settings, "parameters": counts}[name] for name in _FIELDS}
    fields |= {STORAGES: storages} if storages else {}
    metadata = {"optgen": __version__} | {name: json.dumps(x, ensure_ascii=False) for name, x in fields.items()}
    # A link keeps leading to the file.
    with whole_file(Path(os.path.realpath(path))) as temporary:
        try:
            # Contiguous, for the library looks at nothing but the first byte and the number of bytes.
            whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
            safetensors.numpy.save_file(whole, temporary, metadata)
        except safetensors.SafetensorError as error:
            raise OSError(f"expected to write {path}, got {error}") from None


def load_checkpoint(
    path: FilePath, params: Mapping[str, Array], loading: Callable[[dict[str, Any]], Callable[[], bool]]
) -> None:
    """Take over the checkpoint at `path`, values of these parameters included, or nothing of it.

    `loading` checks a state dict with entries by name, None for a parameter that was never stepped, and gives what
    takes it over. Raises what that raises, with the path; `OSError` for a file that cannot be read, and StateError for
    one that is damaged, is no checkpoint, or is one of other parameters.
    """
    saved, values = _read_checkpoint(path, params)
    try:
        load = loading(saved)
    except (StateError, HyperparameterError, ArgumentError) as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint) from None

    def load_parameters_too() -> bool:
        for name, array in params.items():
            array[...] = values[name]
        return load()

    to_its_end(load_parameters_too)


def _read_checkpoint(path: FilePath, params: Mapping[str, Array]) -> tuple[dict[str, Any], dict[str, Array]]:
    """The state dict of the checkpoint at `path`, and the values of these parameters.

    What hyperparameters and states must be is for those to check who load it.
    """
    safetensors = _safetensors()
    os.close(open_regular(Path(path)))
    try:
        with safetensors.safe_open(os.fspath(path), framework="np") as file:
            fields = _fields(file.metadata() or {})
            counts = fields["parameters"]
            _expect_names(params, counts)
            keys = sorted(file.keys())
            _expect_arrays({key: file.get_slice(key) for key in keys}, params, counts)
            arrays: dict[str, Array] = {key: file.get_tensor(key) for key in keys}
    except StateError as error:
        raise StateError(f"{path}: {error.message}", hint=error.hint) from None
    except safetensors.SafetensorError as error:
        message = f"{path}: expected a whole safetensors file, got something else ({error})"
        raise StateError(message, hint="it is damaged, cut short, or of another kind") from None
    values: dict[str, Array] = {}
    states: dict[str, dict[str, Array]] = {name: {} for name in params}
    group: dict[str, Array] = {}
    for key, array in arrays.items():
        kind, name, state = _parts(key)
        if kind == STATE:
            states[name][state] = array
        else:
            (values if kind == PARAMETER else group)[name] = array
    entries = {
        name: None if counts[name] is None else
        {"shape": p.shape, "dtype": str(p.dtype), "t": counts[name], "state": states[name],
         STORAGES: fields[STORAGES].get(name, {})}
        for name, p in params.items()
    }  # fmt: skip
    return fields | {"parameters": entries, "group": group}, values


def _fields(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of a checkpoint, read from JSON."""
    missing = [name for name in ("optgen", *_FIELDS) if name not in metadata]
    if missing:
        raise StateError(f"{_WRITTEN}, got a safetensors file without the metadata {_few(missing)}")
    fields = {}
    for name in (*_FIELDS, STORAGES):
        try:
            fields[name] = json.loads(metadata.get(name, "{}"))
        except (ValueError, RecursionError):
            raise StateError(f"{_WRITTEN}, got metadata in which {name} is no JSON") from None
    if fields["format"] != FORMAT:
        version = metadata["optgen"]
        message = f"expected a checkpoint of format {FORMAT}, got one of format {fields['format']!r:.40}"
        raise StateError(message, hint=f"optgen {version:.40} wrote it; load it with that version")
    if not isinstance(fields["parameters"], dict):
        raise StateError(f"{_WRITTEN}, got metadata in which parameters are no names with counts")
    if not isinstance(fields[STORAGES], dict):
        raise StateError(f"{_WRITTEN}, got metadata in which storages are no names with states")
    return fields


def _expect_names(params: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """StateError unless these are the parameters that were saved, in any order."""
    if params.keys() != saved.keys():
        message = f"expected the parameters {_few(params)}; got {_few(saved)}"
        apart = {"only in the file": saved.keys() - params.keys(), "not in the file": params.keys() - saved.keys()}
        hint = "; ".join(f"{where}: {_few(sorted(names))}" for where, names in apart.items() if names)
        raise StateError(message, hint=f"{hint}; in a sequence, parameters are called 0, 1, ...")


def _expect_arrays(found: Mapping[str, Any], params: Mapping[str, Array], counts: Mapping[str, Any]) -> None:
    """StateError unless every parameter is there in its shape and dtype, and nothing that belongs to none of them."""
    for name, p in params.items():
        key = f"{PARAMETER}/{name}"
        if key not in found:
            raise StateError(f"expected an array {key}, got none", hint="it is damaged")
        kept = tuple(found[key].get_shape()), _DTYPES.get(found[key].get_dtype(), found[key].get_dtype())
        if kept != (p.shape, str(p.dtype)):
            raise StateError(f"parameter {name}: expected {p.shape}, {p.dtype}; got {kept[0]}, {kept[1]}")
    for key, array in found.items():
        kind, name, state = _parts(key)
        known = {PARAMETER: name in params, STATE: counts.get(name) is not None and state, GROUP: name}
        if not known.get(kind):
            raise StateError(
                f"expected nothing but parameters and their states, got an array {key:.80}", hint="it is damaged"
            )
        if kind != PARAMETER and array.get_dtype() not in (*_STATES, *(_CODES if kind == STATE else ())):
            raise StateError(f"{key}: expected float32 or float64, got {array.get_dtype()}")


def _parts(key: str) -> tuple[str, str, str]:
    """The kind of an array, the parameter or the state of the group, and the state of the parameter."""
    kind, _, rest = key.partition("/")
    name, _, state = rest.rpartition("/") if kind == STATE else (rest, "", "")
    return kind, name, state


def _few(names: Iterable[str]) -> str:
    """Some names for a message."""
    shown = [name[:40] for name in names]
    more = len(shown) - _MOST_NAMES
    return ", ".join([*shown[:_MOST_NAMES], *[f"and {more} more"] * (more > 0)]) or "none"


def _safetensors() -> Any:
    """The library. It is optional."""
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        message = "a checkpoint in a file needs the library safetensors"
        raise OptgenError(message, hint='pip install "optgen[safetensors]"') from None
    return safetensors
