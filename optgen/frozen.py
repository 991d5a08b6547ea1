"""Frozen values: objects that never change, and are compared, hashed and shown by their fields.

In: a class with annotated fields, like a frozen dataclass. Out: that class with its constructor and comparisons.

`dataclasses` compiles six functions for each class, which takes a millisecond: of some sixty classes, a good part of
the time until a rule has been read and stepped for the first time. Here all classes share their functions.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Literal, NoReturn, TypeVar, dataclass_transform

__all__ = ["derived", "frozen", "replace"]

T = TypeVar("T")


class _Derived:
    """What stands in a class for a field that is not given, but computed by `__post_init__`."""


_DERIVED = _Derived()


def derived(*, init: Literal[False] = False) -> Any:
    """Declare a field that `__post_init__` sets, through `object.__setattr__`: never given, compared or shown."""
    return _DERIVED


@dataclass_transform(frozen_default=True, field_specifiers=(derived,))
def frozen(cls: type[T]) -> type[T]:
    """Make a class of frozen values: its annotations are the fields, in order, with defaults where they have values.

    What the class defines by itself, such as `__eq__` and `__hash__`, stays.

    Examples
    --------
    >>> @frozen
    ... class Point:
    ...     x: float
    ...     y: float = 0.0
    >>> Point(1.0), Point(1.0) == Point(x=1.0, y=0.0), replace(Point(1.0), y=2.0)
    (Point(x=1.0, y=0.0), True, Point(x=1.0, y=2.0))
    """
    own = cls.__dict__
    annotations = own.get("__annotations__") or getattr(cls, "__annotations__", {})
    names = tuple(name for name in annotations if own.get(name) is not _DERIVED)
    for name in annotations.keys() - names:
        delattr(cls, name)
    methods = {
        "__init__": _constructor(cls, names, {name: own[name] for name in names if name in own}),
        "__repr__": _shown,
        "__setattr__": _refuse,
        "__delattr__": _refuse,
        "__match_args__": names,
    } | _comparisons(names)
    for name, method in methods.items():
        if name not in own or (name == "__hash__" and own[name] is None):
            setattr(cls, name, method)
    return cls


def replace(value: T, **changes: Any) -> T:
    """A value like this one, but for some of its fields."""
    return type(value)(**{name: getattr(value, name) for name in value.__match_args__} | changes)  # type: ignore[attr-defined]


def _constructor(cls: type, names: tuple[str, ...], defaults: dict[str, Any]) -> Callable[..., None]:
    count, known = len(names), frozenset(names)
    finish: Callable[[Any], None] | None = getattr(cls, "__post_init__", None)

    def __init__(self: Any, *args: Any, **keywords: Any) -> None:
        values = self.__dict__
        if keywords or len(args) != count:
            given = dict(zip(names, args, strict=False))
            if len(args) > count or given.keys() & keywords or not known.issuperset(keywords):
                raise TypeError(f"{cls.__name__}: expected the fields {', '.join(names)}, got {args}, {keywords}")
            values.update(defaults)
            values.update(given)
            values.update(keywords)
            if len(values) != count:
                missing = ", ".join(name for name in names if name not in values)
                raise TypeError(f"{cls.__name__}: values of the fields {missing} are missing")
        else:
            values.update(zip(names, args, strict=True))
        if finish is not None:
            finish(self)

    return __init__


def _comparisons(names: tuple[str, ...]) -> dict[str, Callable[..., Any]]:
    key: Callable[[Any], Any] = attrgetter(*names) if names else lambda self: ()

    def __eq__(self: object, other: object) -> bool:
        return key(self) == key(other) if type(other) is type(self) else NotImplemented

    def __hash__(self: object) -> int:
        return hash(key(self))

    return {"__eq__": __eq__, "__hash__": __hash__}


def _shown(self: Any) -> str:
    fields = (f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
    return f"{type(self).__qualname__}({', '.join(fields)})"


def _refuse(self: object, name: str, value: object = None) -> NoReturn:
    raise AttributeError(
        f"expected {type(self).__name__}.{name} to stay, got a change: make another value, by `replace`"
    )
