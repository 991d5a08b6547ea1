"""Spec to rule to kernel to optimiser class: each stage made once, kept, and there to be looked at.

In: the text of a spec. Out: a `Compilation`, its `Kernel`s, its optimiser class.
A library is taken from where `optgen build` put it if it was made from this very spec by this very compiler of ours,
and else from the per-user cache, which compiles it on first use.
"""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, cached_property
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from . import toolchain
from .check import check_open
from .compose import close
from .constants import Constants
from .emit.text import expression
from .errors import ArgumentError, OptgenError, UnknownRule
from .ir import Rule, verify
from .kernel import ABI, Kernel, Runtime, open_library, read_declarations
from .parse import parse
from .passes import lower, shards
from .product import built_library, fingerprint
from .resources import BUILD, SPECS, declarations

__all__ = [
    "Compilation", "compile_file", "compile_text", "kernel", "module_class", "runtime", "shipped", "shipped_class",
    "shipped_names",
]  # fmt: skip


@dataclass(frozen=True)
class Compilation:
    """One spec on its way: its `open` rules and the closed `rules`, checked, a variant each, the default flags first;
    then these `lowered`, and the texts. `stem` is what its files are called. `sharded`: whether it is for tensors that
    lie in shards."""

    file: str
    text: str
    stem: str
    open: tuple[Rule, ...]
    rules: tuple[Rule, ...]
    sharded: bool = False

    @property
    def name(self) -> str:
        return self.rules[0].name

    @cached_property
    def lowered(self) -> tuple[Rule, ...]:
        lowered = tuple(map(lower, self.rules))
        return tuple(map(shards.run, lowered)) if self.sharded else lowered

    @cached_property
    def constants(self) -> tuple[Constants, ...]:
        return tuple(map(Constants, self.lowered))

    @cached_property
    def in_shards(self) -> Compilation:
        """The same for tensors that lie in shards; itself, if no variant needs more than the shard that is here."""
        if self.sharded or not any(map(shards.needed, self.lowered)):
            return self
        return replace(self, stem=f"{self.stem}_shards", sharded=True)

    @cached_property
    def c_source(self) -> str:
        from .render import kernel_source

        return kernel_source(self.rules, self.lowered)

    @cached_property
    def python_source(self) -> str:
        from .render import module_source

        return module_source(self.rules, self.text, self.file, self.open)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.text)

    def variants(self, flags: Mapping[str, bool]) -> dict[bool, int]:
        """The positions, among `rules` and `lowered`, of the variants with these flags: by whether a parameter is a
        matrix. ArgumentError if the flags contradict each other, by what they require."""
        found: dict[bool, int] = {}
        for i, rule in enumerate(self.rules):
            if {flag.name: flag.value for flag in rule.flags} == flags:
                for matrix in (True, False) if rule.matrix is None else (rule.matrix,):
                    found[matrix] = i
        if not found:
            needs = [f"{f.name} requires {f.requires}" for f in self.rules[0].flags if f.requires and flags[f.name]]
            given = ", ".join(f"{name}={value}" for name, value in flags.items())
            decided = [f"{f.name} is set where {expression(f.when)}" for f in self.rules[0].flags if f.when]
            message = f"{self.name}: the flags contradict each other: {'; '.join(needs)}; got {given}"
            raise ArgumentError(message, hint="; ".join(decided) or None)
        return found

    def variant(self, flags: Mapping[str, bool]) -> int:
        """The position of the variant with these flags; that for matrices, if there are two."""
        found = self.variants(flags)
        return found.get(True, found.get(False, 0))


@cache
def compile_text(text: str, file: str, stem: str = "") -> Compilation:
    """The spec `text`, checked. SpecError lists all its faults; `file` is its name in them. `stem`: what its files are
    called, if not after the rule."""
    rules = check_open(parse(text, file))
    return Compilation(file, text, stem or rules[0].name.lower(), rules, tuple(verify(close(rule)) for rule in rules))


def compile_file(path: Path) -> Compilation:
    """The spec at `path`; an OptgenError if the file cannot be read."""
    try:
        text = path.read_text("utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        raise OptgenError(f"{path}: a spec in UTF-8 was expected, byte {error.start} is none") from None
    except OSError as error:
        hint = "give the path of a .toml file"
        raise OptgenError(f"{path}: a spec was expected: {error.strerror}", hint=hint) from None
    # Two shipped rules may differ in nothing but capitals; their files do not.
    return compile_text(text, path.name, path.stem if path.resolve().parent == SPECS else "")


def shipped() -> tuple[Path, ...]:
    """The specs that come with optgen."""
    return tuple(sorted(SPECS.glob("*.toml")))


@cache
def shipped_names() -> dict[str, Path]:
    """The specs that come with optgen by the names of their rules, of which nothing else is read."""
    names = {}
    for path in shipped():
        if match := re.search(r'^name\s*=\s*"(\w+)"', path.read_text("utf-8"), re.MULTILINE):
            names[match[1]] = path
    return names


# ---- Libraries and kernels ----


@cache
def runtime() -> Runtime:
    """The runtime of this process. CompilerNotFound if it was never built and there is no compiler to build it."""
    path = built_library(BUILD / "runtime.json", fingerprint(""))
    parsed = path.with_name("declarations.py") if path else None
    if path is None:
        from .render import runtime_source

        path = toolchain.cached_library(runtime_source(), "runtime", ABI)
    return Runtime(read_declarations(declarations(), parsed), path)


@cache
def kernel(compilation: Compilation, variant: int, dtype: str, module: str | None, isa: str | None = None) -> Kernel:
    """The kernel of one variant in "float32" or "float64"; `module` is the file of its optimiser class, if built."""
    run = runtime()
    built = module is not None and not compilation.sharded  # `optgen build` makes none for shards: few need them
    path = built_library(Path(str(module)).with_suffix(".json"), compilation.fingerprint) if built else None
    if path is None:
        path = toolchain.cached_library(compilation.c_source, compilation.stem, ABI)
    return Kernel(run, open_library(run.ffi, path, "optgen_abi"), compilation.lowered[variant], dtype, isa)


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
