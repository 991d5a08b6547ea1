"""Inputs of a step in PyTorch: the loss of a closure, numbers by name, tensors as attributes of their parameters."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import optgen
import optgen.torch as ot
from optgen.errors import ArgumentError, ArrayError, OverlapError


def parameters(dtype: Any = None) -> list[Any]:
    torch.manual_seed(3)
    shapes = ((4, 5), (7,), (2, 3, 4))
    return [torch.nn.Parameter(torch.randn(shape, dtype=dtype or torch.float32)) for shape in shapes]


def give(ps: list[Any], seed: int) -> None:
    """Gradients and Hessians."""
    torch.manual_seed(seed)
    for p in ps:
        p.grad, p.hessian = torch.randn_like(p), torch.randn_like(p)


def test_tensors_are_attributes_of_parameters() -> None:
    ps = parameters()
    arrays = [p.detach().numpy().copy() for p in ps]
    opt, core = ot.Sophia(ps, lr=0.1, k=2), optgen.Sophia(eta=0.1, k=2)
    for t in range(5):
        give(ps, t)
        opt.step()
        core.step(arrays, [p.grad.numpy() for p in ps], hessian=[p.hessian.numpy() for p in ps])
        for p, array in zip(ps, arrays, strict=True):
            assert p.detach().numpy().tobytes() == array.tobytes()


@pytest.mark.parametrize("way", ["closure", "keyword", "tensor"])
def test_the_loss_is_what_the_closure_returns_or_what_is_given(way: str) -> None:
    ps = parameters()
    arrays = [p.detach().numpy().copy() for p in ps]
    opt, core = ot.ALIG(ps), optgen.ALIG()
    for t in range(4):

        def closure(t: int = t) -> Any:
            give(ps, t)
            return (ps[0] ** 2).sum()

        loss = closure()
        if way == "closure":
            returned = opt.step(closure)
            assert returned.item() == loss.item()
        else:
            assert opt.step(loss=loss if way == "tensor" else loss.item()) is None
        core.step(arrays, [p.grad.numpy() for p in ps], loss=loss.item())
        assert [p.detach().numpy().tobytes() for p in ps] == [array.tobytes() for array in arrays]


def test_a_loss_that_is_given_goes_before_that_of_the_closure() -> None:
    p, q = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    p.grad, q.grad = torch.ones(3), torch.ones(3)
    ot.PolyakSGD([p]).step(lambda: 0.5, loss=0.25)
    ot.PolyakSGD([q]).step(loss=0.25)
    assert torch.equal(p, q)


def test_parameters_without_a_gradient_need_no_inputs() -> None:
    ps = parameters()
    give(ps, 0)
    ps[1].grad = ps[1].hessian = None
    before = ps[1].detach().clone()
    opt = ot.AdaHessian(ps)
    for _ in range(2):
        opt.step()
    assert torch.equal(ps[1], before)
    assert ps[1] not in opt.state
    ps[1].grad, ps[1].hessian = torch.ones(7), torch.ones(7)
    opt.step()
    assert not torch.equal(ps[1], before)


def test_a_step_keeps_no_input_alive() -> None:
    ps = parameters()
    opt = ot.Sophia(ps)
    for t in range(3):
        give(ps, t)
        opt.step()
        gone = [weakref.ref(p.hessian) for p in ps]
        for p in ps:
            p.grad = p.hessian = None
        gc.collect()
        assert [ref() for ref in gone] == [None] * 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64], ids=str)
def test_other_dtypes_step_as_their_gradients_do(dtype: Any) -> None:
    """16 bits by the interpreter in float32; complex numbers by kernels, part by part."""
    ps = parameters(dtype)
    wide = [torch.view_as_real(p) if dtype.is_complex else p for p in ps]
    arrays = [x.detach().to(torch.float64 if dtype is torch.float64 else torch.float32).numpy().copy() for x in wide]
    give(ps, 0)
    ot.Sophia(ps, lr=0.1).step()

    def seen(x: Any) -> Any:
        x = torch.view_as_real(x) if dtype.is_complex else x
        return x.to(torch.float64 if dtype is torch.float64 else torch.float32).numpy()

    grads, hessians = [seen(p.grad) for p in ps], [seen(p.hessian) for p in ps]
    optgen.Sophia(eta=0.1).step(arrays, grads, hessian=hessians)
    for p, array in zip(ps, arrays, strict=True):
        got = seen(p.detach())
        expected = torch.from_numpy(array).to(dtype).float().numpy() if dtype is torch.bfloat16 else array
        assert got.tobytes() == expected.tobytes()


def test_tied_parameters_step_in_turns_with_their_inputs() -> None:
    p = torch.nn.Parameter(torch.ones(6))
    part = torch.nn.Parameter(p.detach()[2:4])
    opt = ot.Sophia([p, part], lr=0.1)
    for x in (p, part):
        x.grad, x.hessian = torch.ones_like(x), torch.full_like(x, 2.0)
    opt.step()
    once = torch.nn.Parameter(torch.ones(6))
    once.grad, once.hessian = torch.ones(6), torch.full((6,), 2.0)
    ot.Sophia([once], lr=0.1).step()
    assert torch.equal(p[:2], once[:2])
    assert torch.equal(p[2:4], once[2:4] - (1 - once[2:4]))


def test_chains_take_inputs() -> None:
    ps, qs = parameters(), parameters()
    opt = ot.chain(ps, optgen.ClipGlobalNorm(0.5), optgen.PolyakSGD(), optgen.EMA())
    core = optgen.chain(optgen.ClipGlobalNorm(0.5), optgen.PolyakSGD(), optgen.EMA())
    arrays = [q.detach().numpy().copy() for q in qs]
    for t in range(3):
        give(ps, t)
        opt.step(loss=1.5)
        core.step(arrays, [p.grad.numpy() for p in ps], loss=1.5)
    assert [p.detach().numpy().tobytes() for p in ps] == [array.tobytes() for array in arrays]


def test_a_scheduler_and_hooks_leave_inputs_alone() -> None:
    ps = parameters()
    opt = ot.PolyakSGD(ps)
    seen: list[Any] = []
    opt.register_step_pre_hook(lambda opt, args, kwargs: seen.append(dict(kwargs)))
    schedule = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
    give(ps, 0)
    opt.step(loss=2.0)
    schedule.step()
    assert seen == [{"loss": 2.0}]
    assert opt.param_groups[0]["lr"] == 0.5


def test_a_state_dict_holds_no_inputs() -> None:
    ps = parameters()
    opt = ot.Sophia(ps)
    give(ps, 0)
    opt.step()
    assert {key for kept in opt.state_dict()["state"].values() for key in kept} == {"m", "h", "step"}
    again = ot.Sophia(copy.deepcopy(ps))
    again.load_state_dict(opt.state_dict())
    for one, other in zip(ps, again.param_groups[0]["params"], strict=True):
        other.grad, other.hessian = one.grad, one.hessian
    for each in (opt, again):
        each.step()
    assert all(torch.equal(p, q) for p, q in zip(ps, again.param_groups[0]["params"], strict=True))


# ---- Bad input ----


def without(p: Any) -> None:
    del p.hessian


def put(name: str, value: Callable[[Any], Any]) -> Callable[[Any], None]:
    return lambda p: setattr(p, name, value(p))


BAD: dict[str, tuple[Callable[[Any], None], str]] = {
    "none": (without, r"parameter 1: Sophia takes hessian: expected a tensor, got none"),
    "None": (put("hessian", lambda p: None), r"parameter 1: Sophia takes hessian: expected a tensor, got none"),
    "an array": (put("hessian", lambda p: np.ones(7)), "hessian: expected a tensor, got array"),
    "another shape": (
        put("hessian", lambda p: torch.ones(6)),
        r"parameter 1: hessian: expected a dense tensor like its parameter, of shape \(7,\) and .*, got \(6,\), ",
    ),
    "another dtype": (put("hessian", lambda p: p.detach().double()), "expected a dense tensor .*, got .*torch.float64"),
    "sparse": (put("hessian", lambda p: p.detach().to_sparse()), "expected a dense tensor .*, got .*torch.sparse"),
    "another device": (
        put("hessian", lambda p: p.detach().to("meta")),
        "parameter 1 is on cpu, .* or another input on meta",
    ),
}


@pytest.mark.parametrize("begun", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("what", BAD)
def test_a_faulty_attribute_touches_nothing(what: str, begun: bool) -> None:
    change, message = BAD[what]
    ps = parameters()
    opt = ot.Sophia(ps, k=1)
    give(ps, 0)
    if begun:
        opt.step()
    before = copy.deepcopy((opt.state_dict(), [p.detach() for p in ps]))
    change(ps[1])
    with pytest.raises(ArrayError, match=message):
        opt.step()
    now = (opt.state_dict(), [p.detach() for p in ps])
    assert str(before) == str(now)
    give(ps, 1)
    opt.step()


LOSSES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "none": (lambda opt: opt.step(), r"PolyakSGD: expected the input 'loss' .* in this step, got none"),
    "a closure that returns nothing": (lambda opt: opt.step(lambda: None), "expected the input 'loss'"),
    "NaN": (lambda opt: opt.step(lambda: torch.tensor(float("nan"))), "loss: expected a finite number, got nan"),
    "a vector": (lambda opt: opt.step(loss=torch.ones(2)), "PolyakSGD: loss: expected a number, got tensor"),
    "text": (lambda opt: opt.step(loss="1"), "PolyakSGD: loss: expected a number, got '1'"),
    "another name": (lambda opt: opt.step(loss=1.0, los=2.0), "unknown input 'los'; did you mean 'loss'"),
}


@pytest.mark.parametrize("what", LOSSES)
def test_a_faulty_number_touches_nothing(what: str) -> None:
    step, message = LOSSES[what]
    ps = parameters()
    give(ps, 0)
    opt, before = ot.PolyakSGD(ps), [p.detach().clone() for p in ps]
    with pytest.raises(ArgumentError, match=message):
        step(opt)
    assert all(torch.equal(p, q) for p, q in zip(ps, before, strict=True))
    assert not opt.state


def test_a_missing_loss_says_what_to_do() -> None:
    ps = parameters()
    give(ps, 0)
    with pytest.raises(ArgumentError, match=r"return the loss from the closure, or write opt.step\(loss=loss\)"):
        ot.ALIG(ps).step()


def test_a_tensor_by_keyword_is_pointed_to_attributes() -> None:
    ps = parameters()
    give(ps, 0)
    with pytest.raises(ArgumentError, match="expected 'hessian' as an attribute of each parameter") as caught:
        ot.Sophia(ps).step(hessian=[p.hessian for p in ps])
    assert "p.hessian = ..." in str(caught.value)


def test_an_input_that_tensors_have_an_attribute_for_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "curved.toml"
    path.write_text("name = 'Curved'\n[inputs]\nH = {}\n[update]\nformulas = '''\ndelta = g/(1 + abs(H))\n'''\n")
    with pytest.raises(ArgumentError, match="Curved: the input 'H' would be an attribute of parameters, and tensors"):
        ot.load(path)


def test_a_rule_without_inputs_takes_none() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    for opt in (ot.Adam([p]), ot.AdaBelief([p])):
        with pytest.raises(ArgumentError, match="unknown input 'loss'; its steps take none"):
            opt.step(loss=1.0)
    assert torch.equal(p, torch.ones(3))


def test_an_input_in_the_memory_of_a_parameter_is_refused() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad, p.hessian = torch.ones(3), p.detach()
    with pytest.raises(OverlapError):
        ot.Sophia([p]).step()
    assert torch.equal(p, torch.ones(3))


@pytest.mark.parametrize("finite", [True, False])
def test_a_grad_scaler_skips_or_unscales_as_ever(finite: bool) -> None:
    p, q = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    opt, plain = ot.PolyakSGD([p]), ot.PolyakSGD([q])
    p.grad, q.grad = torch.full((3,), 8.0 if finite else float("inf")), torch.full((3,), 2.0)
    opt.grad_scale, opt.found_inf = torch.tensor(4.0), torch.tensor(0.0 if finite else 1.0)
    opt.step(loss=float("nan") if not finite else 0.5)
    plain.step(loss=0.5)
    assert torch.equal(p, q if finite else torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
def test_a_parameter_needs_a_tensor_where_its_step_reads_it(dtype: torch.dtype) -> None:
    ends = []
    for always in (True, False):
        params = [torch.nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in ((3, 4), (5,))]
        optimiser = ot.Sophia(params, lr=0.1, k=2)
        for t in range(5):
            for p in params:
                p.grad = p.detach() / 2
                p.hessian = torch.full_like(p, t + 0.5) if always or t % 2 == 0 else None
            optimiser.step()
        ends.append([p.detach().clone() for p in params])
    assert all(torch.equal(p, q) for p, q in zip(*ends, strict=True))
    optimiser.step()
    params[0].hessian, params[1].hessian = torch.ones_like(params[0]), None
    before = [p.detach().clone() for p in params]
    with pytest.raises(ArrayError, match="parameter 1: Sophia takes hessian: expected a tensor, got none"):
        optimiser.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    assert optimiser.state[params[0]]["step"] == 6


def test_a_tied_parameter_with_its_gradient_inside_goes_without_what_is_not_read() -> None:
    p = torch.nn.Parameter(torch.ones(6))
    optimiser = ot.Sophia([p], lr=0.1, k=2)
    for t in range(4):
        p.grad = p.detach()  # in the memory of the parameter
        p.hessian = torch.full_like(p, 0.5) if t % 2 == 0 else None
        optimiser.step()
    assert optimiser.state[p]["step"] == 4


OF_ALL = """
name = "OfAll"

[inputs]
h = { extent = "element" }

[update]
formulas = '''
n     = norm(h, group)
delta = g*n if matrix else g
'''
"""


def test_a_parameter_needs_a_tensor_that_goes_into_a_value_of_all(tmp_path: Path) -> None:
    """Its own step does not read that value."""
    (tmp_path / "ofall.toml").write_text(OF_ALL)
    W, b = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    opt = ot.load(tmp_path / "ofall.toml")([W, b])
    W.grad, W.h, b.grad = torch.ones(2, 2), torch.ones(2, 2), torch.full((2,), 100.0)
    for _ in range(2):
        with pytest.raises(ArrayError, match="parameter 1: OfAll takes h: expected a tensor, got none"):
            opt.step()
        assert torch.equal(W, torch.ones(2, 2))
        assert torch.equal(b, torch.ones(2))
    b.h = torch.zeros(2)
    opt.step()
    assert torch.equal(W, torch.full((2, 2), 1 - 2.0))


def test_what_kernels_refuse_is_refused_before_the_interpreter_writes() -> None:
    """A parameter of 16 bits is stepped by the interpreter, beside one that is not."""
    ps = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))]
    opt = ot.Sophia(ps, lr=0.1, k=2)
    for _ in range(2):
        for p in ps:
            p.grad, p.hessian = torch.ones_like(p), torch.ones_like(p)
        opt.step()
    before = [p.detach().clone() for p in ps]
    del ps[0].hessian
    with pytest.raises(ArrayError, match="parameter 0: Sophia takes hessian"):
        opt.step()
    for p, was in zip(ps, before, strict=True):
        assert torch.equal(p, was)
        assert int(opt.state[p]["step"]) == 2
