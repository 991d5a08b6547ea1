"""Real small models, trained with each rule under PyTorch and under optgen: the same losses, within rounding."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch_pairs import NAMES, optim, ours, theirs

import optgen

RATES = {
    "SGD": 0.05, "Adadelta": 1.0, "Adagrad": 0.02, "RMSprop": 1e-3, "RAdam": 0.03, "Rprop": 1e-3, "ASGD": 0.5,
    "Adafactor": 0.02,
}  # fmt: skip


def digits() -> tuple[Any, Callable[[Any, int], Any]]:
    """A classifier of handwritten digits, and its loss in a step."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = torch.tensor(data.data / 16), torch.tensor(data.target)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)).double()

    def loss(model: Any, t: int) -> Any:
        batch = slice(100 * t % 1500, 100 * t % 1500 + 100)
        return torch.nn.functional.cross_entropy(model(x[batch]), y[batch])

    return model, loss


class Transformer(torch.nn.Module):
    def __init__(self, letters: int) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(letters, 16)
        self.place = torch.nn.Parameter(torch.randn(12, 16) / 4)
        self.layers = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True) for _ in range(2)
        )
        self.out = torch.nn.Linear(16, letters)

    def forward(self, x: Any) -> Any:
        mask = torch.nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        h = self.embed(x) + self.place[: x.shape[1]]
        for layer in self.layers:
            h = layer(h, src_mask=mask, is_causal=True)
        return self.out(h)


def text() -> tuple[Any, Callable[[Any, int], Any]]:
    """A transformer of two layers that learns sums written as text."""
    letters = "0123456789+= "
    lines = [f"{a}+{b}={a + b}".ljust(13)[:13] for a in range(40, 60) for b in range(40, 60)]
    codes = torch.tensor([[letters.index(c) for c in line] for line in lines])
    torch.manual_seed(0)
    model = Transformer(len(letters)).double()

    def loss(model: Any, t: int) -> Any:
        rows = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(t))[:16]]
        given = model(rows[:, :-1])
        return torch.nn.functional.cross_entropy(given.flatten(0, 1), rows[:, 1:].flatten())

    return model, loss


def train(model: Any, loss: Callable[[Any, int], Any], optimiser: Any, steps: int) -> list[float]:
    losses = []
    for t in range(steps):
        optimiser.zero_grad()
        now = loss(model, t)
        now.backward()
        optimiser.step()
        losses.append(now.item())
    return losses


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [digits, text], ids=["digits", "transformer"])
def test_a_model_learns_the_same(make: Any, name: str) -> None:
    model, loss = make()
    twin = copy.deepcopy(model)
    steps = 60 if make is digits else 20
    arguments = {"lr": RATES.get(name, 3e-3)} | ({"momentum": 0.9} if name == "SGD" else {})
    there = train(model, loss, theirs(name, model.parameters(), **arguments), steps)
    here = train(twin, loss, ours(name, twin.parameters(), **arguments), steps)
    assert here == pytest.approx(there, rel=1e-5)
    assert sum(there[-5:]) < 0.9 * sum(there[:5])


def test_a_model_learns_with_a_chain_and_a_scheduler() -> None:
    model, loss = digits()
    twin = copy.deepcopy(model)
    there = torch.optim.AdamW(model.parameters(), 3e-3, foreach=False)
    here = optim.chain(twin.parameters(), optgen.ClipGlobalNorm(0.1), optgen.AdamW(3e-3))
    schedulers = [torch.optim.lr_scheduler.CosineAnnealingLR(o, 60) for o in (there, here)]
    losses: tuple[list[float], list[float]] = ([], [])
    for t in range(60):
        for own, optimiser, scheduler, found in zip((model, twin), (there, here), schedulers, losses, strict=True):
            optimiser.zero_grad()
            now = loss(own, t)
            now.backward()
            if optimiser is there:
                torch.nn.utils.clip_grad_norm_(own.parameters(), 0.1)
            optimiser.step()
            scheduler.step()
            found.append(now.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


# ---- torch.compile ----


@pytest.fixture
def compiler() -> Any:
    """Counts what is compiled, in graphs that are only captured and not made into code."""
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    yield CompileCounter()
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")  # what PyTorch's compiler says of its own
@pytest.mark.parametrize("name", ["AdamW", "LAMB"])
def test_a_compiled_training_step_is_compiled_once(compiler: Any, name: str) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    twin = copy.deepcopy(model)
    plain, optimiser = (getattr(optim, name)(m.parameters(), lr=0.1) for m in (twin, model))
    schedulers = [torch.optim.lr_scheduler.StepLR(o, 1, 0.9) for o in (plain, optimiser)]

    def step(model: Any, optimiser: Any, x: Any) -> Any:
        loss = model(x).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return loss.detach()

    compiled = torch.compile(step, backend=compiler)
    counts = []
    for t in range(6):
        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(t))
        torch.testing.assert_close(compiled(model, optimiser, x), step(twin, plain, x))
        for scheduler in schedulers:
            scheduler.step()
        counts.append(compiler.frame_count)
    assert counts[0] >= 1
    assert counts[-1] == counts[1], counts
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_a_compiled_model_is_trained(compiler: Any) -> None:
    model, loss = digits()
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, backend=compiler)
    there = train(compiled, loss, optim.AdamW(compiled.parameters(), 3e-3), 8)
    assert train(twin, loss, optim.AdamW(twin.parameters(), 3e-3), 8) == pytest.approx(there, rel=1e-9)
    assert compiler.frame_count == 1
