"""optgen: write an update rule once, as mathematics; get optimisers that are fused, fast and proven equal to it.

    from optgen import ADAM            a shipped rule; `optgen list` shows them
    optgen.load("my.toml")             a rule of one's own, compiled on first use
    from optgen import chain           several as one: chain(ClipNorm(1.0), WeightDecay(1e-4), ADAM())
    from optgen import split           several for one model, chosen by name and shape
    from optgen import cosine, ...     hyperparameters that change with the step: ADAM(eta=cosine(0.1, steps=1000))
    from optgen import quantise, dequantise    arrays in fewer bytes
    from optgen import param, Params, gradient, update, train, stop, throttle, epochs

Importing this module loads nothing else; each name loads what it needs when it is first used. Type checkers and editors
read the stub beside it, which `optgen build` writes from the specs.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

TYPE_CHECKING = False  # as in `typing`, which takes longer to load than all of this
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

#: The module of every name that is no rule; the stub imports them from there too.
HOMES = {
    "OptgenError": "errors",
    "SpecError": "errors",
    "Optimiser": "optimiser.chain",
    "chain": "optimiser.chain",
    "load": "optimiser.classes",
    "split": "optimiser.split",
    "constant": "optimiser.schedules",
    "cosine": "optimiser.schedules",
    "exponential": "optimiser.schedules",
    "inverse_time": "optimiser.schedules",
    "join": "optimiser.schedules",
    "linear": "optimiser.schedules",
    "one_cycle": "optimiser.schedules",
    "piecewise": "optimiser.schedules",
    "polynomial": "optimiser.schedules",
    "warmup": "optimiser.schedules",
    "Quantised": "runtime.quantised",
    "dequantise": "runtime.quantised",
    "quantise": "runtime.quantised",
    "Gradients": "training.params",
    "Param": "training.params",
    "Params": "training.params",
    "gradient": "training.autodiff",
    "param": "training.params",
    "epochs": "training.loop",
    "stop": "training.loop",
    "throttle": "training.loop",
    "train": "training.loop",
    "update": "training.loop",
}


class _Former:
    """Finds the modules of 0.1.0 under their names of then. Asked last, and of no cost until then."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> Any:
        if not name.startswith("optgen.") or name == "optgen.former":
            return None
        return import_module("optgen.former").Renamed.find_spec(name)


sys.meta_path.append(_Former)


def __getattr__(name: str) -> Any:
    if name == "__all__":  # `from optgen import *` takes every rule too
        return [*HOMES, *_rules()]
    if name in HOMES:
        value = getattr(import_module(f".{HOMES[name]}", __name__), name)
    elif name.startswith("_") or name in _wings():
        # Of a wing, `from . import` asks here first, and then imports it.
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        classes, errors = import_module(".optimiser.classes", __name__), import_module(".errors", __name__)
        try:
            value = classes.shipped_class(name)
        except errors.UnknownRule as error:
            raise AttributeError(str(error)) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*HOMES, "__version__", *_rules()])


def _wings() -> list[str]:
    return [name.removesuffix(".py") for name in os.listdir(__path__[0])]


def _rules() -> list[str]:
    return list(import_module(".compiler.catalogue", __name__).shipped_names())
