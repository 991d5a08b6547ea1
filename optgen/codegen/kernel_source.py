"""Rules to source text: the only Jinja environment. In: a rule in all its variants. Out: C, or a Python module.

Templates hold loops and the ABI; what they say of a rule comes to them in the few fields named here.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..ir.expr import Extent, extent_of
from ..ir.rule import Rule
from ..lowering.stages import Stage, crossing, stages
from ..lowering.sweeps import Sweep, Sweeps, sweeps_of
from ..notation import facts as summary
from ..notation import text
from . import c_language as c
from .element import Element
from .element import element as element_of
from .jinja import environment
from .runtime_source import headers, joined
from .small_loops import Loop, between
from .storage import NAMED, Storage

__all__ = ["FOUND", "KEPT", "TARGETS", "Code", "Found", "Kernel", "Pass", "Slab", "kernel_source"]


#: The instruction sets that kernels are compiled for: the macro that must be defined, the name, the attribute.
TARGETS = (
    ("baseline", "OPTGEN_PLAIN"), ("x86_64_v2", "OPTGEN_V2"), ("x86_64_v3", "OPTGEN_V3"), ("x86_64_v4", "OPTGEN_V4"),
)  # fmt: skip


@dataclass(frozen=True)
class Pass:
    """One pass over memory of a kernel, as the template sees it."""

    name: str
    element: Element
    slab: str = ""

    @property
    def by_value(self) -> list[str]:
        return [f"const {self.element.ctype.name} {name}" for name, _, _ in self.element.scalars]

    @property
    def values(self) -> list[str]:
        return [name for name, _, _ in self.element.scalars]

    def by_pointer(self, star: str) -> list[str]:
        kind = self.element.ctype.name
        columns = [f"const double {star}{name}" for name, _, _ in self.element.columns]
        arrays = [f"{kind if written else f'const {kind}'} {star}{name}" for name, written, _ in self.element.arrays]
        return [*columns, *(f"double {star}{name}" for name in self.element.reduced), *arrays]

    @property
    def small_pointers(self) -> list[str]:
        """The pointers to float64, of columns and of what is reduced."""
        return [*(name for name, _, _ in self.element.columns), *self.element.reduced]

    @property
    def small_by_pointer(self) -> list[str]:
        return [*(f"const double *{name}" for name, _, _ in self.element.columns),
                *(f"double *{name}" for name in self.element.reduced)]  # fmt: skip

    def pointers(self, before: str, behind: str) -> list[str]:
        return [f"{before}{name}{behind}" for name, _, _ in self.element.arrays]

    @property
    def dense_arguments(self) -> list[str]:
        kind = self.element.ctype.name
        return [f"({kind if written else f'const {kind}'} *)at[{i}]" for _, written, i in self.element.arrays]

    @property
    def small_arguments(self) -> list[str]:
        columns = [f"&{place}" for _, place, _ in self.element.columns]
        return [*columns, *(f"of_reduced + {i} * OPTGEN_BLOCK" for i in range(len(self.element.reduced)))]

    @property
    def tile_arguments(self) -> list[str]:
        """As `small_arguments`, in a tile of a block that begins with element i."""
        columns = [f"&{place} + i" for _, place, _ in self.element.columns]
        return [*columns, *(f"tile[{i}]" for i in range(len(self.element.reduced)))]

    @property
    def moved_arguments(self) -> list[str]:
        return [f"{argument} + i" for argument in self.dense_arguments]

    # In a slab, which has many rows and matrices, their values stand beside the elements.

    @property
    def uniform(self) -> list[tuple[str, str, str]]:
        return [scalar for scalar in self.element.scalars if not _index(scalar[1])]

    @property
    def spread(self) -> list[tuple[str, str, str, str, str, str]]:
        """Name, place and meaning; with what it is counted, how many there are, and how many elements each is for."""
        return [(*scalar, *_SPREAD[_index(scalar[1])]) for scalar in self.element.scalars if _index(scalar[1])]

    @property
    def uniform_by_value(self) -> list[str]:
        return [f"const {self.element.ctype.name} {name}" for name, _, _ in self.uniform]

    @property
    def spread_by_pointer(self) -> list[str]:
        return [f"const {self.element.ctype.name} *restrict {name}" for name, *_ in self.spread]

    @property
    def spread_values(self) -> list[str]:
        return [f"{name}[i]" if _index(place) else name for name, place, _ in self.element.scalars]

    @property
    def spread_arguments(self) -> list[str]:
        names = [name for name, *_ in (*self.uniform, *self.spread, *self.element.columns)]
        reduced = [f"of_reduced[{i}]" for i in range(len(self.element.reduced))]
        return [*names, *reduced, *(argument.replace("at[", "of_at[") for argument in self.dense_arguments)]

    @property
    def found(self) -> list[str]:
        """Declarations of that through which a row of elements finds its values, as far as it is needed."""
        places = [place for _, place, _ in (*self.element.scalars, *self.element.columns)]
        places += ["of_reduced"] if self.element.reduced else []
        kept = [f"const double *const {name} = (const double *)values->tensor->space->{many} + {at} * values->{many};"
                for name, many, at, *_ in _found(places)]  # fmt: skip
        return [*kept, *(line for name, line in FOUND if any(name in place for place in places))]

    @property
    def found_by_block(self) -> list[str]:
        """The same for a block, which reduces in a place of its own."""
        return [line for line in self.found if line != dict(FOUND)["of_reduced"]]


#: What the place of a value may be written with, and how a row of elements comes by it.
FOUND = (
    ("of_at", "char *const *const of_at = values->tensor->at;"),
    ("of_step", "const double *const of_step = values->step;"),
    ("of_group", "const double *const of_group = values->group;"),
    ("of_tensor", "const double *const of_tensor = values->tensor->space->cells;"),
    ("matrix_i", "const int64_t matrix_i = values->matrix;"),
    ("row_i", "const int64_t row_i = values->row;"),
    ("column_i", "const int64_t column_i = values->column;"),
    ("of.", "const optgen_shape of = optgen_shape_of(values->tensor->layout);"),
    ("of_reduced", "double *const of_reduced = values->reduced;"),
)


def _index(place: str) -> str:
    """With what a value is counted that stands at this place: rows, matrices, or nothing."""
    return next((index for index in _SPREAD if index in place), "")


_SPREAD = {
    "row_i": ("row_i", "of_many_rows", "of.columns"),
    "matrix_i": ("matrix_i", "of_many_matrices", "of.rows * of.columns"),
}


#: What the numbered places are among what a tensor keeps, and how many of each there are.
KEPT = {
    "matrix": ("matrices", "of_depth"), "row": ("rows", "of_height"), "column": ("columns", "of_width"),
    "partial": ("partials", "of_runs"), "panel": ("panels", "of_deep"),
}  # fmt: skip
Found: TypeAlias = tuple[str, str, int, str, str]


def _found(texts: Iterable[str], kept: Container[str] = ()) -> list[Found]:
    """The numbered places that are in these texts: name, among what, number, and how many of each there are; and with
    what it is counted, if it is one of `kept`."""
    names = {match[0]: match for text in texts for match in re.finditer(r"\bof_([a-z]+)(\d+)\b", text)}
    return [
        (name, KEPT[match[1]][0], int(match[2]), KEPT[match[1]][1],
         ("rows" if match[1] == "partial" else KEPT[match[1]][0]) if name in kept else "")
        for name, match in sorted(names.items())
    ]  # fmt: skip


@dataclass(frozen=True)
class Code:
    """What stands between two passes, as the template sees it. `slab`: as of a pass, the stage that begins here."""

    name: str
    loop: Loop
    slab: str = ""

    @property
    def found(self) -> list[Found]:
        return _found(line.code for line in self.loop.lines)


@dataclass(frozen=True)
class Slab:
    """A stage as matrices go through it that are dense behind each other, as the template sees it: `found` is what it
    keeps, in memory if another stage or the whole tensor needs it."""

    name: str
    local: list[Pass | Code]
    kept: frozenset[str]

    @property
    def found(self) -> list[Found]:
        texts = [line.code for each in self.local if isinstance(each, Code) for line in each.loop.lines]
        passes = [each.element for each in self.local if isinstance(each, Pass)]
        texts += [place for each in passes for _, place, _ in (*each.scalars, *each.columns)]
        texts += [f"of_{'panel' if fold.down else 'partial'}{fold.place}" for each in passes for fold in each.folds]
        return _found(texts, self.kept)


@dataclass(frozen=True)
class Kernel:
    """One variant of a rule in one compute type, as the template sees it: its work in order."""

    name: str
    title: str
    variant: str
    dtype: str
    ctype: str
    passes: list[Pass]
    codes: list[Code]
    slabs: list[Slab]
    work: list[Pass | Code]
    moved: list[str]
    arrays: int
    states: int
    units: str
    partials: int
    panels: int
    reduced: int


def kernel_source(checked: Sequence[Rule], lowered: Sequence[Rule]) -> str:
    """The C of one rule: all variants, all compute types, all instruction sets."""
    kernels = [
        _kernel(rule, sweeps_of(low), ctype) for rule, low in zip(checked, lowered, strict=True) for ctype in c.DTYPES
    ]
    rule = checked[0]
    about = [rule.reference, "", *map(text.formula, summary.shown(rule))]
    definitions = [d for kernel in kernels for each in kernel.passes for d in each.element.definitions]
    definitions += [d for kernel in kernels for code in kernel.codes for d in code.loop.definitions]
    context = {
        "title": c.comment(f"{rule.name}: {rule.summary}"),
        "about": [c.comment(line) for line in about],
        "definitions": list(dict.fromkeys(definitions)),
        "kernels": kernels,
        "targets": TARGETS,
        "reduce": joined("reduce.h", without="abi.h") if any(kernel.codes for kernel in kernels) else "",
    }
    return environment().get_template("kernel.c.jinja").render(context | headers("kernel.h"))


def _kernel(rule: Rule, plan: Sweeps, ctype: c.CType) -> Kernel:
    name = "_".join(filter(None, (rule.name.lower(), rule.variant, ctype.short)))
    places = Storage(plan)
    passes: list[Pass] = []
    codes: list[Code] = []
    slabs: list[Slab] = []
    work: list[Pass | Code] = []
    all_stages = [stage for stretch in stages(plan) for stage in stretch]
    for stage, crosses in zip(all_stages, crossing(all_stages), strict=True):
        local: list[Pass | Code] = []
        begins = f"{name}_slab{len(slabs) + 1}" if plan.rule.tiled and stage.local else ""
        for each in stage.work:
            slab = "" if local else begins
            if isinstance(each, Sweep):
                number = str(1 + len(passes)) if len(plan.sweeps) > 1 else ""
                element = element_of(plan, each, rule, ctype, places)
                passes.append(Pass("_".join(filter(None, (name, number))), element, slab))
                local.append(passes[-1])
            else:
                codes.append(Code(f"{name}_between{1 + len(codes)}", between(plan, each, rule, places), slab))
                local.append(codes[-1])
        work += local
        if begins:
            kept = {f"of_{kind}{places.small[extent][name]}" for name in crosses for extent, kind in NAMED.items()
                    if name in places.small[extent]}  # fmt: skip
            slabs.append(Slab(begins, local[: len(stage.local)], frozenset(kept | _left(stage, places))))
    return Kernel(
        name,
        ", ".join(filter(None, (rule.name, rule.variant.replace("_", ", "), ctype.dtype))),
        rule.variant,
        ctype.dtype,
        ctype.name,
        passes,
        codes,
        slabs,
        work,
        _moved(plan, ctype),
        len(rule.arrays),
        len(places.states),
        "0" if plan.rule.tiled else "OPTGEN_BLOCK" if plan.reduces else "1",
        len(places.along),
        len(places.down),
        max(len(each.element.folds) for each in passes),
    )


def _left(stage: Stage, places: Storage) -> set[str]:
    """What the passes of a stage reduce for whole tensors."""
    reduced = [a for each in stage.local if isinstance(each, Sweep) for a in each.reductions]
    return {f"of_partial{places.along[a.target]}" for a in reduced if extent_of(a.value) <= Extent.TENSOR}


def _moved(plan: Sweeps, ctype: c.CType) -> list[str]:
    """Where the arrays and states begin for some matrices of a tensor."""
    kept = [state.extent for state in plan.rule.states if Extent.GROUP < state.extent < Extent.ELEMENT]
    moves = [f" + of_first_elements * (int64_t)sizeof({ctype.name})"] * len(plan.rule.arrays)
    moves += [f" + of_first_{KEPT[NAMED[e]][0]} * (int64_t)sizeof(double)" if e in NAMED else "" for e in kept]
    return [f"tensor->at[{i}]{move}" for i, move in enumerate(moves)]
