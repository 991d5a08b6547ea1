"""The C files of `templates/c`, joined into one source.

In: nothing but the files. Out: the source of the runtime, and the declarations that each kernel library opens with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..paths import C_FILES
from .functions import host_source
from .jinja import braced

__all__ = [
    "FILES",
    "headers",
    "instruction_sets",
    "joined",
    "random_numbers",
    "reductions",
    "runtime_source",
    "storages",
    "storages_source",
]

#: The files of the runtime, each after those that it builds on.
FILES = ("fpu.c", "scratch.c", "traverse.c", "pool.c", "guard.c", "small_states.c")
_OPENING = """\
/* The runtime of optgen: cuts a step into chunks and gives them to threads. Knows no rule.
 *
 * Joined by optgen from the files of templates/c: edit these. */
#define OPTGEN_PRIVATE static
"""


def headers(library: str, *, reduces: bool = True) -> dict[str, str]:
    """What a library opens with: the interface that all share, and its own declarations, the file `library`. Bare of
    comments but for one: the files explain themselves, and each kernel library repeats them. The constants of
    reductions and the kinds of layouts stand only in a library that `reduces`."""
    abi = _compact(_bare(joined("abi.h")))
    if not reduces:
        abi = re.sub(r"(?m)^(#define OPTGEN_(?!ABI)|enum ).*\n(    .*\n|};\n)*", "", abi)
    words = "/* The interface to the runtime, which `templates/c/abi.h` of optgen explains. */"
    return {"abi": f"{words}\n{abi}".rstrip(), "library": _bare(joined(library, without=("abi.h",))).rstrip()}


def reductions() -> str:
    """The reductions, for a library that has any."""
    words = "/* Reductions in one order, which `templates/c/reduce.h` of optgen explains. */"
    return f"{words}\n{_bare(joined('reduce.h', without=('abi.h',)))}"


def instruction_sets() -> str:
    """The attributes of functions for each instruction set."""
    return _bare(joined("targets.h")).rstrip()


def random_numbers() -> str:
    """What draws, for a library that does."""
    words = "/* Random numbers, which `templates/c/random.h` of optgen explains. */"
    return f"{words}\n{_bare(joined('random.h', without=('abi.h',)))}"


def storages(*, blocks: bool, draws: bool) -> str:
    """The storages, for a library that keeps arrays in them. `blocks`: in those with scales too. `draws`: it has
    `random_numbers` too, before this."""
    words = "/* Storages, which `templates/c/storage.h` of optgen explains. */"
    file = "block_storage.h" if blocks else "storage.h"
    return f"{words}\n{_bare(joined(file, without=('abi.h', 'philox.h') if draws else ('abi.h',)))}"


def _bare(text: str) -> str:
    """C without comments, includes and blank lines."""
    text = re.sub(r"(?m)^ */\*(?:(?!\*/)[\s\S])*\*/ *\\?\n| */\*(?:(?!\*/)[\s\S])*\*/", "", text)
    return "".join(line for line in text.splitlines(keepends=True) if line.strip() and not line.startswith("#include"))


def _compact(text: str) -> str:
    """Declarations on as few lines as hold them, each within the width of a line."""

    def short(match: re.Match[str]) -> str:
        head, body, tail = match[1], " ".join(match[2].split()), match[3]
        return braced(f"{head} {{", re.split(r"(?<=[;,]) (?=\w+ [*\w]|OPTGEN_)", body), f"}}{tail};")

    return re.sub(r"(?m)^(typedef struct|enum) \{\n((?: .*\n)+)\}(.*);$", short, text)


def runtime_source() -> str:
    """The C of the runtime: threads, chunks and functions, the same for all rules."""
    return "\n".join([_OPENING + joined(*FILES), host_source()])


def storages_source() -> str:
    """The C of the library that loads and stores whole arrays."""
    return "/* Storages of optgen, joined from the files of templates/c: edit these. */\n" + joined("quantise.c")


def joined(*names: str, without: Iterable[str] = ()) -> str:
    """The text of these files of `templates/c`, one after the other. A file that one of them includes takes the place
    of its first `#include`, unless it is one of `without`."""
    seen = set(without)

    def text(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        words = (C_FILES / name).read_text("utf-8").replace("#pragma once\n", "")
        return re.sub(r'(?m)^#include "(.+)"\n', lambda match: text(match[1]), words)

    return "\n".join(map(text, names))
