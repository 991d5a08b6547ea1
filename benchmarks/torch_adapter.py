"""Measure a step through PyTorch's interface, beside PyTorch's own optimisers and in the loop of a real model.

    python -m benchmarks.torch_adapter [--json FILE] [--only LIST] [--rules NAME ...]

In: names of rules. Out: a table, and the figures as JSON.

What is compared takes turns in one process, on the same tensors, with two threads each. A ratio is the median over the
rounds of the ratio within a round. The peers are PyTorch's fused, foreach and for-loop implementations, where a rule
has them. Leave the machine alone meanwhile: PyTorch's threads wait for each other, so its steps take many times as long
when another process takes one of their processors.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPTGEN_NUM_THREADS", "2")

import torch
from rich.console import Console
from rich.table import Table

import optgen.torch as optim

from .measure import interleaved, ratio
from .shapes import SHAPES

THREADS = int(os.environ["OPTGEN_NUM_THREADS"])
ROUNDS = 9
RULES: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9}, "Adam": {}, "AdamW": {}, "Adagrad": {}, "Adadelta": {}, "Adamax": {}, "NAdam": {},
    "RAdam": {}, "RMSprop": {}, "Rprop": {}, "ASGD": {}, "Adafactor": {},
}  # fmt: skip
#: The lists of tensors.
LISTS: dict[str, list[tuple[int, ...]]] = {
    "ResNet-50": SHAPES["resnet50"],
    "512 × 4096": SHAPES["512x4096"],
    "100 × 64": SHAPES["100x64"],
}
#: For each list, the least ratio to torch fused, and to the best peer for rules without a fused one.
LEAST = {"ResNet-50": (1.0, 1.5), "512 × 4096": (3.0, 3.0), "100 × 64": (10.0, None)}
PYTHON_SHARE = 60e-6  # the most seconds of a step of 161 tensors with fresh gradients
LOOP = 1.1  # the most that a step between two backward passes may take, in ratio to a step alone


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def parameters(shapes: list[tuple[int, ...]]) -> list[Any]:
    made = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in made:
        p.grad = torch.randn(p.shape)
    return made


def peers(name: str, arguments: dict[str, Any], params: list[Any]) -> dict[str, Any]:
    """PyTorch's implementations of a rule."""
    cls = getattr(torch.optim, name)
    ways: dict[str, dict[str, Any]] = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}}
    if name == "Adafactor":
        del ways["foreach"]  # on a CPU it is the loop
    if "fused" in inspect.signature(cls).parameters:
        ways["fused"] = {"fused": True}
    return {way: cls(params, **arguments, **how) for way, how in ways.items()}


def compare(name: str, arguments: dict[str, Any], shapes: list[tuple[int, ...]]) -> dict[str, Any]:
    """The median seconds of a step of each implementation, and the ratios to ours."""
    params = parameters(shapes)
    runs = {"optgen": getattr(optim, name)(params, **arguments), **peers(name, arguments, params)}
    for optimiser in runs.values():
        optimiser.step()
        optimiser.step()
    times = interleaved({way: optimiser.step for way, optimiser in runs.items()}, ROUNDS)
    ratios = {way: ratio(taken, times["optgen"]) for way, taken in times.items() if way != "optgen"}
    return {"seconds": {way: statistics.median(taken) for way, taken in times.items()}, "ratios": ratios}


def python_share(fresh: int = 400) -> float:
    """The median seconds of a step of AdamW on 161 tensors of four elements, with next to nothing to compute. Each step
    has gradients in other memory."""
    params = parameters([(4,)] * 161)
    optimiser = optim.AdamW(params)
    times = []
    kept: list[Any] = []
    for _ in range(fresh):
        grads = [torch.ones(4) for _ in params]
        optimiser.zero_grad(set_to_none=True)
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        times.append(seconds(optimiser.step))
        kept = [*kept, grads][-2:]  # keeps the allocator from giving out the same memory
    return statistics.median(times)


def loop_of_a_model() -> dict[str, Any]:
    """Steps of a network of 12.6 million parameters, by optgen and by PyTorch's fused implementation: the seconds of a
    step between two backward passes, of a step alone, and of the whole turn."""
    torch.manual_seed(0)
    widths = [1024, 2048, 2048, 2048, 1024]
    model = torch.nn.Sequential(
        *(layer for a, b in itertools.pairwise(widths) for layer in (torch.nn.Linear(a, b), torch.nn.ReLU()))
    )
    x = torch.randn(64, widths[0])
    runs = {"optgen": optim.AdamW(model.parameters()), "fused": torch.optim.AdamW(model.parameters(), fused=True)}
    inside: dict[str, list[float]] = {way: [] for way in runs}
    alone: dict[str, list[float]] = {way: [] for way in runs}
    turns: dict[str, list[float]] = {way: [] for way in runs}
    for i in range(2 + ROUNDS):
        for way, optimiser in runs.items():
            start = time.perf_counter()
            optimiser.zero_grad()
            model(x).square().mean().backward()
            within = seconds(optimiser.step)
            turn = time.perf_counter() - start
            time.sleep(0.01)  # PyTorch's threads stop looking for work
            before = seconds(optimiser.step)
            if i >= 2:
                inside[way].append(within)
                alone[way].append(before)
                turns[way].append(turn)
    pairs = zip(inside["optgen"], alone["optgen"], strict=True)
    return {
        "inside": {way: statistics.median(taken) for way, taken in inside.items()},
        "alone": {way: statistics.median(taken) for way, taken in alone.items()},
        "turn": {way: statistics.median(taken) for way, taken in turns.items()},
        "inside to alone": statistics.median(a / b for a, b in pairs),
        "fused to optgen": statistics.median(a / b for a, b in zip(inside["fused"], inside["optgen"], strict=True)),
    }


def judged(found: dict[str, Any], of: str) -> tuple[str, float, float | None]:
    """The peer that decides, the ratio to it, and the least ratio allowed."""
    with_fused, without = LEAST[of]
    ratios = found["ratios"]
    if "fused" in ratios and of != "512 × 4096":
        return "fused", ratios["fused"], with_fused
    best = min(ratios, key=ratios.__getitem__)
    return best, ratios[best], without


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=[*LISTS, "loop"], help="one part of it")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    wanted = parser.parse_args()
    torch.set_num_threads(THREADS)
    report: dict[str, Any] = {
        "torch": torch.__version__, "threads": THREADS, "machine": platform.machine(), "system": platform.system(),
    }  # fmt: skip
    table = Table("what", "measured", "at least", "a step", title=f"torch {torch.__version__}, {THREADS} threads")
    missed = 0
    for of, shapes in LISTS.items():
        if wanted.only not in (None, of):
            continue
        report[of] = {}
        for name in wanted.rules:
            found = report[of][name] = compare(name, RULES[name], shapes)
            peer, ratio, least = judged(found, of)
            fails = least is not None and ratio < least
            missed += fails
            shown = [f"{of}, {name}: × torch {peer}", f"{ratio:.2f}", "" if least is None else f"{least:g}"]
            table.add_row(*shown, text(found["seconds"]["optgen"]), style="red" if fails else "")
    if wanted.only in (None, "loop"):
        report["python share"] = share = python_share()
        report["loop"] = loop = loop_of_a_model()
        rows = [
            ("161 tensors, fresh gradients, Python's share of a step", text(share), f"at most {text(PYTHON_SHARE)}",
             share > PYTHON_SHARE),
            ("loop of a model: a step there / alone", f"{loop['inside to alone']:.2f}", f"at most {LOOP:g}",
             loop["inside to alone"] > LOOP),
            ("loop of a model: torch fused / optgen", f"{loop['fused to optgen']:.2f}", "1",
             loop["fused to optgen"] < 1),
        ]  # fmt: skip
        for what, measured, least, fails in rows:
            missed += fails
            table.add_row(what, measured, least, text(loop["inside"]["optgen"]) if "loop" in what else "",
                          style="red" if fails else "")  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if wanted.json:
        wanted.json.write_text(json.dumps(report, indent=1), "utf-8")
    raise SystemExit(missed > 0)


def text(duration: float) -> str:
    return f"{duration * 1e3:.2f} ms" if duration >= 1e-3 else f"{duration * 1e6:.1f} µs"


if __name__ == "__main__":
    main()
