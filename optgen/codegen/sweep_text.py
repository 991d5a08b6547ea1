"""Sweeps as the template sees them.

In: the C of one sweep. Out: the pieces of its functions: parameters, arguments, declarations.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..frozen import frozen
from ..ir.expr import Extent
from . import c_language as c
from .declarations import Declared, arrays_of, declarations
from .element import DrawField, Element, Fold, RoundingKey, ScalarField
from .jinja import call
from .places import INDEX, Base, Need
from .staging import StagedArray

__all__ = ["FoldText", "SpreadText", "SweepText"]

#: How a row of elements comes by the base of a place.
_OF_ROW = {
    Base.AT: Declared("char", "*const *const arrays", "values->tensor->at"),
    Base.STEP: Declared("const double", "*const in_step", "values->step"),
    Base.GROUP: Declared("const double", "*const in_group", "values->group"),
    Base.TENSOR: Declared("const double", "*const in_tensor", "values->tensor->space->cells"),
    Base.MATRIX: Declared("const int64_t", "matrix_i", "values->matrix"),
    Base.ROW: Declared("const int64_t", "row_i", "values->row"),
    Base.COLUMN: Declared("const int64_t", "column_i", "values->column"),
    Base.SHAPE: Declared("const optgen_shape", "of", "optgen_shape_of(values->tensor->layout)"),
}


@frozen
class SweepText:
    """One sweep of a kernel, as the template sees it. `slab`: the stage that begins with it, if one does. `fold`: the
    function that folds what it reduces. `course`: the function that tells whether a tensor takes it, if not all do.
    `staged`: the arrays that it has as numbers of its own."""

    name: str
    title: str
    element: Element
    slab: str = ""
    fold: str = ""
    course: str = ""
    staged: Sequence[StagedArray] = ()

    @property
    def initialiser(self) -> list[str]:
        """The fields of its `optgen_work`."""
        fields = [f".row = {self.name}_##ISA"]
        if self.element.folds:
            fields = [f"OPTGEN_REDUCES({self.name}, ISA)", f".fold = {self.fold}_##ISA"]
        elif self.staged:
            fields.append(f".block = {self.name}_block_##ISA")
        fields += [f".slab = {self.slab}_##ISA"] if self.slab else []
        return fields + ([f".course = {self.course}"] if self.course else [])

    @property
    def staging(self) -> list[str]:
        """The declarations of what is staged, and of what its random bits are made of."""
        keys = [each for each in self.element.rounding if each.name in {x.rounded[0] for x in self.staged if x.rounded}]
        made = [f"const optgen_rounding_key {each.name} = {each.key};" for each in keys]
        return [*self.needed(keys), *made, *(f"float {each.name}[OPTGEN_BLOCK];" for each in self.staged)]

    @property
    def macro(self) -> str:
        """What makes its functions for an instruction set."""
        return f"OPTGEN_{'STAGED_' if self.staged else ''}{'REDUCING_' if self.element.folds else ''}SWEEP"

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
        """Parameters: all scalars in one, and what random bits are made of."""
        return [*([f"const {self.scalars_type} s"] if self.element.scalars else []), *self._key_parameters]

    @property
    def _key_parameters(self) -> list[str]:
        keys = [f"const optgen_rounding_key {each.name}" for each in self.element.rounding]
        return [*keys, "const uint32_t optgen_element"] if keys else []

    @property
    def values(self) -> list[str]:
        """Arguments: these, of the first element."""
        return [*(["s"] if self.element.scalars else []), *self._keys("optgen_element")]

    @property
    def values_of(self) -> list[str]:
        """Arguments: these, of element i."""
        return [*(["s"] if self.element.scalars else []), *self.keys_of]

    @property
    def keys_of(self) -> list[str]:
        """Arguments: what the random bits of element i are made of."""
        return self._keys("optgen_element + (uint32_t)i")

    def _keys(self, element: str) -> list[str]:
        keys = [each.name for each in self.element.rounding]
        return [*keys, element] if keys else []

    def initialisers(self, which: Sequence[ScalarField]) -> list[str]:
        """Of the struct of scalars: each rounded once to the compute type."""
        cast = "" if self.element.ctype is c.DOUBLE else f"({self.element.ctype.name})"
        return [f".{scalar.name} = {cast}{scalar.place.c}," for scalar in which] or ["0"]

    @property
    def reads(self) -> list[str]:
        return [f"OPTGEN_READ({a.type}, {a.name}, {a.number});" for a in self.element.arrays]

    @property
    def writes(self) -> list[str]:
        return [f"OPTGEN_WRITE({a.name}, {a.number});" for a in self.element.arrays if a.written]

    def arrays(self, star: str) -> list[str]:
        """Parameters: a pointer to each array."""
        return [f"{'' if a.written else 'const '}{a.type} {star}{a.name}" for a in self.element.arrays]

    def small(self, star: str) -> list[str]:
        """Parameters: a pointer to float64 for each column, each draw and each value to be reduced."""
        columns = [f"const double {star}{name}" for name in self._beside_elements]
        return [*columns, *(f"double {star}{name}" for name in self.element.reduced)]

    @property
    def moving(self) -> list[str]:
        """Arguments: the pointers to element i."""
        return [f"{name} + i" for name in (*self.small_names, *(a.name for a in self.element.arrays))]

    @property
    def small_names(self) -> list[str]:
        """Arguments: the parameters that `small` declares."""
        return [*self._beside_elements, *self.element.reduced]

    @property
    def _beside_elements(self) -> list[str]:
        """The names of what has one float64 for each element."""
        columns, draws = self.element.columns, self.element.draws
        return [*(column.name for column in columns), *(draw.name for draw in draws)]

    @property
    def slab_function(self) -> str:
        """The head of a call of the loop over a slab."""
        return f"{self.name}_{'spread_' if self.spread else ''}dense("

    @property
    def beside(self) -> list[str]:
        """Arguments: the small pointers to element i, and the addresses of copies of the arrays' elements."""
        return [*(f"{name} + i" for name in self.small_names), *(f"&{a.name}" for a in self.element.arrays)]

    def dense(self, at: str, behind: str = "") -> list[str]:
        """Arguments: the arrays of a table of pointers."""
        return [f"({'' if a.written else 'const '}{a.type} *){at}[{a.number}]{behind}" for a in self.element.arrays]

    @property
    def of_row(self) -> list[str]:
        """Arguments: the columns and draws of a row of elements, and where it leaves what is to be reduced."""
        return [*(f"&{column.place.c}" for column in self.element.columns), *self.drawn, *self.reduced]

    @property
    def reduced(self) -> list[str]:
        """Where a row of elements leaves what is to be reduced."""
        return [f"reduced + {i} * OPTGEN_BLOCK" for i in range(len(self.element.reduced))]

    @property
    def drawn(self) -> list[str]:
        """The arrays that random numbers are drawn into."""
        return [f"drawn{i}" for i in range(len(self.element.draws))]

    def draws(self, size: str, n: str, first: str) -> list[str]:
        """Declarations of these arrays, and the draws for `n` elements from `first` on; then what random bits go by."""
        bits = "24" if self.element.ctype is c.SINGLE else "52"
        lines = []
        for array, draw in zip(self.drawn, self.element.draws, strict=True):
            lines.append(f"double {array}[{size}];")
            lines.append(call(f"optgen_draw_{draw.op}(", [array, n, draw.key, first, bits], ");"))
        for each in self.element.rounding:
            lines.append(f"const optgen_rounding_key {each.name} = {each.key};")
        return lines + ([f"const uint32_t optgen_element = (uint32_t)({first});"] if self.element.rounding else [])

    @property
    def of_tile(self) -> list[str]:
        """The same of a tile of a block, which begins with element i."""
        reduced = [f"tile[{i}]" for i in range(len(self.element.reduced))]
        columns = [f"&{column.place.c}" for column in self.element.columns]
        return [*(f"{array} + i" for array in (*columns, *self.drawn)), *reduced]

    @property
    def declarations(self) -> list[str]:
        """What the places of a row of elements need; only of its columns, if a function gives the scalars."""
        small = self.element.columns if self.element.folds else self.element.small
        return self.needed((*small, *self.element.draws, *self.element.rounding))

    @staticmethod
    def needed(small: Sequence[ScalarField | DrawField | RoundingKey]) -> list[str]:
        """What these places of a row of elements need."""
        needs = frozenset[Need]().union(*(each.place.needs for each in small))
        kept = [
            Declared(
                "const double",
                f"*const {array.name}",
                f"(const double *)values->tensor->space->{array.field} + {array.number} * values->{array.field}",
            )
            for array in arrays_of(needs)
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
        return [*self.values, *spread, *columns, *self.drawn, *reduced, *self.dense("arrays")]


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
        return "many.matrices" if self.extent == Extent.MATRIX else "many.rows"

    @property
    def elements(self) -> str:
        """How many elements there are beside each."""
        return "of.rows * of.columns" if self.extent == Extent.MATRIX else "of.columns"
