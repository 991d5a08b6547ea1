"""Reports in PyTorch: one dict for loggers, with the names of parameters where the optimiser knows them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import optgen
import optgen.torch as ot
from optgen.errors import StateError


def model(dtype: Any = torch.float32) -> Any:
    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Linear(5, 2)).to(dtype)
    made(torch.ones(3, 4, dtype=dtype)).square().sum().backward()
    return made


def test_a_report_names_parameters_and_parts() -> None:
    made = model()
    opt = ot.chain(made.named_parameters(), optgen.ClipGlobalNorm(0.5), optgen.LAMB(0.1))
    with pytest.raises(StateError, match="expected a report of the last step, and there was none yet"):
        opt.report()
    with pytest.raises(StateError):
        copy.deepcopy(opt).report()
    opt.step()
    report = opt.report()
    names = [f"lamb/trust_ratio/{name}" for name, _ in made.named_parameters()]
    assert list(report) == ["clipglobalnorm/norm", *names]
    assert all(type(value) is float for value in report.values())
    norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten().double() for p in made.parameters()]))
    assert report["clipglobalnorm/norm"] == pytest.approx(norm.item(), rel=1e-12)
    assert not set(opt.state_dict()["state"][0]) & {"trust_ratio", "lamb/trust_ratio"}


def test_a_report_is_that_of_numpy() -> None:
    made = model()
    arrays = [p.detach().numpy().copy() for p in made.parameters()]
    theirs = optgen.LAMB(0.1)
    groups = [{"params": [p]} for p in made.parameters()]
    groups[0]["lr"] = 0.5
    opt = ot.LAMB(groups, lr=0.1)
    opt.step()
    theirs.step(arrays, [p.grad.numpy() for p in made.parameters()])
    assert opt.report() == {f"trust_ratio/{i}": theirs.report(p)["trust_ratio"] for i, p in enumerate(arrays)}


def test_parameters_without_a_gradient_report_nothing() -> None:
    made = model()
    opt = ot.LAMB(made.named_parameters())
    made[0].weight.grad = None
    opt.step()
    assert list(opt.report()) == ["trust_ratio/0.bias", "trust_ratio/1.weight", "trust_ratio/1.bias"]


def test_kernels_and_the_interpreter_report_together() -> None:
    ones = [torch.nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16, torch.float64)]
    for p in ones:
        p.grad = p.detach() / 2
    opt = ot.LAMB(ones)
    opt.step()
    assert opt.report() == {f"trust_ratio/{i}": pytest.approx(np.sqrt(3) / np.sqrt(3), rel=1e-5) for i in (0, 2, 1)}


def test_tied_parameters_report_in_their_turns() -> None:
    memory = torch.ones(6)
    ps = [torch.nn.Parameter(memory[:4]), torch.nn.Parameter(memory[2:])]
    for p in ps:
        p.grad = torch.ones(4)
    opt = ot.LAMB(ps)
    for _ in range(2):
        opt.step()
        assert set(opt.report()) == {"trust_ratio/0", "trust_ratio/1"}


def test_a_step_that_does_not_count_reports_nothing_and_other_extents_are_tensors(tmp_path: Any) -> None:
    spec = tmp_path / "rows.toml"
    spec.write_text("""
name = "Rows"
[hyperparameters]
lr = { default = 0.1, range = "[0, inf)" }
[update]
formulas = '''
accept = max(abs(g), group) < 10
delta  = lr*g
'''
[report]
rows = { value = "norm(g, row)", when = "matrix" }
rate = { value = "lr" }
""")
    p = torch.nn.Parameter(torch.ones(2, 3))
    opt = ot.load(spec)([p])
    p.grad = torch.full((2, 3), 2.0)
    opt.step()
    report = opt.report()
    assert report["rate"] == 0.1
    assert torch.equal(report["rows/0"], torch.tensor([[12.0], [12.0]], dtype=torch.float64).sqrt())
    p.grad = torch.full((2, 3), 20.0)
    opt.step()
    assert opt.report() == {}


def test_pytorchs_own_rules_report_nothing() -> None:
    opt = ot.AdamW(model().parameters())
    assert opt.report() == {}
    opt.step()
    assert opt.report() == {}
