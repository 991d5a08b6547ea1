"""The Python module of a rule.

In: the checked variants of a rule and the text of its spec. Out: the source of its optimiser class.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.rule import Rule
from .description import describe
from .jinja import environment

__all__ = ["module_source"]


def module_source(checked: Sequence[Rule], spec_text: str, file: str, opened: Sequence[Rule] = ()) -> str:
    """The Python module of one rule: the optimiser class with its signature and docstring. `opened`: the rules as parts
    of chains, from which the docstring of a part is written."""
    template = environment().get_template("module.py.jinja")
    return template.render(rule=describe(checked, opened), file=file, text=spec_text)
