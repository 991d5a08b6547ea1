"""Rules to source text: the only Jinja environment. In: a rule in all its variants. Out: C, or a Python module.

Templates hold loops and the ABI; what they say of a rule comes to them in the few fields named here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import jinja2

from .emit import c, text
from .ir import Count, Hyper, Rule, walk
from .resources import TEMPLATES

__all__ = ["kernel_source", "module_source", "runtime_source"]

#: The instruction sets that kernels are compiled for: the macro that must be defined, the name, the attribute.
TARGETS = (("", "baseline", ""), ("OPTGEN_V3", "x86_64_v3", "OPTGEN_V3"), ("OPTGEN_V4", "x86_64_v4", "OPTGEN_V4"))


@dataclass(frozen=True)
class Kernel:
    """One variant of a rule in one compute type, as the template sees it."""

    name: str
    title: str
    variant: str
    element: c.Element

    @property
    def by_value(self) -> list[str]:
        return [f"const {self.element.ctype.name} {name}" for name, _ in self.element.scalars]

    def by_pointer(self, star: str) -> list[str]:
        kind = self.element.ctype.name
        return [f"{kind if written else f'const {kind}'} {star}{name}" for name, written in self.element.arrays]

    def pointers(self, before: str, behind: str) -> list[str]:
        return [f"{before}{name}{behind}" for name, _ in self.element.arrays]

    @property
    def dense_arguments(self) -> list[str]:
        kind = self.element.ctype.name
        return [
            f"({kind if written else f'const {kind}'} *)at[{i}]" for i, (_, written) in enumerate(self.element.arrays)
        ]


@dataclass(frozen=True)
class Argument:
    """A hyperparameter, flag or state as a signature and a docstring show it."""

    name: str
    doc: str
    default: str = ""
    annotation: str = ""
    range: str = ""
    vector: bool = False
    init: str = ""
    when: str = ""


@cache
def environment() -> jinja2.Environment:
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    env.filters |= {"comment": c.comment, "docstring": docstring, "fill": fill, "repr": repr}
    return env


def fill(parts: Sequence[str], indent: int = 4) -> str:
    """`parts` with commas between them, on lines that are not too long; none is broken."""
    lines = [""]
    for i, part in enumerate(parts):
        text = part + ("," if i + 1 < len(parts) else "")
        if len(lines[-1]) + len(text) > 96 - indent:
            lines.append("")
        lines[-1] += f" {text}" if lines[-1] else text
    return f"\n{' ' * indent}".join(lines)


def docstring(words: str) -> str:
    """`words` as they may stand inside a docstring: nothing in them ends it or is an escape."""
    return c.comment(words).replace("\\", "\\\\").replace('"""', "'''").removesuffix('"')


def _headers(library: str) -> dict[str, str]:
    return {name: (TEMPLATES / file).read_text("utf-8") for name, file in (("abi", "abi.h"), ("library", library))}


def runtime_source() -> str:
    """The C of the runtime: threads and chunks, the same for all rules."""
    return environment().get_template("runtime.c.jinja").render(_headers("runtime.h"))


def kernel_source(checked: Sequence[Rule], lowered: Sequence[Rule]) -> str:
    """The C of one rule: all variants, all compute types, all instruction sets."""
    kernels = []
    for rule, low in zip(checked, lowered, strict=True):
        for ctype in c.DTYPES:
            name = "_".join(filter(None, (rule.name.lower(), rule.variant, ctype.short)))
            title = ", ".join(filter(None, (rule.name, rule.variant.replace("_", ", "), ctype.dtype)))
            kernels.append(Kernel(name, title, rule.variant, c.element(low, rule, ctype)))
    rule = checked[0]
    about = [rule.reference, "", *map(text.formula, rule.body)]
    context = {
        "title": c.comment(f"{rule.name}: {rule.summary}"),
        "about": [c.comment(line) for line in about],
        "definitions": list(dict.fromkeys(d for kernel in kernels for d in kernel.element.definitions)),
        "kernels": kernels,
        "targets": TARGETS,
    }
    return environment().get_template("kernel.c.jinja").render(context | _headers("kernel.h"))


def module_source(checked: Sequence[Rule], spec_text: str, file: str) -> str:
    """The Python module of one rule: the optimiser class with its signature and docstring."""
    rule = checked[0]
    states = {state.name: state for variant in checked for state in variant.states}
    context = {
        "name": rule.name,
        "summary": rule.summary or "an update rule.",
        "reference": rule.reference,
        "file": file,
        "text": spec_text,
        "formulas": [text.formula(assign) for assign in rule.body],
        "variants": _variants(checked),
        "counts": any(isinstance(e, Count) for variant in checked for a in variant.body for e in walk(a.value)),
        "hypers": [_hyper(hyper) for hyper in rule.hypers],
        "flags": [Argument(flag.name, flag.doc or "a flag", repr(flag.default)) for flag in rule.flags],
        "states": [
            Argument(state.name, state.doc or "a state", init=text.expression(state.init), when=_when(name, checked))
            for name, state in states.items()
        ],
    }
    return environment().get_template("module.py.jinja").render(context)


def _hyper(hyper: Hyper) -> Argument:
    default = f"({', '.join(map(repr, hyper.default))})" if hyper.vector else repr(hyper.default[0])
    annotation = f"tuple[{', '.join(['float'] * len(hyper.default))}]" if hyper.vector else "float"
    return Argument(hyper.name, hyper.doc or "a number", default, annotation, str(hyper.range), hyper.vector)


def _variants(checked: Sequence[Rule]) -> list[tuple[str, list[str]]]:
    """For each flag, what turning it round changes in the formulas of the default variant."""
    default = checked[0]
    usual = [text.formula(assign) for assign in default.body]
    variants = []
    for rule in checked:
        changed = [flag for flag, before in zip(rule.flags, default.flags, strict=True) if flag.value != before.value]
        if len(changed) == 1:
            lines = [line for assign in rule.body if (line := text.formula(assign)) not in usual]
            variants.append((f"{changed[0].name}={changed[0].value}", lines))
    return variants


def _when(name: str, checked: Sequence[Rule]) -> str:
    having = [rule for rule in checked if any(state.name == name for state in rule.states)]
    return "" if len(having) == len(checked) else "; not in every variant"
