"""The rules of optgen for JAX, as gradient transformations of optax.

    optgen.jax.adam(eta=1e-3)                      every rule that ships, by the name of its spec
    optgen.jax.load("my.toml")                     a rule of one's own
    optgen.jax.transform(optgen.chain(...))        a chain, or any other optimiser

Each is an `optax.GradientTransformationExtraArgs`: it works in `optax.chain`, `masked`, `multi_transform`,
`MultiSteps`, `inject_hyperparams` and `apply_if_finite`, under `jit`, `scan` and `vmap`, on any device.

In: a rule, and pytrees of arrays. Out: updates, which `optax.apply_updates` adds to the parameters, and states.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any

import optax

from ..errors import UnknownRule
from ..names import close_matches
from ..once import once
from ..optimiser.classes import load as _load
from ..optimiser.classes import shipped_class
from .transformation import TransformationState, factory, transform

__all__ = ["TransformationState", "load", "transform"]


def load(path: str | PathLike[str]) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """The function that makes transformations of the rule in a spec.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    SpecError
        With all faults of the spec.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> descent = optgen.jax.load("my.toml")  # doctest: +SKIP
    >>> transformation = descent(eta=0.1)  # doctest: +SKIP
    """
    return factory(_load(path))


@once
def _made(name: str) -> Callable[..., optax.GradientTransformationExtraArgs]:
    stems = _names()
    if name not in stems:
        close = close_matches(name, stems) or close_matches(name.lower(), stems)
        meant = f"; did you mean {close[0]!r}?" if close else "; `dir(optgen.jax)` lists them"
        raise UnknownRule(f"optgen.jax has no rule {name!r}{meant}")
    return factory(shipped_class(stems[name]))


def _names() -> dict[str, str]:
    """The names of the rules by those of their specs."""
    from ..compiler.catalogue import shipped_names

    return {path.stem: name for name, path in shipped_names().items()}


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = _made(name)
    except UnknownRule as error:
        raise AttributeError(str(error)) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_names()})
