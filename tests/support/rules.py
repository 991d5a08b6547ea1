"""The specs that ship as the tests go over them: rules alone, and parts of chains in a chain, where they make sense.

A *subject* is what a test makes an optimiser of: the name of a rule, "ADAM", or a part in its chain, "ClipNorm, ADAM".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from equivalence import REDUCED

import optgen
from optgen.compiler import catalogue, driver
from optgen.ir.rule import Hyper, Rule
from optgen.optimiser import classes
from optgen.optimiser.base import compilation_of, settings_of

SPECS = {spec.name: spec for spec in map(driver.compile_file, catalogue.shipped())}
RULES = [name for name, spec in SPECS.items() if not spec.rules[0].part]
PARTS = [name for name in SPECS if name not in RULES]

#: Where each part stands in its chain, and with which arguments the rule there is made.
CHAINS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "AccumGrad": ("AccumGrad", "ADAM", {}),
    "Cautious": ("ADAM", "Cautious", {}),
    "ClipGlobalNorm": ("ClipGlobalNorm", "ADAM", {}),
    "ClipGrad": ("ClipGrad", "ADAM", {}),
    "ClipNorm": ("ClipNorm", "ADAM", {}),
    "EMA": ("ADAM", "EMA", {}),
    "ExpDecay": ("ADAM", "ExpDecay", {"eta": 1.0}),
    "GradientCentralisation": ("GradientCentralisation", "ADAM", {}),
    "InvDecay": ("ADAM", "InvDecay", {}),
    "Lookahead": ("ADAM", "Lookahead", {}),
    "SignDecay": ("SignDecay", "ADAM", {}),
    "Unscale": ("Unscale", "ADAM", {}),
    "WeightDecay": ("WeightDecay", "ADAM", {}),
    "ZeroGrad": ("ADAM", "ZeroGrad", {}),
}
#: By subject the part that it is about.
PART_OF = {f"{first}, {second}": part for part, (first, second, _) in CHAINS.items()}
SUBJECTS = [*RULES, *PART_OF]

#: Rows that are slices of the first dimension, with states of their own, which no rule that ships has.
SLICES = """
name = "Slices"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
[state]
r = { init = 0, extent = "row", when = "matrix" }
c = { init = "eta", extent = "column", when = "matrix" }
b = { init = 1, extent = "matrix", when = "matrix" }
[update]
rows = "first"
formulas = '''
r     = r/2 + mean(g*g, row)
c     = max(c, max(abs(g), column))
b     = b/2 + norm(r, matrix)
delta = eta*g/(1 + sqrt(r)) + eta*(c - b)*1e-3 if matrix else eta*g
'''
"""
#: Rules of the tests' own, for states of all extents.
OWN = {"Reduced": REDUCED, "Slices": SLICES}

#: With these instead of the defaults, the loss of a small regression goes down from the first steps on.
DESCENDING: dict[str, dict[str, Any]] = {
    "ScheduleFreeSGD": {"eta": 0.1},  # 1 suits gradients that are clipped
}


def make(subject: str, backend: str = "kernel", **given: Any) -> Any:
    """An optimiser of this subject, or of a rule of the tests' own; `given`: of a chain, the arguments of the part that
    it is about."""
    if subject in OWN:
        return classes.module_class(driver.compile_text(OWN[subject], "test.toml"))(**given, backend=backend)
    if subject in SPECS:
        return getattr(optgen, subject)(**given, backend=backend)
    part = PART_OF[subject]
    *names, arguments = CHAINS[part]
    chosen = {"ADAM": arguments, part: given}
    return optgen.chain(*(getattr(optgen, name)(**chosen[name]) for name in names), backend=backend)


def part_of(opt: Any) -> Any:
    """Of an optimiser of a subject, the part that it is about: itself, if it is no chain."""
    return next((part for part in getattr(opt, "parts", ()) if type(part).__name__ in PARTS), opt)


def rules_of(subject: str) -> tuple[Rule, ...]:
    """The rules that an optimiser of this subject uses: for a parameter that is a matrix, and for one that is none."""
    opt = make(subject)
    return tuple(compilation_of(opt).rules[i] for i in dict.fromkeys(settings_of(opt).variants.values()))


def variants() -> list[tuple[str, dict[str, bool]]]:
    """All choices of flags of every spec that do not contradict each other."""
    return [
        (name, chosen)
        for name, spec in SPECS.items()
        for chosen in _each_once([{flag.name: flag.value for flag in rule.flags} for rule in spec.rules])
    ]


def _each_once(choices: list[dict[str, bool]]) -> list[dict[str, bool]]:
    return [choice for i, choice in enumerate(choices) if choice not in choices[:i]]


def another(hyper: Hyper) -> Any:
    """A value of this hyperparameter that is not its default."""
    values = tuple(
        next(x for x in (0.1 + 0.2, 0.6, 0.75, 3.0, 4.0, -0.3) if x in within and x != default)
        for within, default in zip(hyper.ranges, hyper.default, strict=True)
    )
    return values if hyper.vector else values[0]


GROUPED = [subject for subject in SUBJECTS if any(rule.grouped for rule in rules_of(subject))]


def same_everywhere(opts: Sequence[Any], worlds: Sequence[Sequence[Any]]) -> None:
    """AssertionError unless optimisers have left the same bits in parameters and states, each in its own world."""
    for ps in zip(*worlds, strict=True):
        states = [{"p": p} | opt.state(p) for opt, p in zip(opts, ps, strict=True)]
        for state in states[1:]:
            assert {n: np.asarray(x).tobytes() for n, x in state.items()} == {
                n: np.asarray(x).tobytes() for n, x in states[0].items()
            }
