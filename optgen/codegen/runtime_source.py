"""Rules to source text: the only Jinja environment. In: a rule in all its variants. Out: C, or a Python module.

Templates hold loops and the ABI; what they say of a rule comes to them in the few fields named here.
"""

from __future__ import annotations

from ..paths import TEMPLATES
from .jinja import environment

__all__ = ["runtime_source"]


def headers(library: str) -> dict[str, str]:
    return {name: (TEMPLATES / file).read_text("utf-8") for name, file in (("abi", "abi.h"), ("library", library))}


def runtime_source() -> str:
    """The C of the runtime: threads and chunks, the same for all rules."""
    return environment().get_template("runtime.c.jinja").render(headers("runtime.h"))
