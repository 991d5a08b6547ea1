"""What a rule is, costs and means, read off its IR.

In: rules, checked or lowered. Out: formulas to show, the choices that change them, numbers and words, for `optgen
list`, `optgen show`, docstrings and documentation. Their layout is the business of `module_source` and of `cli`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..frozen import frozen, replace
from ..ir.expr import COUNTS, Count, Expr, Extent, Load, Local, Matrices, Product, Reduce, children, rebuilt, walk
from ..ir.primitives import Type
from ..ir.rule import OF_PHASES, Assign, Input, Part, Report, Rule, State, in_phases
from ..lowering import dead_code as dead
from ..lowering.courses import Course
from ..lowering.sweeps import sweeps_of
from ..lowering.work import Sweeps
from . import text
from .turns import put_together

__all__ = [
    "MATRICES",
    "NO_MATRICES",
    "Change",
    "blocks",
    "bodies",
    "bytes_kept",
    "bytes_moved",
    "bytes_moved_by",
    "changes",
    "condition",
    "course_words",
    "formulas",
    "given",
    "kept",
    "matrices",
    "meanings",
    "only",
    "phases",
    "product_count",
    "reports",
    "shape_words",
    "shown",
    "sweep_count",
]  # fmt: skip

MATRICES = "parameters of two or more dimensions"
NO_MATRICES = "parameters of fewer than two dimensions"
TALL, NOT_TALL = "matrices with more rows than columns", "matrices with no more rows than columns"
WIDE, NOT_WIDE = "matrices with more columns than rows", "matrices with no more columns than rows"
SQUARE = "square matrices"
_KEPT = {
    Extent.ELEMENT: "shaped as p",
    Extent.BLOCK: "one for each block",
    Extent.INDEX: "one for each index of each dimension",
    Extent.ROW: "one for each row",
    Extent.COLUMN: "one for each column",
    Extent.MATRIX: "one for each matrix",
    Extent.TENSOR: "one number",
    Extent.GROUP: "one number for all parameters",
    Extent.STEP: "one number",
    Extent.CONSTANT: "one number",
}
#: What a row or column is, where matrices are not those of the last two dimensions.
_SEEN = {
    (Extent.ROW, Matrices.FIRST_BY_REST): " (a slice of the first dimension)",
    (Extent.COLUMN, Matrices.FIRST_BY_REST): " (a place in all slices of the first dimension)",
    (Extent.ROW, Matrices.ALL_BUT_LAST): " (a line along the last dimension)",
    (Extent.COLUMN, Matrices.ALL_BUT_LAST): " (a place in all lines along the last dimension)",
}
_OF_FOUR = {
    Matrices.LAST_TWO: "a·b matrices of c rows and d columns",
    Matrices.FIRST_BY_REST: "one matrix of a rows and b·c·d columns",
    Matrices.ALL_BUT_LAST: "one matrix of a·b·c rows and d columns",
}


# ---- Cost ----


def bytes_moved(lowered: Rule, itemsize: int) -> int:
    """Bytes that a step of the lowered rule reads and writes for each element of `itemsize` bytes, at most.

    On tensors that no cache holds, these are the cost of a step, not the arithmetic.
    """
    return sweeps_of(lowered).traffic * itemsize


def bytes_moved_by(lowered: Rule, sizes: Mapping[str, float]) -> float:
    """The same where arrays differ in the bytes of an element, as `sizes` says of each."""
    return max(
        sum(sizes[x] for sweep in step for x in (*sweep.loads, *sweep.stores)) for step in sweeps_of(lowered).steps
    )


def bytes_kept(rule: Rule, itemsize: int) -> int:
    """Bytes of state for every element. A state of lesser extent, a number for each row or tensor, counts as none."""
    return len(rule.element_states) * itemsize


def product_count(rule: Rule) -> int:
    """The number of products and functions of whole matrices in a step, at most."""
    found = {e for assign in rule.body for e in walk(assign.value) if isinstance(e, Product)}
    return sum(e.op not in ("transpose", "identity") for e in found)


def sweep_count(lowered: Rule) -> int:
    """The number of sweeps over memory in a step of the lowered rule, at most."""
    return sweeps_of(lowered).count


def course_words(course: Course, plan: Sweeps) -> str:
    """The conditions of a course, each as its formula."""
    values = {a.target: text.expression(a.value) for a in (*plan.scalars, *plan.rule.body)}
    words = [values[each.test.name] for each in course]
    many = len(course) > 1
    return " and ".join(
        f"not ({word})" if not each.holds else f"({word})" if many else word
        for each, word in zip(course, words, strict=True)
    )


# ---- Formulas ----


def phases(rules: Sequence[Rule]) -> list[tuple[str, slice]]:
    """The phases of a step: of each its name, and where its variants stand among the rules. The only phase of most
    rules has no name."""
    first = in_phases(rules, 0)
    return [(rules[i].phase, slice(i, i + first.step)) for i in first]


def condition(rule: Rule) -> str:
    """In which steps this phase is, in words; empty if all have it."""
    return "" if rule.when is None else f"if {text.expression(rule.when)}"


def shown(checked: Rule, opened: Rule | None = None) -> tuple[Assign, ...]:
    """The formulas of a variant, without those whose value nothing reads.

    For a part of chains, the formulas of its `opened` rule, which still names the gradient and the parameter of the
    other parts.
    """
    living = dead.run(replace(checked, reports=())).body
    if checked.phases:
        living = tuple(assign for assign in living if assign.target not in OF_PHASES)
    if not checked.part or opened is None:
        return put_together(living) if checked.turns else living
    targets = {assign.target for assign in living} | {"delta", "p", "grad"}
    return tuple(assign for assign in opened.body if assign.target in targets)


def formulas(rules: Sequence[Rule], opened: Sequence[Rule] = ()) -> list[list[str]]:
    """Of each variant, its `shown` formulas as plain text."""
    return [[text.formula(assign) for assign in body] for body in bodies(rules, opened)]


def bodies(rules: Sequence[Rule], opened: Sequence[Rule] = ()) -> list[tuple[Assign, ...]]:
    """Of each variant, the formulas that are `shown`."""
    return [shown(rule, opened[i] if opened else None) for i, rule in enumerate(rules)]


def meanings(rule: Rule, body: Iterable[Assign]) -> str:
    """What the given names in `body` mean, in words."""
    found = {e for assign in body for e in walk(assign.value)}
    words = {
        Part.RULE: ["g is the gradient", "p the parameter"],
        Part.GRADIENT: ["g is what comes in, a gradient or the step of the parts before", "Δ what goes on in its place",
                     "p the parameter"],
        Part.PARAMETER: ["p is the parameter before the step", "new as the parts before leave it"],
    }[rule.part]  # fmt: skip
    others = {
        Load("grad"): "grad the gradient before all parts",
        Count(): "t the count of its updates",
        COUNTS["size"]: "size the number of its elements",
        COUNTS["rows"]: "rows the number of its rows",
        COUNTS["columns"]: "columns that of its columns",
    }
    words += [meaning for name, meaning in others.items() if name in found]
    reduces = any(isinstance(e, Reduce) for e in found)
    return ", ".join(words) + "; reductions go over a whole parameter, unless they name something else" * reduces


# ---- Variants ----


@frozen
class Change:
    """What one choice changes in the formulas of the default variant.

    `flags`: those turned to make the choice. `shape`: for which parameters it is, in words; empty for those of the
    default. `variant`: the position of the variant. `formulas`: those that the default variant has not.
    """

    flags: tuple[tuple[str, bool], ...]
    shape: str
    variant: int
    formulas: tuple[int, ...]

    @property
    def words(self) -> str:
        choice = ", ".join(f"{name}={value}" for name, value in self.flags)
        return ", ".join(filter(None, (f"with {choice}" if choice else "", self.shape and f"for {self.shape}")))


def changes(rules: Sequence[Rule], lines: Sequence[Sequence[str]]) -> Iterator[Change]:
    """What the shape of a parameter and each flag change in one phase. `lines`: the formulas of each variant.

    A flag that others have to allow is turned together with those; its formulas are all that the default has not.
    """
    usual = {shape_words(rule): set(lines[i]) for i, rule in enumerate(rules) if not _turned(rule)}
    own = shape_words(rules[0])
    choices: list[tuple[tuple[str, bool], ...]] = [()]
    for flag in rules[0].flags:
        turning = [choice for choice in map(_turned, rules) if flag.name in dict(choice)]
        choices += [min(turning, key=len)] if turning else []
    for choice in dict.fromkeys(choices):
        seen = set(lines[0])
        for i, rule in enumerate(rules):
            if _turned(rule) == choice:
                shape = shape_words(rule)
                seen |= usual[shape] if choice else set()
                new = tuple(k for k, line in enumerate(lines[i]) if line not in seen)
                seen |= set(lines[i])
                if new:
                    yield Change(choice, shape if shape != own else "", i, new)


def shape_words(rule: Rule) -> str:
    """What parameters a variant is for."""
    if rule.matrix is False:
        return NO_MATRICES
    if rule.tall or rule.wide:
        return TALL if rule.tall else WIDE
    if rule.tall is rule.wide is None:
        return MATRICES
    return SQUARE if rule.tall is rule.wide else NOT_TALL if rule.wide is None else NOT_WIDE


def _turned(rule: Rule) -> tuple[tuple[str, bool], ...]:
    """The flags of a variant that are not as they are by default."""
    return tuple((flag.name, flag.value) for flag in rule.flags if flag.value is not flag.default)


def kept(state: State, matrices: Matrices = Matrices.LAST_TWO) -> str:
    """How many values a state has, and whether it changes in every step, in words."""
    if state.dims is not None and state.extent == Extent.ELEMENT:
        return state.dims.words
    words = _KEPT[state.extent] + _SEEN.get((state.extent, matrices), "")
    return words + ", also changed by steps that do not count" * state.always


def matrices(rules: Iterable[Rule]) -> str:
    """How a parameter of more than two dimensions is seen as matrices, in words; empty if it does not matter."""
    seen = next((rule.matrices for rule in rules if rule.tiled and rule.block is None), None)
    return "" if seen not in _OF_FOUR else f"{seen}: a parameter of shape (a, b, c, d) is {_OF_FOUR[seen]}"


def blocks(rules: Iterable[Rule]) -> str:
    """How many elements a block has, in words; empty if there are no blocks."""
    size = next((rule.block for rule in rules if rule.block is not None), None)
    return "" if size is None else f"{text.expression(size)} neighbouring elements each; the last one may have fewer"


def reports(rule: Rule) -> list[tuple[Report, str, str]]:
    """The reports of a variant; of each how many values it has, and its formula as plain text."""
    values: dict[str, Expr] = {assign.target: assign.value for assign in rule.body}
    named = {assign.target for assign in shown(rule)}

    def written(expr: Expr) -> Expr:
        """An expression without the names of values that are computed for a report alone."""
        if isinstance(expr, Local) and expr.name not in named:
            return written(values[expr.name])
        return rebuilt(expr, tuple(map(written, children(expr))))

    return [
        (each, _KEPT[each.extent], text.expression(written(Local(each.value, each.extent, Type.REAL))))
        for each in rule.reports
    ]


def given(each: Input) -> str:
    """How many values an input has, in words."""
    return _KEPT[each.extent]


def only(name: str, parts: Sequence[Sequence[State | Report]], rules: Sequence[Rule]) -> str:
    """Which variants have a state or report, in words; empty if all have it. `parts`: those of each variant."""
    having = [name in {each.name for each in own} for own in parts]
    last = phases(rules)[-1][1].start
    if last and not any(having[:last]):  # a report
        return ", ".join(filter(None, ["in the last phase", _whose(having[last:], rules[last:])]))
    return _whose(having, rules)


def _whose(having: Sequence[bool], rules: Sequence[Rule]) -> str:
    """What the variants that have something share with no other, in words; empty if all have it."""
    if all(having):
        return ""
    for i, flag in enumerate(rules[0].flags):
        for value in (True, False):
            if having == [rule.flags[i].value is value for rule in rules]:
                return f"only with {flag.name}={value}"
    for words in (MATRICES, NO_MATRICES, TALL, NOT_TALL, WIDE, NOT_WIDE, SQUARE):
        if having == [shape_words(rule) == words for rule in rules]:
            return f"only for {words}"
    for matrix, words in ((True, MATRICES), (False, NO_MATRICES)):
        if having == [rule.matrix is matrix for rule in rules]:
            return f"only for {words}"
    return "not in every variant"
