"""Rules to source text: the only Jinja environment. In: a rule in all its variants. Out: C, or a Python module.

Templates hold loops and the ABI; what they say of a rule comes to them in the few fields named here.
"""

from __future__ import annotations

from .jinja import environment

__all__ = ["spec_source"]


def spec_source(name: str, part: str, file: str, other: str) -> str:
    """A spec to start from, with comments: a rule, or a part of chains of the kind `part`, for example with the rule
    `other`."""
    context = {"name": name, "part": part, "transforms": part == "gradient", "averages": part == "parameter"}
    return environment().get_template("spec.toml.jinja").render(context | {"file": file, "other": other})
