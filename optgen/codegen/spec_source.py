"""A spec to start from, as `optgen new` writes it.

In: the name and kind of a rule. Out: the text of the spec.
"""

from __future__ import annotations

from .jinja import environment

__all__ = ["spec_source"]


def spec_source(name: str, part: str, file: str, other: str) -> str:
    """A spec to start from, with comments: a rule, or a part of chains of the kind `part`, for example with the rule
    `other`."""
    context = {"name": name, "part": part, "transforms": part == "gradient", "averages": part == "parameter"}
    return environment().get_template("spec.toml.jinja").render(context | {"file": file, "other": other})
