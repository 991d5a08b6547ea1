"""A check of everything that optgen needs on this machine, with advice for whatever is missing.

In: nothing. Out: a `Finding` for each requirement. A failed check never prevents the others.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from .. import __version__
from ..codegen import runtime_source
from ..compiler import cache, catalogue, toolchain, trust
from ..compiler import manifest as product
from ..compiler.build import OWN
from ..errors import CompilerNotFound, OptgenError
from ..frozen import frozen
from ..paths import BUILD
from ..runtime import library, machine

__all__ = ["Finding", "examine"]

SEE_COMPILER = "see the compiler"
#: The oldest PyTorch that optgen.torch works with, as pyproject.toml declares it.
OLDEST_TORCH = 2, 5
#: What OpenBLAS calls the processors before AVX-512, for which it has slower products.
OLDER_THAN_AVX512 = ("Prescott", "Core2", "Nehalem", "Sandybridge", "Haswell", "Zen")


@frozen
class Finding:
    """The result of one check: whether all is well, what was found, and advice if something is wrong."""

    subject: str
    well: bool
    found: str
    advice: str


def examine() -> Iterator[Finding]:
    looks: dict[str, Callable[[], tuple[bool, str, str]]] = {
        "versions": _versions,
        "compiler": _compiler,
        "instruction set": _instructions,
        "threads": _threads,
        "products": _products,
        "cache folder": _cache,
        "built kernels": _kernels,
        "torch": _torch,
    }
    if find_spec("torch") is not None:
        looks |= {"torch: fast path": _fast_path, "torch: threads": _team}
    for subject, look in looks.items():
        try:
            yield Finding(subject, *look())
        except OptgenError as error:
            yield Finding(subject, False, error.message, error.hint or "")
        except (ImportError, OSError) as error:
            advice = "pip install --force-reinstall optgen" if isinstance(error, ImportError) else ""
            yield Finding(subject, False, f"{type(error).__name__}: {error}", advice)


def _versions() -> tuple[bool, str, str]:
    found, missing = [f"optgen {__version__}", f"python {platform.python_version()}"], []
    for name in ("numpy", "cffi", "jinja2", "platformdirs", "filelock"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    return not missing, ", ".join(found), f"pip install {' '.join(missing)}" if missing else ""


def _compiler() -> tuple[bool, str, str]:
    compiler = toolchain.find_compiler()
    with TemporaryDirectory() as folder:  # a compiler that runs may still lack headers or a linker
        toolchain.compile_library(runtime_source.runtime_source(), Path(folder) / "runtime.so", compiler)
    return True, f"{shlex.join(compiler.command)}: {compiler.version}", ""


def _instructions() -> tuple[bool, str, str]:
    try:
        usable = library.runtime().usable
    except CompilerNotFound:
        return False, "not known: optgen's runtime is not built", SEE_COMPILER
    chosen = machine.choose_isa(usable)
    why = "OPTGEN_ISA" if os.environ.get("OPTGEN_ISA") else "the best"
    return True, f"{chosen}, {why} of {', '.join(usable)}", ""


def _threads() -> tuple[bool, str, str]:
    count, affinity = machine.threads(), machine.processors()
    if os.environ.get("OPTGEN_NUM_THREADS"):
        why = "as OPTGEN_NUM_THREADS says"
    elif count < affinity:
        why = f"the quota of the control group; {affinity} processors by affinity"
    else:
        why = "the processors that this process may run on"
    return True, f"{count}: {why}", ""


def _products() -> tuple[bool, str, str]:
    """Which library NumPy multiplies matrices by, and for which processor that takes this one."""
    import numpy  # noqa: F401  (brings the library)
    import threadpoolctl

    try:
        found = [each for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"]
    except UnicodeError:  # a library lies where names are no text
        return True, "not known: a library of this process has a name that is no text", ""
    if not found:
        return True, "NumPy's own loops: no BLAS is known", ""
    blas = found[0]
    processor = blas.get("architecture", "")
    words = f"{blas['internal_api']} {blas['version']}{f' for {processor}' if processor else ''}"
    newer = "x86_64_v4" in library.runtime().usable and processor in OLDER_THAN_AVX512
    advice = "OPENBLAS_CORETYPE=SkylakeX: this processor has AVX-512, with which products take half the time"
    return True, words, advice if newer else ""


def _cache() -> tuple[bool, str, str]:
    folder = cache.cache_folder()
    if not os.access(folder, os.W_OK | os.X_OK):
        return False, f"expected a folder that can be written, got {folder}", trust.ELSEWHERE
    sizes = [path.stat().st_size for path in folder.glob("*/*") if path.is_file()]
    return True, f"{folder}: {len(list(folder.glob('*/*.so')))} libraries, {sum(sizes) / 1e6:.1f} MB", ""


def _kernels() -> tuple[bool, str, str]:
    stems = {path.stem: path.read_text("utf-8") for path in catalogue.shipped()} | dict.fromkeys(OWN, "")
    records = {stem: product.built_library(BUILD / f"{stem}.json", product.fingerprint(text))
               for stem, text in stems.items()}  # fmt: skip
    absent = [stem for stem, library in records.items() if library is None]
    found = f"{len(stems) - len(absent)} of {len(stems)} built and current in {BUILD}"
    if not absent:
        return True, found, ""
    try:
        toolchain.find_compiler()
    except OptgenError:
        return False, f"{found}, and no compiler to make {', '.join(absent)}", SEE_COMPILER
    return True, f"{found}; the others are compiled on first use", f"optgen build --out {BUILD} makes them now"


def _torch() -> tuple[bool, str, str]:
    oldest = ".".join(map(str, OLDEST_TORCH))
    try:
        found = version("torch")
    except PackageNotFoundError:
        return True, "not installed: only optgen.torch needs it", ""
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < OLDEST_TORCH:
        return False, f"expected torch {oldest} or newer, got {found}", f"pip install 'torch>={oldest}'"
    return True, found, ""


def _fast_path() -> tuple[bool, str, str]:
    from ..torch import tensors

    if fault := tensors.view_fault():
        slow = f"a step of 200 tensors takes some {tensors.SLOWER} times as long"
        return False, f"{fault}: {slow}", "use CPython with a PyTorch that optgen was tested with, such as 2.13"
    return True, "the runtime looks at tensors in memory", ""


def _team() -> tuple[bool, str, str]:
    from ..torch import threads

    if fault := threads.team_fault():
        return False, fault, threads.SLEEP
    count, team = threads.threads()
    return True, f"{count}, {'those of torch' if team else 'of a pool of optgen'}", ""
