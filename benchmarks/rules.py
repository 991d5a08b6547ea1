"""What is measured: the shipped rules with the arguments that people use, and two chains as whole training steps.

In: the name of a rule or chain. Out: an optimiser of it, and its sweeps, operations and least traffic.

The least traffic of a step is what its sweeps must read and write, each array once a sweep. The memory limit is a loop
over as many bytes. Rates in GB/s are of these bytes too, also for peers that move more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import optgen
from optgen.compiler import catalogue, driver
from optgen.errors import ArgumentError
from optgen.ir.expr import Call, Extent, extent_of, walk
from optgen.ir.rule import Aspect
from optgen.lowering.sweeps import sweeps_of
from optgen.optimiser.base import compilation_of, settings_of

from .shapes import Shapes

__all__ = [
    "ARGUMENTS", "CHAINS", "SCALE", "arrays_moved", "find", "flops", "has_state", "least_bytes", "make", "names",
    "sweeps",
]  # fmt: skip

#: The arguments that people use, where these are not the defaults.
ARGUMENTS: dict[str, dict[str, Any]] = {"SGD": {"lr": 0.01, "momentum": 0.9}}
#: The factor of the loss in half precision, by which the gradients are divided again.
SCALE = 1024.0


def _clipped() -> Any:
    return optgen.chain(optgen.ClipGlobalNorm(1.0), optgen.AdamW())


def _tail() -> Any:
    """Everything between the gradients of a scaled loss and the next forward pass."""
    return optgen.chain(
        optgen.Unscale(SCALE),
        optgen.ClipGlobalNorm(1.0),
        optgen.AdamW(),
        optgen.EMA(0.999),
        optgen.ZeroGrad(),
    )


CHAINS: dict[str, Callable[[], Any]] = {"clip+AdamW": _clipped}
if hasattr(optgen, "Unscale") and hasattr(optgen, "ZeroGrad"):
    CHAINS["tail"] = _tail


def names() -> list[str]:
    """All rules that step parameters of any shape, alone and by kernels, and the chains."""
    return [*(name for name, path in catalogue.shipped_names().items() if _is_measured(path)), *CHAINS]


def _is_measured(path: Any) -> bool:
    rules = driver.compile_file(path).rules
    any_shape = any(rule.takes(Aspect.VECTOR) for rule in rules)
    return not rules[0].part and any_shape and not any(rule.multiplies for rule in rules)


def find(name: str) -> str:
    """A rule's name as it is spelt. Capitals do not matter where only one rule has the name."""
    known = names()
    alike = [each for each in known if each.lower() == name.lower()]
    if name in known or len(alike) == 1:
        return name if name in known else alike[0]
    close = alike or get_close_matches(name, known, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "`optgen list` shows the rules"
    if not alike and name.lower() in map(str.lower, catalogue.shipped_names()):
        hint = "it is a part of chains, or for matrices only; what is measured steps parameters of any shape by itself"
    raise ArgumentError(f"there is no rule {name!r} to be measured", hint=hint)


def make(name: str) -> Any:
    """A new optimiser of this rule or chain."""
    return CHAINS[name]() if name in CHAINS else getattr(optgen, name)(**ARGUMENTS.get(name, {}))


def _lowered(optimiser: Any, matrix: bool) -> Any:
    aspect = Aspect.WIDE if matrix else Aspect.VECTOR
    return compilation_of(optimiser).lowered[settings_of(optimiser).variants[aspect]]


def arrays_moved(optimiser: Any, matrix: bool = False) -> int:
    """The number of arrays that a step reads or writes. `matrix`: for a parameter of two or more dimensions."""
    return sweeps_of(_lowered(optimiser, matrix)).traffic


def sweeps(optimiser: Any, matrix: bool = False) -> int:
    """The number of sweeps of a step."""
    return len(sweeps_of(_lowered(optimiser, matrix)).sweeps)


def least_bytes(optimiser: Any, shapes: Shapes) -> int:
    """The bytes that a step of float32 parameters of these shapes must read and write."""
    moved = {matrix: arrays_moved(optimiser, matrix) for matrix in {len(shape) >= 2 for shape in shapes}}
    return 4 * sum(math.prod(shape) * moved[len(shape) >= 2] for shape in shapes)


def flops(optimiser: Any) -> int:
    """The number of operations for one element of a vector. A square root counts as one, like a sum."""
    total = 0
    for each in sweeps_of(_lowered(optimiser, False)).sweeps:
        found = {e for assign in (*each.body, *each.reductions) for e in walk(assign.value)}
        total += sum(isinstance(e, Call) and extent_of(e) == Extent.ELEMENT for e in found) + len(each.reductions)
    return total


def has_state(optimiser: Any) -> bool:
    """Whether the rule keeps states."""
    return bool(optimiser.rule.states)
