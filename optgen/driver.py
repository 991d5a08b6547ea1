"""Spec to rule to kernel to optimiser class: each stage made once, kept, and there to be looked at.

In: the text of a spec. Out: a `Compilation`, its `Kernel`s, its optimiser class, or the files of `optgen build`.
A library is taken from where `optgen build` put it if it was made from this very spec by this very compiler of ours,
and else from the per-user cache, which compiles it on first use.
"""

from __future__ import annotations

import hashlib
import json
import linecache
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from . import toolchain
from .check import check
from .errors import OptgenError, SpecError, UnknownRule
from .ir import Rule
from .kernel import ABI, Kernel, Runtime, open_library, read_declarations, write_declarations
from .parse import parse
from .passes import lower
from .resources import BUILD, PACKAGE, SPECS, TEMPLATES, declarations

__all__ = [
    "Compilation", "Product", "build", "built_library", "compile_file", "compile_text", "kernel", "module_class",
    "runtime", "shipped", "shipped_class",
]  # fmt: skip


@dataclass(frozen=True)
class Compilation:
    """One spec on its way: `rules` checked and `lowered`, a variant each, the default flags first; then the texts."""

    file: str
    text: str
    rules: tuple[Rule, ...]
    lowered: tuple[Rule, ...]

    @property
    def name(self) -> str:
        return self.rules[0].name

    @property
    def stem(self) -> str:
        """What its files are called."""
        return self.name.lower()

    @cached_property
    def c_source(self) -> str:
        from .render import kernel_source

        return kernel_source(self.rules, self.lowered)

    @cached_property
    def python_source(self) -> str:
        from .render import module_source

        return module_source(self.rules, self.text, self.file)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.text)

    def variant(self, flags: dict[str, bool]) -> int:
        """The position of the variant with these flags, among `rules` and among `lowered`."""
        return next(i for i, rule in enumerate(self.rules) if {f.name: f.value for f in rule.flags} == flags)


@cache
def compile_text(text: str, file: str) -> Compilation:
    """The spec `text`, checked and lowered. SpecError lists all its faults; `file` is its name in them."""
    rules = check(parse(text, file))
    return Compilation(file, text, rules, tuple(map(lower, rules)))


def compile_file(path: Path) -> Compilation:
    """The spec at `path`; an OptgenError if the file cannot be read."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise OptgenError(f"{path}: a spec in UTF-8 was expected, byte {error.start} is none") from None
    except OSError as error:
        hint = "give the path of a .toml file"
        raise OptgenError(f"{path}: a spec was expected: {error.strerror}", hint=hint) from None
    return compile_text(text, path.name)


def shipped() -> tuple[Path, ...]:
    """The specs that come with optgen."""
    return tuple(sorted(SPECS.glob("*.toml")))


@cache
def _sources() -> bytes:
    """A digest of optgen itself: of all that decides what a spec turns into."""
    state = hashlib.sha256()
    for root, pattern in ((PACKAGE, "**/*.py"), (TEMPLATES, "*")):
        for path in sorted(root.glob(pattern)):
            if BUILD not in path.parents:
                state.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return state.digest()


def fingerprint(text: str) -> str:
    """Says whether something was made from this spec by this optgen."""
    return hashlib.sha256(_sources() + text.encode()).hexdigest()


# ---- Libraries and kernels ----


def library_of(record: Path) -> Path:
    """Where the library is that the record at `record` is about."""
    # Not `adam.so`: `import adam` would take it for an extension module, and never look at `adam.py` beside it.
    return record.with_name(f"lib{record.stem}.so")


def built_library(record: Path, print_: str) -> Path | None:
    """The library that `optgen build` recorded at `record`, if its fingerprint and its digest are right."""
    try:
        product = Product.read(record)
        path = library_of(record)
        if product.fingerprint == print_ and toolchain.digest(path) == product.files[path.name]:
            return path
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


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
    path = built_library(Path(module).with_suffix(".json"), compilation.fingerprint) if module else None
    if path is None:
        path = toolchain.cached_library(compilation.c_source, compilation.stem, ABI)
    return Kernel(run, open_library(run.ffi, path, "optgen_abi"), compilation.lowered[variant], dtype, isa)


# ---- Optimiser classes ----


@cache
def shipped_class(name: str) -> Any:
    """The optimiser class of a shipped rule. UnknownRule if there is none of that name."""
    spec = SPECS / f"{name.lower()}.toml"
    if not spec.is_file():
        raise UnknownRule(f"optgen has no rule {name!r}", hint="`optgen list` shows those it has")
    text = spec.read_text("utf-8")
    built = BUILD / f"{name.lower()}.json"
    if built_library(built, fingerprint(text)):
        cls = getattr(_import_file(built.with_suffix(".py")), name, None)
    else:
        cls = module_class(compile_text(text, spec.name))
    if cls is None or cls.__name__ != name:
        raise UnknownRule(f"optgen has no rule {name!r}", hint="rules are spelled as `optgen list` shows them")
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
    exec(compile(source, file, "exec"), module.__dict__)
    return module.__dict__[compilation.name]


def _import_file(path: Path) -> ModuleType:
    name = f"optgen.rules.{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- optgen build ----

#: The stems of the runtime's own files.
TAKEN = ("runtime", "declarations")
#: What stands in every file of that kind that optgen makes.
MARKS = {".py": "Generated by optgen", ".c": "optgen", ".json": '"fingerprint"'}


@dataclass(frozen=True)
class Product:
    """The record of what one build made: of which spec, by which compiler, and the digest of every file."""

    fingerprint: str
    compiler: str
    files: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Product:
        return cls(**json.loads(path.read_text("utf-8")))

    def write(self, path: Path) -> None:
        toolchain.write_atomically(path, json.dumps(self.__dict__, indent=2) + "\n")


@dataclass(frozen=True)
class Job:
    """One library to build: its name, what it is made of, and the texts that go beside it."""

    stem: str
    fingerprint: str
    compilation: Compilation | None

    def texts(self) -> tuple[str, dict[str, str]]:
        """The C source, and all files of text by name."""
        from .render import runtime_source

        if self.compilation is None:
            source = runtime_source()
            return source, {"runtime.c": source}
        source = self.compilation.c_source
        return source, {f"{self.stem}.c": source, f"{self.stem}.py": self.compilation.python_source}


def jobs(paths: list[Path]) -> Iterator[Job]:
    """What there is to build for these specs; the runtime first. SpecError joins the faults of all specs."""
    yield Job("runtime", fingerprint(""), None)
    faults: list[SpecError] = []
    names: dict[str, Path] = {}
    for path in paths:
        try:
            compilation = compile_file(path)
        except SpecError as error:
            faults.append(error)
            continue
        if compilation.stem in TAKEN:
            message = f"{path}: the files of {compilation.name} would be those of optgen's runtime"
            raise OptgenError(message, hint=f"give the rule another name: `{compilation.stem}` is taken")
        if (other := names.get(compilation.stem)) is None:
            names[compilation.stem] = path
            yield Job(compilation.stem, compilation.fingerprint, compilation)
        elif other.resolve() != path.resolve():
            hint = "rules of one build need different names, whatever their case"
            raise OptgenError(f"{path}: the files of {compilation.name} are taken by {other}", hint=hint)
    if faults:
        raise OptgenError("\n\n".join(error.message for error in faults))


def build(job: Job, folder: Path, compiler: toolchain.Compiler) -> bool:
    """Makes the files of `job` in `folder`; False if all of them were there already, as they should be.

    The record is written last, and taken away first, so that a build killed half-way is never taken for a whole one.
    Only one process at a time may build in a folder: hold `toolchain.sole_builder`. OptgenError if a file of somebody
    else's is in the way.
    """
    record = folder / f"{job.stem}.json"
    identity = " ".join((*compiler.command, compiler.version, *toolchain.FLAGS))
    if _is_whole(record, job.fingerprint, identity):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    source, texts = job.texts()
    _refuse_foreign(folder, [*texts, record.name])
    record.unlink(missing_ok=True)
    for name in (*texts, record.name, library_of(record).name):
        for stale in folder.glob(f".{name}.{'[0-9a-f]' * 16}.tmp"):  # of a builder that was killed
            if stale.is_dir():
                shutil.rmtree(stale, ignore_errors=True)
            else:
                stale.unlink(missing_ok=True)
    for name, text in texts.items():
        toolchain.write_atomically(folder / name, text)
    library = library_of(record)
    toolchain.compile_library(source, library, compiler)
    names = [*texts, library.name]
    if job.compilation is None:
        write_declarations(declarations(), folder / "declarations.py")
        names.append("declarations.py")
    Product(job.fingerprint, identity, {name: toolchain.digest(folder / name) for name in names}).write(record)
    return True


def _refuse_foreign(folder: Path, names: list[str]) -> None:
    """The folder may be one that people work in: only what optgen made is overwritten, and all of that says so."""
    for path in (folder / name for name in names):
        text = path.read_text("utf-8", errors="replace") if path.exists() else ""
        if text and MARKS[path.suffix] not in text:
            message = f"{path} is in the way: optgen did not make it, and does not overwrite it"
            raise OptgenError(message, hint="build into another folder, or move the file away")


def _is_whole(record: Path, print_: str, compiler: str) -> bool:
    try:
        product = Product.read(record)
        if (product.fingerprint, product.compiler) != (print_, compiler):
            return False
        return all(toolchain.digest(record.with_name(name)) == digest for name, digest in product.files.items())
    except (OSError, ValueError, TypeError, AttributeError):
        return False
