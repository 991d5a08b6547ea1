"""What PyTorch calls the hyperparameters, flags and states of a rule.

In: a rule, or the rules of a chain. Out: PyTorch's names by those of the spec. PyTorch itself is not needed to know
them, so that signatures can be written where it is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..names import greek
from .rule import Part, Rule

__all__ = ["ABSENT", "MEANING", "PARENTS", "chain_names", "torch_names", "torch_spellings", "torch_states"]

#: What trainers set and loggers read in every group: the value that changes nothing, where a rule has no such
#: hyperparameter.
ABSENT = {"lr": 1.0, "weight_decay": 0.0}

#: Rules that PyTorch has as classes derived from that of another rule, since version 2.7.
PARENTS = {"AdamW": "Adam"}

#: What PyTorch calls a hyperparameter that specs call otherwise: a single number, and several under one name.
_NUMBERS = {"eta": "lr", "decay": "weight_decay"}
_VECTORS = {"beta": "betas"}
#: By the name of a rule: what it calls otherwise than others do. A flag makes way for a hyperparameter.
_OF_RULE = {
    "ALIG": {"rho": "momentum", "momentum": "keep_momentum"},
    "ExpDecay": {"decay": "decay"},  # of the rate
    "LARS": {"rho": "momentum"},
    "Momentum": {"rho": "momentum"},
    "Nesterov": {"rho": "momentum"},
    "RMSProp": {"rho": "alpha", "centred": "centered"},
    "ScheduleFreeSGD": {"beta": "momentum"},  # as its authors' optimiser for PyTorch
    "SignSGD": {"rho": "momentum", "momentum": "keep_momentum"},
    "Muon": {"match_rms": "adjust_lr_fn"},
    "SM3": {"rho": "momentum", "momentum": "keep_momentum"},
    "WeightDecay": {"lam": "weight_decay"},
}
#: By the name of a rule: of a flag that PyTorch's class says in words, the word that sets it.
MEANING = {"Muon": {"match_rms": "match_rms_adamw"}}
#: By the name of a rule: what PyTorch calls a state that the spec calls otherwise.
_STATES = {"Adagrad": {"state_sum": "sum"}}


def torch_names(rule: Rule) -> dict[str, str]:
    """By its name in the spec, what each hyperparameter and flag is called: as in PyTorch, unless another one of the
    rule has that name."""
    hypers = {hyper.name: hyper.name for hyper in rule.hypers}
    return chain_names([(rule, hypers | {flag.name: flag.name for flag in rule.flags})])


def chain_names(parts: Iterable[tuple[Rule, Mapping[str, str]]]) -> dict[str, str]:
    """By its name in a chain, what each hyperparameter is called. `parts`: each part with its names in the chain.

    A name that several parts have stays what the chain calls it, with the name of a part in front; but where only one
    of the parts is a rule, PyTorch's name is that of the rule.
    """
    parts = sorted(parts, key=lambda part: part[0].part != Part.RULE)  # a rule before what stands beside it
    rules = sum(rule.part == Part.RULE for rule, _ in parts)
    wanted: dict[str, str] = {}
    for rule, names in parts:
        usual = _NUMBERS | {hyper.name: _VECTORS.get(hyper.name, hyper.name) for hyper in rule.hypers if hyper.vector}
        theirs = usual | _OF_RULE.get(rule.name, {})
        shared = rules > 1 or rule.part != Part.RULE
        wanted |= {new: theirs.get(own, own) if new == own or not shared else new for own, new in names.items()}
    taken = {name for name, other in wanted.items() if name == other}
    found = {}
    for name, other in wanted.items():
        found[name] = name if other != name and other in taken else other
        taken.add(found[name])
    return found


def torch_spellings(rule: Rule, names: Mapping[str, str]) -> dict[str, tuple[str, int | None]]:
    """What a hyperparameter or flag may be called besides its name in `names`, and the name that is meant: as in the
    spec, in Greek, and of `betas` one by itself, as `beta1`, with its position."""
    found: dict[str, tuple[str, int | None]] = {flag.name: (names[flag.name], None) for flag in rule.flags}
    for hyper in rule.hypers:
        for stem in (hyper.name, greek(hyper.name)):
            found[stem] = names[hyper.name], None
            found |= {f"{stem}{i + 1}": (names[hyper.name], i) for i in range(len(hyper.default)) if hyper.vector}
    return {name: meant for name, meant in found.items() if name not in names.values()}


def torch_states(rule: Rule) -> dict[str, str]:
    """The states that have another name in PyTorch than in the spec."""
    return _STATES.get(rule.name, {})
