"""The peers: other ways to take the same steps, as their own documentation advises for speed.

Each says whether it is there, which rules it has, and makes a contestant of parameters: something that takes gradients
and steps, and whose parameters can be read, so that what is timed is known to be the same step. A contestant owns all
its arrays. Nothing of a peer is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import numpy as np

from optgen.errors import ArgumentError

from . import rules
from .contestant import Array, Contestant, copy_all

__all__ = ["PEERS", "Peer", "choose", "ours"]


@dataclass(frozen=True)
class Peer:
    """`module`: its adapter, which has `RULES`, the rules that it has, and `make(rule, params, mode)`;
    `needs`: the modules without which it is absent, each with the package that brings it."""

    title: str
    module: str
    needs: Mapping[str, str]
    mode: str = ""

    def absent(self) -> str:
        """Why it is not there, and what to do; empty if it is."""
        for name, package in self.needs.items():
            try:
                import_module(name)
            except ModuleNotFoundError as error:
                if (error.name or "").split(".")[0] != name.split(".")[0]:
                    return f"{package} cannot be imported: {error}"
                return f"{package} is not installed: pip install {package}"
            except Exception as error:  # a peer may fail in any way that it likes
                return f"{package} cannot be imported: {type(error).__name__}: {error}"
        return ""

    def has(self, rule: str) -> bool:
        """Whether it has the rule; only to be asked if it is there."""
        found = self._adapter().RULES
        return rule in (found[self.mode] if self.mode else found)

    def make(self, rule: str, params: Sequence[Array]) -> Contestant:
        made: Contestant = self._adapter().make(rule, params, self.mode)
        return made

    def _adapter(self) -> Any:
        return import_module(f".{self.module}", __package__)


#: By the names that a command line takes.
PEERS: dict[str, Peer] = {
    "torch-loop": Peer("torch loop", "torch_peers", {"torch": "torch"}, "loop"),
    "torch-foreach": Peer("torch foreach", "torch_peers", {"torch": "torch"}, "foreach"),
    "torch-fused": Peer("torch fused", "torch_peers", {"torch": "torch"}, "fused"),
    "torch-compiled": Peer("torch compiled", "torch_peers", {"torch": "torch"}, "compiled"),
    "deepspeed": Peer("DeepSpeed", "deepspeed_peer", {"torch": "torch", "deepspeed": "deepspeed"}),
    "optax": Peer("optax", "optax_peer", {"jax": "jax", "optax": "optax"}),
    "numba": Peer("Numba", "numba_peer", {"numba": "numba"}),
    "numpy": Peer("NumPy", "numpy_peer", {}),
}


def choose(names: str) -> list[str]:
    """The peers that a list of names with commas means: `torch` is all of torch's, `all` all, `none` none."""
    chosen: list[str] = []
    for name in filter(None, map(str.strip, names.lower().split(","))):
        if name == "none":
            continue
        found = [key for key in PEERS if name in ("all", key, key.split("-")[0])]
        if not found:
            close = get_close_matches(name, PEERS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(PEERS)}"
            raise ArgumentError(f"there is no peer {name!r}", hint=hint)
        chosen += [key for key in found if key not in chosen]
    return chosen


def ours(rule: str, params: Sequence[Array]) -> Contestant:
    """optgen itself."""
    optimiser = rules.make(rule)
    own, grads = [p.copy() for p in params], [np.empty_like(p) for p in params]
    return Contestant(lambda: optimiser.step(own, grads), lambda new: copy_all(new, grads), lambda: own)
