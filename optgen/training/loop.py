"""Training: `update` and `train`, and what goes into a loop: `epochs`, `throttle`, `stop`.

In: parameters, gradients or a loss, and any optimiser, known here only by its `step(params, grads)`. Out: nothing; the
parameters are changed in place. What an update computes is the optimiser's business.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, Generic, NoReturn, ParamSpec, Protocol, TypeAlias, TypeVar, overload

import numpy as np

from ..errors import ArgumentError, ArrayError
from .autodiff import Gradients, Param, Params, gradient

__all__ = ["epochs", "stop", "throttle", "train", "update"]

Callbacks: TypeAlias = "Callable[[], object] | Sequence[Callbacks] | None"

D = TypeVar("D")
T = TypeVar("T")
P = ParamSpec("P")

_ONE_UPDATE = "`update(p, step)`, or `update(opt, p, grad)`"


class Stepper(Protocol):
    """What is asked of an optimiser: to step all `params` by `grads` in place, or to raise and touch nothing."""

    def step(self, params: Sequence[Any], grads: Sequence[Any], /) -> object: ...


@overload
def update(p: T, step: Any, /) -> T: ...
@overload
def update(opt: Stepper, p: T, grad: Any, /) -> T: ...
def update(first: Any, second: Any, /, *rest: Any) -> Any:
    """`update(p, step)` adds a step to `p`; `update(opt, p, grad)` and `update(opt, theta, grads)` let `opt` do it.

    In place; gives back the parameters. `p` is a `Param` or an array of floats; `step` is real and of exactly its
    shape, and is rounded to its dtype. `theta` is a `Params`, list or tuple of such; `grads` is what `gradient` gave,
    or the gradients in the same order.

    Raises `ArrayError` or `ArgumentError`, before anything is touched, where something does not fit; and what
    `opt.step` raises.
    """
    if not rest:
        return _add(first, second)
    if len(rest) > 1 or not hasattr(type(first), "step"):
        raise ArgumentError(f"expected an optimiser, a parameter and a gradient, got {_kinds(first, second, *rest)}")
    if isinstance(second, (Params, list, tuple)):
        grads = rest[0]
        first.step(tuple(second), [grads[p] for p in second] if isinstance(grads, Gradients) else tuple(grads))
    else:
        first.step((second,), rest)
    return second


def _kinds(*values: Any) -> str:
    return ", ".join(type(value).__name__ for value in values)


def _add(p: Any, step: Any) -> Any:
    if not isinstance(p, (Param, np.ndarray)):
        raise ArgumentError(f"expected a parameter and a step, got {_kinds(p, step)}", hint=_ONE_UPDATE)
    data, change = p.data if isinstance(p, Param) else p, np.asarray(step)
    if data.dtype.kind != "f" or not data.flags.writeable:
        fault = data.dtype if data.dtype.kind != "f" else "a read-only one"
        raise ArrayError(f"expected a parameter of floats that can be written to, got {fault}")
    if change.dtype.kind not in "biuf" or change.shape != data.shape:
        raise ArrayError(
            f"expected a step of real numbers of shape {data.shape}, got {change.dtype} of shape {change.shape}"
        )
    p += change
    return p


class _StopTraining(Exception):
    pass


def stop() -> NoReturn:
    """Ends the training that is going on, quietly. For callbacks, and for the loss itself."""
    raise _StopTraining("`stop()` was called, but not from inside `train`")


def train(
    loss: Callable[..., Any],
    params: Params | Iterable[Param] | Param,
    data: Iterable[Any],
    opt: Stepper,
    cb: Callbacks = None,
    *,
    progress: bool = False,
) -> None:
    """For each `d` of `data`: the gradient of `loss(*d)`, one step of all `params`, then the callbacks.

    A tuple or list `d` is spread over the arguments of `loss`; anything else is its one argument. `cb` is a function
    without arguments, or a list of such, in lists as deep as one likes. `stop()` in a callback or in `loss` ends the
    training. `progress=True` shows the steps and the latest loss on stderr.

    Raises `ArgumentError` for an optimiser without `step` and for a callback that cannot be called, `TrackError` as
    `gradient` does, and what `loss`, `opt.step` and the callbacks raise.
    """
    if not hasattr(type(opt), "step"):
        raise ArgumentError(f"expected an optimiser, which has a method `step`, got {_kinds(opt)}")
    theta = params if isinstance(params, Params) else Params([params] if isinstance(params, Param) else params)
    members, callbacks = tuple(theta), list(_flat(cb))
    with _progress(data, shown=progress) as report:
        try:
            for d in data:
                grads = gradient(partial(loss, *d) if isinstance(d, (tuple, list)) else partial(loss, d), theta)
                opt.step(members, grads.values())
                report(grads.value)
                for call in callbacks:
                    call()
        except _StopTraining:
            return


def _flat(cb: Callbacks) -> Iterator[Callable[[], object]]:
    if isinstance(cb, (list, tuple)):
        for inner in cb:
            yield from _flat(inner)
    elif callable(cb):
        yield cb
    elif cb is not None:
        raise ArgumentError(f"expected a callback, or a list of them, got {_kinds(cb)}")


@contextmanager
def _progress(data: Iterable[Any], *, shown: bool) -> Iterator[Callable[[float], None]]:
    """A function to be told the loss of each step."""
    if not shown:
        yield lambda loss: None
        return
    # Most loops show nothing, and need not load it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    latest = TextColumn("loss {task.fields[loss]:.6g}")
    with Progress(BarColumn(), MofNCompleteColumn(), latest, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=operator.length_hint(data) or None, loss=float("nan"))
        yield lambda loss: bar.update(task, advance=1, loss=loss)


class _Epochs(Generic[D]):
    """`data`, `n` times over; it has a length if `data` has one."""

    __slots__ = ("_data", "_n")

    def __init__(self, n: int, data: Iterable[D]) -> None:
        self._n, self._data = n, data

    def __iter__(self) -> Iterator[D]:
        for _ in range(self._n):
            yield from self._data

    def __len__(self) -> int:
        return self._n * len(self._data)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"epochs({self._n}, {self._data!r})"


def epochs(n: int, data: Iterable[D]) -> _Epochs[D]:
    """`data` gone through `n` times, for `train(loss, theta, epochs(10, data), opt)`.

    Raises `ArgumentError` if `n` is not a whole number of at least 0, or if `data` can be gone through only once.
    """
    try:
        times = operator.index(n)
    except TypeError:
        times = -1
    if times < 0:
        raise ArgumentError(f"expected a whole number of epochs, at least 0, got {n!r}")
    if not isinstance(data, Iterable):
        raise ArgumentError(f"expected data to go through, got {_kinds(data)}")
    if times > 1 and isinstance(data, Iterator):
        hint = "make it a list, or an object whose `__iter__` starts anew"
        raise ArgumentError(f"expected data for {times} epochs, got {_kinds(data)}, which can be read once", hint=hint)
    return _Epochs(times, data)


def throttle(f: Callable[P, T], seconds: float) -> Callable[P, T | None]:
    """`f`, but run at most once in `seconds`: a call that comes sooner does nothing and gives None.

    Made for callbacks: `train(..., cb=throttle(show, 5))`. The first call runs; the time counts from its start.

    Raises `ArgumentError` if `seconds` is not a number of at least 0.
    """
    if not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise ArgumentError(f"expected a number of seconds, at least 0, got {seconds!r}")
    last = -float("inf")

    @wraps(f)
    def throttled(*args: P.args, **kwargs: P.kwargs) -> T | None:
        nonlocal last
        now = time.monotonic()
        if now - last < seconds:
            return None
        last = now
        return f(*args, **kwargs)

    return throttled
