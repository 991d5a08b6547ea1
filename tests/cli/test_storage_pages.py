"""`optgen list --storage` and `optgen show --storage`: what rules keep and move with their states in storages."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import optgen
from optgen.cli import commands as cli
from optgen.optimiser.base import engine_of
from optgen.optimiser.state_storages import OF_STATES


def said(*arguments: str) -> str:
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def rows(text: str) -> dict[str, list[str]]:
    found = (re.split(r"\s{2,}", line.strip()) for line in text.splitlines())
    return {name: more for name, *more in found}


def test_a_rule_in_each_storage() -> None:
    """Adam reads and writes p, m and v, and reads g: 4 + 3 x 2 numbers, of which two are states."""
    assert rows(said("show", "ADAM", "--storage")) | {} == {
        "ADAM: bytes for each element of float32, by what its states are kept in": [],
        "storage": ["kept", "moved"], "float32": ["8", "28"], "bfloat16": ["4", "20"], "float16": ["4", "20"],
        "log8": ["2.03", "16.06"], "linear8": ["2.03", "16.06"], "log4": ["1.06", "14.12"],
    }  # fmt: skip


@pytest.mark.parametrize("storage", OF_STATES)
def test_the_bytes_kept_are_those_of_the_arrays(storage: str) -> None:
    p = np.ones(25_600, np.float32)
    opt: Any = optgen.AdamW(amsgrad=True, storage=storage)
    opt.step([p], [p.copy()])
    kept = sum(x.nbytes for x in engine_of(opt).states.of(p).arrays.values() if x.size > 1)  # type: ignore[attr-defined]
    shown = rows(said("show", "AdamW", "--flag", "amsgrad", "--storage"))[storage][0]
    assert float(shown) == pytest.approx(kept / p.size, abs=0.006)


def test_a_list_of_all_rules() -> None:
    found = rows(said("list", "--storage", "log8"))
    assert found["rule"] == ["kept", "moved", "kept, log8", "moved, log8"]
    assert found["Lion"] == ["4", "20", "1.02", "14.03"]
    assert found["Muon"][0] == "4"
    assert {"AdamW", "LAMB", "Adafactor", "Shampoo"} <= found.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list", "--storage", "bf16+8"), "expected one of bfloat16, float16, log8, linear8, log4; got 'bf16+8'"),
        (("list", "--as", "markdown", "--storage", "log8"), "expected none in markdown"),
        (("show", "ADAM", "--as", "c", "--storage"), "--storage does not go with --as c"),
    ],
)
def test_what_is_no_storage_is_refused(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 2
    assert message in result.output
