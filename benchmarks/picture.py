"""Draw how near the steps of each rule come to the memory limit, in a panel for each number of threads.

In: results of the kind "steps". Out: a picture in a file.

Across are the lists of shapes, by their number of elements. Up is the rate: the least traffic of the rule over the time
of a step. The roof is the memory limit, high where a cache holds the arrays, and flat where none does. The title says
the operations for each byte. They are the same along a panel, so up is speed too.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optgen.errors import OptgenError

from .peers import PEERS
from .shapes import TITLES

__all__ = ["draw", "expect_matplotlib"]

COLUMNS = 3
#: The mark of each peer, the same in every picture.
MARKS = dict(zip(PEERS, ("v", "^", "D", "P", "X", "s", "*", "d"), strict=True))


def expect_matplotlib() -> None:
    """OptgenError without matplotlib, before minutes are spent on measuring."""
    if find_spec("matplotlib") is None:
        raise OptgenError("a picture needs matplotlib", hint="pip install 'optgen[bench]'")


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the picture, in the format that the file's ending names. OptgenError where that fails."""
    from matplotlib.figure import Figure

    steps = [r for r in results if r["kind"] == "steps"]
    panels: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for r in steps:
        panels.setdefault((r["rule"], r["threads"]), []).append(r)
    # A row for a rule, with its numbers of threads side by side; with one number, rules stand side by side.
    panels = dict(sorted(panels.items(), key=lambda panel: panel[0]))
    counts = len({threads for _, threads in panels})
    columns = counts if counts > 1 else min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.8 * rows + 0.6), layout="constrained")
    axes = [*figure.subplots(rows, columns, squeeze=False, sharey=True).flat]
    handles: dict[str, Any] = {}
    for ax, ((rule, threads), own) in zip(axes, panels.items(), strict=False):
        _panel(ax, rule, threads, sorted(own, key=lambda r: r["elements"]))
        drawn, labels = ax.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        hint = "name a file that ends in .png, .svg or .pdf, in a folder that is there"
        raise OptgenError(f"expected to write {path}, got {error}", hint=hint) from None


def _panel(ax: Any, rule: str, threads: int, results: Sequence[dict[str, Any]]) -> None:
    """A panel: the roof and optgen as lines, the peers as marks."""

    def rates(name: str) -> tuple[list[int], list[float]]:
        having = [(i, r) for i, r in enumerate(results) if name in r["contestants"]]
        return [i for i, _ in having], [r["bytes"] / r["contestants"][name]["seconds"] / 1e9 for _, r in having]

    ax.plot(*rates("stream"), color="0.6", linewidth=5, alpha=0.5, marker="_", ms=12, label="stream", zorder=1)
    ax.plot(*rates("optgen"), color="C3", marker="o", label="optgen", zorder=3)
    for i, (key, peer) in enumerate(PEERS.items()):
        places, speeds = rates(key)
        if places:
            colour = f"C{i if i < 3 else i + 1}"  # the red is ours
            ax.plot(places, speeds, MARKS[key], color=colour, markersize=6, label=peer.title, zorder=2)
    first = results[0]
    intensity = first["flops"] * first["elements"] / first["bytes"]
    plural = "" if threads == 1 else "s"
    ax.set_title(f"{rule}, {threads} thread{plural}, {intensity:.2f} operations a byte", fontsize=10)
    ax.set_yscale("log")
    ax.set_xticks(range(len(results)), [TITLES[r["shape"]] for r in results], fontsize=8)
    ax.set_xlim(-0.5, len(results) - 0.5)
    ax.set_ylabel("GB/s of the least traffic", fontsize=8)
    ax.grid(alpha=0.3, which="both", linewidth=0.5)
