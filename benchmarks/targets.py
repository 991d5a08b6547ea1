"""What optgen is to reach.

In: rules and peers, and later the results. Out: the jobs that measure, and a verdict on each figure. All of it is on
two threads, in float32. Every figure is a ratio within one run, but for the nanoseconds of a further tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optgen.cli.pages import Block, Table

from . import rules
from .bench import Result, duration
from .jobs import Job
from .peers import PEERS
from .shapes import TITLES

__all__ = ["THREADS", "Target", "batches", "judged", "report"]

THREADS = 2

OF_THE_STREAM = 0.95
#: How many times as fast as the best peer on ResNet-50: rules for which torch has a fused kernel, and others.
FUSED, NOT_FUSED = 1.0, 1.5
FOREACH = 4.0
#: Rule, shapes, peer (or the best of all), and how many times as fast.
SINGLE: tuple[tuple[str, str, str, float], ...] = (
    ("Adam", "1x1M", "torch-fused", 1.5),
    ("Adam", "512x4096", "", 3.0),
    ("Adam", "100x64", "", 15.0),
    ("clip+AdamW", "25x1M", "torch-fused", 1.4),
    ("tail", "25x1M", "torch-fused", 2.0),
)
SCALING = 1.8
NANOSECONDS = {"same": 150.0, "new": 500.0}
#: A product of matrices between steps, in ratio to one with no threads of optgen's beside it. The rest is noise.
PRODUCT = 0.95


@dataclass(frozen=True)
class Target:
    """A figure and its limit.

    Attributes
    ----------
    measured
        The figure; NaN if it could not be measured.
    least, most
        The limit, and whether it is an upper one, as of nanoseconds.
    why
        What is known to keep the figure from its limit, or from being measured.
    """

    what: str
    measured: float
    least: float
    unit: str = ""
    most: bool = False
    why: str = ""

    @property
    def ok(self) -> bool:
        return self.measured <= self.least if self.most else self.measured >= self.least

    def json(self) -> dict[str, Any]:
        fields = asdict(self)
        fields["measured"] = None if math.isnan(self.measured) else self.measured
        return fields | {"ok": self.ok}


def batches(chosen: Sequence[str], peers: Sequence[str], rounds: int) -> list[list[Job]]:
    """The jobs for these rules, a list for each process. The product of matrices and the experiments with threads need
    processes in which no other library has threads."""
    wanted = list(peers)
    plain = [name for name in chosen if name not in rules.CHAINS]
    elementwise = [name for name in plain if rules.sweeps(rules.make(name)) == 1]
    alone = [Job("product", "Adam", "", [], rounds)]
    own = [Job("threads", "Adam", "1x1M", [], rounds), Job("tensors", "Adam", "", [], rounds)]
    steps = [
        Job("steps", name, shape, [only] if only else wanted, rounds)
        for name, shape, only, _ in SINGLE
        if name in chosen and (not only or only in wanted)
    ]
    steps += [Job("steps", name, "1x25M", [], rounds) for name in elementwise]
    steps += [Job("steps", name, "resnet50", wanted, rounds) for name in plain]
    return [alone, own, steps] if "Adam" in chosen else [steps]


def judged(results: Sequence[Result]) -> list[Target]:
    """The verdicts on all that was measured."""
    return [target for result in results for target in _VERDICTS[result["kind"]](result)]


def _steps(r: Result) -> Iterator[Target]:
    where = f"{r['rule']}, {TITLES[r['shape']]}"
    found = {key: each["ratio"] for key, each in r["contestants"].items() if key != "optgen"}
    stream = found.pop("stream", math.nan)
    if r["shape"] == "1x25M":
        yield Target(f"{where}: of the memory limit", stream, OF_THE_STREAM, why=r["notes"].get("stream", ""))
        return
    limit = f"optgen is at {stream:.2f} of the memory limit" if stream >= OF_THE_STREAM else ""
    singles = [(only, least) for rule, shape, only, least in SINGLE if (rule, shape) == (r["rule"], r["shape"])]
    for only, least in singles:
        if only and only not in found:
            yield Target(f"{where}: {PEERS[only].title}", math.nan, least, "×", why=r["notes"].get(only, ""))
        elif found:
            best = only or min(found, key=found.__getitem__)
            yield Target(f"{where}: {_named(best, only)}", found[best], least, "×", why=limit)
    if r["shape"] == "resnet50" and found:
        best = min(found, key=found.__getitem__)
        yield Target(f"{where}: {_named(best, '')}", found[best], FUSED if "torch-fused" in found else NOT_FUSED, "×",
                     why=limit)  # fmt: skip
        if "torch-foreach" in found and rules.has_state(rules.make(r["rule"])):
            yield Target(f"{where}: {PEERS['torch-foreach'].title}", found["torch-foreach"], FOREACH, "×", why=limit)


def _named(key: str, only: str) -> str:
    return PEERS[key].title if only else f"the best peer, {PEERS[key].title}"


def _threads(r: Result) -> Iterator[Target]:
    yield Target(f"{r['rule']}, {TITLES[r['shape']]}: one thread, two threads", r["ratio"], SCALING, "×")


def _tensors(r: Result) -> Iterator[Target]:
    words = {"same": "the arrays of the step before", "new": "new gradient arrays"}
    for kind, most in NANOSECONDS.items():
        what = f"{r['rule']}, a further tensor of 64 elements, {words[kind]}"
        yield Target(what, r[kind] * 1e9, most, "ns", most=True)


def _product(r: Result) -> Iterator[Target]:
    for name, alone in r["alone"].items():
        between = r["between"][name]
        what = f"a product of {name}, alone {duration(alone)}, between steps {duration(between)}"
        yield Target(what, r["ratio"][name], PRODUCT, "×")


_VERDICTS = {"steps": _steps, "threads": _threads, "tensors": _tensors, "product": _product}


def report(targets: Sequence[Target]) -> Iterator[Block]:
    rows = [(t.what, _measured(t), _least(t), "ok" if t.ok else "NO", "" if t.ok else t.why) for t in targets]
    yield Table(rows, ("what", "measured", "at least", "ok", "why"))
    missed = sum(not t.ok for t in targets)
    yield f"\n{len(targets) - missed} of {len(targets)} reached"


def _measured(t: Target) -> str:
    if math.isnan(t.measured):
        return "not measured"
    return f"{t.measured:.0f} ns" if t.most else _ratio(t.measured, t)


def _least(t: Target) -> str:
    return f"at most {t.least:.0f} ns" if t.most else _ratio(t.least, t)


def _ratio(value: float, t: Target) -> str:
    return f"{value:.2f} {t.unit}".strip()
