"""Rules to C: the source of a kernel library.

In: a rule in all its variants, checked and lowered. Out: one C file with a kernel for each variant, compute type and
instruction set. What the template must know of a rule comes to it as the typed data of this module.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from pathlib import Path

from .. import __version__
from ..frozen import frozen, replace
from ..ir.expr import Extent, extent_of
from ..ir.rule import Rule
from ..lowering.stages import Stage, crossing, stages
from ..lowering.sweeps import Sweep, Sweeps, sweeps_of
from ..notation import facts as summary
from ..notation import text
from . import c_language as c
from .element import Element, Fold, ScalarField
from .element import element as element_of
from .jinja import IN_MACRO, call, environment, filled
from .runtime_source import headers, reductions
from .small_loops import SmallLoopBody, small_loop
from .storage import INDEX, Base, Kept, KeptArray, Need, Storage

__all__ = ["TARGETS", "FoldText", "KernelText", "SlabText", "SmallLoopText", "SweepText", "Target", "kernel_source"]


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
class Declared:
    """A name that is declared with a value; `base` is the type that names of one declaration share, and `name` has
    its own stars."""

    base: str
    name: str
    value: str


def declarations(names: Iterable[Declared]) -> list[str]:
    """Declarations of names in order; those of one type that follow each other stand in one."""
    return [
        f"{base} {', '.join(f'{each.name} = {each.value}' for each in group)};"
        for base, group in groupby(names, key=lambda each: each.base)
    ]


#: How a row of elements comes by the base of a place.
_OF_ROW = {
    Base.AT: Declared("char", "*const *const arrays", "values->tensor->at"),
    Base.STEP: Declared("const double", "*const step_values", "values->step"),
    Base.GROUP: Declared("const double", "*const group_values", "values->group"),
    Base.TENSOR: Declared("const double", "*const tensor_values", "values->tensor->space->cells"),
    Base.MATRIX: Declared("const int64_t", "matrix_i", "values->matrix"),
    Base.ROW: Declared("const int64_t", "row_i", "values->row"),
    Base.COLUMN: Declared("const int64_t", "column_i", "values->column"),
    Base.SHAPE: Declared("const optgen_shape", "of", "optgen_shape_of(values->tensor->layout)"),
}
#: How a small loop does.
_OF_SMALL_LOOP = {
    Base.AT: Declared("char", "*const *const arrays", "tensor->at"),
    Base.STEP: Declared("const double", "*const step_values", "step"),
    Base.GROUP: Declared("const double", "*const group_values", "group"),
    Base.TENSOR: Declared("double", "*const tensor_values", "tensor->space->cells"),
    Base.SHAPE: Declared("const optgen_shape", "of", "optgen_shape_of(tensor->layout)"),
    Base.HEIGHT: Declared("const int64_t", "height", "of.matrices * of.rows"),
    Base.WIDTH: Declared("const int64_t", "width", "of.matrices * of.columns"),
    Base.HIGH: Declared("const int64_t", "panels", "optgen_parts(of.rows, OPTGEN_PANEL)"),
}
#: How its loop, which slabs have too, gets them.
_PARAMETERS = {
    Base.AT: "char *const *arrays",
    Base.STEP: "const double *step_values",
    Base.GROUP: "const double *group_values",
    Base.TENSOR: "const double *tensor_values",
    Base.SHAPE: "optgen_shape of",
    Base.HEIGHT: "int64_t height",
    Base.WIDTH: "int64_t width",
    Base.HIGH: "int64_t panels",
    Base.BLOCKS: "int64_t blocks",
}
#: How many values of a tensor an array of a field has.
_LENGTH = {Kept.MATRIX: "of.matrices", Kept.ROW: "of.matrices * of.rows", Kept.COLUMN: "of.matrices * of.columns"}
#: In a slab each row is one block and each matrix one panel.
_IN_SLAB = {Kept.PARTIAL: "rows", Kept.PANEL: "columns"}


@frozen
class SweepText:
    """One sweep of a kernel, as the template sees it. `slab`: the stage that begins with it, if one does. `fold`: the
    function that folds what it reduces."""

    name: str
    element: Element
    slab: str = ""
    fold: str = ""

    @property
    def initialiser(self) -> list[str]:
        """The fields of its `optgen_work`."""
        fields = [f".row = {self.name}_##ISA"]
        if self.element.folds:
            fields = [f"OPTGEN_REDUCES({self.name}, ISA)", f".fold = {self.fold}_##ISA"]
        return fields + ([f".slab = {self.slab}_##ISA"] if self.slab else [])

    @property
    def scalars_type(self) -> str:
        return f"{self.name}_scalars"

    @property
    def fields(self) -> list[str]:
        """The declaration of the members of the struct of scalars."""
        first, *rest = [scalar.name for scalar in self.element.scalars]
        names = [f"{self.element.ctype.name} {first}", *rest]
        return [f"{name}{',' if i + 1 < len(names) else ';'}" for i, name in enumerate(names)]

    @property
    def by_value(self) -> list[str]:
        """The parameter that all scalars come in."""
        return [f"const {self.scalars_type} s"] if self.element.scalars else []

    @property
    def values(self) -> list[str]:
        return ["s"] if self.element.scalars else []

    def initialisers(self, which: Sequence[ScalarField]) -> list[str]:
        """Of the struct of scalars: each rounded once to the compute type."""
        cast = "" if self.element.ctype is c.DOUBLE else f"({self.element.ctype.name})"
        return [f".{scalar.name} = {cast}{scalar.place.c}," for scalar in which] or ["0"]

    @property
    def reads(self) -> list[str]:
        return [f"OPTGEN_READ({self.element.ctype.name}, {a.name}, {a.number});" for a in self.element.arrays]

    @property
    def writes(self) -> list[str]:
        return [f"OPTGEN_WRITE({a.name}, {a.number});" for a in self.element.arrays if a.written]

    def arrays(self, star: str) -> list[str]:
        """Parameters: a pointer to each array."""
        kind = self.element.ctype.name
        return [f"{'' if a.written else 'const '}{kind} {star}{a.name}" for a in self.element.arrays]

    def small(self, star: str) -> list[str]:
        """Parameters: a pointer to float64 for each column and for each value to be reduced."""
        columns = [f"const double {star}{column.name}" for column in self.element.columns]
        return [*columns, *(f"double {star}{name}" for name in self.element.reduced)]

    @property
    def moving(self) -> list[str]:
        """Arguments: the pointers to element i."""
        names = [column.name for column in self.element.columns] + list(self.element.reduced)
        return [f"{name} + i" for name in (*names, *(a.name for a in self.element.arrays))]

    @property
    def small_names(self) -> list[str]:
        """Arguments: the parameters that `small` declares."""
        return [*(column.name for column in self.element.columns), *self.element.reduced]

    @property
    def slab_function(self) -> str:
        """The head of a call of the loop over a slab."""
        return f"{self.name}_{'spread_' if self.spread else ''}dense("

    @property
    def beside(self) -> list[str]:
        """Arguments: the small pointers to element i, and the addresses of copies of the arrays' elements."""
        names = [column.name for column in self.element.columns] + list(self.element.reduced)
        return [*(f"{name} + i" for name in names), *(f"&{a.name}" for a in self.element.arrays)]

    def dense(self, at: str, behind: str = "") -> list[str]:
        """Arguments: the arrays of a table of pointers."""
        kind = self.element.ctype.name
        return [f"({'' if a.written else 'const '}{kind} *){at}[{a.number}]{behind}" for a in self.element.arrays]

    @property
    def of_row(self) -> list[str]:
        """Arguments: the columns of a row of elements, and where it leaves what is to be reduced."""
        reduced = [f"reduced + {i} * OPTGEN_BLOCK" for i in range(len(self.element.reduced))]
        return [*(f"&{column.place.c}" for column in self.element.columns), *reduced]

    @property
    def of_tile(self) -> list[str]:
        """The same of a tile of a block, which begins with element i."""
        reduced = [f"tile[{i}]" for i in range(len(self.element.reduced))]
        return [*(f"&{column.place.c} + i" for column in self.element.columns), *reduced]

    @property
    def declarations(self) -> list[str]:
        """What the places of a row of elements need; only of its columns, if a function gives the scalars."""
        return self.needed(self.element.columns if self.element.folds else self.element.small)

    @staticmethod
    def needed(small: Sequence[ScalarField]) -> list[str]:
        """What these places of a row of elements need."""
        needs = frozenset[Need]().union(*(each.place.needs for each in small))
        kept = [
            Declared(
                "const double",
                f"*const {array.name}",
                f"(const double *)values->tensor->space->{array.field} + {array.number} * values->{array.field}",
            )
            for array in _arrays(needs)
        ]
        found = [declared for base, declared in _OF_ROW.items() if base in needs]
        indices = [each for each in found if each.base not in ("char", "const double")]
        return declarations([*(each for each in found if each not in indices), *kept, *indices])

    # In a slab, which has many rows and matrices, their values stand beside the elements.

    @property
    def uniform(self) -> list[ScalarField]:
        return [scalar for scalar in self.element.scalars if scalar.place.counted_by is None]

    @property
    def spread(self) -> list[SpreadText]:
        of = [(scalar, scalar.place.counted_by) for scalar in self.element.scalars]
        return [SpreadText(scalar, extent) for scalar, extent in of if extent is not None]

    @property
    def spread_by_pointer(self) -> list[str]:
        return [f"const {self.element.ctype.name} *restrict {each.scalar.name}" for each in self.spread]

    @property
    def spread_arguments(self) -> list[str]:
        spread = [f"each_{each.scalar.name}" for each in self.spread]
        columns = [f"across_{column.name}" for column in self.element.columns]
        reduced = [f"reduced[{i}]" for i in range(len(self.element.reduced))]
        return [*self.values, *spread, *columns, *reduced, *self.dense("arrays")]


@frozen
class FoldText:
    """How a row of elements is folded, as the template sees it: once for all sweeps that reduce alike."""

    name: str
    folds: Sequence[Fold]


@frozen
class SpreadText:
    """A value of rows or of matrices that is to stand beside each of their elements."""

    scalar: ScalarField
    extent: Extent

    @property
    def index(self) -> str:
        return INDEX[self.extent].value

    @property
    def count(self) -> str:
        return "many.rows" if self.extent == Extent.ROW else "many.matrices"

    @property
    def elements(self) -> str:
        """How many elements there are beside each."""
        return "of.columns" if self.extent == Extent.ROW else "of.rows * of.columns"


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
        arrays = _arrays(self.body.needs)
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
        return [*(base for base in _PARAMETERS if base in needs), *_arrays(needs)]

    @property
    def count(self) -> str:
        """How many times the statements run for a tensor."""
        of = {Extent.MATRIX: Kept.MATRIX, Extent.ROW: Kept.ROW, Extent.COLUMN: Kept.COLUMN}
        return _LENGTH[of[self.body.over]]


@frozen
class SlabText:
    """A stage as matrices go through it that are dense behind each other, as the template sees it. `kept`: what it
    leaves in memory, because another stage or the whole tensor needs it. `moved`: what `at` of a tensor becomes."""

    name: str
    local: Sequence[SweepText | SmallLoopText]
    kept: Collection[KeptArray]
    moved: Sequence[str]

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
    def arrays(self) -> int:
        """How many arrays with a number for each element there are on the stack at once, at most."""
        sweeps = [each for each in self.local if isinstance(each, SweepText)]
        beside = [len(each.element.folds) + len(each.element.columns) + 2 * len(each.spread) for each in sweeps]
        return len(self.own) + max(beside, default=0)

    @property
    def own(self) -> list[str]:
        """The arrays that are not kept."""
        return [array.name for array in _arrays(self.needs) if array not in self.kept]

    @property
    def declarations(self) -> list[str]:
        found = {
            Base.STEP: Declared("const double", "*const step_values", "step"),
            Base.GROUP: Declared("const double", "*const group_values", "group"),
            Base.TENSOR: Declared("const double", "*const tensor_values", "tensor->space->cells"),
            Base.BLOCKS: Declared("const int64_t", "blocks", "1"),
            Base.HIGH: Declared("const int64_t", "panels", "1"),
            Base.WIDTH: Declared("const int64_t", "width", "count * of.columns"),
        }
        return declarations(declared for base, declared in found.items() if base in self.needs)

    @property
    def kept_arrays(self) -> list[str]:
        found = []
        for array in _arrays(self.needs):
            if array in self.kept:
                counted = _IN_SLAB.get(array.kept, array.field)
                all_before = f"{array.number} * all.{counted} + " if array.number else ""
                where = f"(double *)tensor->space->{array.field} + {all_before}begin.{counted}"
                found.append(Declared("double", f"*restrict const {array.name}", where))
        return declarations(found)

    @property
    def numbered(self) -> bool:
        """Whether the shape of the whole tensor is needed to find an array."""
        return any(array in self.kept and array.number for array in _arrays(self.needs))


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
    """
    rule = checked[0]
    small_loops: dict[tuple[SmallLoopBody, bool], str] = {}  # by what they do, what they are called
    folds: dict[tuple[Fold, ...], str] = {}
    kernels = [
        _kernel(variant, sweeps_of(low), ctype, small_loops, folds)
        for variant, low in zip(checked, lowered, strict=True)
        for ctype in c.DTYPES
        if dtype in ("", ctype.dtype)
    ]
    definitions = [d for kernel in kernels for each in kernel.sweeps for d in each.element.definitions]
    definitions += [d for body, _ in small_loops for d in body.definitions]
    context = {
        "title": f"{rule.name}: {rule.summary}" if rule.summary else rule.name,
        "version": __version__,
        "file": file or "a spec",
        "reference": rule.reference,
        "formulas": [text.formula(assign) for assign in summary.shown(rule)],
        "definitions": list(dict.fromkeys(definitions)),
        "kernels": kernels,
        "small_loops": [SmallLoopText(name, body, tiled) for (body, tiled), name in small_loops.items()],
        "folds": [FoldText(name, each) for each, name in folds.items()],
        "targets": [target for target in TARGETS if isa in ("", target.isa)],
        "reduce": reductions() if small_loops else "",
    }
    opening = headers("kernel.h", reduces=bool(small_loops))
    return environment(compiled).get_template("kernel.c.jinja").render(context | opening)


def _arrays(needs: Collection[Need]) -> list[KeptArray]:
    return sorted((need for need in needs if isinstance(need, KeptArray)), key=lambda a: (a.field, a.number))


def _kernel(
    rule: Rule,
    plan: Sweeps,
    ctype: c.CType,
    small_loops: dict[tuple[SmallLoopBody, bool], str],
    folds: dict[tuple[Fold, ...], str],
) -> KernelText:
    """The text of one kernel; `small_loops` and `folds` gain those that no kernel before has had."""
    name = "_".join(filter(None, (rule.name.lower(), rule.variant, ctype.short)))
    storage = Storage(plan)
    sweeps: list[SweepText] = []
    slabs: list[SlabText] = []
    work: list[SweepText | SmallLoopText] = []
    all_stages = [stage for stretch in stages(plan) for stage in stretch]
    for stage, crosses in zip(all_stages, crossing(all_stages), strict=True):
        local: list[SweepText | SmallLoopText] = []
        begins = f"{name}_slab{len(slabs) + 1}" if plan.rule.tiled and stage.local else ""
        for each in stage.work:
            slab = "" if local else begins
            if isinstance(each, Sweep):
                number = str(1 + len(sweeps)) if len(plan.sweeps) > 1 else ""
                element = element_of(plan, each, rule, ctype, storage)
                new = f"{rule.name.lower()}_fold_f64_{1 + len(folds)}"
                fold = folds.setdefault(element.folds, new) if element.folds else ""
                sweeps.append(SweepText("_".join(filter(None, (name, number))), element, slab, fold))
                local.append(sweeps[-1])
            else:
                body = small_loop(plan, each, rule, storage)
                key = body, plan.rule.tiled
                called = small_loops.setdefault(key, f"{rule.name.lower()}_small_f64_{1 + len(small_loops)}")
                local.append(SmallLoopText(called, *key, slab))
        work += local
        if begins:
            kept = _shared(crosses, storage) | _left(stage, storage)
            slabs.append(SlabText(begins, local[: len(stage.local)], kept, _moved(plan, ctype)))
    if any(slab.arrays > MOST_IN_SLAB for slab in slabs):
        slabs, work = [], [replace(each, slab="") for each in work]
    return KernelText(
        name=name,
        title=", ".join(filter(None, (rule.name, rule.variant.replace("_", ", "), ctype.dtype))),
        variant=rule.variant,
        ctype=ctype,
        sweeps=sweeps,
        slabs=slabs,
        work=work,
        arrays=len(rule.arrays),
        states=len(storage.states),
        units="0" if plan.rule.tiled else "OPTGEN_BLOCK" if plan.reduces else "1",
        partials=len(storage.along),
        panels=len(storage.down),
        reduced=max(len(each.element.folds) for each in sweeps),
    )


def _shared(names: Collection[str], storage: Storage) -> set[KeptArray]:
    """The arrays of values that a stage has in common with others."""
    slots = (storage.cell(name, extent) for name in names for extent in INDEX if name in storage.small[extent])
    return {slot.array for slot in slots if slot.array}


def _left(stage: Stage, storage: Storage) -> set[KeptArray]:
    """What the sweeps of a stage reduce for whole tensors."""
    reduced = [a for each in stage.local if isinstance(each, Sweep) for a in each.reductions]
    return {storage.reduced(a.target, down=False) for a in reduced if extent_of(a.value) <= Extent.TENSOR}


def _moved(plan: Sweeps, ctype: c.CType) -> list[str]:
    """Where the arrays and states begin for some matrices of a tensor."""
    kept = [state.extent for state in plan.rule.states if Extent.GROUP < state.extent < Extent.ELEMENT]
    counted = {Extent.MATRIX: "matrices", Extent.ROW: "rows", Extent.COLUMN: "columns"}
    moves = [f"elements, {ctype.name}"] * len(plan.rule.arrays)
    moves += [f"{counted[e]}, double" if e in counted else "" for e in kept]
    return [f"OPTGEN_FROM({i}, {move})," if move else f"tensor->at[{i}]," for i, move in enumerate(moves)]
