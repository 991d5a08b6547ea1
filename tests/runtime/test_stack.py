"""The stack of a step: bounded, however many reductions a rule has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: A thread of Python steps a rule with one reduction on this much of a stack, and few do with less.
STACK = 64 * 1024
REDUCTIONS = 8
STEPS = """
import sys, threading
import numpy as np, optgen

def arrays():
    strided = [np.ones((2*s[0], *s[1:]), np.float32)[::2] for s in ((50, 60), (7, 3, 3))]
    return [*strided, *(np.ones(s, np.float32) for s in ((3000,), (70, 3, 3), (300, 1000)) if len(s) > 1 or not rows)]

rows = sys.argv[2] == "row"
opt = optgen.load(sys.argv[1])()
params, grads = arrays(), arrays()
opt.step(params, grads)
threading.stack_size(int(sys.argv[3]))
thread = threading.Thread(target=lambda: print(opt.step(params, grads)))
thread.start()
thread.join()
"""


@pytest.mark.parametrize("over", ["", "row"])
def test_a_thread_with_a_small_stack_steps_a_rule_with_many_reductions(tmp_path: Path, over: str) -> None:
    sums = [f"a{i} = sum({i + 1}*g*g{over and f', {over}'})" for i in range(REDUCTIONS)]
    update = f"delta = eta*g*({' + '.join(f'a{i}' for i in range(REDUCTIONS))})"
    spec = tmp_path / "many.toml"
    spec.write_text(
        'name = "Many"\n[hyperparameters]\neta = { default = 0.5, range = "[0, 1]", doc = "a factor" }\n'
        f"[update]\nformulas = '''\n{chr(10).join([*sums, update])}\n'''\n"
    )
    call = [sys.executable, "-c", STEPS, str(spec), over, str(STACK)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPTGEN_NUM_THREADS": "2"}
    done = subprocess.run(call, env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
