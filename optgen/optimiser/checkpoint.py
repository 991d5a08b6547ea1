"""State dicts: the rule, its flags and hyperparameters, and the states of all parameters together.

In: what a state dict holds, from a file and perhaps from somebody else.
Out: checked values, or an error that says what was expected and what came. Nothing here is changed or called.

The states of single parameters are read by `state`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import StateError, excerpt, shown
from ..ir.rule import Hyper
from ..runtime.arrays import Array
from .hyperparameters import Given, checked

__all__ = ["FORMAT", "expect_same", "flags_of_parts", "listed", "read_group", "read_value", "saved_value", "scalar"]

FORMAT = 1
KEYS = ("format", "rule", "flags", "hyperparameters", "parameters")
#: How a state dict says that a hyperparameter is a function that it cannot hold.
FUNCTION = "a function of the step"


def expect_same(
    saved: Any, rule: str, flags: Mapping[str, bool], usual: Mapping[str, bool], names: Iterable[str]
) -> None:
    """StateError unless `saved` is a state dict of this rule, with these flags and names of hyperparameters.

    `usual`: what a flag is that the state dict is older than.
    """
    if not isinstance(saved, Mapping) or not set(KEYS) <= set(saved):
        got = listed(saved) if isinstance(saved, Mapping) else type(saved).__name__
        raise StateError(f"expected what state_dict() gives, with {', '.join(KEYS)}, got {got}")
    # Types first: an array compares element by element.
    version, name, chosen = scalar(saved["format"]), scalar(saved["rule"]), saved["flags"]
    if type(version) is not int or version != FORMAT:
        raise StateError(f"expected a state of format {FORMAT}, got {shown(version)}")
    if not isinstance(name, str) or name != rule:
        got = excerpt(name) if isinstance(name, str) else shown(name)
        raise StateError(f"expected a state of {rule}, got one of {got}")
    if isinstance(chosen, Mapping):
        chosen = {**usual, **{flag: scalar(value) for flag, value in chosen.items()}}
    if not isinstance(chosen, Mapping) or any(type(x) is not bool for x in chosen.values()) or chosen != flags:
        raise StateError(f"expected a state with the flags {flags}, got {shown(chosen)}")
    given, names = saved["hyperparameters"], tuple(names)
    if not isinstance(given, Mapping) or set(given) != set(names):
        raise StateError(f"expected the hyperparameters {listed(names)}, got {listed(given)}")


def scalar(value: object) -> object:
    """A value by itself, also where it comes in an array: NumPy's files have nothing else."""
    return value.item() if isinstance(value, np.ndarray) and value.shape == () and value.dtype.kind != "O" else value


def listed(names: object) -> str:
    """Names for a message: those in a tuple that were expected, or those that came, if they came in a dict."""
    if not isinstance(names, Mapping | tuple):
        return type(names).__name__
    return excerpt(", ".join(name if isinstance(name, str) else shown(name) for name in names)) or "none"


def flags_of_parts(flags: Iterable[Mapping[str, bool]]) -> dict[str, bool]:
    """The flags of all parts of a chain as a state dict has them."""
    return {f"{name} of part {i}": value for i, own in enumerate(flags) for name, value in own.items()}


def saved_value(hyper: Hyper, values: tuple[Given, ...]) -> Any:
    """A hyperparameter as it is saved: schedules as plain containers, other functions as a word."""
    saved = [_plain(value) if callable(value) else value for value in values]
    return tuple(saved) if hyper.vector else saved[0]


def _plain(function: Any) -> Any:
    from .schedules import is_schedule, plain  # most optimisers have none, and start without them

    return plain(function) if is_schedule(function) else FUNCTION


def read_value(hyper: Hyper, saved: Any, own: tuple[Given, ...]) -> tuple[Given, ...]:
    """A hyperparameter from what was saved; for a function that could not be, there must be one among `own`."""
    many = hyper.vector and isinstance(saved, list | tuple)
    if many and len(saved) != len(hyper.default):
        return checked(hyper, saved)  # which raises
    values: list[Any] = []
    known: list[Any] = []  # schedules that are made here
    for i, value in enumerate(saved if many else [saved]):
        if isinstance(value, str) and value == FUNCTION:
            if i >= len(own) or not callable(own[i]):
                hint = f"set opt.{hyper.name} to that function, and load again"
                raise StateError(
                    f"{hyper.name}: expected a number or a saved schedule, got {FUNCTION}, which no state holds",
                    hint=hint,
                )
            value = own[i]
        values.append(_schedule(value) if isinstance(value, Mapping) else value)
        known.append(values[-1] if isinstance(value, Mapping) else None)
    found = checked(hyper, tuple(values) if many else values[0])
    if code := [x for x in found if callable(x) and not any(x is other for other in (*own, *known))]:
        message = f"{hyper.name}: expected a number or a saved schedule, got {shown(code[0])}"
        raise StateError(message, hint=f"a state brings no code: set opt.{hyper.name} after loading it")
    return found


def _schedule(saved: Mapping[Any, Any]) -> Any:
    from .schedules import from_plain

    return from_plain(saved)


def read_group(saved: Any, names: Iterable[str], *, begun: bool) -> dict[str, Array]:
    """The states of all parameters together (copies). There are none before the first step, if nothing has `begun`."""
    expected = set(names) if begun else set()
    names = tuple(names)
    if not isinstance(saved, Mapping) or set(saved) not in (expected, set(names)):
        raise StateError(f"expected the states {listed(names)} of the group, got {listed(saved)}")
    for name, value in saved.items():
        if not isinstance(value, np.ndarray) or value.shape != () or value.dtype != np.float64:
            raise StateError(f"{name}: expected an array of (), float64, got {shown(value)}")
    return {name: np.array(value) for name, value in saved.items()}
