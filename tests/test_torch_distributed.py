"""Sharded training on two and four processes of this machine: DDP, ZeRO, FSDP2, checkpoints, norms. What is checked
stands in `ranks.py`; here the processes are started, once for each number of them, and killed if they hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("this PyTorch has no torch.distributed", allow_module_level=True)

HERE = Path(__file__).parent
LIMIT = 60.0  # seconds

TWO = (
    "shards_of_elementwise_rules", "plans_are_kept", "fsdp", "ddp", "zero", "norms_over_whole_tensors",
    "norms_of_a_model", "a_step_counts_for_all_or_for_none", "cut_rows_and_columns_are_refused",
    "whole_matrices_are_stepped", "sixteen_bits", "gradients_are_laid_out_as_their_parameters",
    "a_checkpoint_is_saved",
)  # fmt: skip
FOUR = (
    "shards_of_elementwise_rules", "fsdp", "zero", "norms_over_whole_tensors", "cut_rows_and_columns_are_refused",
    "a_checkpoint_is_loaded",
)  # fmt: skip


def waited_for(processes: list[subprocess.Popen[bytes]], logs: list[Path]) -> str:
    """What the processes wrote; they are killed when their time is up."""
    end = time.monotonic() + LIMIT
    late = False
    try:
        for process in processes:
            process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        late = True
    finally:
        for process in processes:
            process.kill()
            process.wait()
    text = "\n".join(log.read_text(errors="replace") for log in logs)
    assert not late, f"not done after {LIMIT} s\n{text}"
    return text


def started(folder: Path, size: int, names: tuple[str, ...]) -> dict[str, str]:
    """What became of each check on `size` processes: the tracebacks."""
    logs = [folder / f"{size}-{rank}.log" for rank in range(size)]
    environment = {**os.environ, "OPTGEN_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    processes = []
    for rank, log in enumerate(logs):
        command = [sys.executable, str(HERE / "ranks.py"), str(folder), str(rank), str(size), *names]
        with log.open("wb") as file:
            processes.append(subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment))
    text = waited_for(processes, logs)
    found = dict.fromkeys(names, "")
    for rank in range(size):
        result = folder / f"{size}-{rank}.json"
        told = json.loads(result.read_text()) if result.exists() else {}
        for name in names:
            fault = told.get(name, f"it did not come to this\n{text}")
            found[name] += f"rank {rank} of {size}: {fault}\n" if fault else ""
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    made: Path = tmp_path_factory.mktemp("ranks")
    return made


@pytest.fixture(scope="module")
def on_two(folder: Path) -> dict[str, str]:
    return started(folder, 2, TWO)


@pytest.fixture(scope="module")
def on_four(folder: Path, on_two: dict[str, str]) -> dict[str, str]:
    return started(folder, 4, FOUR)


@pytest.mark.parametrize("name", TWO)
def test_on_two_processes(on_two: dict[str, str], name: str) -> None:
    assert not on_two[name], on_two[name]


@pytest.mark.parametrize("name", FOUR)
def test_on_four_processes(on_four: dict[str, str], name: str) -> None:
    assert not on_four[name], on_four[name]


def test_what_two_processes_saved_one_loads(folder: Path, on_two: dict[str, str]) -> None:
    assert not on_two["a_checkpoint_is_saved"]
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import ranks; from pathlib import Path\n"
    code += f"for name, arguments in ranks.CHECKPOINTED: ranks.resume(Path({str(folder)!r}, 'saved'), name, arguments, "
    code += "ranks.model, 0.0 if (name, arguments) in ranks.ELEMENTWISE else 1e-6)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
