"""What waits for a person: builds, imports, small steps, each beside the time that it must not pass.

    python -m benchmarks.latency

Imports are whole processes, timed from outside; steps are medians inside one. What compiles is processor time, that of
the compiler too: other work on the machine and the number of processors change it little. What grows is a ratio of two
times that are measured in turns: more arrays beside fewer, for each of them, or an unusual list beside a usual one.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from optgen import ADAM, update
from optgen.paths import BUILD, SPECS


def process(*arguments: str, repeats: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """Median seconds of a process."""

    def run() -> None:
        subprocess.run(
            [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )  # fmt: skip

    return call(run, repeats, clock)


def processor_time_of_children() -> float:
    """Seconds that processes have taken which this one has started, and those that they have started."""
    usage = os.times()
    return usage.children_user + usage.children_system


def call(f: Callable[[], object], repeats: int = 2000, clock: Callable[[], float] = time.perf_counter) -> float:
    """Median seconds of a call."""
    times = []
    for _ in range(repeats):
        start = clock()
        f()
        times.append(clock() - start)
    return statistics.median(times)


def slowest_rule() -> float:
    """Seconds that the slowest of all rules takes to load once the modules of optgen are there; each in its own process
    once, since a rule is loaded once."""
    program = """if True:
        import time
        import optgen
        optgen.Descent
        from optgen.compiler.catalogue import shipped_names
        slowest = 0.0
        for name in shipped_names():
            start = time.perf_counter()
            getattr(optgen, name)
            slowest = max(slowest, time.perf_counter() - start)
        print(slowest)
    """
    done = [subprocess.run([sys.executable, "-c", program], check=True, capture_output=True) for _ in range(5)]
    return statistics.median(float(each.stdout) for each in done)


def own_rule(name: str, repeats: int = 5) -> float:
    """Seconds of processor time from `optgen.load` of a rule of one's own to the end of its first step, with an empty
    cache: the compiler makes one kernel. What a process imports first, NumPy and optgen's own start, does not count."""
    program = """if True:
        import os
        import sys
        import numpy as np
        import optgen
        start = sum(os.times()[:4])  # with the compiler's
        optgen.load(sys.argv[1])().step([np.ones((16, 16), np.float32)], [np.ones((16, 16), np.float32)])
        print(sum(os.times()[:4]) - start)
    """
    times = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            spec = Path(folder, f"{name}.toml")
            spec.write_bytes((SPECS / spec.name).read_bytes())
            done = subprocess.run([sys.executable, "-c", program, str(spec)], check=True, capture_output=True,
                                  env=os.environ | {"OPTGEN_CACHE_DIR": f"{folder}/cache"})  # fmt: skip
            times.append(float(done.stdout))
    return statistics.median(times)


def small_steps() -> dict[str, tuple[float, float]]:
    rng = np.random.default_rng(0)

    def arrays() -> list[np.ndarray]:
        return [rng.standard_normal(64, dtype=np.float32) for _ in range(100)]

    params, grads, others = arrays(), arrays(), arrays()
    one, many, fresh, some = ADAM(), ADAM(), ADAM(), ADAM()
    turns = [grads, others]
    some.step(params, grads)

    def alternating() -> None:
        turns.reverse()
        fresh.step(params, turns[0])

    def changing() -> None:
        own = rng.permutation(100)[:50]
        some.step([params[i] for i in own], [grads[i] for i in own])

    return {
        "update(opt, p, g), 64 elements": (call(lambda: update(one, params[0], grads[0])), 10e-6),
        "opt.step, 100 × 64, the arrays of the step before": (call(lambda: many.step(params, grads)), 150e-6),
        "opt.step, 100 × 64, other gradient arrays each step": (call(alternating), 150e-6),
        "opt.step, 50 of 100 × 64, other ones each step": (call(changing), 1e-3),
    }


def growth() -> dict[str, tuple[float, float]]:
    """How many times as long one call takes as another, and the most that it may."""

    def own(n: int) -> list[np.ndarray]:
        return [np.ones(16, np.float32) for _ in range(n)]

    def columns(n: int) -> list[np.ndarray]:
        return list(np.ones((16, n), np.float32).T)

    def first(params: list[np.ndarray]) -> Callable[[], object]:
        grads = own(len(params))
        return lambda: ADAM().step(params, grads)

    def one_by_one(n: int) -> Callable[[], object]:
        opt, params, grad = ADAM(), own(n), own(1)
        return lambda: [opt.step((p,), grad) for p in params]

    def lists(changing: bool) -> Callable[[], object]:
        opt, params, grads, rng = ADAM(), own(100), own(100), np.random.default_rng(0)
        opt.step(params, grads)
        chosen = rng.permutation(100)[:50]

        def step() -> None:
            own = rng.permutation(100)[:50] if changing else chosen
            opt.step([params[i] for i in own], [grads[i] for i in own])

        return step

    def mapped(file: str | None) -> Callable[[], object]:
        params = [np.memmap(file, np.float32, "w+", shape=(16,)) if file else p for p in own(1)]
        opt, grads = ADAM(), own(1)
        return lambda: opt.step(params, grads)

    with tempfile.TemporaryDirectory() as folder:
        return {
            "first step, an array of 4,000 ÷ one of 500": (ratio(first(own(4000)), first(own(500)), 5) / 8, 1.5),
            "first step, columns of a matrix ÷ arrays of their own": (
                ratio(first(columns(2000)), first(own(2000)), 5),
                2,
            ),
            "one by one, an array of 2,000 ÷ one of 1,000": (ratio(one_by_one(2000), one_by_one(1000), 9) / 2, 2),
            "np.memmap ÷ an array": (ratio(mapped(f"{folder}/p"), mapped(None), 2000), 1.2),
            "a list that changes ÷ its first step": (ratio(lists(True), first(own(50)), 200), 1),
            "a list that changes ÷ one that does not": (ratio(lists(True), lists(False), 200), 40),
        } | growth_in_torch()


def growth_in_torch() -> dict[str, tuple[float, float]]:
    """The same of tensors; nothing where PyTorch is absent."""
    if find_spec("torch") is None:
        return {}
    import torch

    from optgen.torch import Adam

    def lists(changing: bool) -> Callable[[], object]:
        params = [torch.nn.Parameter(torch.ones(16)) for _ in range(100)]
        grads, opt, rng = [torch.ones(16) for _ in params], Adam(params), np.random.default_rng(0)
        chosen = rng.permutation(100)[:50]

        def step(own: np.ndarray) -> None:
            for p in params:
                p.grad = None
            for i in own:
                params[i].grad = grads[i]
            opt.step()

        step(np.arange(100))
        return lambda: step(rng.permutation(100)[:50] if changing else chosen)

    return {"gradients of other tensors each step ÷ of the same": (ratio(lists(True), lists(False), 200), 40)}


def ratio(f: Callable[[], object], g: Callable[[], object], repeats: int) -> float:
    """How many times as long `f` takes this thread as `g`, of both the best of calls in turns; neither's first call
    counts."""
    f(), g()
    pairs = [(call(f, 1, time.thread_time), call(g, 1, time.thread_time)) for _ in range(repeats)]
    return min(a for a, _ in pairs) / min(b for _, b in pairs)


def main() -> None:
    figures: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        build = ("-m", "optgen", "build", "--out", folder)
        whole = process(*build, clock=processor_time_of_children)
        figures["optgen build, the whole library, from nothing: processor time"] = (whole, 240)
        figures["optgen build, again"] = (process(*build, repeats=5), 1)
    process("-m", "optgen", "build", "--out", str(BUILD))  # as it is after an installation
    numpy = process("-c", "import numpy", repeats=9)
    both = process("-c", "import numpy, optgen", repeats=9)
    rule = process("-c", "import numpy, optgen; optgen.ADAM()", repeats=9)
    figures["import optgen, over import numpy"] = (max(0.0, both - numpy), 0.150)
    figures["the first ADAM() of a process, over import numpy and optgen"] = (rule - both, 0.150)
    figures["the slowest rule to load after that"] = (slowest_rule(), 0.020)
    for name, most in (("lion", 0.3), ("adamp", 1), ("torch_adafactor", 1)):
        figures[f"a spec of one's own, {name}, up to its first step: processor time"] = (own_rule(name), most)
    figures |= small_steps()
    ratios = growth()
    table = Table("what", "measured", "at most")
    for show, rows in ((text, figures), (times, ratios)):
        for what, (measured, most) in rows.items():
            table.add_row(what, show(measured), show(most), style="" if measured <= most else "red")
    Console().print(table)
    raise SystemExit(any(measured > most for measured, most in (*figures.values(), *ratios.values())))


def times(ratio: float) -> str:
    return f"{ratio:.3g} ×"


def text(seconds: float) -> str:
    for unit, size in (("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


if __name__ == "__main__":
    main()
