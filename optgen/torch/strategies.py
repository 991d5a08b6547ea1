"""Two strategies: rules that PyTorch has too, and the others.

In: a group, a parameter or a saved state. Out: an error that says what to do, or how the step is done.

Kernels step both kinds alike. What they do not take, what is checked and when, and what a saved state must have depends
on whether PyTorch has a class for the rule.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.optim import Optimizer

from ..errors import ArrayError, StateError
from ..ir.expr import Extent
from .tensors import count_dtype

__all__ = ["ANOTHER_RULE", "OwnRule", "Strategy", "TorchMatrixRule", "TorchRule"]

#: What to do with a parameter that a rule does not take.
ANOTHER_RULE = "step it with another optimiser"
#: Flags of PyTorch's rules with which PyTorch computes a step itself.
_OWN_WAYS = ("capturable", "differentiable")
#: Arguments of PyTorch's optimisers that say how a step is computed, and not which.
_HOW = frozenset({"foreach", "fused", *_OWN_WAYS})
#: Arguments that PyTorch's optimisers got later than others: groups that were saved before lack them.
_LATE = frozenset({"maximize", "decoupled_weight_decay"})
#: What steps a tensor that is nothing but operations of PyTorch.
_PYTORCHS = "use a rule that PyTorch has too, such as optgen.torch.SGD or AdamW"


class Strategy(ABC):
    """What differs between rules that PyTorch has too and the others."""

    #: Hyperparameters are checked whenever they change. PyTorch checks its own when an optimiser is made, and then no
    #: more.
    checks_values: bool
    #: Whether a parameter for which anything is kept has a count: PyTorch's classes ask for it.
    counts_whatever_is_kept: bool
    #: The interpreter steps what kernels do not take; else PyTorch's own loop does.
    interprets: bool
    #: The flags of a group that decide how a step is done.
    flags: tuple[str, ...]
    #: Arguments in which a None stands for the machine epsilon.
    epsilons: frozenset[str]

    @abstractmethod
    def steps_group(self, group: Mapping[str, Any]) -> bool:
        """Whether a group asks for PyTorch's own loop."""

    @abstractmethod
    def expect_not_traced(self, name: str, mode: str) -> None:
        """ArrayError unless there is a way to step by operations that `mode` records or replaces."""

    @abstractmethod
    def expect_memory(self, what: str, name: str, x: torch.Tensor) -> None:
        """ArrayError unless there is a way to step a parameter or gradient whose memory does not say what it holds."""

    @abstractmethod
    def expect_real(self, what: str, name: str) -> None:
        """ArrayError unless there is a way to step a complex parameter of which kernels do not take the parts."""

    @abstractmethod
    def expect_gradient(self, what: str, name: str, p: torch.Tensor, g: torch.Tensor) -> None:
        """ArrayError unless there is a way to step a parameter of the CPU with such a gradient."""

    @abstractmethod
    def loads_as(self, name: str) -> bool:
        """Whether a state of the rule `name`, which is another one, is loaded as one of this rule."""

    @abstractmethod
    def expect_own(self, name: str, saved: Mapping[str, Any], i: int) -> None:
        """StateError if the saved group `i`, which does not say of which rule it is, looks like one of another rule
        than this one, `name`."""

    @abstractmethod
    def small_dtype(self, extent: Extent, p: torch.Tensor) -> torch.dtype:
        """In what a state of less than element extent is kept between the steps, which compute it in float64."""

    @abstractmethod
    def divided(self, kernels: list[int], others: list[int], *, grouped: bool) -> tuple[list[int], list[int]]:
        """The parameters that kernels step, and the others. `grouped`: a value depends on all of them together."""

    def step_others(self, optimizer: Any, params: Sequence[torch.Tensor]) -> None:
        """Step these parameters, which kernels do not take, by PyTorch's loop; unless the rule `interprets`."""
        raise AssertionError("the interpreter steps what kernels do not take")


class TorchRule(Strategy):
    """A rule that PyTorch has too: its class checks the arguments, and its loop steps what kernels do not take."""

    checks_values = False
    counts_whatever_is_kept = True
    interprets = False

    def __init__(self, theirs: type[Optimizer], settled: Sequence[str] = ()) -> None:
        """`settled`: flags of a group that PyTorch's class sets, and that kernels take for set."""
        self._theirs = theirs
        known = inspect.signature(theirs).parameters
        #: What the class takes.
        self.arguments = frozenset(known)
        self._ways = tuple(flag for flag in _OWN_WAYS if flag in known)
        self._settled = tuple(settled)
        self.flags = (*self._ways, *self._settled)
        self.epsilons = frozenset(name for name, p in known.items() if type(p.default) is tuple and None in p.default)
        step: Any = theirs.step
        self._step = step.__wrapped__ if getattr(step, "hooked", False) else step

    def steps_group(self, group: Mapping[str, Any]) -> bool:
        return any([group.get(flag) for flag in self._ways]) or not all([group.get(flag) for flag in self._settled])

    def expect_not_traced(self, name: str, mode: str) -> None:
        """PyTorch's loop is made of such operations."""

    def expect_memory(self, what: str, name: str, x: torch.Tensor) -> None:
        """PyTorch's loop takes it, or raises."""

    def expect_real(self, what: str, name: str) -> None:
        """PyTorch's loop takes it."""

    def expect_gradient(self, what: str, name: str, p: torch.Tensor, g: torch.Tensor) -> None:
        """PyTorch's loop takes it, or raises."""

    def loads_as(self, name: str) -> bool:
        """Where one of PyTorch's two classes derives from the other, as AdamW from Adam, their states are the same."""
        other, _ = _optimisers().get(name, (None, None))
        return other is not None and (issubclass(other, self._theirs) or issubclass(self._theirs, other))

    def expect_own(self, name: str, saved: Mapping[str, Any], i: int) -> None:
        """All arguments of PyTorch's class are in it, and not all of a class that has these and more."""
        _, own = _optimisers()[self._theirs.__name__]
        if absent := own - saved.keys():
            missing = min(absent)
            raise StateError(f"group {i}: {name} has {missing!r}, and the saved one has not; is it of another rule?")
        for other, arguments in _optimisers().values():
            if own < arguments <= saved.keys():
                foreign = min(arguments - own)
                raise StateError(f"group {i}: {name} has no {foreign!r}; is this of {other.__name__}?")

    def small_dtype(self, extent: Extent, p: torch.Tensor) -> torch.dtype:
        """As PyTorch's own: scalars as its counts, rows and columns as the parameter."""
        return count_dtype() if extent <= Extent.TENSOR else p.dtype

    def divided(self, kernels: list[int], others: list[int], *, grouped: bool) -> tuple[list[int], list[int]]:
        return kernels, others

    def step_others(self, optimizer: Any, params: Sequence[torch.Tensor]) -> None:
        """Run PyTorch's step over groups that have nothing but these parameters, each as often as it is given."""
        chosen = Counter(map(id, params))
        here, own = optimizer.param_groups, vars(optimizer)
        # Gradients have been unscaled already.
        scaling = {key: own.pop(key) for key in ("grad_scale", "found_inf") if key in own}
        optimizer.param_groups = [part for group in here for part in _parts(group, chosen)]
        try:
            self._step(optimizer)
        finally:
            optimizer.param_groups = here
            own.update(scaling)


def _parts(group: Mapping[str, Any], chosen: Counter[int]) -> list[dict[str, Any]]:
    """A group with its chosen parameters; without `fused` for those that PyTorch's fused kernels refuse. `chosen`: how
    often each is still to be taken."""
    params = []
    for p in group["params"]:
        if chosen[id(p)]:
            chosen[id(p)] -= 1
            params.append(p)
    if not group.get("fused"):
        return [{**group, "params": params}]
    dense = [p for p in params if p.grad.layout is torch.strided]
    sparse = [p for p in params if p.grad.layout is not torch.strided]
    return [{**group, "params": dense}, {**group, "params": sparse, "fused": False}]


class OwnRule(Strategy):
    """A rule that PyTorch does not have: arguments are checked here, and the interpreter steps what kernels do not
    take."""

    checks_values = True
    counts_whatever_is_kept = False
    interprets = True
    flags = ()
    epsilons = frozenset()

    def steps_group(self, group: Mapping[str, Any]) -> bool:
        return False

    def expect_not_traced(self, name: str, mode: str) -> None:
        message = f"{name}: {mode} is active, and would not see a step, which is no operation of PyTorch"
        raise ArrayError(message, hint=f"step outside of it, or {_PYTORCHS}")

    def expect_memory(self, what: str, name: str, x: torch.Tensor) -> None:
        got, hint = f"a {type(x).__name__} has operations of its own", ""
        if x._is_zerotensor():
            got, hint = "these zeros are not", "p.grad = torch.zeros_like(p), or "
        elif type(x).__torch_dispatch__ is torch.Tensor.__torch_dispatch__:
            got, hint = "this is a tensor of a transform of torch.func", "step outside of it, or "
        raise ArrayError(f"{what}: {name} steps what is in memory, and {got}", hint=hint + _PYTORCHS)

    def expect_real(self, what: str, name: str) -> None:
        raise ArrayError(f"{what}: {name} does not support complex parameters", hint=ANOTHER_RULE)

    def expect_gradient(self, what: str, name: str, p: torch.Tensor, g: torch.Tensor) -> None:
        if g.layout is not torch.strided or p.layout is not torch.strided:
            message = f"{what}: {name} does not support sparse gradients"
            raise ArrayError(message, hint="make them dense, or use optgen.torch.SGD or Adagrad for this parameter")
        if g.dtype is not p.dtype:
            raise ArrayError(f"{what}: expected a gradient of {p.dtype}, got {g.dtype}")

    def loads_as(self, name: str) -> bool:
        return False

    def expect_own(self, name: str, saved: Mapping[str, Any], i: int) -> None:
        """A group may have any other keys."""

    def small_dtype(self, extent: Extent, p: torch.Tensor) -> torch.dtype:
        return torch.float64

    def divided(self, kernels: list[int], others: list[int], *, grouped: bool) -> tuple[list[int], list[int]]:
        # The interpreter computes at once what depends on all parameters.
        return ([], sorted([*kernels, *others])) if others and grouped else (kernels, others)


class TorchMatrixRule(TorchRule):
    """A rule of matrices that PyTorch has too: its class checks the arguments, and its loop is never asked."""

    interprets = True
    expect_not_traced = OwnRule.expect_not_traced
    expect_memory = OwnRule.expect_memory
    expect_real = OwnRule.expect_real
    expect_gradient = OwnRule.expect_gradient
    divided = OwnRule.divided


@cache
def _optimisers() -> dict[str, tuple[type[Optimizer], frozenset[str]]]:
    """PyTorch's optimisers, each with the arguments that it leaves in every group that it saves."""
    found = [x for x in vars(torch.optim).values() if inspect.isclass(x) and issubclass(x, Optimizer)]
    more = {"params", *_HOW, *_LATE}
    return {
        cls.__name__: (cls, frozenset(inspect.signature(cls).parameters) - more)
        for cls in found
        if cls is not Optimizer
    }
