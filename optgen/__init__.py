"""optgen: write an update rule once, as mathematics; get optimisers that are fused, fast and proven equal to it.

    from optgen import ADAM            a shipped rule; `optgen list` shows them
    optgen.load("my.toml")             a rule of one's own, compiled on first use
    from optgen import param, Params, gradient, update, train, stop, throttle, epochs

Importing this module loads nothing else; each name loads what it needs when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from .errors import OptgenError as OptgenError
    from .errors import SpecError as SpecError
    from .optimiser import Optimiser as Optimiser
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
    "Optimiser": "optimiser",
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
    driver = import_module(".driver", __name__)
    return [driver.compile_file(path).name for path in driver.shipped()]
