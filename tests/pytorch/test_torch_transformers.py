"""Every rule under the Trainer of transformers, beside a loop written by hand; the same resumed; and Accelerate."""

from __future__ import annotations

import gc
import inspect
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rules import OF_MATRICES

os.environ.setdefault("HF_HUB_OFFLINE", "1")

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("accelerate")
    pytest.importorskip("transformers")

import with_accelerate
import with_transformers as example
from transformers import Trainer, get_linear_schedule_with_warmup
from transformers.utils import logging

import optgen
import optgen.torch as optim
from optgen.compiler import catalogue

torch.set_num_threads(1)  # the tensors are tiny, and tests run beside each other
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # those of the libraries, of each other
    pytest.mark.no_cover,
]
logging.disable_progress_bar()
STEPS = 4


@pytest.fixture(autouse=True, scope="module")
def frozen() -> Iterator[None]:
    """Leave what is imported by now out of garbage collections: the Trainer does one a run, most of the time."""
    gc.freeze()
    yield
    gc.unfreeze()


def by_hand(name: str, decay: float) -> list[Any]:
    """The weights after the loop that the Trainer stands for: two groups, clipping, a rate that falls to zero."""
    model = example.build()
    decayed = Trainer.get_decay_parameter_names(None, model)  # type: ignore[arg-type]
    groups = [
        {"params": [p for key, p in model.named_parameters() if (key in decayed) is chosen], "weight_decay": value}
        for chosen, value in ((True, decay), (False, 0.0))
    ]
    opt = getattr(optim, name)(groups)
    schedule = get_linear_schedule_with_warmup(opt, 1, STEPS)
    examples = example.Counting()
    for step in range(STEPS):
        chosen = [examples[i] for i in range(step * example.BATCH, (step + 1) * example.BATCH)]
        batch = {key: torch.stack([each[key] for each in chosen]) for key in chosen[0]}
        opt.zero_grad()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        schedule.step()
    return list(model.parameters())


#: What a trainer can step with no more than gradients, whatever the shapes of parameters.
RULES = [
    name for name in catalogue.shipped_rules()
    if name not in OF_MATRICES and not (getattr(optgen, name)().rule.inputs or getattr(optgen, name)().rule.phases)
]  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_the_trainer_and_a_resumed_run_are_the_loop_by_hand(name: str, tmp_path: Path) -> None:
    cls, half = getattr(optim, name), str(tmp_path / f"checkpoint-{STEPS // 2}")
    # The decay of these is one for all parameters; the Trainer has groups with another one, and without any.
    apart = "weight_decay" in inspect.signature(cls).parameters and name not in ("AdamS", "DAdaptAdan")
    decay = 0.1 if apart else 0.0
    run = example.settings(str(tmp_path), STEPS, decay, warmup_steps=1, train_sampling_strategy="sequential")
    whole = example.train(cls, {}, run)
    resumed = example.train(cls, {}, run, half)
    expected = by_hand(name, decay)
    assert all(map(torch.equal, whole.model.parameters(), expected))
    assert all(map(torch.equal, resumed.model.parameters(), expected))


def test_a_chain_goes_through_the_trainer(tmp_path: Path) -> None:
    models = [example.build() for _ in range(2)]
    run = example.settings(str(tmp_path), STEPS)
    for model, resume in zip(models, (None, str(tmp_path / f"checkpoint-{STEPS // 2}")), strict=True):
        opt = optim.chain(model.parameters(), optgen.ClipGlobalNorm(0.5), optgen.AdamW())
        trainer = Trainer(model, run, train_dataset=example.Counting(), optimizers=(opt, None))
        trainer.train(resume_from_checkpoint=resume)
    assert all(map(torch.equal, *(model.parameters() for model in models)))


def test_a_split_goes_through_the_trainer_as_an_optimiser_and_as_what_makes_one(tmp_path: Path) -> None:
    lines: dict[str, Any] = {
        "matrices": optim.Lion.options(lr=1e-3),
        "rest": optim.AdamW.options(lr=1e-3),
        "rest_names": ("embed_tokens", "lm_head"),
    }
    models = [example.build() for _ in range(3)]
    run = example.settings(str(tmp_path), STEPS)
    for i, model in enumerate(models):
        given: Any = {"optimizers": (optim.split(model, **lines), None)}
        if i == 2:
            given = {"optimizer_cls_and_kwargs": (optim.Split, {"params": model, **lines})}
        trainer = Trainer(model, run, train_dataset=example.Counting(), **given)
        trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{STEPS // 2}") if i == 1 else None)
        assert {group["rule"] for group in trainer.optimizer.param_groups} == {"Lion", "AdamW"}
    assert all(map(torch.equal, *(model.parameters() for model in models[:2])))
    assert all(map(torch.equal, *(model.parameters() for model in models[1:])))


def test_a_split_goes_through_accelerate(tmp_path: Path) -> None:
    def split(params: Any, **lines: Any) -> Any:
        """Of a list without names: those of the example's two layers."""
        return optim.split(zip(("0.weight", "0.bias", "2.weight", "2.bias"), params, strict=True), **lines)

    lines = {"matrices": optim.Lion.options(lr=3e-3), "rest": optim.AdamW.options()}
    run = with_accelerate.Run(split, lines)
    run.train(0, 2)
    run.accelerator.save_state(tmp_path)
    expected = run.train(2, 4)
    run = with_accelerate.Run(split, lines)
    run.accelerator.load_state(tmp_path)
    assert run.train(2, 4) == expected


@pytest.mark.parametrize("module", [example, with_accelerate], ids=lambda module: module.__name__)
def test_the_example_runs(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    module.main()
    assert "steps of" in capsys.readouterr().out
