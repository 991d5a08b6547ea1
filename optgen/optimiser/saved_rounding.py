"""Saved states with and without stochastic rounding: what one has and the other does not.

In: a state dict, perhaps from somebody else, and settings. Out: a state dict with the seeds and the numbers of
parameters that these settings have, and no others; or a StateError. What it holds besides is for others to check.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import StateError
from ..ir.draws import SEED, STREAM
from ..ir.expr import Ordinal
from .settings import Settings

__all__ = ["with_seeds"]


def with_seeds(saved: Any, settings: Settings, *, convert: bool) -> Any:
    """The same with seeds where these settings have some: their own where there was none. StateError if it differs in
    these, unless it may be converted."""
    hypers = saved.get("hyperparameters") if isinstance(saved, Mapping) else None
    if not isinstance(hypers, Mapping):
        return saved
    lacking, extra = settings.values.keys() - hypers.keys(), hypers.keys() - settings.values.keys()
    seeds = set(settings.chosen_rounding.values())
    if not (lacking or extra) or lacking - seeds or not all(map(_is_seed, extra)):
        return saved
    if not convert:
        here, there = ("with", "without") if lacking else ("without", "with")
        message = f"expected a state {here} stochastic rounding, got one {there}"
        raise StateError(message, hint="convert=True converts it")
    values = {name: value for name, value in hypers.items() if name not in extra}
    values |= {name: settings.value(name) for name in lacking}
    streams = [state.name for state in settings.rule.states if state.init == Ordinal()]
    return {**saved, "hyperparameters": values, "parameters": _numbered(saved.get("parameters"), streams)}


def _numbered(entries: Any, streams: list[str]) -> Any:
    """The entries of parameters, each with its number if there are `streams`, and else with none."""
    if not isinstance(entries, list | tuple):
        return entries
    found = []
    for i, entry in enumerate(entries):
        state = entry.get("state") if isinstance(entry, Mapping) else None
        if isinstance(state, Mapping):
            kept = {name: array for name, array in state.items() if name != STREAM.name or name in streams}
            numbers = {name: np.array(float(i)) for name in streams if name not in kept}
            entry = {**entry, "state": kept | numbers}
        found.append(entry)
    return found


def _is_seed(name: object) -> bool:
    """Whether this may be the seed of a rule, or of a part of a chain."""
    return isinstance(name, str) and (name == SEED.name or name.endswith(f"_{SEED.name}"))
