"""A compiler that logs its calls, and may do something else first."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SOURCE", "Recorded", "answer", "contents", "recorded"]

SOURCE = '__attribute__((visibility("default"))) int answer(void) { return 42; }\n'


@dataclass
class Recorded:
    """A compiler that logs its calls."""

    path: Path
    log: Path

    def calls(self, word: str) -> int:
        return sum(word in line.split() for line in self.log.read_text().splitlines()) if self.log.exists() else 0


def recorded(folder: Path, before_building: str, after_building: str = ":") -> Recorded:
    """A script that logs its arguments and calls `cc`. A build runs one shell text before and another one after it, in
    which `$out` is the library."""
    path, log = folder / "compiler", folder / "compiler.log"
    path.write_text(
        f'#!/bin/sh\ncd "{folder}"\necho "$@" >> "{log}"\n'
        'case " $* " in *" -shared "*) ;; *) exec cc "$@";; esac\n'
        f'out=$(echo "$*" | sed "s/.* -o \\([^ ]*\\) .*/\\1/")\n'
        f'{before_building}\ncc "$@" || exit\n{after_building}\n'
    )
    path.chmod(0o755)
    return Recorded(path, log)


def answer(library: Path) -> int:
    return int(ctypes.CDLL(str(library)).answer())


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
