"""Lion under the Trainer of transformers: a small language model learns to count.

The second half of the run is then repeated from the checkpoint half-way, and ends with the same bits.

    pip install ".[frameworks]"
    python examples/with_transformers.py

In: an optimiser class of `optgen.torch` and its arguments. Out: what the Trainer trained and logged. Nothing is
downloaded, and no accelerator is needed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.utils import logging

import optgen.torch as optim

WORDS, LENGTH, EXAMPLES, BATCH = 16, 8, 64, 16


class Counting(Dataset[dict[str, torch.Tensor]]):
    """Sequences such as 5 7 9 11: any start, a stride of 1 to 3, modulo the number of words."""

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        tokens = (i + (1 + i % 3) * torch.arange(LENGTH)) % WORDS
        return {"input_ids": tokens, "labels": tokens}


def build() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=WORDS, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
        )
    )  # fmt: skip


def settings(folder: str, steps: int, weight_decay: float = 0.1, **options: Any) -> TrainingArguments:
    """A run with a checkpoint half-way in `folder`. `options` are further arguments of the Trainer."""
    return TrainingArguments(
        folder, max_steps=steps, save_steps=steps // 2, per_device_train_batch_size=BATCH, weight_decay=weight_decay,
        logging_steps=steps // 4, use_cpu=True, disable_tqdm=True, report_to="none", log_level="error", **options,
    )  # fmt: skip


def train(optimiser: Any, arguments: dict[str, Any], run: TrainingArguments, resume: str | None = None) -> Trainer:
    """Train a new model; or go on from the checkpoint `resume`.

    The Trainer makes the optimiser. It brings clipping, a learning rate that falls to zero along a line, and two groups
    of parameters, with and without weight decay.
    """
    trainer = Trainer(build(), run, train_dataset=Counting(), optimizer_cls_and_kwargs=(optimiser, arguments))
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def main() -> None:
    logging.disable_progress_bar()
    steps = 80
    with tempfile.TemporaryDirectory() as folder:
        run = settings(folder, steps)
        whole = train(optim.Lion, {"lr": 1e-2}, run)
        resumed = train(optim.Lion, {"lr": 1e-2}, run, str(Path(folder, f"checkpoint-{steps // 2}")))
    curve = [entry["loss"] for entry in whole.state.log_history if "loss" in entry]
    print(f"loss {curve[0]:.3f} at first, {curve[-1]:.3f} after {steps} steps of Lion")
    if not curve[-1] < 0.5 * curve[0]:
        raise SystemExit("the loss did not fall")
    if not all(map(torch.equal, whole.model.parameters(), resumed.model.parameters())):
        raise SystemExit("the resumed run went another way")
    print("resumed half-way: the same bits")


if __name__ == "__main__":
    main()
