"""What tensors an optimiser steps: strides, dtypes, sparse gradients, what shares memory, and what autograd sees.

Among them the faults that other implementations have had.
"""

from __future__ import annotations

import gc
import inspect
import io
import math
import multiprocessing
import sys
import threading
import warnings
from functools import cache
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.multiprocessing.reductions import StorageWeakRef
from torch_pairs import (
    NAMES,
    ULPS,
    Scales,
    give,
    optim,
    ours,
    parameters,
    same_bits,
    tensors_of,
    theirs,
    twins,
)

import optgen
from optgen.errors import ArrayError, StateError
from optgen.frozen import replace
from optgen.runtime import guard, library
from optgen.torch import tensors, threads, ways
from optgen.torch.tensor_library import TensorLibrary
from optgen.torch.tensors import TENSORS

SOME_OWN = ["ADAM", "LAMB", "Lion", "Prodigy"]


@pytest.fixture(params=["looked at in memory", "asked"])
def reader(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the runtime learns of tensors: an older PyTorch has not all functions for it."""
    if request.param == "asked":
        monkeypatch.setattr(TensorLibrary, "reader", replaced(TENSORS))
    elif not TENSORS.look:
        pytest.skip("this PyTorch has not all functions that tell of a tensor")
    assert TENSORS.readable() or request.param == "asked"
    return str(request.param)


def replaced(reader: Any, readable: Any = lambda: False) -> Any:
    return replace(reader, readable=readable, look=0)


# ---- The fast path ----


def warned_of(steps: int = 3) -> list[str]:
    """What optimisers that are made and stepped warn of."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(steps):
            begun("AdamW")
    return [str(each.message) for each in found]


@pytest.mark.parametrize("missing", ["functions", "lists", "truth"])
def test_one_warning_tells_that_tensors_cannot_be_looked_at(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (tensors._readable, tensors.view_fault):
        monkeypatch.setattr(tensors, function.__name__, cache(function.__wrapped__))
    monkeypatch.setattr(TensorLibrary, "reader", replaced(TENSORS, readable=tensors._readable))
    reason = {
        "functions": ("_look", lambda: 0, "has not all functions that tell C of tensors"),
        "lists": ("lists_readable", lambda: False, "lays out lists in another way"),
        "truth": ("_seen_as_told", lambda: False, "tells C something else of tensors than Python"),
    }[missing]
    monkeypatch.setattr(tensors, *reason[:2])
    (message,) = warned_of()
    assert "one of 200 takes some 50 times as long" in message
    assert reason[2] in message
    assert "optgen doctor" in message


def test_one_warning_tells_that_torch_has_no_team(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_warn", cache(threads._warn.__wrapped__))
    for name in ("OMP_WAIT_POLICY", "OPTGEN_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    assert warned_of() == []
    monkeypatch.setattr(threads, "_TEAM", None)
    (message,) = warned_of()
    assert "no GNU OpenMP" in message
    assert "OMP_WAIT_POLICY=passive" in message
    assert warned_of() == []
    threads._warn.cache_clear()
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)  # which disturbs nobody
    assert warned_of() == []


# ---- Strides ----


def laid_out(x: Any, how: str) -> Any:
    """The same elements in other memory."""
    if how == "transposed":
        return x.mT.contiguous().mT
    if how == "strided":
        whole = torch.zeros(*x.shape[:-1], 2 * x.shape[-1] + 1, dtype=x.dtype)
        view = whole[..., 1::2]
        view.copy_(x)
        return view
    if how == "offset":
        whole = torch.zeros(x.numel() + 3, dtype=x.dtype)
        view = whole[3:].view(x.shape)
        view.copy_(x)
        return view
    if how == "channels last":
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous()


LAYOUTS = ["contiguous", "transposed", "strided", "offset", "channels last"]


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adafactor", "LAMB", "RMSprop"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("of_gradient", LAYOUTS)
def test_strides_of_gradients_may_differ_from_those_of_parameters(name: str, layout: str, of_gradient: str) -> None:
    """Torch's fused kernels updated wrong elements here."""
    torch.manual_seed(0)
    shape = (3, 4, 5, 6)
    start = torch.randn(shape)
    plain = torch.nn.Parameter(start.clone())
    memory = laid_out(start, layout)
    p = torch.nn.Parameter(memory)
    pointer = p.data_ptr()
    arguments = {"momentum": 0.9} if name == "SGD" else {}
    one, other = getattr(optim, name)([plain], **arguments), getattr(optim, name)([p], **arguments)
    for _ in range(3):
        g = torch.randn(shape)
        plain.grad, p.grad = g, laid_out(g, of_gradient)
        one.step()
        other.step()
    assert p.data_ptr() == pointer
    assert torch.equal(memory, p.detach()), "a parameter that is not contiguous is updated in place"
    torch.testing.assert_close(p, plain, rtol=1e-6, atol=1e-7)
    if layout == "strided":  # what lies between the elements has not been touched
        assert not memory._base[..., ::2].any()


def test_layouts_may_change_between_steps(reader: str) -> None:
    torch.manual_seed(0)
    p, q = (torch.nn.Parameter(torch.ones(4, 5)) for _ in range(2))
    here, there = optim.AdamW([p]), theirs("AdamW", [q])
    for how in ("contiguous", "transposed", "transposed", "strided", "contiguous", "offset", "offset"):
        g = torch.randn(4, 5)
        p.grad, q.grad = laid_out(g, how), g
        here.step()
        there.step()
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_memory_of_a_parameter_may_be_exchanged(reader: str) -> None:
    params = parameters(shapes=[(3, 4), (5,)])
    copies = twins(params)
    there, here = theirs("AdamW", params), ours("AdamW", copies)
    scales = Scales(ULPS)
    for t in range(6):
        give([params, copies], t)
        if t == 2:
            for p in (params[0], copies[0]):
                p.data = p.data.clone() * 2
        if t == 3:
            for p in (params[0], copies[0]):
                p.data = p.data.t().contiguous().t()
        there.step()
        here.step()
        scales.compare(tensors_of(here, copies), tensors_of(there, params))


def test_states_may_be_exchanged_cleared_and_given_other_memory(reader: str) -> None:
    params = parameters(shapes=[(3, 4), (5,)])
    copies = twins(params)
    there, here = theirs("AdamW", params), ours("AdamW", copies)
    scales = Scales(ULPS)

    def change(optimiser: Any, given: list[Any], t: int) -> None:
        state = optimiser.state[given[0]]
        if t == 1:
            state["exp_avg"] = torch.full((3, 4), 0.5)
        if t == 2:
            state["exp_avg"].mul_(0.25)
        if t == 3:
            state["exp_avg_sq"].data = state["exp_avg_sq"].data.clone().mul_(2)
        if t == 4:
            state["step"].fill_(30)
        if t == 5:
            state["step"] = torch.tensor(2.0)
        if t == 6:
            optimiser.state.clear()
        if t == 7:
            del optimiser.state[given[1]]
        if t == 8:
            optimiser.state[given[0]] = {key: value.clone() for key, value in state.items()}

    for t in range(10):
        give([params, copies], t)
        change(there, params, t)
        change(here, copies, t)
        there.step()
        here.step()
        scales.compare(tensors_of(here, copies), tensors_of(there, params))


SHARED = [*NAMES, "LAMB", "SM3", "NovoGrad", "Prodigy", "ScheduleFreeAdamW"]


def begun(name: str, dtype: Any = torch.float32) -> tuple[Any, list[Any]]:
    params = parameters(dtype, [(3, 4), (5,)])
    optimiser = ours(name, params)
    give([params], 0)
    optimiser.step()
    return optimiser, params


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SHARED)
def test_tensors_of_the_caller_are_written_into(name: str, dtype: Any, reader: str) -> None:
    """Where processes share them, as in Hogwild, one that is exchanged no longer tells the others."""
    (here, params), (alone, copies) = begun(name, dtype), begun(name, dtype)
    kept = [x for p in params for x in here.state[p].values() if x is not None]
    for x in (*params, *kept):
        x.data.share_memory_()
    places = [x.data_ptr() for x in kept]
    for t in range(1, 4):
        give([params, copies], t)
        here.step()
        alone.step()
        assert same_bits(tensors_of(here, params), tensors_of(alone, copies))
    found = [x for p in params for x in here.state[p].values() if x is not None]
    assert all(x is y for x, y in zip(found, kept, strict=True))
    assert [x.data_ptr() for x in found] == places


MOVING = {
    "NAdam": {"step", "mu_product"}, "ASGD": {"step", "eta"}, "Adafactor": {"step", "row_var", "col_var"},
    "SM3": {"step", "acc_index"}, "LAMB": {"step"},
}  # fmt: skip


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("narrow", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_small_states_of_any_dtype_are_written_into(name: str, narrow: Any, reader: str) -> None:
    optimiser, params = begun(name)
    kept = []
    for p in params:
        for key, x in optimiser.state[p].items():
            if x.shape != p.shape:
                optimiser.state[p][key] = x.to(narrow)
                kept.append((p, key, optimiser.state[p][key]))
    assert kept
    before = [x.clone() for *_, x in kept]
    for t in range(1, 3):
        give([params], t)
        optimiser.step()
    assert all(optimiser.state[p][key] is x for p, key, x in kept)
    assert all(x.dtype is narrow for *_, x in kept)
    moved = {key for (_, key, x), y in zip(kept, before, strict=True) if not torch.equal(x, y)}
    assert moved == MOVING[name] - ({"eta"} if narrow.itemsize == 2 else set())  # which moves by little


@pytest.mark.parametrize("name", ["AdamW", "NAdam", "LAMB", "ADAM"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64], ids=str)
@pytest.mark.parametrize("of", [torch.float32, torch.bfloat16], ids=str)
def test_a_wide_count_goes_on_beyond_what_float32_holds(name: str, dtype: Any, of: Any, reader: str) -> None:
    if of is torch.bfloat16 and name == "NAdam" and dtype is torch.int64:
        pytest.skip("PyTorch's loop raises a number to a power that is a tensor")
    optimiser, params = begun(name, of)
    counts = [torch.tensor(2**24 - 1 + i, dtype=dtype) for i, _ in enumerate(params)]
    for p, count in zip(params, counts, strict=True):
        optimiser.state[p]["step"] = count
    for t in range(1, 5):
        give([params], t)
        optimiser.step()
        assert [int(count) for count in counts] == [2**24 - 1 + t, 2**24 + t]
    assert all(optimiser.state[p]["step"] is count for p, count in zip(params, counts, strict=True))


def test_a_count_that_another_process_has_raised(reader: str) -> None:
    (here, params), (alone, copies) = begun("AdamW"), begun("AdamW")
    for t in range(1, 5):
        for optimiser, given in ((here, params), (alone, copies)):
            optimiser.state[given[t % 2]]["step"] += 1
        give([params, copies], t)
        here.step()
        alone.load_state_dict(alone.state_dict())  # everything anew
        alone.step()
        assert same_bits(tensors_of(here, params), tensors_of(alone, copies))


def test_a_view_that_is_yet_to_be_conjugated_or_negated(reader: str) -> None:
    torch.manual_seed(0)
    z, w = (torch.nn.Parameter(torch.ones(3, dtype=torch.complex64)) for _ in range(2))
    a, b = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    here, there = optim.SGD([z, a], lr=0.1, momentum=0.5), theirs("SGD", [w, b], lr=0.1, momentum=0.5)
    for t in range(6):
        g = torch.randn(3, dtype=torch.complex64)
        small = torch.randn(1, dtype=torch.complex64)
        given = (g.conj(), small.conj().imag) if t in (1, 2, 4) else (g, small.imag)
        z.grad, a.grad = given
        w.grad, b.grad = given[0].resolve_conj().clone(), given[1].resolve_neg().clone()
        here.step()
        there.step()
        torch.testing.assert_close(z, w, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_empty_parameters_and_single_elements() -> None:
    params = parameters(shapes=[(0,), (0, 3), (), (1,), (2,), (3,)])
    copies = twins(params)
    there, here = theirs("AdamW", params), ours("AdamW", copies)
    scales = Scales(ULPS)
    for t in range(3):
        give([params, copies], t)
        there.step()
        here.step()
        scales.compare(tensors_of(here, copies), tensors_of(there, params))


@pytest.mark.parametrize("readable", [True, False])
def test_values_of_dictionaries_are_the_same_objects_or_not(readable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not readable:
        monkeypatch.setattr(guard, "lists_readable", lambda: False)
    a, b, c = torch.ones(1), torch.ones(1), 1.5
    known = guard.DictGuard([{"a": a, "b": b}, {}, {"c": c}], library.runtime().path)
    assert known.same([{"a": a, "b": b}, {"c": c}])
    assert known.same([{}, {"of another name": a, "b": b, "c": c}])
    for other in ([{"a": b, "b": a}, {"c": c}], [{"a": a, "b": b}], [{"a": a, "b": b}, {"c": c, "d": c}],
                  [{"a": a, "b": b}, {"c": 1.5 + a.sum().item() - 1}], []):  # fmt: skip
        assert not known.same(other)
    assert guard.DictGuard([], library.runtime().path).same([{}])
    assert guard.DictGuard([1.5, {"a": a}, None], library.runtime().path).same([{"a": a}, "of something else"])


# ---- Autograd ----


@pytest.mark.parametrize("name", ["AdamW", "LAMB", "Prodigy"])
def test_a_backward_through_old_values_raises(name: str) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimiser = getattr(optim, name)([p])
    loss = (p * p).sum()
    p.grad = torch.ones(3)
    version = p._version
    optimiser.step()
    assert p._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_gradient_that_is_overwritten_has_a_new_version() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimiser = optim.chain([p], optgen.AdamW(), optgen.ZeroGrad())
    p.grad = torch.ones(3)
    version = p.grad._version
    optimiser.step()
    assert not p.grad.any()
    assert p.grad._version > version


def test_a_gradient_that_has_a_graph_of_its_own() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimiser = optim.SGD([p], lr=1.0)
    (p.grad,) = torch.autograd.grad((p**3).sum(), p, create_graph=True)
    assert p.grad.requires_grad
    optimiser.step()
    assert torch.equal(p, torch.full((3,), -2.0))
    assert p.requires_grad
    assert p.is_leaf


def test_tensors_of_inference_mode() -> None:
    with torch.inference_mode():
        frozen = torch.nn.Parameter(torch.ones(3))
        frozen.grad = torch.ones(3)
    optimiser = optim.AdamW([frozen])
    with pytest.raises(ArrayError, match="parameter 0: expected an ordinary tensor, got one made in inference mode"):
        optimiser.step()
    assert torch.equal(frozen, torch.ones(3))
    with torch.inference_mode():
        optimiser.step()
    assert not torch.equal(frozen, torch.ones(3))


# ---- Dtypes ----


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_without_a_compiler_sixteen_bits_are_stepped_as_by_the_loop_of_pytorch(
    name: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "_compiles", lambda: False)
    shapes = [(3, 4), (1,), (2,), (3,), ()]
    params = parameters(dtype, shapes)
    copies = twins(params)
    arguments = {"eps": 1e-2} if name in ("Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adamax") else {}
    there, here = theirs(name, params, lr=0.1, **arguments), ours(name, copies, lr=0.1, **arguments)
    for t in range(3):
        for p, q in zip(params, copies, strict=True):
            p.grad = torch.full_like(p, 0.25 * (t + 1))
            q.grad = p.grad.clone()
        there.step()
        here.step()
        assert same_bits(tensors_of(here, copies), tensors_of(there, params))


FUSED = ["Adam", "AdamW", "SGD", "Adagrad"]
WAYS = [*((name, "fused") for name in FUSED), *((name, "foreach") for name in NAMES)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("name", "way"), WAYS)
def test_without_a_compiler_sixteen_bits_are_stepped_in_the_way_that_is_asked_for(
    name: str, way: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "_compiles", lambda: False)
    called: list[bool] = []
    module = sys.modules[inspect.unwrap(getattr(torch.optim, name).step).__module__]
    function = {"foreach": "_multi_tensor_", "fused": "_fused_"}[way] + module.__name__.rpartition(".")[2].lstrip("_")
    kernel = getattr(module, function)
    monkeypatch.setattr(module, function, lambda *args, **more: called.append(True) or kernel(*args, **more))
    params = parameters(dtype, [(3, 4), (130,), ()])
    copies = twins(params)
    loop = {"foreach": False, "fused": False} if way == "fused" else {"foreach": False}
    there, here = theirs(name, params, **loop | {way: True}), ours(name, copies, **{way: True})
    for t in range(4):
        give([params, copies], t)
        called.clear()
        there.step()
        expected = len(called)
        here.step()
        assert len(called) == 2 * expected > 0
        assert same_bits(tensors_of(here, copies), tensors_of(there, params))


def test_kernels_step_what_is_beside_sixteen_bits_that_pytorch_fuses() -> None:
    params = [*parameters(torch.bfloat16, [(3, 4)]), *parameters(shapes=[(3, 4), (5,)])]
    copies, sparse_too = twins(params), twins(params)
    there, here = optim.SGD(params, momentum=0.9), optim.SGD(copies, momentum=0.9, fused=True)
    for t in range(4):
        give([params, copies, sparse_too], t)
        there.step()
        here.step()
        assert same_bits(tensors_of(here, copies)[1:], tensors_of(there, params)[1:])
    with_sparse = optim.SGD(sparse_too, lr=0.1, fused=True)
    sparse_too[1].grad = sparse_too[1].grad.to_sparse()
    with_sparse.step()


@pytest.mark.parametrize("name", FUSED)
def test_a_scale_is_taken_off_once(name: str) -> None:
    """PyTorch's fused kernels take it off themselves."""
    params = [*parameters(torch.bfloat16, [(3, 4)]), *parameters(shapes=[(3, 4)])]
    copies = twins(params)
    there, here = ours(name, params, fused=True), ours(name, copies, fused=True)
    for t in range(3):
        give([params, copies], t)
        for q in copies:
            q.grad.mul_(8)
        here.grad_scale, here.found_inf = torch.tensor(8.0), torch.tensor(0.0)
        here.step()
        assert here.grad_scale == 8
        assert here.found_inf == 0
        there.step()
        assert same_bits(tensors_of(here, copies), tensors_of(there, params))
        del here.grad_scale, here.found_inf


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", [*NAMES, *SOME_OWN])
def test_sixteen_bits_are_computed_in_thirty_two(name: str, dtype: Any) -> None:
    params = parameters(dtype, [(3, 4), (1,), (2,), (3,)])
    wide = [torch.nn.Parameter(p.detach().float()) for p in params]
    more = {"eps": 1e-3} if name in ("ADAM",) else {}
    here, there = getattr(optim, name)(params, lr=0.125, **more), getattr(optim, name)(wide, lr=0.125, **more)
    give([params], 0)
    for p, q in zip(params, wide, strict=True):
        q.grad = p.grad.float()
    version = params[0]._version
    here.step()
    there.step()
    assert params[0]._version > version
    for p, q in zip(params, wide, strict=True):
        assert torch.equal(p, q.to(dtype))
        for key, value in here.state[p].items():
            if value is not None:
                assert value.dtype is dtype or (value.dim() == 0 and value.dtype in (torch.float32, torch.float64))
                assert torch.equal(value, there.state[q][key].to(value.dtype)), key
    here.step()
    assert here.state[params[0]].get("step", 2) == 2


def test_a_chain_over_mixed_dtypes_sees_all_of_them() -> None:
    mixed = [torch.nn.Parameter(torch.ones(4)), torch.nn.Parameter(torch.ones(5, dtype=torch.bfloat16)),
             torch.nn.Parameter(torch.ones(3, dtype=torch.float64))]  # fmt: skip
    optimiser = optim.chain(mixed, optgen.ClipGlobalNorm(0.5), optgen.SGD(1.0, momentum=0.5))
    for p in mixed:
        p.grad = torch.ones_like(p)
    for _ in range(2):
        optimiser.step()
    share = 0.5 / (12**0.5 + 1e-6)
    for p in mixed:
        expected = 1 - share * 2.5
        torch.testing.assert_close(p.detach().double(), torch.full(p.shape, expected).double(), rtol=1e-2, atol=1e-6)
    assert optimiser.state[mixed[0]]["step"] == optimiser.state[mixed[1]]["step"] == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "LAMB"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_tensors_of_sixteen_bits_are_updated(name: str, dtype: Any, size: int) -> None:
    p = torch.nn.Parameter(torch.ones(size, dtype=dtype))
    optimiser = getattr(optim, name)([p], lr=0.5, **({"eps": 1e-2} if name != "SGD" else {}))
    p.grad = torch.ones_like(p)
    optimiser.step()
    assert (p < 1).all()


def test_not_a_number_is_the_same_at_every_position() -> None:
    """Vectorised kernels of others let a NaN pass by AMSGrad's maximum at some positions, and not at others."""
    for size in (1, 7, 16, 33):
        p = torch.nn.Parameter(torch.ones(size))
        optimiser = optim.AdamW([p], amsgrad=True)
        for _ in range(3):
            p.grad = torch.full((size,), float("nan"))
            optimiser.step()
        assert p.isnan().all()
        assert optimiser.state[p]["max_exp_avg_sq"].isnan().all()


def test_a_dtype_that_is_not_supported_says_which_are() -> None:
    p = torch.zeros(3, dtype=torch.int64)
    p.grad = torch.ones_like(p)
    for name in ("AdamW", "LAMB"):
        with pytest.raises(ArrayError, match=r"parameter 0: expected .*bfloat16.*, got torch.int64"):
            getattr(optim, name)([p]).step()


def test_rows_of_complex_numbers_are_refused() -> None:
    z = torch.nn.Parameter(torch.ones(3, 4, dtype=torch.complex64))
    z.grad = torch.ones_like(z)
    with pytest.raises(ArrayError, match="parameter 0: SM3 does not support complex"):
        optim.SM3([z]).step()


@pytest.mark.parametrize("name", ["ADAM", "ADAGrad", "Lion", "Prodigy"])
def test_complex_parameters_are_pairs_of_numbers(name: str) -> None:
    torch.manual_seed(0)
    z = torch.nn.Parameter(torch.randn(4, dtype=torch.complex64))
    pairs = torch.nn.Parameter(torch.view_as_real(z.detach()).clone())
    here, there = getattr(optim, name)([z]), getattr(optim, name)([pairs])
    for _ in range(3):
        g = torch.randn(4, dtype=torch.complex64)
        z.grad, pairs.grad = g, torch.view_as_real(g)
        here.step()
        there.step()
        assert torch.equal(torch.view_as_real(z.detach()), pairs)


# ---- Sparse gradients ----


def sparse(seed: int) -> Any:
    make = torch.Generator().manual_seed(seed)
    rows = torch.tensor([[0, 2, 2]])
    return torch.sparse_coo_tensor(rows, torch.randn(3, 4, generator=make), (5, 4), check_invariants=True)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
def test_sparse_gradients_as_pytorch_steps_them(name: str) -> None:
    params = parameters(shapes=[(5, 4), (3,)])
    copies = twins(params)
    arguments = {"momentum": 0.9} if name == "SGD" else {}
    there, here = theirs(name, params, **arguments), ours(name, copies, **arguments)
    scales = Scales(ULPS)
    for t in range(5):
        give([params, copies], t)
        if t != 3:  # dense in between
            params[0].grad, copies[0].grad = sparse(t), sparse(t)
        there.step()
        here.step()
        for state in (there.state[params[0]], here.state[copies[0]]):
            if t < 3 and "momentum_buffer" in state and state["momentum_buffer"].is_sparse:
                state["momentum_buffer"] = state["momentum_buffer"].to_dense()
        scales.compare(tensors_of(here, copies), tensors_of(there, params))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("SGD", "Adagrad")])
def test_other_rules_refuse_sparse_gradients_as_pytorch_does(name: str) -> None:
    errors = []
    for make in (theirs, ours):
        params = parameters(shapes=[(3,), (5, 4)])
        before = [p.detach().clone() for p in params]
        optimiser = make(name, params)
        give([params], 0)
        params[1].grad = sparse(0)
        with pytest.raises(RuntimeError) as caught:
            optimiser.step()
        errors.append(str(caught.value))
        assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    assert errors[0] == errors[1]


def test_rules_of_optgen_refuse_sparse_gradients() -> None:
    params = parameters(shapes=[(3,), (5, 4)])
    optimiser = optim.LAMB(params)
    give([params], 0)
    params[1].grad = sparse(0)
    with pytest.raises(ArrayError, match=r"parameter 1.*sparse"):
        optimiser.step()
    assert not optimiser.state


# ---- Memory ----


def test_a_state_that_overlaps_is_refused() -> None:
    p = torch.nn.Parameter(torch.ones(4))
    optimiser = optim.AdamW([p])
    p.grad = torch.ones(4)
    optimiser.step()
    optimiser.state[p]["exp_avg"] = p.detach()
    with pytest.raises(ArrayError, match="overlap"):
        optimiser.step()


def test_gradients_that_a_step_overwrites_are_apart_from_each_other_and_of_their_own_memory() -> None:
    params = [torch.nn.Parameter(torch.zeros(3)) for _ in range(2)]
    optimiser = optim.chain(params, optgen.Descent(1.0), optgen.ZeroGrad())
    shared, other = torch.ones(3), torch.ones(3)
    for grads, message in (
        ((shared, shared), "an overlap of gradient 0 and gradient 1"),
        ((shared, torch.ones(1).expand(3)), "gradient 1: expected elements apart in memory, got some that share it"),
        ((shared, params[0].detach()), "overlap"),
    ):
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        with pytest.raises(ArrayError, match=message):
            optimiser.step()
        assert not optimiser.state
        assert [p.tolist() for p in params] == [[0] * 3] * 2
    params[0].grad, params[1].grad = shared, other
    optimiser.step()
    assert [p.tolist() for p in params] == [[-1] * 3] * 2
    assert not shared.any()
    assert not other.any()


def test_a_gradient_that_comes_to_overlap_is_seen_and_one_that_is_freed_is_not(reader: str) -> None:
    p = torch.nn.Parameter(torch.ones(4))
    optimiser = optim.chain([p], optgen.Unscale(1.0), optgen.AdamW())
    for _ in range(5):
        p.grad = torch.ones(4)  # the memory of one of before, or other
        optimiser.step()
        p.grad = None
    p.grad = p.detach()
    with pytest.raises(ArrayError, match="overlap"):
        optimiser.step()
    p.grad = torch.ones(4)
    optimiser.step()
    assert optimiser.state[p]["step"] == 6


class Kept:
    """The memory of all gradients that steps have been given, or have laid out or resolved themselves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._found: list[Any] = []
        gc.collect()
        gc.freeze()  # the libraries that a first step loads
        look = TensorLibrary.given

        def looked_at(*given: Any, **more: Any) -> Any:
            looked = look(*given, **more)
            self.note([looked.seen])
            return looked

        monkeypatch.setattr(TensorLibrary, "given", looked_at)

    def note(self, grads: Any) -> None:
        self._found += [StorageWeakRef(g.untyped_storage()) for g in grads if g is not None and not g.is_sparse]

    @property
    def alive(self) -> int:
        gc.collect()
        return sum(not each.expired() for each in self._found)


PATTERNS = [(1, 1, 1), (1, 0, 1), (0, 1, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1)]


@pytest.mark.parametrize("name", ["SGD", "AdamW", "LAMB", "Prodigy", "chain"])
def test_nothing_of_a_gradient_is_kept_after_a_step(name: str, reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    params = parameters(shapes=[(3, 4), (5,), (2, 2)])
    if name == "chain":
        optimiser = optim.chain(params, optgen.ClipGlobalNorm(0.5), optgen.ADAM(), optgen.ZeroGrad())
    else:
        optimiser = getattr(optim, name)(params)
    for t, pattern in enumerate(PATTERNS):
        give([params], t)
        for p, has in zip(params, pattern, strict=True):
            p.grad = p.grad if has else None
        kept.note([p.grad for p in params])
        optimiser.step()
        optimiser.zero_grad()
        assert kept.alive == 0, f"after step {t}"


@pytest.mark.parametrize("name", ["SGD", "ADAM"])
def test_nothing_of_a_gradient_that_kernels_do_not_take_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    params = [torch.nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in (torch.complex64, torch.bfloat16)]
    optimiser = getattr(optim, name)(params)
    for t in range(4):
        for p in params:
            p.grad = torch.ones_like(p).conj() if t % 2 else torch.ones_like(p)
        kept.note([p.grad for p in params])
        optimiser.step()
        optimiser.zero_grad()
        assert kept.alive == 0, f"after step {t}"


def _steps_in(queue: Any, payload: bytes) -> None:
    optimiser = torch.load(io.BytesIO(payload), weights_only=False)
    (p,) = optimiser.param_groups[0]["params"]
    p.grad = torch.ones_like(p)
    optimiser.step()
    queue.put((p.detach().tolist(), int(optimiser.state[p]["step"])))


def test_an_optimiser_goes_to_another_process() -> None:
    p = torch.nn.Parameter(torch.ones(4))
    optimiser = optim.AdamW([p])
    p.grad = torch.ones(4)
    optimiser.step()
    file = io.BytesIO()
    torch.save(optimiser, file)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_steps_in, args=(queue, file.getvalue()))
    process.start()
    values, count = queue.get(timeout=60)
    process.join()
    p.grad = torch.ones(4)
    optimiser.step()
    assert values == p.detach().tolist()
    assert count == 2


# ---- Threads ----


@pytest.mark.parametrize("name", ["SGD", "Lion"])
def test_steps_of_several_threads_all_count(name: str) -> None:
    p = torch.nn.Parameter(torch.zeros(20_000))
    p.grad = torch.ones(20_000)
    optimiser = getattr(optim, name)([p], lr=1.0)

    def work() -> None:
        for _ in range(40):
            optimiser.step()
            optimiser.state_dict()

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)
    assert len(p.unique()) == 1
    if name == "SGD":
        assert p[0] == -160
    else:
        assert optimiser.state[p]["step"] == 160


# ---- Small states that are given other memory or another layout ----


def with_rows(shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """A parameter after two steps, its optimiser, and its state of rows."""
    p = torch.nn.Parameter(torch.arange(1.0, 1 + math.prod(shape)).reshape(shape))
    opt = optim.Adafactor([p], lr=0.1)
    for _ in range(2):
        p.grad = p.detach() / 2
        opt.step()
    return p, opt, opt.state[p]["row_var"]


@pytest.mark.parametrize("shape", [(2,), (1,), (2, 2)])
def test_a_small_state_of_another_shape_in_the_same_memory_is_refused(reader: str, shape: tuple[int, ...]) -> None:
    p, opt, rows = with_rows((4, 3))
    twin, other, _ = with_rows((4, 3))
    rows.set_(rows.untyped_storage(), 0, shape)
    with pytest.raises(StateError, match=r"parameter 0: its state row_var: expected shape \(4, 1\), got .*\n.*shapes"):
        opt.step()
    assert torch.equal(p, twin)
    assert opt.state[p]["step"] == 2
    rows.set_(rows.untyped_storage(), 0, (4, 1))
    for _ in range(2):
        opt.step()
        other.step()
    assert torch.equal(p, twin)


def test_a_small_state_of_another_layout_in_the_same_memory_is_seen(reader: str) -> None:
    p, opt, rows = with_rows((2, 4, 3))
    twin, other, others = with_rows((2, 4, 3))
    rows.set_(rows.untyped_storage(), 0, (2, 4, 1), (1, 2, 1))
    others.copy_(rows.clone())
    assert rows.data_ptr() != others.data_ptr()
    for _ in range(2):
        opt.step()
        other.step()
    assert torch.equal(p, twin)
    assert torch.equal(rows, others)
