"""The `optgen` command: new, check, show, list, build, bench, doctor.

In: a command line. Out: files, text on standard output, faults on standard error, and an exit status: 0 for success, 1
for failure, 2 for a malformed command line.

This module decides what a command says; the modules that it calls do the work. They are imported inside the commands,
so `optgen --help` waits for none of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..compiler import catalogue
from ..errors import ArgumentError, OptgenError, SpecError, UnknownRule
from .benchmarking import bench
from .building import build
from .output import SPEC, print_blocks, print_raw

if TYPE_CHECKING:
    from ..compiler.driver import Compilation

__all__ = ["main"]


class _Commands(click.Group):
    """A group whose commands print optgen's errors as messages. Only a bug of optgen shows a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        # Where the encoding lacks Greek letters, print a substitute instead of failing.
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        try:
            return super().invoke(ctx)
        except OptgenError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="optgen", message="%(prog)s %(version)s")
def main() -> None:
    """Write an update rule once, as mathematics; get optimisers that are fused, fast and proven equal to it."""


main.add_command(build)
main.add_command(bench)


# ---- list, show, new, check ----


@main.command("list")
@click.option("--as", "form", type=click.Choice(["table", "markdown"]), default="table", show_default=True)
@click.option("--family", metavar="NAME", help="Only the rules of a family, which the list has in brackets.")
@click.option("--storage", metavar="NAME", help="What rules keep and move with their states in a storage.")
def list_rules(form: str, family: str | None, storage: str | None) -> None:
    """List the rules that come with optgen, by family.

    As markdown: the page of documentation of a family, or a table of contents for these pages.
    """
    from ..compiler import driver
    from ..ir.rule import Family
    from . import markdown, pages, storage_pages

    found = pages.groups(map(driver.compile_file, catalogue.shipped()))
    if family is not None and family not in found:
        raise click.BadParameter(f"expected one of {', '.join(found)}; got {family!r}", param_hint="--family")
    chosen = [each for name, members in found.items() if family in (None, name) for each in members]
    if storage is not None:
        from ..optimiser.state_storages import OF_STATES

        if form != "table" or storage not in OF_STATES:
            expected = f"one of {', '.join(OF_STATES)}" if form == "table" else "none in markdown"
            raise click.BadParameter(f"expected {expected}; got {storage!r}", param_hint="--storage")
        print_blocks(*storage_pages.listing(chosen, storage))
    elif form == "table":
        print_blocks(*pages.listing(chosen))
    elif family is None:
        print_raw(markdown.rules_page(chosen))
    else:
        print_raw(markdown.family_page(Family(family), chosen))


class _Form(click.Choice):  # type: ignore[type-arg]  # it takes arguments from click 8.2 on
    """The choices of `--as`. 0.1.0 called sweeps passes, and that name is still accepted."""

    def __init__(self) -> None:
        super().__init__(["summary", "markdown", "latex", "sweeps", "ir", "c", "python"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert("sweeps" if value == "passes" else value, param, ctx)


@main.command()
@click.argument("rule")
@click.option("--as", "form", type=_Form(), default="summary", show_default=True)
@click.option("--flag", "flags", metavar="NAME", multiple=True, help="Set a flag of the rule (no-NAME: clear it).")
@click.option("--storage", is_flag=True, help="What it keeps and moves with its states in each storage.")
def show(rule: str, form: str, flags: tuple[str, ...], storage: bool) -> None:
    """Show one rule: mathematics, LaTeX, sweeps, IR, C, Python.

    RULE is the name of a shipped rule, or of its file, in any case; or the path of a spec, which ends in .toml. Where
    names differ in nothing but capitals, these count: `Adam` is PyTorch's, `ADAM` Flux's. A rule that treats matrices
    in another way has the flag `matrix`, and one that transposes some of them `tall` or `wide`.
    """
    from . import markdown, pages, storage_pages

    compilation = _find(rule)
    if storage:
        if form != "summary":
            raise click.UsageError(f"--storage does not go with --as {form}")
        print_blocks(*storage_pages.of_rule(compilation, _variant(compilation, flags)))
        return
    if form in ("c", "python"):
        if flags:
            raise click.UsageError(f"--flag does not go with --as {form}, which has all variants in one")
        print_raw(compilation.c_source if form == "c" else compilation.python_source)
        return
    variant = _variant(compilation, flags)
    if form == "markdown":
        print_raw(markdown.page(compilation, variant))
    elif form == "latex":
        print_raw(pages.source(compilation, variant))
    else:
        page = {"summary": pages.show, "sweeps": pages.sweeps, "ir": pages.ir}[form]
        print_blocks(*page(compilation, variant))


@main.command()
@click.argument("name")
@click.option("--out", type=SPEC, help="The file to write; NAME.toml in lower case by itself.")
@click.option("--part", type=click.Choice(["gradient", "parameter"]), help="Write a part of chains, not a rule.")
def new(name: str, out: Path | None, part: str | None) -> None:
    """Write a spec to start from.

    It is a rule that works, with comments that say what else a spec may hold. With --part it is a part of chains: one
    that transforms gradients and steps, or one that works on the parameter as the rules before it leave it.
    """
    from ..codegen.spec_source import spec_source
    from ..compiler import build as builder
    from ..compiler import driver
    from ..names import is_name

    path = Path(f"{name.lower()}.toml") if out is None else out
    twins = [(known, spec) for known, spec in catalogue.shipped_names().items() if known.lower() == name.lower()]
    if twins:
        known, spec = twins[0]
        hint = f"choose another name; to start from that rule, copy {spec}"
        raise OptgenError(f"expected a new name, got {name!r}: {known} comes with optgen", hint=hint)
    if not is_name(name):
        hint = "a name is a letter, then letters, digits and underscores, in ASCII"
        raise OptgenError(f"expected the name of a rule, got {name!r}", hint=hint)
    if name.lower() in builder.TAKEN:
        raise OptgenError(f"expected the name of a rule, got {name!r}", hint="files of that name are optgen's own")
    if path.suffix != ".toml":
        raise OptgenError(
            f"expected a file that ends in .toml, got {path}", hint=f"for example: --out {name.lower()}.toml"
        )
    text = spec_source(name, part or "", path.name, "Descent")
    try:
        driver.compile_text(text, path.name)
    except SpecError as error:  # all else in it is well
        fault = error.diagnostics[0]
        raise OptgenError(fault.message, hint=fault.hint) from None
    elsewhere = "name another file with --out"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise OptgenError(f"expected a new file, got {path}, which is there already", hint=elsewhere) from None
    except OSError as error:
        raise OptgenError(f"expected to write {path}, got {error.strerror}", hint=elsewhere) from None
    click.echo(f"wrote {path}\nnext: optgen show {path}, optgen check {path}, optgen.load({str(path)!r})")


@main.command()
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True, type=SPEC)
def check(specs: tuple[Path, ...]) -> None:
    """Print all faults of specs, as a compiler does."""
    from ..compiler import driver

    faulty = 0
    for path in specs:
        try:
            driver.compile_file(path)
            click.echo(f"{path}: ok")
            continue
        except SpecError as error:  # with the path as it was given, for editors to find it
            found = [fault.render(str(path), error.lines) for fault in error.diagnostics]
        except OptgenError as error:
            found = [str(error)]
        faulty += 1
        click.echo("\n".join(found))
    if faulty:
        click.echo(f"error: faults in {faulty} of {len(specs)} {'spec' if len(specs) == 1 else 'specs'}", err=True)
        raise SystemExit(1)


def _find(rule: str) -> Compilation:
    """Find a rule by its name, else by the name of its file, else by its name in any case if that is unique."""
    from ..compiler import driver
    from ..names import close_matches

    if rule.endswith(".toml") or os.sep in rule:
        return driver.compile_file(Path(rule))
    names = catalogue.shipped_names()
    stems = {path.stem: path for path in names.values()}
    alike = [name for name in names if name.lower() == rule.lower()]
    if path := names.get(rule) or stems.get(rule.lower()) or (names[alike[0]] if len(alike) == 1 else None):
        return driver.compile_file(path)
    known = {name.lower() for name in names} | stems.keys()
    close = [*alike, *close_matches(rule.lower(), known, 3)]
    meant = " or ".join(repr(name) for name, path in names.items() if {name, name.lower(), path.stem} & {*close})
    hint = f"did you mean {meant}?" if meant else "`optgen list` shows those it has; a spec's path ends in .toml"
    raise UnknownRule(f"optgen has no rule {rule!r}", hint=hint)


def _variant(compilation: Compilation, flags: Iterable[str]) -> int:
    """Find the variant with these flags set or cleared, and the default of every other flag."""
    from ..names import canonical
    from ..optimiser.hyperparameters import suggestion
    from .pages import shape_flags

    chosen = {flag.name: flag.default for flag in compilation.rules[0].flags}
    shapes = shape_flags(compilation)
    wanted: dict[str, bool] = {}
    for flag in flags:
        name = canonical(flag.removeprefix("no-"))
        if name not in [*chosen, *shapes]:
            raise ArgumentError(f"{compilation.name} has no flag {name!r}{suggestion(name, [*chosen, *shapes])}")
        (wanted if name in shapes else chosen)[name] = not flag.startswith("no-")
    try:
        found = compilation.variants(chosen).values()
    except ArgumentError as error:
        raise ArgumentError(error.message, hint="turn the others too: --flag NAME, --flag no-NAME") from None
    for i in found:
        if all(getattr(compilation.rules[i], name) is value for name, value in wanted.items()):
            return i
    got = " and ".join(name if value else f"no-{name}" for name, value in wanted.items())
    raise ArgumentError(f"{compilation.name} has no variant that is {got}", hint="leave one of them out")


@main.command()
def doctor() -> None:
    """Say what works here, and what to do if not."""
    from .doctor import examine
    from .pages import Table

    findings = list(examine())
    rows = []
    for f in findings:
        rows.append((f.subject, "ok" if f.well else "NOT OK", f"{f.found}\nto do: {f.advice}" if f.advice else f.found))
    print_blocks(Table(rows, indent=0))
    if not all(finding.well for finding in findings):
        raise SystemExit(1)
