"""Text on the standard output: fitted to a terminal, plain in a pipe, byte for byte for a compiler.

In: blocks of a page. Out: lines.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .pages import Block, Table

__all__ = ["SPEC", "print_blocks", "print_raw"]

#: A path on the command line.
SPEC = click.Path(path_type=Path)
#: The width of a terminal, in columns, from which names and numbers are never broken.
ROOMY = 72


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


def print_blocks(*parts: Block) -> None:
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


def print_raw(text: str) -> None:
    """Print a file for a compiler byte for byte, in UTF-8 whatever the locale."""
    click.echo(text.encode(), nl=False)
