"""The stubs of the package and of its wing for PyTorch, for type checkers and editors.

In: the variants of every shipped rule. Out: the text of two `.pyi` files, with a class for each rule. What is no rule
they import from where it is.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from .. import HOMES
from ..ir.torch_names import ABSENT, PARENTS
from ..paths import PACKAGE
from ..python_syntax import syntax_tree
from .description import Argument, Description
from .jinja import environment

__all__ = ["package_stub", "torch_stub"]


def package_stub(rules: Sequence[Description]) -> str:
    """The stub of `optgen`."""
    return environment().get_template("package.pyi.jinja").render(
        doc=_docstring("__init__.py"),
        homes=HOMES,
        names=[*HOMES, *(rule.name for rule in rules)],
        counts=sorted({hyper.count for rule in rules for hyper in rule.hypers} - {0}),
        rules=rules,
        arguments=_arguments,
    )  # fmt: skip


def torch_stub(rules: Sequence[Description]) -> str:
    """The stub of `optgen.torch`, in which a rule that PyTorch has too takes whatever PyTorch's class does."""
    return environment().get_template("torch.pyi.jinja").render(
        doc=_docstring("torch/__init__.py"),
        classes=[(rule, *_torch_class(rule)) for rule in rules if not rule.part],
    )  # fmt: skip


def _docstring(file: str) -> str:
    return ast.get_docstring(syntax_tree((PACKAGE / file).read_text("utf-8")), clean=False) or ""


_STORAGES = [f"{name}: str | Mapping[str, str] | None = None" for name in ("storage", "rounding")]


def _arguments(rule: Description) -> list[str]:
    """As the constructor says them; then, by name only, the other spellings."""
    hypers = [f"{each.name}: {_value(each.count)} = {each.default}" for each in rule.hypers]
    flags = [f"{each.name}: {each.annotation} = {each.default}" for each in rule.flags]
    how = ['backend: Literal["kernel", "interpreter"] = "kernel"', *_storing(rule)]
    others = [
        f"{name}: {_value(each.count if whole else 0)} = ..." for each in rule.hypers for name, whole in each.spellings
    ]
    return ["self", *hypers, "*", *flags, *how, *others]


def _storing(rule: Description) -> list[str]:
    return [*_STORAGES, *([] if rule.seeded else ["seed: int | None = None"])]


def _value(count: int) -> str:
    return f"_Values{count}" if count else "_Value"


def _torch_class(rule: Description) -> tuple[str, list[str]]:
    """The bases, and the arguments of the constructor."""
    hypers = [f"{each.torch}: {_tensor(each.count)} = {each.default}" for each in rule.hypers]
    if rule.origin == "torch.optim":
        first, *named = [f"{each.torch}: {_tensor(each.count)} = ..." for each in rule.hypers]
        more = ["*positional: Any", *named, *_storing(rule), "**flags: Any"]
        return f"{PARENTS.get(rule.name, 'Adapter')}, _theirs.{rule.name}", ["self", "params: ParamsT", first, *more]
    flags = [f"{each.torch}: {each.annotation} = {each.default}" for each in rule.flags]
    others = {name: each.count if whole else 0 for each in rule.hypers for name, whole in _spellings(each)}
    others |= {flag.name: 0 for flag in rule.flags} | dict.fromkeys(ABSENT, 0)
    for each in (*rule.hypers, *rule.flags):
        others.pop(each.torch, None)
    return "Adapter", [
        "self", "params: ParamsT", *hypers, "*", *flags, *_storing(rule),
        *(f"{name}: {_tensor(n)} = ..." for name, n in others.items()),
    ]  # fmt: skip


def _spellings(hyper: Argument) -> list[tuple[str, bool]]:
    return [(hyper.name, True), *hyper.spellings]


def _tensor(count: int) -> str:
    value = "float | Tensor"
    return f"tuple[{', '.join([value] * count)}] | list[Any]" if count else value
