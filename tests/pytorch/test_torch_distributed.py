"""Sharded training on two and four processes of this machine: DDP, ZeRO, FSDP2, checkpoints, norms. What is checked
stands in `ranks.py`; here the processes are started, all by one command, and killed if they hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("this PyTorch has no torch.distributed", allow_module_level=True)

pytestmark = pytest.mark.slow

RANKS = Path(__file__).parents[1] / "support" / "ranks.py"
LIMIT = 120.0  # seconds; a process that waits in vain for another one gives up sooner

CHECKS = {
    2: (
        "shards_of_elementwise_rules", "plans_are_kept", "fsdp", "flat_parameters", "ddp", "zero",
        "norms_over_whole_tensors", "norms_of_a_model", "a_split_of_shards", "a_step_counts_for_all_or_for_none",
        "cut_rows_and_columns_are_refused",
        "whole_matrices_are_stepped", "sixteen_bits", "gradients_are_laid_out_as_their_parameters",
        "a_checkpoint_is_saved", "a_checkpoint_is_loaded",
    ),
    4: (
        "shards_of_elementwise_rules", "fsdp", "zero", "norms_over_whole_tensors", "cut_rows_and_columns_are_refused",
        "a_checkpoint_is_loaded",
    ),
    1: ("a_checkpoint_is_loaded",),
}  # fmt: skip


def output_of(command: Sequence[str], log: Path) -> str:
    """What a command wrote. It and all that it has started are killed when their time is up."""
    environment = {**os.environ, "OPTGEN_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        pytest.fail(f"not done after {LIMIT} s\n{log.read_text(errors='replace')}")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a session of its own: nothing else is in there
        process.wait()
    return log.read_text(errors="replace")


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], str]:
    """What became of each check on each number of processes: the tracebacks."""
    folder = tmp_path_factory.mktemp("ranks")
    groups = [f"{size}:{','.join(names)}" for size, names in CHECKS.items()]
    text = output_of([sys.executable, str(RANKS), str(folder), *groups], folder / "log")
    found = {}
    for size, names in CHECKS.items():
        results = [folder / f"{size}-{rank}.json" for rank in range(size)]
        told = [json.loads(result.read_text()) if result.exists() else {} for result in results]
        for name in names:
            lost = f"it did not come to this\n{text}"
            found[size, name] = "\n".join(filter(None, (each.get(name, lost) for each in told)))
    return found


@pytest.mark.parametrize(("size", "name"), [(size, name) for size, names in CHECKS.items() for name in names])
def test_processes(faults: dict[tuple[int, str], str], size: int, name: str) -> None:
    assert not faults[size, name], faults[size, name]


def test_the_example_trains_in_shards(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "fsdp.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    text = output_of([*launcher, str(example)], tmp_path / "log")
    assert "on 2 processes" in text, text
    assert "Error" not in text, text
