"""Rules as pages of documentation, in the Markdown of GitHub and GitLab.

In: compilations, and the number of a variant. Out: Markdown, in which all text of a spec is escaped.

Formulas stand in a fenced block: between dollar signs, Markdown would drop backslashes before punctuation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ..compiler.driver import Compilation
from ..frozen import replace
from ..ir.rule import Assign, Family, Flag, Input, Rule
from ..notation import facts as summary
from ..notation import latex, text
from . import pages

__all__ = ["family_page", "page", "rules_page"]

#: Characters with a meaning in Markdown or HTML, anywhere or at the start of a line.
_SPECIAL = re.compile(r"[\\*_\[\]<>#~$&]|^[-+=]|(?<=^\d)[.)]|(?<=^\d\d)[.)]")
_LINKS = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
_LINKED = re.compile(r"(arXiv|doi):([\w./-]*\w)")
INTRODUCTION = """\
# The rules

<!-- Made by `optgen list --as markdown > docs/rules.md`; a change belongs into the specs. -->

The rules that come with optgen, by family. The page of a family says of each what a step computes, in this order, with
which hyperparameters, flags and states, and what it costs. A rule is as its community has it, so some names there are
twice, up to capitals: their notes say how the rules differ. `optgen show NAME` shows a rule at a terminal, and with
`--flag` each of its variants."""


def rules_page(compilations: Iterable[Compilation]) -> str:
    """The table of contents of the pages of families."""
    legend = "\n".join(f"- {column}: {_plain(words)}" for column, words in pages.LEGEND)
    parts = [INTRODUCTION, legend]
    for family, members in pages.groups(compilations).items():
        title = f"[{_plain(pages.FAMILIES[family])}](rules/{family}.md)"
        parts += [f"## {title}", _table(pages.COLUMNS, [_row(each, family) for each in members])]
    return "\n\n".join(parts) + "\n"


def family_page(family: Family, members: Iterable[Compilation]) -> str:
    """A page with all rules of a family."""
    made = f"<!-- Made by `optgen list --as markdown --family {family} > docs/rules/{family}.md`. -->"
    parts = [f"# {_plain(pages.FAMILIES[family])}", made, "[All families](../rules.md)"]
    for each in members:
        parts += [_anchor(f"rule-{each.stem}"), page(each, 0, 2).rstrip()]
    return "\n\n".join(parts) + "\n"


def _row(compilation: Compilation, family: Family) -> tuple[str, ...]:
    name, states, *others = pages.cells(compilation)
    return f"[{_plain(name)}](rules/{family}.md#rule-{compilation.stem})", _plain(states), *map(_plain, others)


def page(compilation: Compilation, variant: int, level: int = 1) -> str:
    """The page of one variant. The page of the default variant also says what the flags change."""
    rule = compilation.rules[variant]
    bodies = summary.bodies(compilation.rules, compilation.open)
    phases = summary.phases(compilation.rules)
    changes = _changes(compilation) if variant == 0 else [[] for _ in phases]
    own = compilation.in_phases(variant)
    every = [assign for i in (range(len(bodies)) if any(changes) else own) for assign in bodies[i]]
    all_changes = {each.variant: each for found in changes for each in found}.values()
    shapes = len({summary.shape_words(each) for each in compilation.rules})
    head = "#" * level
    parts = [f"{head} {_plain(rule.name)}", _plain(rule.summary)]
    if shapes > 1:
        parts.append(f"For {summary.shape_words(rule)}:")
    for (name, of_phase), i, found in zip(phases, own, changes, strict=True):
        when = f" `{summary.condition(compilation.rules[i])}`" if compilation.rules[i].when is not None else ""
        parts += [f"The phase `{name}`{when}:"] if name else []
        parts.append(_math(rule, bodies[i]))
        for each in found:
            new = [bodies[of_phase][each.variant][i] for i in each.formulas]
            parts += [f"{each.words[0].upper()}{each.words[1:]}:", _math(rule, new)]
    meanings = _plain(summary.meanings(rule, every))
    parts.append(f"A part of chains: {meanings}." if rule.part else f"Here {meanings}.")
    sections = {
        "Hyperparameters": _hyperparameters(rule),
        "Flags": _table(("", "default", "requires", "meaning"), map(_flag, rule.flags)),
        "Inputs": _table(("", "given", "meaning"), map(_input, rule.inputs)),
        "State": _table(("", "kept", "starts as", "meaning", ""), _states(compilation, variant)),
        "Reports": _table(("", "formula", "given", "meaning", ""), _reports(compilation, variant)),
        "Evaluation": _math(rule, rule.evaluation) if rule.evaluation else "",
        "Matrices": _plain(summary.matrices(compilation.rules)),
        "Blocks": _plain(summary.blocks(compilation.rules)),
        "Cost": "\n\n".join(_costs(compilation, variant, all_changes)),
        "Notes": _plain(rule.notes),
        "Reference": _LINKED.sub(_linked, _plain(rule.reference)),
    }
    for title, content in sections.items():
        parts += [f"{head}# {title}", content] if content else []
    return "\n\n".join(filter(None, parts)) + "\n"


def _changes(compilation: Compilation) -> list[list[summary.Change]]:
    """What shapes and flags change in each phase."""
    found = []
    for _, own in summary.phases(compilation.rules):
        rules = compilation.rules[own]
        found.append(list(summary.changes(rules, summary.formulas(rules, compilation.open[own]))))
    return found


def _math(rule: Rule, body: Sequence[Assign]) -> str:
    r"""Formulas as displayed mathematics, without `\operatorname`, which GitHub does not allow."""
    display = latex.rule(replace(rule, body=tuple(body))).removeprefix("\\[\n").removesuffix("\n\\]")
    return f"```math\n{display}\n```".replace(r"\operatorname", r"\mathrm")


def _hyperparameters(rule: Rule) -> str:
    rows = [
        (_code(hyper.name), ", ".join(map(text.number, hyper.default)), hyper.range, _plain(hyper.doc))
        for hyper in rule.hypers
    ]
    return _table(("", "default", "range", "meaning"), rows)


def _flag(flag: Flag) -> tuple[str, ...]:
    default = "on" if flag.default else "off"
    if flag.when is not None:
        default = f"on if {text.expression(flag.when)}"
    return _code(flag.name), _plain(default), _code(flag.requires), _plain(flag.doc)


def _input(each: Input) -> tuple[str, ...]:
    return _code(each.name), summary.given(each), _plain(each.doc)


def _states(compilation: Compilation, variant: int) -> Iterator[tuple[str, ...]]:
    """Rows for the states of a variant. The default one also lists those of the others, and whose they are."""
    rules = compilation.rules if variant == 0 else compilation.rules[variant : variant + 1]
    for state in {state.name: state for rule in rules for state in rule.states}.values():
        kept = summary.kept(state, rules[0].matrices)
        starts = _plain(text.expression(state.init))
        only = summary.only(state.name, [rule.states for rule in rules], rules)
        yield (
            _code(state.name),
            kept,
            starts,
            _plain(state.doc),
            _plain(only),
        )


def _reports(compilation: Compilation, variant: int) -> Iterator[tuple[str, ...]]:
    """Rows for the reports of a variant. The default one also lists those of the others, and whose they are."""
    own = range(len(compilation.rules)) if variant == 0 else compilation.in_phases(variant)
    rules = [compilation.rules[i] for i in own]
    for each, kept, formula in {each[0].name: each for rule in rules for each in summary.reports(rule)}.values():
        only = summary.only(each.name, [rule.reports for rule in rules], rules)
        yield (
            _code(each.name),
            _code(formula),
            kept,
            _plain(each.doc),
            _plain(only),
        )


def _costs(compilation: Compilation, variant: int, changes: Iterable[summary.Change]) -> Iterator[str]:
    """The cost of a step, and the choices of flags that change it."""
    usual = pages.cells(compilation, variant)[2:5]
    words = {summary.shape_words(rule): None for rule in compilation.rules}
    shape = f", for {next(iter(words))}" if len(words) > 1 else ""
    rows = [(f"by default{shape}", *usual)]
    for each in changes:
        cost = pages.cells(compilation, each.variant)[2:5]
        rows += [(each.words, *cost)] if cost != usual else []
    if len(rows) == 1:
        rows = [usual]
    headers = ("bytes of state per element", "bytes moved per element", "sweeps over memory")
    yield _table(("", *headers) if len(rows[0]) == 4 else headers, [tuple(map(_plain, row)) for row in rows])


# ---- Markdown ----


def _plain(words: str) -> str:
    """Escape text, except for code between backticks, and drop invisible characters."""
    seen = "".join(c if c.isprintable() else " " for c in words)
    pieces = re.split(r"(`[^`]+`)", " ".join(seen.split()))
    return "".join(p if p[:1] == "`" and p[-1:] == "`" else _SPECIAL.sub(r"\\\g<0>", p) for p in pieces)


def _code(words: str) -> str:
    return f"`{words}`" if words and words.isprintable() and "`" not in words else _plain(words)


def _anchor(name: str) -> str:
    return f'<a id="{name}"></a>'


def _linked(match: re.Match[str]) -> str:
    return f"[{match[0]}](<{_LINKS[match[1]]}{match[2]}>)"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table without its empty columns; an empty text if there are no rows."""
    found = [headers, *rows]
    columns = [i for i in range(len(headers)) if any(row[i] for row in found[1:])]
    lines = ["".join(f"| {row[i].replace('|', chr(92) + '|')} " for i in columns) + "|" for row in found]
    return "\n".join([lines[0], "| --- " * len(columns) + "|", *lines[1:]]) if columns else ""
