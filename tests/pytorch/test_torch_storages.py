"""States, parameters and gradients of 16 bits in PyTorch, to the bits of the interpreter for arrays of NumPy."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import optgen
from optgen.errors import ArgumentError, ArrayError, HyperparameterError, StateError

torch = pytest.importorskip("torch")
optim = pytest.importorskip("optgen.torch")

from torch.distributed.checkpoint import state_dict as dcp

BFLOAT16, FLOAT16, FLOAT32, FLOAT64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
ARRAYS = {BFLOAT16: ml_dtypes.bfloat16, FLOAT16: np.float16, FLOAT32: np.float32, FLOAT64: np.float64}
SHAPES = [(7, 5), (1,), (300,)]


def to_numpy(x: Any) -> Any:
    """The same bits as an array."""
    return (
        x.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16).copy()
        if x.dtype is BFLOAT16
        else x.detach().numpy().copy()
    )


def numbers(shape: tuple[int, ...], seed: int, dtype: Any) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def same(x: Any, y: Any) -> bool:
    a, b = to_numpy(x) if isinstance(x, torch.Tensor) else x, to_numpy(y) if isinstance(y, torch.Tensor) else y
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def trained(opt: Any, params: list[Any], steps: int, first: int = 0, dtype: Any = None) -> None:
    for t in range(first, first + steps):
        for i, p in enumerate(params):
            p.grad = numbers(tuple(p.shape), 100 * t + i, dtype or p.dtype)
        opt.step()


def parameters(dtype: Any, shapes: list[tuple[int, ...]] = SHAPES) -> list[Any]:
    return [torch.nn.Parameter(numbers(shape, 7 + i, dtype)) for i, shape in enumerate(shapes)]


# ---- The interpreter for arrays ----

CASES = [
    ("AdamW", FLOAT32, {"storage": "bfloat16"}),
    ("AdamW", FLOAT32, {"storage": {"exp_avg": "bfloat16", "exp_avg_sq": "float16"}, "rounding": "nearest"}),
    ("AdamW", BFLOAT16, {"storage": "bfloat16", "rounding": {"p": "stochastic"}, "seed": 5}),
    ("AdamW", BFLOAT16, {"storage": "float32", "rounding": "stochastic"}),
    ("AdamW", FLOAT64, {"storage": "bfloat16", "seed": 2}),
    ("SGD", BFLOAT16, {"storage": "bfloat16", "rounding": "stochastic"}),
    ("Adagrad", FLOAT16, {"storage": {"sum": "float16"}}),
    ("Lion", BFLOAT16, {"storage": "bfloat16", "rounding": {"p": "stochastic"}}),
    ("ADAM", FLOAT32, {"storage": {"v": "bfloat16"}, "seed": 9}),
    ("LAMB", BFLOAT16, {"storage": "bfloat16"}),
    ("ScheduleFreeAdamW", FLOAT32, {"storage": "bfloat16"}),
    ("AdamW", FLOAT32, {"storage": "log8"}),
    ("AdamW", BFLOAT16, {"storage": {"exp_avg": "linear8", "exp_avg_sq": "log4"}, "rounding": {"p": "stochastic"}}),
    ("LAMB", FLOAT32, {"storage": "log8", "seed": 3}),
    ("SGDP", FLOAT32, {"storage": "log8"}),  # matrices by the interpreter
]
MORE = {"SGD": {"momentum": 0.9}, "Adagrad": {}}


@pytest.mark.parametrize(("name", "dtype", "given"), CASES, ids=str)
def test_tensors_have_the_bits_of_the_interpreter_for_arrays(name: str, dtype: Any, given: dict[str, Any]) -> None:
    params = parameters(dtype)
    arrays = [to_numpy(p) for p in params]
    here = getattr(optim, name)(params, lr=0.01, **MORE.get(name, {}), **given)
    spec = {"sum": "state_sum"}
    own = {k: {spec.get(n, n): x for n, x in v.items()} if isinstance(v, dict) else v for k, v in given.items()}
    own = {k: None if v == "float32" else v for k, v in own.items()}
    there = getattr(optgen, name)(0.01, backend="interpreter", **MORE.get(name, {}), **own)
    for t in range(4):
        for i, p in enumerate(params):
            p.grad = numbers(tuple(p.shape), 100 * t + i, dtype)
        here.step()
        there.step(arrays, [to_numpy(p.grad) for p in params])
    for p, array in zip(params, arrays, strict=True):
        assert same(p, array)
        for key, value in there.state(array).items():
            key = {v: k for k, v in spec.items()}.get(key, key)
            if key != "t" and value.shape == array.shape and here.state[p][key].dtype is not torch.uint8:
                assert here.state[p][key].double().numpy() == pytest.approx(value.astype("f8"), rel=0, abs=0)


KEPT = [
    (FLOAT32, "bfloat16", BFLOAT16),
    (BFLOAT16, None, BFLOAT16),
    (FLOAT16, None, FLOAT16),
    (BFLOAT16, "float32", FLOAT32),
    (FLOAT16, "bfloat16", BFLOAT16),
    (FLOAT64, "float16", FLOAT16),
]


@pytest.mark.parametrize(("dtype", "storage", "kept"), KEPT, ids=str)
def test_states_are_tensors_of_their_dtype(dtype: Any, storage: str | None, kept: Any) -> None:
    params = parameters(dtype)
    opt = optim.AdamW(params, amsgrad=True, storage=storage)
    trained(opt, params, 2)
    for p in params:
        assert {opt.state[p][key].dtype for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")} == {kept}
        assert opt.state[p]["step"] == 2


def test_what_is_not_named_is_as_the_parameter() -> None:
    (p,) = params = parameters(BFLOAT16, [(9,)])
    opt = optim.AdamW(params, storage={"exp_avg_sq": "float32"})
    trained(opt, params, 1)
    assert (opt.state[p]["exp_avg"].dtype, opt.state[p]["exp_avg_sq"].dtype) == (BFLOAT16, FLOAT32)


@pytest.mark.parametrize("given", [BFLOAT16, FLOAT16])
def test_gradients_of_sixteen_bits_step_parameters_of_thirty_two(given: Any) -> None:
    """As PyTorch allows where `grad_dtype` says so."""
    p = torch.nn.Parameter(numbers((40,), 1, FLOAT32))
    q = torch.nn.Parameter(p.detach().clone())
    if not hasattr(p, "grad_dtype"):
        pytest.skip("this PyTorch has gradients of the dtype of their parameter alone")
    p.grad_dtype = given
    here, there = optim.AdamW([p]), optim.AdamW([q])
    for t in range(3):
        p.grad = numbers((40,), t, given)
        q.grad = p.grad.float()
        here.step()
        there.step()
    assert same(p, q)
    assert same(here.state[p]["exp_avg"], there.state[q]["exp_avg"])


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adafactor", "LAMB"])
@pytest.mark.parametrize("how", [{}, {"foreach": True}, {"fused": True}, {"foreach": False}], ids=str)
def test_kernels_step_sixteen_bits_whatever_way_is_asked_for(
    name: str, how: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "LAMB" or (name == "Adafactor" and "fused" in how):
        how = {}
    monkeypatch.setattr(optgen.torch.ways.TensorWays, "step_foreign", None)
    params = parameters(BFLOAT16)
    wide = [torch.nn.Parameter(p.detach().float()) for p in params]
    here, there = getattr(optim, name)(params, **how), getattr(optim, name)(wide)
    trained(here, params, 1)
    for p, q in zip(params, wide, strict=True):
        q.grad = p.grad.float()
    there.step()
    assert all(same(p, q.to(BFLOAT16)) for p, q in zip(params, wide, strict=True))


def test_without_a_compiler_pytorch_and_the_interpreter_step_sixteen_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nonexistent")
    for name, like in (("AdamW", torch.optim.AdamW), ("Lion", optim.Lion)):
        params = parameters(BFLOAT16)
        copies = copy.deepcopy(params)
        here = getattr(optim, name)(params)
        trained(here, params, 2)
        if name == "Lion":
            monkeypatch.undo()
        there = like(copies)
        trained(there, copies, 2)
        assert all(map(same, params, copies))


def test_a_chain_keeps_the_storages_of_its_parts() -> None:
    params = parameters(BFLOAT16)
    part = optgen.AdamW(0.01, storage={"exp_avg_sq": "bfloat16"}, rounding={"p": "stochastic"}, seed=4)
    here = optim.chain(params, optgen.ClipGlobalNorm(1.0), part)
    arrays = [to_numpy(p) for p in params]
    parts = (
        optgen.ClipGlobalNorm(1.0),
        optgen.AdamW(0.01, storage="bfloat16", rounding={"p": "stochastic", "exp_avg": "nearest"}, seed=4),
    )
    there = optgen.chain(*parts, backend="interpreter")
    for t in range(3):
        for i, p in enumerate(params):
            p.grad = numbers(tuple(p.shape), 100 * t + i, BFLOAT16)
        grads = [to_numpy(p.grad) for p in params]
        here.step()
        there.step(arrays, grads)
    assert all(map(same, params, arrays))


def test_each_line_of_a_split_has_storages_of_its_own() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    matrices = optim.AdamW.options(storage="bfloat16", seed=3)
    opt = optim.split(model, matrices=matrices, rest=optim.Lion.options(storage="float16"))
    for t in range(2):
        for i, p in enumerate(model.parameters()):
            p.grad = numbers(tuple(p.shape), 10 * t + i, FLOAT32)
        opt.step()
    kept = {n: {k: x.dtype for k, x in opt.state[p].items()} for n, p in model.named_parameters()}
    assert kept["0.weight"]["exp_avg"] is BFLOAT16
    assert kept["1.bias"]["m"] is FLOAT16
    saved = copy.deepcopy(opt.state_dict())
    opt.load_state_dict(saved)
    assert opt.state[model[0].weight]["exp_avg"].dtype is BFLOAT16


def test_states_of_the_caller_are_written_into() -> None:
    (p,) = params = parameters(FLOAT32, [(50,)])
    opt = optim.AdamW(params, storage="bfloat16")
    trained(opt, params, 1)
    kept, before = opt.state[p]["exp_avg"], opt.state[p]["exp_avg"].clone()
    trained(opt, params, 1, 1)
    assert opt.state[p]["exp_avg"] is kept
    assert not torch.equal(kept, before)
    opt.state[p]["exp_avg"] = torch.zeros(50)
    with pytest.raises(StateError, match=r"parameter 0: its state exp_avg: expected torch.bfloat16, got torch.float32"):
        trained(opt, params, 1, 2)


# ---- Saving and loading ----

STOCHASTIC = {"storage": "bfloat16", "rounding": {"p": "stochastic"}, "seed": 11}


def through_state_dict(opt: Any, params: list[Any]) -> Any:
    made = optim.AdamW(params, **STOCHASTIC)
    made.load_state_dict(copy.deepcopy(opt.state_dict()))
    return made


def through_pickle(opt: Any, params: list[Any]) -> Any:
    made = pickle.loads(pickle.dumps(opt))
    for p, q in zip(params, made.param_groups[0]["params"], strict=True):
        assert same(p, q)
    params[:] = made.param_groups[0]["params"]
    return made


def through_deepcopy(opt: Any, params: list[Any]) -> Any:
    made = copy.deepcopy(opt)
    params[:] = made.param_groups[0]["params"]
    return made


@pytest.mark.parametrize("way", [through_state_dict, through_pickle, through_deepcopy])
def test_a_resumed_run_goes_on_with_the_same_bits(way: Callable[..., Any]) -> None:
    params = parameters(BFLOAT16)
    copies = copy.deepcopy(params)
    straight, here = optim.AdamW(params, **STOCHASTIC), optim.AdamW(copies, **STOCHASTIC)
    trained(straight, params, 6)
    trained(here, copies, 3)
    here = way(here, copies)
    trained(here, copies, 3, 3)
    assert all(map(same, params, copies))
    for p, q in zip(params, copies, strict=True):
        assert same(straight.state[p]["exp_avg_sq"], here.state[q]["exp_avg_sq"])
        assert here.state[q]["exp_avg_sq"].dtype is BFLOAT16


def test_a_state_says_which_seed_it_goes_on_with() -> None:
    params = parameters(BFLOAT16)
    first = optim.AdamW(params, storage="bfloat16", seed=8)
    trained(first, params, 1)
    second = optim.AdamW(params, storage="bfloat16")
    assert second.param_groups[0]["seed"] == 0
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["seed"] == 8


def of_torch(params: list[Any], dtype: Any) -> Any:
    """PyTorch's AdamW whose moments were put into another dtype, as torchtitan keeps them."""
    opt = torch.optim.AdamW(params)
    trained(opt, params, 1)
    for p in params:
        for key in ("exp_avg", "exp_avg_sq"):
            opt.state[p][key] = opt.state[p][key].to(dtype)
    return opt


def test_moments_of_bfloat16_that_others_wrote_are_loaded() -> None:
    params = parameters(FLOAT32)
    theirs = of_torch(params, BFLOAT16)
    ours = optim.AdamW(params, storage="bfloat16")
    ours.load_state_dict(theirs.state_dict())
    for p in params:
        assert same(ours.state[p]["exp_avg"], theirs.state[p]["exp_avg"])
        assert ours.state[p]["exp_avg_sq"].dtype is BFLOAT16
    trained(ours, params, 1, 1)
    assert [int(ours.state[p]["stream"]) for p in params] == [0, 1, 2]
    back = torch.optim.AdamW(params)
    back.load_state_dict(ours.state_dict())
    assert back.state[params[0]]["step"] == 2


def test_flat_checkpoints_by_name_hold_moments_of_bfloat16() -> None:
    """What torchtitan saves: `state_dict` of torch.distributed.checkpoint, by the names of parameters."""
    model = torch.nn.Linear(5, 3)
    opt = optim.AdamW(model.parameters(), storage="bfloat16", rounding="nearest")
    trained(opt, list(model.parameters()), 2)
    options = dcp.StateDictOptions(flatten_optimizer_state_dict=True)
    saved = copy.deepcopy(dcp.get_optimizer_state_dict(model, opt, options=options))
    assert saved["state.weight.exp_avg"].dtype is BFLOAT16
    other = torch.nn.Linear(5, 3)
    made = optim.AdamW(other.parameters(), storage="bfloat16", rounding="nearest")
    dcp.set_optimizer_state_dict(other, made, saved, options=options)
    assert same(made.state[other.weight]["exp_avg"], opt.state[model.weight]["exp_avg"])


@pytest.mark.parametrize(("kept", "storage", "wanted"), [(FLOAT32, "bfloat16", BFLOAT16), (BFLOAT16, None, FLOAT32)])
def test_states_of_another_dtype_are_refused_or_converted(kept: Any, storage: str | None, wanted: Any) -> None:
    params = parameters(FLOAT32)
    theirs = of_torch(params, kept)
    ours = optim.AdamW(params, storage=storage)
    saved = theirs.state_dict()
    message = f"parameter 0: exp_avg: expected {wanted}, got {kept}"
    with pytest.raises(StateError, match=re.escape(message)) as error:
        ours.load_state_dict(saved)
    assert "convert=True" in error.value.hint
    assert not ours.state
    ours.load_state_dict(saved, convert=True)
    for p in params:
        assert same(ours.state[p]["exp_avg"], theirs.state[p]["exp_avg"].to(wanted))
        assert theirs.state[p]["exp_avg"].dtype is kept
    trained(ours, params, 1, 1)


def test_set_state_takes_the_dtype_that_the_state_has() -> None:
    (p,) = params = parameters(FLOAT32, [(4,)])
    opt = optim.AdamW(params, storage="bfloat16")
    opt.set_state(p, exp_avg=torch.ones(4, dtype=BFLOAT16))
    with pytest.raises(StateError, match=r"the state exp_avg: expected torch.bfloat16, got torch.float32"):
        opt.set_state(p, exp_avg=torch.ones(4))
    trained(opt, params, 1)
    assert opt.state[p]["exp_avg"].dtype is BFLOAT16


def test_a_scale_of_the_loss_is_taken_off_gradients_of_sixteen_bits() -> None:
    params = parameters(FLOAT16)
    copies = copy.deepcopy(params)
    here, there = optim.AdamW(params, storage="float32"), optim.AdamW(copies, storage="float32")
    for t in range(2):
        for i, (p, q) in enumerate(zip(params, copies, strict=True)):
            q.grad = numbers(tuple(q.shape), 10 * t + i, FLOAT16)
            p.grad = q.grad * 8
        here.grad_scale, here.found_inf = torch.tensor(8.0), torch.tensor(0.0)
        here.step()
        there.step()
    assert all(map(same, params, copies))


# ---- Storages whose neighbours share a scale ----

BLOCKS = {"storage": {"exp_avg": "log8", "exp_avg_sq": "log4"}, "seed": 2}


def test_codes_and_scales_are_a_tensor_of_bytes() -> None:
    (p,) = params = parameters(FLOAT32, [(20, 16)])
    opt = optim.AdamW(params, **BLOCKS)
    trained(opt, params, 1)
    assert {k: (x.dtype, tuple(x.shape)) for k, x in opt.state[p].items() if k.startswith("exp")} == {
        "exp_avg": (torch.uint8, (328,)), "exp_avg_sq": (torch.uint8, (172,))
    }  # fmt: skip
    array, there = numbers((20, 16), 7, FLOAT32).numpy(), optgen.AdamW(1e-3, backend="interpreter", **BLOCKS)
    there.step([array], [to_numpy(p.grad)])
    (entry,) = there.state_dict()["parameters"]
    assert same(p, array)
    for key in ("exp_avg", "exp_avg_sq"):
        assert same(opt.state[p][key], entry["state"][key])


@pytest.mark.parametrize("way", ["state_dict", "pickle", "distributed"])
def test_codes_are_saved_and_loaded(way: str) -> None:
    model, other = torch.nn.Linear(30, 20), torch.nn.Linear(30, 20)
    other.load_state_dict(model.state_dict())
    straight, here = optim.AdamW(model.parameters(), **BLOCKS), optim.AdamW(other.parameters(), **BLOCKS)
    for opt, own in ((straight, model), (here, other)):
        trained(opt, list(own.parameters()), 2)
    if way == "pickle":
        other, here = pickle.loads(pickle.dumps((other, here)))
    else:
        made = optim.AdamW(other.parameters(), **BLOCKS)
        if way == "distributed":
            dcp.set_optimizer_state_dict(other, made, copy.deepcopy(dcp.get_optimizer_state_dict(other, here)))
        else:
            made.load_state_dict(copy.deepcopy(here.state_dict()))
        here = made
    trained(straight, list(model.parameters()), 2, 2)
    trained(here, list(other.parameters()), 2, 2)
    assert all(map(same, model.parameters(), other.parameters()))
    assert all(same(straight.state[p]["exp_avg"], here.state[q]["exp_avg"])
               for p, q in zip(model.parameters(), other.parameters(), strict=True))  # fmt: skip


def test_codes_are_refused_or_converted_where_numbers_are_kept_and_the_reverse() -> None:
    params = parameters(FLOAT32)
    coded, plain = optim.AdamW(params, **BLOCKS), optim.AdamW(params)
    trained(coded, params, 2)
    saved = copy.deepcopy(coded.state_dict())
    assert saved["param_groups"][0]["storages_of_states"] == {
        "exp_avg": ["log8", 1],
        "exp_avg_sq": ["unsigned log4", 1],
    }
    with pytest.raises(StateError, match="expected exp_avg in numbers, got log8"):
        plain.load_state_dict(saved)
    plain.load_state_dict(saved, convert=True)
    assert plain.state[params[0]]["exp_avg"].shape == (7, 5)
    assert "storages_of_states" not in plain.param_groups[0]
    back = optim.AdamW(params, **BLOCKS)
    with pytest.raises(StateError, match="expected exp_avg in log8, got numbers"):
        back.load_state_dict(plain.state_dict())
    back.load_state_dict(plain.state_dict(), convert=True)
    for p in params:
        assert same(back.state[p]["exp_avg"], coded.state[p]["exp_avg"])
    saved["param_groups"][0]["storages_of_states"]["exp_avg"] = ["log8", 2]
    with pytest.raises(StateError, match="expected exp_avg in log8 of version 1, got 2"):
        coded.load_state_dict(saved)


def test_kernels_have_blocks_of_contiguous_tensors_only() -> None:
    p = torch.nn.Parameter(torch.ones(6, 5).T)
    p.grad = torch.ones_like(p)
    with pytest.raises(ArrayError, match="parameter 0: expected contiguous tensors"):
        optim.AdamW([p], storage="log8").step()
    opt = optim.Lion([p], storage="log8")  # by the interpreter
    opt.step()
    assert (p < 1).all()


# ---- What cannot be ----

REFUSED: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (
        lambda ps: optim.AdamW(ps, storage="bfloat61"),
        ArgumentError,
        r"expected one of bfloat16, float16, float32, log8, linear8, log4, got 'bfloat61'",
    ),
    (
        lambda ps: optim.AdamW(ps, storage="float8_e4m3fn"),
        ArgumentError,
        r"expected one of bfloat16.* got 'float8_e4m3fn'",
    ),
    (lambda ps: optim.AdamW(ps, storage="bf16+8"), ArgumentError, r"expected one of bfloat16.* got 'bf16\+8'"),
    (lambda ps: optim.AdamW(ps, storage={"exp_avgg": "bfloat16"}), ArgumentError, r"AdamW has no state 'exp_avgg'"),
    (
        lambda ps: optim.Adafactor(ps, storage={"row_var": "bfloat16"}),
        ArgumentError,
        r"the storage of row_var: expected a state with a value for each element",
    ),
    (
        lambda ps: optim.AdamW(ps, rounding={"p": "up"}),
        ArgumentError,
        r"the rounding of p: expected one of nearest, stochastic, got 'up'",
    ),
    (lambda ps: optim.AdamW(ps, rounding={"g": "nearest"}), ArgumentError, r"rounding: expected an array in a storage"),
    (lambda ps: optim.AdamW(ps, seed=3), ArgumentError, r"seed: expected none, since nothing of AdamW is rounded"),
    (lambda ps: optim.AdamW(ps, storage="bfloat16", seed=-1), HyperparameterError, r"seed, .*: expected .* got -1"),
    (
        lambda ps: optim.Lion(ps, storage=torch.bfloat16),
        ArgumentError,
        r"storage: expected the name of a storage, .* got torch.bfloat16",
    ),
    (
        lambda ps: optim.Muon(ps, storage="bfloat16"),
        ArgumentError,
        r"Muon: expected no storage and rounding, since it multiplies matrices",
    ),
    (lambda ps: optim.AdamW.options(storage="int8"), ArgumentError, r"expected one of bfloat16"),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED)
def test_what_no_state_can_have_is_refused(make: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(parameters(FLOAT32, [(3, 4)]))


def test_tensors_that_have_no_storage_are_refused_and_untouched() -> None:
    cases: list[tuple[Any, Any, str, str]] = [
        (
            torch.zeros(3, dtype=torch.complex64),
            None,
            "bfloat16",
            r"parameter 0: expected a parameter of real numbers, since exp_avg",
        ),
        (torch.zeros(3, dtype=FLOAT64), None, "float32", r"parameter 0: expected a parameter of float32 or of 16 bits"),
        (
            torch.zeros(3),
            torch.ones(3).to_sparse(),
            "bfloat16",
            r"expected dense tensors of real numbers .* torch.sparse_coo",
        ),
        (torch.zeros(3).to(torch.float8_e4m3fn), None, "bfloat16", r"torch.float8_e4m3fn"),
    ]
    for data, grad, storage, message in cases:
        p = torch.nn.Parameter(data)
        p.grad = torch.ones(3).to(data.dtype) if grad is None else grad
        opt = optim.AdamW([p], storage=storage)
        with pytest.raises(ArrayError, match=message):
            opt.step()
        assert not opt.state
        assert (p.detach().to(torch.complex64) == 0).all()


def test_a_parameter_of_sixteen_bits_takes_no_gradient_of_sixty_four() -> None:
    p = torch.nn.Parameter(torch.zeros(3, dtype=BFLOAT16))
    if not hasattr(p, "grad_dtype"):
        pytest.skip("this PyTorch has gradients of the dtype of their parameter alone")
    p.grad_dtype = None
    p.grad = torch.ones(3, dtype=FLOAT64)
    for opt in (optim.Lion([p]), optim.AdamW([p], storage="bfloat16")):
        with pytest.raises(ArrayError, match=r"torch.bfloat16.*torch.float64"):
            opt.step()
        assert not opt.state
