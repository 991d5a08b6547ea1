"""Courses as C: the test whether a tensor takes a piece of work in a step.

In: a course of the sweeps of a rule. Out: its test, and what that needs to have been declared.
"""

from __future__ import annotations

from ..frozen import frozen
from ..lowering.courses import Course
from ..lowering.work import Sweeps
from ..notation.facts import course_words
from .places import Need, Places

__all__ = ["CourseTest", "course_test"]


@frozen
class CourseTest:
    """A condition of C, what it needs, and what it means."""

    c: str
    needs: frozenset[Need]
    meaning: str


def course_test(course: Course, plan: Sweeps, places: Places) -> CourseTest:
    """The test of a course whose conditions have been computed."""
    of_tests = [places.of(each.test) for each in course]
    tests = [f"{place.c} {'!=' if each.holds else '=='} 0" for each, place in zip(course, of_tests, strict=True)]
    needs = frozenset[Need]().union(*(place.needs for place in of_tests))
    return CourseTest(" && ".join(tests), needs, course_words(course, plan))
