"""The shipped specs as tests iterate over them: rules alone, and each part inside a chain.

A *subject* says of what a test makes an optimiser: a rule, as "ADAM", or a part in its chain, as "ClipNorm, ADAM".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from equivalence import BLOCKS, INDICES, REDUCED

import optgen
from optgen.compiler import catalogue, driver
from optgen.ir.expr import Extent
from optgen.ir.rule import Aspect, Hyper, Rule
from optgen.optimiser import classes
from optgen.optimiser.base import compilation_of, settings_of

SPECS = {spec.name: spec for spec in map(driver.compile_file, catalogue.shipped())}
PARTS = [name for name, spec in SPECS.items() if spec.rules[0].part]
#: Rules for matrices only; and those for parameters of any shape, of which nearly all tests are.
OF_MATRICES = [name for name, spec in SPECS.items() if not any(rule.takes(Aspect.VECTOR) for rule in spec.rules)]
RULES = [name for name in SPECS if name not in (*PARTS, *OF_MATRICES)]

#: For each part, its chain, and the arguments of the rule there.
CHAINS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "AGC": ("AGC", "ADAM", {}),
    "AccumGrad": ("AccumGrad", "ADAM", {}),
    "Cautious": ("ADAM", "Cautious", {}),
    "ClipGlobalNorm": ("ClipGlobalNorm", "ADAM", {}),
    "ClipGrad": ("ClipGrad", "ADAM", {}),
    "ClipNorm": ("ClipNorm", "ADAM", {}),
    "EMA": ("ADAM", "EMA", {}),
    "ExpDecay": ("ADAM", "ExpDecay", {"eta": 1.0}),
    "FriendlySAM": ("FriendlySAM", "ADAM", {}),
    "GSAM": ("GSAM", "ADAM", {}),
    "GradientCentralisation": ("GradientCentralisation", "ADAM", {}),
    "Grokfast": ("Grokfast", "ADAM", {}),
    "InvDecay": ("ADAM", "InvDecay", {}),
    "LookSAM": ("LookSAM", "ADAM", {}),
    "Lookahead": ("ADAM", "Lookahead", {}),
    "LossScale": ("LossScale", "ADAM", {}),
    "MARS": ("MARS", "ADAM", {}),
    "OrthoGrad": ("OrthoGrad", "ADAM", {}),
    "SAM": ("SAM", "ADAM", {}),
    "ScheduleFree": ("ADAM", "ScheduleFree", {}),
    "SignDecay": ("SignDecay", "ADAM", {}),
    "Unscale": ("Unscale", "ADAM", {}),
    "WSAM": ("WSAM", "ADAM", {}),
    "WeightDecay": ("WeightDecay", "ADAM", {}),
    "ZeroGrad": ("ADAM", "ZeroGrad", {}),
}
#: For each subject that is a chain, the part under test.
PART_OF = {f"{first}, {second}": part for part, (first, second, _) in CHAINS.items()}
SUBJECTS = [*RULES, *PART_OF]

#: Matrices of the first dimension by the rest, with states, which no shipped rule has.
SLICES = """
name = "Slices"
[hyperparameters]
eta = { default = 0.1, range = "[0, inf)" }
[state]
r = { init = 0, extent = "row", when = "matrix" }
c = { init = "eta", extent = "column", when = "matrix" }
b = { init = 1, extent = "matrix", when = "matrix" }
[update]
matrices = "first by rest"
formulas = '''
r     = r/2 + mean(g*g, row)
c     = max(c, max(abs(g), column))
b     = b/2 + norm(r, matrix)
delta = eta*g/(1 + sqrt(r)) + eta*(c - b)*1e-3 if matrix else eta*g
'''
"""
#: The same with matrices of all dimensions but the last by the last; and the shape itself.
LINES = (
    SLICES.replace("Slices", "Lines")
    .replace("first by rest", "all but last by last")
    .replace("1 + sqrt(r)", "ndim + sqrt(r)*length(1)/length(-1)")
    .replace("else eta*g", "else eta*g/(ndim + length(2))")
)
#: Rules of the tests, with states of all extents.
OWN = {"Reduced": REDUCED, "Slices": SLICES, "Lines": LINES, "Blocks": BLOCKS, "Indices": INDICES}

#: Arguments with which the first steps are long enough to be seen, and the loss of a small regression falls, where the
#: defaults do not do.
DESCENDING: dict[str, dict[str, Any]] = {
    "ApolloDQN": {"eta": 1e-3},  # where its warm-up begins
    "DAdaptSGD": {"d0": 1e-3},
    "ScheduleFreeSGD": {"eta": 0.1},  # 1 suits gradients that are clipped
    "ScionSign": {"radius": 10},  # 3000 suits a last layer
    "VSGD": {"eta": 0.01},  # 0.1 suits noise
}


class Fed:
    """What goes before the class of a rule that has inputs: a step gives them itself, if a test does not."""

    def step(self, params: Sequence[Any], grads: Sequence[Any], **inputs: Any) -> bool:
        params = list(params)
        if not inputs:
            arrays = [p if isinstance(p, np.ndarray) else getattr(p, "data", p) for p in params]
            curved = [np.full_like(np.asarray(x), 1.25) for x in arrays]
            inputs = {each.name: curved if each.extent == Extent.ELEMENT else 0.75 for each in self.rule.inputs}  # type: ignore[attr-defined]
        return bool(super().step(params, grads, **inputs))  # type: ignore[misc]


class Whole:
    """What goes before the class of a rule with several phases: a step runs them all. The gradient is the one that is
    given; at another point, that and the way to it."""

    def step(self, params: Sequence[Any], grads: Sequence[Any], **inputs: Any) -> bool:
        params, grads = list(params), list(grads)
        arrays = [p if isinstance(p, np.ndarray) else getattr(p, "data", p) for p in params]
        starts = [np.array(x) for x in arrays]
        last = self.rule.phases[-1]  # type: ignore[attr-defined]
        ends = self.phase == last  # type: ignore[has-type]
        counts = super().step(params, grads, **inputs)  # type: ignore[misc]
        while counts and not ends:
            ends = self.phase == last
            with np.errstate(all="ignore"):
                there = [g + (x - start) for g, x, start in zip(grads, arrays, starts, strict=True)]
            counts = super().step(params, there, **inputs)  # type: ignore[misc]
        return bool(counts)


#: Those classes, found in this module by pickles.
FED = {
    name: type(name, (before, getattr(optgen, name)), {"__module__": __name__})
    for name, spec in SPECS.items()
    for before, wanted in ((Fed, spec.rules[0].inputs), (Whole, spec.rules[0].phases and not spec.rules[0].part))
    if wanted
}
globals().update(FED)


class WholeChain(Whole, type(optgen.chain(optgen.Descent()))):  # type: ignore[misc]
    """The same of a chain, whose copies are of this class too."""

    def _twin(self) -> Any:
        return _whole(super()._twin())

    def __reduce__(self) -> Any:
        return _revive_whole, super().__reduce__()


def _whole(made: Any) -> Any:
    object.__setattr__(made, "__class__", WholeChain)
    return made


def _revive_whole(revive: Any, given: Any) -> Any:
    return _whole(revive(*given))


def make(subject: str, backend: str = "kernel", **given: Any) -> Any:
    """An optimiser of a subject, or of a rule in `OWN`. In a chain, `given` are arguments of the part under test."""
    if subject in OWN:
        return classes.module_class(driver.compile_text(OWN[subject], "test.toml"))(**given, backend=backend)
    if subject in SPECS:
        return FED.get(subject, getattr(optgen, subject))(**given, backend=backend)
    part = PART_OF[subject]
    *names, arguments = CHAINS[part]
    chosen = {"ADAM": arguments, part: given}
    made = optgen.chain(*(getattr(optgen, name)(**chosen[name]) for name in names), backend=backend)
    return _whole(made) if made.rule.phases else made


def part_of(opt: Any) -> Any:
    """The part under test of an optimiser that `make` made: the optimiser itself unless it is a chain."""
    return next((part for part in getattr(opt, "parts", ()) if type(part).__name__ in PARTS), opt)


def rules_of(subject: str) -> tuple[Rule, ...]:
    """The variants that an optimiser of a subject uses: for matrices, and for other parameters."""
    opt = make(subject)
    return tuple(compilation_of(opt).rules[i] for i in dict.fromkeys(settings_of(opt).variants.values()))


def variants() -> list[tuple[str, dict[str, bool]]]:
    """All consistent choices of flags, for every spec."""
    return [
        (name, chosen)
        for name, spec in SPECS.items()
        for chosen in _each_once([{flag.name: flag.value for flag in rule.flags} for rule in spec.rules])
    ]


def _each_once(choices: list[dict[str, bool]]) -> list[dict[str, bool]]:
    return [choice for i, choice in enumerate(choices) if choice not in choices[:i]]


def another(hyper: Hyper) -> Any:
    """A value of a hyperparameter other than its default."""
    values = tuple(
        next(x for x in (0.1 + 0.2, 0.6, 0.75, 3.0, 4.0, -0.3) if x in within and x != default)
        for within, default in zip(hyper.ranges, hyper.default, strict=True)
    )
    return values if hyper.vector else values[0]


GROUPED = [subject for subject in SUBJECTS if any(rule.grouped for rule in rules_of(subject))]


def same_everywhere(opts: Sequence[Any], worlds: Sequence[Sequence[Any]]) -> None:
    """Assert that optimisers have left the same bits in parameters and states, each in its own world of arrays."""
    for ps in zip(*worlds, strict=True):
        states = [{"p": p} | opt.state(p) for opt, p in zip(opts, ps, strict=True)]
        for state in states[1:]:
            assert {n: np.asarray(x).tobytes() for n, x in state.items()} == {
                n: np.asarray(x).tobytes() for n, x in states[0].items()
            }
