"""Rules with products of matrices, beside those of other libraries.

    python -m benchmarks.matrices [CASE]... [--layers 12] [--steps 5] [--threads 1]

CPU time of a step, the least of some steps that are taken in turns. Cases:

    muon     the matrices of GPT-2 small, four for each of its layers, by Muon in bfloat16; beside torch.optim.Muon
    float32  the same in float32; torch is kept from rounding
    small    a hundred matrices of 64 x 64, by Muon in bfloat16
    soap     a matrix of 768 x 768 for each layer, by SOAP, over one change of its bases; beside pytorch_optimizer's

One layer has the ratios of all of them, in a twelfth of the time and memory.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

import optgen
import optgen.torch as optim

__all__ = ["CASES", "measured"]

GPT2 = ((2304, 768), (768, 768), (3072, 768), (768, 3072))
SMALL = 100
#: How many steps SOAP takes from one change of its bases to the next.
PERIOD = 10
#: Of this many steps the first are not measured.
FIRST = 2


def _full(params: Any, lr: float) -> Any:
    """Muon that iterates in the type of its parameters, which torch's arguments do not say."""
    return optim.chain(params, optgen.Muon(half=False, lr=lr))


def _peer_soap() -> Any:
    from pytorch_optimizer import SOAP

    return SOAP


@contextmanager
def _unrounded() -> Iterator[None]:
    """Keeps torch.optim.Muon from rounding to bfloat16."""
    with patch.object(torch.Tensor, "bfloat16", torch.Tensor.clone):
        yield


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


class Case:
    """What is stepped, by whom, and how many steps have one time together."""

    def __init__(
        self,
        shapes: Callable[[int], Sequence[tuple[int, int]]],
        ours: Callable[[], Any],
        theirs: Callable[[], Any],
        *,
        lr: float,
        period: int = 1,
        during: Callable[[], Any] = _as_it_is,
    ) -> None:
        self.shapes, self.ours, self.theirs, self.lr = shapes, ours, theirs, lr
        self.period, self.during = period, during


CASES = {
    "muon": Case(lambda n: GPT2 * n, lambda: optim.Muon, lambda: torch.optim.Muon, lr=0.02),
    "float32": Case(lambda n: GPT2 * n, lambda: _full, lambda: torch.optim.Muon, lr=0.02, during=_unrounded),
    "small": Case(lambda n: [(64, 64)] * SMALL, lambda: optim.Muon, lambda: torch.optim.Muon, lr=0.02),
    "soap": Case(lambda n: [(768, 768)] * n, lambda: optim.SOAP, _peer_soap, lr=3e-3, period=PERIOD),
}


def measured(case: Case, layers: int, steps: int) -> tuple[float, float]:
    """The CPU time of a step of ours and of theirs, in seconds."""
    torch.manual_seed(0)
    start = [torch.randn(shape) * 0.02 for shape in case.shapes(layers)]
    gradients = [torch.randn_like(p) for p in start]
    optimisers = []
    for make in (case.ours(), case.theirs()):
        params = [torch.nn.Parameter(p.clone()) for p in start]
        optimisers.append((params, make(params, lr=case.lr)))
    times: list[list[float]] = [[], []]
    with case.during():
        for _ in range(FIRST + steps * case.period):
            for own, (params, optimiser) in zip(times, optimisers, strict=True):
                for p, g in zip(params, gradients, strict=True):
                    p.grad = g.clone()
                begin = time.process_time()
                optimiser.step()
                own.append(time.process_time() - begin)
    ours, theirs = ([sum(t[FIRST + i :: case.period][:steps]) for i in range(case.period)] for t in times)
    if case.period > 1:
        return sum(ours) / steps / case.period, sum(theirs) / steps / case.period
    return min(times[0][FIRST:]), min(times[1][FIRST:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], metavar="CASE")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    table = Table("case", "optgen, ms", "other, ms", "ratio")
    for name in given.cases or CASES:
        ours, theirs = measured(CASES[name], given.layers, given.steps)
        table.add_row(name, f"{1e3 * ours:.1f}", f"{1e3 * theirs:.1f}", f"{theirs / ours:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
