"""The `optgen` command: new, check, show, list, build, bench, doctor.

In: a command line. Out: files, text on standard output, faults on standard error, and an exit status: 0 for success, 1
for failure, 2 for a malformed command line.

This module decides what a command says; the modules that it calls do the work. They are imported inside the commands,
so `optgen --help` waits for none of them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..compiler import catalogue
from ..errors import ArgumentError, CompilerNotFound, OptgenError, SpecError, UnknownRule
from ..runtime import machine

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..compiler.build import Job
    from ..compiler.driver import Compilation
    from .pages import Block, Table

__all__ = ["main"]

SPEC = click.Path(path_type=Path)
#: The width of a terminal, in columns, from which names and numbers are never broken.
ROOMY = 72


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


# ---- build ----


@main.command()
@click.argument("specs", metavar="[SPEC]...", nargs=-1, type=SPEC)
@click.option("--out", default="build", show_default=True, type=SPEC, help="The folder of what is built.")
@click.option("--jobs", type=click.IntRange(min=1), help="How many to compile at a time; one a processor by itself.")
def build(specs: tuple[Path, ...], out: Path, jobs: int | None) -> None:
    """Compile specs, or the shipped rules, to modules.

    Each SPEC gives a module that can be imported and a kernel beside it; without any, all shipped rules are compiled.
    What is up to date is left as it is.
    """
    from ..compiler import build as builder
    from ..compiler import manifest as product
    from ..compiler import toolchain
    from ..paths import BUILD

    wanted = list(builder.jobs(list(specs or catalogue.shipped())))
    if specs and out.resolve() != BUILD:
        wanted = [job for job in wanted if job.compilation]  # the runtime is looked for in optgen's own folder only
        if product.built_library(BUILD / "runtime.json", product.fingerprint("")) is None:
            note = f"`optgen build --out {BUILD}` builds it now"
            click.echo(f"note: the runtime of optgen will be compiled on first use; {note}", err=True)
    start = time.perf_counter()
    made = 0
    try:
        compiler = toolchain.find_compiler()
    except CompilerNotFound:
        if not all(builder.is_current(job, out, None) for job in wanted):
            raise
    else:
        with _building_in(out):
            made = _build_all(wanted, out, compiler, jobs or machine.processors())
            if out.resolve() == BUILD:
                product.note_sources(out)
                if not specs:
                    builder.write_stubs(wanted)
    current = f"{len(wanted) - made} up to date"
    if made:
        click.echo(f"{made} built, {current} in {out} ({time.perf_counter() - start:.1f} s)")
    else:
        click.echo(f"{current} in {out}, nothing to do")


@contextmanager
def _building_in(folder: Path) -> Iterator[None]:
    """Create the folder if necessary, and hold it while no other process builds there."""
    from ..compiler.lock import sole_builder

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with sole_builder(folder):
            yield
    except OSError as error:  # also a CacheError, whose message is about the cache
        fault = error.__cause__ or error
        if isinstance(fault, BrokenPipeError):  # the reader of standard output is gone
            raise fault from None
        hint = "choose another folder with --out"
        raise OptgenError(f"expected to build in {folder}, got {fault}", hint=hint) from None


def _build_all(wanted: Sequence[Job], folder: Path, compiler: Any, workers: int) -> int:
    """Build all jobs and return how many had to be built. Failures are collected and raised at the end."""
    from rich.console import Console
    from rich.progress import Progress

    from ..compiler import build as builder

    def run(job: Job) -> float | None:
        start = time.perf_counter()
        return time.perf_counter() - start if builder.build(job, folder, compiler) else None

    watched = sys.stderr.isatty()
    lines, faults = [], []
    pool = ThreadPoolExecutor(workers)  # threads suffice: the compiler runs in processes of its own
    console = Console(stderr=True, quiet=not watched)  # no bar without a terminal
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("building", total=len(wanted))
        try:
            running = {pool.submit(run, job): job.stem for job in wanted}
            for future in as_completed(running):
                try:
                    seconds = future.result()
                except (OptgenError, OSError) as error:
                    faults.append(f"{running[future]}: {error}")
                else:
                    if seconds is not None:
                        lines.append(f"built {running[future]} ({seconds:.1f} s)")
                        if not watched:  # on a terminal, the lines follow when the bar is gone
                            click.echo(lines[-1])
                progress.advance(task)
        finally:
            pool.shutdown(cancel_futures=True)
    if watched:
        click.echo("".join(f"{line}\n" for line in lines), nl=False)
    if faults:
        raise OptgenError("\n\n".join(faults))
    return len(lines)


# ---- bench ----


@main.command()
@click.argument("rules", metavar="[RULE]...", nargs=-1)
@click.option("--shape", "shapes", metavar="NAME", multiple=True, help="A list of shapes; again for more, or `all`.")
@click.option("--threads", metavar="N,...", help="Numbers of threads, a process for each; 1,2 by itself.")
@click.option("--peers", default="all", show_default=True, metavar="NAME,...", help="Those to compare with; or `none`.")
@click.option("--rounds", type=click.IntRange(min=1), help="How often each has its turn; 11 by itself.")
@click.option("--json", "table", type=SPEC, help="Write all figures to this file.")
@click.option("--picture", type=SPEC, help="Draw how near each rule is to the limit: a file .png, .svg or .pdf.")
@click.option("--targets", is_flag=True, help="What optgen is to reach, on two threads; status 1 if it does not.")
def bench(
    rules: tuple[str, ...],
    shapes: tuple[str, ...],
    threads: str | None,
    peers: str,
    rounds: int | None,
    table: Path | None,
    picture: Path | None,
    targets: bool,
) -> None:
    """Measure steps beside those of other libraries.

    Each RULE (`Adam` by itself, `all` for all) takes a step on lists of parameters: 100x64, 512x4096, 1x1M, 1x25M,
    25x1M, resnet50, gpt2. So do the peers that are installed and have the rule, in turn, in one process; and beside
    them stands the limit, a loop that reads and writes as many bytes in place. `clip+AdamW` is a chain.

    Peers are torch-loop, torch-foreach, torch-fused, torch-compiled (`torch` is all of them), deepspeed, optax, numba
    and numpy. What takes other steps than optgen is not timed. torch needs most of a minute to compile a step.
    """
    from ..paths import benchmarks

    benching = benchmarks("bench")
    chosen = benching.chosen_rules(rules, everything=targets)
    others = benchmarks("peers").choose(peers)
    if targets and (shapes or threads):
        raise click.UsageError("--targets says itself on which shapes and on how many threads")
    for path in filter(None, (table, picture)):
        _expect_writable(path)
    if picture:
        benchmarks("picture").expect_matplotlib()
    if targets:
        aims = benchmarks("targets")
        batches = [(aims.THREADS, batch) for batch in aims.batches(chosen, others, rounds or 0)]
    else:
        work = benching.jobs(chosen, benching.chosen_shapes(shapes), others, rounds or 0)
        batches = [(count, work) for count in benching.thread_counts(threads)]
    results: list[dict[str, Any]] = []
    verdicts: list[Any] = []
    for result in _measured(batches, benching.measured):
        results.append(result)
        verdicts = aims.judged(results) if targets else []
        if table:  # after each result, so that an interrupted run keeps what it has measured
            content = benching.document(results, [verdict.json() for verdict in verdicts])
            table.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    _print(*benching.report(results))
    if targets:
        click.echo()
        _print(*aims.report(verdicts))
    if picture:
        benchmarks("picture").draw(results, picture)
    if not all(verdict.ok for verdict in verdicts):
        raise SystemExit(1)


def _expect_writable(path: Path) -> None:
    """Raise `OptgenError` unless a file can be written, before minutes are spent on its content."""
    if path.is_dir() or not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise OptgenError(
            f"expected a file that can be written, got {path}", hint="name a file in a folder that is there"
        )


def _measured(batches: Sequence[tuple[int, Sequence[Any]]], measured: Any) -> Iterator[dict[str, Any]]:
    """Yield results as they come, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, quiet=not sys.stderr.isatty())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=sum(len(work) for _, work in batches))
        for count, work in batches:
            names = [" ".join(filter(None, (job.rule, job.shape))) for job in work]
            found = measured(work, count)
            for name in names:
                progress.update(task, description=f"{name}, {count} thread{'' if count == 1 else 's'}")
                yield next(found)
                progress.advance(task)
            list(found)  # wait until the process has exited without an error


# ---- list, show, new, check ----


@main.command("list")
@click.option("--as", "form", type=click.Choice(["table", "markdown"]), default="table", show_default=True)
def list_rules(form: str) -> None:
    """List the rules that come with optgen.

    As markdown: a page of documentation with all of them.
    """
    from ..compiler import driver

    compilations = map(driver.compile_file, catalogue.shipped())
    if form == "markdown":
        from .markdown import rules_page

        _print_raw(rules_page(compilations))
    else:
        from .pages import listing

        _print(*listing(compilations))


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
def show(rule: str, form: str, flags: tuple[str, ...]) -> None:
    """Show one rule: mathematics, LaTeX, sweeps, IR, C, Python.

    RULE is the name of a shipped rule, or of its file, in any case; or the path of a spec, which ends in .toml. Where
    names differ in nothing but capitals, these count: `Adam` is PyTorch's, `ADAM` Flux's. A rule that treats matrices
    in another way has the flag `matrix`.
    """
    from . import markdown, pages

    compilation = _find(rule)
    if form in ("c", "python"):
        if flags:
            raise click.UsageError(f"--flag does not go with --as {form}, which has all variants in one")
        _print_raw(compilation.c_source if form == "c" else compilation.python_source)
        return
    variant = _variant(compilation, flags)
    if form == "markdown":
        _print_raw(markdown.page(compilation, variant))
    elif form == "latex":
        _print_raw(pages.source(compilation, variant))
    else:
        page = {"summary": pages.show, "sweeps": pages.sweeps, "ir": pages.ir}[form]
        _print(*page(compilation, variant))


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

    chosen = {flag.name: flag.default for flag in compilation.rules[0].flags}
    shapes = {rule.matrix for rule in compilation.rules}
    given = {"matrix": True} if len(shapes) == 2 else {}
    for flag in flags:
        name = canonical(flag.removeprefix("no-"))
        if name not in chosen | given:
            raise ArgumentError(f"{compilation.name} has no flag {name!r}{suggestion(name, [*chosen, *given])}")
        (given if name in given else chosen)[name] = not flag.startswith("no-")
    try:
        found = compilation.variants(chosen)
    except ArgumentError as error:
        raise ArgumentError(error.message, hint="turn the others too: --flag NAME, --flag no-NAME") from None
    return found[given["matrix"]] if given else next(iter(found.values()))


@main.command()
def doctor() -> None:
    """Say what works here, and what to do if not."""
    from .doctor import examine
    from .pages import Table

    findings = list(examine())
    rows = []
    for f in findings:
        rows.append((f.subject, "ok" if f.well else "NOT OK", f"{f.found}\nto do: {f.advice}" if f.advice else f.found))
    _print(Table(rows, indent=0))
    if not all(finding.well for finding in findings):
        raise SystemExit(1)


# ---- Text on the standard output ----


def _fitted(table: Table, width: int) -> RenderableType:
    """Lay a table out for a terminal of this width. Names and numbers are broken only on a narrow one."""
    from rich.padding import Padding
    from rich.table import Table as Grid

    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(table.headers))
    for i, cells in enumerate(zip(*table.rows, strict=True)):
        whole = width >= ROOMY and not any(" " in cell for cell in cells)
        grid.add_column(table.headers[i] if table.headers else "", no_wrap=whole, overflow="fold")
    for row in table.rows:
        grid.add_row(*map(_plain, row))
    return Padding(grid, (0, 0, 0, table.indent))


def _print(*parts: Block) -> None:
    """Print blocks: fitted to the width of a terminal; in a pipe or a file as plain text, one line per row."""
    from rich.console import Console

    # The text of a spec is plain text: no markup in it takes effect.
    console = Console(markup=False, emoji=False, highlight=False, force_terminal=sys.stdout.isatty())
    if not console.is_terminal:
        console.width = 10_000
    with console.capture() as capture:
        for part in parts:
            console.print(_plain(part) if isinstance(part, str) else _fitted(part, console.width))
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _plain(text: str) -> str:
    """Remove control and invisible characters, since a spec may come from a stranger."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def _print_raw(text: str) -> None:
    """Print a file for a compiler byte for byte, in UTF-8 whatever the locale."""
    click.echo(text.encode(), nl=False)
