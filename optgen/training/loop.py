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
from .autodiff import gradient
from .params import Gradients, Param, Params

__all__ = ["epochs", "stop", "throttle", "train", "update"]

Callbacks: TypeAlias = "Callable[[], object] | Sequence[Callbacks] | None"

D = TypeVar("D")
T = TypeVar("T")
P = ParamSpec("P")

#: What training knows of a step beside gradients.
_LOSS = "loss"
_ONE_UPDATE = "`update(p, step)`, or `update(opt, p, grad)`"


class Stepper(Protocol):
    """An optimiser as training sees it: steps all `params` by `grads` in place, or raises and touches nothing. Where it
    has a `rule` with inputs, these come by name."""

    def step(self, params: Sequence[Any], grads: Sequence[Any], /) -> object: ...


@overload
def update(p: T, step: Any, /) -> T: ...
@overload
def update(opt: Stepper, p: T, grad: Any, /, **inputs: Any) -> T: ...
def update(first: Any, second: Any, /, *rest: Any, **inputs: Any) -> Any:
    """Update parameters in place: `update(p, step)`, `update(opt, p, grad)` or `update(opt, theta, grads)`.

    Parameters
    ----------
    p : Param, or array of floats
    step : array_like of real numbers, of exactly the shape of `p`
        Added to `p`, rounded to its dtype.
    opt : optimiser
        Any object with `step(params, grads)`.
    theta : Params, or list or tuple of parameters
    grad, grads
        The gradient of `p`; for `theta`, what `gradient` gave, or the gradients in the same order.
    inputs
        What the rule takes beside gradients, by name, as `opt.step` takes it: numbers, and lists of arrays.

    Returns
    -------
    The parameters, `p` or `theta`.

    Raises
    ------
    ArrayError, ArgumentError
        Where something does not fit, before anything is touched; and what `opt.step` raises.

    Examples
    --------
    >>> update(np.array([1.0, 2.0]), [0.5, -0.5])
    array([1.5, 1.5])
    """
    if not rest and not inputs:
        return _add(first, second)
    if len(rest) != 1 or not hasattr(type(first), "step"):
        raise ArgumentError(f"expected an optimiser, a parameter and a gradient, got {_kinds(first, second, *rest)}")
    if isinstance(second, (Params, list, tuple)):
        grads = rest[0]
        grads = [grads[p] for p in second] if isinstance(grads, Gradients) else tuple(grads)
        first.step(tuple(second), grads, **inputs)
    else:
        first.step((second,), rest, **inputs)
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
    """End the running training quietly. For callbacks, and for the loss itself."""
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
    """For each `d` of `data`, take the gradient of `loss(*d)`, step all `params`, and run the callbacks.

    Where a step has several phases, as SAM's has, the gradient is taken before each of them. A rule that takes the loss
    of each step, such as PolyakSGD, is given it.

    `stop()` in a callback or in `loss` ends the training.

    Parameters
    ----------
    loss : callable
        Gives one real number, from the parameters as a closure.
    params : Params, iterable of Param, or Param
    data : iterable
        A tuple or list `d` is spread over the arguments of `loss`; anything else is its one argument.
    opt : optimiser
        Any object with `step(params, grads)`.
    cb : callable without arguments, or a list of such, nested to any depth
    progress : bool
        Whether to show the steps and the latest loss on stderr.

    Raises
    ------
    ArgumentError
        For an optimiser without `step`, or one whose steps take more than gradients and the loss; for a callback that
        cannot be called.
    TrackError
        As `gradient` does. What `loss`, `opt.step` and the callbacks raise goes on to the caller.

    Examples
    --------
    >>> train(lambda x, y: np.mean((x @ W - y) ** 2), [W], epochs(10, batches), optgen.ADAM())
    """
    if not hasattr(type(opt), "step"):
        raise ArgumentError(f"expected an optimiser, which has a method `step`, got {_kinds(opt)}")
    step: Callable[..., object] = opt.step
    takes = _inputs(opt)
    theta = params if isinstance(params, Params) else Params([params] if isinstance(params, Param) else params)
    members, callbacks = tuple(theta), list(_flat(cb))
    with _progress(data, shown=progress) as report:
        try:
            for d in data:
                of_one = partial(loss, *d) if isinstance(d, (tuple, list)) else partial(loss, d)
                values = []
                for _ in _phases(opt):
                    grads = gradient(of_one, theta)
                    step(members, grads.values(), **dict.fromkeys(takes, grads.value))
                    values.append(grads.value)
                report(values[0])
                for call in callbacks:
                    call()
        except _StopTraining:
            return


def _inputs(opt: Any) -> tuple[str, ...]:
    """What each step takes beside gradients: the loss, or nothing. ArgumentError for anything else."""
    rule: Any = getattr(opt, "rule", None)
    names = [each.name for each in getattr(rule, "inputs", ())]
    if others := [name for name in names if name != _LOSS or name not in rule.given_numbers]:
        got = f"{rule.name}, which takes {', '.join(others)}"
        hint = f"write the loop: opt.step(params, grads, {', '.join(f'{name}=...' for name in names)})"
        raise ArgumentError(f"expected an optimiser whose steps take gradients and the loss, got {got}", hint=hint)
    return tuple(names)


def _phases(opt: Any) -> Iterator[None]:
    """Once before each phase of a step that is left, up to one that is not accepted; of most rules, once."""
    phases = getattr(getattr(opt, "rule", None), "phases", ())
    behind = phases[phases.index(opt.phase) + 1 :] if phases else ()
    yield
    for phase in behind:
        if opt.phase == phase:
            yield


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
    """A function that takes the loss of each step, and shows it if `shown`."""
    if not shown:
        yield lambda loss: None
        return
    # Imported here, since most loops show nothing.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    latest = TextColumn("loss {task.fields[loss]:.6g}")
    with Progress(BarColumn(), MofNCompleteColumn(), latest, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=operator.length_hint(data) or None, loss=float("nan"))
        yield lambda loss: bar.update(task, advance=1, loss=loss)


class _Epochs(Generic[D]):
    """`data`, repeated `n` times; it has a length if `data` has one."""

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
    """Repeat `data` `n` times.

    Parameters
    ----------
    n : int, at least 0
    data : iterable, which for more than one epoch must not be an iterator

    Returns
    -------
    An iterable, with a length if `data` has one.

    Raises
    ------
    ArgumentError
        If `n` is not a whole number of at least 0, or if `data` can be read only once.

    Examples
    --------
    >>> list(epochs(2, "ab"))
    ['a', 'b', 'a', 'b']
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
    """Limit `f` to one run in `seconds`. A call that comes sooner does nothing and gives None.

    Parameters
    ----------
    f : callable
    seconds : float, at least 0
        The time from the start of one run to that of the next. The first call runs.

    Returns
    -------
    The limited function, with the signature of `f`.

    Raises
    ------
    ArgumentError
        If `seconds` is not a number of at least 0.

    Examples
    --------
    >>> train(loss, theta, data, opt, cb=throttle(show, 5))
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
