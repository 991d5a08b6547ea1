"""The pool of threads and the floating-point state: what a step leaves behind in the process, and what it does not."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from equivalence import check_kernel, same_bits

from optgen import interpreter as interp
from optgen.codegen import abi
from optgen.compiler import catalogue, driver, toolchain
from optgen.compiler.declarations import read_declarations, write_declarations
from optgen.errors import ArgumentError, CompilerError
from optgen.ir.evaluate import Always
from optgen.optimiser import classes
from optgen.paths import declarations
from optgen.runtime import library, machine
from optgen.runtime.binding import SERIAL, Binding, Team, rows_of
from optgen.runtime.kernel import Kernel, kernel_of
from optgen.runtime.library import open_library
from optgen.runtime.machine import choose_isa, threads

ROOT = Path(driver.__file__).parents[2]
MAPS = Path("/proc/self/maps")
SIZE = SERIAL + 1  # enough for more than one thread

#: A function that makes an optimiser with arrays and their expected values, for scripts that run as processes.
PRELUDE = f"""
    import os, signal, sys, threading, time
    import numpy as np
    from optgen.optimiser import classes
    from optgen.runtime import library
    Descent = classes.shipped_class("Descent")
    workers = lambda: library.runtime().library.optgen_workers()

    class Run:
        def __init__(self, start):
            self.p, self.g, self.opt = np.full({SIZE}, float(start)), np.ones({SIZE}), Descent(eta=1.0)
            self.value = float(start)

        def steps(self, n=1):
            for _ in range(n):
                self.opt.step([self.p], [self.g])
                self.value -= 1.0
            return self

        def right(self):
            return bool((self.p == self.value).all())
"""


def process(script: str, threads: int = 4) -> str:
    """What the script prints; it must end by itself, in time and well."""
    environment = {**os.environ, "OPTGEN_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    environment["OPENBLAS_NUM_THREADS"] = "1"  # its threads would take signals too
    text = textwrap.dedent(PRELUDE) + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, env=environment, timeout=60, cwd="/"
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# ---- The pool ----


def test_no_more_workers_are_started_than_asked_for_and_none_for_a_small_step() -> None:
    script = """
        small = Run(5)
        small.opt.step([small.p[:1000]], [small.g[:1000]])
        print(workers())
        for n in (1, 3, 2, 4, 4):
            os.environ["OPTGEN_NUM_THREADS"] = str(n)
            run = Run(7).steps(3)
            print(workers(), run.right())
    """
    assert process(script).split("\n") == ["0", "0 True", "2 True", "2 True", "3 True", "3 True", ""]


def test_the_pool_sleeps_between_steps() -> None:
    script = """
        run = Run(7).steps(5)
        time.sleep(0.05)
        before = time.process_time()
        time.sleep(0.5)
        print(time.process_time() - before < 0.05, workers())
    """
    assert process(script) == "True 3\n"


@pytest.mark.skipif(sys.platform != "linux" or machine.processors() < 2, reason="needs Linux and two processors")
def test_workers_keep_from_the_processor_of_the_thread_that_steps() -> None:
    """Some systems wake a worker there, and leave it there, waiting, for many steps."""
    script = """
        every = os.sched_getaffinity(0)
        before = set(os.listdir("/proc/self/task"))
        run = Run(20)
        for cpu in (min(every), max(every)):
            os.sched_setaffinity(0, {cpu}) # which moves it there
            os.sched_setaffinity(0, every)
            run.steps(3)
            for worker in set(os.listdir("/proc/self/task")) - before:
                allowed = os.sched_getaffinity(int(worker))
                print(len(every - allowed), allowed <= every)
        def steps(allowed):
            os.sched_setaffinity(0, allowed)
            run.steps(3)
            own = set(os.listdir("/proc/self/task")) - before
            return {frozenset(os.sched_getaffinity(int(worker))) for worker in own}
        print(steps({cpu}) == {frozenset({cpu})}) # there is no other one left
        print(all(len(each) == len(every) - 1 for each in steps(every)), run.right())
    """
    assert process(script, threads=3) == 4 * "1 True\n" + "True\nTrue True\n"


def test_steps_go_on_after_a_fork_in_the_child_and_in_the_parent() -> None:
    script = """
        run = Run(100).steps(2)
        child = os.fork()
        if child == 0:
            before = workers()
            run.steps(3)
            os._exit(0 if run.right() and before == 0 and workers() == 3 else 1)
        run.steps(3)
        print(os.waitpid(child, 0)[1], run.right(), workers())
    """
    assert process(script) == "0 True 3\n"


def test_a_fork_while_another_thread_steps() -> None:
    script = """
        busy, stop = Run(1e6), threading.Event()
        def work():
            while not stop.is_set():
                busy.steps()
        thread = threading.Thread(target=work)
        thread.start()
        mine = Run(1000).steps()
        ends = []
        for _ in range(30):
            child = os.fork()
            if child == 0:
                signal.alarm(10)  # in place of a deadlock
                mine.steps(2)
                os._exit(0 if mine.right() else 1)
            ends.append(os.waitpid(child, 0)[1])
        stop.set()
        thread.join()
        print(set(ends), busy.right(), mine.right(), busy.value < 1e6)
    """
    assert process(script) == "{0} True True True\n"


def test_a_fork_before_the_first_step() -> None:
    script = """
        library.runtime()
        child = os.fork()
        run = Run(9).steps(2)
        if child == 0:
            os._exit(0 if run.right() else 1)
        print(os.waitpid(child, 0)[1], run.right())
    """
    assert process(script) == "0 True\n"


def test_signals_of_the_process_are_left_to_its_own_threads() -> None:
    script = """
        signal.signal(signal.SIGUSR1, lambda *_: print("a worker has taken it"))
        Run(9).steps(2)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.05)
        taken = signal.sigtimedwait([signal.SIGUSR1], 1)
        print(taken is not None, workers())
    """
    assert process(script) == "True 3\n"


def test_optimisers_stepped_by_several_threads_at_once_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTGEN_NUM_THREADS", "3")
    cls = classes.shipped_class("ADAM")
    rule = cls().rule
    rng = np.random.default_rng(0)
    start, gradient = rng.standard_normal(SIZE), rng.standard_normal(SIZE)

    def work(k: int) -> list[np.ndarray]:
        opt, p, g = cls(eta=0.1), start * k, gradient + k
        for _ in range(5):
            opt.step([p], [g])
        return [p, opt.state(p)["m"], opt.state(p)["v"]]

    def expected(k: int) -> list[np.ndarray]:
        arrays = {"p": start * k, "g": gradient + k, "m": np.zeros(SIZE), "v": np.zeros(SIZE)}
        values = {"eta": (0.1,), "beta": (0.9, 0.999), "eps": (1e-8,)}
        for t in range(5):
            interp.step(rule, values, t + 1, arrays)
        return [arrays["p"], arrays["m"], arrays["v"]]

    with ThreadPoolExecutor(4) as pool:
        for k, found in enumerate(pool.map(work, range(8))):
            for array, right in zip(found, expected(k), strict=True):
                same_bits(array, right, f"optimiser {k}")


# ---- Threads of another library ----


@pytest.mark.parametrize("come", [1, 2, 3])
@pytest.mark.parametrize("name", ["ADAM", "LAMB"])
def test_a_team_does_the_steps_in_the_place_of_the_pool(name: str, come: int) -> None:
    """Though fewer threads come than were asked for, as libraries may have it."""
    ffi, local = library.runtime().ffi, threading.local()
    asked = []

    def as_number(i: int, run: Any, data: Any) -> None:
        local.number = i
        run(data)

    @ffi.callback("void(void(*)(void *), void *, unsigned, unsigned)")
    def parallel(run: Any, data: Any, count: int, flags: int) -> None:
        asked.append((count, flags))
        with ThreadPoolExecutor(come) as pool:
            for done in [pool.submit(as_number, i, run, data) for i in range(come)]:
                done.result()

    number = ffi.callback("int(void)", lambda: local.number)
    team = Team(*(int(ffi.cast("intptr_t", call)) for call in (parallel, number)))
    compilation = driver.compile_file(catalogue.shipped_names()[name])
    kernel_ = kernel_of(compilation, 0, "float64", None)
    values = Always({hyper.name: hyper.default for hyper in kernel_.rule.hypers})
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(SIZE) for _ in kernel_.rule.arrays]
    arrays = {each: [x**2 for x in start] for each in (None, team)}
    bindings = {each: Binding(kernel_, rows_of(kernel_, [arrays[each]]), each) for each in arrays}
    before = library.runtime().library.optgen_workers()
    for t in (1, 2):
        bindings[team].run([values], t, 3)
    assert library.runtime().library.optgen_workers() == before
    assert asked == [(3, 0)] * 2
    for t in (1, 2):
        bindings[None].run([values], t, 3)
    for own, other in zip(*arrays.values(), strict=True):
        same_bits(own, other, name)
    team._leave()  # as a fork makes it
    for each in arrays:
        bindings[each].run([values], 3, 3)
    assert len(asked) == 2
    for own, other in zip(*arrays.values(), strict=True):
        same_bits(own, other, name)


def test_a_rule_may_have_more_states_than_most() -> None:
    names = [f"s{i}" for i in range(100)]
    states = "\n".join(f'{name} = {{ init = "{i}" }}' for i, name in enumerate(names))
    formulas = "\n".join(f"{name} = 0.5*{name} + g" for name in names)
    spec = f'name = "Many"\n[state]\n{states}\n[update]\nformulas = """\n{formulas}\ndelta = s7 + s99\n"""\n'
    compilation = driver.compile_text(spec, "many.toml")
    check_kernel(compilation.rules[0], kernel_of(compilation, 0, "float32", None))


# ---- More elements than 32 bits can count ----

MORE = 2**31 + 5000
PAGE = 4096
HUGE = """
    import ctypes, mmap
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    READ_WRITE, PRIVATE, SHARED, FIXED, ANONYMOUS, UNRESERVED = 3, 2, 1, 0x10, 0x20, 0x4000

    def mapped(at, size, flags, file=-1):
        found = libc.mmap(at, size, READ_WRITE, flags | (FIXED if at else 0), file, 0)
        assert found not in (None, ctypes.c_void_p(-1).value), ctypes.get_errno()
        return found

    def array(at, count):
        return np.frombuffer((ctypes.c_float * count).from_address(at), np.float32)

    # p: a piece of memory many times over, whose gradient is zero; but pages of their own where it counts.
    size = -(-4 * MORE // PAGE) * PAGE
    piece = 2**26
    file = os.memfd_create("piece")
    os.ftruncate(file, piece)
    p_at = mapped(None, size, PRIVATE | ANONYMOUS | UNRESERVED)
    g_at = mapped(None, size, PRIVATE | ANONYMOUS | UNRESERVED)  # never written: one page of zeros
    for begin in range(0, size, piece):
        mapped(p_at + begin, min(piece, size - begin), SHARED, file)
    windows = [0, 2**31 - PAGE, 2**32 - PAGE, 2**33 - PAGE, size - 2 * PAGE]  # where bytes, or elements, pass 31 bits
    for begin in windows:
        mapped(p_at + begin, 2 * PAGE, PRIVATE | ANONYMOUS)
    p, g = array(p_at, MORE), array(g_at, MORE)
    own = np.concatenate([np.arange(begin // 4, min((begin + 2 * PAGE) // 4, MORE)) for begin in windows])
    g[own] = (own % 1000).astype("f4") + 1
    Descent(eta=1.0).step([p], [g])
    print(len(own) > 9000, bool((p[own] == -g[own]).all()), p[-1] == -((MORE - 1) % 1000 + 1), workers())
"""


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memory of Linux that is mapped many times over")
def test_an_array_of_more_elements_than_31_bits_count_is_updated_to_the_last_one() -> None:
    assert process(HUGE.replace("MORE", str(MORE)).replace("PAGE", str(PAGE))) == "True True True 3\n"


# ---- The floating-point control state ----

x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="reads and writes the control state of x86-64")
CONTROL = """
#include <immintrin.h>
#define EXPORT __attribute__((visibility("default")))
EXPORT unsigned get(void) { return _mm_getcsr(); }
EXPORT void set(unsigned state) { _mm_setcsr(state); }
"""
FLUSH, DOWN, STATUS = 0x8040, 0x2000, 0x3F  # both kinds of flushing, rounding down, and the bits that only report


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("control") / "control.so"
    toolchain.compile_library(CONTROL, path)
    return ctypes.CDLL(str(path))


@contextmanager
def control_state(control: ctypes.CDLL, state: int) -> Iterator[None]:
    before = control.get()
    control.set(state)
    try:
        yield
    finally:
        control.set(before)


@x86_64
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [1, 3])
def test_denormals_and_rounding_are_right_and_the_state_of_the_caller_is_as_found(
    count: int, dtype: str, control: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTGEN_NUM_THREADS", str(count))
    tiny = np.finfo(dtype).smallest_subnormal
    opt = classes.shipped_class("Descent")(eta=1.0)
    p, g = np.full(SIZE, 9 * tiny, dtype), np.full(SIZE, 2 * tiny, dtype)
    p[::2], g[::2] = 1, np.finfo(dtype).eps / 8
    expected = p - g
    opt.step([p.copy()], [g])  # the pool may have been started in the state of before
    state = 0x1F80 | FLUSH | DOWN
    with control_state(control, state):
        opt.step([p], [g])
        after = control.get()
    assert after & ~STATUS == state
    same_bits(p, expected, "a step between flushing and rounding down")


@x86_64
def test_workers_started_by_a_thread_that_flushes_do_not_flush() -> None:
    source = CONTROL.replace('"', '\\"').replace("\n", "\\n")
    script = f"""
        import ctypes, pathlib, tempfile
        from optgen.compiler import toolchain
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "control.so"
            toolchain.compile_library("{source}", path)
            control = ctypes.CDLL(str(path))
        run = Run(0)
        run.p[:], run.g[:] = 5e-324 * 9, 5e-324 * 2
        control.set(0x1f80 | {FLUSH})
        run.opt.step([run.p], [run.g])
        flushing = control.get() & {FLUSH}
        control.set(0x1f80)
        print(hex(flushing), (run.p == 7 * 5e-324).all(), workers())
    """
    assert process(script) == "0x8040 True 3\n"


@x86_64
def test_loading_a_library_does_not_change_the_control_state(control: ctypes.CDLL, tmp_path: Path) -> None:
    before = control.get() & ~STATUS
    path = tmp_path / "adam.so"
    toolchain.compile_library(driver.compile_file(ROOT / "specs" / "adam.toml").c_source, path)
    open_library(library.runtime().ffi, path, "optgen_abi")
    assert control.get() & ~STATUS == before


# ---- The environment ----


@pytest.mark.parametrize("value", ["0", "-1", "257", "two", "1.5", " 2", "²", "1" * 5000])
def test_a_number_of_threads_that_is_none_is_an_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTGEN_NUM_THREADS", value)
    opt, p = classes.shipped_class("Descent")(), np.ones(3)
    with pytest.raises(ArgumentError) as caught:
        opt.step([p], [np.ones(3)])
    assert caught.value.message == (
        f"OPTGEN_NUM_THREADS: expected a whole number from 1 to 256, got {value[:40]!r}"
    )  # fmt: skip
    assert caught.value.hint == "unset it for one thread a processor"
    same_bits(p, np.ones(3), "the parameter of a refused step")
    assert opt.state(p)["t"] == 0


def test_the_number_of_threads_is_what_is_asked_for_or_what_the_process_may_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for value in ("1", "256", "07"):
        monkeypatch.setenv("OPTGEN_NUM_THREADS", value)
        assert threads() == int(value)
    monkeypatch.delenv("OPTGEN_NUM_THREADS")
    affinity = {0, 1, 2, 3, 4, 5}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: affinity, raising=False)
    limit = tmp_path / "cpu.max"
    monkeypatch.setattr(machine, "Path", lambda _: limit)
    cases = {
        "max 100000": 6,
        "250000 100000": 3,
        "200000 100000": 2,
        "100 100000": 1,
        "900000 100000": 6,
        "odd": 6,
        None: 6,
    }
    for text, count in cases.items():
        limit.unlink(missing_ok=True) if text is None else limit.write_text(text)
        machine._available.cache_clear()
        assert threads() == count, text
    machine._available.cache_clear()


def test_an_instruction_set_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTGEN_ISA", "x86_64_v9")
    with pytest.raises(ArgumentError) as caught:
        choose_isa(("x86_64_v3", "baseline"))
    assert caught.value.message == (
        "OPTGEN_ISA: expected one of x86_64_v3, baseline on this processor, got 'x86_64_v9'"
    )  # fmt: skip
    assert caught.value.hint == "unset it for the best one"


def test_the_instruction_set_is_the_best_or_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTGEN_ISA", raising=False)
    usable = library.runtime().usable
    assert usable[-1] == ("x86_64_v2" if platform.machine() == "x86_64" else "baseline")
    assert choose_isa(usable) == usable[0]
    compilation = driver.compile_file(ROOT / "specs" / "descent.toml")
    for isa in usable:
        monkeypatch.setenv("OPTGEN_ISA", isa)
        assert kernel_of.__wrapped__(compilation, 0, "float64", None).isa == isa


# ---- Libraries ----

LIBRARY = '#include <stdint.h>\n__attribute__((visibility("default"))) int32_t optgen_abi(void) { return 7; }\n'


@pytest.fixture(params=["parsed", "from a module"])
def ffi(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Declarations as they are read where nothing was built, and where it was."""
    path = tmp_path / "declarations.py"
    if request.param == "parsed":
        return read_declarations(declarations, None)
    write_declarations(declarations(), path)
    return read_declarations(str, path)


def test_a_library_of_another_interface_is_refused(ffi: Any, tmp_path: Path) -> None:
    path = tmp_path / "other.so"
    toolchain.compile_library(LIBRARY, path)
    with pytest.raises(CompilerError) as caught:
        open_library(ffi, path, "optgen_abi")
    assert caught.value.message == f"{path}: expected kernels of interface {abi.ABI}, got 7"
    assert caught.value.hint == "build it again with this version of optgen: optgen build"


def test_what_is_no_library_of_ours_is_refused(ffi: Any, tmp_path: Path) -> None:
    path = tmp_path / "none.so"
    path.write_bytes(b"no library")
    with pytest.raises(CompilerError, match=r"expected to load .*none\.so, got .*\n  hint: delete it and build again"):
        open_library(ffi, path, "optgen_abi")
    strange = tmp_path / "strange.so"
    toolchain.compile_library(LIBRARY.replace("optgen_abi", "other"), strange)
    with pytest.raises(CompilerError, match=r"expected to load .*strange\.so, got .*optgen_abi"):
        open_library(ffi, strange, "optgen_abi")


@pytest.mark.skipif(not MAPS.exists(), reason="the system does not say what is loaded")
def test_a_library_is_never_unloaded_for_a_thread_may_be_in_it(ffi: Any, tmp_path: Path) -> None:
    path = tmp_path / "kept.so"
    toolchain.compile_library(LIBRARY.replace("7", str(abi.ABI)), path)
    opened = open_library(ffi, path, "optgen_abi")
    assert str(path) in MAPS.read_text()
    del opened
    gc.collect()
    assert str(path) in MAPS.read_text()


def test_a_kernel_that_a_library_lacks_is_an_error() -> None:
    found = kernel_of(driver.compile_file(ROOT / "specs" / "descent.toml"), 0, "float64", None)
    adamw = driver.compile_file(ROOT / "specs" / "adamw.toml").lowered[1]
    with pytest.raises(CompilerError) as caught:
        Kernel(found.runtime, found._library, adamw, "float64", found.runtime.usable[-1])
    assert caught.value.message == f"the library has no kernel for ADAMW coupled float64 {found.runtime.usable[-1]}"
    assert caught.value.hint == "build it again: optgen build"
