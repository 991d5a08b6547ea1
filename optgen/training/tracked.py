"""Tracked values: what NumPy computes from parameters inside `gradient`.

In: calls of NumPy's functions, which arrive through `__array_ufunc__` and `__array_function__`. Out: the same calls of
autograd's functions, recorded on the tape of their run; or an error that names the function.

Functions that autograd lacks or gets wrong have a row in `OWN`, methods of arrays one in `_METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
from autograd.core import primitive_vjps
from autograd.tracer import isbox, notrace_primitives
from numpy.lib.mixins import NDArrayOperatorsMixin

from ..errors import TrackError
from .derivatives import INSTEAD, OWN, rule_of, spelled
from .tape import Array, Node

__all__ = ["Tracked", "unwrapped"]

_IN_PLACE = "build a new value instead: `V = W + 1`, `np.where(mask, a, b)`, `np.concatenate`"
_NUMBER = "use NumPy's functions (`np.exp`, not `math.exp`); `.data` is the value without gradient"
_JOIN = "join tracked values with `np.stack` or `np.concatenate`; `.data` is the value without gradient"


class Tracked(NDArrayOperatorsMixin):
    """An array computed from parameters inside `gradient`. After `gradient` has returned, it behaves like its value.

    NumPy's operators, functions and methods apply to it and give `Tracked` values; those without a derivative
    (comparisons, `argmax`, `floor`, `shape`, ...) give plain values. `data` is the plain value; no gradient flows
    through it.

    Raises `TrackError` for functions without a gradient, changes in place, and conversions to plain numbers.
    """

    __slots__ = ("__weakref__", "_source")

    def __init__(self, source: Any) -> None:
        self._source = source

    @property
    def data(self) -> Array:
        return np.asarray(self._source._value)

    def _operand(self) -> Any:
        """The operand of further computations: autograd's box while the tape is open, then the plain value."""
        box = self._source
        return box if box._node.tape.open else box._value

    def _plain(self, wanted: str, hint: str) -> Array:
        if isbox(self._operand()):
            raise TrackError(f"expected {wanted}, got a tracked value inside `gradient`", hint=hint)
        return self.data

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return _call(ufunc if method == "__call__" else getattr(ufunc, method), inputs, kwargs)

    def __array_function__(self, func: Any, types: Iterable[type], args: Any, kwargs: Any) -> Any:
        if not all(issubclass(t, (Tracked, np.ndarray)) for t in types):
            return NotImplemented
        return _call(func, args, kwargs)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        plain = self._plain("a plain array", _JOIN)
        return np.asarray(plain, dtype) if copy is None else np.array(plain, dtype, copy=copy)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        operand = self._operand()
        if not isbox(operand):
            return getattr(operand, name)
        if name in _ATTRIBUTES:
            return _ATTRIBUTES[name](self)
        if name in _METHODS:
            return partial(_METHODS[name], self)
        raise TrackError(f"`{name}` of a tracked value has no gradient", hint=INSTEAD)

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: object) -> bool:
        return bool(np.any(self == value))

    def __getitem__(self, index: Any) -> Any:
        operand, index = self._operand(), unwrapped(index)
        if _holds_box(index):
            raise TrackError("expected an index without gradient, got a tracked value", hint="take its `.data`")
        # autograd would take a list of booleans for positions, and give a wrong gradient.
        if isbox(operand) and isinstance(index, list):
            index = np.asarray(index, dtype=None if index else np.intp)
        return _wrap(operand[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._plain("an array to change in place", _IN_PLACE)[unwrapped(index)] = unwrapped(value)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> float:
        return float(self._plain("a float", _NUMBER))

    def __int__(self) -> int:
        return int(self._plain("an int", _NUMBER))

    def __format__(self, spec: str) -> str:
        return format(self.data[()], spec)

    def __repr__(self) -> str:
        return f"tracked({self.data!r})"


def unwrapped(x: Any) -> Any:
    """Replace tracked values in `x`, also inside lists and tuples, by autograd's boxes or by plain arrays."""
    if isinstance(x, Tracked):
        return x._operand()
    if isinstance(x, (list, tuple)):
        return (list if isinstance(x, list) else tuple)(map(unwrapped, x))
    return x


def _holds_box(x: Any) -> bool:
    return any(map(_holds_box, x)) if isinstance(x, (list, tuple)) else isbox(x)


def _wrap(x: Any) -> Any:
    """Undo `unwrapped`. A boxed sequence, as of `np.split`, becomes a sequence of tracked values."""
    if not isbox(x):
        return x
    if not isinstance(x._value, (list, tuple)):
        return Tracked(x)
    items, kind = [_wrap(x[i]) for i in range(len(x))], type(x._value)
    return kind(*items) if hasattr(kind, "_fields") else kind(items)


def _call(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Call a NumPy function with tracked arguments. The call is recorded while their tape is open."""
    plain, named = unwrapped(args), {key: unwrapped(value) for key, value in kwargs.items()}
    if _holds_box(plain) or _holds_box(list(named.values())):
        return _record(function, plain, named)
    result, out = function(*plain, **named), kwargs.get("out")
    # `W += 1` and `out=W` return W itself, not its array.
    if isinstance(out, tuple):
        results = result if isinstance(result, tuple) else (result,)
        given = tuple(r if o is None else o for o, r in zip(out, results, strict=True))
        return given if isinstance(result, tuple) else given[0]
    return result if out is None else out


def _record(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = spelled(function)
    if kwargs.get("out") is not None:
        raise TrackError(f"{name}: expected no `out` inside `gradient`, got one", hint=_IN_PLACE)
    rule = rule_of(function)
    primitive = hasattr(rule, "_is_autograd_primitive")
    if rule is None or (primitive and rule not in primitive_vjps and rule not in notrace_primitives[Node]):
        raise TrackError(f"autograd has no gradient of {name}", hint=INSTEAD)
    # autograd overlooks boxes among keywords and in lists: they would become objects in an array, or constants.
    if _holds_box(list(kwargs.values())):
        raise TrackError(
            f"{name}: expected tracked values by position, got one by keyword", hint="leave the keyword out"
        )
    if (primitive or function in OWN) and any(not isbox(arg) and _holds_box(arg) for arg in args):
        raise TrackError(f"{name}: expected a tracked value, got a list of them", hint=_JOIN)
    if not primitive:
        try:
            signature(rule).bind(*args, **kwargs)
        except TypeError as error:
            message = f"autograd has no gradient of {name} with these arguments ({error})"
            raise TrackError(message, hint=INSTEAD) from None
    return _wrap(rule(*args, **kwargs))


_ATTRIBUTES: dict[str, Callable[[Any], Any]] = {
    "T": np.transpose,
    "mT": lambda x: np.swapaxes(x, -1, -2),
    "real": np.real,
    "imag": np.imag,
    "shape": np.shape,
    "ndim": np.ndim,
    "size": np.size,
    "dtype": np.result_type,
}


def _astype(x: Any, dtype: Any) -> Any:
    # A cast to integers rounds, so its derivative is zero, as that of `np.floor` is.
    return _wrap(x._operand().astype(dtype)) if np.dtype(dtype).kind in "fc" else x.data.astype(dtype)


_METHODS: dict[str, Callable[..., Any]] = {
    "astype": _astype,
    "flatten": np.ravel,
    "reshape": lambda x, *shape, order="C": np.reshape(x, shape[0] if len(shape) == 1 else shape, order=order),
    "transpose": lambda x, *axes: np.transpose(x, (axes[0] if len(axes) == 1 else axes) or None),
}
_REDUCTIONS = ("all", "any", "argmax", "argmin", "max", "mean", "min", "prod", "std", "sum", "trace", "var")
_MOVES = ("copy", "diagonal", "ravel", "repeat", "squeeze", "swapaxes", "take")
_OTHERS = ("argsort", "clip", "conj", "cumsum", "dot", "nonzero", "round")
_METHODS |= {name: getattr(np, name) for name in (*_REDUCTIONS, *_MOVES, *_OTHERS)}
