"""LAMB under Lightning: gradients clipped, the learning rate monitored, weights averaged over the last epochs (SWA).

    pip install ".[frameworks]"
    python examples/with_lightning.py

In: an optimiser class of `optgen.torch` and its arguments. Out: the trained module. Nothing is downloaded, and no
accelerator is needed.
"""

from __future__ import annotations

import csv
import logging
import tempfile
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import optgen.torch as optim

CLASSES, FEATURES, BATCH, BATCHES = 10, 20, 32, 4


def batches() -> DataLoader[Any]:
    """Points around ten centres."""
    torch.manual_seed(0)
    centres = torch.randn(CLASSES, FEATURES)
    labels = torch.arange(BATCH * BATCHES) % CLASSES
    return DataLoader(TensorDataset(centres[labels] + torch.randn(len(labels), FEATURES), labels), batch_size=BATCH)


class Classifier(LightningModule):
    """Two layers, and an optimiser as any of `torch.optim` would stand here."""

    def __init__(self, optimiser: Any, arguments: dict[str, Any]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, CLASSES))
        self.optimiser, self.arguments = optimiser, arguments
        self.curve: list[float] = []

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        x, labels = batch
        loss = nn.functional.cross_entropy(self.layers(x), labels)
        self.curve.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        made: torch.optim.Optimizer = self.optimiser(self.parameters(), **self.arguments)
        return made


def train(
    optimiser: Any,
    arguments: dict[str, Any],
    folder: str,
    epochs: int,
    callbacks: list[Callback],
    resume: str | None = None,
) -> Trainer:
    """Train a new module; or go on from the checkpoint `resume`."""
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, gradient_clip_val=1.0, callbacks=callbacks, log_every_n_steps=1,
        logger=CSVLogger(folder, name="", version=""), enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Classifier(optimiser, arguments), batches(), ckpt_path=resume)
    return trainer


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    epochs = 12
    callbacks = [
        LearningRateMonitor(logging_interval="step", log_momentum=True, log_weight_decay=True),
        StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=0.75, annealing_epochs=2),
    ]
    with tempfile.TemporaryDirectory() as folder:
        trainer = train(optim.LAMB, {"lr": 0.03, "weight_decay": 0.01}, folder, epochs, callbacks)
        with open(Path(folder, "metrics.csv")) as file:
            rates = [float(row["lr-LAMB"]) for row in csv.DictReader(file)]
    curve = trainer.lightning_module.curve
    print(f"loss {curve[0]:.3f} at first, {curve[-1]:.3f} after {epochs} epochs of LAMB")
    print(f"learning rate {rates[0]} at first, {rates[-1]} where weights are averaged")
    if not curve[-1] < 0.5 * curve[0]:
        raise SystemExit("the loss did not fall")


if __name__ == "__main__":
    main()
