"""Rules to C: the source of a kernel library.

In: a rule in all its variants, checked and lowered. Out: one C file with a kernel for each variant, compute type and
instruction set. What the template must know of a rule comes to it as typed data, of this module and of `sweep_text` and
`small_loop_text`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from .. import __version__
from ..frozen import frozen, replace
from ..ir.expr import Extent, extent_of
from ..ir.rule import Rule, in_phases
from ..lowering.stages import Stage, crossing, stages
from ..lowering.sweeps import sweeps_of
from ..lowering.work import SmallLoop, Sweep, Sweeps
from ..notation import facts as summary
from ..notation import text
from . import c_language as c
from .course import CourseTest, course_test
from .element import Fold
from .element import element as element_of
from .jinja import IN_MACRO, call, environment, filled
from .memory_type import MemoryType, memory_types
from .places import INDEX, KEPT, Base, KeptArray, Places
from .runtime_source import headers, instruction_sets, random_numbers, reductions, storages
from .small_loop_text import CourseText, SlabText, SmallLoopText
from .small_loops import SmallLoopBody, small_loop
from .staging import staged_arrays
from .sweep_text import FoldText, SweepText

__all__ = ["TARGETS", "KernelText", "Target", "kernel_source"]


@frozen
class Target:
    """An instruction set that kernels are compiled for, the macro with its attribute, and whether it is x86-64's."""

    isa: str
    attribute: str
    x86: bool = True


TARGETS = (
    Target("baseline", "OPTGEN_PLAIN", x86=False),
    Target("x86_64_v2", "OPTGEN_V2"),
    Target("x86_64_v3", "OPTGEN_V3"),
    Target("x86_64_v4", "OPTGEN_V4"),
)

#: A kernel takes slabs only if none of its stages has more arrays of OPTGEN_SLAB numbers on the stack, 48 KiB of it.
MOST_IN_SLAB = 12


@frozen
class KernelText:
    """One variant of a rule in one compute type, as the template sees it: its work in order."""

    name: str
    title: str
    variant: str
    ctype: c.CType
    sweeps: Sequence[SweepText]
    slabs: Sequence[SlabText]
    work: Sequence[SweepText | SmallLoopText]
    arrays: int
    types: Sequence[str]
    states: int
    units: str
    partials: int
    panels: int
    reduced: int

    @property
    def fields(self) -> list[str]:
        """Initialisers of an `optgen_kernel`, but for its work; those of zeros are left out."""
        counts = {"arrays": self.arrays, "states": self.states, "units": self.units, "partials": self.partials,
                  "panels": self.panels, "reduced": self.reduced, "count": len(self.work)}  # fmt: skip
        names = {"variant": f'"{self.variant}"', "dtype": f'"{self.ctype.dtype}"', "isa": "#ISA"}
        return [f".{name} = {value}," for name, value in (names | counts).items() if value not in (0, "0")]

    @property
    def mixed(self) -> list[str]:
        """The bytes of an element of each array; nothing if they are all in the compute type."""
        return [f"sizeof({each})," for each in self.types] if {*self.types} != {self.ctype.name} else []

    @property
    def size(self) -> str:
        """The bytes of an element of array `a`."""
        return "sizes[a]" if self.mixed else f"(int64_t)sizeof({self.ctype.name})"

    @property
    def initialiser(self) -> list[str]:
        """The lines of its `optgen_kernel`, inside a macro."""
        head = f"    {{ {filled(self.fields, '      ', IN_MACRO).lstrip()}"
        work = [each.initialiser for each in self.work]
        whole = f"      .work = (const optgen_work[]){{ {{ {', '.join(work[0])} }} }} }},"
        if len(work) == 1 and len(whole) <= IN_MACRO:
            return [head, whole]
        pieces = [call("{ ", fields, " },", "", IN_MACRO - 10) for fields in work]
        lines = filled([piece.replace("\n", f"\n{' ' * 10}") for piece in pieces], " " * 10, IN_MACRO)
        return [*head.split("\n"), "      .work = (const optgen_work[]){", *lines.split("\n"), "      } },"]


def kernel_source(
    checked: Sequence[Rule],
    lowered: Sequence[Rule],
    file: str = "",
    *,
    dtype: str = "",
    isa: str = "",
    compiled: Path | None = None,
    segments: tuple[Sequence[Rule], Sequence[Rule]] = ((), ()),
) -> str:
    """The C of one rule in these variants.

    Parameters
    ----------
    checked, lowered
        The variants, before and after the passes.
    file
        The name of the spec.
    dtype, isa
        The one compute type and instruction set; all of them if empty.
    compiled
        The folder of compiled templates, if there is one.
    segments
        The segments of variants with products of matrices, which have no kernels; before and after the passes.
    """
    rule = checked[0]
    small_loops: dict[tuple[SmallLoopBody, bool], str] = {}  # by what they do, what they are called
    folds: dict[tuple[Fold, ...], str] = {}
    courses: dict[CourseTest, str] = {}
    variants = [(*checked, *segments[0]), (*lowered, *segments[1])]
    kernels = [
        _kernel(variant, sweeps_of(low), ctype, small_loops, folds, courses)
        for variant, low in zip(*variants, strict=True)
        for ctype in c.DTYPES
        if dtype in ("", ctype.dtype) and not variant.multiplies
    ]
    definitions = [d for kernel in kernels for each in kernel.sweeps for d in each.element.definitions]
    definitions += [d for body, _ in small_loops for d in body.definitions]
    draws = any(each.element.draws for kernel in kernels for each in kernel.sweeps)
    staged = any(each.staged for kernel in kernels for each in kernel.sweeps)
    context = {
        "title": f"{rule.name}: {rule.summary}" if rule.summary else rule.name,
        "version": __version__,
        "file": file or "a spec",
        "reference": rule.reference,
        "formulas": list(_formulas(checked)),
        "definitions": list(dict.fromkeys(definitions)),
        "kernels": kernels,
        "small_loops": [SmallLoopText(name, body, tiled) for (body, tiled), name in small_loops.items()],
        "folds": [FoldText(name, each) for each, name in folds.items()],
        "courses": [CourseText(name, each) for each, name in courses.items()],
        "instruction_sets": instruction_sets(),
        "targets": [target for target in TARGETS if isa in ("", target.isa)],
        "reduce": reductions() if small_loops else "",
        "blocks": any(low.block is not None for low in lowered),
        "random": random_numbers() if draws else "",
        "storages": storages(draws=draws, blocks=staged) if any(low.storages for low in lowered) else "",
        "staged": staged,
    }
    ordered = draws or staged or any(low.rounding for low in lowered)
    opening = headers("kernel.h", reduces=bool(small_loops) or ordered)
    return environment(compiled).get_template("kernel.c.jinja").render(context | opening)


def _formulas(checked: Sequence[Rule]) -> Iterator[str]:
    """The lines of the first variant, phase by phase."""
    for rule in (checked[i] for i in in_phases(checked, 0)):
        yield from [f"{rule.phase}:"] if rule.phase else []
        yield from (text.formula(assign) for assign in summary.shown(rule))


def _kernel(
    rule: Rule,
    plan: Sweeps,
    ctype: c.CType,
    small_loops: dict[tuple[SmallLoopBody, bool], str],
    folds: dict[tuple[Fold, ...], str],
    courses: dict[CourseTest, str],
) -> KernelText:
    """The text of one kernel; `small_loops`, `folds` and `courses` gain those that no kernel before has had."""
    name = "_".join(filter(None, (rule.name.lower(), rule.variant, ctype.short)))
    places = Places(plan)
    memory = memory_types(plan.rule, ctype)
    sweeps: list[SweepText] = []
    slabs: list[SlabText] = []
    work: list[SweepText | SmallLoopText] = []
    all_stages = [stage for stretch in stages(plan) for stage in stretch]
    # The loops of slabs are those of small loops.
    slabs_too = plan.rule.tiled and any(isinstance(each, SmallLoop) for stage in all_stages for each in stage.work)
    for stage, crosses in zip(all_stages, crossing(all_stages), strict=True):
        local: list[SweepText | SmallLoopText] = []
        begins = f"{name}_slab{len(slabs) + 1}" if slabs_too and stage.local else ""
        for each in stage.work:
            slab = "" if local else begins
            if isinstance(each, Sweep):
                number = str(1 + len(sweeps)) if len(plan.sweeps) > 1 else ""
                element = element_of(plan, each, rule, ctype, places)
                new = f"{rule.name.lower()}_fold_f64_{1 + len(folds)}"
                fold = folds.setdefault(element.folds, new) if element.folds else ""
                course = ""
                if each.course:
                    test = course_test(each.course, plan, places)
                    course = courses.setdefault(test, f"{rule.name.lower()}_course_{1 + len(courses)}")
                own = "_".join(filter(None, (name, number)))
                staged = staged_arrays(plan.rule, each, memory)
                sweeps.append(SweepText(own, _title(plan, each), element, slab, fold, course, staged))
                local.append(sweeps[-1])
            else:
                body = small_loop(plan, each, rule, places)
                key = body, plan.rule.tiled
                called = small_loops.setdefault(key, f"{rule.name.lower()}_small_f64_{1 + len(small_loops)}")
                local.append(SmallLoopText(called, *key, slab))
        work += local
        if begins:
            kept = _shared(crosses | rule.reported, places) | _left(stage, places)
            blocks = plan.rule.block is not None
            slabs.append(SlabText(begins, local[: len(stage.local)], kept, _moved(plan, memory), blocks))
    # A small matrix may have more indices than a slab has room for elements.
    if any(slab.arrays > MOST_IN_SLAB or Base.INDEX in slab.needs for slab in slabs):
        slabs, work = [], [replace(each, slab="") for each in work]
    stored = [f"{array} in {kept}" for array, kept in plan.rule.storages]
    return KernelText(
        name=name,
        title=", ".join(filter(None, (rule.name, rule.variant.replace("_", ", "), ctype.dtype, *stored))),
        variant=rule.variant,
        ctype=ctype,
        sweeps=sweeps,
        slabs=slabs,
        work=work,
        arrays=len(rule.arrays),
        types=[of.type for of in memory.values()],
        states=len(places.states),
        units="0" if plan.rule.tiled else "OPTGEN_BLOCK" if plan.ordered else "1",
        partials=len(places.along),
        panels=len(places.down),
        reduced=max((len(each.element.folds) for each in sweeps), default=0),
    )


def _title(plan: Sweeps, sweep: Sweep) -> str:
    """Which sweep this is, where there are several."""
    if len(plan.sweeps) == 1:
        return ""
    numbers = sorted({each.number for each in plan.sweeps})
    course = f", where {summary.course_words(sweep.course, plan)}" if sweep.course else ""
    return f"Sweep {1 + numbers.index(sweep.number)} of {len(numbers)}{course}."


def _shared(names: Collection[str], places: Places) -> set[KeptArray]:
    """The arrays of values that a stage has in common with others."""
    slots = (places.cell(name, extent) for name in names for extent in INDEX if name in places.small[extent])
    return {slot.array for slot in slots if slot.array}


def _left(stage: Stage, places: Places) -> set[KeptArray]:
    """What the sweeps of a stage reduce for whole tensors."""
    reduced = [a for each in stage.local if isinstance(each, Sweep) for a in each.reductions]
    return {places.reduced(a.target, down=False) for a in reduced if extent_of(a.value) <= Extent.TENSOR}


def _moved(plan: Sweeps, memory: Mapping[str, MemoryType]) -> list[str]:
    """Where the arrays and states begin for some matrices of a tensor."""
    kept = [state.extent for state in plan.rule.states if Extent.GROUP < state.extent < Extent.ELEMENT]
    moves = [f"elements, {of.type}" for of in memory.values()]
    moves += [f"{KEPT[extent].value}, double" if extent in KEPT else "" for extent in kept]
    return [f"OPTGEN_FROM({i}, {move})," if move else f"tensor->at[{i}]," for i, move in enumerate(moves)]
