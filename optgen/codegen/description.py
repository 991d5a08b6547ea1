"""What the signature and the docstring of an optimiser class say.

In: the checked variants of a rule. Out: a `Description`, whose fields are words and source text for templates.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..frozen import frozen
from ..ir.draws import SEED
from ..ir.expr import Extent
from ..ir.rule import Flag, Hyper, Input, Rule, State
from ..ir.torch_names import torch_names
from ..names import greek
from ..notation import facts as summary
from ..notation import text

__all__ = ["Argument", "Description", "describe"]


@frozen
class Argument:
    """A hyperparameter, flag, input or state as a signature and a docstring show it.

    Attributes
    ----------
    range
        Of a hyperparameter, its range; of a flag, its default in words; of an input or a state, how many values it has.
    count
        How many values a hyperparameter has, if it is a tuple of them; otherwise 0.
    each
        Whether the range is that of each value of a tuple.
    symbol
        What a hyperparameter is called in formulas.
    torch
        What it is called in PyTorch.
    spellings
        Other names for a hyperparameter, and the names of its single values: each with whether it is the whole.
    """

    name: str
    doc: str
    default: str = ""
    annotation: str = ""
    range: str = ""
    count: int = 0
    each: bool = False
    symbol: str = ""
    torch: str = ""
    spellings: Sequence[tuple[str, bool]] = ()
    init: str = ""
    when: str = ""


@frozen
class Phase:
    """One phase of a step, which has no name if there is but one.

    Attributes
    ----------
    when
        In which steps it is, in words; empty if all have it.
    formulas
        The lines of the default variant.
    changes
        The lines of other variants that differ, each run behind the words that say when.
    """

    name: str
    when: str
    formulas: Sequence[str]
    changes: Sequence[tuple[str, Sequence[str]]]


@frozen
class Description:
    """One rule in words.

    Attributes
    ----------
    phases
        What a step runs.
    meanings
        What the names in the formulas mean.
    stored
        A state with a value for each element, if there is one.
    seeded
        Whether a hyperparameter is the seed of random numbers.
    """

    name: str
    summary: str
    part: str
    notes: str
    origin: str
    reference: str
    shapes: str
    phases: Sequence[Phase]
    meanings: str
    hypers: Sequence[Argument]
    flags: Sequence[Argument]
    inputs: Sequence[Argument]
    states: Sequence[Argument]
    reports: Sequence[Argument]
    stored: str
    seeded: bool


def describe(checked: Sequence[Rule], opened: Sequence[Rule] = ()) -> Description:
    """The description of a rule. `opened`: its variants as parts of chains, from which that of a part is written."""
    rule = checked[0]
    states = {state.name: state for variant in checked for state in variant.states}
    names = torch_names(rule)
    return Description(
        name=rule.name,
        summary=rule.summary or "an update rule.",
        part=rule.part,
        notes=rule.notes,
        origin=rule.origin,
        reference=rule.reference,
        shapes=f", for {summary.shape_words(rule)}" if len(set(map(summary.shape_words, checked))) > 1 else "",
        phases=[_phase(name, checked[own], opened[own]) for name, own in summary.phases(checked)],
        meanings=summary.meanings(rule, [assign for body in summary.bodies(checked, opened) for assign in body]),
        hypers=[_hyper(hyper, names[hyper.name]) for hyper in rule.hypers],
        flags=[_flag(flag, names[flag.name]) for flag in rule.flags],
        inputs=[_input(each, rule) for each in rule.inputs],
        states=[_state(state, checked) for state in states.values()],
        reports=_reports(checked),
        stored=next((state.name for state in states.values() if state.extent == Extent.ELEMENT), ""),
        seeded=any(hyper.name == SEED.name for hyper in rule.hypers),
    )


def _phase(name: str, checked: Sequence[Rule], opened: Sequence[Rule]) -> Phase:
    lines = summary.formulas(checked, opened)
    changes = [
        (change.words, [lines[change.variant][i] for i in change.formulas])
        for change in summary.changes(checked, lines)
    ]
    return Phase(name, summary.condition(checked[0]), lines[0], changes)


def _state(state: State, checked: Sequence[Rule]) -> Argument:
    kept = summary.kept(state, checked[0].matrices)
    when = summary.only(state.name, [rule.states for rule in checked], checked)
    return Argument(state.name, state.doc or "a state", range=kept, init=text.expression(state.init), when=when)


def _reports(checked: Sequence[Rule]) -> list[Argument]:
    found = {each[0].name: each for variant in checked for each in summary.reports(variant)}
    whose = {name: summary.only(name, [rule.reports for rule in checked], checked) for name in found}
    return [
        Argument(each.name, each.doc or "a report", range=kept, init=formula, when=whose[each.name])
        for each, kept, formula in found.values()
    ]


def _input(each: Input, rule: Rule) -> Argument:
    annotation = "SupportsFloat" if each.name in rule.given_numbers else "Sequence[Any]"
    return Argument(each.name, each.doc or "an input", annotation=annotation, range=summary.given(each))


def _flag(flag: Flag, torch: str) -> Argument:
    """A flag that hyperparameters decide has no default in the signature."""
    doc = flag.doc or "a flag"
    if flag.requires:
        doc += f"; requires {flag.requires}"
    if flag.when is None:
        return Argument(flag.name, doc, repr(flag.default), "bool", str(flag.default), torch=torch)
    return Argument(flag.name, doc, "None", "bool | None", f"whether {text.expression(flag.when)}", torch=torch)


def _hyper(hyper: Hyper, torch: str) -> Argument:
    count = len(hyper.default) if hyper.vector else 0
    stems = (hyper.name, greek(hyper.name))
    wholes = [(stem, True) for stem in stems if stem != hyper.name]
    values = [(f"{stem}{i + 1}", False) for stem in dict.fromkeys(stems) for i in range(count)]
    return Argument(
        hyper.name,
        hyper.doc or "a number",
        default=f"({', '.join(map(repr, hyper.default))})" if hyper.vector else repr(hyper.default[0]),
        annotation=f"tuple[{'float, ...' if hyper.free else ', '.join(['float'] * count)}]" if count else "float",
        range=str(hyper.range),
        count=count,
        each=hyper.vector and len(set(hyper.ranges)) == 1,  # else the text names all of them
        symbol=stems[1],
        torch=torch,
        spellings=[*wholes, *values],
    )
