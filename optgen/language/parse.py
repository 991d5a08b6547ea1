"""Spec file to `SpecAst`: the form of a spec, with the place of every part.

In: the text of a TOML file. Out: a `SpecAst`, whose `faults` lists all that is wrong with the form. What names mean
is the business of `check`.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import Diagnostic, Span, SpecError
from ..ir.expr import Matrices
from ..ir.rule import Family, Lengths, Part
from ..names import canonical, close_matches
from .document import Document, is_number, real
from .limits import MOST_PHASES
from .loops import write_out
from .positions import DEEPEST, Path, Positions, locate, nested_too_deeply, span_at
from .refusals import kind, malformed_toml
from .syntax import (
    Broken,
    FlagAst,
    FormulaAst,
    HyperAst,
    InputAst,
    LoopAst,
    PhaseAst,
    ReportAst,
    SizeAst,
    SpecAst,
    StateAst,
    Term,
)  # fmt: skip
from .vocabulary import SIDES

__all__ = ["parse"]

LARGEST_SPEC = 64 * 1024
#: What a spec may be: a rule, or one of two kinds of parts.
PARTS = tuple(part.value for part in Part)
#: What rules have in common; none is named by default.
FAMILIES = tuple(family.value for family in Family)
#: How many values a state has, and an input.
EXTENTS = ("element", "block", "index", "row", "column", "matrix", "tensor", "group")
EXTENTS_OF_INPUTS = ("element", "step")
#: The range of a hyperparameter that names none, or one that cannot be read: every number.
EVERY = "(-inf, inf)"
#: That of one that says a length.
LENGTHS = "[1, inf), whole"
#: Which dimensions of a parameter make matrices.
MATRICES = tuple(each.value for each in Matrices if each != Matrices.FEWEST)


def parse(text: str, file: str, lengths: Lengths = ()) -> SpecAst:
    """Read the spec `text` into its parts. `file` is the name used in messages. `lengths`: how many values some
    hyperparameters have, and how many turns others say that loops have, instead of their defaults.

    Raises `SpecError` at once for an empty or too large file and for malformed TOML. Other faults are collected.
    """
    text = text.replace("\r\n", "\n")  # as tomllib reads it
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        fault = Diagnostic(Span(1, 1), "expected a spec in UTF-8, got half a character")
        raise SpecError(file, "", [fault])
    spec = SpecAst(file, text, lengths=dict(lengths))
    if len(text) > LARGEST_SPEC:
        size = f"expected a spec of at most {LARGEST_SPEC // 1024} KiB, got {len(text) / 1024:.0f} KiB"
        raise SpecError(file, text[:200], [Diagnostic(Span(1, 1), size, "a rule is a page of text; split it in two")])
    if not text.strip():
        hint = "see the README for a rule to start from"
        fault = Diagnostic(Span(1, 1), "expected a spec, got an empty file", hint)
        raise SpecError(file, text, [fault])
    if (deep := nested_too_deeply(text)) is not None:
        hint = "a spec has tables of one level, in which each entry is a table in braces"
        message = f"expected TOML nested at most {DEEPEST} deep, got more"
        raise SpecError(file, text, [Diagnostic(span_at(text, deep, deep + 1), message, hint)])
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(file, text, [malformed_toml(text, str(error))]) from None
    except ValueError:  # a whole number with more digits than Python converts
        number = re.search(r"[0-9_]{4000,}", text)
        place = span_at(text, *number.span()) if number else Span(1, 1)
        raise SpecError(file, text, [Diagnostic(place, _TOO_LARGE)]) from None
    _Tables(spec, locate(text)).read(document)
    return spec


class _Tables(Document):
    """Reads the tables of a document into `spec`, with one method `read_*` for each."""

    def __init__(self, spec: SpecAst, places: Mapping[Path, Positions]) -> None:
        super().__init__(spec, places)
        self.statements: list[list[FormulaAst | LoopAst]] = [[]]  # of each phase

    def read(self, document: dict[str, Any]) -> None:
        known = (
            "name", "summary", "reference", "origin", "family", "notes", "part", "hyperparameters", "flags", "sizes",
            "inputs", "state", "update", "report", "evaluation",
        )  # fmt: skip
        self.refuse_unknown((), document, known)
        spec = self.spec
        spec.name = self.text((), document, "name", required=True)
        spec.name_span = self.value_span(("name",))
        spec.summary = self.text((), document, "summary")
        spec.reference = self.text((), document, "reference")
        spec.origin = self.text((), document, "origin")
        spec.family = self.choice((), document, "family", FAMILIES)
        spec.notes = self.text((), document, "notes")
        spec.part = self.choice((), document, "part", PARTS)
        for name, path, table in self.entries(document, "hyperparameters", "eta = { default = 0.1 }"):
            self.read_hyper(name, path, table)
        for name, path, table in self.entries(document, "flags", "nesterov = { default = false }"):
            self.read_flag(name, path, table)
        for name, path, table in self.entries(document, "sizes", 'rank = { default = 8, most = "short" }'):
            self.read_size(name, path, table)
        for name, path, table in self.entries(document, "inputs", 'loss = { extent = "step" }'):
            self.refuse_unknown(path, table, ("extent", "doc"))
            extent = self.choice(path, table, "extent", EXTENTS_OF_INPUTS)
            spec.inputs.append(InputAst(name, self.key_span(path), extent, self.text(path, table, "doc")))
        for name, path, table in self.entries(document, "state", 'm = { init = "0" }'):
            self.read_state(name, path, table)
        self.read_update(document)
        for name, path, table in self.entries(document, "report", 'length = { value = "norm(g)" }'):
            self.read_report(name, path, table)
        write_out(spec, self.statements, self.read_evaluation(document))

    def read_hyper(self, name: str, path: Path, table: dict[str, Any]) -> None:
        self.refuse_unknown(path, table, ("default", "range", "doc"))
        value = table.get("default")
        vector = isinstance(value, list)
        default: tuple[float, ...] | None = None
        if value is None:
            self.fault(self.key_span(path), f"hyperparameter {name!r} has no default", "add: default = ...")
        elif is_number(value):
            default = (real(value),)
        elif isinstance(value, list) and len(value) >= 2 and all(map(is_number, value)):
            default = tuple(map(real, value))
        else:
            message = f"expected a number as the default, or a list of two or more; got {kind(value)}"
            hint = f"a choice is a flag: [flags] {name} = {{ default = {str(value).lower()} }}"
            self.fault(self.value_span((*path, "default")), message, hint if isinstance(value, bool) else None)
        span = self.key_span(path)
        default_span = self.value_span((*path, "default")) if "default" in table else span
        if default and any(map(math.isnan, default)):
            self.fault(default_span, "expected a number as the default, got NaN or one too large for float64")
            default = None
        ranges = self.ranges(path, table)
        if vector and default and (length := self.spec.lengths.get(name)):
            default = (*default, *default[-1:] * length)[:length]
        doc = self.text(path, table, "doc")
        self.spec.hypers.append(HyperAst(name, span, default, default_span, vector, ranges, doc))

    def ranges(self, path: Path, table: dict[str, Any]) -> tuple[tuple[str, Span], ...]:
        """The range of all values, or one for each, with their places; all numbers if there is none."""
        given = table.get("range")
        span = self.value_span((*path, "range"))
        if not isinstance(given, list):
            text = self.text(path, table, "range")
            if text:
                return ((text, span),)
            if isinstance(given, str):
                self.fault(span, "expected a range, got nothing", 'for example: "[0, inf)"; or leave it out')
        elif len(given) >= 2 and all(isinstance(each, str) for each in given):
            return tuple((each, self.value_span((*path, "range", i))) for i, each in enumerate(given))
        else:
            hint = 'for example: ["[0, 1)", "(1, inf)"]'
            self.fault(span, "expected a range in text, or a list of two or more of them", hint)
        return ((EVERY, span),)

    def read_flag(self, name: str, path: Path, table: dict[str, Any]) -> None:
        self.refuse_unknown(path, table, ("default", "requires", "doc"))
        default = table.get("default", False)
        if isinstance(default, str):
            default = self.expression((*path, "default"), table) or Broken(self.key_span(path))
        elif not isinstance(default, bool):
            message = f"expected true or false as the default of a flag, got {kind(default)}"
            self.fault(self.value_span((*path, "default")), message, 'or a condition in quotes: "momentum != 0"')
            default = False
        requires = None
        if "requires" in table:
            requires = self.expression((*path, "requires"), table) or Broken(self.key_span(path))
        text = table["requires"].strip() if isinstance(table.get("requires"), str) else ""
        doc = self.text(path, table, "doc")
        self.spec.flags.append(FlagAst(name, self.key_span(path), default, requires, text, doc))

    def read_size(self, name: str, path: Path, table: dict[str, Any]) -> None:
        """A length: a hyperparameter that says it, and what it may not exceed."""
        self.refuse_unknown(path, table, ("default", "most", "doc"))
        if isinstance(table.get("default"), list):
            message = "expected one whole number as the default of a size, got a list"
            self.fault(self.value_span((*path, "default")), message, f"for example: {name} = {{ default = 8 }}")
            table = {**table, "default": 1}
        self.read_hyper(name, path, {**{key: own for key, own in table.items() if key != "most"}, "range": LENGTHS})
        most = self.choice(path, table, "most", ("", *SIDES))
        self.spec.sizes.append(SizeAst(name, self.key_span(path), most, self.value_span((*path, "most"))))

    def read_extent(self, path: Path, table: dict[str, Any]) -> tuple[str, tuple[str, str] | None]:
        """The extent of a state; of a matrix that is not like the parameter, its dimensions too: `row, row`."""
        given = table.get("extent")
        sides = [each.strip() for each in given.split(",")] if isinstance(given, str) else []
        if len(sides) != 2:
            return self.choice(path, table, "extent", EXTENTS), None
        sizes = [size.name for size in self.spec.sizes]
        for side in sides:
            if side not in (*SIDES, *sizes):
                close = close_matches(side, [*SIDES, *sizes])
                named = f"a length of its own is named in [sizes]: {side} = ..."
                hint = f"did you mean {close[0]!r}?" if close else named
                message = f"expected two of {', '.join((*SIDES, *sizes))}; got {side!r}"
                self.fault(self.value_span((*path, "extent")), message, hint)
                return EXTENTS[0], None
        return EXTENTS[0], (sides[0], sides[1])

    def read_state(self, name: str, path: Path, table: dict[str, Any]) -> None:
        self.refuse_unknown(path, table, ("init", "extent", "when", "each", "always", "doc"))
        span = self.key_span(path)
        init: Term = Broken(span)
        if "init" not in table:
            self.fault(span, f"state {name!r} has no initial value", 'add: init = "0"')
        else:
            init = self.value((*path, "init"), table, "initial value")
        when = self.when(path, table)
        extent, dims = self.read_extent(path, table)
        extent_span = self.value_span((*path, "extent")) if "extent" in table else span
        doc, each, each_span = self.text(path, table, "doc"), table.get("each", 0), self.value_span((*path, "each"))
        if ("each" in table and not (isinstance(each, str) or (isinstance(each, int) and each > 0))) or each is True:
            got = "none" if each == 0 else kind(each)
            message = f"expected how many there are, as a whole number or the name of a hyperparameter; got {got}"
            self.fault(each_span, message, 'for example: each = "beta"')
            each = 0
        each = canonical(each) if isinstance(each, str) else each
        always = table.get("always", False)
        if not isinstance(always, bool):
            place, got = self.value_span((*path, "always")), kind(always)
            self.fault(place, f"'always': expected true or false, got {got}", "true: it changes in every step")
        self.spec.states.append(
            StateAst(name, span, init, when, extent, extent_span, doc, each, each_span, always is True, dims)
        )

    def read_report(self, name: str, path: Path, table: dict[str, Any]) -> None:
        self.refuse_unknown(path, table, ("value", "when", "doc"))
        span = self.key_span(path)
        value: Term = Broken(span)
        if "value" not in table:
            self.fault(span, f"report {name!r} has no value", 'add: value = "norm(g)"')
        else:
            value = self.expression((*path, "value"), table) or value
        self.spec.reports.append(ReportAst(name, span, value, self.when(path, table), self.text(path, table, "doc")))

    def read_update(self, document: dict[str, Any]) -> None:
        table = document.get("update")
        example = "write:\n        [update]\n        formulas = '''\n        delta = eta*g\n        '''"
        if table is None:
            self.fault(Span(1, 1), "the table [update] is missing", example)
            return
        if not isinstance(table, dict):
            self.fault(self.value_span(("update",)), f"'update': expected a table, got {kind(table)}", example)
            return
        phases = {key: own for key, own in table.items() if isinstance(own, dict)}
        known = ("matrices", "block") if phases and "formulas" not in table else ("formulas", "matrices", "block")
        self.refuse_unknown(("update",), {key: own for key, own in table.items() if key not in phases}, known)
        self.spec.matrices = self.choice(("update",), table, "matrices", MATRICES)
        self.spec.matrices_span = self.value_span(("update", "matrices"))
        if "block" in table:
            self.spec.block = self.value(("update", "block"), table, "number of elements")
        if phases:
            self.read_phases(table, phases)
        else:
            span, statements = self.formulas(("update",), table)
            self.spec.phases, self.statements = [PhaseAst("", span, span)], [statements]

    def read_phases(self, table: dict[str, Any], phases: Mapping[str, dict[str, Any]]) -> None:
        """The phases of a step, each with formulas of its own."""
        if "formulas" in table:
            message = "expected formulas of one step, or of its phases, got both"
            self.fault(self.key_span(("update", "formulas")), message, "move them into the phases that they belong to")
        if not 2 <= len(phases) <= MOST_PHASES:
            message = f"expected 2 to {MOST_PHASES} phases, got {len(phases)}"
            hint = "a step with one gradient has its formulas in [update]" if len(phases) == 1 else None
            self.fault(self.key_span(("update", list(phases)[-1])), message, hint)
        found, self.statements = [], []
        for spelled, own in phases.items():
            path: Path = ("update", spelled)
            self.refuse_unknown(path, own, ("when", "formulas"))
            span, statements = self.formulas(path, own)
            found.append(PhaseAst(canonical(spelled), self.key_span(path), span, when=self.when(path, own)))
            self.statements.append(statements)
        self.spec.phases = found

    def read_evaluation(self, document: dict[str, Any]) -> Sequence[FormulaAst | LoopAst]:
        table = document.get("evaluation")
        if table is None:
            return ()
        if not isinstance(table, dict):
            example = "write:\n        [evaluation]\n        formulas = 'p = avg'"
            self.fault(self.value_span(("evaluation",)), f"'evaluation': expected a table, got {kind(table)}", example)
            return ()
        self.refuse_unknown(("evaluation",), table, ("formulas",))
        self.spec.evaluation_span, found = self.formulas(("evaluation",), table)
        return found


_TOO_LARGE = "a number too large for float64"
