"""Storages of tensors: in what dtype each state is kept, and what is rounded stochastically.

In: the arguments `storage`, `rounding` and `seed` of a constructor, and a rule. Out: a `Storing`, by the names that the
spec has; or an error that says which state cannot have what was asked for.

A state that is not named has the dtype of its parameter, as PyTorch's own. So has every state where nothing is asked
for, and all is rounded to the nearest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import ArgumentError, ArrayError, shown
from ..frozen import frozen
from ..interpreter.codes import code_shape
from ..ir.draws import SEED
from ..ir.rule import Rule
from ..ir.storages import STORAGES, UNSIGNED
from ..optimiser.hyperparameters import checked
from ..optimiser.state_storages import chosen_rounding, chosen_storages
from .tensors import STORED

__all__ = ["IN_BLOCKS", "NOTHING", "STORING", "Storing", "chosen_storing", "storing_of"]

#: What constructors take of this.
STORING = ("storage", "rounding", SEED.name)
#: What a state may be kept in, and the dtype that its tensor has then.
_DTYPES = {name: dtype for dtype, name in STORED.items()} | {"float32": torch.float32}
#: Storages whose neighbours share a scale: codes and scales are a tensor of bytes.
IN_BLOCKS = tuple(name for name, each in STORAGES.items() if each.block)
_DTYPES |= dict.fromkeys(IN_BLOCKS, torch.uint8)


@frozen
class Storing:
    """What an optimiser keeps in which form.

    Attributes
    ----------
    storages
        The states that are not in the dtype of their parameter, each with its storage.
    rounding
        The arrays that are rounded stochastically where they have 16 bits, each with the hyperparameter that is its
        seed.
    """

    storages: Mapping[str, str]
    rounding: Mapping[str, str]

    def dtype(self, state: str, p: torch.Tensor, what: str = "a parameter") -> torch.dtype:
        """The dtype of a state of parameter `p`, which messages call `what`; ArrayError if it cannot have that."""
        kept = self.storages.get(state)
        if kept is None:
            return p.dtype
        wide = kept == "float32" and p.dtype is torch.float64
        if p.is_complex() or wide:
            expected = "float32 or of 16 bits" if wide else "real numbers"
            message = f"{what}: expected a parameter of {expected}, since {state} is kept in {kept}, got {p.dtype}"
            raise ArrayError(message, hint="leave the storage out, or step it with another optimiser: optim.split(...)")
        return _DTYPES[kept.removeprefix(UNSIGNED)]

    def in_blocks(self, state: str) -> str:
        """The storage of a state, if its neighbours share a scale."""
        kept = self.storages.get(state, "")
        return kept if kept.removeprefix(UNSIGNED) in IN_BLOCKS else ""

    @property
    def has_blocks(self) -> bool:
        """Whether there is such a state."""
        return any(map(self.in_blocks, self.storages))

    def shape(self, state: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the tensor that keeps a state of this shape."""
        kept = self.in_blocks(state)
        return code_shape(kept, shape) if kept else shape


NOTHING = Storing({}, {})


def chosen_storing(
    owner: str, rules: Sequence[Rule], spelled: Mapping[str, str], given: Mapping[str, Any]
) -> tuple[Storing, dict[str, float]]:
    """What these arguments of a constructor choose, and the seed that groups have then.

    `rules`: the rule in all its variants. `spelled`: what PyTorch calls states, by their names in the spec.
    """
    storage, rounding, seed = (given.get(name) for name in STORING)
    if storage is not None or rounding is not None:
        expect_elements(owner, rules)
    meant = {theirs: own for own, theirs in spelled.items()}
    storage, rounding = (_renamed(each, meant) for each in (storage, rounding))
    kept = chosen_storages(owner, rules, storage, tuple(_DTYPES))
    chosen = frozenset[str]()
    if storage is not None or rounding is not None:
        every = {name: kept.get(name, "") for rule in rules for name in rule.element_states}
        narrow = {name: each for name, each in kept.items() if each != "float32"}
        chosen = chosen_rounding(owner, rules, narrow if rounding is None else every, rounding)
    if seed is not None and not chosen:
        message = f"seed: expected none, since nothing of {owner} is rounded stochastically, got {shown(seed)}"
        raise ArgumentError(message, hint="leave it out")
    (number,) = checked(SEED, 0 if seed is None else seed)
    if callable(number):
        raise ArgumentError("seed: expected a number, got a schedule")
    found = Storing(kept, dict.fromkeys(sorted(chosen), SEED.name)) if kept or chosen else NOTHING
    return found, {SEED.name: number} if chosen else {}


def storing_of(owner: str, rules: Sequence[Rule], storages: Mapping[str, str], rounding: Mapping[str, str]) -> Storing:
    """What the parts of a chain have chosen; ArgumentError if it cannot have that."""
    if not (storages or rounding):
        return NOTHING
    expect_elements(owner, rules)
    return Storing(dict(storages), dict(rounding))


def expect_elements(owner: str, rules: Sequence[Rule]) -> None:
    """ArgumentError for a rule with products of matrices, of which a library computes numbers and no codes."""
    if any(rule.multiplies for rule in rules):
        message = f"{owner}: expected no storage and rounding, since it multiplies matrices, got some"
        raise ArgumentError(message, hint="leave them out: its states are kept in the dtype of their tensors")


def _renamed(given: Any, meant: Mapping[str, str]) -> Any:
    """The same by the names that the spec has."""
    return {meant.get(name, name): value for name, value in given.items()} if isinstance(given, Mapping) else given
