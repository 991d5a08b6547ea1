"""What runs on whole tensors, as the template sees it: small loops, the tests of courses, and stages in slabs.

In: the C of small loops, tests and sweeps. Out: the pieces of their functions: parameters, arguments, declarations.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..frozen import frozen
from .course import CourseTest
from .declarations import Declared, arrays_of, declarations
from .places import ALL_INDICES, Base, Kept, KeptArray, Need
from .small_loops import SmallLoopBody
from .sweep_text import SweepText

__all__ = ["CourseText", "SlabText", "SmallLoopText"]

#: How a small loop does.
_OF_SMALL_LOOP = {
    Base.AT: Declared("char", "*const *const arrays", "tensor->at"),
    Base.STEP: Declared("const double", "*const in_step", "step"),
    Base.GROUP: Declared("const double", "*const in_group", "group"),
    Base.TENSOR: Declared("double", "*const in_tensor", "tensor->space->cells"),
    Base.SHAPE: Declared("const optgen_shape", "of", "optgen_shape_of(tensor->layout)"),
    Base.HEIGHT: Declared("const int64_t", "height", "of.matrices * of.rows"),
    Base.WIDTH: Declared("const int64_t", "width", "of.matrices * of.columns"),
    Base.HIGH: Declared("const int64_t", "panels", "optgen_parts(of.rows, OPTGEN_PANEL)"),
}
#: How its loop, which slabs have too, gets them.
_PARAMETERS = {
    Base.AT: "char *const *arrays",
    Base.STEP: "const double *in_step",
    Base.GROUP: "const double *in_group",
    Base.TENSOR: "const double *in_tensor",
    Base.SHAPE: "optgen_shape of",
    Base.HEIGHT: "int64_t height",
    Base.WIDTH: "int64_t width",
    Base.HIGH: "int64_t panels",
    Base.BLOCKS: "int64_t blocks",
}
#: How many values of a tensor an array of a field has.
_LENGTH = {
    Kept.MATRIX: "of.matrices", Kept.ROW: "of.matrices * of.rows", Kept.COLUMN: "of.matrices * of.columns",
    Kept.INDEX: ALL_INDICES,
}  # fmt: skip
#: In a slab each row is one block and each matrix one panel.
_IN_SLAB = {Kept.PARTIAL: "rows", Kept.PANEL: "columns"}


@frozen
class CourseText:
    """The function that tells whether a tensor takes a course, as the template sees it."""

    name: str
    test: CourseTest

    @property
    def declarations(self) -> list[str]:
        return declarations(each for base, each in _OF_SMALL_LOOP.items() if base in self.test.needs)


@frozen
class SmallLoopText:
    """One small loop of a kernel, as the template sees it. `tiled`: whether blocks are cut from rows."""

    name: str
    body: SmallLoopBody
    tiled: bool
    slab: str = ""

    @property
    def initialiser(self) -> list[str]:
        """The fields of its `optgen_work`."""
        fields = [f".small_loop = {self.name}", *([] if self.body.index else [".whole = 1"])]
        return fields + ([f".slab = {self.slab}_##ISA"] if self.slab else [])

    @property
    def declarations(self) -> list[str]:
        blocks = "of.columns" if self.tiled else "of.elements"
        found = dict(_OF_SMALL_LOOP)
        found[Base.BLOCKS] = Declared("const int64_t", "blocks", f"optgen_parts({blocks}, OPTGEN_BLOCK)")
        arrays = arrays_of(self.body.needs)
        needs = set(self.body.needs)
        kinds = {array.kept for array in arrays}
        needs |= {Base.BLOCKS} if Kept.PARTIAL in kinds else set()
        needs |= {Base.HIGH, Base.WIDTH} if Kept.PANEL in kinds else set()
        if arrays or self.body.index or needs & {Base.BLOCKS, Base.HEIGHT, Base.WIDTH, Base.HIGH}:
            needs.add(Base.SHAPE)
        runs = "of.matrices * of.rows * blocks" if self.tiled else "blocks"
        length = _LENGTH | {Kept.PARTIAL: runs, Kept.PANEL: "panels * width"}
        kept = [
            Declared(
                "double",
                f"*const {array.name}",
                f"(double *)tensor->space->{array.field}"
                + (f" + {array.number} * {length[array.kept]}" if array.number else ""),
            )
            for array in arrays
        ]
        many = [Declared("const int64_t", "count", self.count)] if self.body.index else []
        return declarations([*(each for base, each in found.items() if base in needs), *many, *kept])

    @property
    def parameters(self) -> list[str]:
        """What the loop of a share, or of a slab, takes besides its ends."""
        return [
            f"double *restrict {need.name}" if isinstance(need, KeptArray) else _PARAMETERS[need]
            for need in self._passed
        ]

    @property
    def arguments(self) -> list[str]:
        """The same, as whoever calls it has declared it."""
        return [need.name if isinstance(need, KeptArray) else need.value for need in self._passed]

    @property
    def _passed(self) -> list[Base | KeptArray]:
        needs = self.body.needs | ({Base.SHAPE} if self.body.in_matrix else set())
        return [*(base for base in _PARAMETERS if base in needs), *arrays_of(needs)]

    @property
    def count(self) -> str:
        """How many times the statements run for a tensor."""
        return _LENGTH[Kept(self.body.each)]


@frozen
class SlabText:
    """A stage as matrices go through it that are dense behind each other, as the template sees it. `kept`: what it
    leaves in memory, because another stage or the whole tensor needs it. `moved`: what `at` of a tensor becomes.
    `blocks`: whether blocks go through it in the place of matrices."""

    name: str
    local: Sequence[SweepText | SmallLoopText]
    kept: Collection[KeptArray]
    moved: Sequence[str]
    blocks: bool

    @property
    def needs(self) -> set[Need]:
        needs: set[Need] = set()
        for each in self.local:
            if isinstance(each, SweepText):
                needs |= each.element.needs | {fold.into for fold in each.element.folds} | {Base.AT}
            else:
                needs |= each.body.needs
        return needs

    @property
    def moves(self) -> bool:
        """Whether anything in it reads or writes an array or a state."""
        return Base.AT in self.needs

    @property
    def arrays(self) -> int:
        """How many arrays with a number for each element there are on the stack at once, at most."""
        sweeps = [each for each in self.local if isinstance(each, SweepText)]
        beside = [len(each.element.folds) + len(each.element.columns) + 2 * len(each.spread) for each in sweeps]
        return len(self.own) + max(beside, default=0)

    @property
    def own(self) -> list[str]:
        """The arrays that are not kept."""
        return [array.name for array in arrays_of(self.needs) if array not in self.kept]

    @property
    def declarations(self) -> list[str]:
        found = {
            Base.STEP: Declared("const double", "*const in_step", "step"),
            Base.GROUP: Declared("const double", "*const in_group", "group"),
            Base.TENSOR: Declared("const double", "*const in_tensor", "tensor->space->cells"),
            Base.BLOCKS: Declared("const int64_t", "blocks", "1"),
            Base.HIGH: Declared("const int64_t", "panels", "1"),
            Base.WIDTH: Declared("const int64_t", "width", "count * of.columns"),
        }
        return declarations(declared for base, declared in found.items() if base in self.needs)

    @property
    def kept_arrays(self) -> list[str]:
        found = []
        for array in arrays_of(self.needs):
            if array in self.kept:
                counted = _IN_SLAB.get(array.kept, array.field)
                all_before = f"{array.number} * all.{counted} + " if array.number else ""
                where = f"(double *)tensor->space->{array.field} + {all_before}begin.{counted}"
                found.append(Declared("double", f"*restrict const {array.name}", where))
        return declarations(found)

    @property
    def numbered(self) -> bool:
        """Whether the shape of the whole tensor is needed to find an array."""
        return any(array in self.kept and array.number for array in arrays_of(self.needs))
