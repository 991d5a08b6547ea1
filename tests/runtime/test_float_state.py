"""Scalars that the host computes for kernels: the same bits whatever the program's own floating-point state is."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from optgen.compiler import toolchain
from optgen.runtime.float_state import rounds_to_nearest

#: Of C's `fesetround`, whose numbers are those of the processor's control register.
DIRECTIONS = {"x86_64": (0x400, 0x800, 0xC00), "aarch64": (0x400000, 0x800000, 0xC00000)}
CONTROL = '#include <immintrin.h>\n__attribute__((visibility("default"))) void set(unsigned s) { _mm_setcsr(s); }\n'
#: Steps rules in some states of the program, each set and left by a function; AdaMax meets a denormal scalar.
STEPS = """
import ctypes, sys
import numpy as np, optgen

RULES = [("ADAM", {"eta": 0.003}), ("AdaMax", {"eta": 1e-310}), ("LAMB", {}), ("Prodigy", {})]

def stepped(set_state, state, usual):
    bits = []
    for name, given in RULES:
        opt = getattr(optgen, name)(**given)
        p = np.zeros(5) if name == "AdaMax" else np.linspace(-1, 1, 33)
        for t in range(4):
            g = np.sin(np.arange(p.size) + t + 1.0)
            set_state(state)
            opt.step([p], [g])
            set_state(usual)
        bits.append(p.tobytes())
    return bits

states, usual = list(map(int, sys.argv[2].split(","))), int(sys.argv[3])
library = ctypes.CDLL(sys.argv[4] if len(sys.argv) > 4 else None)
set_state = getattr(library, sys.argv[1])
expected = stepped(set_state, usual, usual)
assert expected[1] != np.zeros(5).tobytes()
for state in states:
    print(*(a == b for a, b in zip(stepped(set_state, state, usual), expected)))
"""


def stepped(*arguments: str) -> list[str]:
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", STEPS, *arguments], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(platform.machine() not in DIRECTIONS, reason="has other numbers for directions")
def test_a_program_that_rounds_in_another_direction_gets_the_same_bits() -> None:
    states = DIRECTIONS[platform.machine()]
    assert stepped("fesetround", ",".join(map(str, states)), "0") == ["True True True True"] * len(states)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="sets the control state of x86-64")
def test_a_program_that_flushes_denormals_gets_the_same_bits(tmp_path: Path) -> None:
    toolchain.compile_library(CONTROL, tmp_path / "control.so")
    states = 0x1F80 | 0x8000, 0x1F80 | 0x0040, 0x1F80 | 0x8040 | 0x2000
    found = stepped("set", ",".join(map(str, states)), str(0x1F80), str(tmp_path / "control.so"))
    assert found == ["True True True True"] * len(states)


def test_the_usual_state_is_recognised() -> None:
    assert rounds_to_nearest()
