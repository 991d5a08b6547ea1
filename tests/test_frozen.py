"""Frozen values: fields, defaults, equality and hash; that they never change, also through a pickle."""

from __future__ import annotations

import copy
import pickle
from functools import cached_property
from typing import Any

import pytest

from optgen.frozen import derived, frozen, replace


@frozen
class Point:
    x: float
    y: float = 0.0

    @cached_property
    def norm(self) -> float:
        return self.x**2 + self.y**2


@frozen
class Other:
    x: float
    y: float = 0.0


@frozen
class Nothing:
    pass


@frozen
class Named:
    name: str
    length: int = derived()

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", len(self.name))

    def __hash__(self) -> int:
        return 7


def test_fields_are_given_by_position_name_or_default() -> None:
    assert [Point(1.0), Point(1.0, 0.0), Point(x=1.0), Point(1.0, y=0.0)] == [Point(1.0)] * 4
    assert repr(Point(1.0)) == "Point(x=1.0, y=0.0)"
    match Point(1.0, 2.0):
        case Point(x, y=y):
            assert (x, y) == (1.0, 2.0)


def test_values_are_equal_by_class_and_fields_and_so_are_their_hashes() -> None:
    one, other = Point(1.0), Point(1.0)
    assert one.norm == 1.0  # a kept property is no field
    assert one == other
    assert hash(one) == hash(other)
    assert one != Other(1.0)
    assert one != (1.0, 0.0)
    assert one != Point(2.0)
    assert Nothing() == Nothing()
    assert len({Nothing(), Nothing()}) == 1


def test_a_derived_field_is_neither_given_nor_compared_nor_shown() -> None:
    assert (Named("abc").length, repr(Named("abc"))) == (3, "Named(name='abc')")
    assert replace(Named("abc"), name="ab").length == 2
    assert hash(Named("abc")) == 7  # what a class defines stays
    with pytest.raises(TypeError, match="Named: expected the fields name"):
        Named("abc", length=4)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("args", "keywords", "message"),
    [
        ((), {}, "Point: values of the fields x are missing"),
        ((1.0, 2.0, 3.0), {}, "Point: expected the fields x, y, got"),
        ((1.0,), {"x": 2.0}, "Point: expected the fields x, y, got"),
        ((1.0,), {"z": 2.0}, "Point: expected the fields x, y, got"),
    ],
)
def test_other_fields_are_refused(args: tuple[Any, ...], keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Point(*args, **keywords)


def test_a_value_never_changes() -> None:
    point = Point(1.0)
    with pytest.raises(AttributeError, match=r"expected .*x to stay"):
        point.x = 2.0  # type: ignore[misc]
    with pytest.raises(AttributeError, match=r"expected .*z to stay"):
        point.z = 2.0  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"expected .*x to stay"):
        del point.x
    assert (replace(point, x=2.0), point) == (Point(2.0), Point(1.0))


@pytest.mark.parametrize("value", [Point(1.0, 2.0), Nothing(), Named("abc")])
def test_values_are_pickled_and_copied(value: Any) -> None:
    again = pickle.loads(pickle.dumps(value))
    assert again == value
    assert again.__dict__ == value.__dict__
    assert copy.deepcopy(value) == value
