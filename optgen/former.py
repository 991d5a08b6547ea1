"""The module names of version 0.1.0, for its pickles and its generated modules.

In: a name such as `optgen.chains`. Out: a module that looks its attributes up where they are now. Nothing is imported
before an attribute is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["FORMER", "Renamed", "attribute_of"]

#: By the name of a module of 0.1.0: the modules that have its attributes now. The last five are packages today.
FORMER: dict[str, tuple[str, ...]] = {
    "chains": ("optimiser.chain",),
    "checkpoint": ("optimiser.checkpoint",),
    "configured": ("optimiser.settings",),
    "derivatives": ("training.derivatives",),
    "driver": ("compiler.driver", "compiler.catalogue", "optimiser.classes"),
    "hyperparameters": ("optimiser.hyperparameters",),
    "schedules": ("optimiser.schedules",),
    "state": ("optimiser.state",),
    "toolchain": ("compiler.toolchain",),
    "track": ("training.autodiff", "training.params", "training.tracked"),
    "ir": ("ir.expr", "ir.rule", "ir.verify"),
    "optimiser": ("optimiser.base",),
    "training": ("training.loop",),
}


class Renamed:
    """The finder of those modules of 0.1.0 that are neither modules nor packages today, and their loader."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        package, _, stem = name.partition(".")
        return ModuleSpec(name, Renamed()) if package == "optgen" and stem in FORMER else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Leaves the making of the module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__getattr__"] = attribute_of(module.__name__.rpartition(".")[2])


def attribute_of(stem: str) -> Callable[[str], Any]:
    """The `__getattr__` of the module that 0.1.0 called `stem`."""

    def __getattr__(name: str) -> Any:
        if not name.startswith("__"):
            for home in FORMER[stem]:
                module = import_module(f"optgen.{home}")
                if name in module.__dict__:
                    return module.__dict__[name]
        raise AttributeError(f"module 'optgen.{stem}' has no attribute {name!r}")

    return __getattr__
