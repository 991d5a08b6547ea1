"""The C files of `templates/c`, joined into one source.

In: nothing but the files. Out: the source of the runtime, and the declarations that each kernel library opens with.
"""

from __future__ import annotations

import re

from ..paths import C_FILES

__all__ = ["FILES", "headers", "joined", "runtime_source"]

#: The files of the runtime, each after those that it builds on.
FILES = ("fpu.c", "traverse.c", "pool.c", "guard.c")
_OPENING = """\
/* The runtime of optgen: cuts a step into chunks and gives them to threads. Knows no rule.
 *
 * Joined by optgen from the files of templates/c: edit these. */
#define OPTGEN_PRIVATE static
"""


def headers(library: str) -> dict[str, str]:
    """What a library opens with: the interface that all share, and its own declarations, the file `library`. Bare of
    comments but for one: the files explain themselves, and each kernel library repeats them."""
    abi = f"/* The interface to the runtime, which `templates/c/abi.h` of optgen explains. */\n{_bare(joined('abi.h'))}"
    return {"abi": abi, "library": _bare(joined(library, without="abi.h"))}


def _bare(text: str) -> str:
    """C without comments, includes and blank lines."""
    text = re.sub(r" */\*.*?\*/", "", text, flags=re.DOTALL)
    return "".join(line for line in text.splitlines(keepends=True) if line.strip() and not line.startswith("#include"))


def runtime_source() -> str:
    """The C of the runtime: threads and chunks, the same for all rules."""
    return _OPENING + joined(*FILES)


def joined(*names: str, without: str = "") -> str:
    """The text of these files of `templates/c`, one after the other. A file that one of them includes takes the place
    of its first `#include`, unless it is `without`."""
    seen = {without}

    def text(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        words = (C_FILES / name).read_text("utf-8").replace("#pragma once\n", "")
        return re.sub(r'(?m)^#include "(.+)"\n', lambda match: text(match[1]), words)

    return "\n".join(map(text, names))
