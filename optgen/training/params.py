"""Parameters, and what belongs to each: `param`, `Params`, and the `Gradients` of a run.

In: NumPy arrays. Out: values that behave like them, and containers that know them by identity. Inside `gradient` each
requested parameter stands for one of autograd's boxes, which is found through the tape of the current context: so
threads and failures leave no trace in each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, overload

import numpy as np

from ..errors import TrackError
from .tape import Array, current
from .tracked import Tracked

__all__ = ["Gradients", "Param", "Params", "param"]


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
        tape = current.get()
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
