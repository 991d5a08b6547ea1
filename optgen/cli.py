"""The `optgen` command: build, list, show, check, doctor.

In: a command line. Out: files, text on the standard output, faults on the standard error, and an exit status: 0 if all
is well, 1 if not, 2 for a command line that cannot be read. What a command says is decided here; what it does, in the
rooms that it calls. They are imported inside the commands, so that `optgen --help` waits for none of them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .errors import ArgumentError, CompilerNotFound, OptgenError, SpecError, UnknownRule

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .builder import Job
    from .driver import Compilation
    from .ir import Rule

__all__ = ["main"]

SPEC = click.Path(path_type=Path)


class _Commands(click.Group):
    """Turns what our own rooms refuse into a message; a traceback is kept for faults of optgen."""

    def invoke(self, ctx: click.Context) -> Any:
        # A terminal or pipe without Greek letters gets a substitute, not a traceback.
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
    from . import builder, driver, kernel, product, toolchain
    from .resources import BUILD

    wanted = list(builder.jobs(list(specs or driver.shipped())))
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
            made = _build_all(wanted, out, compiler, jobs or kernel.processors())
    current = f"{len(wanted) - made} up to date"
    if made:
        click.echo(f"{made} built, {current} in {out} ({time.perf_counter() - start:.1f} s)")
    else:
        click.echo(f"{current} in {out}, nothing to do")


@contextmanager
def _building_in(folder: Path) -> Iterator[None]:
    """The folder, made if need be, with no other build in it."""
    from . import toolchain

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with toolchain.sole_builder(folder):
            yield
    except OSError as error:  # a CacheError too, whose words are about the cache
        fault = error.__cause__ or error
        if isinstance(fault, BrokenPipeError):  # nobody reads what is said any more
            raise fault from None
        hint = "choose another folder with --out"
        raise OptgenError(f"{folder} cannot be built in: {fault}", hint=hint) from None


def _build_all(wanted: Sequence[Job], folder: Path, compiler: Any, workers: int) -> int:
    """How many had to be made. One that fails does not keep the others from being made; all faults come at the end."""
    from rich.console import Console
    from rich.progress import Progress

    from . import builder

    def run(job: Job) -> float | None:
        start = time.perf_counter()
        return time.perf_counter() - start if builder.build(job, folder, compiler) else None

    watched = sys.stderr.isatty()
    lines, faults = [], []
    pool = ThreadPoolExecutor(workers)  # of threads, for the work is done by the compiler's own processes
    console = Console(stderr=True, quiet=not watched)  # a bar is for who watches it
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
                        if not watched:  # on a terminal there is the bar, and the lines come when it is gone
                            click.echo(lines[-1])
                progress.advance(task)
        finally:
            pool.shutdown(cancel_futures=True)
    if watched:
        click.echo("".join(f"{line}\n" for line in lines), nl=False)
    if faults:
        raise OptgenError("\n\n".join(faults))
    return len(lines)


# ---- list, show, check ----


@main.command("list")
def list_rules() -> None:
    """List the rules that come with optgen."""
    from . import driver
    from .summary import bytes_moved

    rows = []
    for path in driver.shipped():
        compilation = driver.compile_file(path)
        rule, low = compilation.rules[0], compilation.lowered[0]
        states = ", ".join(state.name for state in rule.states) or "none"
        rows.append((rule.name, states, f"{bytes_moved(low, 4)} / {bytes_moved(low, 8)}", rule.summary))
    _print(_table(rows, "rule", "states", "bytes", "summary"))
    _print("\nbytes: read and written for every element in a step, float32 / float64")


@main.command()
@click.argument("rule")
@click.option(
    "--as", "form", type=click.Choice(["summary", "latex", "ir", "c", "python"]), default="summary", show_default=True
)
@click.option("--flag", "flags", metavar="NAME", multiple=True, help="Set a flag of the rule (no-NAME: clear it).")
def show(rule: str, form: str, flags: tuple[str, ...]) -> None:
    """Show one rule: mathematics, LaTeX, IR, C, Python.

    RULE is the name of a shipped rule, in any case, or the path of a spec, which ends in .toml.
    """
    compilation = _find(rule)
    if form in ("c", "python"):
        if flags:
            raise click.UsageError(f"--flag does not go with --as {form}, which has all variants in one")
        _print_raw(compilation.c_source if form == "c" else compilation.python_source)
        return
    variant = _variant(compilation, flags)
    checked, low = compilation.rules[variant], compilation.lowered[variant]
    if form == "latex":
        from .emit import latex

        _print_raw(latex.rule(checked) + "\n")
    elif form == "ir":
        _print(*_ir(checked, low))
    else:
        _print(*_summary(checked, low))


@main.command()
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True, type=SPEC)
def check(specs: tuple[Path, ...]) -> None:
    """Print all faults of specs, as a compiler does."""
    from . import driver

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
    from . import driver

    if rule.endswith(".toml") or os.sep in rule:
        return driver.compile_file(Path(rule))
    shipped = {path.stem: path for path in driver.shipped()}
    if rule.lower() in shipped:
        return driver.compile_file(shipped[rule.lower()])
    close = " or ".join(map(repr, get_close_matches(rule.lower(), shipped)))
    hint = f"did you mean {close}?" if close else "`optgen list` shows those it has; a spec's path ends in .toml"
    raise UnknownRule(f"optgen has no rule {rule!r}", hint=hint)


def _variant(compilation: Compilation, flags: Iterable[str]) -> int:
    from .hyperparameters import suggestion
    from .names import canonical

    chosen = {flag.name: flag.default for flag in compilation.rules[0].flags}
    for given in flags:
        name = canonical(given.removeprefix("no-"))
        if name not in chosen:
            raise ArgumentError(f"{compilation.name} has no flag {name!r}{suggestion(name, list(chosen))}")
        chosen[name] = not given.startswith("no-")
    return compilation.variant(chosen)


def _summary(rule: Rule, low: Rule) -> Iterator[RenderableType]:
    from .emit import text
    from .names import greek
    from .summary import bytes_moved, exactness

    yield f"{rule.name}: {rule.summary}" if rule.summary else rule.name
    yield ""
    yield from (f"  {text.formula(assign)}" for assign in rule.body)
    if rule.hypers:
        yield "\nHyperparameters"
        yield _table((greek(hyper.name), "" if greek(hyper.name) == hyper.name else hyper.name,
                      ", ".join(map(text.number, hyper.default)), f"in {hyper.range}", hyper.doc)
                     for hyper in rule.hypers)  # fmt: skip
    if rule.flags:
        yield "\nFlags"
        yield _table((flag.name, "on" if flag.value else "off",
                      "by default" if flag.value is flag.default else "not the default", flag.doc)
                     for flag in rule.flags)  # fmt: skip
    yield "\nState"
    states = [(state.name, f"starts as {text.expression(state.init)}", state.doc) for state in rule.states]
    yield _table(states or [("none",)])
    moved = f"{bytes_moved(low, 4)} bytes per element a step in float32, {bytes_moved(low, 8)} in float64"
    yield f"\nMoves\n  {moved}\n\nExactness\n  {exactness(low)}"
    if rule.reference:
        yield f"\nReference\n  {rule.reference}"


def _ir(checked: Rule, low: Rule) -> Iterator[RenderableType]:
    from .emit import text
    from .ir import extent_of, loads

    blocks = (
        (f"{checked.name}, checked: as the interpreter runs it", checked.body),
        (f"\n{low.name}, lowered: scalars, in float64 on the host, once a step", low.scalars),
        (f"\n{low.name}, lowered: for every element, in the compute type", low.body),
    )
    for title, block in blocks:
        yield title
        rows = [(extent_of(assign.value).name.lower(), text.formula(assign)) for assign in block]
        yield _table(rows or [("none",)])
    for verb, arrays in (("loads", loads(low)), ("stores", low.stores)):
        yield f"\n{verb}: {', '.join(name for name in low.arrays if name in arrays)}"


@main.command()
def doctor() -> None:
    """Say what works here, and what to do if not."""
    from .doctor import examine

    findings = list(examine())
    rows = []
    for f in findings:
        rows.append((f.subject, "ok" if f.well else "NOT OK", f"{f.found}\nto do: {f.advice}" if f.advice else f.found))
    _print(_table(rows, indent=0))
    if not all(finding.well for finding in findings):
        raise SystemExit(1)


# ---- Text on the standard output ----


def _table(rows: Iterable[Sequence[str]], *headers: str, indent: int = 2) -> RenderableType:
    from rich.padding import Padding
    from rich.table import Table

    cells = list(rows)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(headers))
    for i in range(len(headers) or len(cells[0])):
        table.add_column(headers[i] if headers else "")
    for row in cells:
        table.add_row(*map(_plain, row))
    return Padding(table, (0, 0, 0, 0 if headers else indent))


def _print(*parts: RenderableType) -> None:
    """Fitted to a terminal; in a pipe or file plain text, a row a line however long."""
    from rich.console import Console

    # What a spec says is text, and nothing but text: no markup.
    console = Console(markup=False, emoji=False, highlight=False, force_terminal=sys.stdout.isatty())
    if not console.is_terminal:
        console.width = 10_000
    with console.capture() as capture:
        for part in parts:
            console.print(_plain(part) if isinstance(part, str) else part)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _plain(text: str) -> str:
    """Without the characters that command a terminal or hide; a spec may be a stranger's."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def _print_raw(text: str) -> None:
    """Byte for byte, and in UTF-8 whatever the locale is: what is shown is a file for a compiler."""
    click.echo(text.encode(), nl=False)
