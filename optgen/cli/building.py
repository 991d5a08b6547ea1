"""`optgen build`: specs, or the shipped rules, to modules in a folder.

In: the command line. Out: files, a line on standard output for each, and faults, which are raised together at the end.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..compiler import catalogue
from ..errors import CompilerNotFound, OptgenError
from ..runtime import machine
from .output import SPEC

if TYPE_CHECKING:
    from ..compiler.build import Job

__all__ = ["build"]


@click.command()
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
        wanted = [job for job in wanted if job.compilation]  # the others are looked for in optgen's own folder only
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
