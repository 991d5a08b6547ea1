"""Programs with PyTorch's products, replayed by the interpreter."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from checked_lists import sizes_of_checked_lists
from replays import UNIT, Replay, check_bound

from optgen.compiler.catalogue import shipped_names
from optgen.compiler.driver import compile_file
from optgen.ir.expr import Extent
from optgen.ir.extents import Dims
from optgen.ir.rule import Flag
from optgen.lowering.program import Multiplication, Operand

torch = pytest.importorskip("torch")
optim = pytest.importorskip("optgen.torch")
matrix_library = pytest.importorskip("optgen.torch.matrix_library")

engine_of = pytest.importorskip("optgen.torch.optimizer").engine_of

HYPERS = {"rank": 2.0, "every": 2.0}


@cache
def rules_of(name: str) -> Any:
    return compile_file(shipped_names()[name]).rules


def half(flags: tuple[Flag, ...]) -> bool:
    return any(flag.name == "half" and flag.value for flag in flags)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["Muon", "NorMuon", "SOAP", "Shampoo", "Kron", "GaLore"])
def test_a_program_is_the_interpreter_but_for_what_torch_computes(name: str, dtype: str) -> None:
    for shape in ((4, 6), (6, 4), (5, 5), (2, 3, 70)):
        replay = Replay(rules_of(name), matrix_library.TorchMatrices(), shape, dtype, hypers=HYPERS)
        for threads in (1, 2):
            replay.step(threads)


def test_muon_in_bfloat16_multiplies_bfloat16() -> None:
    rules = [rule for rule in rules_of("Muon") if half(rule.flags)]
    replay = Replay(rules, matrix_library.TorchMatrices(), (300, 270), "float32")
    replay.step()
    records = replay.library.records
    assert [record.step.op for record in records] == ["convert", *["multiply"] * 15, "convert"]
    assert all(record.step.target.half for record in records[:-1])


@pytest.mark.parametrize("shape", [(96, 256), (256, 96), (300, 300)])
def test_muon_in_float32_is_torch_but_for_rounding(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's always rounds to bfloat16: here it is kept from that."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    rules = [rule for rule in rules_of("Muon") if not half(rule.flags)]
    replay = Replay(rules, matrix_library.TorchMatrices(), shape, "float64", hypers={"lr": 0.02})
    theirs = torch.nn.Parameter(torch.from_numpy(replay.arrays["p"].copy()))
    reference = torch.optim.Muon([theirs], lr=0.02)
    for _ in range(3):
        g = replay.gradient()
        theirs.grad = torch.from_numpy(g.copy())
        reference.step()
        replay.step(g=g)
    np.testing.assert_allclose(replay.arrays["p"], theirs.detach().numpy(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("n", [5, 260])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_products_are_within_their_bound(n: int, symmetric: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, n, n).to(dtype)
    c = x + x.mT
    out = torch.empty_like(x)
    matrix_library._multiply(out, x, x.mT, 2.0, c, -3.0, symmetric=symmetric)
    target = Operand("C", Dims("row", "row"), Extent.ELEMENT, half=dtype is torch.bfloat16)
    args = [x.double().numpy(), x.mT.double().numpy(), 2.0, c.double().numpy(), -3.0]
    unit = UNIT["float64" if dtype is torch.float64 else "float32"]
    check_bound(Multiplication("multiply", (), target), args, out.double().numpy(), unit, "C")


def test_a_private_call_that_is_missing_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        raise AttributeError("_linear_pointwise")

    monkeypatch.setattr(matrix_library, "_onednn", missing)
    matrix_library._has_onednn.cache_clear()
    try:
        assert not matrix_library._has_onednn()
    finally:
        matrix_library._has_onednn.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(8, 12), (64, 64), (1, 40), (17, 65)])
@pytest.mark.parametrize(("name", "choice"), [("Muon", {}), ("NorMuon", {"half": False})])
def test_steps_of_several_parameters_are_those_of_one_by_one(
    shape: tuple[int, int], name: str, choice: dict[str, bool], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    start = [torch.randn(shape, dtype=dtype) for _ in range(5)] + [torch.randn(shape[::-1], dtype=dtype)]
    together = [torch.nn.Parameter(p.clone()) for p in start]
    apart = [torch.nn.Parameter(p.clone()) for p in start]
    cls = getattr(optim, name)
    optimisers = [cls(together, lr=0.02, **choice), *[cls([p], lr=0.02, **choice) for p in apart]]
    for _ in range(3):
        for p, q in zip(together, apart, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for each in optimisers:
            each.step()
    for p, q in zip(together, apart, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return sizes_of_checked_lists(monkeypatch)


def parameters(*shapes: tuple[int, ...]) -> list[Any]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]


@pytest.mark.parametrize("name", ["Muon", "SOAP", "SPlus"])
def test_a_known_list_is_not_checked_anew(name: str, checked: list[int]) -> None:
    shapes = [(8, 12), (12, 8), (8, 12), (6, 6)]
    ps, qs = parameters(*shapes), parameters(*shapes)
    opt, oracle = getattr(optim, name)(ps, lr=0.02), getattr(optim, name)(qs, lr=0.02)
    for step in range(4):
        for p, q in zip(ps, qs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        opt.step()
        before = len(checked)
        engine_of(oracle).plans.clear()
        oracle.step()
        assert checked[before:] == [len(qs)]
        del checked[before:]
        assert checked == [len(ps)], step
    assert all(torch.equal(p, q) for p, q in zip(ps, qs, strict=True))


def test_a_state_that_was_exchanged_is_gone_on_from(checked: list[int]) -> None:
    (p,), (q,) = parameters((8, 12)), parameters((8, 12))
    opt, other = optim.Muon([p], lr=0.02), optim.Muon([q], lr=0.02)
    for _ in range(2):
        p.grad = torch.randn_like(p)
        opt.step()
    opt.state[p]["momentum_buffer"] = torch.full_like(p, 0.5)
    with torch.no_grad():
        q.copy_(p)
    other.state[q]["momentum_buffer"] = torch.full_like(q, 0.5)
    p.grad = torch.randn_like(p)
    q.grad = p.grad.clone()
    opt.step()
    other.step()
    assert torch.equal(p, q)
    assert checked == [1, 1, 1]


def test_what_has_no_gradient_stays_and_what_has_16_bits_steps_too() -> None:
    ps = [*parameters((8, 12), (8, 12)), torch.nn.Parameter(torch.randn(8, 12).bfloat16())]
    qs = [torch.nn.Parameter(p.detach().clone()) for p in ps]
    opt, apart = optim.Muon(ps, lr=0.02), [optim.Muon([q], lr=0.02) for q in qs]
    for step in range(4):
        for i, (p, q) in enumerate(zip(ps, qs, strict=True)):
            p.grad = None if (step + i) % 3 == 0 else torch.randn_like(p)
            q.grad = None if p.grad is None else p.grad.clone()
        opt.step()
        for each in apart:
            each.step()
    for p, q in zip(ps, qs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-2, atol=1e-3)
