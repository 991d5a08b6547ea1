"""Tracked arrays: `param`, `Params` and `gradient`, over the HIPS `autograd` library.

In: NumPy arrays, and a loss written as a closure over parameters in ordinary NumPy. Out: the gradient of that loss for
every parameter, as plain arrays. Nothing here knows about optimisers.

Outside `gradient`, a `Param` behaves like its array. Inside, each requested parameter stands for one of autograd's
boxes. The box is found through the tape of the current context, so threads and failures leave no trace in each other.
NumPy's functions arrive through `__array_ufunc__` and `__array_function__`, and are passed to autograd's functions of
the same names.

A gradient is right, or it is refused by name. Functions that autograd lacks or gets wrong have a row in `OWN`, methods
of arrays one in `_METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import partial
from inspect import signature
from typing import Any, overload

import numpy as np
from autograd.core import add_outgrads, primitive_vjps
from autograd.extend import SparseObject, VJPNode
from autograd.tracer import isbox, new_box, notrace_primitives, toposort
from numpy.lib.mixins import NDArrayOperatorsMixin

from ..errors import TrackError
from .derivatives import INSTEAD, OWN, rule_of, spelled

__all__ = ["Gradients", "Param", "Params", "Tracked", "gradient", "param"]

Array = np.ndarray[Any, np.dtype[Any]]

_IN_PLACE = "build a new value instead: `V = W + 1`, `np.where(mask, a, b)`, `np.concatenate`"
_NUMBER = "use NumPy's functions (`np.exp`, not `math.exp`); `.data` is the value without gradient"
_JOIN = "join tracked values with `np.stack` or `np.concatenate`; `.data` is the value without gradient"


class _Tape:
    """One run of `gradient`: while it records, the box of each of its parameters by the parameter's identity."""

    __slots__ = ("boxes", "open")

    def __init__(self, params: Params) -> None:
        self.open = True
        self.boxes = {id(p): new_box(p.data, 0, _Node.new_root(self, p.data.shape)) for p in params}

    def close(self) -> None:
        # The boxes point back here. Once the circle is cut, they need no garbage collector.
        self.open, self.boxes = False, {}


_current: ContextVar[_Tape | None] = ContextVar("optgen_tape", default=None)

# autograd passes these to the function, but ignores them in its gradient, which is then silently wrong.
_FORGOTTEN = frozenset({"where", "initial", "correction", "mean"})

_FAULTS = (NotImplementedError, TypeError, ValueError, LookupError, AttributeError, AssertionError)


class _Node(VJPNode):  # type: ignore[misc]
    """autograd's node for backpropagation, with its tape, its shape, and a name for messages."""

    __slots__ = ("name", "shape", "tape")

    def __init__(self, value: Any, fun: Any, args: Any, kwargs: Any, parent_argnums: Any, parents: Any) -> None:
        self.name = fun.__name__.strip("_").replace("getitem", "indexing").replace("_args", "")
        self.shape = None if isinstance(value, (tuple, list)) else np.shape(value)
        self.tape = parents[0].tape
        if any(parent.tape is not self.tape for parent in parents):
            raise TrackError(
                "expected values of this run of `gradient`, got one of another run", hint="take its `.data`"
            )
        if _FORGOTTEN & kwargs.keys():
            raise self._fault(f"with {', '.join(sorted(_FORGOTTEN & kwargs.keys()))}=")
        try:
            super().__init__(value, fun, args, kwargs, parent_argnums, parents)
        except _FAULTS as error:
            raise self._fault(f"with these arguments ({error})") from error

    def initialize_root(self, tape: _Tape, shape: tuple[int, ...]) -> None:
        super().initialize_root()
        self.name, self.shape, self.tape = "param", shape, tape

    def pull(self, g: Any) -> list[Any]:
        """Turn the gradient `g` of this node into one for each parent, in the parent's shape."""
        try:
            grads = list(self.vjp(g))
        except _FAULTS as error:
            raise self._fault(f"with these arguments ({error})") from error
        for parent, grad in zip(self.parents, grads, strict=True):
            shape = grad.vs.shape if isinstance(grad, SparseObject) else np.shape(grad)
            if parent.shape not in (None, shape):
                raise self._fault(f"for these shapes (expected a gradient of {parent.shape}, got {shape})")
        return grads

    def _fault(self, case: str) -> TrackError:
        return TrackError(f"autograd has no gradient of `{self.name}` {case}", hint=INSTEAD)


# The same set, not a copy: functions that autograd declares constant later are constant here too.
notrace_primitives[_Node] = notrace_primitives[VJPNode]


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
        operand, index = self._operand(), _unwrap(index)
        if _holds_box(index):
            raise TrackError("expected an index without gradient, got a tracked value", hint="take its `.data`")
        # autograd would take a list of booleans for positions, and give a wrong gradient.
        if isbox(operand) and isinstance(index, list):
            index = np.asarray(index, dtype=None if index else np.intp)
        return _wrap(operand[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._plain("an array to change in place", _IN_PLACE)[_unwrap(index)] = _unwrap(value)

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


class Param(Tracked):
    """A parameter: an array for which `gradient` gives a gradient. `param` makes one.

    `data` is its array, float32 or float64: the same object for life, updated in place. Outside `gradient`, a `Param`
    behaves like that array: `W -= 0.1 * grads[W]` and `W[0] = 3` work in place. Like an array, it compares element by
    element and has no hash. Containers of parameters identify them by identity.
    """

    __slots__ = ()

    @property
    def data(self) -> Array:
        return self._source  # type: ignore[no-any-return]

    def _operand(self) -> Any:
        tape = _current.get()
        return self.data if tape is None else tape.boxes.get(id(self), self.data)

    def __repr__(self) -> str:
        return f"param({self.data!r})"


def param(x: Any) -> Param:
    """Make a parameter of an array.

    Parameters
    ----------
    x : array_like of real numbers, of any shape
        A float32 or float64 array is taken without a copy: updates change it. Anything else (integers, lists, scalars)
        becomes a new float64 array. A `Param` is returned as it is.

    Returns
    -------
    Param

    Raises
    ------
    TrackError
        For complex numbers, text, objects, other float types, and arrays that cannot be written to.

    Examples
    --------
    >>> W = param(np.zeros((2, 3), np.float32))
    >>> W.data.dtype
    dtype('float32')
    """
    if isinstance(x, Param):
        return x
    try:
        a = np.asarray(x)
    except ValueError as error:
        raise TrackError(f"expected an array of real numbers, got {type(x).__name__}: {error}") from error
    ours = isinstance(x, np.ndarray) and a.dtype.kind not in "biu"
    if a.dtype not in (np.float32, np.float64) if ours else a.dtype.kind not in "biuf":
        raise TrackError(f"expected an array of float32 or float64, got {a.dtype}", hint="convert it with `.astype`")
    if not ours:
        return Param(np.array(a, dtype=np.float64))
    if not a.flags.writeable:
        raise TrackError("expected an array that can be written to, got a read-only one", hint="take a `.copy()`")
    return Param(a)


class Params:
    """An ordered collection of parameters without duplicates, by identity. Raises `TrackError` for any other member."""

    __slots__ = ("_members",)

    def __init__(self, params: Iterable[Param] = ()) -> None:
        if isinstance(params, Param):
            raise TrackError("expected an iterable of params, got one param", hint="write `Params([W])`")
        members = list(params)
        for i, p in enumerate(members):
            if not isinstance(p, Param):
                raise TrackError(f"expected a param at {i}, got {type(p).__name__}", hint="make it one: `param(...)`")
        self._members = {id(p): p for p in members}

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        """Restore a copy or a pickle, whose members have other identities."""
        self._members = {id(p): p for p in state[1]["_members"].values()}

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Param]:
        return iter(self._members.values())

    def __contains__(self, p: object) -> bool:
        return id(p) in self._members

    @overload
    def __getitem__(self, index: int) -> Param: ...
    @overload
    def __getitem__(self, index: slice) -> Params: ...
    def __getitem__(self, index: int | slice) -> Param | Params:
        found = list(self)[index]
        return Params(found) if isinstance(found, list) else found

    def __repr__(self) -> str:
        return f"Params([{', '.join(map(repr, self))}])"


class Gradients:
    """The result of `gradient`: a gradient `grads[p]` for each parameter, by identity, and the loss as `value`.

    It is a mapping in the order of the parameters, with iteration, `len`, `in`, `values()` and `items()`. Each gradient
    is a writable array in memory of its own, with the shape and dtype of its parameter.
    """

    __slots__ = ("_grads", "_params", "value")

    def __init__(self, params: Params, grads: Iterable[Array], value: float) -> None:
        self._params = params
        self._grads = dict(zip(map(id, params), grads, strict=True))
        self.value = value

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        """Restore a copy or a pickle, whose parameters have other identities."""
        fields = state[1]
        self.__init__(fields["_params"], fields["_grads"].values(), fields["value"])  # type: ignore[misc]

    def __getitem__(self, p: Param) -> Array:
        """The gradient for `p`. Raises `TrackError` if `gradient` was not asked for it."""
        try:
            return self._grads[id(p)]
        except KeyError:
            came = f"another param, of shape {p.shape}" if isinstance(p, Param) else type(p).__name__
            hint = "a param is found by identity: index with the one that `gradient` was given"
            raise TrackError(f"expected one of {len(self)} params, got {came}", hint=hint) from None

    def __len__(self) -> int:
        return len(self._params)

    def __iter__(self) -> Iterator[Param]:
        return iter(self._params)

    def __contains__(self, p: object) -> bool:
        return p in self._params

    def values(self) -> list[Array]:
        return list(self._grads.values())

    def items(self) -> list[tuple[Param, Array]]:
        return list(zip(self._params, self.values(), strict=True))

    def __repr__(self) -> str:
        return f"Gradients(value={self.value}, {self.values()})"


def gradient(f: Callable[[], Any], params: Params | Iterable[Param]) -> Gradients:
    """The gradient of the real number `f()` for each of `params`.

    Parameters
    ----------
    f : callable without arguments
        Uses the parameters as a closure, and returns one real number: a Python number, or an array of size 1. Threads
        that it starts are not recorded.
    params : Params, or iterable of Param
        A parameter that `f` does not use gets zeros. Any other parameter is a constant to `f`.

    Returns
    -------
    Gradients
        For each parameter an array of its shape and dtype; and the loss as `value`.

    Raises
    ------
    TrackError
        If `f` returns anything else, does something that has no gradient, or calls `gradient`.

    Examples
    --------
    >>> W = param([1.0, 2.0])
    >>> gradient(lambda: np.sum(W * W), [W])[W]
    array([2., 4.])
    """
    theta = params if isinstance(params, Params) else Params(params)
    if _current.get() is not None:
        raise TrackError(
            "expected `gradient` outside of `gradient`, got one inside", hint="there are only first derivatives here"
        )
    tape = _Tape(theta)
    roots = [box._node for box in tape.boxes.values()]
    token = _current.set(tape)
    try:
        end = _unwrap(f())
    finally:
        _current.reset(token)
        tape.close()
    value = _real(end._value if isbox(end) else end)
    found = _pull_back(end._node, tape, np.ones_like(end._value)) if isbox(end) else {}
    return Gradients(theta, [_own(p.data, found.get(root)) for p, root in zip(theta, roots, strict=True)], value)


def _real(value: Any) -> float:
    """Convert the loss to a float. Raises `TrackError` unless it is one real number."""
    number = isinstance(value, (int, float, np.ndarray, np.generic)) and np.asarray(value).dtype.kind in "iuf"
    if not number or np.size(value) != 1:
        came = f"shape {np.shape(value)}" if number else str(getattr(value, "dtype", type(value).__name__))
        hint = "sum it, or take its mean" if number else "the function must return it"
        raise TrackError(f"expected the loss to be one real number, got {came}", hint=hint)
    return float(np.asarray(value).item())


def _pull_back(end: _Node, tape: _Tape, seed: Array) -> dict[_Node, Array]:
    """Backpropagate from `end` to the nodes of the parameters that it was computed from."""
    if end.tape is not tape:
        raise TrackError(
            "expected a loss of this run of `gradient`, got one of another run",
            hint="compute it in the function itself",
        )
    pending: dict[_Node, Any] = {end: (seed, False)}
    for node in list(toposort(end)):
        if node.parents:
            for parent, grad in zip(node.parents, node.pull(pending.pop(node)[0]), strict=True):
                pending[parent] = add_outgrads(pending.get(parent), grad)
            # A value that the caller keeps would otherwise keep every value of the run alive.
            node.parents, node.vjp = (), None
    return {node: g for node, (g, _) in pending.items()}


def _own(data: Array, g: Any) -> Array:
    """Copy `g` into an array laid out like `data`, since autograd shares memory between gradients where it can."""
    own = np.zeros_like(data)
    if g is not None:
        own[...] = np.real(g)
    return own


def _unwrap(x: Any) -> Any:
    """Replace tracked values in `x`, also inside lists and tuples, by autograd's boxes or by plain arrays."""
    if isinstance(x, Tracked):
        return x._operand()
    if isinstance(x, (list, tuple)):
        return (list if isinstance(x, list) else tuple)(map(_unwrap, x))
    return x


def _holds_box(x: Any) -> bool:
    return any(map(_holds_box, x)) if isinstance(x, (list, tuple)) else isbox(x)


def _wrap(x: Any) -> Any:
    """Undo `_unwrap`. A boxed sequence, as of `np.split` or `np.linalg.eigh`, becomes a sequence of tracked values."""
    if not isbox(x):
        return x
    if not isinstance(x._value, (list, tuple)):
        return Tracked(x)
    items, kind = [_wrap(x[i]) for i in range(len(x))], type(x._value)
    return kind(*items) if hasattr(kind, "_fields") else kind(items)


def _call(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Call a NumPy function with tracked arguments. The call is recorded while their tape is open."""
    plain, named = _unwrap(args), {key: _unwrap(value) for key, value in kwargs.items()}
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
    if rule is None or (primitive and rule not in primitive_vjps and rule not in notrace_primitives[_Node]):
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
