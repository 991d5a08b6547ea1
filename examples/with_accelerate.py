"""Lion in a loop of one's own with Accelerate: gradients accumulated over four batches and clipped, and a schedule.

The run is saved half-way, and goes on from there in a new model with the same bits.

    pip install ".[frameworks]"
    python examples/with_accelerate.py

In: an optimiser class of `optgen.torch` and its arguments. Out: losses and weights. Nothing is downloaded, and no
accelerator is needed.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import optgen.torch as optim

CLASSES, FEATURES, BATCH, ACCUMULATED, STEPS = 10, 20, 16, 4, 60


def batch(i: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around ten centres."""
    centres = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(0))
    own = torch.Generator().manual_seed(1 + i)
    labels = torch.randint(CLASSES, (BATCH,), generator=own)
    return centres[labels] + torch.randn(BATCH, FEATURES, generator=own), labels


class Run:
    """A model with its optimiser and schedule, as Accelerate prepares them."""

    def __init__(self, optimiser: Any, arguments: dict[str, Any]) -> None:
        torch.manual_seed(0)
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATED)
        model = nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, CLASSES))
        opt = optimiser(model.parameters(), **arguments)
        schedule = CosineAnnealingLR(opt, T_max=STEPS)
        self.model, self.opt, self.schedule = self.accelerator.prepare(model, opt, schedule)

    def train(self, first: int, last: int) -> list[float]:
        """The loss of each batch of these steps."""
        curve = []
        for i in range(first * ACCUMULATED, last * ACCUMULATED):
            x, labels = batch(i)
            with self.accelerator.accumulate(self.model):
                loss = nn.functional.cross_entropy(self.model(x), labels)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
                self.opt.step()
                self.schedule.step()
                self.opt.zero_grad()
            curve.append(float(loss.detach()))
        return curve


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(optim.Lion, {"lr": 3e-3, "weight_decay": 0.1})
        curve = run.train(0, STEPS // 2)
        run.accelerator.save_state(folder)
        expected = run.train(STEPS // 2, STEPS)

        run = Run(optim.Lion, {"lr": 3e-3, "weight_decay": 0.1})
        run.accelerator.load_state(folder)
        resumed = run.train(STEPS // 2, STEPS)
    print(f"loss {curve[0]:.3f} at first, {resumed[-1]:.3f} after {STEPS} steps of {ACCUMULATED} batches")
    if resumed != expected:
        raise SystemExit("the resumed run went another way")
    if not resumed[-1] < 0.5 * curve[0]:
        raise SystemExit("the loss did not fall")


if __name__ == "__main__":
    main()
