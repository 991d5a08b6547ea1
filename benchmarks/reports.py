"""Measure what reports cost: a step of a rule that reports something, in ratio to the same rule without.

    python -m benchmarks.reports [--json FILE]

In: nothing. Out: a table, and the figures as JSON; the exit status says whether a limit is passed.

Both take turns in one process, on one thread, with parameters that no cache holds. Times are medians of the processor
time of a turn; the ratio is the median of those within a round. One of them reads its reports after each step.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import optgen
from optgen.compiler.catalogue import shipped_spec
from optgen.compiler.driver import compile_text
from optgen.optimiser.classes import module_class

from .measure import in_turns

TURN = 4
REPEATS = 15
SHAPE = (4096, 6144)
#: The most that a report of one number may cost, past the caches, in ratio to a step without it.
MOST = 1.03
#: What reports several numbers, for which there is no limit.
MANY = "ADAM: norms of gradient, step and parameter"


def rule(name: str, report: str = "") -> Any:
    """A shipped rule without its reports, or with this one."""
    spec = shipped_spec(name)
    assert spec is not None
    text = spec.read_text("utf-8").split("[report]")[0]
    return module_class(compile_text(text + (f"\n[report]\n{report}\n" if report else ""), spec.name))


#: What is measured, made without a report and with one.
CONTESTANTS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "LAMB: its trust ratio": (lambda: rule("LAMB")(), optgen.LAMB),
    "ClipGlobalNorm, ADAM: the norm": (
        lambda: optgen.chain(rule("ClipGlobalNorm")(), optgen.ADAM()),
        lambda: optgen.chain(optgen.ClipGlobalNorm(), optgen.ADAM()),
    ),
    "ClipGrad, ADAM: the share of clipped elements": (
        lambda: optgen.chain(optgen.ClipGrad(), optgen.ADAM()),
        lambda: optgen.chain(optgen.ClipGrad(reporting=True), optgen.ADAM()),
    ),
    "ADAM: the norm of the gradient": (
        lambda: rule("ADAM")(),
        lambda: rule("ADAM", 'norm = { value = "norm(g)" }')(),
    ),
    MANY: (
        lambda: rule("ADAM")(),
        lambda: rule(
            "ADAM",
            'g = { value = "norm(g)" }\nstep = { value = "norm(delta)" }\np = { value = "norm(p)" }',
        )(),
    ),
}


def turn(opt: Any, params: list[Any], grads: list[Any]) -> float:
    """The processor seconds of one turn."""
    start = time.process_time()
    for _ in range(TURN):
        opt.step(params, grads)
        opt.report(params[0])
    return time.process_time() - start


def measure() -> Iterator[dict[str, Any]]:
    """Of each contestant: seconds of a step without a report and with one, and their ratio."""
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(SHAPE, dtype=np.float32)]
    for name, makes in CONTESTANTS.items():
        turns = [partial(turn, make(), [rng.standard_normal(SHAPE, dtype=np.float32)], grads) for make in makes]
        without, with_report, ratio = in_turns(*turns, REPEATS)
        yield {"name": name, "without": without / TURN, "with": with_report / TURN, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    os.environ["OPTGEN_NUM_THREADS"] = "1"
    figures = list(measure())
    table = Table("what is reported", "without", "with", "ratio", title=f"A report of one number: at most {MOST}")
    for each in figures:
        times = (f"{1e3 * each[when]:.1f} ms" for when in ("without", "with"))
        table.add_row(each["name"], *times, f"{each['ratio']:.3f}")
    Console().print(table)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1), "utf-8")
    raise SystemExit(any(each["ratio"] > MOST for each in figures if each["name"] != MANY))


if __name__ == "__main__":
    main()
