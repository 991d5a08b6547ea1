"""Schedules: values of a hyperparameter that change with the step t, which is 1 in the first step.

Comes in: numbers, and for `warmup` and `join` other schedules. Goes out: frozen values that compare, hash and pickle,
and are called with t; the same t gives the same float, so a resumed run cannot go wrong. `plain` and `from_plain`
write them as plain containers and read them back. What one may change: the kinds, one class each, in lower case since
it is called as a function is. The type of an argument says what it takes (`schedule_arguments`).

Every kind counts from 0, c = t − 1, as optax does, and keeps its end value once it has come there. All raise
`ArgumentError` for the wrong kind of thing and `HyperparameterError` for a number that makes no sense there (NaN, an
infinity, fewer than 1 step, or what the kind itself rules out): when they are made, and for t when they are called.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeGuard, get_type_hints

from ..errors import ArgumentError, HyperparameterError, StateError, shown
from .schedule_arguments import (
    Above0,
    Boundaries,
    Check,
    Factors,
    NotBelow0,
    Real,
    RealOrNone,
    Share,
    StepCount,
    Truth,
    listed,
    real,
    whole_step,
)

__all__ = [
    "Schedule", "constant", "cosine", "exponential", "from_plain", "inverse_time", "is_schedule", "join", "linear",
    "one_cycle", "piecewise", "plain", "polynomial", "warmup",
]  # fmt: skip


class Schedule(ABC):
    """What all schedules are: `s(t)` is the value in step t, a float. The repr is the call that makes it.

    Making one raises `ArgumentError` for the wrong kind of thing, `HyperparameterError` for a number out of its range.
    """

    def __post_init__(self) -> None:
        for name, check in _checks(type(self)).items():
            object.__setattr__(self, name, check(f"{type(self).__name__}: {name}", getattr(self, name)))

    def __call__(self, t: int) -> float:
        """The value in step `t`, a whole number of at least 1; raises as making one does."""
        return self._at(whole_step(f"{type(self).__name__}: t", t) - 1)

    @abstractmethod
    def _at(self, count: int) -> float:
        """The value after `count` steps, 0 or more."""

    def __repr__(self) -> str:
        first, *rest = [(f, getattr(self, f.name)) for f in fields(self)]  # type: ignore[arg-type]
        given = [f"{f.name}={value!r}" for f, value in rest if value != f.default]
        return f"{type(self).__name__}({', '.join([repr(first[1]), *given])})"


@cache
def _checks(kind: type[Schedule]) -> dict[str, Check]:
    """By the name of each argument, the check that its type carries."""
    return {name: hint.__metadata__[0] for name, hint in get_type_hints(kind, include_extras=True).items()}


# ---- The kinds ----


_part = real("a finite number or a schedule of optgen", math.isfinite, lambda x: is_schedule(x))
Part: TypeAlias = Annotated[Schedule | float, _part]
Parts: TypeAlias = Annotated[Sequence[Schedule | float], lambda what, value: listed(what, value, _part)]


def _left(count: int, steps: int) -> float:
    """The part of `steps` that is left after `count`: from 1 to 0."""
    return max(steps - count, 0) / max(steps, 1)


def _eased(left: float) -> float:
    """Half a cosine from 1 to 0, (1 − cos(π·left))/2, without its cancellation near 0."""
    return math.sin(math.pi / 2 * left) ** 2


def _mix(start: float, end: float, share: float) -> float:
    """`share` of `start`, and the rest of `end`; for 1 and 0 exactly these, and never beyond either of them."""
    low, high = sorted((start, end))
    return min(max(start * share + end * (1 - share), low), high)


def _periods(count: int, every: int, staircase: bool) -> float:
    return count // every if staircase else count / every


def _value(part: Schedule | float, count: int) -> float:
    return part._at(count) if isinstance(part, Schedule) else part


@dataclass(frozen=True, repr=False)
class constant(Schedule):
    """`value` in every step."""

    value: Real

    def _at(self, count: int) -> float:
        return self.value


@dataclass(frozen=True, repr=False)
class linear(Schedule):
    """A straight line from `start`, in the first step, to `end`, reached after `steps` steps."""

    start: Real
    end: Real
    steps: StepCount

    def _at(self, count: int) -> float:
        return _mix(self.start, self.end, _left(count, self.steps))


@dataclass(frozen=True, repr=False)
class cosine(Schedule):
    """Half a cosine from `start`, in the first step, to `end`, reached after `steps` steps.

    That is end + (start − end)·(1 + cos(π·c/steps))/2.
    """

    start: Real
    steps: StepCount
    end: Real = 0.0

    def _at(self, count: int) -> float:
        return _mix(self.start, self.end, _eased(_left(count, self.steps)))


@dataclass(frozen=True, repr=False)
class exponential(Schedule):
    """`start`, multiplied by `rate`, above 0, in every `every` steps: start·rate^(c/every).

    With `staircase` it changes only after each `every` steps, not a little in each step. It stops at `end`, if given,
    which is not above `start` for a rate below 1, and not below it for another.
    """

    start: Real
    rate: Above0
    every: StepCount = 1
    staircase: Truth = False
    end: RealOrNone = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end is not None and (self.end > self.start if self.rate < 1 else self.end < self.start):
            bound = f"at {'most' if self.rate < 1 else 'least'} the start, {self.start!r}, for a rate of {self.rate!r}"
            raise HyperparameterError(f"exponential: end: expected a number of {bound}, got {self.end!r}")

    def _at(self, count: int) -> float:
        try:
            power = math.pow(self.rate, _periods(count, self.every, self.staircase))
        except OverflowError:
            power = math.inf
        value = self.start * power if self.start else 0.0  # 0·∞ would be NaN
        if self.end is None:
            return value
        return max(value, self.end) if self.rate < 1 else min(value, self.end)


@dataclass(frozen=True, repr=False)
class inverse_time(Schedule):
    """`start`, divided by what grows by `rate`, at least 0, in every `every` steps: start/(1 + rate·c/every).

    With `staircase` it changes only after each `every` steps, not a little in each step.
    """

    start: Real
    rate: NotBelow0
    every: StepCount = 1
    staircase: Truth = False

    def _at(self, count: int) -> float:
        return self.start / (1 + self.rate * _periods(count, self.every, self.staircase))


@dataclass(frozen=True, repr=False)
class polynomial(Schedule):
    """From `start`, in the first step, to `end`, reached after `steps` steps: end + (start − end)·(1 − c/steps)^power.

    `power` is above 0: 1 is a straight line, more is faster at first, less is faster at last.
    """

    start: Real
    end: Real
    power: Above0
    steps: StepCount

    def _at(self, count: int) -> float:
        return _mix(self.start, self.end, math.pow(_left(count, self.steps), self.power))


@dataclass(frozen=True, repr=False)
class piecewise(Schedule):
    """`start`, multiplied by each of `factors`, {step: factor}, in all steps after its step; factors are at least 0.

    `piecewise(0.1, {100: 0.5})` is 0.1 up to step 100, and 0.05 from step 101 on.
    """

    start: Real
    factors: Factors

    def _at(self, count: int) -> float:
        return math.prod((factor for step, factor in dict(self.factors).items() if step <= count), start=self.start)

    def __repr__(self) -> str:
        return f"piecewise({self.start!r}, factors={dict(self.factors)!r})"


@dataclass(frozen=True, repr=False)
class warmup(Schedule):
    """A straight line over `steps` steps, from `start` to what `then` begins with; after them `then`.

    `then`, a number or a schedule, has its own first step when the warm-up is over, in step `steps` + 1.
    """

    steps: StepCount
    then: Part
    start: Real = 0.0

    def _at(self, count: int) -> float:
        if count < self.steps:
            return _mix(self.start, _value(self.then, 0), _left(count, self.steps))
        return _value(self.then, count - self.steps)


@dataclass(frozen=True, repr=False)
class one_cycle(Schedule):
    """Up to `peak` and down again in `steps` steps, half a cosine each way.

    `warm`, from 0 to 1, is the part of the steps that the way up takes, rounded down to whole steps; with 1 there is no
    way down, but a fall. The first value is `initial` times the peak, the end value `final` times the first; both
    factors are at least 0.
    """

    peak: Real
    steps: StepCount
    warm: Share = 0.3
    initial: NotBelow0 = 1 / 25
    final: NotBelow0 = 1e-4

    def _at(self, count: int) -> float:
        up, first = int(self.warm * self.steps), self.peak * self.initial
        if count < up:
            return _mix(first, self.peak, _eased(_left(count, up)))
        return _mix(self.peak, first * self.final, _eased(_left(count - up, self.steps - up)))


@dataclass(frozen=True, repr=False)
class join(Schedule):
    """One of `schedules` after another: each up to and with its step of `boundaries`, then the next.

    Each is a number or a schedule, and counts its own steps from 1. The boundaries are steps of the whole, in rising
    order, one fewer than the schedules.
    """

    schedules: Parts
    boundaries: Boundaries

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.schedules) != len(self.boundaries) + 1:
            got = f"{len(self.boundaries)} for {len(self.schedules)} schedules"
            raise ArgumentError(f"join: expected boundaries, one fewer than schedules, got {got}")

    def _at(self, count: int) -> float:
        which = bisect_right(self.boundaries, count)
        return _value(self.schedules[which], count - (0, *self.boundaries)[which])


# ---- As plain containers ----

_ALL = (constant, linear, cosine, exponential, inverse_time, polynomial, piecewise, warmup, one_cycle, join)
_KINDS: dict[str, type[Schedule]] = {kind.__name__: kind for kind in _ALL}


def is_schedule(x: object) -> TypeGuard[Schedule]:
    """Whether `x` is one of the schedules of this file, which `plain` can write."""
    return type(x) in _ALL


def plain(schedule: Schedule) -> dict[str, Any]:
    """`schedule` as a dict: its kind as `"schedule"`, then its arguments, as numbers, lists and dicts; fit for JSON.

    Raises `ArgumentError` for anything but a schedule of this file.
    """
    if not is_schedule(schedule):
        raise ArgumentError(f"expected a schedule of the kinds {', '.join(_KINDS)}, got {shown(schedule)}")
    arguments = {
        name: _each(Schedule, lambda inner, _: plain(inner), getattr(schedule, name), 0)
        for name in _checks(type(schedule))
    }
    return {"schedule": type(schedule).__name__} | arguments


#: How many schedules and lists there may be in each other.
DEEPEST = 64


def from_plain(saved: Mapping[str, Any], depth: int = 0) -> Schedule:
    """The schedule that `plain` wrote as `saved`.

    Raises `StateError` for what is none: an unknown kind, other arguments than it has, or wrong ones.
    """
    named = saved.get("schedule") if isinstance(saved, Mapping) else None
    kind = _KINDS.get(named) if isinstance(named, str) else None
    if kind is None:
        raise StateError(f"expected a dict with one of {', '.join(_KINDS)} as its 'schedule', got {shown(saved)}")
    names = ["schedule", *_checks(kind)]
    if set(saved) != set(names):
        raise StateError(f"expected a saved schedule with {', '.join(names)}, got {shown(list(saved))}")
    try:
        return kind(**{name: _each(Mapping, from_plain, saved[name], depth) for name in names[1:]})
    except (ArgumentError, HyperparameterError) as error:
        raise StateError(f"a saved schedule: {error.message}", hint=error.hint) from None


def _each(kind: type, convert: Callable[[Any, int], Any], value: Any, depth: int) -> Any:
    """`value` with all of this `kind` converted, in lists too; what is above it has this `depth`."""
    if depth > DEEPEST:
        raise StateError(f"a saved schedule: expected at most {DEEPEST} in each other, got more")
    if isinstance(value, (list, tuple)):
        return [_each(kind, convert, inner, depth + 1) for inner in value]
    return convert(value, depth + 1) if isinstance(value, kind) else value
