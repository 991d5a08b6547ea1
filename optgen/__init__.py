"""optgen: write an update rule once, as mathematics; get optimisers that are fused, fast and proven equal to it.

    from optgen import ADAM            a shipped rule; `optgen list` shows them
    optgen.load("my.toml")             a rule of one's own, compiled on first use
    from optgen import chain           several as one: chain(ClipNorm(1.0), WeightDecay(1e-4), ADAM())
    from optgen import cosine, ...     hyperparameters that change with the step: ADAM(eta=cosine(0.1, steps=1000))
    from optgen import param, Params, gradient, update, train, stop, throttle, epochs

Importing this module loads nothing else; each name loads what it needs when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from .chains import Optimiser as Optimiser
    from .chains import chain as chain
    from .errors import OptgenError as OptgenError
    from .errors import SpecError as SpecError
    from .schedules import constant as constant
    from .schedules import cosine as cosine
    from .schedules import exponential as exponential
    from .schedules import inverse_time as inverse_time
    from .schedules import join as join
    from .schedules import linear as linear
    from .schedules import one_cycle as one_cycle
    from .schedules import piecewise as piecewise
    from .schedules import polynomial as polynomial
    from .schedules import warmup as warmup
    from .track import Gradients as Gradients
    from .track import Param as Param
    from .track import Params as Params
    from .track import gradient as gradient
    from .track import param as param
    from .training import epochs as epochs
    from .training import stop as stop
    from .training import throttle as throttle
    from .training import train as train
    from .training import update as update

__version__ = "0.1.0"

_HOMES = {
    "OptgenError": "errors",
    "SpecError": "errors",
    "Optimiser": "chains",
    "chain": "chains",
    "constant": "schedules",
    "cosine": "schedules",
    "exponential": "schedules",
    "inverse_time": "schedules",
    "join": "schedules",
    "linear": "schedules",
    "one_cycle": "schedules",
    "piecewise": "schedules",
    "polynomial": "schedules",
    "warmup": "schedules",
    "Gradients": "track",
    "Param": "track",
    "Params": "track",
    "gradient": "track",
    "param": "track",
    "epochs": "training",
    "stop": "training",
    "throttle": "training",
    "train": "training",
    "update": "training",
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
    driver = import_module(".driver", __name__)
    return driver.module_class(driver.compile_file(Path(path)))


def __getattr__(name: str) -> Any:
    if name == "__all__":  # `from optgen import *` takes every rule too
        return [*_HOMES, "load", *_rules()]
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    elif name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        # Not `from . import driver`, which would ask this very function for the name `driver`.
        driver, errors = import_module(".driver", __name__), import_module(".errors", __name__)
        try:
            value = driver.shipped_class(name)
        except errors.UnknownRule as error:
            raise AttributeError(str(error)) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOMES, "load", "__version__", *_rules()])


def _rules() -> list[str]:
    return list(import_module(".driver", __name__).shipped_names())
