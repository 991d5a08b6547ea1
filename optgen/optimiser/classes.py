"""Spec to rule to kernel to optimiser class: each stage made once, kept, and there to be looked at.

In: the text of a spec. Out: a `Compilation`, its `Kernel`s, its optimiser class.
A library is taken from where `optgen build` put it if it was made from this very spec by this very compiler of ours,
and else from the per-user cache, which compiles it on first use.
"""

from __future__ import annotations

import linecache
import sys
from difflib import get_close_matches
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from ..compiler.catalogue import shipped_names
from ..compiler.driver import Compilation, compile_text
from ..compiler.manifest import built_library, fingerprint
from ..errors import UnknownRule
from ..paths import BUILD

__all__ = ["module_class", "shipped_class"]


# ---- Optimiser classes ----


@cache
def shipped_class(name: str) -> Any:
    """The optimiser class of a shipped rule. UnknownRule if there is none of that name."""
    names = shipped_names()
    spec = names.get(name)
    if spec is None:
        by_case = [known for known in names if known.lower() == name.lower()]
        close = by_case or get_close_matches(name, names, 1)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise UnknownRule(f"optgen has no rule {name!r}", hint=f"{hint}`optgen list` shows those it has")
    text = spec.read_text("utf-8")
    built = BUILD / f"{spec.stem}.json"
    if built_library(built, fingerprint(text)):
        cls = getattr(_import_file(built.with_suffix(".py")), name)
    else:
        cls = module_class(compile_text(text, spec.name, spec.stem))
    cls.__module__ = "optgen"
    return cls


@cache
def module_class(compilation: Compilation) -> Any:
    """The optimiser class of a spec: the module that `optgen build` would write, made in memory."""
    source = compilation.python_source
    file = f"<optgen {compilation.file} {compilation.fingerprint[:12]}>"
    module = ModuleType(f"optgen.loaded.{compilation.stem}")
    module.__file__ = file
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)  # not the future of this room
    return module.__dict__[compilation.name]


def _import_file(path: Path) -> ModuleType:
    name = f"optgen.rules.{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
