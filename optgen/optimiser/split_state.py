"""State dicts of a split: those of its lines, joined into one and divided again.

In: a state dict of each line, or one of a split, perhaps from a file and from somebody else. Out: the other. What an
entry holds is for the line to check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import StateError, shown
from .checkpoint import listed
from .division import listed_names

__all__ = ["divided_state", "joined"]

#: What a state dict has of the settings of each line.
_OF_LINES = ("rule", "flags", "hyperparameters")
_KEYS = ("format", *_OF_LINES, "parameters")


def joined(parts: Mapping[str, Mapping[str, Any]], begun: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The state dicts of lines as one. `begun`: the names of their parameters in the order of the entries."""
    saved: dict[str, Any] = {"format": next(iter(parts.values()))["format"]}
    saved |= {key: {line: part[key] for line, part in parts.items()} for key in _OF_LINES}
    entries: dict[str, Any] = {}
    group: dict[str, Any] = {}
    for line, part in parts.items():
        entries |= zip(begun[line], part["parameters"], strict=True)
        group |= {f"{line}/{name}": value for name, value in part.get("group", {}).items()}
    return saved | {"parameters": entries} | ({"group": group} if group else {})


def divided_state(saved: Any, lines: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """The state dict of each line, with its entries by name; StateError unless `saved` has these lines and no other
    parameters. An entry that is None is one of a parameter that was not stepped."""
    if not isinstance(saved, Mapping) or not set(_KEYS) <= set(saved):
        got = listed(saved) if isinstance(saved, Mapping) else type(saved).__name__
        raise StateError(f"expected what state_dict() of a split gives, with {', '.join(_KEYS)}, got {got}")
    for key in _OF_LINES:
        if not isinstance(saved[key], Mapping) or set(saved[key]) != set(lines):
            got = listed(saved[key]) if isinstance(saved[key], Mapping) else shown(saved[key])
            message = f"expected the {key} of the lines {', '.join(lines)}, got {got}"
            raise StateError(message, hint="make the split with the lines that it was saved with")
    entries, group = saved["parameters"], saved.get("group", {})
    of = {name: line for line, own in lines.items() for name in own}
    if not isinstance(entries, Mapping) or not all(isinstance(name, str) and name in of for name in entries):
        got = listed(entries) if isinstance(entries, Mapping) else shown(entries)
        raise StateError(f"expected parameters among {listed_names(of)}, got {got}")
    if not isinstance(group, Mapping) or not all(isinstance(k, str) and k.rpartition("/")[0] in lines for k in group):
        raise StateError(f"expected states of the lines as LINE/STATE, got {shown(group)}")
    return {
        line: {"format": saved["format"]}
        | {key: saved[key][line] for key in _OF_LINES}
        | {"parameters": {name: x for name, x in entries.items() if of[name] == line and x is not None}}
        | {"group": {key[len(line) + 1 :]: x for key, x in group.items() if key.rpartition("/")[0] == line}}
        for line in lines
    }
