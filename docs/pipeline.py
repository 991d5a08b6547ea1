"""The picture of the pipeline, drawn for a light and for a dark background.

    python docs/pipeline.py [FOLDER]     # writes pipeline-light.svg and pipeline-dark.svg; by default beside this file

It needs matplotlib: `pip install ".[demo]"`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

WIDTH, HEIGHT = 1.62, 0.86
STEP, TOP, MIDDLE, BOTTOM = 2.06, 3.6, 1.95, 0.3


@dataclass(frozen=True)
class Theme:
    text: str
    faint: str
    line: str
    fill: str
    kernel: str
    oracle: str
    reader: str
    user: str


LIGHT = Theme("#1f2328", "#59636e", "#818b98", "#f6f8fa", "#0969da", "#1a7f37", "#8250df", "#bc4c00")
DARK = Theme("#f0f6fc", "#9198a1", "#7d8590", "#161b22", "#58a6ff", "#3fb950", "#bc8cff", "#f0883e")
THEMES = {"light": LIGHT, "dark": DARK}

#: Each module of the pipeline: its column, row, colour, and what it makes.
BOXES = {
    "language": (1.0, TOP, "line", "parses, checks,\ntypes"),
    "ir": (2.0, TOP, "line", "the rule, typed"),
    "lowering": (3.0, TOP, "kernel", "sweeps and\nsmall loops"),
    "codegen": (4.0, TOP, "kernel", "C source"),
    "compiler": (5.0, TOP, "kernel", "verified library,\ncached"),
    "notation": (0.0, MIDDLE, "reader", "text, LaTeX"),
    "interpreter": (2.0, MIDDLE, "oracle", "the oracle,\nin NumPy"),
    "functional": (1.0, MIDDLE, "oracle", "NumPy, torch,\nJAX"),
    "runtime": (5.0, MIDDLE, "kernel", "arrays in,\none call out"),
    "cli": (0.0, BOTTOM, "reader", "the command\noptgen"),
    "training": (2.0, BOTTOM, "user", "gradient,\ntrain"),
    "optimiser": (3.5, BOTTOM, "user", "settings, state,\nchains"),
    "jax": (1.0, BOTTOM, "user", "transformations\nof optax"),
    "torch": (5.0, BOTTOM, "user", "drop-in for\ntorch.optim"),
}
#: From, to, colour.
ARROWS = (
    ("language", "ir", "line"),
    ("ir", "lowering", "kernel"),
    ("lowering", "codegen", "kernel"),
    ("codegen", "compiler", "kernel"),
    ("compiler", "runtime", "kernel"),
    ("ir", "interpreter", "oracle"),
    ("ir", "notation", "reader"),
    ("notation", "cli", "reader"),
    ("interpreter", "functional", "oracle"),
    ("interpreter", "optimiser", "oracle"),
    ("functional", "jax", "user"),
    ("runtime", "optimiser", "kernel"),
    ("runtime", "torch", "kernel"),
    ("optimiser", "training", "user"),
)
FORMULAS = "m = β₁·m + (1 − β₁)·g\nv = β₂·v + (1 − β₂)·g²\nδ = …"


def centre(name: str) -> tuple[float, float]:
    column, row, *_ = BOXES[name]
    return column * STEP + 0.35, row


def box(axes: Axes, name: str, theme: Theme) -> None:
    _, _, colour, makes = BOXES[name]
    x, y = centre(name)
    shape = FancyBboxPatch(
        (x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.09", linewidth=1.4,
        facecolor=theme.fill, edgecolor=getattr(theme, colour), zorder=3, gid=name,
    )  # fmt: skip
    axes.add_patch(shape)
    rise = 0.23 if "\n" in makes else 0.15
    axes.text(x, y + rise, name, ha="center", va="center", fontsize=12.5, weight="bold", color=theme.text, zorder=4)
    axes.text(x, y - 0.15, makes, ha="center", va="center", fontsize=9.2, linespacing=1.2, color=theme.faint, zorder=4)


def spec(axes: Axes, theme: Theme) -> None:
    """The text that everything is made of: a page, left of all modules."""
    left, right, low, high, fold = -1.2, 1.18, TOP - 0.72, TOP + 0.58, 0.2
    page = plt.Polygon(
        [(left, low), (right, low), (right, high - fold), (right - fold, high), (left, high)], closed=True,
        facecolor=theme.fill, edgecolor=theme.line, linewidth=1.4, joinstyle="round", zorder=3, gid="spec",
    )  # fmt: skip
    axes.add_patch(page)
    corner = [(right - fold, high), (right - fold, high - fold), (right, high - fold)]
    axes.plot(*zip(*corner, strict=True), color=theme.line, linewidth=1.4, zorder=4)
    axes.text(
        left + 0.13, high - 0.22, "adam.toml", fontsize=12.5, weight="bold", color=theme.text, va="center", zorder=4
    )
    axes.text(
        left + 0.13, TOP - 0.24, FORMULAS, fontsize=9.2, linespacing=1.45, color=theme.faint, va="center", zorder=4
    )
    arrow(axes, (right, TOP), (centre("language")[0] - WIDTH / 2, TOP), theme.line, "spec-language")


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, gid: str) -> None:
    patch = FancyArrowPatch(
        start, end, arrowstyle="-|>,head_width=3.2,head_length=6", shrinkA=1, shrinkB=1.5, linewidth=1.5, color=colour,
        zorder=2, gid=gid,
    )  # fmt: skip
    axes.add_patch(patch)


def ends(start: str, end: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where an arrow leaves one box and meets the other: at sides in one row, else at edges below and above."""
    (x, y), (to_x, to_y) = centre(start), centre(end)
    if y == to_y:
        side = WIDTH / 2 if to_x > x else -WIDTH / 2
        return (x + side, y), (to_x - side, to_y)
    lean = 0.0 if x == to_x else (WIDTH / 4 if to_x > x else -WIDTH / 4)
    return (x + lean, y - HEIGHT / 2), (to_x - lean, to_y + HEIGHT / 2)


def draw(theme: Theme, file: Path) -> None:
    figure, axes = plt.subplots(figsize=(12.2, 4.9))
    axes.set_xlim(-1.3, 5 * STEP + 0.35 + WIDTH / 2 + 0.1)
    axes.set_ylim(BOTTOM - 0.55, TOP + 0.68)
    axes.set_aspect("equal")
    axes.axis("off")
    spec(axes, theme)
    for name in BOXES:
        box(axes, name, theme)
    for start, end, colour in ARROWS:
        arrow(axes, *ends(start, end), getattr(theme, colour), f"{start}-{end}")
    left, right = centre("interpreter")[0] + WIDTH / 2 + 0.08, centre("runtime")[0] - WIDTH / 2 - 0.08
    for shift in (-0.035, 0.035):
        axes.plot([left, right], [MIDDLE + shift] * 2, color=theme.oracle, linewidth=1.3, zorder=1)
    axes.text(
        (left + right) / 2, MIDDLE + 0.1, "equal, bit for bit", ha="center", va="bottom", fontsize=11, style="italic",
        color=theme.oracle,
    )  # fmt: skip
    figure.savefig(
        file, transparent=True, bbox_inches="tight", pad_inches=0.05, dpi=110, metadata=METADATA.get(file.suffix)
    )
    plt.close(figure)


#: No date, so that the same picture is the same file.
METADATA = {".svg": {"Date": None, "Title": "The pipeline of optgen"}}


def main(folder: Path) -> None:
    mpl.rcParams.update({"svg.hashsalt": "optgen", "svg.fonttype": "path", "font.family": "DejaVu Sans"})
    folder.mkdir(parents=True, exist_ok=True)
    for name, theme in THEMES.items():
        draw(theme, folder / f"pipeline-{name}.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
