"""optgen: write an update rule once, as mathematics; get optimisers that are fused, fast and proven equal to it.

    from optgen import ADAM            a shipped rule; `optgen list` shows them
    optgen.load("my.toml")             a rule of one's own, compiled on first use
    from optgen import chain           several as one: chain(ClipNorm(1.0), WeightDecay(1e-4), ADAM())
    from optgen import cosine, ...     hyperparameters that change with the step: ADAM(eta=cosine(0.1, steps=1000))
    from optgen import param, Params, gradient, update, train, stop, throttle, epochs

Importing this module loads nothing else; each name loads what it needs when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from .errors import OptgenError as OptgenError
    from .errors import SpecError as SpecError
    from .optimiser.chain import Optimiser as Optimiser
    from .optimiser.chain import chain as chain
    from .optimiser.schedules import constant as constant
    from .optimiser.schedules import cosine as cosine
    from .optimiser.schedules import exponential as exponential
    from .optimiser.schedules import inverse_time as inverse_time
    from .optimiser.schedules import join as join
    from .optimiser.schedules import linear as linear
    from .optimiser.schedules import one_cycle as one_cycle
    from .optimiser.schedules import piecewise as piecewise
    from .optimiser.schedules import polynomial as polynomial
    from .optimiser.schedules import warmup as warmup
    from .training.autodiff import Gradients as Gradients
    from .training.autodiff import Param as Param
    from .training.autodiff import Params as Params
    from .training.autodiff import gradient as gradient
    from .training.autodiff import param as param
    from .training.loop import epochs as epochs
    from .training.loop import stop as stop
    from .training.loop import throttle as throttle
    from .training.loop import train as train
    from .training.loop import update as update

__version__ = "0.1.0"


class _Former:
    """Finds the modules of 0.1.0 under their names of then. Asked last, and of no cost until then."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> Any:
        if not name.startswith("optgen.") or name == "optgen.former":
            return None
        return import_module("optgen.former").Renamed.find_spec(name)


sys.meta_path.append(_Former)

_HOMES = {
    "OptgenError": "errors",
    "SpecError": "errors",
    "Optimiser": "optimiser.chain",
    "chain": "optimiser.chain",
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
    "Gradients": "training.autodiff",
    "Param": "training.autodiff",
    "Params": "training.autodiff",
    "gradient": "training.autodiff",
    "param": "training.autodiff",
    "epochs": "training.loop",
    "stop": "training.loop",
    "throttle": "training.loop",
    "train": "training.loop",
    "update": "training.loop",
}


def load(path: str | os.PathLike[str]) -> Any:
    """The optimiser class of the spec at `path`. SpecError lists all its faults.

    Its kernel is compiled when it first steps, and kept in the per-user cache. CompilerNotFound if there is no C
    compiler then; with `backend="interpreter"` none is needed.
    """
    from pathlib import Path

    if "\n" in str(path):
        errors = import_module(".errors", __name__)
        raise errors.ArgumentError("load: the path of a spec was expected, got its text", hint="write it to a file")
    driver = import_module(".compiler.driver", __name__)
    classes = import_module(".optimiser.classes", __name__)
    return classes.module_class(driver.compile_file(Path(path)))


def __getattr__(name: str) -> Any:
    if name == "__all__":  # `from optgen import *` takes every rule too
        return [*_HOMES, "load", *_rules()]
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    elif name.startswith("_"):
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
    return sorted([*_HOMES, "load", "__version__", *_rules()])


def _rules() -> list[str]:
    return list(import_module(".compiler.catalogue", __name__).shipped_names())
