"""C source in, a shared library out; nothing here knows of optimisers.

In comes the text of one C file. It is compiled by the user's C compiler with one fixed set of flags. A library appears
under its name only when it is whole, so a build may be killed at any time, or race with others, and nobody loads half
a file. A compiler that hangs is given up.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import signal
import struct
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from ..errors import ArgumentError, CompilerError, CompilerNotFound
from ..frozen import frozen
from .files import read_regular, temporary_name

__all__ = ["FLAGS", "Compiler", "compile_library", "find_compiler", "is_whole", "time_limit"]

# Never -ffast-math, which gives up the equality with the interpreter and changes the denormals of the whole process.
# Never -march=native, which makes a cache or a wheel crash on another machine: the source chooses at load instead.
FLAGS: tuple[str, ...] = (
    "-std=c11",  # ISO mode: no excess precision, and no macros like `linux` among the names that a spec may use
    "-O3",  # the level at which every compiler we know vectorises loops
    "-fPIC",  # a shared library is loaded at any address
    "-shared",
    "-pthread",  # the thread pool
    "-ffp-contract=off",  # a*b + c rounds twice, as in the interpreter: bits must not depend on the processor
    "-fno-math-errno",  # sqrt may be one instruction; nobody reads errno, and the value is the same
    "-fno-trapping-math",  # a select may compute both sides; nobody reads the exception flags, and values are the same
    "-fvisibility=hidden",  # two libraries in one process must not find each other's functions
)

CANDIDATES = ("cc", "gcc", "clang")
INSTALL = (
    "install a compiler (Debian and Ubuntu: apt install gcc; Fedora: dnf install gcc; macOS: xcode-select --install), "
    'or name one in $CC; backend="interpreter" works without'
)
TIME_LIMIT = "OPTGEN_COMPILER_TIMEOUT"
USUAL_LIMIT = 300.0  # seconds; a rule of the largest size that is allowed takes a tenth of it
ANSWER_LIMIT = 60.0  # seconds for a question of one word


@frozen
class Compiler:
    """A C compiler that runs: how it is called, and what it says it is."""

    command: tuple[str, ...]
    version: str


def find_compiler() -> Compiler:
    """The compiler that `$CC` names, else the first of cc, gcc and clang that runs. Asked once for each CC and PATH.

    Raises `CompilerNotFound`, which says what was tried and how to get a compiler.
    """
    return _find(os.environ.get("CC", ""), os.environ.get("PATH", ""))


@lru_cache
def _find(cc: str, path: str) -> Compiler:  # `path` only so that another PATH is searched anew
    try:
        named = tuple(shlex.split(cc))
    except ValueError:  # An unclosed quote: as one word it will not run, and the message shows it.
        named = (cc,)
    faults = []
    for command in [named] if named else [(candidate,) for candidate in CANDIDATES]:
        try:
            return Compiler(command, f"{_ask(command, '--version')} {_ask(command, '-dumpmachine')}")
        except (OSError, subprocess.SubprocessError) as fault:
            faults.append(str(fault))
    tried = f"$CC is {cc!r}, which does not run" if named else f"none of {', '.join(CANDIDATES)} on PATH runs"
    raise CompilerNotFound(f"no C compiler: {tried}\n  {'; '.join(faults)}", hint=INSTALL)


def _ask(command: tuple[str, ...], question: str) -> str:
    # In one locale, for the answer is part of the key.
    environment = {**os.environ, "LC_ALL": "C"}
    answer = _run([*command, question], ANSWER_LIMIT, environment)
    answer.check_returncode()
    return answer.stdout.decode(errors="replace").partition("\n")[0].strip()


def _run(
    command: Sequence[str], limit: float, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """`subprocess.run`, in a process group of its own: a driver that is given up takes along what it has started."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        process_group=0 if hasattr(os, "killpg") else None,
    ) as process:
        try:
            said, complained = process.communicate(timeout=limit)
        except BaseException:  # the time is up, or somebody has interrupted
            _end(process)
            raise
    return subprocess.CompletedProcess(command, process.returncode, said, complained)


def _end(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)  # not waited for yet, so that the number is still its own
    else:
        process.kill()


def time_limit() -> float:
    """The seconds after which a compiler is given up: `$OPTGEN_COMPILER_TIMEOUT`, or 300. ArgumentError for what is no
    number above 0."""
    given = os.environ.get(TIME_LIMIT, "")
    try:
        seconds = float(given) if given else USUAL_LIMIT
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        message = f"{TIME_LIMIT}: expected a number of seconds above 0, got {given[:40]!r}"
        raise ArgumentError(message, hint=f"unset it for {USUAL_LIMIT:g} seconds")
    return seconds


def compile_library(
    source: str, target: Path, compiler: Compiler | None = None, extra_flags: tuple[str, ...] = ()
) -> str:
    """Compile `source` to the shared library `target`, which appears whole or not at all; returns its digest.

    Raises `CompilerNotFound`, `CompilerError` with what the compiler said, and `OSError` where the folder of `target`
    cannot be written.
    """
    compiler = compiler or find_compiler()
    build = temporary_name(target)
    try:
        build.mkdir(mode=0o700)
        text, library = build / f"{target.stem}.c", build / target.name
        text.write_bytes(source.encode())
        command = [*compiler.command, *FLAGS, *extra_flags]
        try:
            done = _run([*command, "-o", str(library), str(text), "-lm"], limit := time_limit())
        except OSError as fault:
            raise CompilerNotFound(f"the C compiler does not run: {fault}", hint=INSTALL) from fault
        except subprocess.TimeoutExpired:
            message = f"the C compiler was given up: it made no library of {text.name} in {limit:g} seconds"
            hint = f"{TIME_LIMIT} sets another limit; {_called(command, compiler)}"
            raise CompilerError(message, hint=hint) from None
        try:
            made = read_regular(library)
        except OSError:
            made = b""
        if done.returncode or not is_whole(made):
            lines = done.stderr.decode(errors="replace").replace(f"{build}{os.sep}", "").strip().splitlines()
            if len(lines) > 40:
                lines[20:-20] = [f"... {len(lines) - 40} lines left out ..."]
            raise CompilerError(
                f"the C compiler made no library of {text.name} (exit status {done.returncode})\n"
                + "\n".join(line[:300] for line in lines),
                hint=_called(command, compiler),
            )
        library.replace(target)
        return sha256(made).hexdigest()
    finally:
        shutil.rmtree(build, ignore_errors=True)


def _called(command: Sequence[str], compiler: Compiler) -> str:
    return f"it was called as `{shlex.join(command)}`; $CC can name another: this one is {compiler.version}"


def is_whole(library: bytes) -> bool:
    """Whether nothing is missing at the end of a shared library, which would end the process that loads it."""
    if not library.startswith(b"\x7fELF"):
        return bool(library)  # of other systems, whose loaders look for themselves
    try:
        order = "<>"[library[5] - 1]
        wide = library[4] == 2
        (table,) = struct.unpack_from(order + ("Q" if wide else "I"), library, 32 if wide else 28)
        size, count = struct.unpack_from(order + "2H", library, 54 if wide else 42)
        for at in range(table, table + size * count, size):
            begin, length = struct.unpack_from(order + ("8xQ16xQ" if wide else "4xI8xI"), library, at)
            if begin + length > len(library):
                return False
    except (struct.error, IndexError, ValueError):
        return False
    return True
