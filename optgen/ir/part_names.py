"""Names of parts in a chain: what each one's hyperparameters, states and locals are called there.

In: the open rules of a chain. Out: for each part its names in the chain. A name that only one part has stays; others
get the name of their part in front.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from ..names import numbered
from .expr import PARAMETER
from .rule import OF_PHASES, Rule

__all__ = ["ACCEPT", "DELTA", "GIVEN_GRADIENT", "NEW", "PROCEED", "names_of", "prefixes_of"]

DELTA, PROCEED, ACCEPT = "delta", "proceed", "accept"
#: What an open rule may also read: the gradient that the step was given, which it may overwrite too, and the parameter
#: as it stands.
GIVEN_GRADIENT, NEW = "grad", "new"


def prefixes_of(parts: Sequence[Rule]) -> list[str]:
    """What stands in front of the names of each part: its own, with a number where there are several of a kind."""
    kinds = Counter(part.name for part in parts)
    seen: Counter[str] = Counter()
    prefixes = []
    for part in parts:
        seen[part.name] += 1
        prefixes.append(part.name.lower() + (str(seen[part.name]) if kinds[part.name] > 1 else ""))
    return prefixes


def names_of(
    parts: Sequence[Rule], prefixes: Sequence[str], among: Sequence[Sequence[Rule]], taken: set[str]
) -> list[dict[str, str]]:
    """The names in the chain of each part's hyperparameters, states and locals."""
    # Users see the names of hyperparameters and states; a local makes way for them.
    public, own = [], []
    for rules in among:
        defined = [h.name for rule in rules for h in rule.hypers] + [s.name for rule in rules for s in rule.states]
        public.append(list(dict.fromkeys(defined)))
        own.append(list(dict.fromkeys([*defined, *(a.target for rule in rules for a in rule.body)])))
    owners, all_owners = Counter(chain.from_iterable(public)), Counter(chain.from_iterable(own))
    given = {each.name for rules in among for rule in rules for each in rule.inputs}  # which parts have in common
    given |= {*OF_PHASES} if any(rule.phases for rules in among for rule in rules) else set()
    # `beta1` may be a value of `beta`.
    spelled = {f"{h.name}{i + 1}" for part in parts for h in part.hypers for i in range(len(h.default)) if h.vector}
    shared = len(parts) > 1
    taken |= {name for name, count in owners.items() if count == 1}
    taken |= {name for name, count in all_owners.items() if count == 1} | spelled | given
    names = []
    for part, prefix, mine, every in zip(parts, prefixes, public, own, strict=True):
        found = {}
        for name in every:
            if name in (DELTA, PARAMETER, PROCEED, ACCEPT) or (name == GIVEN_GRADIENT and part.part):
                continue
            new = name
            if name in OF_PHASES and part.phases:
                found[name] = name
                continue
            if (owners if name in mine else all_owners)[name] > 1 or (shared and name in spelled) or name in given:
                new = f"{prefix}_{name}"
                new = numbered(f"{new}_", taken) if new in taken else new
                taken.add(new)
            found[name] = new
        names.append(found)
    return names
