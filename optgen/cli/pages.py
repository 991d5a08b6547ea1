"""Pages about rules for a terminal: the output of `optgen list` and `optgen show`.

In: compilations, and the number of a variant. Out: lines and `Table`s, which `commands` fits to the terminal. The facts
about a rule come from `notation.facts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TypeAlias

from ..compiler.driver import Compilation
from ..frozen import frozen, replace
from ..ir.expr import Count, Expr, Extent, Given, Local, Scalar, extent_of, reduces_elements, replaced, type_of
from ..ir.rule import Assign, Family, Flag, Rule, State, loads
from ..lowering.sweeps import sweeps_of
from ..lowering.work import Group, Sweep
from ..names import greek
from ..notation import facts as summary
from ..notation import latex, text

__all__ = [
    "COLUMNS",
    "FAMILIES",
    "LEGEND",
    "Block",
    "Table",
    "cells",
    "groups",
    "ir",
    "listing",
    "shape_flags",
    "show",
    "source",
    "sweeps",
]

#: What lists call the families of rules, in their order.
FAMILIES = {
    Family.MOMENTUM: "Descent and momentum",
    Family.ADAGRAD: "Averages of squares, without momentum",
    Family.ADAM: "Adam and what is made of it",
    Family.SIGN: "Steps of signs",
    Family.LAYERWISE: "A rate for each layer",
    Family.MEMORY: "Little memory",
    Family.CURVATURE: "Estimates of curvature",
    Family.PARAMETER_FREE: "No learning rate to choose",
    Family.SCHEDULE_FREE: "No schedule to choose",
    Family.MATRIX: "Products of matrices",
    Family.NONE: "Others",
    Family.PARTS: "Parts of chains",
}
COLUMNS = ("rule", "states", "kept", "moved", "sweeps", "summary")
LEGEND = (
    ("states", "in brackets what they have a number for, if it is not every element; group: all parameters together"),
    ("kept", "bytes of state per element, float32/float64; states of fewer numbers than elements count as nothing"),
    ("moved", "bytes that a step reads and writes per element, float32/float64"),
    ("sweeps", "how often a step goes over memory; of rules of matrices, how many products of matrices it has"),
    ("rule", "with flags, as it is by default and for matrices; a part of chains as if it were alone"),
)


@frozen
class Table:
    """Rows of cells, optionally under headers, indented by `indent` blanks."""

    rows: Sequence[Sequence[str]]
    headers: Sequence[str] = ()
    indent: int = 2


Block: TypeAlias = str | Table


# ---- optgen list ----


def groups(compilations: Iterable[Compilation]) -> dict[Family, list[Compilation]]:
    """Group rules by their families. Parts of chains come last."""
    found: dict[Family, list[Compilation]] = {family: [] for family in FAMILIES}
    for each in compilations:
        rule = each.rules[0]
        found[Family.PARTS if rule.part else rule.family].append(each)
    return {family: members for family, members in found.items() if members}


def listing(compilations: Iterable[Compilation]) -> Iterator[Block]:
    """A table for each group, and a legend of the columns."""
    for family, members in groups(compilations).items():
        yield f"{FAMILIES[family]} ({family})" if family else FAMILIES[family]
        yield Table([cells(each) for each in members], COLUMNS)
        yield ""
    yield Table(LEGEND)


def cells(compilation: Compilation, variant: int = 0) -> tuple[str, ...]:
    """The row of one variant of a rule."""
    rule, low = compilation.rules[variant], compilation.lowered[variant]
    steps = [compilation.lowered[i] for i in compilation.in_phases(variant)]
    kept = "/".join(str(summary.bytes_kept(low, size)) for size in (4, 8))
    states = ", ".join(map(_state, rule.states)) or "none"
    if any(each.multiplies for each in steps):
        count = sum(map(summary.product_count, steps))
        return rule.name, states, kept, "", f"{count} products", rule.summary
    moved = "/".join(str(sum(summary.bytes_moved(each, size) for each in steps)) for size in (4, 8))
    sweeps = sum(map(summary.sweep_count, steps))
    return rule.name, states, kept, moved, str(sweeps), rule.summary


def _state(state: State) -> str:
    if state.dims is not None and state.extent == Extent.ELEMENT:
        return f"{state.name} ({state.dims.words})"
    return state.name if state.extent == Extent.ELEMENT else f"{state.name} ({_word(state.extent)})"


def _word(extent: Extent) -> str:
    return extent.name.lower()


# ---- optgen show ----


def show(compilation: Compilation, variant: int) -> Iterator[Block]:
    """Everything about one variant of a rule."""
    rule = compilation.rules[variant]
    phases = [(compilation.rules[i], i) for i in compilation.in_phases(variant)]
    bodies = {f"{own.phase} {summary.condition(own)}".rstrip(): _shown(compilation, i) for own, i in phases}
    yield f"{rule.name}: {rule.summary}" if rule.summary else rule.name
    yield ""
    for name, formulas in bodies.items():
        rows = [(text.formula(assign),) for assign in formulas]
        yield Table([(f"{name}:", *row) if i == 0 else ("", *row) for i, row in enumerate(rows)] if name else rows)
    body = [assign for formulas in bodies.values() for assign in formulas]
    if rule.part:
        yield Table([(f"\nA part of chains: {summary.meanings(rule, body)}.",)])
    if rule.hypers:
        yield "\nHyperparameters"
        spelled = any(greek(hyper.name) != hyper.name for hyper in rule.hypers)
        yield Table([
            (greek(hyper.name), *["" if greek(hyper.name) == hyper.name else hyper.name] * spelled,
             ", ".join(map(text.number, hyper.default)), f"in {hyper.range}", hyper.doc)
            for hyper in rule.hypers
        ])  # fmt: skip
    if flags := [*map(_flag, rule.flags), *_shape(compilation, rule)]:
        yield "\nFlags"
        yield Table(flags)
    if rule.inputs:
        yield "\nInputs"
        yield Table([(each.name, summary.given(each), each.doc) for each in rule.inputs])
    yield "\nState"
    small = any(state.extent < Extent.ELEMENT or state.dims is not None for state in rule.states)
    yield Table([
        (state.name, *[summary.kept(state, rule.matrices)] * small,
         f"starts as {text.expression(state.init)}", state.doc)
        for state in rule.states
    ] or [("none",)])  # fmt: skip
    if reports := summary.reports(compilation.rules[compilation.in_phases(variant)[-1]]):
        yield "\nReports"
        yield Table([(each.name, formula, kept, each.doc) for each, kept, formula in reports])
    if rule.evaluation:
        yield "\nEvaluation"
        yield Table([(text.formula(assign),) for assign in rule.evaluation])
    yield "\nCost"
    yield Table([(line,) for line in _costs(compilation, variant)])
    lows = [compilation.lowered[i] for i in compilation.in_phases(variant)]
    sections = {
        "Matrices": summary.matrices(lows),
        "Blocks": summary.blocks(lows),
        "Notes": _line(rule.notes),
        "Origin": rule.origin,
        "Reference": rule.reference,
    }
    for title, words in sections.items():
        if words:
            yield f"\n{title}"
            yield Table([(words,)])


def _shown(compilation: Compilation, variant: int) -> tuple[Assign, ...]:
    return summary.shown(compilation.rules[variant], compilation.open[variant])


def _line(words: str) -> str:
    return " ".join(words.split())


def _flag(flag: Flag) -> tuple[str, ...]:
    """The row of a flag: its value in this variant, what decides it, what it requires."""
    decided = "by default" if flag.value is flag.default else "not the default"
    if flag.when is not None:
        decided = f"on by default if {text.expression(flag.when)}"
    words = [flag.doc, f"requires {flag.requires}" if flag.requires else ""]
    return flag.name, "on" if flag.value else "off", decided, "; ".join(filter(None, words))


def shape_flags(compilation: Compilation) -> list[str]:
    """The given flags that the shape of a parameter decides, of those that the rule has variants for."""
    rules = compilation.rules
    return [n for n in ("matrix", "tall", "wide") if {getattr(rule, n) for rule in rules} >= {True, False}]


def _shape(compilation: Compilation, rule: Rule) -> Iterator[tuple[str, ...]]:
    """The rows of the flags that the shape of a parameter decides."""
    of = f"this is for {summary.shape_words(rule)}"
    for name in shape_flags(compilation):
        yield name, "on" if getattr(rule, name) else "off", "by the parameter", of


def _costs(compilation: Compilation, variant: int) -> Iterator[str]:
    """What a variant keeps; and of each phase, what it moves."""
    yield _kept(compilation.lowered[variant])
    for low in (compilation.lowered[i] for i in compilation.in_phases(variant)):
        yield f"{low.phase}: {_moved(low)}" if low.phase else _moved(low)


def _kept(low: Rule) -> str:
    kept = [summary.bytes_kept(low, size) for size in (4, 8)]
    state = "no state per element"
    if kept[0]:
        state = f"{kept[0]} bytes of state per element in float32, {kept[1]} in float64"
    numbers = Counter(state.extent for state in low.small_states)
    if numbers:
        state += f"; numbers: {', '.join(f'{count} per {_word(extent)}' for extent, count in numbers.items())}"
    return state


def _moved(low: Rule) -> str:
    if low.multiplies:
        return f"{summary.product_count(low)} products and functions of whole matrices"
    moved = [summary.bytes_moved(low, size) for size in (4, 8)]
    return f"{moved[0]} bytes moved per element in float32, {moved[1]} in float64, in {_times(low)}"


def _times(low: Rule) -> str:
    plan = sweeps_of(low)
    most = ", at most" if any(each.course for each in plan.sweeps) else ""
    return f"{plan.count} sweep{'s' if plan.count > 1 else ''} over memory{most}"


def source(compilation: Compilation, variant: int) -> str:
    """One variant in LaTeX, phase by phase."""
    parts = []
    for i in compilation.in_phases(variant):
        rule = compilation.rules[i]
        title = rule.phase.replace("_", r"\_")
        parts.append(f"\\textit{{{title}}}:\n" if title else "")
        parts.append(latex.rule(replace(rule, body=_shown(compilation, i))) + "\n")
    return "".join(parts)


def ir(compilation: Compilation, variant: int) -> Iterator[Block]:
    """The IR of one variant, checked and lowered."""
    for k, i in enumerate(compilation.in_phases(variant)):
        yield from [""] if k else []
        yield from _ir(compilation.rules[i], compilation.lowered[i])


def _called(rule: Rule) -> str:
    return f"{rule.name}, {rule.phase}" if rule.phase else rule.name


def _ir(checked: Rule, low: Rule) -> Iterator[Block]:
    name = _called(checked)
    blocks = (
        (f"{name}, checked: as the interpreter runs it", checked.body),
        (f"\n{name}, lowered: scalars, in float64 on the host, once a step", low.scalars),
        (f"\n{name}, lowered: for every element, in the compute type; all else in float64", low.body),
    )
    for title, block in blocks:
        yield title
        rows = [(_word(extent_of(assign.value)), text.formula(assign)) for assign in block]
        yield Table(rows or [("none",)])
    kept = (*low.matrix_states, *low.small_states)
    names = (*low.arrays, *(state.name for state in kept))
    for verb, arrays in (("loads", loads(low)), ("stores", low.stores)):
        yield f"\n{verb}: {', '.join(name for name in names if name in arrays)}"


# ---- optgen show --as sweeps ----


def sweeps(compilation: Compilation, variant: int) -> Iterator[Block]:
    """The sweeps of a step over memory, and the computations before, between and after them."""
    for k, i in enumerate(compilation.in_phases(variant)):
        yield from [""] if k else []
        yield from _sweeps(compilation.lowered[i])


def _sweeps(low: Rule) -> Iterator[Block]:
    if low.multiplies:
        yield f"{_called(low)}: {_moved(low)}"
        return
    small = {state.name: state.extent for state in low.small_states}
    # Scalars that are just a hyperparameter, t or an input are written in place; computed ones get a line.
    plain: dict[Expr, Expr] = {
        Local(a.target, extent_of(a.value), type_of(a.value)): a.value
        for a in low.scalars
        if isinstance(a.value, Scalar | Count | Given)
    }

    def line(assign: Assign) -> str:
        return text.formula(Assign(assign.target, replaced(assign.value, plain)))

    yield f"{_called(low)}: a {'phase' if low.phase else 'step'} in {_times(low)}"
    if scalars := [(line(a),) for a in low.scalars if a.value not in plain.values()]:
        yield "\nOnce a step, on the host, in float64"
        yield Table(scalars)
    plan = sweeps_of(low)
    numbers = sorted({each.number for each in plan.sweeps})
    number = 0
    for kind, works in groupby(plan.work, type):
        if kind is Sweep:
            for work in works:
                assert isinstance(work, Sweep)
                number = 1 + numbers.index(work.number)
                course = f", where {summary.course_words(work.course, plan)}" if work.course else ""
                yield f"\nSweep {number}, over every element{course}"
                yield _together({
                    "reads": [", ".join(f"{name} (new)" if name in work.new else name for name in work.loads)],
                    "computes": list(map(line, work.body)),
                    "writes": [", ".join(work.stores)] if work.stores else [],
                    "reduces": [
                        line(a) + ", for each tensor" * (extent_of(a.value) == Extent.TENSOR) for a in work.reductions
                    ],
                })  # fmt: skip
            continue
        grouped = kind is Group
        # Reductions belong to the sweep before; here their results are only used.
        code = [
            a
            for work in works
            if not isinstance(work, Sweep)
            for a in work.code
            if grouped == (extent_of(a.value) == Extent.GROUP) and not reduces_elements(a.value)
        ]
        if code:
            yield f"\n{'Then' if number else 'First'}, {'on the host' if grouped else 'by the kernel'}, in float64"
            yield _by_extent([(extent_of(a.value), line(a)) for a in code])
    # A state that takes a scalar does not depend on the sweeps.
    if last := [a for a in low.body if a.target in small and extent_of(a.value) <= Extent.STEP]:
        yield "\nLast, in float64"
        yield _by_extent([(small[a.target], line(a)) for a in last])
    yield "\nAltogether"
    yield Table([(_moved(low),)])


def _for_each(extent: Extent) -> str:
    return "for all tensors together" if extent == Extent.GROUP else f"for each {_word(extent)}"


def _by_extent(lines: Iterable[tuple[Extent, str]]) -> Table:
    """Lines in order. The first line of each extent names it."""
    rows: list[tuple[str, str]] = []
    before = None
    for extent, line in lines:
        rows.append(("" if extent == before else _for_each(extent), line))
        before = extent
    return Table(rows)


def _together(lines: dict[str, list[str]]) -> Table:
    """Lists of lines. The first line of each carries its title."""
    return Table([("" if i else f"{title:8}", line) for title, found in lines.items() for i, line in enumerate(found)])
