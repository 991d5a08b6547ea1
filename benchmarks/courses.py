"""Measure what courses save: a step of a rule that does something every ten steps, in ratio to one in each step.

    python -m benchmarks.courses [--json FILE]

In: nothing. Out: a table, and the figures as JSON.

Both step the same kernel on one thread, in turns of ten steps in one process; only the hyperparameter that counts the
steps differs. Times are medians of the processor time of a turn.
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
from optgen.compiler.driver import compile_text
from optgen.optimiser.classes import module_class

from .measure import in_turns

TURN = 10
REPEATS = 15
SHAPES = {"100 × 64 × 64": [(64, 64)] * 100, "2 × 2048 × 1024": [(2048, 1024)] * 2}

#: What is refreshed, of a running step: a norm; norms of rows and columns, then one of what they scale; elements.
HEAD = """
[hyperparameters]
eta   = { default = 0.01, range = "[0, inf)" }
every = { default = 1, range = "[1, inf), whole" }
[state]
m = { init = "0" }
"""
NORM = f"""
name = "Normed"{HEAD}
r = {{ init = "1", extent = "tensor" }}
[update]
formulas = '''
m     = 0.9*m + 0.1*g
r     = norm(m) if t % every == 0 else r
delta = eta*m/(r + 1e-8)
'''
"""
NORMS = f"""
name = "Scaled"{HEAD}
row_scale    = {{ init = "1", extent = "row" }}
column_scale = {{ init = "1", extent = "column" }}
r            = {{ init = "1", extent = "tensor" }}
[update]
formulas = '''
due          = t % every == 0
m            = 0.9*m + 0.1*g
row_scale    = 1/(norm(m, row) + 1e-8) if due else row_scale
column_scale = 1/(norm(m, column) + 1e-8) if due else column_scale
scaled       = m*row_scale*column_scale
r            = norm(scaled) if due else r
delta        = eta*scaled/(r + 1e-8)
'''
"""
ELEMENTS = f"""
name = "Elements"{HEAD}
h = {{ init = "1" }}
[update]
formulas = '''
m     = 0.9*m + 0.1*g
h     = log(1 + exp(abs(m))) if t % every == 0 else h
delta = eta*m/h
'''
"""


def rule(text: str) -> Callable[[int], Any]:
    return lambda every: module_class(compile_text(text, "refreshed.toml"))(every=every)


#: What is measured, made for the number of steps between two times.
CONTESTANTS: dict[str, Callable[[int], Any]] = {
    "a norm": rule(NORM),
    "three norms, one of the others": rule(NORMS),
    "log and exp of elements": rule(ELEMENTS),
    "AccumGrad(n), ADAM": lambda every: optgen.chain(optgen.AccumGrad(every), optgen.ADAM()),
    "ADAM, Lookahead(k)": lambda every: optgen.chain(optgen.ADAM(), optgen.Lookahead(every)),
}


def turn(opt: Any, params: list[Any], grads: list[Any]) -> float:
    """The processor seconds of one turn."""
    start = time.process_time()
    for _ in range(TURN):
        opt.step(params, grads)
    return time.process_time() - start


def measure() -> Iterator[dict[str, Any]]:
    """Of each contestant and list of shapes: seconds of a step that does all, of one in ten that does, their ratio."""
    rng = np.random.default_rng(0)
    for title, shapes in SHAPES.items():
        grads = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
        for name, make in CONTESTANTS.items():
            turns = [
                partial(turn, make(every), [rng.standard_normal(shape, dtype=np.float32) for shape in shapes], grads)
                for every in (1, TURN)
            ]
            always, seldom, ratio = in_turns(*turns, REPEATS)
            yield {"name": name, "shapes": title, "always": always / TURN, "seldom": seldom / TURN, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    os.environ["OPTGEN_NUM_THREADS"] = "1"
    figures = list(measure())
    table = Table("what", "shapes", "in each step", "every ten steps", "ratio")
    for each in figures:
        times = (f"{1e6 * each[when]:.0f} µs" for when in ("always", "seldom"))
        table.add_row(each["name"], each["shapes"], *times, f"{each['ratio']:.2f}")
    Console().print(table)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1), "utf-8")


if __name__ == "__main__":
    main()
