"""Lists of shapes of parameters: many small ones, one large one, and those of two real models."""

from __future__ import annotations

from difflib import get_close_matches

from optgen.errors import ArgumentError

__all__ = ["SHAPES", "TITLES", "Shapes", "find"]

Shapes = list[tuple[int, ...]]


def resnet50() -> Shapes:
    """The shapes of the 161 parameters of ResNet-50, 25.6 million elements."""
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    inputs = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            outputs = 4 * width
            for out, into, size in ((width, inputs, 1), (width, width, 3), (outputs, width, 1)):
                shapes += [(out, into, size, size), (out,), (out,)]
            if block == 0:
                shapes += [(outputs, inputs, 1, 1), (outputs,), (outputs,)]
            inputs = outputs
    return [*shapes, (1000, 2048), (1000,)]


def gpt2() -> Shapes:
    """The shapes of the 148 parameters of GPT-2 small, 124 million elements; the head shares its own with the input."""
    width, layers, words, context = 768, 12, 50257, 1024
    norm: Shapes = [(width,), (width,)]
    layer = [*norm]
    for into, out in ((width, 3 * width), (width, width)):
        layer += [(into, out), (out,)]
    layer += norm
    for into, out in ((width, 4 * width), (4 * width, width)):
        layer += [(into, out), (out,)]
    return [(words, width), (context, width), *layer * layers, *norm]


#: By the name on the command line.
SHAPES: dict[str, Shapes] = {
    "100x64": [(64,)] * 100,
    "512x4096": [(4096,)] * 512,
    "1x1M": [(1_000_000,)],
    "1x25M": [(25_000_000,)],
    "25x1M": [(1_000_000,)] * 25,
    "resnet50": resnet50(),
    "gpt2": gpt2(),
}
TITLES = {
    "100x64": "100 × 64",
    "512x4096": "512 × 4096",
    "1x1M": "1 × 1 M",
    "1x25M": "1 × 25 M",
    "25x1M": "25 × 1 M",
    "resnet50": "ResNet-50",
    "gpt2": "GPT-2 small",
}


def find(name: str) -> str:
    """A list's name in `SHAPES`. Capitals, blanks, hyphens and the kind of cross do not matter."""
    plain = {key.lower(): key for key in SHAPES}
    plain |= {_plain(title): key for key, title in TITLES.items()}
    wanted = _plain(name)
    if wanted in plain:
        return plain[wanted]
    close = get_close_matches(wanted, plain, n=1)
    hint = f"did you mean {plain[close[0]]!r}?" if close else f"there are {', '.join(SHAPES)}"
    raise ArgumentError(f"there is no list of shapes {name!r}", hint=hint)


def _plain(name: str) -> str:
    return name.lower().replace("×", "x").replace(" ", "").replace("-", "")
