"""Run the jobs of `optgen bench`, and tabulate what comes back.

In: names of rules, shapes and peers. Out: results, one dictionary a job, and tables of them. A process for each number
of threads measures; `worker` writes its results, and `document` says what a file of them holds.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from itertools import groupby
from typing import Any

from optgen.cli.pages import Block, Table
from optgen.errors import ArgumentError, OptgenError
from optgen.runtime import library
from optgen.runtime.machine import processors

from . import rules, shapes
from .jobs import Job, environment
from .peers import PEERS
from .shapes import TITLES

__all__ = [
    "DEFAULT_RULES", "DEFAULT_SHAPES", "chosen_rules", "chosen_shapes", "document", "duration", "jobs", "machine",
    "measured", "report", "thread_counts",
]  # fmt: skip

DEFAULT_RULES = ("Adam",)
DEFAULT_SHAPES = ("100x64", "1x1M", "resnet50", "1x25M")
PACKAGES = ("numpy", "torch", "deepspeed", "jax", "optax", "numba")

_CHILD = "from optgen.paths import benchmarks; benchmarks('worker').main()"

Result = dict[str, Any]


def chosen_rules(names: Sequence[str], *, everything: bool) -> list[str]:
    """The rules of these names, each once. Without names: Adam, or all rules if `everything` is wanted."""
    if "all" in map(str.lower, names) or (everything and not names):
        return rules.names()
    return list(dict.fromkeys(map(rules.find, names or DEFAULT_RULES)))


def chosen_shapes(names: Sequence[str]) -> list[str]:
    if "all" in map(str.lower, names):
        return list(shapes.SHAPES)
    return list(dict.fromkeys(map(shapes.find, names or DEFAULT_SHAPES)))


def thread_counts(text: str | None) -> list[int]:
    """The numbers in a list with commas. Without a list: one, and two where there are two processors."""
    if text is None:
        return [count for count in (1, 2) if count <= processors()]
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ArgumentError(f"--threads: expected numbers with commas between them, got {text!r}", hint="1,2")
    counts = list(dict.fromkeys(map(int, parts)))
    if max(counts) > processors():
        hint = f"take at most {processors()}: a thread without a processor measures the scheduler"
        raise ArgumentError(f"{max(counts)} threads were asked for, and there are {processors()} processors", hint=hint)
    return counts


def jobs(names: Sequence[str], models: Sequence[str], peers: Sequence[str], rounds: int) -> list[Job]:
    """A job for each rule and list of shapes, list by list."""
    return [Job("steps", name, model, list(peers), rounds) for model in models for name in names]


def measured(work: Sequence[Job], threads: int) -> Iterator[Result]:
    """The results of jobs, in order, each as soon as a process of its own has it. OptgenError if that process fails,
    with its last lines."""
    text = json.dumps({"threads": threads, "jobs": [job.json() for job in work]})
    with tempfile.TemporaryFile() as said:
        command, pipe, variables = [sys.executable, "-c", _CHILD], subprocess.PIPE, _with_us(environment(threads))
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=said, env=variables, text=True, encoding="utf-8"
        ) as child:
            try:
                assert child.stdin is not None
                assert child.stdout is not None
                with child.stdin as stdin:
                    stdin.write(text)
                yield from map(json.loads, child.stdout)
            except BaseException:  # the caller stopped reading, or Ctrl-C
                child.kill()
                raise
        if child.returncode:
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").strip().splitlines()
            words = "\n".join(lines[-5:])
            raise OptgenError(f"the process that measures ended with status {child.returncode}:\n{words}")


def _with_us(variables: Any) -> dict[str, str]:
    """The variables, with the folder of this optgen on the child's path, wherever this process found it."""
    import optgen

    folder = os.path.dirname(os.path.dirname(optgen.__file__))
    paths = [folder, *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {**variables, "PYTHONPATH": os.pathsep.join(paths)}


def document(results: Sequence[Result], verdicts: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """All results, for a file.

    Returns
    -------
    `machine`
        The machine, and the versions of the installed peers.
    `results`
        For each rule, shape and number of threads: the least `bytes` of a step; by contestant, the median `seconds` of
        a step, its `quartiles`, and `ratio`, how many times as long as optgen's it takes; `notes`, why a peer has no
        times. Other experiments have their own `kind`.
    `targets`
        What was to be reached, and whether it was.
    """
    return {"machine": machine(), "results": list(results), "targets": list(verdicts)}


def machine() -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "architecture": platform.machine(),
        "isa": library.runtime().isa,
        "processors": processors(),
        "python": platform.python_version(),
        "versions": versions,
    }


# ---- Pages ----


def report(results: Iterable[Result]) -> Iterator[Block]:
    """A table for each list of shapes and number of threads; then the peers that are missing, and why."""
    results = [r for r in results if r["kind"] == "steps"]
    where = machine()
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items() if version)
    yield f"{where['architecture']}, {where['isa']}, float32; Python {where['python']}, {versions}"
    yield "× optgen: how many times as long a step takes as optgen's; of the memory limit: how near optgen is"
    for (shape, threads), group in groupby(results, key=lambda r: (r["shape"], r["threads"])):
        own = list(group)
        first = own[0]
        plural = "" if threads == 1 else "s"
        tensors = f"{first['tensors']} tensor{'' if first['tensors'] == 1 else 's'}"
        size = f"{first['elements'] / 1e6:.3g} M elements"
        yield f"\n{TITLES[shape]} ({tensors}, {size}), {threads} thread{plural}, medians of {first['rounds']}"
        yield _table(own)
    yield from _notes(results)


def _table(results: Sequence[Result]) -> Table:
    present = [key for key in PEERS if any(key in r["contestants"] for r in results)]
    headers = ["rule", "optgen", "GB/s", "of the memory limit", *(f"× {PEERS[key].title}" for key in present)]
    rows = []
    for r in results:
        found = r["contestants"]
        seconds = found["optgen"]["seconds"]
        limit = f"{found['stream']['ratio']:.2f}" if "stream" in found else ""
        rows.append([
            r["rule"], duration(seconds), f"{r['bytes'] / seconds / 1e9:.3g}", limit,
            *(f"{found[key]['ratio']:.2f}" if key in found else "" for key in present),
        ])  # fmt: skip
    return Table(rows, headers)


def _notes(results: Sequence[Result]) -> Iterator[Block]:
    """Each reason once, with its rules, unless it holds for all of them."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for r in results:
        for key, why in r["notes"].items():
            about = reasons.setdefault((key, why), [])
            if r["rule"] not in about:
                about.append(r["rule"])
    every = {r["rule"] for r in results}
    rows = []
    for (key, why), about in reasons.items():
        title = PEERS[key].title if key in PEERS else key
        rows.append([title, why if set(about) == every and len(every) > 1 else f"{', '.join(about)}: {why}"])
    asked = {r["rule"] for r in results if r["peers"]}
    beside = {r["rule"] for r in results if r["contestants"].keys() - {"optgen", "stream"}}
    alone = asked - beside
    if rows:
        yield "\nNot measured:"
        yield Table(rows)
    if alone:
        yield f"\nNo peer that is here has {', '.join(sorted(alone, key=str.lower))}."


def duration(seconds: float) -> str:
    """Seconds as text, with three digits and the unit that fits."""
    for unit, size in (("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
