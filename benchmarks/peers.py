"""The peers: other implementations of the same steps, used as their own documentation advises for speed.

In: the name of a rule, and parameters. Out: a contestant, which owns all its arrays. A peer also says whether it is
installed, and which rules it has. Nothing of a peer is imported before it is asked for.
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
    """Another implementation.

    Attributes
    ----------
    title
        Its name in tables.
    module
        Its adapter, with `RULES`, the rules that it has, and `make(rule, params, mode)`.
    needs
        The modules that it needs, each with the package that brings it.
    mode
        Which of several ways of the adapter it is.
    """

    title: str
    module: str
    needs: Mapping[str, str]
    mode: str = ""

    def absent(self) -> str:
        """Why the peer is not there, and what to do. Empty if it is there."""
        for name, package in self.needs.items():
            try:
                import_module(name)
            except ModuleNotFoundError as error:
                if (error.name or "").split(".")[0] != name.split(".")[0]:
                    return f"{package} cannot be imported: {error}"
                return f"{package} is not installed: pip install {package}"
            except Exception as error:  # a peer may fail in any way
                return f"{package} cannot be imported: {type(error).__name__}: {error}"
        return ""

    def has(self, rule: str) -> bool:
        """Whether the peer, which must be there, has the rule."""
        found = self._adapter().RULES
        return rule in (found[self.mode] if self.mode else found)

    def make(self, rule: str, params: Sequence[Array]) -> Contestant:
        made: Contestant = self._adapter().make(rule, params, self.mode)
        return made

    def _adapter(self) -> Any:
        return import_module(f".{self.module}", __package__)


#: By the name on the command line.
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
    """The peers in a list with commas. `torch` means all of torch's, `all` all peers, `none` none."""
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
    """optgen's own contestant."""
    optimiser = rules.make(rule)
    own, grads = [p.copy() for p in params], [np.empty_like(p) for p in params]
    return Contestant(lambda: optimiser.step(own, grads), lambda new: copy_all(new, grads), lambda: own)
