"""`optgen bench`: rules measured beside others.

In: the command line. Out: tables on standard output, a file of figures, a picture.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import OptgenError
from .output import SPEC, print_blocks

__all__ = ["bench"]


@click.command()
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
    print_blocks(*benching.report(results))
    if targets:
        click.echo()
        print_blocks(*aims.report(verdicts))
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
