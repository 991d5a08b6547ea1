"""Every rule as an optimiser, with parameters, gradients and inputs for a few steps: what functions are tried on."""

from __future__ import annotations

from typing import Any

import numpy as np
from rules import OF_MATRICES, OWN, SPECS

import optgen
from optgen.compiler import driver
from optgen.optimiser.base import compilation_of
from optgen.optimiser.chain import Chain
from optgen.optimiser.classes import module_class
from optgen.runtime.shapes import chosen_once

__all__ = ["NAMES", "STEPS", "UNSTABLE", "Case"]

NAMES = sorted([*SPECS, *OWN])
STEPS = 5
#: Rules whose step is no continuous function of the gradient: where eigenvalues are equal, any basis is one of
#: eigenvectors; and the sign of a difference may be that of a rounding.
UNSTABLE = ("FOCUS", "SOAP", "SPlus")
SHAPES, MATRICES = [(4, 5), (7,), (2, 3, 4), (3, 2, 2, 2)], [(4, 5), (6, 4), (4, 4)]


class Case:
    """A rule as an optimiser of the interpreter, a part of chains behind ADAM; parameters, gradients and inputs."""

    def __init__(self, name: str, dtype: str = "float64") -> None:
        self.opt = _optimiser(name)
        compilation = compilation_of(self.opt)
        whole = name in OF_MATRICES or any(rule.multiplies for rule in compilation.rules)
        shapes = MATRICES if whole else SHAPES
        rng = np.random.default_rng(sum(map(ord, name)))
        arrays = [[rng.normal(size=shape).astype(dtype) for shape in shapes] for _ in range(1 + STEPS)]
        self.params, *self.grads = arrays
        self.inputs = [
            {
                each.name: abs(rng.normal()) if each.extent.name == "STEP" else [abs(g) for g in grads]
                for each in self.opt.rule.inputs
            }
            for grads in self.grads
        ]
        sizing = chosen_once(compilation.rules)
        names = [hyper.name for hyper in self.opt.rule.hypers if hyper.name not in sizing]
        values = {name: getattr(self.opt, name) for name in names if not isinstance(self.opt, Chain)}
        #: What a step may be given: numbers, or lists of them.
        self.hyperparameters = {key: list(x) if isinstance(x, tuple) else x for key, x in values.items()}

    def follow(self, step: Any) -> float:
        """The largest difference from the optimiser over all steps, as a share of the largest parameter.

        `step` takes the number of the step, the count and the phase. It gives the parameters, as arrays of NumPy, and
        whether the step counts.
        """
        theirs, t, worst = [p.copy() for p in self.params], 0, 0.0
        for k in range(STEPS):
            phase = self.opt.phase
            counted = self.opt.step(theirs, [g.copy() for g in self.grads[k]], **self.inputs[k])
            mine, counts = step(k, t + 1, phase)
            assert counts == bool(counted)
            t += counts and phase in (None, self.opt.rule.phases[-1:] and self.opt.rule.phases[-1])
            for p, q in zip(mine, theirs, strict=True):
                assert p.dtype == q.dtype
                worst = max(worst, float(np.abs(p - q).max() / np.abs(q).max()))
        return worst


def _optimiser(name: str) -> Any:
    if name in OWN:
        return module_class(driver.compile_text(OWN[name], f"{name}.toml"))(backend="interpreter")
    sizes = dict.fromkeys([each.hyper for each in SPECS[name].rules[0].dimensions], 3)
    opt = getattr(optgen, name)(**sizes, backend="interpreter")
    return optgen.chain(optgen.ADAM(), opt, backend="interpreter") if opt.rule.part == "parameter" else opt
