"""Sharded training on several processes of this machine: DDP, ZeRO, FSDP2, checkpoints, norms, whole matrices. What is
checked stands in `ranks.py` and `matrix_ranks.py`; here the processes are started, and killed if they hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("this PyTorch has no torch.distributed", allow_module_level=True)

pytestmark = pytest.mark.slow

SUPPORT = Path(__file__).parents[1] / "support"
LIMIT = 120.0  # seconds; a process that waits in vain for another one gives up sooner

CHECKS = {
    2: (
        "shards_of_elementwise_rules", "plans_are_kept", "fsdp", "flat_parameters", "ddp", "zero",
        "norms_over_whole_tensors", "norms_of_a_model", "a_split_of_shards", "a_step_counts_for_all_or_for_none",
        "cut_rows_and_columns_are_refused",
        "whole_matrices_are_stepped", "sixteen_bits", "storages_of_shards",
        "gradients_are_laid_out_as_their_parameters",
        "a_checkpoint_is_saved", "a_checkpoint_is_loaded",
    ),
    4: (
        "shards_of_elementwise_rules", "fsdp", "zero", "norms_over_whole_tensors", "cut_rows_and_columns_are_refused",
        "a_checkpoint_is_loaded",
    ),
    1: ("a_checkpoint_is_loaded",),
}  # fmt: skip
MATRIX_CHECKS = {
    3: (
        "every_rule_has_the_bits_of_one_process", "sixteen_bits_are_stepped_whole", "a_model_is_stepped_by_two_rules",
        "a_refused_step_changes_nothing_anywhere", "processes_must_step_the_same", "an_owner_that_fails_stops_all",
        "what_cannot_be_put_together_is_refused", "a_matrix_checkpoint_is_saved",
    ),
    2: (
        "every_rule_has_the_bits_of_one_process", "a_matrix_checkpoint_is_loaded", "a_whole_state_is_loaded",
    ),
    4: (
        "every_rule_has_the_bits_of_one_process", "replicas_of_shards_are_stepped", "a_matrix_checkpoint_is_loaded",
    ),
    1: ("a_matrix_checkpoint_is_loaded",),
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


Faults: TypeAlias = dict[tuple[int, str], str]


def found_by(script: str, checks: Mapping[int, Sequence[str]], folder: Path) -> Faults:
    """What became of each check on each number of processes: the tracebacks."""
    groups = [f"{size}:{','.join(names)}" for size, names in checks.items()]
    text = output_of([sys.executable, str(SUPPORT / script), str(folder), *groups], folder / "log")
    found = {}
    for size, names in checks.items():
        results = [folder / f"{size}-{rank}.json" for rank in range(size)]
        told = [json.loads(result.read_text()) if result.exists() else {} for result in results]
        for name in names:
            lost = f"it did not come to this\n{text}"
            found[size, name] = "\n".join(filter(None, (each.get(name, lost) for each in told)))
    return found


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    return found_by("ranks.py", CHECKS, tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def matrix_faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    return found_by("matrix_ranks.py", MATRIX_CHECKS, tmp_path_factory.mktemp("matrix_ranks"))


@pytest.mark.parametrize(("size", "name"), [(size, name) for size, names in CHECKS.items() for name in names])
def test_processes(faults: Faults, size: int, name: str) -> None:
    assert not faults[size, name], faults[size, name]


@pytest.mark.parametrize(("size", "name"), [(size, name) for size, names in MATRIX_CHECKS.items() for name in names])
def test_processes_that_own_matrices(matrix_faults: Faults, size: int, name: str) -> None:
    assert not matrix_faults[size, name], matrix_faults[size, name]


def test_the_example_trains_in_shards(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "fsdp.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    text = output_of([*launcher, str(example)], tmp_path / "log")
    assert "on 2 processes" in text, text
    assert "Error" not in text, text
