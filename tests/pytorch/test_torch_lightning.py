"""Every rule under Lightning, beside a loop by hand: clipping, resuming, the monitor of the learning rate, SWA."""

from __future__ import annotations

import csv
import itertools
import warnings
from pathlib import Path
from typing import Any

import pytest
from rules import OF_MATRICES

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("lightning")

import with_lightning as example
from lightning.pytorch.callbacks import LearningRateMonitor, StochasticWeightAveraging

import optgen
import optgen.torch as optim
from optgen.compiler import catalogue

torch.set_num_threads(1)  # the tensors are tiny, and tests run beside each other
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Lightning's own, of what it finds and of what it is built on
    pytest.mark.no_cover,
]
#: What a trainer can step with no more than gradients, whatever the shapes of parameters.
RULES = [
    name for name in catalogue.shipped_rules()
    if name not in OF_MATRICES and not (getattr(optgen, name)().rule.inputs or getattr(optgen, name)().rule.phases)
]  # fmt: skip


def by_hand(name: str, rates: list[float]) -> list[list[Any]]:
    """The weights before each step and after the last one, of the loop that Lightning stands for."""
    module = example.Classifier(getattr(optim, name), {})
    params, opt = list(module.parameters()), module.configure_optimizers()
    seen = [[p.detach().clone() for p in params]]
    for batch, rate in zip(itertools.cycle(example.batches()), rates, strict=False):
        opt.param_groups[0]["lr"] = rate
        opt.zero_grad()
        module.training_step(batch).backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        seen.append([p.detach().clone() for p in params])
    return seen


def logged(folder: Path, name: str) -> dict[str, list[float]]:
    """What the monitor wrote down before each step: by "", the rate; by "-momentum" and "-weight_decay", these."""
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    return {key.removeprefix(f"lr-{name}"): [float(row[key]) for row in rows] for key in rows[0] if key != "step"}


@pytest.mark.parametrize("name", RULES)
def test_a_resumed_run_is_the_loop_by_hand(name: str, tmp_path: Path) -> None:
    half = example.train(getattr(optim, name), {}, str(tmp_path / "half"), 1, [])
    half.save_checkpoint(tmp_path / "half-way", weights_only=False)
    whole = example.train(getattr(optim, name), {}, str(tmp_path / "whole"), 2, [], str(tmp_path / "half-way"))
    rate = whole.optimizers[0].param_groups[0]["lr"]
    *_, last = by_hand(name, [rate] * 2 * example.BATCHES)
    assert all(map(torch.equal, whole.lightning_module.parameters(), last))


@pytest.mark.parametrize("name", RULES)
def test_averaged_weights_and_logged_rates_are_those_of_the_loop(name: str, tmp_path: Path) -> None:
    defaults = getattr(optim, name)([torch.nn.Parameter(torch.zeros(1))]).defaults
    decays = "weight_decay" in defaults
    assert decays or name == "Rprop"  # which has none in torch either, where the monitor fails
    monitor = LearningRateMonitor("step", log_momentum=True, log_weight_decay=decays)
    averaging = StochasticWeightAveraging(0.5, swa_epoch_start=2, annealing_epochs=1)
    trainer = example.train(getattr(optim, name), {}, str(tmp_path), 4, [monitor, averaging])
    found = logged(tmp_path, name)
    assert found[""][-1] == 0.5
    assert set(found["-momentum"]) == {defaults["betas"][0] if "betas" in defaults else defaults.get("momentum", 0)}
    assert not decays or set(found["-weight_decay"]) == {defaults["weight_decay"]}
    seen = by_hand(name, found[""])
    each = [seen[epoch * example.BATCHES] for epoch in range(1, 4)]
    for p, *weights in zip(trainer.lightning_module.parameters(), *each, strict=True):
        torch.testing.assert_close(p.detach(), sum(weights) / len(weights))


class TwoRules(example.Classifier):
    """The example with a split, which is made of the module and not of its parameters."""

    def configure_optimizers(self) -> Any:
        return optim.split(self, matrices=optim.Lion.options(lr=1e-3), rest=optim.AdamW.options(lr=1e-2))


def test_a_resumed_run_of_a_split_has_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "Classifier", TwoRules)
    monitor = LearningRateMonitor("step", log_momentum=True, log_weight_decay=True)
    whole = example.train(None, {}, str(tmp_path / "whole"), 2, [monitor])
    half = example.train(None, {}, str(tmp_path / "half"), 1, [])
    half.save_checkpoint(tmp_path / "half-way", weights_only=False)
    resumed = example.train(None, {}, str(tmp_path / "resumed"), 2, [], str(tmp_path / "half-way"))
    assert all(map(torch.equal, whole.lightning_module.parameters(), resumed.lightning_module.parameters()))
    with open(tmp_path / "whole" / "metrics.csv") as file:
        rates = {key: float(row[key]) for row in csv.DictReader(file) for key in row if key.startswith("lr-")}
    assert (rates["lr-Split/pg1"], rates["lr-Split/pg2"]) == (1e-3, 1e-2)


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example.main()
    assert "epochs of LAMB" in capsys.readouterr().out
