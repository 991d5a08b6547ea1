"""Optimiser classes: one for each rule, made once.

In: the name of a shipped rule, or a `Compilation`. Out: the class. A rule that `optgen build` has made, from this spec
with this version of optgen, comes from its generated module; any other class is made directly from its compilation.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import new_class
from typing import Any

from ..compiler.catalogue import shipped_names, shipped_spec
from ..compiler.driver import Compilation, compile_file, compile_text
from ..compiler.manifest import built_library, fingerprint
from ..errors import ArgumentError, UnknownRule
from ..ir.draws import SEED
from ..ir.rule import Rule
from ..names import close_matches
from ..once import once
from ..paths import BUILD, module_at
from ..python_syntax import syntax_tree
from .state_storages import Seed, Storage

__all__ = ["load", "module_class", "shipped_class"]


# ---- Optimiser classes ----


def load(path: str | os.PathLike[str]) -> Any:
    """The optimiser class of the spec at `path`. SpecError lists all its faults.

    Its kernel is compiled when it first steps, and kept in the per-user cache. CompilerNotFound if there is no C
    compiler then; with `backend="interpreter"` none is needed.
    """
    if "\n" in str(path):
        raise ArgumentError("load: expected the path of a spec, got its text", hint="write it to a file")
    return module_class(compile_file(Path(path)))


@once
def shipped_class(name: str) -> Any:
    """The optimiser class of a shipped rule. UnknownRule if there is none of that name."""
    spec = shipped_spec(name)
    if spec is None:
        names = shipped_names()
        by_case = [known for known in names if known.lower() == name.lower()]
        close = by_case or close_matches(name, names)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise UnknownRule(f"optgen has no rule {name!r}", hint=f"{hint}`optgen list` shows those it has")
    text = spec.read_text("utf-8")
    built = BUILD / f"{spec.stem}.json"
    if built_library(built, fingerprint(text)):
        cls = getattr(module_at(built.with_suffix(".py"), f"optgen.rules.{spec.stem}", known=True), name)
    else:
        cls = module_class(compile_text(text, spec.name, spec.stem))
    cls.__module__ = "optgen"
    return cls


@once
def module_class(compilation: Compilation) -> Any:
    """The optimiser class of a spec: what its generated module would define, made from the compilation directly."""
    from .base import Optimiser  # which revives pickles through this module

    attributes = {
        "__doc__": _Docstring(compilation),
        "__init__": _constructor(compilation.rules[0]),
        "__module__": f"optgen.loaded.{compilation.stem}",
    }
    return new_class(compilation.name, (Optimiser,), {"compilation": compilation}, lambda made: made.update(attributes))


class _Docstring:
    """The docstring that the generated module has, written when somebody reads it."""

    def __init__(self, compilation: Compilation) -> None:
        self._compilation = compilation

    def __get__(self, instance: object, owner: type) -> str | None:
        return self._text

    @cached_property
    def _text(self) -> str | None:
        tree = syntax_tree(self._compilation.python_source)
        (made,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
        return ast.get_docstring(made, clean=False)


def _constructor(rule: Rule) -> Callable[..., None]:
    """The constructor: hyperparameters by position or name, then flags and the backend by name."""
    positional, named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("self", positional)]
    for hyper in rule.hypers:
        several: Any = tuple[float, ...] if hyper.free else tuple[(float,) * len(hyper.default)]  # type: ignore[misc]
        kind: Any = several if hyper.vector else float
        default: Any = hyper.default if hyper.vector else hyper.default[0]
        parameters.append(inspect.Parameter(hyper.name, positional, default=default, annotation=kind))
    for flag in rule.flags:
        kind, default = (bool, flag.default) if flag.when is None else (bool | None, None)
        parameters.append(inspect.Parameter(flag.name, named, default=default, annotation=kind))
    parameters.append(inspect.Parameter("backend", named, default="kernel", annotation=str))
    more: dict[str, Any] = {"storage": Storage, "rounding": Storage}
    more |= {} if any(hyper.name == SEED.name for hyper in rule.hypers) else {SEED.name: Seed}
    parameters += [inspect.Parameter(name, named, default=None, annotation=kind) for name, kind in more.items()]
    signature = inspect.Signature(parameters, return_annotation=None)
    hypers, flags = [hyper.name for hyper in rule.hypers], [flag.name for flag in rule.flags]

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        own_flags = {n: given[n] for n in flags}
        self._begin({n: given[n] for n in hypers}, own_flags, given["backend"], *[given[n] for n in more])

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    __init__.__annotations__ = {p.name: p.annotation for p in parameters[1:]} | {"return": None}
    __init__.__qualname__ = f"{rule.name}.__init__"
    return __init__
