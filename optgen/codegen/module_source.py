"""The Python module of a rule.

In: the checked variants of a rule and the text of its spec. Out: the source of its optimiser class.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..frozen import frozen
from ..ir.rule import Flag, Hyper, Rule, State
from ..notation import facts as summary
from ..notation import text
from .jinja import environment

__all__ = ["Argument", "module_source"]


@frozen
class Argument:
    """A hyperparameter, flag or state as a signature and a docstring show it; `range`: of a flag, its default in
    words; of a state, how many values it has."""

    name: str
    doc: str
    default: str = ""
    annotation: str = ""
    range: str = ""
    vector: bool = False
    init: str = ""
    when: str = ""


def module_source(checked: Sequence[Rule], spec_text: str, file: str, opened: Sequence[Rule] = ()) -> str:
    """The Python module of one rule: the optimiser class with its signature and docstring. `opened`: the rules as parts
    of chains, from which the docstring of a part is written."""
    rule = checked[0]
    lines = summary.formulas(checked, opened)
    states = {state.name: state for variant in checked for state in variant.states}
    context = {
        "name": rule.name,
        "summary": rule.summary or "an update rule.",
        "part": rule.part,
        "notes": rule.notes,
        "origin": rule.origin,
        "reference": rule.reference,
        "file": file,
        "text": spec_text,
        "shapes": f", for {summary.MATRICES}" if len({variant.matrix for variant in checked}) == 2 else "",
        "formulas": lines[0],
        "changes": [
            (change.words, [lines[change.variant][i] for i in change.formulas])
            for change in summary.changes(checked, lines)
        ],
        "meanings": summary.meanings(rule, [assign for body in summary.bodies(checked, opened) for assign in body]),
        "hypers": [_hyper(hyper) for hyper in rule.hypers],
        "flags": [_flag(flag) for flag in rule.flags],
        "states": [_state(state, checked) for state in states.values()],
    }
    return environment().get_template("module.py.jinja").render(context)


def _state(state: State, checked: Sequence[Rule]) -> Argument:
    kept = summary.kept(state.extent, checked[0].rows)
    when = summary.only(state.name, checked)
    return Argument(state.name, state.doc or "a state", range=kept, init=text.expression(state.init), when=when)


def _flag(flag: Flag) -> Argument:
    """A flag that hyperparameters decide has no default in the signature."""
    doc = flag.doc or "a flag"
    if flag.requires:
        doc += f"; requires {flag.requires}"
    if flag.when is None:
        return Argument(flag.name, doc, repr(flag.default), "bool", str(flag.default))
    return Argument(flag.name, doc, "None", "bool | None", f"whether {text.expression(flag.when)}")


def _hyper(hyper: Hyper) -> Argument:
    default = f"({', '.join(map(repr, hyper.default))})" if hyper.vector else repr(hyper.default[0])
    annotation = f"tuple[{', '.join(['float'] * len(hyper.default))}]" if hyper.vector else "float"
    each = hyper.vector and len(set(hyper.ranges)) == 1  # else the text names all of them
    return Argument(hyper.name, hyper.doc or "a number", default, annotation, hyper.range, each)
