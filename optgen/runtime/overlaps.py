"""Overlaps: which arrays of a step have memory in common.

In: plain arrays. Out: whether one overlaps itself; an `OverlapError` that names two that overlap. Nothing here writes
to an array.

The answer is exact. Its cost grows with the number of arrays, and with their elements where they are interleaved.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OverlapError
from .addresses import Interval, address_of, bounds

__all__ = ["first_overlap", "overlaps_itself", "refuse_overlaps"]

#: How hard to look for a shared element of two arrays before marking their elements.
_WORK = 10_000
#: To compare two arrays takes about as long as to mark so many elements.
_COMPARISON = 256
#: Of memory of which elements are a smaller share than one in so many, only they are noted.
_SPARSE = 64


def overlaps_itself(x: NDArray[Any]) -> bool:
    """Whether two elements have memory in common."""
    if x.size <= 1 or x.flags.c_contiguous or x.flags.f_contiguous or _leaps(x):
        return False
    low, high = bounds(x)
    if x.nbytes > high - low:
        return True
    marks = _Marks([x])
    marks.add(x)
    return marks.count() < marks.grains


def _leaps(x: NDArray[Any]) -> bool:
    """Whether each stride leaps over all that smaller strides reach, as in views made by slicing and transposing."""
    reach = x.itemsize
    for stride, extent in sorted((abs(s), n) for s, n in zip(x.strides, x.shape, strict=True) if n > 1):
        if stride < reach:
            return False
        reach += stride * (extent - 1)
    return True


def refuse_overlaps(
    parameters: Sequence[NDArray[Any]],
    gradients: Sequence[NDArray[Any]],
    states: Sequence[NDArray[Any]],
    inputs: Sequence[NDArray[Any]] = (),
    *,
    overwrites: bool = False,
) -> None:
    """OverlapError if a step would write memory that it reads or writes elsewhere. Gradients may share with gradients
    and further inputs, unless the step `overwrites` them."""
    count = len(parameters)
    arrays = [*parameters, *states, *gradients, *inputs]
    before = count + len(states)
    written = before + len(gradients) if overwrites else before

    def name(i: int) -> str:
        if i < count:
            return "the parameter" if count == 1 else f"parameter {i}"
        if i < before:
            return "a state of the optimiser"
        if i >= before + len(gradients):
            return "an input of the step"
        return "the gradient" if count == 1 else f"gradient {i - before}"

    found = first_overlap(arrays, written)
    if found is None:
        return
    i, j = found
    a, b = arrays[i], arrays[j]
    if j < count and address_of(a) == address_of(b) and a.shape == b.shape and a.strides == b.strides:
        raise OverlapError(
            f"expected each parameter once, got one array as {name(i)} and {name(j)}", hint="leave the second one out"
        )
    hint = "a step writes one while it reads or writes the other: give one of them memory of its own, .copy()"
    raise OverlapError(f"expected arrays apart in memory, got an overlap of {name(i)} and {name(j)}", hint=hint)


def first_overlap(arrays: Sequence[NDArray[Any]], written: int) -> tuple[int, int] | None:
    """The numbers of two arrays, i < j, that have an element in common, of which i at least is one of the first
    `written`."""
    intervals = [bounds(x) for x in arrays]
    found = (_first_pair(arrays, intervals, cluster, written) for cluster in _clusters(intervals))
    return next((pair for pair in found if pair is not None), None)


# ---- Intervals of addresses ----


def _clusters(intervals: Sequence[Interval]) -> Iterator[list[int]]:
    """Stretches of memory that two or more intervals cover without a gap: the numbers of these, by where they begin."""
    lows, highs = np.array(intervals, np.int64).reshape(-1, 2).T
    order = np.argsort(lows, kind="stable")
    order = order[highs[order] > lows[order]]
    reach = np.maximum.accumulate(highs[order])
    ends = np.flatnonzero(lows[order[1:]] >= reach[:-1]) + 1
    edges = np.concatenate(([0], ends, [len(order)]))
    for k in np.flatnonzero(np.diff(edges) > 1):
        yield order[edges[k] : edges[k + 1]].tolist()


def _first_pair(
    arrays: Sequence[NDArray[Any]], intervals: Sequence[Interval], cluster: Sequence[int], written: int
) -> tuple[int, int] | None:
    """Two arrays of a cluster, i < j, that have an element in common, of which the first at least is one of the
    `written`."""
    reads = [i for i in cluster if i >= written]
    if len(reads) == len(cluster):
        return None
    pairs = _touching([intervals[i] for i in cluster]) - _touching([intervals[i] for i in reads])
    if pairs > max(len(cluster), sum(arrays[i].size for i in cluster) // _COMPARISON):
        return _first_marked_twice(arrays, sorted(cluster), written)
    touching = _touching_pairs(intervals, cluster, written)
    return next(((i, j) for i, j in touching if _share(arrays[i], arrays[j])), None)


def _touching(intervals: Sequence[Interval]) -> int:
    """How many pairs of intervals, in the order in which they begin, have an address in common."""
    lows, highs = np.array(intervals, np.int64).reshape(-1, 2).T
    left = np.searchsorted(np.sort(highs), lows, "right")  # before an interval begins
    return int((np.arange(len(lows)) - left).sum())


def _touching_pairs(intervals: Sequence[Interval], cluster: Sequence[int], written: int) -> Iterator[tuple[int, int]]:
    """These pairs of a cluster, i < j, but for those of two arrays that are only read."""
    writes: list[int] = []
    reads: list[int] = []
    for i in cluster:
        low = intervals[i][0]
        writes = [j for j in writes if intervals[j][1] > low]
        if i < written:
            reads = [j for j in reads if intervals[j][1] > low]
            yield from ((min(i, j), max(i, j)) for j in (*writes, *reads))
            writes.append(i)
        else:
            yield from ((j, i) for j in writes)
            reads.append(i)


# ---- Elements ----


def _share(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays have an element in common."""
    try:
        return bool(np.shares_memory(a, b, max_work=_WORK))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        marks = _Marks([a, b])
        marks.add(a)
        return marks.has(b)


def _first_marked_twice(arrays: Sequence[NDArray[Any]], numbers: Sequence[int], written: int) -> tuple[int, int] | None:
    """Two of the arrays with these numbers, i < j, that have an element in common, by marking all that are written."""
    marks = _Marks([arrays[i] for i in numbers])
    for place, j in enumerate(numbers):
        if marks.has(arrays[j]):
            return next((i, j) for i in numbers[:place] if i < written and _share(arrays[i], arrays[j]))
        if j < written:
            marks.add(arrays[j])
    return None


class _Marks:
    """Marks for the elements of some arrays: one for each grain of their memory, and no grain is in an element in part.

    `grains`: how many the elements have, each counted by itself.
    """

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        intervals = [bounds(x) for x in arrays]
        self._low = min(low for low, _ in intervals)
        strides = [s for x in arrays for s, n in zip(x.strides, x.shape, strict=True) if n > 1]
        self._grain = math.gcd(*strides, *(x.itemsize for x in arrays), *(low - self._low for low, _ in intervals))
        self.grains = sum(x.nbytes for x in arrays) // self._grain
        room = (max(high for _, high in intervals) - self._low) // self._grain
        self._all = np.zeros(room, np.bool_) if room <= _SPARSE * self.grains else None
        self._some: set[int] = set()

    def has(self, x: NDArray[Any]) -> bool:
        """Whether an element of `x` is marked."""
        if self._all is None:
            return not self._some.isdisjoint(self._places(x))
        return bool(self._of(x).any())

    def add(self, x: NDArray[Any]) -> None:
        """Marks the elements of `x`."""
        if self._all is None:
            self._some.update(self._places(x))
        else:
            self._of(x).fill(True)

    def count(self) -> int:
        """How many grains are marked."""
        return len(self._some) if self._all is None else int(np.count_nonzero(self._all))

    def _extents(self, x: NDArray[Any]) -> tuple[int, list[tuple[int, int]]]:
        """Where the first element lies, then extent and stride of each dimension, and of the grains of an element."""
        dimensions = [(n, s // self._grain) for n, s in zip(x.shape, x.strides, strict=True) if s != 0]
        return (address_of(x) - self._low) // self._grain, [*dimensions, (x.itemsize // self._grain, 1)]

    def _of(self, x: NDArray[Any]) -> NDArray[np.bool_]:
        begin, dimensions = self._extents(x)
        shape, strides = zip(*dimensions, strict=True)
        return np.ndarray(shape, np.bool_, self._all, begin, strides)

    def _places(self, x: NDArray[Any]) -> list[int]:
        begin, dimensions = self._extents(x)
        places = np.array([begin])
        for extent, stride in dimensions:
            places = (places[:, None] + np.arange(extent) * stride).ravel()
        found: list[int] = places.tolist()
        return found
