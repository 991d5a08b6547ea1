"""Inputs of a step in PyTorch: numbers as keywords, and tensors as attributes of their parameters, as gradients are.

In: parameters, and what `step` was called with. Out: lists for the step engine, or an error that names the input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from ..errors import ArgumentError, ArrayError, shown
from ..ir.evaluate import HyperValues
from ..ir.expr import Extent
from ..ir.rule import Rule
from ..optimiser.inputs import expect_inputs, numbers_of
from ..runtime.engine import NO_NUMBERS
from ..runtime.lacking import Lacking
from .naming import Naming

__all__ = ["LOSS", "expect_attributes", "expect_like", "inputs_given"]

#: The number that a closure gives.
LOSS = "loss"


def expect_attributes(rule: Rule) -> None:
    """ArgumentError for an input that tensors have an attribute of their own for."""
    for each in rule.inputs:
        if each.extent == Extent.ELEMENT and hasattr(torch.Tensor, each.name):
            message = f"{rule.name}: the input {each.name!r} would be an attribute of parameters, and tensors have one"
            raise ArgumentError(message, hint="give it another name in the spec")


def inputs_given(
    naming: Naming, given: Mapping[str, Any], loss: Any, params: Sequence[Any], what: Callable[[int], str]
) -> tuple[HyperValues, list[Any], list[Lacking]]:
    """What a step is given: numbers; the gradients, and behind them other inputs of each parameter; and what it lacks.

    `loss`: what its closure returned, or None. `what`: gives what the parameter in a place is called in messages.
    """
    grads = [p.grad for p in params]
    if not (naming.inputs or given):
        return NO_NUMBERS, grads, []
    numbers, lacking = _numbers_given(naming, given, loss)
    found, missing = _with_attributes(naming.rules[0], params, grads, what)
    return numbers, found, lacking + missing


def _numbers_given(naming: Naming, given: Mapping[str, Any], loss: Any) -> tuple[HyperValues, list[Lacking]]:
    """The numbers that a step is given, and those that it lacks. `loss`: what its closure returned, or None."""
    rule = naming.rules[0]
    for spelled in given:
        if spelled in rule.given_arrays:
            message = f"{rule.name}: expected {spelled!r} as an attribute of each parameter, got a keyword"
            raise ArgumentError(message, hint=f"before the step, p.{spelled} = ... for each parameter p")
    expected = [each for each in rule.inputs if each.extent == Extent.STEP]
    closure = LOSS in rule.given_numbers
    if closure and loss is not None:
        given = {LOSS: loss, **given}
    call = "return the loss from the closure, or write opt.step(" if closure else "opt.step("
    found, lacking = expect_inputs(rule, expected, given, call)
    return numbers_of(rule, {name: _number(value) for name, value in found.items()}), lacking


def _number(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        return value.detach().reshape(()).item()
    return value


def _with_attributes(
    rule: Rule, params: Sequence[Any], grads: list[Any], what: Callable[[int], str]
) -> tuple[list[Any], list[Lacking]]:
    """The gradients, and behind them of each parameter that has one its other inputs, or its gradient in the place of
    one that is missing; and what is missing."""
    found, lacking = grads, []
    for name in rule.given_arrays[1:]:
        own = [None if g is None else getattr(p, name, None) for p, g in zip(params, grads, strict=True)]
        missing = [i for i, (x, g) in enumerate(zip(own, grads, strict=True)) if x is None and g is not None]
        for i in missing:
            own[i] = grads[i]
        if missing:
            lacking.append(Lacking(name, {id(params[i]) for i in missing}, partial(_missing, rule, name, what)))
        found = found + own
    return found, lacking


def _missing(rule: Rule, name: str, what: Callable[[int], str], place: int) -> ArrayError:
    return _no_tensor(rule, what(place), name, "none")


def _no_tensor(rule: Rule, what: str, name: str, got: str) -> ArrayError:
    hint = f"before the step, p.{name} = ... for each parameter p with a gradient"
    return ArrayError(f"{what}: {rule.name} takes {name}: expected a tensor, got {got}", hint=hint)


def expect_like(rule: Rule, what: str, p: torch.Tensor, inputs: Sequence[Any]) -> None:
    """ArrayError unless these may be the inputs of a parameter, which messages call `what`: tensors with its shape and
    dtype."""
    for name, x in zip(rule.given_arrays[1:], inputs, strict=True):
        if not isinstance(x, torch.Tensor):
            raise _no_tensor(rule, what, name, shown(x))
        if x.shape != p.shape or x.dtype is not p.dtype or x.layout is not torch.strided:
            expected, got = f"of shape {tuple(p.shape)} and {p.dtype}", f"{tuple(x.shape)}, {x.dtype}, {x.layout}"
            raise ArrayError(f"{what}: {name}: expected a dense tensor like its parameter, {expected}, got {got}")
