"""Options: a rule with its hyperparameters, and without parameters.

In: what a constructor takes behind the parameters; or a chain of optgen. Out: a value that makes the optimiser once
there are parameters. What the constructor refuses is refused at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any

import torch

from ..errors import ArgumentError, shown
from ..optimiser.chain import Chain

__all__ = ["ChainOptions", "Options"]


class Options:
    """What `Rule.options(...)` gives.

    Parameters
    ----------
    cls
        The class of the rule.
    args, keywords
        What its constructor takes behind the parameters.

    Examples
    --------
    >>> import optgen.torch as optim
    >>> optim.Lion.options(lr=1e-4)
    Lion.options(lr=0.0001)
    """

    def __init__(self, cls: Any, args: Iterable[Any] = (), keywords: Mapping[str, Any] | None = None) -> None:
        self.cls, self.args, self.keywords = cls, tuple(args), dict(keywords or {})
        self.name: str = cls.__name__
        given = self.keywords.get("params", self.args[0] if self.args else None)
        if isinstance(given, torch.nn.Module | Iterable) and not isinstance(given, torch.Tensor | str):
            message = f"{self.name}.options: expected hyperparameters alone, got {shown(type(given).__name__)}"
            raise ArgumentError(message, hint="parameters are given to split, or to the class itself")
        self.made([torch.nn.Parameter(torch.zeros(1, 1, device="cpu"))])

    def made(self, params: Any) -> Any:
        """The optimiser of these parameters."""
        return self.cls(params, *self.args, **self.keywords)

    def __repr__(self) -> str:
        given = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.keywords.items())]
        return f"{self.name}.options({', '.join(given)})"

    def __reduce__(self) -> tuple[Any, ...]:
        from .optimizer import revival_of  # which gives each class its `options`

        revive, given = revival_of(self.cls)
        return _revived, (revive, given, self.args, self.keywords)


def _revived(revive: Callable[..., Any], given: Iterable[Any], args: Iterable[Any], keywords: Any) -> Options:
    return Options(type(revive(*given)), args, keywords)


class ChainOptions:
    """A chain of optgen, which has no parameters, as what makes one for tensors. It takes copies of the parts."""

    def __init__(self, core: Chain, chain: Callable[..., Any]) -> None:
        self.core, self.chain = copy(core), chain
        self.made([torch.nn.Parameter(torch.zeros(1, 1, device="cpu"))])
        self.name = core.rule.name

    def made(self, params: Any) -> Any:
        """The optimiser of these parameters."""
        return self.chain(params, self.core)
